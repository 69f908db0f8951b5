//! The real kubectl against the agent's API. Each scenario also runs against a real kube-apiserver and kubelet,
//! when asked to (`integration/test --ignored on_kubernetes`): that is where what it expects was seen.

/// Makes two tests of each function that is given: one on debuglet, and one on Kubernetes for whoever changes it.
macro_rules! on_debuglet_and_kubernetes {
    ($($name:ident),+ $(,)?) => {
        mod on_debuglet {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let server = crate::kubectl::Server::debuglet(integration::ContainerdVersion::V2_4).await;
                    super::$name(&server).await;
                }
            )+
        }
        mod on_kubernetes {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[ignore = "shows that Kubernetes does what is asked of debuglet"]
                async fn $name() {
                    let server = crate::kubectl::Server::kubernetes().await;
                    super::$name(&server).await;
                }
            )+
        }
    };
}

mod debugging;
mod reading;
mod streaming;
mod writing;

use std::path::PathBuf;

use integration::kubernetes::{ControlPlane, Kubectl, KubectlVersion, Kubelet};
use integration::{Agent, ContainerdVersion, Node, sleeping_pod};
use serde_json::Value;

/// An image that every node has, under a name that no registry has to be asked about.
pub(crate) const IMAGE: &str = "--image=docker.io/library/busybox:latest";
/// Never asks a registry for what is present.
pub(crate) const IF_NOT_PRESENT: &str = "--image-pull-policy=IfNotPresent";

/// Something that serves a Kubernetes API, and the node whose pods it serves.
pub(crate) struct Server {
    kind: Kind,
    pub(crate) node: Node,
}

/// What serves it; dropped before the node that it runs in.
enum Kind {
    Debuglet(Agent),
    Kubernetes { plane: ControlPlane, _kubelet: Kubelet },
}

impl Server {
    /// The agent, on a node without any control plane.
    pub(crate) async fn debuglet(version: ContainerdVersion) -> Server {
        let node = Node::start(version).await;
        let agent = node.start_agent().await;
        Server {
            kind: Kind::Debuglet(agent),
            node,
        }
    }

    /// kube-apiserver and kubelet.
    pub(crate) async fn kubernetes() -> Server {
        let node = Node::start(ContainerdVersion::V2_4).await;
        let plane = ControlPlane::start(&node).await;
        let kubelet = Kubelet::start(&node, &plane).await;
        Server {
            kind: Kind::Kubernetes {
                plane,
                _kubelet: kubelet,
            },
            node,
        }
    }

    /// Whether it is debuglet, where that knowingly differs from Kubernetes.
    pub(crate) fn is_debuglet(&self) -> bool {
        matches!(self.kind, Kind::Debuglet(_))
    }

    /// An administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        match &self.kind {
            Kind::Debuglet(agent) => agent.kubeconfig().to_path_buf(),
            Kind::Kubernetes { plane, .. } => plane.kubeconfig(),
        }
    }

    /// An administrator's kubectl of today.
    pub(crate) fn kubectl(&self) -> Kubectl<'_> {
        Kubectl::new(&self.node, KubectlVersion::V1_36, &self.kubeconfig())
    }
}

/// A pod that sleeps, for a node that no scheduler has to choose.
pub(crate) fn pod(name: &str) -> Value {
    let mut pod = sleeping_pod(name);
    pod["metadata"]["labels"] = serde_json::json!({ "app": name });
    pod["spec"]["nodeName"] = "node1".into();
    pod
}

/// [`pod`], with another command.
pub(crate) fn pod_that_runs(name: &str, script: &str) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["command"] = serde_json::json!(["sh", "-c", script]);
    pod["spec"]["restartPolicy"] = "Never".into();
    pod
}

/// Creates a pod and waits until it is ready.
pub(crate) async fn create(kubectl: &Kubectl<'_>, pod: &Value) {
    let name = pod["metadata"]["name"].as_str().unwrap();
    let file = kubectl.file(&format!("{name}.json"), &pod.to_string());
    let created = kubectl.run(["create", "-f", &file]).await.succeeded();
    assert_eq!(created.stdout, format!("pod/{name} created\n"));
    kubectl
        .run([
            "wait",
            "--for=condition=Ready",
            &format!("pod/{name}"),
            "--timeout=60s",
        ])
        .await
        .succeeded();
}

/// A pod as it is served.
pub(crate) async fn served(kubectl: &Kubectl<'_>, name: &str) -> Value {
    let output = kubectl.run(["get", "pod", name, "-o", "json"]).await.succeeded();
    serde_json::from_str(&output.stdout).unwrap()
}

/// Waits until a pod is as told, and gives it back.
pub(crate) async fn served_until(kubectl: &Kubectl<'_>, name: &str, told: impl Fn(&Value) -> bool) -> Value {
    integration::eventually(&format!("{name} is as told"), async || {
        let pod = served(kubectl, name).await;
        if told(&pod) { Ok(pod) } else { Err(pod) }
    })
    .await
}
