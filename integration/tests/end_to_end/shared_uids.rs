//! Pods of crictl's that share a UID, as its own samples do: each is shown, and each is debugged in its own sandbox.

use integration::{
    Agent, ContainerdVersion, ForeignPod, Node, TcpFront, debug_container, ephemeral_status, eventually,
    is_running, state_of,
};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, Config};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

on_both_versions!(pods_that_share_a_uid_are_shown_debugged_and_reached_each_in_its_own_sandbox);

/// The UID in crictl's documentation.
const UID: &str = "hdishd83djaidwnduwk28bcsb";
const NAMES: [&str; 2] = ["nginx-sandbox", "nginx-runsc-sandbox"];

/// Asks the server of the pod that it is in, once that listens.
const ASK: &str = "until wget -qO- http://127.0.0.1:8080/ 2>/dev/null; do sleep 0.1; done";

/// Runs a pod that serves its name on port 8080.
async fn serve(node: &Node, name: &str) -> ForeignPod {
    let mut config = ForeignPod::config(node, name, UID);
    config.metadata.as_mut().unwrap().attempt = 1;
    let pod = ForeignPod::run(&node.cri(), config).await;
    let script = format!("mkdir /www; echo {name} >/www/index.html; exec httpd -f -p 8080 -h /www");
    let id = pod.create("web", &["sh", "-c", &script]).await;
    pod.start(id).await;
    pod
}

async fn pods_that_share_a_uid_are_shown_debugged_and_reached_each_in_its_own_sandbox(
    version: ContainerdVersion,
) {
    let node = Node::start(version).await;
    let first = Box::pin(serve(&node, NAMES[0])).await;
    let _second = Box::pin(serve(&node, NAMES[1])).await;
    let agent = node.start_agent().await;
    let uids = uids(&agent).await;
    assert_eq!(uids[0], UID, "it was there first");
    assert_ne!(uids[1], UID);
    let listed = node.debuglet(["ps", "-n", "shop"]).await.succeeded().stdout;
    for name in NAMES {
        assert_eq!(
            listed
                .lines()
                .filter(|line| line.contains(&format!(" {name} ")))
                .count(),
            1,
            "{listed}"
        );
    }

    let front = TcpFront::start(&agent).await;
    let config = Config::new(front.url().parse().unwrap());
    let pods: Api<Pod> = Api::namespaced(Client::try_from(config).unwrap(), "shop");
    for name in NAMES {
        let look = debug_container("dbg", &["sh", "-c", ASK]);
        let answer = agent.api().debug("shop", name, &[look]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let done = |pod: &Value| state_of(pod, "dbg") == "terminated:Completed";
        agent.api().pod_until("shop", name, done).await;
        let said = node
            .debuglet(["logs", "-n", "shop", name, "-c", "dbg"])
            .await
            .succeeded();
        assert_eq!(said.stdout.trim(), name, "it is in the right sandbox");

        let mut forwarder = pods.portforward(name, &[8080]).await.unwrap();
        let mut stream = forwarder.take_stream(8080).unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer.lines().last(), Some(name));
    }

    // Neither a restart nor the end of the other changes whose UID is whose.
    agent.kill().await;
    let agent = node.start_agent().await;
    assert_eq!(self::uids(&agent).await, uids);
    first.stop().await;
    first.remove().await;
    eventually("the first pod goes", async || {
        let answer = agent.api().pod("shop", NAMES[0]).await;
        (answer.status == 404).then_some(()).ok_or(answer)
    })
    .await;
    agent.kill().await;
    let agent = node.start_agent().await;
    let left = agent.api().pod_until("shop", NAMES[1], is_running).await;
    assert_eq!(left["metadata"]["uid"], uids[1]);
    assert!(
        ephemeral_status(&left, "dbg")["state"]["terminated"].is_object(),
        "{left}"
    );
}

/// The UIDs that the two are shown by.
async fn uids(agent: &Agent) -> Vec<Value> {
    let mut uids = Vec::new();
    for name in NAMES {
        let pod = agent.api().pod_until("shop", name, is_running).await;
        uids.push(pod["metadata"]["uid"].clone());
    }
    uids
}
