//! Debug containers and the containers that they look into.

use integration::{
    ContainerdVersion, DISTROLESS, LARGE, Moment, Node, debug_container, ephemeral_status, is_running,
    sleeping_pod, state_of,
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

async fn a_crash_looping_target_is_waited_for_with_its_state_in_the_message(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    let mut pod = sleeping_pod("crashing");
    let mut crashing = debug_container("crashing", &["sh", "-c", "sleep 1; exit 7"]);
    crashing["imagePullPolicy"] = json!("IfNotPresent");
    pod["spec"]["containers"].as_array_mut().unwrap().push(crashing);
    node.write_manifest("crashing.json", &pod);
    let between_two_runs = |pod: &Value| {
        let statuses = pod["status"]["containerStatuses"].as_array();
        let crashing = statuses.and_then(|all| all.iter().find(|status| status["name"] == "crashing"));
        crashing.is_some_and(|status| status["state"]["waiting"]["reason"] == "CrashLoopBackOff")
    };
    agent
        .api()
        .pod_until("default", "crashing", between_two_runs)
        .await;

    let mut container = debug_container("dbg", &["sh", "-c", "cat /proc/1/cmdline; sleep 600"]);
    container["targetContainerName"] = json!("crashing");
    agent.api().debug("default", "crashing", &[container]).await;

    let waiting = |pod: &Value| state_of(pod, "dbg") == "waiting:CreateContainerError";
    let waits = agent.api().pod_until("default", "crashing", waiting).await;
    let message = ephemeral_status(&waits, "dbg")["state"]["waiting"]["message"]
        .as_str()
        .unwrap();
    assert!(message.contains("crashing") && message.contains('7'), "{message}");
    // It is started with the next run of its target, and ends with it.
    let ended = |pod: &Value| state_of(pod, "dbg").starts_with("terminated:");
    agent.api().pod_until("default", "crashing", ended).await;
    let log = agent
        .api()
        .get("/api/v1/namespaces/default/pods/crashing/log?container=dbg")
        .await;
    assert!(log.body.as_str().unwrap().contains("sleep"), "{log:?}");
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
    let runtime_socket = Some(proxy.socket().to_path_buf());
    let agent = node
        .start_agent_with(integration::AgentOptions {
            runtime_socket,
            ..Default::default()
        })
        .await;
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
    integration::eventually("the pod is gone", async || {
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
