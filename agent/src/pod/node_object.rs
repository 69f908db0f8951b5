//! The node as Kubernetes' API shows it, from what is known of the machine and of the runtime.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Node as NodeObject, NodeAddress, NodeCondition, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::identity::derived_uid;
use super::node::Node;

/// How many pods a node is built and measured for. It is not a limit.
const PODS: u32 = 250;

/// The Kubernetes release whose node this is, with debuglet's own version: kubectl's VERSION column.
const VERSION: &str = concat!("v1.36.0+debuglet.", env!("CARGO_PKG_VERSION"));

/// What is known of the container runtime.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RuntimeState<'a> {
    /// What it calls itself; empty until it has answered.
    pub(crate) name: &'a str,
    /// Its version.
    pub(crate) version: &'a str,
    /// Whether it answers.
    pub(crate) ready: bool,
    /// Why not, if it does not.
    pub(crate) message: &'a str,
}

/// The node, without a resource version. It is new since `now` where `previous` has no name; its condition has changed
/// `now` where `previous` has another.
pub(crate) fn node_object(
    facts: &Node,
    runtime: &RuntimeState<'_>,
    previous: &NodeObject,
    now: Timestamp,
) -> NodeObject {
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(Timestamp::UNIX_EPOCH));
    let created = previous.metadata.creation_timestamp.clone();
    NodeObject {
        metadata: ObjectMeta {
            name: Some(facts.name.clone()),
            uid: Some(derived_uid(&["node", &facts.name])),
            labels: Some(labels(&facts.name)),
            creation_timestamp: created.or_else(|| Some(now.clone())),
            ..ObjectMeta::default()
        },
        status: Some(NodeStatus {
            addresses: Some(addresses(facts)),
            capacity: Some(capacity(facts)),
            allocatable: Some(capacity(facts)),
            conditions: Some(vec![ready(runtime, previous, now)]),
            node_info: Some(system_info(facts, runtime)),
            ..NodeStatus::default()
        }),
        ..NodeObject::default()
    }
}

fn labels(name: &str) -> BTreeMap<String, String> {
    [
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/arch", architecture()),
        ("kubernetes.io/os", std::env::consts::OS),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// The processor's name as Go and container images write it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn addresses(facts: &Node) -> Vec<NodeAddress> {
    let address = |kind: &str, address: &String| NodeAddress {
        type_: kind.to_owned(),
        address: address.clone(),
    };
    let mut addresses: Vec<NodeAddress> = facts.ips.iter().map(|ip| address("InternalIP", ip)).collect();
    addresses.push(address("Hostname", &facts.name));
    addresses
}

/// What the machine has; what cannot be read is left out.
fn capacity(facts: &Node) -> BTreeMap<String, Quantity> {
    let cpu = match facts.cpu_milli {
        milli if milli % 1000 == 0 => (milli / 1000).to_string(),
        milli => format!("{milli}m"),
    };
    let amounts = [
        ("cpu", facts.cpu_milli, cpu),
        (
            "memory",
            facts.memory_bytes,
            format!("{}Ki", facts.memory_bytes / 1024),
        ),
        (
            "ephemeral-storage",
            facts.ephemeral_storage_bytes,
            format!("{}Ki", facts.ephemeral_storage_bytes / 1024),
        ),
        ("pods", i64::from(PODS), PODS.to_string()),
    ];
    let known = amounts.into_iter().filter(|(_, amount, _)| *amount > 0);
    known
        .map(|(name, _, quantity)| (name.to_owned(), Quantity(quantity)))
        .collect()
}

fn ready(runtime: &RuntimeState<'_>, previous: &NodeObject, now: Time) -> NodeCondition {
    let status = if runtime.ready { "True" } else { "False" };
    let before = previous
        .status
        .as_ref()
        .and_then(|status| {
            status
                .conditions
                .as_ref()?
                .iter()
                .find(|condition| condition.type_ == "Ready")
        })
        .filter(|condition| condition.status == status);
    let since = before.and_then(|condition| condition.last_transition_time.clone());
    let (reason, message) = match (runtime.ready, runtime.message) {
        (true, _) => ("RuntimeReady", "the container runtime answers"),
        (false, "") => ("RuntimeNotReady", "the container runtime has not answered yet"),
        (false, message) => ("RuntimeNotReady", message),
    };
    NodeCondition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        // Said again only when it has changed: what is not new wakes nobody who watches.
        last_heartbeat_time: since.clone().or_else(|| Some(now.clone())),
        last_transition_time: since.or(Some(now)),
    }
}

fn system_info(facts: &Node, runtime: &RuntimeState<'_>) -> NodeSystemInfo {
    let system = facts.system.clone();
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        operating_system: std::env::consts::OS.to_owned(),
        boot_id: system.boot_id,
        kernel_version: system.kernel_version,
        machine_id: system.machine_id,
        os_image: system.os_image,
        system_uuid: system.system_uuid,
        container_runtime_version: match runtime.name {
            "" => String::new(),
            name => format!("{name}://{}", runtime.version.trim_start_matches('v')),
        },
        kubelet_version: VERSION.to_owned(),
        kube_proxy_version: String::new(),
        ..NodeSystemInfo::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: RuntimeState<'_> = RuntimeState {
        name: "containerd",
        version: "v2.4.2",
        ready: true,
        message: "",
    };

    fn facts() -> Node {
        Node {
            name: "node1".to_owned(),
            ips: vec!["10.0.0.7".to_owned()],
            cpu_milli: 2000,
            memory_bytes: 1 << 30,
            ..Node::default()
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn a_node_says_what_it_has_and_leaves_out_what_is_not_known() {
        let node = node_object(&facts(), &READY, &NodeObject::default(), at(60));
        let status = node.status.expect("a status");
        let capacity: Vec<(String, String)> = status
            .capacity
            .unwrap_or_default()
            .into_iter()
            .map(|(name, quantity)| (name, quantity.0))
            .collect();
        let known = [("cpu", "2"), ("memory", "1048576Ki"), ("pods", "250")];
        assert_eq!(
            capacity,
            known.map(|(name, amount)| (name.to_owned(), amount.to_owned()))
        );
        let info = status.node_info.expect("info");
        assert_eq!(info.container_runtime_version, "containerd://2.4.2");
        let addresses = status.addresses.unwrap_or_default();
        assert_eq!(
            (addresses[0].type_.as_str(), addresses[1].address.as_str()),
            ("InternalIP", "node1")
        );
    }

    #[test]
    fn a_node_is_ready_while_its_runtime_answers_and_says_since_when() {
        let first = node_object(&facts(), &READY, &NodeObject::default(), at(60));
        let lost = RuntimeState {
            ready: false,
            message: "connection refused",
            ..READY
        };
        let condition = |node: &NodeObject| -> NodeCondition {
            let status = node.status.clone().unwrap_or_default();
            status.conditions.unwrap_or_default().swap_remove(0)
        };
        let same = node_object(&facts(), &READY, &first, at(90));
        assert_eq!(same, first, "nothing has changed");
        let second = node_object(&facts(), &lost, &first, at(120));
        let told = condition(&second);
        assert_eq!(
            (told.status.as_str(), told.message.as_deref()),
            ("False", Some("connection refused"))
        );
        assert_eq!(told.last_transition_time, Some(Time(at(120))));
        assert_eq!(second.metadata.creation_timestamp, Some(Time(at(60))));
    }
}
