//! Beside a kubelet debuglet starts no pods of its own. A process of that name is what it looks for first; a real
//! kubelet comes with the pods that only it can have.

use std::process::{Command, Stdio};
use std::time::Duration;

use integration::{ContainerdVersion, Node, debug_container, is_running, sleeping_pod, state_of};

/// Longer than the agent waits between two looks.
const NOTICED_WITHIN: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn where_a_kubelet_appears_no_pod_is_started_and_running_ones_can_be_debugged() {
    let node = Node::start(ContainerdVersion::V1_6).await;
    let agent = node.start_agent().await;
    node.write_manifest("before.json", &sleeping_pod("before"));
    agent.api().pod_until("default", "before", is_running).await;

    let program = node.folder().join("kubelet");
    std::fs::copy("/bin/sleep", &program).unwrap();
    let mut kubelet = Command::new(program);
    kubelet.arg("600").stdin(Stdio::null());
    let kubelet = node.spawn(kubelet);
    integration::eventually_within(NOTICED_WITHIN, "the kubelet is noticed", async || {
        let report = agent.api().get("/apis/debuglet.io/v1alpha1/node").await.body;
        if report["kubelet"]["running"] == true {
            Ok(())
        } else {
            Err(report)
        }
    })
    .await;

    node.write_manifest("after.json", &sleeping_pod("after"));
    let waits = agent
        .api()
        .pod_until("default", "after", |pod| {
            let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
            waiting["message"]
                .as_str()
                .is_some_and(|message| message.contains("kubelet"))
        })
        .await;
    assert_eq!(waits["status"]["phase"], "Pending");
    let pods = "/api/v1/namespaces/default/pods";
    let created = agent
        .api()
        .send("POST", pods, "application/json", &sleeping_pod("created"))
        .await;
    assert_eq!(created.status, 403, "{created:?}");
    assert!(
        created.body["message"].as_str().unwrap().contains("kubelet"),
        "{created:?}"
    );
    assert!(
        node.crictl(["pods", "--quiet", "--name", "after"])
            .await
            .succeeded()
            .stdout
            .is_empty()
    );
    let listed = node.debuglet(["ps"]).await;
    assert!(
        format!("{}{}", listed.stdout, listed.stderr).contains("kubelet"),
        "{listed:?}"
    );
    let checked = node.debuglet(["check"]).await;
    assert!(checked.stdout.contains("kubelet"), "{checked:?}");
    agent
        .api()
        .debug("default", "before", &[debug_container("dbg", &["sleep", "600"])])
        .await;
    agent
        .api()
        .pod_until("default", "before", |pod| state_of(pod, "dbg") == "running:")
        .await;

    kubelet.kill().await;
    integration::eventually_within(NOTICED_WITHIN, "the pod is started", async || {
        let pod = agent.api().pod("default", "after").await.body;
        if is_running(&pod) { Ok(()) } else { Err(pod) }
    })
    .await;
}
