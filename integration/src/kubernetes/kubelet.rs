//! A kubelet in a private node.

use std::path::Path;
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
        let folder = node.folder().join("kubelet");
        std::fs::create_dir_all(folder.join("static-pods")).unwrap();
        let file = folder.join("configuration.json");
        std::fs::write(&file, configuration(node, &folder)).unwrap();
        let mut command = Command::new(parts::built("kubernetes/kubelet"));
        command
            .arg("--config")
            .arg(file)
            .arg("--kubeconfig")
            .arg(plane.node_kubeconfig())
            .arg("--root-dir")
            .arg(folder.join("root"))
            .arg("--cert-dir")
            .arg(folder.join("certificates"))
            .args(["--hostname-override=node1", "--node-ip=10.88.0.1"])
            .stdin(Stdio::null());
        let kubelet = Kubelet {
            process: node.spawn(command),
        };
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

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// The kubelet's configuration: as on a node, but for what a machine of tests has not got.
fn configuration(node: &Node, folder: &Path) -> String {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{}", node.runtime_socket().display()),
        "staticPodPath": folder.join("static-pods"),
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
