//! What `integration/kind/try` does on a node of kind, done on a node with the same names and paths: a systemd that was
//! really booted, with containerd, a kubelet and the static pods of a control plane as kubeadm has them. kind itself
//! needs images that cannot be pulled everywhere.
// clippy.toml's allowance covers the tests, not the functions beside them.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};

use integration::kubernetes::{
    control_plane_images, kubelet_configuration, program, write_static_control_plane,
};
use integration::machine::{Files, Machine};
use integration::{BUSYBOX, ContainerdVersion, Node, eventually_within};

/// The name of a node of kind, unless the cluster is named.
const NAME: &str = "kind-control-plane";

/// As kind has it, but for settings of its own.
const KUBELET: &str = "[Unit]
Description=kubelet: The Kubernetes Node Agent
After=containerd.service
[Service]
ExecStart=/usr/bin/kubelet --config=/etc/kubernetes/kubelet-configuration.json \
    --kubeconfig=/etc/kubernetes/kubelet.conf --node-ip=10.88.0.1
Restart=always
RestartSec=1s
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_script_for_kind_debugs_the_api_server_of_a_booted_node_with_kinds_names_and_paths() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let machine = boot(&node).await;
    let kubectl = ["kubectl", "--kubeconfig=/etc/kubernetes/admin.conf"];
    let patience = std::time::Duration::from_secs(180);
    eventually_within(
        patience,
        "the node has told its API server of its static pods",
        async || {
            let pod = format!("kube-apiserver-{NAME}");
            let mirror = ["get", "pod", "-n", "kube-system", &pod];
            let listed = machine.run(kubectl.into_iter().chain(mirror));
            if listed.code == 0 {
                Ok(())
            } else {
                Err((
                    listed,
                    machine.run(["journalctl", "-u", "kubelet", "--no-pager", "-n", "40"]),
                ))
            }
        },
    )
    .await;

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("kind/try");
    let output = Command::new(script)
        .env("DEBUGLET", node.debuglet_command([]).get_program())
        .env("IMAGE", BUSYBOX)
        .env("INTO", machine.way_in().join(" "))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    println!("{said}{complaints}");
    assert!(output.status.success());
    assert!(complaints.contains("static pods do not support ephemeral containers"));
    // What the API server runs with, what is mounted in it, and where it listens.
    assert!(said.contains("--etcd-servers=http://127.0.0.1:2379"));
    assert!(said.contains("\nsa.key\n"));
    assert!(said.contains(":6443"));
}

/// Boots a node with a control plane of its own.
async fn boot(node: &Node) -> Machine {
    let files = Files::of(node, NAME);
    files.containerd(ContainerdVersion::V2_4);
    for name in ["kubelet", "kubectl"] {
        files.copy(&program(name), &format!("usr/bin/{name}"));
    }
    let kubernetes = files.at("etc/kubernetes");
    write_static_control_plane(node, &kubernetes, NAME, 2379).await;
    let socket = Path::new("/run/containerd/containerd.sock");
    let static_pods = Path::new("/etc/kubernetes/manifests");
    files.write(
        "etc/kubernetes/kubelet-configuration.json",
        &kubelet_configuration(socket, static_pods),
    );
    files.write("etc/systemd/system/kubelet.service", KUBELET);
    for (number, (image, program)) in control_plane_images().iter().enumerate() {
        let archive = files.at(&format!("var/cache/images/{number}.tar"));
        node.pack_program(&archive, image, program).await;
    }
    let machine = Machine::boot(node, &files).await;
    machine
        .run([
            "sh",
            "-euc",
            "for image in /var/cache/images/*; do ctr -n k8s.io images import $image; done",
        ])
        .succeeded();
    machine
        .run(["systemctl", "enable", "--now", "kubelet"])
        .succeeded();
    machine
}
