//! A control plane of one's own: one etcd and one kube-apiserver in a private node, without a scheduler and without
//! controllers. A pod that names its node needs neither.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
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

/// A certificate for a day with a key of its own.
const NEW_CERTIFICATE: [&str; 10] = [
    "openssl",
    "req",
    "-x509",
    "-days",
    "1",
    "-nodes",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
];

/// A running control plane. Killed when dropped.
#[derive(Debug)]
pub struct ControlPlane {
    folder: PathBuf,
    /// None while it is stopped.
    api_server: Mutex<Option<Process>>,
    etcd: Mutex<Option<Process>>,
}

impl ControlPlane {
    /// Starts etcd and kube-apiserver in the node, with everything they keep in its folder, and waits until the API
    /// server is ready.
    pub async fn start(node: &Node) -> ControlPlane {
        let folder = node.folder().join("control-plane");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("tokens.csv"), TOKENS).unwrap();
        for user in ["admin", "node1"] {
            let token = serde_json::json!({ "token": user }).to_string();
            std::fs::write(folder.join(user), kubeconfig(user, &token)).unwrap();
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
        let plane = ControlPlane {
            folder,
            api_server: Mutex::default(),
            etcd: Mutex::default(),
        };
        plane.make_authority(node).await;
        plane.start_etcd(node);
        plane.start_api_server(node).await;
        plane
    }

    /// Starts the API server, which is stopped, and waits until it is ready.
    pub async fn start_api_server(&self, node: &Node) {
        *self.api_server.lock().unwrap() = Some(start_api_server(node, &self.folder));
        let kubectl = super::Kubectl::new(node, super::KubectlVersion::V1_36, &self.kubeconfig());
        eventually_within(READY_WITHIN, "kube-apiserver is ready", async || {
            for (name, process) in [("etcd", &self.etcd), ("kube-apiserver", &self.api_server)] {
                let process = process.lock().unwrap();
                let process = process.as_ref().expect("it was started");
                assert!(process.runs(), "{name} ended:\n{}", process.stderr());
            }
            let output = kubectl.run(["get", "--raw", "/api/v1/namespaces/default"]).await;
            if output.code == 0 {
                Ok(())
            } else {
                Err(output.stderr)
            }
        })
        .await;
    }

    /// Ends the API server as `kill -9` does.
    pub async fn kill_api_server(&self) {
        let process = self.api_server.lock().unwrap().take();
        process.expect("kube-apiserver runs").kill().await;
    }

    fn start_etcd(&self, node: &Node) {
        *self.etcd.lock().unwrap() = Some(start_etcd(node, &self.folder));
    }

    async fn kill_etcd(&self) {
        let process = self.etcd.lock().unwrap().take();
        process.expect("etcd runs").kill().await;
    }

    /// Keeps what etcd holds now. Both processes are started again for it.
    pub async fn back_up(&self, node: &Node) {
        self.copy_etcd(node, "etcd", "etcd-backup").await;
    }

    /// Puts back what was kept by [`ControlPlane::back_up`]: the versions of all objects go back to what they were then.
    pub async fn restore(&self, node: &Node) {
        self.copy_etcd(node, "etcd-backup", "etcd").await;
    }

    async fn copy_etcd(&self, node: &Node, from: &str, to: &str) {
        self.kill_api_server().await;
        self.kill_etcd().await;
        let path = |name: &str| self.folder.join(name).to_string_lossy().into_owned();
        node.run(["rm", "-rf", &path(to)]).await.succeeded();
        node.run(["cp", "-a", &path(from), &path(to)]).await.succeeded();
        self.start_etcd(node);
        self.start_api_server(node).await;
    }

    /// Makes a new authority for the certificates of clients. The API server asks for its certificates once it is started
    /// anew.
    pub async fn make_authority(&self, node: &Node) {
        let path = |name: &str| self.folder.join(name).to_string_lossy().into_owned();
        let (key, certificate) = (path("authority.key"), path("authority.crt"));
        let made = NEW_CERTIFICATE.into_iter().chain([
            "-keyout",
            &key,
            "-out",
            &certificate,
            "-subj",
            "/CN=authority",
        ]);
        node.run(made).await.succeeded();
    }

    /// Makes the node `of` a certificate of the authority, with its key in one file as a kubelet keeps it.
    pub async fn node_certificate(&self, node: &Node, name: &str, of: &str) -> PathBuf {
        let subject = format!("/O=system:nodes/CN=system:node:{of}");
        let path = |name: &str| self.folder.join(name).to_string_lossy().into_owned();
        let (key, certificate) = (path("node.key"), path("node.crt"));
        let (authority, authority_key) = (path("authority.crt"), path("authority.key"));
        let made = NEW_CERTIFICATE
            .into_iter()
            .chain(["-keyout", &key, "-out", &certificate, "-subj", &subject])
            .chain(["-CA", &authority, "-CAkey", &authority_key]);
        node.run(made).await.succeeded();
        let both = [certificate, key].map(|file| std::fs::read_to_string(file).unwrap());
        let file = self.folder.join(name);
        std::fs::write(&file, both.concat()).unwrap();
        file
    }

    /// Gives debuglet the rights of `systemd/clusterrole.yaml`, and answers a kubeconfig with a token for them: what
    /// README.md tells an administrator to do.
    pub async fn debuglet_kubeconfig(&self, node: &Node) -> PathBuf {
        let kubectl = super::Kubectl::new(node, super::KubectlVersion::V1_36, &self.kubeconfig());
        let roles = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd/clusterrole.yaml");
        let roles = roles.to_string_lossy().into_owned();
        kubectl.run(["apply", "-f", &roles]).await.succeeded();
        let made = kubectl
            .run(["create", "token", "--namespace=kube-system", "debuglet"])
            .await
            .succeeded();
        self.kubeconfig_with("debuglet", &serde_json::json!({"token": made.stdout.trim()}))
    }

    /// Writes a kubeconfig whose user has these fields.
    pub fn kubeconfig_with(&self, name: &str, user: &serde_json::Value) -> PathBuf {
        let file = self.folder.join(name);
        std::fs::write(&file, kubeconfig(name, &user.to_string())).unwrap();
        file
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
        let process = self.api_server.lock().unwrap();
        process.as_ref().expect("kube-apiserver runs").resident_bytes()
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
        .arg("--client-ca-file")
        .arg(folder.join("authority.crt"))
        // No name server knows the node.
        .arg("--kubelet-preferred-address-types=InternalIP")
        // Nobody makes service accounts where there are no controllers.
        .arg("--disable-admission-plugins=ServiceAccount")
        .arg("--allow-privileged=true")
        .stdin(Stdio::null());
    node.spawn(command)
}

/// A kubeconfig for a user with these credentials, of which those in [`TOKENS`] have their name as a token. The server
/// signs its certificate itself.
fn kubeconfig(user: &str, credentials: &str) -> String {
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
  user: {credentials}
contexts:
- name: private
  context:
    cluster: private
    user: {user}
current-context: private
"#
    )
}
