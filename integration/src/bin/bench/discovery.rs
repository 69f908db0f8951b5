//! Pods that somebody else runs: from the runtime's answer to who runs them until a watch shows it.

use std::time::{Duration, Instant};

use integration::{ContainerdVersion, ForeignPod, Node, Watch, is_running};
use serde_json::Value;

use crate::SAMPLES;
use crate::figures::{median, row, verdict};

/// How many other pods are there while it is measured.
const OTHERS: usize = 30;
/// How late a start or an end may be shown.
const BOUND: Duration = Duration::from_millis(100);

/// Measures sandboxes that start, containers in them that start, and sandboxes that are stopped.
pub(crate) async fn measure(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    let cri = node.cri();
    for number in 0..OTHERS {
        let config = ForeignPod::config(&node, &format!("other-{number}"), &format!("u-other-{number}"));
        ForeignPod::run_sleeping(&cri, config).await;
    }
    let mut watch = agent.api().watch("/api/v1/namespaces/shop/pods?watch=true").await;
    let (mut starts, mut containers, mut ends) = (vec![], vec![], vec![]);
    for number in 0..SAMPLES {
        let name = format!("till-{number}");
        let config = ForeignPod::config(&node, &name, &format!("u-{number}"));
        let pod = ForeignPod::run(&cri, config).await;
        starts.push(
            shown_after(Instant::now(), &mut watch, &name, |event| {
                event["type"] == "ADDED"
            })
            .await,
        );

        let id = pod.create("main", &["sleep", "86400"]).await;
        pod.start(id).await;
        let runs = |event: &Value| {
            let pod = &event["object"];
            pod["status"]["containerStatuses"][0]["name"] == "main" && is_running(pod)
        };
        containers.push(shown_after(Instant::now(), &mut watch, &name, runs).await);

        pod.stop().await;
        ends.push(
            shown_after(Instant::now(), &mut watch, &name, |event| {
                event["type"] == "DELETED"
            })
            .await,
        );
        pod.remove().await;
    }
    for (what, samples) in [
        ("RunPodSandbox answered, to the pod in a watch", &starts),
        ("StartContainer answered, to Running", &containers),
        ("StopPodSandbox answered, to the pod's end", &ends),
    ] {
        row(what, samples);
        let late = median(samples);
        verdict(
            "shown after, ms",
            late.as_secs_f64() * 1000.0,
            late <= BOUND,
            "100 ms",
        );
    }
}

/// How long after `answered` the watch tells what is waited for of the pod; zero where it did before.
async fn shown_after(
    answered: Instant,
    watch: &mut Watch,
    pod: &str,
    told: impl Fn(&Value) -> bool,
) -> Duration {
    loop {
        let event = watch.next().await.expect("the watch goes on");
        if event["object"]["metadata"]["name"] == pod && told(&event) {
            // Told before it was waited for, it was read at once.
            return answered.elapsed();
        }
    }
}
