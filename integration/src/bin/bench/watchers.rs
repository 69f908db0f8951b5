//! The memory of an agent that a thousand clients watch over TLS.

use integration::kubernetes::client;
use integration::{ContainerdVersion, Node, Watchers, debug_container, pretend_kubelet, write_waiting_pods};

use crate::figures::verdict;

const WATCHERS: usize = 1000;
const PODS: usize = 250;
/// How much it may be.
const MEGABYTES: f64 = 64.0;

/// Measures it with all watchers at rest, and after each has been told of a change of each pod.
pub(crate) async fn measure(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let _kubelet = pretend_kubelet(&node);
    let mut agent = node.start_agent().await;
    write_waiting_pods(&node, &agent, PODS).await;
    let client = client(&node, &agent.kubeconfig().await).await;
    println!("with {PODS} pods: {:.1} MB", agent.resident_bytes() as f64 / 1e6);
    let list = agent.api().get("/api/v1/pods?limit=1").await.body;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    let path = format!("/api/v1/pods?watch=true&resourceVersion={version}");
    let watchers = Watchers::start(&client, WATCHERS, &path, r#""the-last""#).await;
    println!(
        "and {WATCHERS} watchers: {:.1} MB",
        agent.resident_bytes() as f64 / 1e6
    );
    for number in 0..PODS {
        let name = if number + 1 == PODS { "the-last" } else { "dbg" };
        let pod = format!("pod-{number}");
        let container = debug_container(name, &["true"]);
        let answer = agent.api().debug("default", &pod, &[container]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let told = watchers.told().await;
    assert!(told.iter().all(|versions| versions == &told[0]));
    let most = agent.process().most_resident_bytes() as f64 / 1e6;
    let what = format!("the most, with {PODS} pods changed, MB");
    verdict(&what, most, most <= MEGABYTES, "64 MB");
}
