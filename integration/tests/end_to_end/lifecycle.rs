//! The agent's own start and end.

use integration::{
    AgentOptions, ContainerdVersion, Node, debug_container, ephemeral_status, is_running, sleeping_pod,
    state_of,
};

on_both_versions!(an_upgrade_stops_nothing_and_adopts_everything);

async fn an_upgrade_stops_nothing_and_adopts_everything(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    node.write_manifest("web.json", &sleeping_pod("web"));
    agent.api().pod_until("default", "web", is_running).await;
    agent
        .api()
        .debug("default", "web", &[debug_container("dbg", &["sleep", "600"])])
        .await;
    let before = agent
        .api()
        .pod_until("default", "web", |pod| state_of(pod, "dbg") == "running:")
        .await;

    assert_eq!(agent.stop().await, 0);
    let agent = node.start_agent().await;

    let after = agent
        .api()
        .pod_until("default", "web", |pod| {
            is_running(pod) && state_of(pod, "dbg") == "running:"
        })
        .await;
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(
        after["status"]["containerStatuses"],
        before["status"]["containerStatuses"]
    );
    assert_eq!(ephemeral_status(&after, "dbg"), ephemeral_status(&before, "dbg"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_on_the_same_state_is_refused() {
    let node = Node::start(ContainerdVersion::V1_6).await;
    let _first = node.start_agent().await;

    let mut second = node.launch_agent(AgentOptions::default());

    assert_ne!(second.process().ended().await, 0);
    assert!(second.log().contains("state"), "{}", second.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_configuration_is_refused_with_its_file_and_line() {
    let node = Node::start(ContainerdVersion::V1_6).await;
    let configuration = "cgroup_drive = \"systemd\"".to_owned();

    let mut agent = node.launch_agent(AgentOptions {
        configuration,
        ..Default::default()
    });

    assert_ne!(agent.process().ended().await, 0);
    let log = agent.log();
    assert!(
        log.contains("debuglet.toml") && log.contains("cgroup_drive") && log.contains('6'),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_a_debug_container_and_changes_nothing() {
    let node = Node::start(ContainerdVersion::V1_6).await;
    let state = node.folder().join("state");
    std::fs::create_dir(&state).unwrap();
    let state = state.to_str().unwrap();
    node.run(["mount", "-t", "tmpfs", "-o", "size=2m", "state", state])
        .await
        .succeeded();
    let agent = node.start_agent().await;
    node.write_manifest("web.json", &sleeping_pod("web"));
    agent.api().pod_until("default", "web", is_running).await;
    node.run(["sh", "-c", &format!("cat /dev/zero >{state}/filler || true")])
        .await;

    let answer = agent
        .api()
        .debug("default", "web", &[debug_container("dbg", &["sleep", "600"])])
        .await;

    assert!(answer.status >= 500, "{answer:?}");
    assert!(
        answer.body["message"].as_str().unwrap().contains("space"),
        "{answer:?}"
    );
    node.run(["rm", &format!("{state}/filler")]).await.succeeded();
    let pod = agent.api().pod("default", "web").await.body;
    assert_eq!(state_of(&pod, "dbg"), "");
    let again = agent
        .api()
        .debug("default", "web", &[debug_container("dbg", &["sleep", "600"])])
        .await;
    assert_eq!(again.status, 200, "{again:?}");
}
