//! A container of a pod, as an event's `involvedObject.fieldPath` names it.

use std::fmt;

use k8s_openapi::api::core::v1::{Container, Pod};

/// A container by its kind and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ContainerPath {
    /// `spec.containers{NAME}`.
    Ordinary(String),
    /// `spec.initContainers{NAME}`.
    Init(String),
    /// `spec.ephemeralContainers{NAME}`.
    Ephemeral(String),
}

impl ContainerPath {
    /// The container of this name; one that is neither an ordinary nor an init container of `pod` is ephemeral.
    pub(crate) fn of(pod: &Pod, name: &str) -> ContainerPath {
        let spec = pod.spec.as_ref();
        let is_in = |list: Option<&Vec<Container>>| {
            list.is_some_and(|list| list.iter().any(|container| container.name == name))
        };
        let name = name.to_owned();
        if is_in(spec.map(|spec| &spec.containers)) {
            ContainerPath::Ordinary(name)
        } else if is_in(spec.and_then(|spec| spec.init_containers.as_ref())) {
            ContainerPath::Init(name)
        } else {
            ContainerPath::Ephemeral(name)
        }
    }
}

impl fmt::Display for ContainerPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (list, name) = match self {
            ContainerPath::Ordinary(name) => ("containers", name),
            ContainerPath::Init(name) => ("initContainers", name),
            ContainerPath::Ephemeral(name) => ("ephemeralContainers", name),
        };
        write!(formatter, "spec.{list}{{{name}}}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_container_is_named_as_a_kubelet_names_it() {
        let pod = json!({"spec": {"containers": [{"name": "main"}], "initContainers": [{"name": "setup"}]}});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        for (name, expected) in [
            ("main", "spec.containers{main}"),
            ("setup", "spec.initContainers{setup}"),
            ("dbg", "spec.ephemeralContainers{dbg}"),
        ] {
            assert_eq!(ContainerPath::of(&pod, name).to_string(), expected);
        }
    }
}
