//! A discovered pod with what the API server knows of it.

use k8s_openapi::api::core::v1::Pod;

use crate::pod::labels;

/// The UID under which the runtime knows a pod of the API server: a mirror pod stands for the static pod whose hash it
/// carries (annotation `kubernetes.io/config.mirror`).
pub(crate) fn uid_in_runtime(pod: &Pod) -> &str {
    let metadata = &pod.metadata;
    let mirrored = metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(labels::CONFIG_MIRROR));
    mirrored.or(metadata.uid.as_ref()).map_or("", String::as_str)
}

/// The pod `found` in the runtime, as `known` to the API server: its UID stays, and its ephemeral containers are not part
/// of it.
pub(crate) fn enriched(found: &Pod, known: &Pod) -> Pod {
    let mut pod = known.clone();
    pod.metadata.uid.clone_from(&found.metadata.uid);
    pod.metadata.managed_fields = None;
    pod.status = None;
    if let Some(spec) = &mut pod.spec {
        spec.ephemeral_containers = None;
    }
    pod
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(value: serde_json::Value) -> Pod {
        serde_json::from_value(value).expect("a pod")
    }

    #[test]
    fn a_mirror_pod_is_the_static_pod_whose_hash_it_carries() {
        let own = json!({"metadata": {"uid": "u1"}});
        assert_eq!(uid_in_runtime(&pod(own)), "u1");
        let mirror = json!({"metadata": {"uid": "u1", "annotations": {"kubernetes.io/config.mirror": "h1"}}});
        assert_eq!(uid_in_runtime(&pod(mirror)), "h1");
    }

    #[test]
    fn a_known_pod_keeps_the_uid_it_has_in_the_runtime() {
        let found = pod(json!({"metadata": {"uid": "h1"}, "spec": {"containers": []}}));
        let known = pod(json!({
            "metadata": {"uid": "u1", "labels": {"a": "b"}},
            "spec": {"containers": [{"name": "main"}], "ephemeralContainers": [{"name": "debugger"}]},
            "status": {"phase": "Running"},
        }));
        let expected = pod(json!({
            "metadata": {"uid": "h1", "labels": {"a": "b"}},
            "spec": {"containers": [{"name": "main"}]},
        }));
        assert_eq!(enriched(&found, &known), expected);
    }
}
