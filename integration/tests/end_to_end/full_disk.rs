//! A disk that is full: what fills it can be stopped and deleted, nothing that was accepted is lost, and with room again
//! everything goes on.

use debuglet_proto::v1::{ContainerState, ListContainersRequest};
use integration::{
    Agent, AgentOptions, Answer, ContainerdVersion, Node, debug_container, eventually, is_running,
    sleeping_pod, state_of,
};
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";
/// How many bytes the agent keeps in `state_dir/ballast`.
const BALLAST: &str = "262144";

on_both_versions!(
    a_pod_whose_volume_exceeds_its_size_limit_is_evicted_and_stays_so,
    what_fills_the_disk_is_stopped_and_deleted,
    a_manifest_pod_that_is_taken_out_frees_the_disk_that_it_has_filled,
    a_manifest_pod_whose_log_fills_the_disk_of_the_state_goes_without_room_for_its_end,
);

async fn what_fills_the_disk_is_stopped_and_deleted(version: ContainerdVersion) {
    let node = Node::start(version).await;
    node.mount_memory("state", "2m").await;
    let agent = node.start_agent().await;
    create(&agent, "web").await;
    create(&agent, "other").await;
    let kept = debug_container("kept", &["sleep", "600"]);
    assert_eq!(agent.api().debug("default", "other", &[kept]).await.status, 200);
    agent
        .api()
        .pod_until("default", "other", |pod| state_of(pod, "kept") == "running:")
        .await;

    // It takes whatever becomes free.
    let mut fill = debug_container(
        "fill",
        &[
            "sh",
            "-c",
            "while :; do cat /dev/zero >>/scratch/fill; sleep 0.2; done",
        ],
    );
    fill["volumeMounts"] = json!([{"name": "scratch", "mountPath": "/scratch"}]);
    assert_eq!(agent.api().debug("default", "web", &[fill]).await.status, 200);
    full(&agent).await;

    let stopped = node.debuglet(["stop", "web", "-c", "fill"]).await.succeeded();
    assert!(stopped.stdout.contains("will not start again"), "{stopped:?}");
    no_process(&node, "fill").await;
    assert_eq!(delete(&agent, "web").await.status, 200);
    gone(&agent, "web").await;

    create(&agent, "more").await;
    agent.api().pod_until("default", "more", is_running).await;
    has_ballast(&node).await;
    agent.kill().await;
    let agent = node.start_agent().await;
    agent
        .api()
        .pod_until("default", "other", |pod| state_of(pod, "kept") == "running:")
        .await;
    gone(&agent, "web").await;
}

async fn a_manifest_pod_that_is_taken_out_frees_the_disk_that_it_has_filled(version: ContainerdVersion) {
    let node = Node::start(version).await;
    node.mount_memory("state", "2m").await;
    let agent = node.start_agent().await;
    for (pod, file) in [
        ("volume", "/scratch/fill"),
        ("hosts", "/etc/hosts"),
        ("message", "/dev/termination-log"),
    ] {
        run_with_debug_container(&node, &agent, pod, &["sleep", "600"]).await;
        // Not even the room is left that is kept for this.
        shell(&node, "truncate -s 0 $1/state/ballast").await;
        let fill = format!("tr '\\0' x </dev/zero >{file}");
        let fill = ["exec", pod, "--", "sh", "-c", &fill];
        assert_ne!(node.debuglet(fill).await.code, 0);
        full(&agent).await;
        is_taken_out_and_comes_back(&node, &agent, pod).await;
    }
}

async fn a_manifest_pod_whose_log_fills_the_disk_of_the_state_goes_without_room_for_its_end(
    version: ContainerdVersion,
) {
    let node = Node::start(version).await;
    node.mount_memory("state", "2m").await;
    let on_one_disk = "mkdir -p $1/state/logs $1/logs && mount --bind $1/state/logs $1/logs";
    shell(&node, on_one_disk).await;
    let agent = node.start_agent().await;
    let chatty = "while :; do head -c 4096 /dev/zero | tr '\\0' a; echo; done";
    run_with_debug_container(&node, &agent, "web", &["sh", "-c", chatty]).await;
    full(&agent).await;
    shell(&node, "truncate -s 0 $1/state/ballast").await;
    full(&agent).await;
    is_taken_out_and_comes_back(&node, &agent, "web").await;
}

/// Runs a pod from a manifest, with a debug container `dbg` in it.
async fn run_with_debug_container(node: &Node, agent: &Agent, pod: &str, command: &[&str]) {
    node.write_manifest(&format!("{pod}.json"), &sleeping_pod(pod));
    agent.api().pod_until("default", pod, is_running).await;
    let debug = debug_container("dbg", command);
    assert_eq!(agent.api().debug("default", pod, &[debug]).await.status, 200);
    agent
        .api()
        .pod_until("default", pod, |pod| state_of(pod, "dbg") == "running:")
        .await;
}

/// Takes out the manifest of a pod that fills the disk, which makes room again, and puts it back.
async fn is_taken_out_and_comes_back(node: &Node, agent: &Agent, pod: &str) {
    let manifest = format!("{pod}.json");
    node.remove_manifest(&manifest);
    gone(agent, pod).await;
    has_ballast(node).await;
    // How its debug container ended was written once there was room: it does not run again when the pod comes back.
    node.write_manifest(&manifest, &sleeping_pod(pod));
    agent.api().pod_until("default", pod, is_running).await;
    let records = shell(node, "cat $1/state/pods/*/ephemeral/dbg.json").await;
    assert!(!records.contains(r#""phase":"created""#), "{records}");
    assert!(records.contains(r#""phase":"ended""#), "{records}");
}

async fn a_pod_whose_volume_exceeds_its_size_limit_is_evicted_and_stays_so(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    let mut web = sleeping_pod("web");
    web["spec"]["volumes"][0]["emptyDir"] = json!({"sizeLimit": "1Mi"});
    node.write_manifest("web.json", &web);
    let running = agent.api().pod_until("default", "web", is_running).await;
    start_debugging(&agent, "web").await;

    let fill = [
        "exec",
        "web",
        "--",
        "dd",
        "if=/dev/zero",
        "of=/scratch/fill",
        "bs=64k",
        "count=32",
    ];
    node.debuglet(fill).await.succeeded();
    let failed = |pod: &Value| pod["status"]["phase"] == "Failed";
    let pod = agent.api().pod_until("default", "web", failed).await;
    let expected = r#"Usage of EmptyDir volume "scratch" exceeds the limit "1Mi"."#;
    assert_eq!(pod["status"]["reason"], "Evicted");
    assert_eq!(pod["status"]["message"], expected);
    assert_eq!(
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"],
        137
    );
    assert_eq!(state_of(&pod, "dbg"), "terminated:Error");
    let events = agent.api().events("default", "web").await;
    let evicted: Vec<&Value> = events
        .iter()
        .filter(|event| event["reason"] == "Evicted")
        .collect();
    assert_eq!(evicted.len(), 1, "{events:?}");
    assert_eq!(
        (&evicted[0]["type"], &evicted[0]["message"]),
        (&json!("Warning"), &json!(expected))
    );
    no_process(&node, "main").await;

    agent.kill().await;
    let agent = node.start_agent().await;
    let pod = agent.api().pod_until("default", "web", failed).await;
    assert_eq!(pod["status"]["message"], expected);
    assert_eq!(pod["metadata"]["uid"], running["metadata"]["uid"]);
    eventually("its volumes are gone", async || {
        let left = shell(&node, "ls -d $1/state/pods/*/volumes").await;
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
    no_process(&node, "main").await;
    let late = debug_container("late", &["true"]);
    assert_eq!(agent.api().debug("default", "web", &[late]).await.status, 200);
    let refused = |pod: &Value| state_of(pod, "late") == "terminated:Evicted";
    agent.api().pod_until("default", "web", refused).await;

    // Taken out and put back it is another pod, which runs.
    node.remove_manifest("web.json");
    gone(&agent, "web").await;
    node.write_manifest("web.json", &web);
    agent.api().pod_until("default", "web", is_running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_room_a_stop_and_a_deletion_are_in_force_and_say_that_they_are_not_written() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    node.mount_memory("state", "2m").await;
    let agent = node.start_agent().await;
    create(&agent, "web").await;
    create(&agent, "going").await;
    for (pod, name) in [("web", "dbg"), ("going", "runs")] {
        let debug = debug_container(name, &["sleep", "600"]);
        assert_eq!(agent.api().debug("default", pod, &[debug]).await.status, 200);
        agent
            .api()
            .pod_until("default", pod, |pod| state_of(pod, name) == "running:")
            .await;
    }
    shell(
        &node,
        "truncate -s 0 $1/state/ballast; cat /dev/zero >$1/state/filler || true",
    )
    .await;
    full(&agent).await;

    let stopped = node.debuglet(["stop", "web", "-c", "dbg"]).await.succeeded();
    assert!(
        stopped
            .stderr
            .contains("the stop is in force and not yet on the disk"),
        "{stopped:?}"
    );
    no_process(&node, "dbg").await;
    let told = |events: Vec<Value>| events.iter().any(|event| event["reason"] == "NotWritten");
    assert!(told(agent.api().events("default", "web").await));

    // With a grace, so that it is served until its end.
    let options = json!({"gracePeriodSeconds": 1});
    let path = format!("{PODS}/going");
    let deleted = agent
        .api()
        .send("DELETE", &path, "application/json", &options)
        .await;
    assert_eq!(deleted.status, 200);
    no_process(&node, "runs").await;
    // How its debug container ended waits for room, and with that the pod.
    assert_eq!(agent.api().pod("default", "going").await.status, 200);

    shell(&node, "rm $1/state/filler").await;
    gone(&agent, "going").await;
    let ended = |pod: &Value| state_of(pod, "dbg").starts_with("terminated:");
    agent.api().pod_until("default", "web", ended).await;
    has_ballast(&node).await;
    create(&agent, "more").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_disk_of_the_logs_full_stops_and_deletions_work_and_with_room_again_so_do_launches() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    node.mount_memory("logs", "256k").await;
    let agent = node.start_agent().await;
    create(&agent, "web").await;
    agent.api().pod_until("default", "web", is_running).await;
    let chatty = debug_container(
        "chatty",
        &[
            "sh",
            "-c",
            "while :; do head -c 4096 /dev/zero | tr '\\0' a; echo; done",
        ],
    );
    assert_eq!(agent.api().debug("default", "web", &[chatty]).await.status, 200);
    eventually("the logs fill their disk", async || {
        let free = shell(&node, "stat -f -c %a $1/logs").await;
        if free.trim() == "0" { Ok(()) } else { Err(free) }
    })
    .await;

    assert_eq!(agent.api().stop("default", "web", "chatty").await.status, 200);
    let ended = |pod: &Value| state_of(pod, "chatty").starts_with("terminated:");
    agent.api().pod_until("default", "web", ended).await;
    assert_eq!(delete(&agent, "web").await.status, 200);
    gone(&agent, "web").await;

    create(&agent, "more").await;
    agent.api().pod_until("default", "more", is_running).await;
    start_debugging(&agent, "more").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_starts_on_a_full_disk_and_has_what_was_accepted_before() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    node.mount_memory("state", "2m").await;
    let agent = node.start_agent().await;
    create(&agent, "web").await;
    start_debugging(&agent, "web").await;
    shell(&node, "cat /dev/zero >$1/state/filler || true").await;
    assert_eq!(agent.stop().await, 0);

    let agent = node.start_agent_with(AgentOptions::default()).await;
    agent
        .api()
        .pod_until("default", "web", |pod| {
            is_running(pod) && state_of(pod, "dbg") == "running:"
        })
        .await;
    assert_eq!(try_create(&agent, "more").await.status, 500);
    assert_eq!(agent.api().stop("default", "web", "dbg").await.status, 200);
    let ended = |pod: &Value| state_of(pod, "dbg").starts_with("terminated:");
    agent.api().pod_until("default", "web", ended).await;
}

/// Adds the debug container `dbg` to a pod, and waits until it runs.
async fn start_debugging(agent: &Agent, pod: &str) {
    let debug = debug_container("dbg", &["sleep", "600"]);
    assert_eq!(agent.api().debug("default", pod, &[debug]).await.status, 200);
    agent
        .api()
        .pod_until("default", pod, |pod| state_of(pod, "dbg") == "running:")
        .await;
}

/// Creates a pod over the API, and waits until it runs.
async fn create(agent: &Agent, name: &str) {
    let answer = try_create(agent, name).await;
    assert_eq!(answer.status, 201, "{:?}", answer.body);
    agent.api().pod_until("default", name, is_running).await;
}

async fn try_create(agent: &Agent, name: &str) -> Answer {
    let pod = sleeping_pod(name);
    agent.api().send("POST", PODS, "application/json", &pod).await
}

async fn delete(agent: &Agent, name: &str) -> Answer {
    let path = format!("{PODS}/{name}");
    agent
        .api()
        .send("DELETE", &path, "application/json", &json!({}))
        .await
}

/// Waits until the disk is so full that nothing new is accepted.
async fn full(agent: &Agent) {
    eventually("the disk is full", async || {
        let answer = try_create(agent, "too-much").await;
        let message = answer.body["message"].as_str().unwrap_or_default().to_owned();
        if answer.status == 500 && message.contains("No space left on device") {
            return Ok(());
        }
        if answer.status == 201 {
            delete(agent, "too-much").await;
        }
        Err((answer.status, message))
    })
    .await;
}

async fn gone(agent: &Agent, name: &str) {
    eventually("the pod is gone", async || {
        let answer = agent.api().pod("default", name).await;
        if answer.status == 404 {
            Ok(())
        } else {
            Err(answer.body)
        }
    })
    .await;
}

/// Waits until no container of this name runs, as the runtime says itself.
async fn no_process(node: &Node, name: &str) {
    eventually("the container has ended", async || {
        let listed = node
            .cri()
            .runtime()
            .list_containers(ListContainersRequest::default())
            .await;
        let containers = listed.unwrap().into_inner().containers;
        let mut named = containers.into_iter().filter(|container| {
            let metadata = container.metadata.as_ref();
            metadata.is_some_and(|metadata| metadata.name == name)
        });
        match named.find(|container| container.state == ContainerState::ContainerRunning as i32) {
            None => Ok(()),
            Some(container) => Err(container),
        }
    })
    .await;
}

/// Waits until the room is kept again that was given up.
async fn has_ballast(node: &Node) {
    eventually("the ballast is made again", async || {
        let bytes = shell(node, "stat -c %s $1/state/ballast").await;
        if bytes.trim() == BALLAST {
            Ok(())
        } else {
            Err(bytes)
        }
    })
    .await;
}

/// Runs a line of shell in the node, where $1 is its folder, and gives back what it prints.
async fn shell(node: &Node, line: &str) -> String {
    let folder = node.folder().to_str().unwrap();
    node.run(["sh", "-c", line, "sh", folder]).await.stdout
}
