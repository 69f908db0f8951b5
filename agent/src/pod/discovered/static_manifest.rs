//! The manifest of a static pod: what the kubelet makes of it, and whether it describes a pod that was found. The UID
//! under which that runs is a hash of the kubelet's own structures and cannot be computed here, so that names, images,
//! commands and variables have to tell a manifest from the one before it.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};

use crate::pod::defaults;
use crate::pod::image_reference::ImageReference;

/// A manifest that describes a pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StaticManifest {
    /// The pod, as the kubelet reads it.
    pub(crate) pod: Pod,
    /// The file it stands in.
    pub(crate) file: PathBuf,
}

/// What a kubelet of the node `node_name` makes of a manifest: the name carries the node's, and what is left out has its
/// default.
pub(crate) fn as_the_kubelet_reads(mut pod: Pod, node_name: &str) -> Pod {
    defaults::pod(&mut pod);
    let name = pod.metadata.name.take().unwrap_or_default();
    pod.metadata.name = Some(format!("{name}-{}", node_name.to_lowercase()));
    pod.metadata.uid = None;
    pod.status = None;
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(node_name.to_owned());
    spec.ephemeral_containers = None;
    pod
}

/// Whether `manifest`, as the kubelet reads it, describes the pod `found` in the runtime, and not one that ran under the
/// name before or is to run after it.
pub(crate) fn describes(manifest: &Pod, found: &Pod) -> bool {
    let (Some(asked_for), Some(running)) = (&manifest.spec, &found.spec) else {
        return false;
    };
    let same_name = manifest.metadata.name == found.metadata.name
        && manifest.metadata.namespace == found.metadata.namespace;
    let all = || {
        let init = asked_for.init_containers.iter().flatten();
        asked_for.containers.iter().chain(init)
    };
    let is_described = |container: &Container| {
        all()
            .find(|one| one.name == container.name)
            .is_some_and(|one| fits(one, container))
    };
    same_name && !running.containers.is_empty() && running.containers.iter().all(is_described)
}

/// Whether a container runs what is asked for.
fn fits(asked_for: &Container, running: &Container) -> bool {
    let words = |asked_for: &Option<Vec<String>>, running: &Option<Vec<String>>| {
        let asked_for = asked_for.as_deref().unwrap_or_default();
        let running = running.as_deref().unwrap_or_default();
        asked_for.len() == running.len()
            && asked_for
                .iter()
                .zip(running)
                .all(|(one, other)| one == other || is_expanded(one))
    };
    let variable = |asked_for: &EnvVar| {
        let value = asked_for.value.as_deref().unwrap_or_default();
        let is_there =
            |one: &EnvVar| one.name == asked_for.name && one.value.as_deref().unwrap_or_default() == value;
        asked_for.value_from.is_some() || is_expanded(value) || running.env.iter().flatten().any(is_there)
    };
    same_image(asked_for, running)
        && words(&asked_for.command, &running.command)
        && words(&asked_for.args, &running.args)
        && asked_for.env.iter().flatten().all(variable)
}

/// Whether two containers name one image: some runtimes tell its name only in full.
fn same_image(one: &Container, other: &Container) -> bool {
    let name = |container: &Container| {
        let image = container.image.as_deref().unwrap_or_default();
        ImageReference::parse(image).ok()
    };
    one.image == other.image || name(one).is_some_and(|named| name(other) == Some(named))
}

/// Whether a kubelet may put something else in its place: `$(NAME)`.
fn is_expanded(text: &str) -> bool {
    text.contains('$')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(value: Value) -> Pod {
        serde_json::from_value(value).expect("a pod")
    }

    fn manifest(container: Value) -> Pod {
        let value = json!({
            "metadata": {"name": "etcd", "namespace": "kube-system"},
            "spec": {
                "initContainers": [{"name": "setup", "image": "setup:1"}],
                "containers": [container],
                "volumes": [{"name": "data", "hostPath": {"path": "/var/lib/etcd"}}],
            },
        });
        as_the_kubelet_reads(pod(value), "Node1")
    }

    fn etcd() -> Value {
        json!({
            "name": "etcd", "image": "etcd:3", "command": ["etcd", "--name=$(NAME)"], "args": ["-v"],
            "env": [{"name": "A", "value": "1"}, {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        })
    }

    #[test]
    fn a_kubelet_puts_its_nodes_name_behind_the_pods() {
        let read = manifest(etcd());
        assert_eq!(read.metadata.name.as_deref(), Some("etcd-node1"));
        let spec = read.spec.expect("a spec");
        assert_eq!(spec.node_name.as_deref(), Some("Node1"));
        assert_eq!(spec.restart_policy.as_deref(), Some("Always"), "defaults");
    }

    #[test]
    fn a_manifest_describes_a_pod_whose_containers_run_what_it_asks_for() {
        let running = json!({
            "name": "etcd", "image": "etcd:3", "command": ["etcd", "--name=etcd-node1"], "args": ["-v"],
            "env": [{"name": "KUBERNETES_PORT", "value": "x"}, {"name": "A", "value": "1"}, {"name": "NAME", "value": "etcd-node1"}],
        });
        let found = |name: &str, containers: Value| {
            pod(json!({
                "metadata": {"name": name, "namespace": "kube-system", "uid": "h1"},
                "spec": {"containers": containers},
            }))
        };
        let with = |field: &str, value: Value| {
            let mut changed = running.clone();
            changed[field] = value;
            json!([changed])
        };
        let setup = json!({"name": "setup", "image": "setup:1"});
        for (what, found, expected) in [
            ("the same", found("etcd-node1", json!([running])), true),
            (
                "with its init container",
                found("etcd-node1", json!([setup, running])),
                true,
            ),
            ("another name", found("etcd", json!([running])), false),
            (
                "its image in full",
                found("etcd-node1", with("image", json!("docker.io/library/etcd:3"))),
                true,
            ),
            (
                "another image",
                found("etcd-node1", with("image", json!("etcd:4"))),
                false,
            ),
            (
                "another command",
                found("etcd-node1", with("command", json!(["etcd", "x", "y"]))),
                false,
            ),
            (
                "other arguments",
                found("etcd-node1", with("args", json!(["-q"]))),
                false,
            ),
            (
                "another variable",
                found("etcd-node1", with("env", json!([{"name": "A", "value": "2"}]))),
                false,
            ),
            (
                "a container more",
                found("etcd-node1", json!([running, {"name": "b", "image": "b"}])),
                false,
            ),
            ("nothing to go by", found("etcd-node1", json!([])), false),
        ] {
            assert_eq!(describes(&manifest(etcd()), &found), expected, "{what}");
        }
    }
}
