//! Debug containers in the static pods of a real kubelet, which is restarted, killed, started again after a loss of
//! power, and told to replace the pod that is debugged. It has no control plane: static pods need none.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use integration::kubernetes::{Kubectl, KubectlVersion, Kubelet};
use integration::{
    Agent, BUSYBOX, ContainerdVersion, Node, debug_container, ephemeral_status, eventually, is_running,
    sleeping_pod, state_of,
};
use serde_json::{Value, json};

on_both_versions!(
    debug_containers_go_on_while_the_kubelet_is_restarted_killed_and_gone,
    a_static_pod_that_changes_while_it_is_debugged_is_replaced_and_its_debug_container_ends,
    after_a_loss_of_power_the_static_pod_comes_back_and_its_debug_containers_do_not,
);

/// The static pod's name as everybody sees it.
const POD: &str = "web-node1";

/// A manifest with one container, `main`, that sleeps; a label tells one version of it from another.
fn manifest(name: &str, label: &str) -> Value {
    let mut pod = sleeping_pod(name);
    pod["metadata"]["labels"] = json!({"version": label});
    pod["spec"]["terminationGracePeriodSeconds"] = json!(1);
    pod
}

/// Where the manifest of a static pod lies.
fn file(node: &Node, name: &str) -> PathBuf {
    Kubelet::static_pods(node).join(format!("{name}.json"))
}

/// Writes it in one step, as an editor does.
fn write(node: &Node, name: &str, label: &str) {
    let draft = node.folder().join("static-pod-draft");
    std::fs::write(&draft, manifest(name, label).to_string()).unwrap();
    std::fs::rename(draft, file(node, name)).unwrap();
}

/// Has the kubelet start a pod and end it, so that it has looked at everything that runs and cleaned up.
async fn another_pod_comes_and_goes(node: &Node, agent: &Agent) {
    write(node, "passing", "only");
    agent
        .api()
        .pod_until("default", "passing-node1", is_running)
        .await;
    std::fs::remove_file(file(node, "passing")).unwrap();
    eventually("the kubelet has ended the other pod", async || {
        let answer = agent.api().pod("default", "passing-node1").await;
        if answer.status == 404 {
            Ok(())
        } else {
            Err(answer.body)
        }
    })
    .await;
}

/// Waits until the debug container runs, and answers its id.
async fn runs(agent: &Agent, name: &str) -> Value {
    let running = |pod: &Value| state_of(pod, name) == "running:";
    let pod = agent.api().pod_until("default", POD, running).await;
    ephemeral_status(&pod, name)["containerID"].clone()
}

/// Adds a debug container that goes on.
async fn add(agent: &Agent, name: &str, target: Option<&str>) -> Value {
    let mut container = debug_container(name, &["sleep", "3600"]);
    if let Some(target) = target {
        container["targetContainerName"] = json!(target);
    }
    let answer = agent.api().debug("default", POD, &[container]).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    runs(agent, name).await
}

async fn debug_containers_go_on_while_the_kubelet_is_restarted_killed_and_gone(version: ContainerdVersion) {
    let node = Node::start(version).await;
    write(&node, "web", "first");
    let kubelet = Kubelet::start_alone(&node).await;
    let agent = node.start_agent().await;
    let pod = agent.api().pod_until("default", POD, is_running).await;
    let main = pod["status"]["containerStatuses"][0]["containerID"].clone();

    let image = format!("--image={BUSYBOX}");
    let kubectl = Kubectl::new(&node, KubectlVersion::V1_36, &agent.kubeconfig().await);
    let fixed = ["debug", POD, &image, "--target=main", "-c"];
    let with_name = |name| {
        fixed
            .into_iter()
            .chain([name, "--attach=false", "--", "sleep", "3600"])
    };
    kubectl.run(with_name("by-kubectl")).await.succeeded();
    node.debuglet(with_name("by-debuglet")).await.succeeded();
    let before = [
        runs(&agent, "by-kubectl").await,
        runs(&agent, "by-debuglet").await,
    ];
    another_pod_comes_and_goes(&node, &agent).await;

    kubelet.stop().await;
    let kubelet = Kubelet::start_alone(&node).await;
    another_pod_comes_and_goes(&node, &agent).await;
    kubelet.kill().await;

    let alone = add(&agent, "without-a-kubelet", Some("main")).await;
    let seen = node
        .debuglet([
            "exec",
            POD,
            "-c",
            "without-a-kubelet",
            "--",
            "cat",
            "/proc/1/cmdline",
        ])
        .await
        .succeeded();
    assert!(seen.stdout.starts_with("sleep\0"), "{seen:?}");

    let _kubelet = Kubelet::start_alone(&node).await;
    another_pod_comes_and_goes(&node, &agent).await;
    let label = &format!("io.kubernetes.pod.name={POD}");
    for (name, id) in [
        ("main", &main),
        ("by-kubectl", &before[0]),
        ("by-debuglet", &before[1]),
        ("without-a-kubelet", &alone),
    ] {
        let listed = node
            .crictl([
                "ps",
                "--all",
                "--no-trunc",
                "--quiet",
                "--name",
                &format!("^{name}$"),
                "--label",
                label,
            ])
            .await
            .succeeded();
        assert_eq!(
            format!("containerd://{}", listed.stdout.trim()),
            *id,
            "{name}: one container, and the same"
        );
    }
    let pod = agent.api().pod("default", POD).await.body;
    assert!(is_running(&pod), "{pod}");
    for name in ["by-kubectl", "by-debuglet", "without-a-kubelet"] {
        assert_eq!(state_of(&pod, name), "running:", "{name}");
    }
}

async fn a_static_pod_that_changes_while_it_is_debugged_is_replaced_and_its_debug_container_ends(
    version: ContainerdVersion,
) {
    let node = Node::start(version).await;
    write(&node, "web", "first");
    let kubelet = Kubelet::start_alone(&node).await;
    let agent = node.start_agent().await;
    let first = agent.api().pod_until("default", POD, is_running).await;

    let (second, plain) = replaced(&node, &agent, &kubelet, &first, "second").await;
    let id = add(&agent, "debugger", None).await;
    let path =
        format!("/apis/debuglet.io/v1alpha1/namespaces/default/pods/{POD}/launches/debugger?watch=true");
    let mut launch = agent.api().watch(&path).await;
    let (third, debugged) = replaced(&node, &agent, &kubelet, &second, "third").await;
    println!("a static pod is replaced in {plain:?}; with a debug container in it in {debugged:?}");
    assert!(debugged.failed_kills <= plain.failed_kills + 1, "one retry");
    assert_eq!(third["spec"]["ephemeralContainers"], Value::Null);

    let mut last = json!(null);
    while let Some(step) = launch.next().await {
        last = step;
    }
    assert_eq!(
        (&last["stage"], &last["exitCode"]),
        (&json!("Terminated"), &json!(137)),
        "{last}"
    );
    let id = id.as_str().unwrap().trim_start_matches("containerd://");
    let record = node
        .folder()
        .join("state/pods")
        .join(second["metadata"]["uid"].as_str().unwrap())
        .join("ephemeral/debugger.json");
    let record = eventually("the end is on the disk", async || {
        let text = std::fs::read_to_string(&record).map_err(|error| error.to_string())?;
        if text.contains("\"ended\"") {
            Ok(text)
        } else {
            Err(text)
        }
    })
    .await;
    assert!(record.contains(id), "{record}");
    assert_eq!(
        node.crictl(["ps", "--quiet", "--name", "debugger"])
            .await
            .succeeded()
            .stdout,
        ""
    );
}

/// What it costs a kubelet to replace a static pod.
#[derive(Debug)]
struct Cost {
    /// From the manifest's change until the new pod runs.
    #[allow(dead_code, reason = "printed")]
    until_the_new_runs: Duration,
    /// Events `FailedKillPod` of the kubelet.
    failed_kills: usize,
}

/// Changes the manifest, and waits for the new pod.
async fn replaced(node: &Node, agent: &Agent, kubelet: &Kubelet, old: &Value, label: &str) -> (Value, Cost) {
    let failed_kills = || kubelet.process().stderr().matches("FailedKillPod").count();
    let (before, began) = (failed_kills(), Instant::now());
    write(node, "web", label);
    let new = agent
        .api()
        .pod_until("default", POD, |pod| {
            is_running(pod) && pod["metadata"]["uid"] != old["metadata"]["uid"]
        })
        .await;
    assert_eq!(new["metadata"]["labels"]["version"], label);
    let cost = Cost {
        until_the_new_runs: began.elapsed(),
        failed_kills: failed_kills() - before,
    };
    (new, cost)
}

async fn after_a_loss_of_power_the_static_pod_comes_back_and_its_debug_containers_do_not(
    version: ContainerdVersion,
) {
    let node = Node::start(version).await;
    write(&node, "web", "first");
    let kubelet = Kubelet::start_alone(&node).await;
    let agent = node.start_agent().await;
    let before = agent.api().pod_until("default", POD, is_running).await;
    let ids = [
        add(&agent, "beside", None).await,
        add(&agent, "joined", Some("main")).await,
    ];

    agent.kill().await;
    kubelet.kill().await;
    node.lose_power().await;
    node.start_containerd().await;
    // The agent is there before the kubelet has made anything anew.
    let agent = node.start_agent().await;
    let _kubelet = Kubelet::start_alone(&node).await;

    let main = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
    let back = agent
        .api()
        .pod_until("default", POD, |pod| {
            is_running(pod) && main(pod) != main(&before) && pod["metadata"]["deletionTimestamp"].is_null()
        })
        .await;
    assert_eq!(back["metadata"]["uid"], before["metadata"]["uid"], "the same pod");
    another_pod_comes_and_goes(&node, &agent).await;
    let back = agent.api().pod("default", POD).await.body;
    for (name, id) in [("beside", &ids[0]), ("joined", &ids[1])] {
        let status = ephemeral_status(&back, name);
        assert!(state_of(&back, name).starts_with("terminated:"), "{status}");
        assert_eq!(status["containerID"], *id, "its one and only container");
        println!("{name} after the loss of power: {}", status["state"]);
        let running = node.crictl(["ps", "--quiet", "--name", name]).await.succeeded();
        assert_eq!(running.stdout, "", "{name} was not started again");
    }
    // The pod can be debugged as before.
    add(&agent, "again", Some("main")).await;
    let listed = node.debuglet(["ps"]).await.succeeded();
    assert!(listed.stdout.contains("1 running"), "{listed:?}");
}
