//! One list in two places: the ephemeral containers of which there are records here, and those that the API's pod has.
//! Neither place can remove what the other has, and each entry stays whose it was.

use k8s_openapi::api::core::v1::Pod;

use crate::pod::labels;
use crate::pod::record::Record;
use crate::pod::same_container::same;

/// How a record's entry stands to what the API's pod has under its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is only here.
    Here,
    /// It is in both, and is the same.
    Both,
    /// The name means something else there.
    Differs,
}

/// Where the entry of `record` is; `known` is the pod as the API server knows it.
pub(crate) fn place(record: &Record, known: &Pod) -> Place {
    let spec = known.spec.as_ref();
    let mut theirs = spec
        .and_then(|spec| spec.ephemeral_containers.as_ref())
        .into_iter()
        .flatten();
    match theirs.find(|container| container.name == record.spec.name) {
        None => Place::Here,
        Some(container) if same(container, &record.spec) => Place::Both,
        Some(_) => Place::Differs,
    }
}

/// Whether the API server's `known` is a pod that can be given ephemeral containers there: not one that stands for a
/// static pod, and not one that is going.
pub(crate) fn takes_additions(known: &Pod) -> bool {
    let annotations = known.metadata.annotations.as_ref();
    let mirror = annotations.is_some_and(|annotations| annotations.contains_key(labels::CONFIG_MIRROR));
    !mirror && known.metadata.deletion_timestamp.is_none()
}

/// Whether `news` of a pod was sent before what is known already. Versions of one object are compared as numbers
/// (KEP-5504); what is none is taken as it comes.
pub(crate) fn is_older(news: &Pod, known: &Pod) -> bool {
    let version = |pod: &Pod| pod.metadata.resource_version.as_deref()?.parse::<u128>().ok();
    match (version(news), version(known)) {
        (Some(news_version), Some(known_version)) => {
            news.metadata.uid == known.metadata.uid && news_version < known_version
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::EphemeralContainer;
    use serde_json::{Value, json};

    use super::*;
    use crate::pod::defaults;
    use crate::pod::record::{Origin, Phase};
    use crate::pod::same_container::table;

    fn record(spec: Value) -> Record {
        let mut spec: EphemeralContainer = serde_json::from_value(spec).expect("a container");
        defaults::ephemeral_container(&mut spec);
        Record {
            spec,
            order: 0,
            origin: Origin::Api,
            asked_by: None,
            copy_mounts: None,
            phase: Phase::Accepted,
        }
    }

    fn pod(value: Value) -> Pod {
        serde_json::from_value(value).expect("a pod")
    }

    #[test]
    fn a_name_is_here_in_both_places_or_means_two_things() {
        let record = record(json!({"name": "debugger", "image": "busybox:1", "command": ["sh"]}));
        let with =
            |containers: Value| pod(json!({"spec": {"containers": [], "ephemeralContainers": containers}}));
        for theirs in [json!([]), json!([{"name": "other", "image": "busybox:1"}])] {
            assert_eq!(place(&record, &with(theirs.clone())), Place::Here, "{theirs}");
        }
        for (more, same) in table::rows() {
            let theirs = serde_json::to_value(table::container(&more)).expect("JSON");
            let expected = if same { Place::Both } else { Place::Differs };
            assert_eq!(place(&record, &with(json!([theirs]))), expected, "{more}");
        }
        assert_eq!(place(&record, &Pod::default()), Place::Here);
    }

    #[test]
    fn static_pods_and_pods_that_go_take_no_additions() {
        assert!(takes_additions(&pod(json!({"metadata": {"uid": "u1"}}))));
        let mirror = json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "h1"}}});
        assert!(!takes_additions(&pod(mirror)));
        let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        assert!(!takes_additions(&pod(going)));
    }

    #[test]
    fn news_is_older_by_its_version_where_it_is_of_the_same_pod() {
        let at =
            |uid: &str, version: &str| pod(json!({"metadata": {"uid": uid, "resourceVersion": version}}));
        for (news, known, expected) in [
            (at("u1", "9"), at("u1", "10"), true),
            (at("u1", "10"), at("u1", "10"), false),
            (at("u1", "11"), at("u1", "10"), false),
            (at("u2", "9"), at("u1", "10"), false),
            (at("u1", "x"), at("u1", "10"), false),
        ] {
            assert_eq!(is_older(&news, &known), expected, "{news:?} {known:?}");
        }
    }
}
