//! What others do to the pods that they run, and to the debug containers in them, is noticed, shown, and borne.

use debuglet_proto::v1::{
    ContainerState, ImageSpec, RemoveContainerRequest, RemoveImageRequest, ReopenContainerLogRequest,
};
use integration::{
    Agent, BUSYBOX, ContainerdVersion, ForeignPod, Moment, Node, debug_container, ephemeral_status,
    eventually, is_running, state_of,
};
use serde_json::{Value, json};

on_both_versions!(
    what_crictl_does_to_a_debug_container_is_noticed,
    a_log_is_read_and_removed_where_the_sandbox_keeps_it,
    a_log_that_a_kubelet_rotates_is_read_to_its_first_line,
    a_pod_that_goes_and_comes_back_at_once_is_debugged_like_any_other,
    a_debug_container_outlives_containerd_and_the_agent,
    after_a_reboot_what_once_ran_is_shown_and_not_started_again,
    a_start_that_the_runtime_s_lists_show_late_is_seen,
    an_image_that_others_remove_before_the_create_is_pulled_again,
    of_two_of_one_name_the_newer_is_served_and_both_are_listed,
);

async fn add(agent: &Agent, container: Value) {
    let answer = agent.api().debug("shop", "till", &[container]).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// The pod `till` once its container `name` is in a state that begins so.
async fn until(agent: &Agent, name: &str, state: &str) -> Value {
    agent
        .api()
        .pod_until("shop", "till", |pod| state_of(pod, name).starts_with(state))
        .await
}

/// A debug container in the pod `till` that runs, and its id.
async fn running(agent: &Agent, name: &str, command: &[&str]) -> String {
    add(agent, debug_container(name, command)).await;
    id_of(&until(agent, name, "running").await, name)
}

fn id_of(pod: &Value, name: &str) -> String {
    let id = ephemeral_status(pod, name)["containerID"].as_str().unwrap();
    id.trim_start_matches("containerd://").to_owned()
}

async fn log(agent: &Agent, query: &str) -> String {
    let path = format!("/api/v1/namespaces/shop/pods/till/log?{query}");
    let answer = agent.api().get(&path).await;
    answer
        .body
        .as_str()
        .map_or_else(|| answer.body.to_string(), str::to_owned)
}

async fn log_until(agent: &Agent, query: &str, expected: &str) {
    eventually("the log is this", async || {
        let said = log(agent, query).await;
        if said == expected { Ok(()) } else { Err(said) }
    })
    .await;
}

/// What has come and gone in the runtime before this returns, the agent has seen: it has run a container since.
async fn all_seen(agent: &Agent, name: &str) {
    add(agent, debug_container(name, &["true"])).await;
    until(agent, name, "terminated").await;
}

async fn what_crictl_does_to_a_debug_container_is_noticed(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    let sandbox = ForeignPod::run_sleeping(&node.cri(), ForeignPod::config(&node, "till", "u-till")).await;
    agent.api().pod_until("shop", "till", is_running).await;
    let id = running(&agent, "debugger", &["sh", "-c", "echo words; exec sleep 3600"]).await;

    let said = node
        .crictl(["ps", "-q", "--no-trunc", "--name", "debugger"])
        .await
        .succeeded();
    assert_eq!(said.stdout.trim(), id);
    let said = node.crictl(["inspect", &id]).await.succeeded();
    let inspected: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(inspected["status"]["state"], "CONTAINER_RUNNING");
    assert_eq!(inspected["status"]["labels"]["io.kubernetes.pod.name"], "till");
    eventually("crictl shows the log", async || {
        let said = node.crictl(["logs", &id]).await;
        if said.stdout == "words\n" {
            Ok(())
        } else {
            Err(said)
        }
    })
    .await;

    node.crictl(["stop", "--timeout", "0", &id]).await.succeeded();
    let stopped = until(&agent, "debugger", "terminated").await;
    let last = ephemeral_status(&stopped, "debugger")["state"].clone();
    assert_eq!(last["terminated"]["exitCode"], 137);
    all_seen(&agent, "after-the-stop").await;
    let made = node.cri().containers("debugger").await;
    let states: Vec<ContainerState> = made.iter().map(debuglet_proto::v1::Container::state).collect();
    assert_eq!(
        states,
        [ContainerState::ContainerExited],
        "it is not started again"
    );

    node.crictl(["rm", &id]).await.succeeded();
    all_seen(&agent, "after-the-removal").await;
    let pod = agent.api().pod("shop", "till").await.body;
    assert_eq!(ephemeral_status(&pod, "debugger")["state"], last);
    assert_eq!(id_of(&pod, "debugger"), id);
    assert!(node.cri().containers("debugger").await.is_empty());

    // As a kubelet ends a pod.
    running(&agent, "second", &["sleep", "3600"]).await;
    sandbox.stop().await;
    until(&agent, "second", "terminated").await;
    let made = node.cri().containers("second").await;
    assert_eq!(made.len(), 1, "{made:?}");
    assert_eq!(made[0].state(), ContainerState::ContainerExited);
}

async fn a_log_is_read_and_removed_where_the_sandbox_keeps_it(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    let pod = ForeignPod::run_sleeping(&node.cri(), ForeignPod::config(&node, "till", "u-till")).await;
    agent.api().pod_until("shop", "till", is_running).await;
    let mut container = debug_container("debugger", &["sh", "-c", "echo last words; exit 3"]);
    container["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    add(&agent, container).await;
    let ended = until(&agent, "debugger", "terminated").await;
    let terminated = &ephemeral_status(&ended, "debugger")["state"]["terminated"];
    assert!(
        terminated["message"]
            .as_str()
            .unwrap_or_default()
            .contains("last words"),
        "{terminated}"
    );

    // The runtime forgets it, and keeps its log, as where a kubelet collects garbage.
    let container_id = id_of(&ended, "debugger");
    let request = RemoveContainerRequest { container_id };
    node.cri().runtime().remove_container(request).await.unwrap();
    log_until(&agent, "container=debugger", "last words\n").await;

    let logs = node.folder().join("till-logs");
    assert!(logs.join("debugger/0.log").is_file());
    pod.stop().await;
    pod.remove().await;
    eventually("the pod goes", async || {
        match agent.api().pod("shop", "till").await.status {
            404 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    assert!(!logs.join("debugger").exists(), "our log goes with the pod");
    assert!(logs.join("main.log").is_file(), "and no other");
}

async fn a_log_that_a_kubelet_rotates_is_read_to_its_first_line(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    let mut config = ForeignPod::config(&node, "till", "u-till");
    let source = ("kubernetes.io/config.source".to_owned(), "api".to_owned());
    config.annotations = [source].into();
    ForeignPod::run_sleeping(&node.cri(), config).await;
    agent.api().pod_until("shop", "till", is_running).await;
    let script = "echo 1; echo 2; until [ -e /on ]; do sleep 0.05; done; echo 3; exec sleep 3600";
    let id = running(&agent, "debugger", &["sh", "-c", script]).await;
    log_until(&agent, "container=debugger", "1\n2\n").await;

    // As a kubelet does it.
    let file = node.folder().join("till-logs/debugger/debuglet.log");
    std::fs::rename(&file, file.with_file_name("debuglet.log.20261121-000001")).unwrap();
    let request = ReopenContainerLogRequest {
        container_id: id.clone(),
    };
    node.cri().runtime().reopen_container_log(request).await.unwrap();
    node.crictl(["exec", &id, "touch", "/on"]).await.succeeded();
    log_until(&agent, "container=debugger", "1\n2\n3\n").await;
    assert_eq!(log(&agent, "container=debugger&tailLines=2").await, "2\n3\n");

    // A kubelet that knows the container no more takes its record, and the file that it thinks is its log.
    assert_eq!(agent.api().stop("shop", "till", "debugger").await.status, 200);
    until(&agent, "debugger", "terminated").await;
    let request = RemoveContainerRequest { container_id: id };
    node.cri().runtime().remove_container(request).await.unwrap();
    log_until(&agent, "container=debugger", "1\n2\n3\n").await;
}

async fn a_pod_that_goes_and_comes_back_at_once_is_debugged_like_any_other(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    let cri = node.cri();
    let mut config = ForeignPod::config(&node, "till", "u-till");
    for attempt in 0..6 {
        config.metadata.as_mut().unwrap().attempt = attempt;
        let pod = ForeignPod::run_sleeping(&cri, config.clone()).await;
        let address = pod.address().await;
        agent
            .api()
            .pod_until("shop", "till", |pod| {
                pod["status"]["podIP"] == address.as_str()
                    && is_running(pod)
                    && pod["metadata"]["deletionTimestamp"].is_null()
            })
            .await;
        // One in two comes back without having been debugged.
        if attempt % 2 == 1 {
            running(&agent, &format!("debugger-{attempt}"), &["sleep", "3600"]).await;
        }
        pod.stop().await;
        pod.remove().await;
    }
    ForeignPod::run_sleeping(&cri, config).await;
    let back = agent
        .api()
        .pod_until("shop", "till", |pod| {
            let all = [1, 3, 5].map(|attempt| state_of(pod, &format!("debugger-{attempt}")));
            is_running(pod) && all.iter().all(|state| state.starts_with("terminated"))
        })
        .await;
    assert_eq!(back["spec"]["ephemeralContainers"].as_array().unwrap().len(), 3);
}

async fn a_debug_container_outlives_containerd_and_the_agent(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    let _pod = ForeignPod::run_sleeping(&node.cri(), ForeignPod::config(&node, "till", "u-till")).await;
    agent.api().pod_until("shop", "till", is_running).await;
    let id = running(&agent, "debugger", &["sleep", "3600"]).await;

    node.kill_containerd().await;
    node.start_containerd().await;
    let second = running(&agent, "second", &["sleep", "3600"]).await;
    let pod = agent.api().pod("shop", "till").await.body;
    assert_eq!(
        (state_of(&pod, "debugger"), id_of(&pod, "debugger")),
        ("running:".to_owned(), id.clone())
    );

    agent.kill().await;
    node.kill_containerd().await;
    node.start_containerd().await;
    let agent = node.start_agent().await;
    for (name, id) in [("debugger", &id), ("second", &second)] {
        let pod = until(&agent, name, "running").await;
        assert_eq!(&id_of(&pod, name), id);
        assert_eq!(node.cri().containers(name).await.len(), 1);
    }
    // And its end is noticed.
    assert_eq!(agent.api().stop("shop", "till", "debugger").await.status, 200);
    until(&agent, "debugger", "terminated").await;
    node.crictl(["stop", "--timeout", "0", &second]).await.succeeded();
    until(&agent, "second", "terminated").await;
}

/// Sandboxes do not outlive a reboot. Some runtimes still list them, others have been cleaned up.
async fn after_a_reboot_what_once_ran_is_shown_and_not_started_again(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let mut config = ForeignPod::config(&node, "till", "u-till");
    let mut pod = ForeignPod::run_sleeping(&node.cri(), config.clone()).await;
    for (attempt, still_listed) in [(1, true), (2, false)] {
        let name = format!("debugger-{attempt}");
        let agent = node.start_agent().await;
        agent.api().pod_until("shop", "till", is_running).await;
        let id = running(&agent, &name, &["sleep", "3600"]).await;

        agent.kill().await;
        pod.stop().await;
        if !still_listed {
            pod.remove().await;
        }
        node.kill_containerd().await;
        node.start_containerd().await;
        let agent = node.start_agent().await;
        // Whoever runs the pod, a kubelet perhaps, makes it a new sandbox.
        config.metadata.as_mut().unwrap().attempt = attempt;
        pod = ForeignPod::run_sleeping(&node.cri(), config.clone()).await;
        let back = agent
            .api()
            .pod_until("shop", "till", |pod| {
                is_running(pod) && state_of(pod, &name).starts_with("terminated")
            })
            .await;
        assert_eq!(id_of(&back, &name), id);
        all_seen(&agent, &format!("seen-{attempt}")).await;
        let made = node.cri().containers(&name).await;
        assert!(
            made.iter()
                .all(|one| one.id == id && one.state() == ContainerState::ContainerExited),
            "{made:?}"
        );
        agent.kill().await;
    }
}

/// containerd tells that a container's process runs before its CRI lists show that, which a busy machine draws out.
async fn a_start_that_the_runtime_s_lists_show_late_is_seen(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let proxy = node.start_proxy().await;
    let agent = node.start_agent_behind(&proxy).await;
    let pod = ForeignPod::run(&node.cri(), ForeignPod::config(&node, "till", "u-till")).await;
    let id = pod.create("main", &["sleep", "86400"]).await;
    agent
        .api()
        .pod_until("shop", "till", |pod| {
            pod["spec"]["containers"][0]["name"] == "main"
        })
        .await;
    proxy.show_container_as("main", ContainerState::ContainerCreated);
    pod.start(id).await;
    // Every look that the event itself asks for has been over for long by then.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    proxy.let_pass();
    agent.api().pod_until("shop", "till", is_running).await;
}

async fn an_image_that_others_remove_before_the_create_is_pulled_again(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let proxy = node.start_proxy().await;
    let agent = node.start_agent_behind(&proxy).await;
    ForeignPod::run_sleeping(&node.cri(), ForeignPod::config(&node, "till", "u-till")).await;
    agent.api().pod_until("shop", "till", is_running).await;
    let mut creates = proxy.hold("CreateContainer", Moment::Before);
    let mut container = debug_container("debugger", &["sleep", "3600"]);
    container["image"] = json!(BUSYBOX);
    add(&agent, container).await;
    let create = creates.next().await;
    let image = ImageSpec {
        image: BUSYBOX.to_owned(),
        ..ImageSpec::default()
    };
    let request = RemoveImageRequest { image: Some(image) };
    node.cri().images().remove_image(request).await.unwrap();
    proxy.let_pass();
    drop(create);
    until(&agent, "debugger", "running").await;
    assert_eq!(node.cri().containers("debugger").await.len(), 1);
}

/// crictl's samples are copied with their UID, and given another name; or with their name, and given another UID.
async fn of_two_of_one_name_the_newer_is_served_and_both_are_listed(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    let older = ForeignPod::run_sleeping(&node.cri(), ForeignPod::config(&node, "till", "u-older")).await;
    agent.api().pod_until("shop", "till", is_running).await;
    let newer = ForeignPod::run_sleeping(&node.cri(), ForeignPod::config(&node, "till", "u-newer")).await;
    let is = |uid: &'static str| move |pod: &Value| pod["metadata"]["uid"] == uid && is_running(pod);
    agent.api().pod_until("shop", "till", is("u-newer")).await;
    let listed = node.debuglet(["ps", "-n", "shop"]).await.succeeded();
    assert_eq!(listed.stdout.matches("till").count(), 2, "{listed:?}");
    running(&agent, "debugger", &["sleep", "3600"]).await;
    newer.stop().await;
    newer.remove().await;
    let left = agent.api().pod_until("shop", "till", is("u-older")).await;
    assert!(ephemeral_status(&left, "debugger").is_null());
    older.stop().await;
    older.remove().await;
}
