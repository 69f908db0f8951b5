//! Pods that are created, changed and deleted over the API.

use std::time::Duration;

use integration::{
    Agent, ContainerdVersion, Node, debug_container, eventually, is_running, sleeping_pod, state_of,
};
use serde_json::{Value, json};

use crate::tracer::kill_at;

const PODS: &str = "/api/v1/namespaces/default/pods";

on_both_versions!(
    a_pod_of_the_api_runs_is_changed_debugged_and_deleted,
    a_pod_of_the_api_survives_the_agent_and_a_deleted_one_does_not_come_back,
);

async fn a_pod_of_the_api_runs_is_changed_debugged_and_deleted(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    create(&agent, &pod("web", POLITE, 600)).await;
    let created = agent.api().pod_until("default", "web", is_running).await;
    let taken = send(&agent, "POST", PODS, &pod("web", POLITE, 600)).await;
    assert_eq!((taken.0, &taken.1["reason"]), (409, &json!("AlreadyExists")));

    let label = json!({"metadata": {"labels": {"tier": "front"}}});
    let answer = agent
        .api()
        .send("PATCH", &path("web"), "application/merge-patch+json", &label)
        .await;
    assert_eq!(
        (answer.status, &answer.body["metadata"]["labels"]["tier"]),
        (200, &json!("front"))
    );
    let debug = debug_container("dbg", &["sh", "-c", POLITE]);
    assert_eq!(agent.api().debug("default", "web", &[debug]).await.status, 200);
    let runs = |pod: &Value| state_of(pod, "dbg") == "running:" && is_running(pod);
    let debugged = agent.api().pod_until("default", "web", runs).await;
    assert_eq!(
        debugged["status"]["containerStatuses"],
        created["status"]["containerStatuses"]
    );

    let (code, leaving) = send(&agent, "DELETE", &path("web"), &Value::Null).await;
    assert_eq!(
        (code, &leaving["metadata"]["deletionGracePeriodSeconds"]),
        (200, &json!(600))
    );
    gone(&node, &agent, "web").await;
    let kept = std::fs::read_dir(node.folder().join("state/pods"))
        .unwrap()
        .count();
    assert_eq!(kept, 0, "nothing of it is kept");
}

async fn a_pod_of_the_api_survives_the_agent_and_a_deleted_one_does_not_come_back(
    version: ContainerdVersion,
) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    create(&agent, &pod("web", POLITE, 600)).await;
    let before = agent.api().pod_until("default", "web", is_running).await;
    assert_eq!(agent.stop().await, 0);
    let agent = node.start_agent().await;
    agent.api().pod_until("default", "web", is_running).await;
    agent.kill().await;
    let mut agent = node.start_agent().await;
    let after = agent.api().pod_until("default", "web", is_running).await;
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(
        after["status"]["containerStatuses"],
        before["status"]["containerStatuses"]
    );

    // Whatever was begun when the agent is killed is finished by the next one.
    for milliseconds in [0, 30, 100, 300] {
        let name = format!("cut-{milliseconds}");
        create(&agent, &pod(&name, POLITE, 600)).await;
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        agent.kill().await;
        agent = node.start_agent().await;
        agent.api().pod_until("default", &name, is_running).await;
        assert_eq!(send(&agent, "DELETE", &path(&name), &Value::Null).await.0, 200);
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        agent.kill().await;
        agent = node.start_agent().await;
        gone(&node, &agent, &name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_and_a_delete_survive_a_kill_at_any_step_on_the_disk() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let mut agent = node.start_agent().await;
    let (syncs, renames) = ("fsync,fdatasync", "rename,renameat,renameat2");
    let mut kills = 0;
    for (method, calls, nth) in [
        ("POST", syncs, 1),
        ("POST", syncs, 2),
        ("POST", syncs, 3),
        ("POST", renames, 1),
        ("DELETE", syncs, 1),
        ("DELETE", syncs, 2),
        ("DELETE", renames, 1),
    ] {
        let step = format!("{method} {calls} {nth}");
        let name = format!("{}-{}-{nth}", method.to_lowercase(), &calls[..5]);
        if method == "DELETE" {
            create(&agent, &pod(&name, POLITE, 600)).await;
            agent.api().pod_until("default", &name, is_running).await;
        }
        let tracer = kill_at(&node, &mut agent, calls, nth).await;
        let (path, body) = match method {
            "POST" => (PODS.to_owned(), pod(&name, POLITE, 600)),
            _ => (path(&name), json!({})),
        };
        let answer = agent
            .api()
            .try_send(method, &path, "application/json", &body)
            .await;
        let accepted = answer.is_ok_and(|answer| answer.status < 300);
        let ended = tokio::time::timeout(Duration::from_secs(5), agent.process().ended()).await;
        kills += usize::from(ended.is_ok());
        tracer.signal(nix::sys::signal::Signal::SIGTERM);
        tracer.ended().await;
        agent.kill().await;

        agent = node.start_agent().await;
        let served = agent.api().pod("default", &name).await;
        let stays = served.status == 200 && served.body["metadata"]["deletionTimestamp"].is_null();
        assert!(!accepted || stays == (method == "POST"), "{step}: {served:?}");
        if stays {
            agent.api().pod_until("default", &name, is_running).await;
            let (code, answer) = send(&agent, "DELETE", &self::path(&name), &Value::Null).await;
            assert_eq!(code, 200, "{step}: {answer}");
        }
        gone(&node, &agent, &name).await;
    }
    assert!(kills >= 6, "the tracer killed the agent {kills} times only");
    eventually("nothing of all this is kept", async || {
        let kept: Vec<_> = std::fs::read_dir(node.folder().join("state/pods"))
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        if kept.is_empty() { Ok(()) } else { Err(kept) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_does_not_end_is_killed_sooner_when_it_is_deleted_again_with_less_grace() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let agent = node.start_agent().await;
    create(&agent, &pod("web", STUBBORN, 600)).await;
    agent.api().pod_until("default", "web", is_running).await;
    assert_eq!(send(&agent, "DELETE", &path("web"), &Value::Null).await.0, 200);
    agent
        .api()
        .pod_until("default", "web", |pod| {
            is_running(pod) && pod["metadata"]["deletionTimestamp"].is_string()
        })
        .await;
    let sooner = json!({"gracePeriodSeconds": 1});
    assert_eq!(send(&agent, "DELETE", &path("web"), &sooner).await.0, 200);
    gone(&node, &agent, "web").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_deleted_without_grace_makes_room_for_another_of_its_name() {
    let node = Node::start(ContainerdVersion::V1_6).await;
    let agent = node.start_agent().await;
    create(&agent, &pod("web", STUBBORN, 600)).await;
    let first = agent.api().pod_until("default", "web", is_running).await;
    let force = json!({"gracePeriodSeconds": 0});
    assert_eq!(send(&agent, "DELETE", &path("web"), &force).await.0, 200);
    assert_eq!(agent.api().pod("default", "web").await.status, 404);
    create(&agent, &pod("web", STUBBORN, 600)).await;
    let second = agent.api().pod_until("default", "web", is_running).await;
    assert_ne!(first["metadata"]["uid"], second["metadata"]["uid"]);
    assert_eq!(containers_of(&node, "web").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_waits_for_the_name_of_a_pod_of_the_api() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let agent = node.start_agent().await;
    create(&agent, &pod("web", POLITE, 600)).await;
    let first = agent.api().pod_until("default", "web", is_running).await;
    node.write_manifest("web.json", &sleeping_pod("web"));
    eventually("the manifest's problem is reported", async || {
        let report = agent.api().get("/apis/debuglet.io/v1alpha1/node").await.body;
        let problem = report["manifests"]["problems"][0]["message"].clone();
        problem
            .as_str()
            .filter(|message| message.contains("API"))
            .map(|_| ())
            .ok_or(report)
    })
    .await;
    let served = agent.api().pod("default", "web").await.body;
    assert_eq!(served["metadata"]["uid"], first["metadata"]["uid"]);

    assert_eq!(send(&agent, "DELETE", &path("web"), &Value::Null).await.0, 200);
    let of_manifest =
        |pod: &Value| is_running(pod) && pod["metadata"]["annotations"]["debuglet.io/source"] == "manifest";
    agent.api().pod_until("default", "web", of_manifest).await;
    let (code, status) = send(&agent, "DELETE", &path("web"), &Value::Null).await;
    assert_eq!((code, &status["reason"]), (403, &json!("Forbidden")));
}

/// Ends when it is told to.
const POLITE: &str = "trap 'exit 0' TERM; while :; do sleep 600 & wait; done";
/// Ends when it is killed.
const STUBBORN: &str = "trap '' TERM; while :; do sleep 1; done";

/// A pod whose one container, `main`, runs `script`.
fn pod(name: &str, script: &str, grace_seconds: u32) -> Value {
    let mut pod = sleeping_pod(name);
    pod["spec"]["terminationGracePeriodSeconds"] = json!(grace_seconds);
    pod["spec"]["containers"][0]["command"] = json!(["sh", "-c", script]);
    pod
}

fn path(name: &str) -> String {
    format!("{PODS}/{name}")
}

async fn send(agent: &Agent, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { &json!({}) } else { body };
    let answer = agent.api().send(method, path, "application/json", body).await;
    (answer.status, answer.body)
}

async fn create(agent: &Agent, pod: &Value) {
    let (code, answer) = send(agent, "POST", PODS, pod).await;
    assert_eq!(code, 201, "{answer}");
}

/// How many ordinary containers a pod has in the runtime.
async fn containers_of(node: &Node, pod: &str) -> usize {
    let containers = node.cri().containers("main").await;
    let of_pod = |labels: &std::collections::HashMap<String, String>| labels["io.kubernetes.pod.name"] == pod;
    containers
        .iter()
        .filter(|container| of_pod(&container.labels))
        .count()
}

/// Waits until a pod is served no more and nothing of it is left in the runtime.
async fn gone(node: &Node, agent: &Agent, name: &str) {
    eventually("the pod is gone", async || {
        let answer = agent.api().try_get(&path(name)).await;
        match answer {
            Ok(answer) if answer.status == 404 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    eventually("nothing of the pod is left", async || {
        match containers_of(node, name).await {
            0 => Ok(()),
            left => Err(left),
        }
    })
    .await;
}
