//! The service as it is installed, in a systemd that was really booted: what its unit promises holds there.
// clippy.toml's allowance covers the tests, not the functions beside them.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use integration::{BUSYBOX, ContainerdVersion, Node, Output, Process, eventually, is_running};
use serde_json::{Value, json};

const CONTAINERD_CONFIGURATION: &str = r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "127.0.0.1:5000/pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
"#;

/// A drop-in for a watchdog that bites before a test loses patience.
const SHORT_WATCHDOG: &str = "[Service]\nWatchdogSec=5s\n";

/// A Debian that was booted inside a private node, and ends with it.
struct Machine {
    /// Its first process, as the test sees it.
    leader: i32,
    _nspawn: Process,
}

impl Machine {
    /// Boots a Debian with containerd and, by the repository's own unit and configuration, the agent.
    async fn boot(node: &Node) -> Machine {
        let layers = node.folder().join("machine");
        let (files, root) = (layers.join("files"), layers.join("root"));
        for folder in [&files, &root, &layers.join("work"), &layers.join("containerd")] {
            std::fs::create_dir_all(folder).unwrap();
        }
        install(node, &files);
        let base = base();
        let (base, work) = (base.display(), layers.join("work"));
        let options = format!(
            "lowerdir={base},upperdir={},workdir={}",
            files.display(),
            work.display()
        );
        let root = root.to_str().unwrap();
        node.run(["mount", "-t", "overlay", "-o", &options, "overlay", root])
            .await
            .succeeded();

        let mut nspawn = Command::new("systemd-nspawn");
        nspawn
            .args([
                "--directory",
                root,
                "--boot",
                "--register=no",
                "--keep-unit",
                "--capability=all",
            ])
            // runc makes a keyring for each session.
            .arg("--system-call-filter=add_key keyctl request_key bpf")
            .arg("--bind=/sys/fs/cgroup")
            // containerd's own layers cannot lie on a layered file system.
            .arg(format!(
                "--bind={}:/var/lib/containerd",
                layers.join("containerd").display()
            ))
            // The network plugins switch forwarding on, in a network namespace that is the node's.
            .env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network")
            .stdin(Stdio::null());
        let nspawn = node.spawn(nspawn);
        let pid = nspawn.pid();
        // Other processes come and go before it while the machine is set up.
        let leader = eventually("the machine has a first process", async || {
            let children = format!("/proc/{pid}/task/{pid}/children");
            let children = std::fs::read_to_string(children).unwrap_or_default();
            let mut ids = children.split_whitespace().filter_map(|id| id.parse().ok());
            ids.find(|id| is_systemd(*id)).ok_or_else(|| nspawn.stderr())
        })
        .await;
        let machine = Machine {
            leader,
            _nspawn: nspawn,
        };
        eventually("the machine has booted", async || {
            match machine.run(["systemctl", "is-system-running"]) {
                booted if booted.code == 0 => Ok(()),
                other => Err((other, machine.run(["systemctl", "--failed", "--no-pager"]))),
            }
        })
        .await;
        machine
    }

    /// Runs a command in the machine to its end.
    fn run<'a>(&self, command: impl IntoIterator<Item = &'a str>) -> Output {
        let output = Command::new("nsenter")
            .args(["--target", &self.leader.to_string()])
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"])
            .args(command)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a shell line in the pod's container, and gives back what it prints.
    fn in_pod(&self, line: &str) -> String {
        self.run(["debuglet", "exec", "keeper", "--", "sh", "-c", line])
            .succeeded()
            .stdout
    }

    /// What the service's property is.
    fn property(&self, name: &str) -> String {
        let property = self.run(["systemctl", "show", "--value", "--property", name, "debuglet"]);
        property.succeeded().stdout.trim().to_owned()
    }

    /// Sends a signal to the agent's process.
    fn signal_agent(&self, signal: &str) {
        let signal = format!("--signal={signal}");
        self.run(["systemctl", "kill", &signal, "--kill-whom=main", "debuglet"])
            .succeeded();
    }

    /// Waits until the pod runs, and gives it back.
    async fn running_pod(&self) -> Value {
        eventually("the pod runs", async || {
            let listed = self.run(["debuglet", "ps", "-n", "default", "-o", "json"]);
            let pods: Value = serde_json::from_str(&listed.stdout).unwrap_or_default();
            match pods["items"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|pod| is_running(pod))
            {
                Some(pod) => Ok(pod.clone()),
                None => Err((
                    listed,
                    self.run(["debuglet", "describe", "keeper"]),
                    self.run(["journalctl", "-u", "debuglet", "--no-pager", "-n", "30"]),
                )),
            }
        })
        .await
    }
}

/// Whether the process is a systemd.
fn is_systemd(id: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| name.trim_end() == "systemd")
}

/// The Debian that a machine is made of.
fn base() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/root");
    let made = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
    assert!(made.status.success(), "no Debian to boot");
    PathBuf::from(String::from_utf8(made.stdout).unwrap().trim())
}

/// Puts the agent into the machine's files, as the README says, with one pod in its manifests.
fn install(node: &Node, files: &Path) {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let at = |path: &str| {
        let path = files.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    let debuglet = node.debuglet_command([]);
    std::fs::copy(debuglet.get_program(), at("usr/local/bin/debuglet")).unwrap();
    let unit = at("etc/systemd/system/debuglet.service");
    std::fs::copy(repository.join("systemd/debuglet.service"), unit).unwrap();
    let wanted = at("etc/systemd/system/multi-user.target.wants/debuglet.service");
    std::os::unix::fs::symlink("/etc/systemd/system/debuglet.service", wanted).unwrap();
    std::fs::copy(
        repository.join("systemd/config.toml"),
        at("etc/debuglet/config.toml"),
    )
    .unwrap();
    std::fs::write(at("etc/debuglet/manifests/keeper.json"), pod().to_string()).unwrap();
    std::fs::write(at("etc/containerd/config.toml"), CONTAINERD_CONFIGURATION).unwrap();
    std::fs::copy(
        node.folder().join("cni/pods.conflist"),
        at("etc/cni/net.d/pods.conflist"),
    )
    .unwrap();
    std::fs::write(at("etc/hostname"), "machine\n").unwrap();
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "keeper" },
        "spec": {
            "containers": [{
                "name": "main",
                "image": BUSYBOX,
                "command": ["sleep", "86400"],
                "volumeMounts": [{ "name": "memory", "mountPath": "/memory" }],
            }],
            "volumes": [{ "name": "memory", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } }],
        },
    })
}

/// What a container must keep while the agent comes and goes: its id, its start, its count.
fn identity(pod: &Value) -> [Value; 3] {
    let status = &pod["status"]["containerStatuses"][0];
    [
        &status["containerID"],
        &status["state"]["running"]["startedAt"],
        &status["restartCount"],
    ]
    .map(Value::clone)
}

#[tokio::test]
async fn the_service_comes_and_goes_and_its_pods_and_their_memory_stay() {
    let node = Node::start(ContainerdVersion::V1_6).await;
    let machine = Machine::boot(&node).await;
    let before = identity(&machine.running_pod().await);

    // The unit gives the agent no mount namespace of its own, where its memory volumes would be hidden.
    let of = |id: &str| {
        machine
            .run(["readlink", &format!("/proc/{id}/ns/mnt")])
            .succeeded()
            .stdout
    };
    assert_eq!(of(&machine.property("MainPID")), of("1"));
    assert_eq!(
        machine.in_pod("stat -f -c %T /memory && echo kept >/memory/file"),
        "tmpfs\n"
    );

    machine.run(["systemctl", "restart", "debuglet"]).succeeded();
    let after = identity(&machine.running_pod().await);
    assert_eq!(after, before, "after a restart of the service");
    assert_eq!(machine.in_pod("cat /memory/file"), "kept\n");

    // An agent that is killed comes back by itself.
    let killed = machine.property("MainPID");
    machine.signal_agent("KILL");
    another_agent(&machine, &killed).await;
    assert_eq!(identity(&machine.running_pod().await), before, "after a kill");

    // So does one that hangs: here it is stopped in the middle of what it does.
    let unit = "/etc/systemd/system/debuglet.service.d";
    machine
        .run([
            "sh",
            "-c",
            &format!("mkdir {unit} && printf '{SHORT_WATCHDOG}' >{unit}/short.conf"),
        ])
        .succeeded();
    machine.run(["systemctl", "daemon-reload"]).succeeded();
    machine.run(["systemctl", "restart", "debuglet"]).succeeded();
    let hanging = machine.property("MainPID");
    machine.signal_agent("STOP");
    another_agent(&machine, &hanging).await;
    assert_eq!(
        identity(&machine.running_pod().await),
        before,
        "after the watchdog"
    );
    assert_eq!(machine.in_pod("cat /memory/file"), "kept\n");

    let check = machine.run(["debuglet", "check"]);
    assert_eq!(check.code, 0, "{}{}", check.stdout, check.stderr);
    assert!(check.stdout.contains("debuglet 0.1.0 runs"), "{}", check.stdout);

    // The journal knows each line's priority, and no line carries it as text.
    let journal = machine
        .run(["journalctl", "-u", "debuglet", "-o", "json", "--no-pager"])
        .succeeded()
        .stdout;
    let said = journal
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let said: Vec<Value> = said.filter(|entry| entry["_COMM"] == "debuglet").collect();
    assert!(said.iter().any(|entry| entry["PRIORITY"] == "6"), "{journal}");
    let marked = |entry: &Value| {
        entry["MESSAGE"]
            .as_str()
            .is_some_and(|message| message.starts_with('<'))
    };
    assert!(!said.iter().any(marked), "{journal}");

    machine.run(["systemctl", "stop", "debuglet"]).succeeded();
    assert_eq!(machine.property("Result"), "success");
    let container = before[0]
        .as_str()
        .unwrap()
        .trim_start_matches("containerd://")
        .to_owned();
    let tasks = machine
        .run(["ctr", "--namespace", "k8s.io", "tasks", "list"])
        .succeeded()
        .stdout;
    let task = tasks
        .lines()
        .find(|line| line.starts_with(&container))
        .unwrap_or_default();
    assert!(task.ends_with("RUNNING"), "{tasks}");
}

/// Waits until another process than `before` serves.
async fn another_agent(machine: &Machine, before: &str) {
    eventually("systemd has started the agent again", async || {
        let state = (machine.property("ActiveState"), machine.property("MainPID"));
        if state.0 == "active" && state.1 != before && state.1 != "0" {
            Ok(())
        } else {
            Err(state)
        }
    })
    .await;
}
