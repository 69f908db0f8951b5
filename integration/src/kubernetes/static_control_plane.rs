//! A control plane in the form of kubeadm's: etcd and kube-apiserver are static pods, each from an image of one program.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::node::Node;
use crate::parts;

const ETCD_IMAGE: &str = "registry.k8s.io/etcd:3.4";
const API_SERVER_IMAGE: &str = "registry.k8s.io/kube-apiserver:v1.36.3";

/// Who may speak to the API server, in the form of `--token-auth-file`: an administrator, and the kubelet of the node.
fn tokens(node_name: &str) -> String {
    format!("admin,admin,admin,system:masters\nkubelet,system:node:{node_name},kubelet,system:nodes\n")
}

/// The images that the static pods run, by name, each with the program in it.
pub fn control_plane_images() -> [(&'static str, PathBuf); 2] {
    [
        (ETCD_IMAGE, PathBuf::from("/usr/bin/etcd")),
        (API_SERVER_IMAGE, parts::built("kubernetes/kube-apiserver")),
    ]
}

/// Writes what is to be `/etc/kubernetes` of the node `node_name`: `manifests`, `pki`, `kubelet.conf` and `admin.conf`.
/// The API server looks for etcd, which listens on 2379, at the port `etcd_port`.
pub async fn write_static_control_plane(node: &Node, folder: &Path, node_name: &str, etcd_port: u16) {
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("manifests/etcd.yaml", etcd().to_string());
    write("manifests/kube-apiserver.yaml", api_server(etcd_port).to_string());
    write("pki/tokens.csv", tokens(node_name));
    write("kubelet.conf", kubeconfig("kubelet").to_string());
    write("admin.conf", kubeconfig("admin").to_string());
    let key = folder.join("pki/sa.key");
    node.run(["openssl", "genrsa", "-out", key.to_str().unwrap(), "2048"])
        .await
        .succeeded();
}

/// A static pod of the control plane, in the form of kubeadm's.
fn static_pod(name: &str, image: &str, arguments: &[&str], volumes: &[(&str, &str, bool)]) -> Value {
    let mounts = volumes
        .iter()
        .map(|(volume, path, read_only)| json!({"name": volume, "mountPath": path, "readOnly": read_only}));
    let sources = volumes.iter().map(
        |(volume, path, _)| json!({"name": volume, "hostPath": {"path": path, "type": "DirectoryOrCreate"}}),
    );
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "kube-system",
            "labels": {"component": name, "tier": "control-plane"},
        },
        "spec": {
            "hostNetwork": true,
            "priorityClassName": "system-node-critical",
            "terminationGracePeriodSeconds": 5,
            "containers": [{
                "name": name,
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "args": arguments,
                "volumeMounts": mounts.collect::<Vec<_>>(),
            }],
            "volumes": sources.collect::<Vec<_>>(),
        },
    })
}

fn etcd() -> Value {
    let arguments = [
        "--data-dir=/var/lib/etcd",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--listen-metrics-urls=http://127.0.0.1:2381",
    ];
    let data = ("etcd-data", "/var/lib/etcd", false);
    static_pod("etcd", ETCD_IMAGE, &arguments, &[data])
}

fn api_server(etcd_port: u16) -> Value {
    let etcd = format!("--etcd-servers=http://127.0.0.1:{etcd_port}");
    let arguments = [
        etcd.as_str(),
        "--bind-address=127.0.0.1",
        "--secure-port=6443",
        "--cert-dir=/tmp",
        "--service-account-key-file=/etc/kubernetes/pki/sa.key",
        "--service-account-signing-key-file=/etc/kubernetes/pki/sa.key",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--authorization-mode=Node,RBAC",
        "--token-auth-file=/etc/kubernetes/pki/tokens.csv",
        "--disable-admission-plugins=ServiceAccount",
        "--allow-privileged=true",
    ];
    let certificates = ("k8s-certs", "/etc/kubernetes/pki", true);
    static_pod("kube-apiserver", API_SERVER_IMAGE, &arguments, &[certificates])
}

/// A kubeconfig of one of [`tokens`]; each user's token is its name.
fn kubeconfig(user: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "private", "cluster": {
            "server": "https://127.0.0.1:6443", "insecure-skip-tls-verify": true,
        }}],
        "users": [{"name": user, "user": {"token": user}}],
        "contexts": [{"name": "private", "context": {"cluster": "private", "user": user}}],
        "current-context": "private",
    })
}
