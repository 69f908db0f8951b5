//! What becomes of a pod that a client creates: what it may say, and what is filled in.

use k8s_openapi::api::core::v1::Pod;

use super::field_error::{Cause, FieldError};
use super::{defaults, source, validation};

/// The pod without what only a server writes, and copies of served pods carry along.
pub(crate) fn as_wished(mut pod: Pod) -> Pod {
    pod.status = None;
    let metadata = &mut pod.metadata;
    metadata.creation_timestamp = None;
    metadata.deletion_grace_period_seconds = None;
    metadata.deletion_timestamp = None;
    metadata.generation = None;
    metadata.managed_fields = None;
    metadata.resource_version = None;
    metadata.self_link = None;
    source::strip(metadata);
    pod
}

/// The pod that a client wants to create on the node `node_name`, with its defaults; or every field that stands in
/// the way. Its name and namespace are set; its UID and its time are still to come.
pub(crate) fn prepare(pod: Pod, node_name: &str) -> Result<Pod, Vec<FieldError>> {
    let mut pod = as_wished(pod);
    pod.metadata.uid = None;
    defaults::pod(&mut pod);
    let mut errors = validation::pod(&pod);
    if pod
        .metadata
        .finalizers
        .as_ref()
        .is_some_and(|all| !all.is_empty())
    {
        let message = "is not supported: a pod goes when it is deleted, and waits for nobody";
        errors.push(FieldError::new(
            "metadata.finalizers",
            Cause::NotSupported,
            message,
        ));
    }
    let spec = pod.spec.get_or_insert_default();
    match spec.node_name.as_deref().unwrap_or_default() {
        "" => spec.node_name = Some(node_name.to_owned()),
        name if name == node_name => {}
        other => {
            let message = format!("{other:?} is another node: pods created here run on {node_name:?}");
            errors.push(FieldError::new("spec.nodeName", Cause::Invalid, message));
        }
    }
    let ephemeral = spec.ephemeral_containers.take();
    if ephemeral.is_some_and(|all| !all.is_empty()) {
        let message = "cannot be set when a pod is created; add them on its ephemeralcontainers subresource";
        errors.push(FieldError::new(
            "spec.ephemeralContainers",
            Cause::Forbidden,
            message,
        ));
    }
    if errors.is_empty() {
        errors = validation::unsupported(&pod);
    }
    if errors.is_empty() { Ok(pod) } else { Err(errors) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod() -> Value {
        json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"containers": [{"name": "main", "image": "busybox"}]},
        })
    }

    fn prepared(pod: Value) -> Result<Pod, Vec<(String, Cause)>> {
        prepare(serde_json::from_value(pod).unwrap(), "node1").map_err(|errors| {
            errors
                .into_iter()
                .map(|error| (error.field, error.cause))
                .collect()
        })
    }

    #[test]
    fn a_pod_gets_its_node_and_loses_what_a_server_wrote() {
        let mut copied = pod();
        copied["metadata"]["uid"] = json!("u1");
        copied["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        copied["metadata"]["annotations"] = json!({"debuglet.io/source": "manifest", "mine": "1"});
        copied["status"] = json!({"phase": "Running"});
        let pod = prepared(copied).unwrap();
        assert_eq!(
            serde_json::to_value(&pod.metadata).unwrap(),
            json!({"name": "web", "namespace": "default", "annotations": {"mine": "1"}})
        );
        assert_eq!(pod.status, None);
        assert_eq!(pod.spec.unwrap().node_name.as_deref(), Some("node1"));
    }

    #[test]
    fn what_stands_in_the_way_of_a_pod_is_named_by_its_field() {
        for (pointer, value, field, cause) in [
            (
                "/metadata/finalizers",
                json!(["a/b"]),
                "metadata.finalizers",
                Cause::NotSupported,
            ),
            ("/spec/nodeName", json!("node2"), "spec.nodeName", Cause::Invalid),
            (
                "/spec/ephemeralContainers",
                json!([{"name": "dbg", "image": "busybox"}]),
                "spec.ephemeralContainers",
                Cause::Forbidden,
            ),
            ("/metadata/name", json!("Web"), "metadata.name", Cause::Invalid),
            (
                "/spec/activeDeadlineSeconds",
                json!(9),
                "spec.activeDeadlineSeconds",
                Cause::NotSupported,
            ),
        ] {
            let mut pod = pod();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            pod.pointer_mut(parent).unwrap()[key] = value;
            assert_eq!(prepared(pod), Err(vec![(field.to_owned(), cause)]), "{pointer}");
        }
    }
}
