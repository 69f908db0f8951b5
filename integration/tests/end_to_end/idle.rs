//! At rest, with many pods of others on the node, the agent asks the runtime for nothing.

use std::collections::HashMap;
use std::time::Duration;

use debuglet_proto::v1::{NamespaceMode, NamespaceOption};
use futures_util::stream::{self, StreamExt};
use integration::{ContainerdVersion, ForeignPod, Node, Proxy, eventually, eventually_within};

/// How many pods others run.
const PODS: usize = 100;
/// How many of them are begun at once.
const AT_ONCE: usize = 8;
/// How long the agent is watched, a good deal longer than the pace of anything that it does by the clock on its own node.
const WATCHED: Duration = Duration::from_secs(35);
/// The one question that is asked by the clock: whether the runtime is there.
const STILL_ASKED: &str = "Version";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_hundred_pods_of_others_nothing_is_listed_and_no_pod_is_polled() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let cri = node.cri();
    let configs = (0..PODS).map(|number| {
        let mut config = ForeignPod::config(&node, &format!("till-{number}"), &format!("u-{number}"));
        // So that making them takes less long.
        let linux = config.linux.as_mut().unwrap();
        let security_context = linux.security_context.as_mut().unwrap();
        security_context.namespace_options = Some(NamespaceOption {
            network: NamespaceMode::Node.into(),
            pid: NamespaceMode::Container.into(),
            ..NamespaceOption::default()
        });
        config
    });
    let made = stream::iter(configs).map(|config| ForeignPod::run(&cri, config));
    let made: Vec<ForeignPod> = made.buffer_unordered(AT_ONCE).collect().await;
    // Some have a container, too.
    for pod in &made[..5] {
        let id = pod.create("main", &["sleep", "86400"]).await;
        pod.start(id).await;
    }
    let proxy = node.start_proxy().await;
    let mut agent = node.start_agent_behind(&proxy).await;
    eventually_within(Duration::from_secs(120), "all are shown", async || {
        let shown = agent.api().pods().await.len();
        if shown == PODS { Ok(()) } else { Err(shown) }
    })
    .await;
    let mut before = asked(&proxy);
    eventually("the start is over", async || {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = asked(&proxy);
        let quiet = now == before;
        before = now;
        if quiet { Ok(()) } else { Err(before.clone()) }
    })
    .await;

    let cpu = agent.process().cpu_time();
    tokio::time::sleep(WATCHED).await;
    let used = agent.process().cpu_time() - cpu;
    println!(
        "with {PODS} pods of others, in {WATCHED:?}: {used:?} of processor time; resident {:.1} MB",
        agent.resident_bytes() as f64 / 1e6
    );
    assert_eq!(asked(&proxy), before, "at rest");

    // It has not fallen asleep.
    made[0].stop().await;
    eventually("the end of one is noticed", async || {
        let shown = agent.api().pods().await.len();
        if shown == PODS - 1 { Ok(()) } else { Err(shown) }
    })
    .await;
}

/// The calls so far, by their names, without the one that is to be.
fn asked(proxy: &Proxy) -> HashMap<String, usize> {
    let mut calls = proxy.all_calls();
    calls.remove(STILL_ASKED);
    calls
}
