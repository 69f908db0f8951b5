//! The service as it is installed, in a systemd that was really booted: what its unit promises holds there.
// clippy.toml's allowance covers the tests, not the functions beside them.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use integration::machine::{Files, Machine};
use integration::{BUSYBOX, ContainerdVersion, Node, Output, eventually, is_running};
use serde_json::{Value, json};

/// A drop-in for a watchdog that bites before a test loses patience.
const SHORT_WATCHDOG: &str = "[Service]\nWatchdogSec=5s\n";

/// The service in its machine.
struct Service(Machine);

impl Service {
    /// Runs a command in the machine to its end.
    fn run<'a>(&self, command: impl IntoIterator<Item = &'a str>) -> Output {
        self.0.run(command)
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

/// A machine with the agent installed as the README says, and one pod in its manifests.
async fn boot(node: &Node) -> Service {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let files = Files::of(node, "machine");
    let debuglet = node.debuglet_command([]);
    files.copy(Path::new(debuglet.get_program()), "usr/local/bin/debuglet");
    let unit = std::fs::read_to_string(repository.join("systemd/debuglet.service")).unwrap();
    files.enable("debuglet.service", &unit);
    files.copy(
        &repository.join("systemd/config.toml"),
        "etc/debuglet/config.toml",
    );
    files.write("etc/debuglet/manifests/keeper.json", &pod().to_string());
    Service(Machine::boot(node, &files).await)
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
    let machine = boot(&node).await;
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
async fn another_agent(machine: &Service, before: &str) {
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
