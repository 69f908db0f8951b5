//! The names of a pod's containers, as a message lists them.

/// The end of a sentence about a container that a pod has not: which ones it has.
pub(crate) fn it_has<Name: AsRef<str>>(names: &[Name]) -> String {
    if names.is_empty() {
        // The sandbox of an external pod may be there before its first container.
        return "it has no containers at all".to_owned();
    }
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    format!("it has: {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_without_containers_is_said_to_have_none() {
        assert_eq!(it_has(&["cart", "envoy"]), "it has: cart, envoy");
        assert_eq!(it_has::<&str>(&[]), "it has no containers at all");
    }
}
