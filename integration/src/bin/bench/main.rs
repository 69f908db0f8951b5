//! What `integration/bench` runs: the agent measured side by side with what it is compared with, in one run.

#![allow(clippy::unwrap_used)]

mod discovery;
mod figures;
mod first_byte;
mod launches;
mod watchers;
mod writes;

use integration::{ContainerdVersion, Node, is_running, sleeping_pod};

/// How often each thing is measured.
const SAMPLES: usize = 25;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let version = match arguments.next().as_deref() {
        Some("1.6") => ContainerdVersion::V1_6,
        None | Some("2.4") => ContainerdVersion::V2_4,
        Some(other) => panic!("containerd 1.6 or 2.4, not {other}"),
    };
    let only: Vec<String> = arguments.collect();
    let chosen = |name: &str| only.is_empty() || only.iter().any(|one| one == name);
    println!(
        "containerd {version:?}, {SAMPLES} samples each, the image present; median and 95th percentile\n"
    );
    if chosen("launches") {
        Box::pin(measure_launches(version)).await;
    }
    if chosen("writes") {
        Box::pin(writes::measure(version)).await;
    }
    if chosen("discovery") {
        Box::pin(discovery::measure(version)).await;
    }
    if chosen("watchers") {
        Box::pin(watchers::measure(version)).await;
    }
    if chosen("first-byte") {
        Box::pin(first_byte::measure(version)).await;
    }
}

async fn measure_launches(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    node.write_manifest("measured.json", &sleeping_pod("measured"));
    agent.api().pod_until("default", "measured", is_running).await;
    launches::memory(&node, &agent).await;
    launches::launches(&node, &agent).await;
    launches::exits(&node, &agent).await;
    let megabytes = agent.resident_bytes() as f64 / 1e6;
    println!(
        "resident memory after {} debug containers: {megabytes:.1} MB\n",
        2 * SAMPLES
    );
}
