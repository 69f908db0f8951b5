//! A discovered pod with what others know of it: the API server, or the manifest that the kubelet made it from.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::Owner;
use super::static_manifest::StaticManifest;
use crate::pod::identity::PodKey;
use crate::pod::labels;

/// Says on a served pod that somebody else runs where its spec is known from; its state is always the runtime's.
pub(crate) const SPEC_FROM_ANNOTATION: &str = "debuglet.io/spec-from";
/// Its value, or its beginning, where the API server knows the pod.
const OF_API_SERVER: &str = "API server";

/// Its value for a pod that was not looked at since the agent's start.
const KEPT: &str = "kept on disk";

/// Whether what the API server says under `known` is said of the pod `here` that `owner` runs. Whoever may create pods
/// may write annotations into them, so the name counts too, and a mirror pod stands only for a static pod: for the one
/// whose hash it carries (annotation `kubernetes.io/config.mirror`). Of another client's pod the API server knows nothing.
pub(crate) fn is_said_of(known: &Pod, here: &PodKey, owner: Owner) -> bool {
    let metadata = &known.metadata;
    let uid = match owner {
        Owner::Kubelet => metadata.uid.as_ref(),
        Owner::StaticPod => metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(labels::CONFIG_MIRROR)),
        Owner::Cri => None,
    };
    uid == Some(&here.uid)
        && metadata.namespace.as_ref() == Some(&here.namespace)
        && metadata.name.as_ref() == Some(&here.name)
}

/// What is known of a discovered pod, and by whom.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Known {
    /// What the runtime alone shows of it, or, until it was looked at since the agent's start, what was kept of it on disk.
    pub(crate) found: Option<Arc<Pod>>,
    /// The sandbox that it was found in: the one that its debug containers join. `None` where it was not found since the
    /// agent started.
    pub(crate) sandbox_id: Option<String>,
    /// Whether `found` was kept on disk: then it is what was shown when it was written down, whoever told it.
    pub(crate) kept: bool,
    /// The manifest that describes it.
    pub(crate) manifest: Option<Arc<StaticManifest>>,
    /// What the API server says of it.
    pub(crate) kubernetes: Option<Arc<Pod>>,
    /// Since when the API server has not been heard of; none while it is.
    pub(crate) as_of: Option<Timestamp>,
}

impl Known {
    /// What is known of a pod that was kept on disk, until the runtime has been looked at.
    pub(crate) fn kept(pod: Arc<Pod>) -> Known {
        Known {
            found: Some(pod),
            kept: true,
            ..Known::default()
        }
    }

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
            (Some(_), None, _) => OF_API_SERVER.to_owned(),
            (Some(_), Some(time), _) => {
                let time = Timestamp::from_second(time.as_second()).unwrap_or(time);
                format!("{OF_API_SERVER} as of {time}")
            }
            (None, _, Some(manifest)) => format!("manifest {}", manifest.file.display()),
            (None, _, None) if self.kept => KEPT.to_owned(),
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
    fn what_the_api_server_says_is_of_the_pod_of_that_name_whose_uid_or_hash_it_has() {
        use Owner::{Cri, Kubelet, StaticPod};
        let here = |uid: &str| PodKey {
            namespace: "shop".to_owned(),
            name: "till".to_owned(),
            uid: uid.to_owned(),
        };
        let own = json!({"metadata": {"namespace": "shop", "name": "till", "uid": "u1"}});
        let mirror = json!({"metadata": {
            "namespace": "shop", "name": "till", "uid": "u1", "annotations": {"kubernetes.io/config.mirror": "h1"},
        }});
        let changed = |pod: &serde_json::Value, field: &str| {
            let mut pod = pod.clone();
            pod["metadata"][field] = json!("other");
            pod
        };
        for (known, uid, owner, expected) in [
            (own.clone(), "u1", Kubelet, true),
            (own.clone(), "u2", Kubelet, false),
            (own.clone(), "u1", StaticPod, false),
            (own.clone(), "u1", Cri, false),
            (changed(&own, "namespace"), "u1", Kubelet, false),
            (changed(&own, "name"), "u1", Kubelet, false),
            (mirror.clone(), "h1", StaticPod, true),
            (mirror.clone(), "h1", Kubelet, false),
            (mirror.clone(), "h1", Cri, false),
            (mirror.clone(), "u1", Kubelet, true),
            (changed(&mirror, "namespace"), "h1", StaticPod, false),
            (changed(&mirror, "name"), "h1", StaticPod, false),
        ] {
            assert_eq!(
                is_said_of(&pod(known.clone()), &here(uid), owner),
                expected,
                "{uid} {owner:?} {known}"
            );
        }
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
