//! A machine that has other work to do than to run tests: network namespaces, a containerd with pods that crictl runs,
//! a kubelet, debuglet, a cluster's files in /etc, taken ports, variables that tell programs where all that is, and what
//! the tests need on mounts of its own below /var and /run.
//! It is a private node, in which the tests make theirs; it ends with everything in it.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::agent::Agent;
use crate::containerd::ContainerdVersion;
use crate::eventually::eventually;
use crate::images::BUSYBOX;
use crate::node::Node;
use crate::parts;
use crate::pods::{is_running, sleeping_pod};
use crate::process::Process;
use crate::watchers::pretend_kubelet;

/// The ports on the loopback that are taken besides those of the registry (5000) and of debuglet (10260): a kubelet's,
/// a control plane's, and what anybody takes.
const TAKEN_PORTS: [u16; 9] = [10248, 10249, 10250, 10255, 6443, 2379, 2380, 2381, 8080];

/// What each taken port answers: a kubelet's health port says so that it is well.
const ANSWER: &str = "SYSTEM:printf 'HTTP/1.0 200 OK\\r\\n\\r\\nok'";

/// What lies in a machine's /etc that is a node of a cluster itself, `FOLDER` for the folder of its containerd.
const FILES: [(&str, &str); 4] = [
    (
        "/etc/kubernetes/kubelet.conf",
        "apiVersion: v1\nkind: Config\ncurrent-context: it\ncontexts:\n- {name: it, context: {cluster: it, user: it}}\n\
         clusters:\n- {name: it, cluster: {server: 'https://127.0.0.1:6443'}}\nusers:\n- {name: it, user: {token: t}}\n",
    ),
    (
        "/etc/kubernetes/manifests/etcd.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: etcd, namespace: kube-system}\n\
         spec: {containers: [{name: etcd, image: etcd}]}\n",
    ),
    (
        "/etc/crictl.yaml",
        "runtime-endpoint: unix:///FOLDER/containerd.sock\nimage-endpoint: unix:///FOLDER/containerd.sock\n",
    ),
    (
        "/etc/containerd/certs.d/127.0.0.1:5000/hosts.toml",
        "server = \"http://127.0.0.1:8080\"\n",
    ),
];

/// What programs of Kubernetes and containerd read from their environment.
const VARIABLES: [(&str, &str); 8] = [
    ("KUBECONFIG", "/etc/kubernetes/kubelet.conf"),
    ("KUBERNETES_SERVICE_HOST", "127.0.0.1"),
    ("KUBERNETES_SERVICE_PORT", "6443"),
    (
        "CONTAINER_RUNTIME_ENDPOINT",
        "unix:///run/containerd/containerd.sock",
    ),
    ("CONTAINERD_NAMESPACE", "moby"),
    ("HTTP_PROXY", "http://127.0.0.1:8080"),
    ("HTTPS_PROXY", "http://127.0.0.1:8080"),
    ("NOTIFY_SOCKET", "/run/systemd/notify"),
];

/// Set for what runs on such a machine. No other one can be made on it: it would be a node in a node, in which the tests'
/// nodes would have one overlay more than the kernel stacks.
const ON_A_BUSY_MACHINE: &str = "DEBUGLET_ON_A_BUSY_MACHINE";
/// Where the folder of the programs under test is mounted, as a build server may have its checkouts.
const PROGRAMS: &str = "/var/lib/jenkins/programs";
/// Where the parts are mounted, as a desktop has its disks.
const PARTS: &str = "/run/media/parts";

/// A machine that has other work to do. Everything of it ends when it is dropped.
#[derive(Debug)]
pub struct BusyMachine {
    // Fields are dropped in this order: the node last.
    _agent: Agent,
    _others: Vec<Process>,
    node: Node,
}

impl BusyMachine {
    /// Whether this process runs on one.
    pub fn is_here() -> bool {
        std::env::var_os(ON_A_BUSY_MACHINE).is_some()
    }

    /// Makes the machine, and waits until all of it works.
    pub async fn start() -> BusyMachine {
        let node = Node::start(ContainerdVersion::V1_6).await;
        let folder = node.folder().to_string_lossy().into_owned();
        for (path, text) in FILES {
            let text = text.replace("/FOLDER", &folder);
            let write = "mkdir -p \"${0%/*}\"; printf %s \"$1\" >\"$0\"";
            node.run(["sh", "-euc", write, path, &text]).await.succeeded();
        }
        let links =
            "mkdir -p /run/containerd; ln -s $0/containerd.sock /run/containerd/; ln -s $0/run /run/debuglet";
        node.run(["sh", "-euc", links, &folder]).await.succeeded();
        let (program, parts) = (parts::debuglet(), parts::cache().canonicalize().unwrap());
        for (from, to) in [(program.parent().unwrap(), PROGRAMS), (&parts, PARTS)] {
            let mount = "mkdir -p $1; mount --bind \"$0\" $1";
            node.run(["sh", "-euc", mount, from.to_str().unwrap(), to])
                .await
                .succeeded();
        }
        for name in ["blue", "green", "cni-1f3a"] {
            node.run(["ip", "netns", "add", name]).await.succeeded();
        }

        let mut others = vec![pretend_kubelet(&node)];
        for port in TAKEN_PORTS {
            let mut socat = Command::new("socat");
            socat
                .arg(format!("TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr"))
                .arg(ANSWER)
                .stdin(Stdio::null());
            others.push(node.spawn(socat));
        }
        run_with_crictl(&node, "till").await;
        run_with_crictl(&node, "cart").await;
        let agent = node.start_agent().await;
        node.write_manifest("web.json", &sleeping_pod("web"));
        for (namespace, pod) in [("shop", "till"), ("shop", "cart")] {
            agent.api().pod_until(namespace, pod, is_running).await;
        }
        for port in TAKEN_PORTS {
            eventually(&format!("port {port} is taken"), async || {
                node.connect(port).await
            })
            .await;
        }
        BusyMachine {
            _agent: agent,
            _others: others,
            node,
        }
    }

    /// A command that runs `program`, which cargo put beside the program under test, from where that is mounted on the
    /// machine, and with the parts as they are mounted there.
    pub fn from_its_mounts(program: &Path) -> Command {
        let debuglet = parts::debuglet();
        let below = program.strip_prefix(debuglet.parent().unwrap()).unwrap();
        let mut command = Command::new(Path::new(PROGRAMS).join(below));
        command.env("DEBUGLET_CACHE", PARTS).env_remove("DEBUGLET_BIN");
        command
    }

    /// Runs a command on the machine with this process' output, environment and folder, without input, to its end. Answers
    /// its exit code.
    pub async fn run(&self, command: Command) -> i32 {
        // A process is moved to the machine's control groups right after its start, and is outside of them until then.
        // A process that enters a mount namespace is in its root folder then.
        let wait = "while grep -q ':/\\.\\.' /proc/self/cgroup; do sleep 0.05; done; cd \"$0\"; exec \"$@\"";
        let mut moved = Command::new("sh");
        moved
            .args(["-c", wait])
            .arg(std::env::current_dir().unwrap())
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => moved.env(name, value),
                None => moved.env_remove(name),
            };
        }
        moved
            .envs(VARIABLES)
            .env(ON_A_BUSY_MACHINE, "1")
            .stdin(Stdio::null());
        self.node.place().start_as_it_is(moved).finished().await
    }
}

/// Runs a pod with a container that sleeps, by crictl alone.
async fn run_with_crictl(node: &Node, name: &str) {
    let write = |kind: &str, config: &serde_json::Value| {
        let file = node.folder().join(format!("{name}-{kind}.json"));
        std::fs::write(&file, config.to_string()).unwrap();
        file.to_string_lossy().into_owned()
    };
    let pod = json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "attempt": 1},
        "log_directory": node.folder().join(format!("{name}-logs")),
        "linux": {},
    });
    let container = json!({
        "metadata": {"name": "main"},
        "image": {"image": BUSYBOX},
        "command": ["sleep", "86400"],
        "log_path": "main.log",
        "linux": {},
    });
    let (pod, container) = (write("pod", &pod), write("container", &container));
    node.crictl(["run", "--no-pull", &container, &pod])
        .await
        .succeeded();
}
