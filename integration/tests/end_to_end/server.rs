//! What the scenarios of clients run against: debuglet, or the Kubernetes that it is compared with.

/// Makes two tests of each function that is given: one on debuglet, and one on Kubernetes for whoever changes it.
macro_rules! on_debuglet_and_kubernetes {
    ($($name:ident),+ $(,)?) => {
        mod on_debuglet {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let server = crate::server::Server::debuglet(integration::ContainerdVersion::V2_4).await;
                    super::$name(&server).await;
                }
            )+
        }
        mod on_kubernetes {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[ignore = "shows that Kubernetes does what is asked of debuglet"]
                async fn $name() {
                    let server = crate::server::Server::kubernetes().await;
                    super::$name(&server).await;
                }
            )+
        }
    };
}

use std::path::{Path, PathBuf};

use integration::kubernetes::{ControlPlane, Kubectl, KubectlVersion, Kubelet};
use integration::{Agent, ContainerdVersion, Node, sleeping_pod};
use serde_json::Value;

/// Something that serves a Kubernetes API, and the node whose pods it serves.
pub(crate) struct Server {
    kind: Kind,
    kubeconfig: PathBuf,
    pub(crate) node: Node,
}

/// What serves it; dropped before the node that it runs in.
enum Kind {
    Debuglet(Agent),
    Kubernetes { _plane: ControlPlane, _kubelet: Kubelet },
}

impl Server {
    /// The agent, on a node without any control plane.
    pub(crate) async fn debuglet(version: ContainerdVersion) -> Server {
        let node = Node::start(version).await;
        let agent = node.start_agent().await;
        Server {
            kubeconfig: agent.kubeconfig().await,
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
            kubeconfig: plane.kubeconfig(),
            kind: Kind::Kubernetes {
                _plane: plane,
                _kubelet: kubelet,
            },
            node,
        }
    }

    /// Ends the agent as an upgrade does, and starts it again.
    pub(crate) async fn restart_agent(&mut self) {
        let Kind::Debuglet(agent) = &mut self.kind else {
            panic!("no agent runs here");
        };
        agent.process().signal(nix::sys::signal::Signal::SIGTERM);
        assert_eq!(agent.process().ended().await, 0);
        *agent = self.node.start_agent().await;
        agent.kubeconfig().await;
    }

    /// Whether it is debuglet, where that knowingly differs from Kubernetes.
    pub(crate) fn is_debuglet(&self) -> bool {
        matches!(self.kind, Kind::Debuglet(_))
    }

    /// An administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// An administrator's kubectl of today.
    pub(crate) fn kubectl(&self) -> Kubectl<'_> {
        Kubectl::new(&self.node, KubectlVersion::V1_36, &self.kubeconfig)
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

/// A pod that gives back what it is sent on port 8080.
pub(crate) fn echoing_pod(name: &str) -> Value {
    pod_that_runs(name, "exec nc -ll -p 8080 -e cat")
}
