//! `status.ephemeralContainerStatuses` as it is written to an API server: an atomic list, so that whoever changes one
//! entry writes them all.

use k8s_openapi::api::core::v1::ContainerStatus;

/// The list `known` with `ours` in it: each in the place of the one of its name, the others behind. None where nothing
/// would be different.
pub(crate) fn with_ours(known: &[ContainerStatus], ours: &[ContainerStatus]) -> Option<Vec<ContainerStatus>> {
    let mut list = known.to_vec();
    for status in ours {
        match list.iter_mut().find(|known| known.name == status.name) {
            Some(known) => known.clone_from(status),
            None => list.push(status.clone()),
        }
    }
    (list != known).then_some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(name: &str, id: &str) -> ContainerStatus {
        ContainerStatus {
            name: name.to_owned(),
            container_id: Some(id.to_owned()),
            ..ContainerStatus::default()
        }
    }

    #[test]
    fn nobody_elses_entry_is_changed_and_ours_keep_their_places() {
        let known = [status("a", "1"), status("b", "2"), status("c", "3")];
        #[rustfmt::skip]
        let table = [
            (vec![],                                      None),
            (vec![status("b", "2")],                      None),
            (vec![status("b", "9")],                      Some(vec![status("a", "1"), status("b", "9"), status("c", "3")])),
            (vec![status("d", "4"), status("a", "8")],    Some(vec![status("a", "8"), status("b", "2"), status("c", "3"), status("d", "4")])),
        ];
        for (ours, expected) in table {
            assert_eq!(with_ours(&known, &ours), expected, "{ours:?}");
        }
    }
}
