//! What `/metrics` counts, seen to move by what really happens.

use std::collections::BTreeMap;

use integration::{
    Agent, BUSYBOX, ContainerdVersion, Node, debug_container, is_running, sleeping_pod, state_of,
};
use serde_json::json;

on_both_versions!(launches_pulls_and_calls_to_the_runtime_are_counted);

async fn launches_pulls_and_calls_to_the_runtime_are_counted(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    node.write_manifest("web.json", &sleeping_pod("web"));
    agent.api().pod_until("default", "web", is_running).await;
    let before = samples(&agent).await;

    let mut runs = debug_container("runs", &["sleep", "600"]);
    runs["image"] = json!(BUSYBOX);
    runs["imagePullPolicy"] = json!("Always");
    let mut lacks = debug_container("lacks", &["sleep", "600"]);
    lacks["image"] = json!("127.0.0.1:5000/no-such-image:1");
    let answer = agent.api().debug("default", "web", &[runs, lacks]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    agent
        .api()
        .pod_until("default", "web", |pod| {
            state_of(pod, "runs") == "running:" && state_of(pod, "lacks").starts_with("waiting:ErrImagePull")
        })
        .await;
    agent.api().stop("default", "web", "lacks").await;
    agent
        .api()
        .pod_until("default", "web", |pod| {
            state_of(pod, "lacks").starts_with("terminated:")
        })
        .await;

    let after = samples(&agent).await;
    let moved = |prefix: &str| sum(&after, prefix) - sum(&before, prefix);
    assert_eq!(moved("debuglet_launches_total{outcome=\"running\"}"), 1.0);
    assert_eq!(moved("debuglet_launches_total{outcome=\"failed\"}"), 1.0);
    assert_eq!(moved("debuglet_launch_duration_seconds_count"), 1.0);
    assert_eq!(moved("debuglet_image_pull_duration_seconds_count"), 1.0);
    assert_eq!(moved("debuglet_image_pull_bytes_total"), 0.0, "it was there");
    let calls = |method: &str| {
        moved(&format!(
            "debuglet_runtime_call_duration_seconds_count{{method=\"{method}\"}}"
        ))
    };
    assert_eq!((calls("CreateContainer"), calls("StartContainer")), (1.0, 1.0));
    assert!(calls("PullImage") >= 2.0);
    let refused: Vec<&String> = after
        .keys()
        .filter(|name| name.starts_with("debuglet_runtime_call_errors_total"))
        .collect();
    assert!(
        refused.iter().any(|name| name.contains("method=\"PullImage\"")),
        "{refused:?}"
    );
    assert!(moved("debuglet_api_requests_total") > 0.0);
    assert_eq!(sum(&after, "debuglet_watchers"), 0.0);
}

/// Every sample by name and labels.
async fn samples(agent: &Agent) -> BTreeMap<String, f64> {
    let answer = agent.api().get("/metrics").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let text = answer.body.as_str().unwrap();
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

/// The sum of the samples whose name begins so.
fn sum(samples: &BTreeMap<String, f64>, prefix: &str) -> f64 {
    let values = samples.iter().filter(|(name, _)| name.starts_with(prefix));
    values.map(|(_, value)| value).sum()
}
