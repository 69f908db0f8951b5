//! `nodes`: what this node is selected by, and its table.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::resource::Resource;
use super::selectors::{Field, text};
use super::table::Column;
use crate::pod::age;

/// A label of a role: the role is what comes after it.
const ROLE_LABELS: &str = "node-role.kubernetes.io/";
/// The older label, whose value is the role.
const ROLE_LABEL: &str = "kubernetes.io/role";

impl Resource for Node {
    const FIELDS: &'static [Field<Node>] = &[
        ("metadata.name", |node| text(node.metadata.name.as_ref())),
        ("spec.unschedulable", |node| match is_unschedulable(node) {
            true => "true",
            false => "false",
        }),
    ];

    const COLUMNS: &'static [Column] = &[
        Column::name("The node's name."),
        Column::new("Status", "Whether the node is ready, and takes new pods."),
        Column::new("Roles", "What the node is for."),
        Column::new("Age", "How long the agent has been there."),
        Column::new(
            "Version",
            "The Kubernetes release that the node is like, and the agent's own version.",
        ),
        Column::new(
            "Internal-IP",
            "The address at which others in its network reach the node.",
        )
        .wide(),
        Column::new("External-IP", "The address at which others reach the node.").wide(),
        Column::new("OS-Image", "The node's system.").wide(),
        Column::new("Kernel-Version", "The release of its kernel.").wide(),
        Column::new("Container-Runtime", "The container runtime and its version.").wide(),
    ];

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let created = self.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let status = self.status.clone().unwrap_or_default();
        let info = status.node_info.unwrap_or_default();
        let address = |kind: &str| {
            let addresses = status.addresses.iter().flatten();
            let mut of_kind = addresses.filter(|address| address.type_ == kind);
            json!(
                of_kind
                    .next()
                    .map_or("<none>", |address| address.address.as_str())
            )
        };
        let or_unknown = |value: &str| {
            if value.is_empty() {
                "<unknown>".to_owned()
            } else {
                value.to_owned()
            }
        };
        let kernel = match info.architecture.as_str() {
            "" => or_unknown(&info.kernel_version),
            architecture => format!("{} ({architecture})", or_unknown(&info.kernel_version)),
        };
        vec![
            json!(self.metadata.name.as_deref().unwrap_or_default()),
            json!(state(self)),
            json!(roles(self)),
            json!(age::since(created, now)),
            json!(info.kubelet_version),
            address("InternalIP"),
            address("ExternalIP"),
            json!(or_unknown(&info.os_image)),
            json!(kernel),
            json!(or_unknown(&info.container_runtime_version)),
        ]
    }
}

fn is_unschedulable(node: &Node) -> bool {
    node.spec
        .as_ref()
        .is_some_and(|spec| spec.unschedulable == Some(true))
}

/// `Ready`, `NotReady,SchedulingDisabled`, ...
fn state(node: &Node) -> String {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    let ready = match conditions.find(|condition| condition.type_ == "Ready") {
        Some(condition) if condition.status == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    if is_unschedulable(node) {
        format!("{ready},SchedulingDisabled")
    } else {
        ready.to_owned()
    }
}

fn roles(node: &Node) -> String {
    let labels = node.metadata.labels.iter().flatten();
    let roles: BTreeSet<&str> = labels
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_LABELS) {
            Some(role) => Some(role),
            None => (key == ROLE_LABEL).then_some(value.as_str()),
        })
        .filter(|role| !role.is_empty())
        .collect();
    if roles.is_empty() {
        return "<none>".to_owned();
    }
    Vec::from_iter(roles).join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_row_of_a_node_says_whether_it_is_ready_and_what_it_runs() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "node1", "creationTimestamp": "2026-11-20T04:00:00Z", "labels": {
                "node-role.kubernetes.io/worker": "", "kubernetes.io/role": "edge"}},
            "spec": {"unschedulable": true},
            "status": {
                "addresses": [{"type": "Hostname", "address": "node1"}, {"type": "InternalIP", "address": "10.0.0.7"}],
                "conditions": [{"type": "Ready", "status": "False"}],
                "nodeInfo": {"architecture": "amd64", "bootID": "", "containerRuntimeVersion": "containerd://2.4.2",
                    "kernelVersion": "6.1.0", "kubeProxyVersion": "", "kubeletVersion": "v1.36.0",
                    "machineID": "", "operatingSystem": "linux", "osImage": "", "systemUUID": ""},
            },
        }))
        .expect("a node");
        let now = "2026-11-21T04:00:00Z".parse().expect("a time");
        let expected = [
            "node1",
            "NotReady,SchedulingDisabled",
            "edge,worker",
            "24h",
            "v1.36.0",
            "10.0.0.7",
            "<none>",
            "<unknown>",
            "6.1.0 (amd64)",
            "containerd://2.4.2",
        ];
        assert_eq!(node.cells(now), expected.map(|cell| json!(cell)));
    }
}
