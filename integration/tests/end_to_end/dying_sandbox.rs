//! A sandbox that keeps dying is made again at a growing pace, and leaves no heap of dead ones behind.

use integration::{Agent, ContainerdVersion, Node, eventually, is_running, sleeping_pod};
use serde_json::Value;

on_both_versions!(a_sandbox_whose_pause_process_is_killed_is_followed_at_once_and_then_later);

async fn a_sandbox_whose_pause_process_is_killed_is_followed_at_once_and_then_later(
    version: ContainerdVersion,
) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    node.write_manifest("web.json", &sleeping_pod("web"));
    agent.api().pod_until("default", "web", is_running).await;
    let paced = |pod: &Value| {
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        let message = waiting["message"].as_str().unwrap_or_default();
        message.starts_with("back-off ") && message.contains("making the pod's sandbox again")
    };
    // The delay counts from a sandbox's creation and doubles: on a slow machine it takes some rounds until it is felt.
    let (mut newest, mut kills) = (String::new(), 0);
    loop {
        newest = ready_sandbox(&node, &newest).await;
        // So that each sandbox has had its container.
        let begun =
            |pod: &Value| is_running(pod) && pod["status"]["containerStatuses"][0]["restartCount"] == kills;
        agent.api().pod_until("default", "web", begun).await;
        kill(&node, &newest).await;
        kills += 1;
        let is_paced = eventually("the sandbox is made again, or waits", async || {
            let pod = agent.api().pod("default", "web").await.body;
            let followed = sandboxes(&node, true).await.iter().any(|id| *id != newest);
            (paced(&pod) || followed).then_some(!followed).ok_or(pod)
        })
        .await;
        if is_paced {
            break;
        }
        assert!(kills < 6, "it is made again at once each time");
    }
    assert!(kills > 1, "the first time it is made again at once");
    eventually("only the newest dead sandbox stays", async || {
        let dead = sandboxes(&node, false).await;
        (dead == [newest.clone()]).then_some(()).ok_or(dead)
    })
    .await;
    assert!(events(&agent).await.contains(&"SandboxChanged".to_owned()));

    ready_sandbox(&node, &newest).await;
    let begun =
        |pod: &Value| is_running(pod) && pod["status"]["containerStatuses"][0]["restartCount"] == kills;
    let pod = agent.api().pod_until("default", "web", begun).await;
    // As on a kubelet's node: the container's last end is kept, and the sandbox that it is in with it.
    let status = &pod["status"]["containerStatuses"][0];
    assert!(status["lastState"]["terminated"].is_object(), "{status}");
    eventually("only the sandbox of the last end stays", async || {
        let dead = sandboxes(&node, false).await;
        (dead == [newest.clone()]).then_some(()).ok_or(dead)
    })
    .await;
    assert!(events(&agent).await.contains(&"BackOff".to_owned()));
}

/// The ids of the sandboxes that are ready, or are not.
async fn sandboxes(node: &Node, ready: bool) -> Vec<String> {
    let state = if ready { "ready" } else { "notready" };
    let listed = node
        .crictl(["pods", "-q", "--no-trunc", "--state", state])
        .await
        .succeeded();
    listed.stdout.lines().map(str::to_owned).collect()
}

/// The ready sandbox that follows `before`.
async fn ready_sandbox(node: &Node, before: &str) -> String {
    eventually("a sandbox is ready", async || {
        let ready = sandboxes(node, true).await;
        match ready.first().filter(|id| *id != before) {
            Some(id) => Ok(id.clone()),
            None => Err(ready),
        }
    })
    .await
}

/// Kills the process that holds a sandbox.
async fn kill(node: &Node, sandbox: &str) {
    let said = node.crictl(["inspectp", sandbox]).await.succeeded();
    let inspected: Value = serde_json::from_str(&said.stdout).unwrap();
    let pid = inspected["info"]["pid"].as_i64().expect("its process");
    node.run(["kill", "-9", &pid.to_string()]).await.succeeded();
}

async fn events(agent: &Agent) -> Vec<String> {
    let events = agent.api().get("/api/v1/namespaces/default/events").await.body;
    let reasons = events["items"].as_array().unwrap().iter();
    reasons
        .map(|event| event["reason"].as_str().unwrap().to_owned())
        .collect()
}
