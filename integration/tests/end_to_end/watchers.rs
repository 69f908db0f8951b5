//! A thousand clients that watch 250 pods over TLS.

use std::collections::BTreeSet;
use std::time::Duration;

use http_body_util::BodyExt;
use integration::kubernetes::client;
use integration::{
    Agent, ContainerdVersion, Node, Watchers, debug_container, eventually_within, pretend_kubelet,
    sleeping_pod, watch_without_reading, write_waiting_pods,
};
use serde_json::json;

const WATCHERS: usize = 1000;
const PODS: usize = 250;
/// What nobody reads has to be more than the buffers between two processes hold.
const NOISE: usize = 40;
const NOISE_BYTES: usize = 400_000;
/// Longer than the 30 s that the agent is patient, on a busy machine.
const CUT_OFF_WITHIN: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_watchers_see_every_change_in_order_and_one_that_does_not_read_is_dropped() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let _kubelet = pretend_kubelet(&node);
    let agent = node.start_agent().await;
    let mut noisy = sleeping_pod("noisy");
    noisy["metadata"]["namespace"] = "noise".into();
    node.write_manifest("noisy.json", &noisy);
    agent.api().pod_until("noise", "noisy", |_| true).await;
    write_waiting_pods(&node, &agent, PODS).await;
    let client = client(&node, &agent.kubeconfig().await).await;
    let listed = agent.api().get("/api/v1/pods").await.body;
    let version = listed["metadata"]["resourceVersion"].as_str().unwrap();

    let path = format!("/api/v1/namespaces/default/pods?watch=true&resourceVersion={version}");
    let watchers = Watchers::start(&client, WATCHERS, &path, r#""the-last""#).await;
    let path = format!("/api/v1/pods?watch=true&resourceVersion={version}");
    let silent = watch_without_reading(&client, &path).await;
    println!(
        "resident with {WATCHERS} watchers: {} kB",
        agent.resident_bytes() / 1000
    );

    let mut written = BTreeSet::new();
    for number in 0..PODS {
        let name = if number + 1 == PODS { "the-last" } else { "dbg" };
        let pod = format!("pod-{number}");
        let answer = agent
            .api()
            .debug("default", &pod, &[debug_container(name, &["true"])])
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let version = answer.body["metadata"]["resourceVersion"].as_str().unwrap();
        written.insert(version.parse::<u64>().unwrap());
    }
    let told = watchers.told().await;
    println!(
        "resident after {PODS} changes: {} kB",
        agent.resident_bytes() / 1000
    );

    let first = &told[0];
    assert!(
        first.windows(2).all(|pair| pair[0] < pair[1]),
        "in order, each once"
    );
    let seen: BTreeSet<u64> = first.iter().copied().collect();
    assert!(
        written.is_subset(&seen),
        "missing: {:?}",
        written.difference(&seen).collect::<Vec<_>>()
    );
    assert!(
        told.iter().all(|versions| versions == first),
        "all are told the same"
    );

    make_noise(&agent).await;
    assert!(is_cut_off(&agent, silent).await, "it was sent everything");
}

/// Changes that only a watch on all namespaces sees, of many megabytes.
async fn make_noise(agent: &Agent) {
    for number in 0..NOISE {
        let mut container = debug_container(&format!("noise-{number}"), &["true"]);
        if number == 0 {
            container["env"] = json!([{ "name": "NOISE", "value": "x".repeat(NOISE_BYTES) }]);
        }
        let answer = agent.api().debug("noise", "noisy", &[container]).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body["message"]);
    }
}

/// Whether a watch that was not read for longer than it may ends before it has told everything.
async fn is_cut_off(agent: &Agent, watch: hyper::Response<kube::client::Body>) -> bool {
    // It is the last of those that the agent counts.
    eventually_within(CUT_OFF_WITHIN, "nobody watches any more", async || {
        let metrics = agent.api().get("/metrics").await.body;
        let metrics = metrics.as_str().unwrap_or_default().lines();
        let counted: Vec<String> = metrics
            .filter(|line| line.starts_with("debuglet_watchers"))
            .map(str::to_owned)
            .collect();
        match counted.iter().all(|line| line.ends_with(" 0")) {
            true => Ok(()),
            false => Err(counted),
        }
    })
    .await;
    let (mut body, mut bytes) = (watch.into_body(), 0);
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.into_data().unwrap_or_default().len();
    }
    println!("the one that did not read was sent {bytes} bytes");
    bytes < NOISE * NOISE_BYTES
}
