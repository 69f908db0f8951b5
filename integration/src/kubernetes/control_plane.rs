//! A control plane of one's own: one etcd and one kube-apiserver in a private node, without a scheduler and without
//! controllers. A pod that names its node needs neither.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::eventually::eventually_within;
use crate::node::Node;
use crate::parts;
use crate::process::Process;

/// Every node has a network of its own, so the ports can be fixed.
const ETCD: &str = "http://127.0.0.1:2379";
const API_SERVER: &str = "https://127.0.0.1:6443";
/// Who may speak to the API server, in the form of `--token-auth-file`: an administrator, and a kubelet.
const TOKENS: &str = "admin,admin,admin,system:masters\nnode1,system:node:node1,node1,system:nodes\n";
/// Longer than the first start takes on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// A running control plane. Killed when dropped.
#[derive(Debug)]
pub struct ControlPlane {
    folder: PathBuf,
    api_server: Process,
    etcd: Process,
}

impl ControlPlane {
    /// Starts etcd and kube-apiserver in the node, with everything they keep in its folder, and waits until the API
    /// server is ready.
    pub async fn start(node: &Node) -> ControlPlane {
        let folder = node.folder().join("control-plane");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("tokens.csv"), TOKENS).unwrap();
        for user in ["admin", "node1"] {
            std::fs::write(folder.join(user), kubeconfig(user)).unwrap();
        }
        node.run([
            "openssl",
            "genrsa",
            "-out",
            &folder.join("service-account.key").to_string_lossy(),
            "2048",
        ])
        .await
        .succeeded();
        let etcd = start_etcd(node, &folder);
        let api_server = start_api_server(node, &folder);
        let plane = ControlPlane {
            folder,
            api_server,
            etcd,
        };
        let kubectl = super::Kubectl::new(node, super::KubectlVersion::V1_36, &plane.kubeconfig());
        eventually_within(READY_WITHIN, "kube-apiserver is ready", async || {
            assert!(plane.etcd.runs(), "etcd ended:\n{}", plane.etcd.stderr());
            let server = &plane.api_server;
            assert!(server.runs(), "kube-apiserver ended:\n{}", server.stderr());
            let output = kubectl.run(["get", "--raw", "/api/v1/namespaces/default"]).await;
            if output.code == 0 {
                Ok(())
            } else {
                Err(output.stderr)
            }
        })
        .await;
        plane
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("admin")
    }

    /// The kubeconfig of the node's kubelet, with a node's rights.
    pub fn node_kubeconfig(&self) -> PathBuf {
        self.folder.join("node1")
    }

    /// How much memory the API server keeps resident, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.api_server.resident_bytes()
    }
}

fn start_etcd(node: &Node, folder: &Path) -> Process {
    let mut command = Command::new("etcd");
    command
        .arg("--data-dir")
        .arg(folder.join("etcd"))
        .args(["--listen-client-urls", ETCD, "--advertise-client-urls", ETCD])
        .args(["--listen-peer-urls", "http://127.0.0.1:2380"])
        .stdin(Stdio::null());
    node.spawn(command)
}

fn start_api_server(node: &Node, folder: &Path) -> Process {
    let key = folder.join("service-account.key");
    let mut command = Command::new(parts::built("kubernetes/kube-apiserver"));
    command
        .args(["--etcd-servers", ETCD])
        .args(["--bind-address=127.0.0.1", "--secure-port=6443"])
        .arg("--cert-dir")
        .arg(folder.join("certificates"))
        .arg("--service-account-key-file")
        .arg(&key)
        .arg("--service-account-signing-key-file")
        .arg(&key)
        .arg("--service-account-issuer=https://kubernetes.default.svc")
        .arg("--service-cluster-ip-range=10.96.0.0/16")
        .arg("--authorization-mode=Node,RBAC")
        .arg("--token-auth-file")
        .arg(folder.join("tokens.csv"))
        // No name server knows the node.
        .arg("--kubelet-preferred-address-types=InternalIP")
        // Nobody makes service accounts where there are no controllers.
        .arg("--disable-admission-plugins=ServiceAccount")
        .arg("--allow-privileged=true")
        .stdin(Stdio::null());
    node.spawn(command)
}

/// A kubeconfig for one of [`TOKENS`]; each user's token is its name. The server signs its certificate itself.
fn kubeconfig(user: &str) -> String {
    format!(
        r#"apiVersion: v1
kind: Config
clusters:
- name: private
  cluster:
    server: {API_SERVER}
    insecure-skip-tls-verify: true
users:
- name: {user}
  user:
    token: {user}
contexts:
- name: private
  context:
    cluster: private
    user: {user}
current-context: private
"#
    )
}
