//! Debug containers and the containers that they look into.

use integration::{
    ContainerdVersion, DISTROLESS, LARGE, Moment, Node, debug_container, ephemeral_status, eventually,
    is_running, sleeping_pod, state_of,
};
use serde_json::{Value, json};

on_both_versions!(
    a_debug_container_sees_the_processes_and_files_of_a_distroless_target,
    a_crash_looping_target_is_waited_for_with_its_state_in_the_message,
    a_target_that_ends_takes_its_debug_container_along_and_the_message_says_so,
    a_pod_that_is_removed_while_its_image_is_pulled_goes_without_a_container,
);

async fn a_debug_container_sees_the_processes_and_files_of_a_distroless_target(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    node.write_manifest("greeter.json", &greeter());
    agent.api().pod_until("default", "greeter", is_running).await;

    let script = "ps -o args; cat /proc/1/root/srv/greeting.txt; hostname";
    let output = debug(&node, &["greeter", "--target=greeter", "--", "sh", "-c", script]).await;

    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.stdout.contains("/greeter\n"), "{output:?}");
    assert!(
        output.stdout.contains("Hello from an image without a shell.\n"),
        "{output:?}"
    );
    assert!(
        output.stdout.ends_with("greeter\n"),
        "the pod's host name: {output:?}"
    );
}

/// Says so once process 1 is the target, which is the runtime's own program for a moment.
const LOOK: &str = "until grep -q crash /proc/1/cmdline; do sleep 0.1; done; echo it crashes; sleep 600";

async fn a_crash_looping_target_is_waited_for_with_its_state_in_the_message(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    let mut pod = sleeping_pod("crashing");
    // A run of it ends when it is told to: on a busy machine a short one could be over before it is joined.
    let run = "until [ -e /scratch/crash ]; do sleep 0.1; done; rm /scratch/crash; exit 7";
    let mut crashing = debug_container("crashing", &["sh", "-c", run]);
    crashing["imagePullPolicy"] = json!("IfNotPresent");
    crashing["volumeMounts"] = json!([{"name": "scratch", "mountPath": "/scratch"}]);
    pod["spec"]["containers"].as_array_mut().unwrap().push(crashing);
    node.write_manifest("crashing.json", &pod);
    let status = |pod: &Value| {
        let statuses = pod["status"]["containerStatuses"]
            .as_array()
            .into_iter()
            .flatten();
        let mut of_target = statuses.filter(|status| status["name"] == "crashing");
        of_target.next().cloned().unwrap_or_default()
    };
    let crash = async |restarts: u32| {
        let runs = |pod: &Value| is_running(pod) && status(pod)["restartCount"] == restarts;
        agent.api().pod_until("default", "crashing", runs).await;
        let crash = ["exec", "crashing", "-c", "main", "--", "touch", "/scratch/crash"];
        node.debuglet(crash).await.succeeded();
    };
    crash(0).await;
    crash(1).await;
    let between_two_runs = |pod: &Value| status(pod)["state"]["waiting"]["reason"] == "CrashLoopBackOff";
    agent
        .api()
        .pod_until("default", "crashing", between_two_runs)
        .await;

    let mut container = debug_container("dbg", &["sh", "-c", LOOK]);
    container["targetContainerName"] = json!("crashing");
    agent.api().debug("default", "crashing", &[container]).await;

    let waiting = |pod: &Value| state_of(pod, "dbg") == "waiting:CreateContainerError";
    let waits = agent.api().pod_until("default", "crashing", waiting).await;
    let message = ephemeral_status(&waits, "dbg")["state"]["waiting"]["message"]
        .as_str()
        .unwrap();
    assert!(message.contains("crashing") && message.contains('7'), "{message}");
    // It is started with the next run of its target, and ends with it.
    let joined = |pod: &Value| state_of(pod, "dbg") == "running:";
    agent.api().pod_until("default", "crashing", joined).await;
    eventually("it has looked at its target", async || {
        let path = "/api/v1/namespaces/default/pods/crashing/log?container=dbg";
        let log = agent.api().get(path).await;
        let text = log.body.as_str().unwrap_or_default();
        if text == "it crashes\n" { Ok(()) } else { Err(log) }
    })
    .await;
    crash(2).await;
    let ended = |pod: &Value| state_of(pod, "dbg").starts_with("terminated:");
    agent.api().pod_until("default", "crashing", ended).await;
    assert_eq!(node.cri().containers("dbg").await.len(), 1);
}

async fn a_target_that_ends_takes_its_debug_container_along_and_the_message_says_so(
    version: ContainerdVersion,
) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    let mut pod = sleeping_pod("ending");
    pod["spec"]["restartPolicy"] = json!("Never");
    let wait_for_the_word = "until [ -e /scratch/end ]; do sleep 0.1; done";
    pod["spec"]["containers"][0]["command"] = json!(["sh", "-c", wait_for_the_word]);
    node.write_manifest("ending.json", &pod);
    agent.api().pod_until("default", "ending", is_running).await;
    let mut container = debug_container("dbg", &["sleep", "600"]);
    container["targetContainerName"] = json!("main");
    container["volumeMounts"] = json!([{ "name": "scratch", "mountPath": "/scratch" }]);
    agent.api().debug("default", "ending", &[container]).await;
    agent
        .api()
        .pod_until("default", "ending", |pod| state_of(pod, "dbg") == "running:")
        .await;

    node.debuglet(["exec", "ending", "-c", "dbg", "--", "touch", "/scratch/end"])
        .await
        .succeeded();

    let ended = |pod: &Value| state_of(pod, "dbg").starts_with("terminated:");
    let pod = agent.api().pod_until("default", "ending", ended).await;
    let terminated = &ephemeral_status(&pod, "dbg")["state"]["terminated"];
    assert_eq!(terminated["exitCode"], 137);
    assert!(
        terminated["message"].as_str().unwrap().contains("main"),
        "{terminated}"
    );
}

async fn a_pod_that_is_removed_while_its_image_is_pulled_goes_without_a_container(
    version: ContainerdVersion,
) {
    let node = Node::start(version).await;
    let proxy = node.start_proxy().await;
    let agent = node.start_agent_behind(&proxy).await;
    node.write_manifest("leaving.json", &sleeping_pod("leaving"));
    agent.api().pod_until("default", "leaving", is_running).await;
    let mut held = proxy.hold("PullImage", Moment::Before);
    let mut container = debug_container("dbg", &["sleep", "600"]);
    container["image"] = json!(LARGE);
    agent.api().debug("default", "leaving", &[container]).await;
    let pull = held.next().await;
    let mut launch = agent
        .api()
        .watch("/apis/debuglet.io/v1alpha1/namespaces/default/pods/leaving/launches/dbg?watch=true")
        .await;

    node.remove_manifest("leaving.json");
    let mut last = json!(null);
    while let Some(step) = launch.next().await {
        last = step;
    }
    drop(pull);

    assert_eq!(last["stage"], "Terminated", "{last}");
    assert!(last["message"].as_str().unwrap().contains("removed"), "{last}");
    eventually("the pod is gone", async || {
        let answer = agent.api().pod("default", "leaving").await;
        if answer.status == 404 { Ok(()) } else { Err(answer) }
    })
    .await;
    assert_eq!(node.cri().containers("dbg").await, Vec::new());
}

/// A pod of the distroless sample.
fn greeter() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "greeter" },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "greeter", "image": DISTROLESS, "imagePullPolicy": "IfNotPresent" }],
        },
    })
}

/// `debuglet debug` with busybox, attached.
async fn debug(node: &Node, arguments: &[&str]) -> integration::Output {
    let fixed = [
        "debug",
        "--attach",
        "--image",
        integration::BUSYBOX,
        "--image-pull-policy=IfNotPresent",
    ];
    node.debuglet(fixed.into_iter().chain(arguments.iter().copied()))
        .await
}
