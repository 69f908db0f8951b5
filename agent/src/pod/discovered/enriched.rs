//! A discovered pod with what others know of it: the API server, or the manifest that the kubelet made it from.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::static_manifest::StaticManifest;
use crate::pod::labels;

/// Says on a served pod that somebody else runs where its spec is known from; its state is always the runtime's.
pub(crate) const SPEC_FROM_ANNOTATION: &str = "debuglet.io/spec-from";

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

/// What is known of a discovered pod, and by whom.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Known {
    /// What the runtime alone shows of it.
    pub(crate) found: Option<Arc<Pod>>,
    /// The manifest that describes it.
    pub(crate) manifest: Option<Arc<StaticManifest>>,
    /// What the API server says of it.
    pub(crate) kubernetes: Option<Arc<Pod>>,
    /// Since when the API server has not been heard of; none while it is.
    pub(crate) as_of: Option<Timestamp>,
}

impl Known {
    /// The pod by all of them together: its UID is the runtime's, its spec the API server's, else the manifest's, and its
    /// ephemeral containers are not part of it. `None` where the runtime has not shown it yet.
    pub(crate) fn pod(&self) -> Option<Pod> {
        let found = self.found.as_deref()?;
        if let Some(known) = &self.kubernetes {
            return Some(enriched(found, known));
        }
        let Some(manifest) = &self.manifest else {
            return Some(found.clone());
        };
        let mut pod = enriched(found, &manifest.pod);
        // What the kubelet has added.
        let annotations = pod.metadata.annotations.get_or_insert_default();
        for (name, value) in found.metadata.annotations.iter().flatten() {
            annotations.entry(name.clone()).or_insert_with(|| value.clone());
        }
        Some(pod)
    }

    /// Where the spec is from, in words.
    pub(crate) fn spec_from(&self) -> String {
        match (&self.kubernetes, self.as_of, &self.manifest) {
            (Some(_), None, _) => "API server".to_owned(),
            (Some(_), Some(time), _) => {
                let time = Timestamp::from_second(time.as_second()).unwrap_or(time);
                format!("API server as of {time}")
            }
            (None, _, Some(manifest)) => format!("manifest {}", manifest.file.display()),
            (None, _, None) => "runtime".to_owned(),
        }
    }
}

/// The pod `found` in the runtime with the spec under which it is `known`.
fn enriched(found: &Pod, known: &Pod) -> Pod {
    let mut pod = known.clone();
    let metadata = &mut pod.metadata;
    metadata.uid.clone_from(&found.metadata.uid);
    metadata.managed_fields = None;
    // Served pods have versions of their own.
    metadata.resource_version = None;
    if metadata.creation_timestamp.is_none() {
        metadata
            .creation_timestamp
            .clone_from(&found.metadata.creation_timestamp);
    }
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

    fn found() -> Arc<Pod> {
        Arc::new(pod(json!({
            "metadata": {"uid": "h1", "creationTimestamp": "2026-11-22T00:00:00Z", "annotations": {"seen": "1"}},
            "spec": {"containers": []},
        })))
    }

    #[test]
    fn a_pod_of_the_api_server_keeps_the_uid_it_has_in_the_runtime() {
        let kubernetes = pod(json!({
            "metadata": {
                "uid": "u1", "labels": {"a": "b"}, "resourceVersion": "7",
                "creationTimestamp": "2026-11-21T00:00:00Z",
            },
            "spec": {"containers": [{"name": "main"}], "ephemeralContainers": [{"name": "debugger"}]},
            "status": {"phase": "Running"},
        }));
        let known = Known {
            found: Some(found()),
            kubernetes: Some(Arc::new(kubernetes)),
            ..Known::default()
        };
        let expected = pod(json!({
            "metadata": {"uid": "h1", "labels": {"a": "b"}, "creationTimestamp": "2026-11-21T00:00:00Z"},
            "spec": {"containers": [{"name": "main"}]},
        }));
        assert_eq!(known.pod(), Some(expected));
    }

    #[test]
    fn the_api_server_knows_better_than_a_manifest_and_that_better_than_the_runtime() {
        let manifest = StaticManifest {
            pod: pod(
                json!({"metadata": {"name": "etcd-node1"}, "spec": {"containers": [], "hostNetwork": true}}),
            ),
            file: "/etc/kubernetes/manifests/etcd.yaml".into(),
        };
        let mut known = Known {
            found: Some(found()),
            ..Known::default()
        };
        assert_eq!(
            (known.pod(), known.spec_from().as_str()),
            (Some(Pod::clone(&found())), "runtime")
        );
        known.manifest = Some(Arc::new(manifest));
        let expected = pod(json!({
            "metadata": {
                "name": "etcd-node1", "uid": "h1", "creationTimestamp": "2026-11-22T00:00:00Z",
                "annotations": {"seen": "1"},
            },
            "spec": {"containers": [], "hostNetwork": true},
        }));
        assert_eq!(known.pod(), Some(expected));
        assert_eq!(known.spec_from(), "manifest /etc/kubernetes/manifests/etcd.yaml");
        known.kubernetes = Some(Arc::new(pod(
            json!({"metadata": {"name": "a"}, "spec": {"containers": []}}),
        )));
        assert_eq!(known.spec_from(), "API server");
        assert_eq!(
            known.pod().and_then(|pod| pod.metadata.name).as_deref(),
            Some("a")
        );
        known.as_of = Some("2026-11-22T00:11:12.7Z".parse().expect("a time"));
        assert_eq!(known.spec_from(), "API server as of 2026-11-22T00:11:12Z");
        assert_eq!(Known::default().pod(), None, "the runtime has not shown it");
    }
}
