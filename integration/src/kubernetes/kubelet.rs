//! A kubelet in a private node.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use super::{ControlPlane, Kubectl, KubectlVersion};
use crate::eventually::eventually_within;
use crate::node::Node;
use crate::parts;
use crate::process::Process;

/// Longer than the registration of a node takes on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// A running kubelet, which knows its node as `node1`. Killed when dropped; its containers go on.
#[derive(Debug)]
pub struct Kubelet {
    process: Process,
}

impl Kubelet {
    /// Starts a kubelet of the control plane, with everything it keeps in the node's folder, and waits until its
    /// node is ready.
    pub async fn start(node: &Node, plane: &ControlPlane) -> Kubelet {
        let kubelet = Kubelet::launch(node, &Kubelet::static_pods(node), Some(&plane.node_kubeconfig()));
        let kubectl = Kubectl::new(node, KubectlVersion::V1_36, &plane.kubeconfig());
        eventually_within(READY_WITHIN, "the kubelet's node is ready", async || {
            let process = &kubelet.process;
            assert!(process.runs(), "kubelet ended:\n{}", process.stderr());
            let ready = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
            let output = kubectl.run(["get", "node", "node1", "-o", ready]).await;
            if output.stdout == "True" {
                Ok(())
            } else {
                Err(output)
            }
        })
        .await;
        // Controllers would take it away; a pod that does not tolerate it would not be let in. A kubelet that is started
        // again finds it gone.
        let removed = kubectl
            .run(["taint", "node", "node1", "node.kubernetes.io/not-ready-"])
            .await;
        if !removed.stderr.contains("not found") {
            removed.succeeded();
        }
        kubelet
    }

    /// Starts a kubelet that has no control plane, only static pods, and waits until it is healthy.
    pub async fn start_alone(node: &Node) -> Kubelet {
        let kubelet = Kubelet::launch(node, &Kubelet::static_pods(node), None);
        kubelet.healthy(node).await;
        kubelet
    }

    /// Starts a kubelet without waiting for anything. The folder of its static pods is as the node sees it, and the
    /// API server that its kubeconfig names need not be there.
    pub fn launch(node: &Node, static_pods: &Path, kubeconfig: Option<&Path>) -> Kubelet {
        let folder = node.folder().join("kubelet");
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("configuration.json");
        std::fs::write(&file, kubelet_configuration(&node.runtime_socket(), static_pods)).unwrap();
        let mut command = Command::new(parts::built("kubernetes/kubelet"));
        command
            .arg("--config")
            .arg(file)
            .arg("--root-dir")
            .arg(folder.join("root"))
            .arg("--cert-dir")
            .arg(folder.join("certificates"))
            .args(["--hostname-override=node1", "--node-ip=10.88.0.1"])
            // Events are in its log from 3 on.
            .arg("-v=3")
            .stdin(Stdio::null());
        if let Some(kubeconfig) = kubeconfig {
            command.arg("--kubeconfig").arg(kubeconfig);
        }
        Kubelet {
            process: node.spawn(command),
        }
    }

    /// The folder of its static pods, unless it is launched with another.
    pub fn static_pods(node: &Node) -> PathBuf {
        let folder = node.folder().join("kubelet/static-pods");
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// Waits until its health port says that it is well.
    pub async fn healthy(&self, node: &Node) {
        eventually_within(READY_WITHIN, "the kubelet is healthy", async || {
            assert!(self.process.runs(), "kubelet ended:\n{}", self.process.stderr());
            let health = "http://127.0.0.1:10248/healthz";
            let output = node.run(["busybox", "wget", "-qO-", health]).await;
            if output.stdout == "ok" {
                Ok(())
            } else {
                Err(output)
            }
        })
        .await;
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Asks it to stop, as systemd does, and waits for its end; its containers go on.
    pub async fn stop(self) {
        self.process.signal(nix::sys::signal::Signal::SIGTERM);
        self.process.ended().await;
    }

    /// Ends it as `kill -9` does; its containers go on.
    pub async fn kill(self) {
        self.process.kill().await;
    }
}

/// A kubelet's configuration: as on a node, but for what a machine of tests has not got.
pub fn kubelet_configuration(runtime_socket: &Path, static_pods: &Path) -> String {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{}", runtime_socket.display()),
        "staticPodPath": static_pods,
        "cgroupDriver": "cgroupfs",
        "failSwapOn": false,
        "failCgroupV1": false,
        "enforceNodeAllocatable": [],
        // However full the machine's disk is, images stay and pods are not evicted.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": { "nodefs.available": "0%", "imagefs.available": "0%", "memory.available": "1Mi" },
        "imagePullCredentialsVerificationPolicy": "NeverVerify",
        "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
        "authorization": { "mode": "AlwaysAllow" },
        "clusterDNS": ["10.96.0.10"],
        "clusterDomain": "cluster.local",
    })
    .to_string()
}
