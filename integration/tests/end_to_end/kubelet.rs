//! Beside a kubelet debuglet starts no pods of its own. A process of that name is what it looks for first; a real
//! kubelet comes with the pods that only it can have.

use std::process::{Command, Stdio};
use std::time::Duration;

use integration::{
    Agent, AgentOptions, ContainerdVersion, Node, debug_container, is_running, sleeping_pod, state_of,
};

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

/// The port at which a kubelet answers `/healthz`.
pub(crate) const HEALTH_PORT: u16 = 10248;

/// Answers `/healthz` as a kubelet does, as this user.
pub(crate) fn health_port(node: &Node, user: u32) -> integration::Process {
    use std::os::unix::process::CommandExt;
    let script = format!(
        "
import socket
listener = socket.create_server(('127.0.0.1', {HEALTH_PORT}))
while True:
    client, _ = listener.accept()
    client.recv(1024)
    client.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\nok')
    client.close()
"
    );
    let mut command = Command::new("python3");
    command.args(["-c", &script]).uid(user).stdin(Stdio::null());
    node.spawn(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_answers_at_a_kubelets_health_port_stops_no_pod_and_is_reported() {
    let node = Node::start(ContainerdVersion::V1_6).await;
    for (user, words) in [
        (
            1000,
            "A process of user 1000 answers at the kubelet's health port 10248",
        ),
        (0, "A process of root answers at port 10248 as a kubelet does"),
    ] {
        let port = health_port(&node, user);
        integration::eventually("somebody listens", async || {
            node.connect(HEALTH_PORT).await.map(drop)
        })
        .await;
        let agent = node.start_agent().await;
        is_reported(&node, &agent, words).await;
        let checked = node.debuglet(["check"]).await;
        let warning = checked.stdout.lines().find(|line| line.contains(words));
        assert!(
            warning.is_some_and(|line| line.starts_with("warn")),
            "{checked:?}"
        );
        let report = agent.api().get("/apis/debuglet.io/v1alpha1/node").await.body;
        assert_eq!(report["kubelet"]["running"], false, "{report}");

        // Pods of the folder and of the API start, and those that run are started again when they end.
        let name = format!("beside-{user}");
        node.write_manifest("pod.json", &sleeping_pod(&name));
        agent.api().pod_until("default", &name, is_running).await;
        let pods = "/api/v1/namespaces/default/pods";
        let created = format!("created-{user}");
        let answer = agent
            .api()
            .send("POST", pods, "application/json", &sleeping_pod(&created))
            .await;
        assert_eq!(answer.status, 201, "{answer:?}");
        agent.api().pod_until("default", &created, is_running).await;

        port.kill().await;
        integration::eventually_within(NOTICED_WITHIN, "it is reported no more", async || {
            let report = agent.api().get("/apis/debuglet.io/v1alpha1/node").await.body;
            if report["problems"].as_array().is_some_and(Vec::is_empty) {
                Ok(())
            } else {
                Err(report)
            }
        })
        .await;
        agent.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_proc_hides_processes_nobody_takes_a_kubelets_absence_for_granted() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    // Only members of this group see the processes of others. Without a group those of root's do.
    node.run(["mount", "-o", "remount,hidepid=2,gid=1234", "/proc"])
        .await
        .succeeded();
    // With the capabilities of the unit: the node's first process, as a kubelet, has more.
    let unit = "--bounding-set=-all,+chown,+dac_override,+fowner,+fsetid,+sys_admin";
    let agent = node
        .start_agent_with(AgentOptions {
            under: vec!["setpriv".to_owned(), unit.to_owned()],
            ..AgentOptions::default()
        })
        .await;
    is_reported(&node, &agent, "hidepid").await;
    let checked = node.debuglet(["check"]).await;
    assert!(
        checked.stdout.contains("/proc is mounted with hidepid="),
        "{checked:?}"
    );
}

/// Waits until `ps` and the agent's log say `words`.
pub(crate) async fn is_reported(node: &Node, agent: &Agent, words: &str) {
    let what = format!("ps and the log say: {words}");
    integration::eventually_within(NOTICED_WITHIN, &what, async || {
        // The log is JSON.
        let (listed, log) = (node.debuglet(["ps"]).await, agent.log().replace("\\\"", "\""));
        if listed.stderr.contains(words) && log.contains(words) {
            Ok(())
        } else {
            Err((listed, log))
        }
    })
    .await;
}
