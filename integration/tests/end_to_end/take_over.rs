//! A kubelet that is down: what the API server asks of it is done here, reported back, and left to it when it returns.

use std::path::PathBuf;
use std::time::Duration;

use super::kubelet::{HEALTH_PORT, health_port};
use integration::kubernetes::{ControlPlane, Kubectl, KubectlVersion, Kubelet, client};
use integration::{
    Agent, AgentOptions, BUSYBOX, ContainerdVersion, DISTROLESS, Node, debug_container, ephemeral_status,
    eventually, eventually_within, is_running, sleeping_pod, state_of,
};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

/// How long a kubelet must be away here until it counts as down, in seconds.
const DOWN_SECONDS: u64 = 3;
/// Longer than a kubelet that was started takes to look after its pods on a busy machine.
const KUBELET_WORKS_WITHIN: Duration = Duration::from_secs(120);

/// The label of what debuglet made.
const ORIGIN: &str = "io.debuglet.origin";

/// An agent that follows the API server with the kubelet's credential.
async fn following(node: &Node, plane: &ControlPlane, down_seconds: u64, more: &str) -> Agent {
    let kubeconfig = plane.node_kubeconfig();
    node.start_agent_with(AgentOptions {
        configuration: format!(
            "discovery.enabled = true\nkubernetes.kubeconfig = {:?}\n\
             kubernetes.kubelet_down_seconds = {down_seconds}\n{more}\n",
            kubeconfig.display().to_string()
        ),
        ..AgentOptions::default()
    })
    .await
}

/// Creates a pod of the node's, and answers it once it runs.
async fn run_pod(kubectl: &Kubectl<'_>, name: &str) -> Value {
    let mut pod = sleeping_pod(name);
    pod["spec"]["nodeName"] = json!("node1");
    // What there are no controllers for.
    pod["spec"]["automountServiceAccountToken"] = json!(false);
    let file = kubectl.file(&format!("{name}.json"), &pod.to_string());
    kubectl.run(["create", "-f", &file]).await.succeeded();
    pod_until(kubectl, name, is_running).await
}

/// Waits until the kubelet has its Lease: a first try before the Node is there fails, and the next comes seconds later.
/// Without one nothing is known of the kubelet, and nothing is taken over from it.
async fn leased(kubectl: &Kubectl<'_>) {
    eventually("the kubelet has a Lease", async || {
        let said = kubectl
            .run(["get", "lease", "-n", "kube-node-lease", "node1"])
            .await;
        if said.code == 0 { Ok(()) } else { Err(said) }
    })
    .await;
}

/// The pod as the API server has it, once it is as told.
async fn pod_until(kubectl: &Kubectl<'_>, name: &str, told: impl Fn(&Value) -> bool) -> Value {
    let what = format!("pod {name} of the API server is as told");
    eventually_within(KUBELET_WORKS_WITHIN, &what, async || {
        let said = kubectl.run(["get", "pod", name, "-o", "json"]).await;
        match serde_json::from_str::<Value>(&said.stdout) {
            Ok(pod) if told(&pod) => Ok(pod),
            _ => Err(said),
        }
    })
    .await
}

/// `kubectl debug`, as a user of the cluster types it.
async fn debug(kubectl: &Kubectl<'_>, pod: &str, container: &str) {
    let image = format!("--image={BUSYBOX}");
    let arguments = ["debug", pod, &image, "-c", container, "--", "sleep", "3600"];
    kubectl.run(arguments).await.succeeded();
}

/// Waits until `kubectl describe` shows of the pod's events one of debuglet's with this reason.
async fn described_until(kubectl: &Kubectl<'_>, namespace: &str, pod: &str, reason: &str) -> String {
    let what = format!("an event {reason} of debuglet's is found by kubectl describe");
    eventually(&what, async || {
        let said = kubectl.run(["describe", "pod", "-n", namespace, pod]).await;
        let is_told = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.get(1) == Some(&reason) && words.contains(&"debuglet")
        };
        if said.stdout.lines().any(is_told) {
            Ok(said.stdout)
        } else {
            Err(said)
        }
    })
    .await
}

/// The containers of this name that the runtime knows: how many are debuglet's, and how many somebody else's.
async fn made(node: &Node, name: &str) -> (usize, usize) {
    let containers = node.cri().containers(name).await;
    let ours = containers
        .iter()
        .filter(|one| one.labels.contains_key(ORIGIN))
        .count();
    (ours, containers.len() - ours)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_of_a_kubelet_that_is_down_is_started_here_once_and_left_to_it_when_it_returns() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let plane = ControlPlane::start(&node).await;
    let kubelet = Kubelet::start(&node, &plane).await;
    let kubectl = Kubectl::new(&node, KubectlVersion::V1_36, &plane.kubeconfig());
    run_pod(&kubectl, "web").await;
    leased(&kubectl).await;
    let agent = following(&node, &plane, DOWN_SECONDS, "").await;
    agent.api().pod_until("default", "web", is_running).await;

    kubelet.process().kill().await;
    // root of a container on the host's network plays it on its health port: that alone holds up nothing.
    let player = health_port(&node, 0);
    eventually("somebody listens", async || {
        node.connect(HEALTH_PORT).await.map(drop)
    })
    .await;
    debug(&kubectl, "web", "debugger").await;
    let pod = pod_until(&kubectl, "web", |pod| state_of(pod, "debugger") == "running:").await;
    let status = ephemeral_status(&pod, "debugger").clone();
    assert_eq!(
        (&status["ready"], &status["restartCount"]),
        (&json!(false), &json!(0))
    );
    assert_eq!(status["image"], json!(BUSYBOX), "{status}");
    assert!(
        status["imageID"].as_str().is_some_and(|id| !id.is_empty()),
        "{status}"
    );
    assert_eq!(made(&node, "debugger").await, (1, 0));
    let described = described_until(&kubectl, "default", "web", "Started").await;
    let (_, debugger) = described.split_once("\n  debugger:\n").unwrap();
    let debugger: Vec<String> = debugger
        .lines()
        .take_while(|line| line.starts_with("    "))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    for line in ["State: Running", "Ready: False", "Restart Count: 0"] {
        assert!(debugger.iter().any(|said| said == line), "{line}: {debugger:?}");
    }
    described_until(&kubectl, "default", "web", "TakenOver").await;
    let warned = "A process of root answers at port 10248 as a kubelet does";
    eventually_within(KUBELET_WORKS_WITHIN, "ps warns of it", async || {
        let listed = node.debuglet(["ps"]).await;
        if listed.stderr.contains(warned) {
            Ok(())
        } else {
            Err(listed)
        }
    })
    .await;
    player.kill().await;

    // The kubelet comes back. What it starts itself shows that it looks after the pod again.
    let _kubelet = Kubelet::start(&node, &plane).await;
    debug(&kubectl, "web", "second").await;
    let pod = pod_until(&kubectl, "web", |pod| state_of(pod, "second") == "running:").await;
    assert_eq!(made(&node, "second").await, (0, 1), "{}", agent.log());
    assert_eq!(made(&node, "debugger").await, (1, 0));
    let adopted = ephemeral_status(&pod, "debugger");
    assert_eq!(
        (&adopted["containerID"], &adopted["state"]),
        (&status["containerID"], &status["state"])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_living_kubelet_and_in_mirror_pods_events_say_which_user_of_the_cluster_debugged_what() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let plane = ControlPlane::start(&node).await;
    let kubelet = Kubelet::start(&node, &plane).await;
    let kubectl = Kubectl::new(&node, KubectlVersion::V1_36, &plane.kubeconfig());
    let manifest = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "etcd", "namespace": "kube-system"},
        "spec": {"containers": [{"name": "etcd", "image": DISTROLESS}]},
    });
    let file = node.folder().join("kubelet/static-pods/etcd.json");
    std::fs::write(file, manifest.to_string()).unwrap();
    run_pod(&kubectl, "web").await;
    leased(&kubectl).await;
    let more = "kubernetes.take_over = \"never\"\napi.cluster_users = true";
    let agent = following(&node, &plane, DOWN_SECONDS, more).await;
    let user = super::cluster_users::kubeconfig(node.folder(), "admin-here", "admin");
    let user = Kubectl::new(&node, KubectlVersion::V1_36, &user);
    for (namespace, pod) in [("kube-system", "etcd-node1"), ("default", "web")] {
        agent.api().pod_until(namespace, pod, is_running).await;
        // Of what root asks for over the socket nothing is told, though it comes first.
        let container = debug_container("of-root", &["sleep", "3600"]);
        let answer = agent.api().debug(namespace, pod, &[container]).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let running = |pod: &Value| state_of(pod, "of-root") == "running:";
        agent.api().pod_until(namespace, pod, running).await;
        let image = format!("--image={BUSYBOX}");
        let asked = [
            "debug", "-n", namespace, pod, &image, "-c", "debugger", "--", "sleep", "3600",
        ];
        user.run(asked).await.succeeded();
        for reason in ["EphemeralContainerRequested", "Pulled", "Created", "Started"] {
            let described = described_until(&kubectl, namespace, pod, reason).await;
            assert!(!described.contains("of-root"), "{described}");
        }
    }

    // Where the configuration forbids it, nothing is taken over.
    kubelet.process().kill().await;
    debug(&kubectl, "web", "asked").await;
    eventually("the kubelet counts as down", async || {
        let log = agent.log();
        if log.contains("the kubelet is down") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    tokio::time::sleep(Duration::from_secs(DOWN_SECONDS)).await;
    assert_eq!(made(&node, "asked").await, (0, 0));
}

/// Few rounds unless this says how many.
const ROUNDS: &str = "DEBUGLET_STORM_ROUNDS";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_often_the_kubelet_comes_and_goes_debuglet_starts_nothing_twice() {
    let rounds: u64 = std::env::var(ROUNDS).map_or(5, |rounds| rounds.parse().unwrap());
    let node = Node::start(ContainerdVersion::V2_4).await;
    let plane = ControlPlane::start(&node).await;
    let kubelet = Kubelet::start(&node, &plane).await;
    let kubectl = Kubectl::new(&node, KubectlVersion::V1_36, &plane.kubeconfig());
    let pod = run_pod(&kubectl, "web").await;
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let starts: PathBuf = node
        .folder()
        .join("kubelet/root/pods")
        .join(uid)
        .join("volumes/kubernetes.io~empty-dir/scratch");
    let agent = following(&node, &plane, 1, "").await;
    agent.api().pod_until("default", "web", is_running).await;
    let pods = Api::<Pod>::default_namespaced(client(&node, &plane.kubeconfig()).await);

    kubelet.process().kill().await;
    let static_pods = Kubelet::static_pods(&node);
    let names: Vec<String> = (0..rounds).map(|round| format!("debugger-{round}")).collect();
    for (round, name) in (0..rounds).zip(&names) {
        // Times that meet every moment of a kubelet's start and of a launch here, in the course of the rounds.
        let pause = |step: u64, most: u64| Duration::from_millis(round * step % most);
        let container = json!({
            "name": name, "image": BUSYBOX,
            "command": ["sh", "-c", format!("echo started >> /scratch/{name}; sleep 3600")],
            "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
        });
        let patch = Patch::Strategic(json!({"spec": {"ephemeralContainers": [container]}}));
        let parameters = PatchParams::default();
        pods.patch_ephemeral_containers("web", &parameters, &patch)
            .await
            .unwrap();
        tokio::time::sleep(pause(370, 3000)).await;
        let kubelet = Kubelet::launch(&node, &static_pods, Some(&plane.node_kubeconfig()));
        tokio::time::sleep(pause(710, 4000)).await;
        kubelet.process().kill().await;
    }
    // Each is in the runtime in the end, and its process has started once at the most: a kubelet that was killed between
    // the create and the start of a container leaves it like that.
    let (mut by_kubelet, mut by_debuglet) = (0, 0);
    for name in &names {
        let (ours, others) =
            eventually_within(
                KUBELET_WORKS_WITHIN,
                "everything was made",
                async || match made(&node, name).await {
                    (0, 0) => Err(format!("{name}\n{}", agent.log())),
                    made => Ok(made),
                },
            )
            .await;
        assert!(ours <= 1, "{name}: debuglet made {ours}");
        by_kubelet += others;
        by_debuglet += ours;
        let started = eventually("the process has come as far as its first line", async || {
            let running = node.cri().containers(name).await;
            let is_made = |one: &&debuglet_proto::v1::Container| {
                one.state() == debuglet_proto::v1::ContainerState::ContainerRunning
            };
            let expected = running.iter().filter(is_made).count();
            let lines = std::fs::read_to_string(starts.join(name)).unwrap_or_default();
            let started = lines.lines().count();
            if started >= expected {
                Ok(started)
            } else {
                Err(running)
            }
        })
        .await;
        if ours + others > 1 || started > 1 {
            println!("{name}: {ours} by debuglet, {others} by the kubelet, {started} starts");
            assert!(
                started <= ours + others,
                "{name}: debuglet started its own {started} times"
            );
            let events = agent.api().events("default", "web").await;
            let field = format!("spec.ephemeralContainers{{{name}}}");
            let told = |event: &Value| {
                event["reason"] == "SecondAttempt" && event["involvedObject"]["fieldPath"] == json!(field)
            };
            assert!(ours == 0 || events.iter().any(told), "{name}: {events:#?}");
        }
    }
    println!("{rounds} rounds: {by_kubelet} containers by the kubelet, {by_debuglet} by debuglet");
}
