//! What the API server says of this node's name: whose the credential is, and which machine the node of the name is.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::PostParams;
use tokio::time::timeout;

use super::api_server::ApiServer;
use super::failure::NODE_USER;
use crate::pod::node_name::{KnownNode, Machine, doubt};

/// How long the API server may take for both questions.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Where a machine has its id (machine-id(5)); a kubelet reads the first that is there.
const MACHINE_IDS: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];
/// The random id of this boot of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What is known of the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NodeName {
    /// Nothing says that it is wrong.
    NotDoubted,
    /// It is wrong, for this reason.
    Doubted(String),
    /// The API server has not said what there is to know of it.
    Unknown,
}

impl ApiServer {
    /// What the API server says of the name `node_name`.
    pub(crate) async fn node_name(&self, node_name: &str) -> NodeName {
        let asked = async {
            let user = self.user().await;
            let known = self.known_node(node_name).await;
            let credential_of = user.as_deref().and_then(|user| user.strip_prefix(NODE_USER));
            // A machine that cannot be looked at is not compared.
            let machine = tokio::task::spawn_blocking(machine).await.unwrap_or_default();
            match doubt(node_name, credential_of, &known, &machine) {
                Some(doubt) => NodeName::Doubted(doubt),
                // A node's credential may read its Node.
                None if user.is_none() || credential_of.is_some() && known == KnownNode::Unknown => {
                    NodeName::Unknown
                }
                None => NodeName::NotDoubted,
            }
        };
        timeout(TIMEOUT, asked).await.unwrap_or(NodeName::Unknown)
    }

    /// Who the credential says that we are: by the API server's words, or, before Kubernetes v1.28, by the certificate's.
    async fn user(&self) -> Option<String> {
        let client = self.client().await.ok()?;
        let reviews = Api::<SelfSubjectReview>::all(client);
        let (parameters, review) = (PostParams::default(), SelfSubjectReview::default());
        match self.heard(reviews.create(&parameters, &review).await) {
            Ok(review) => review.status?.user_info?.username,
            Err(_) => self.user_by_certificate().await,
        }
    }

    async fn known_node(&self, node_name: &str) -> KnownNode {
        let Ok(client) = self.client().await else {
            return KnownNode::Unknown;
        };
        match self.heard(Api::<Node>::all(client).get(node_name).await) {
            Ok(node) => {
                let info = node.status.and_then(|status| status.node_info);
                let machine = info.map(|info| Machine {
                    id: info.machine_id,
                    boot: info.boot_id,
                });
                KnownNode::There(machine.unwrap_or_default())
            }
            Err((kube::Error::Api(status), _)) if status.code == 404 => KnownNode::Missing,
            Err(_) => KnownNode::Unknown,
        }
    }
}

/// This machine.
#[expect(
    clippy::disallowed_methods,
    reason = "the kernel's file, and two of the node's owner; on a thread that may block"
)]
fn machine() -> Machine {
    let read = |file: &str| {
        let text = std::fs::read_to_string(Path::new(file)).unwrap_or_default();
        text.trim().to_owned()
    };
    Machine {
        id: MACHINE_IDS
            .iter()
            .map(|file| read(file))
            .find(|id| !id.is_empty())
            .unwrap_or_default(),
        boot: read(BOOT_ID),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Method;
    use serde_json::{Value, json};

    use super::*;
    use crate::kubernetes::scripted::{Scripted, refusal};

    fn review(user: &str) -> (u16, Value) {
        let status = json!({"userInfo": {"username": user}});
        (
            201,
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview", "status": status}),
        )
    }

    fn node(machine: &Machine) -> (u16, Value) {
        let info = json!({"machineID": machine.id, "bootID": machine.boot, "architecture": "", "kernelVersion": "",
            "containerRuntimeVersion": "", "kubeProxyVersion": "", "kubeletVersion": "", "operatingSystem": "",
            "osImage": "", "systemUUID": ""});
        (
            200,
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {}, "status": {"nodeInfo": info}}),
        )
    }

    #[tokio::test]
    async fn the_api_server_is_asked_who_we_are_and_for_the_node() {
        let (missing, refused) = (refusal(404, "NotFound", ""), refusal(403, "Forbidden", ""));
        let other = Machine {
            id: "other".to_owned(),
            boot: "other".to_owned(),
        };
        let (ours, other) = (node(&machine()), node(&other));
        let (own, another, debuglet) = (
            review("system:node:node1"),
            review("system:node:node2"),
            review("system:serviceaccount:kube-system:debuglet"),
        );
        for (case, review, node, expected) in [
            ("all is well", &own, &ours, Ok(true)),
            ("another node's credential", &another, &refused, Err("\"node2\"")),
            ("no Node", &own, &missing, Err("has no node")),
            ("another machine", &debuglet, &other, Err("another machine")),
            ("no right to ask for the Node", &debuglet, &refused, Ok(true)),
            ("it has no roles yet", &refused, &refused, Ok(false)),
            ("nor for a node", &own, &refused, Ok(false)),
        ] {
            let (review, node) = (review.clone(), node.clone());
            let server = Scripted::start(move |method, _| {
                if method == Method::POST {
                    review.clone()
                } else {
                    node.clone()
                }
            })
            .await;
            let found = server.api_server.node_name("node1").await;
            match expected {
                Ok(true) => assert_eq!(found, NodeName::NotDoubted, "{case}"),
                Ok(false) => assert_eq!(found, NodeName::Unknown, "{case}"),
                Err(words) => {
                    assert!(
                        matches!(&found, NodeName::Doubted(doubt) if doubt.contains(words)),
                        "{case}: {found:?}"
                    );
                }
            }
        }
    }
}
