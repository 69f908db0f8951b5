//! exec and logs through the command line, the agent's API and the runtime's streaming server.

use std::fs::File;

use integration::{ContainerdVersion, Node, is_running, sleeping_pod};

on_both_versions!(
    exec_keeps_the_streams_apart_and_gives_the_exit_code,
    the_end_of_standard_input_reaches_the_process,
    a_followed_log_goes_on_across_rotation,
);

async fn node_with_web(version: ContainerdVersion) -> (Node, integration::Agent) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    node.write_manifest("web.json", &sleeping_pod("web"));
    agent.api().pod_until("default", "web", is_running).await;
    (node, agent)
}

async fn exec_keeps_the_streams_apart_and_gives_the_exit_code(version: ContainerdVersion) {
    let (node, _agent) = node_with_web(version).await;
    let script = "echo out; echo err >&2; exit 3";
    let output = node.debuglet(["exec", "web", "--", "sh", "-c", script]).await;
    assert_eq!((output.code, output.stdout.as_str()), (3, "out\n"));
    assert!(output.stderr.starts_with("err\n"), "{}", output.stderr);
}

async fn the_end_of_standard_input_reaches_the_process(version: ContainerdVersion) {
    let (node, _agent) = node_with_web(version).await;
    let file = node.folder().join("input");
    std::fs::write(&file, "hello").unwrap();
    let mut command = node.debuglet_command(["exec", "-i", "web", "--", "sh", "-c", "wc -c; echo done"]);
    command.stdin(File::open(&file).unwrap());
    let output = node.spawn(command).output().await.succeeded();
    assert_eq!(output.stdout, "5\ndone\n");
}

async fn a_followed_log_goes_on_across_rotation(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    let mut pod = sleeping_pod("counter");
    let script = "i=0; while [ $i -lt 300 ]; do echo $i; i=$((i+1)); sleep 0.02; done";
    pod["spec"]["restartPolicy"] = "Never".into();
    pod["spec"]["containers"][0]["command"] = serde_json::json!(["sh", "-c", script]);
    node.write_manifest("counter.json", &pod);
    let served = agent.api().pod_until("default", "counter", is_running).await;
    let uid = served["metadata"]["uid"].as_str().unwrap();
    let id = served["status"]["containerStatuses"][0]["containerID"]
        .as_str()
        .unwrap();
    let log = node
        .folder()
        .join(format!("logs/default_counter_{uid}/main/0.log"));

    let following = node.spawn(node.debuglet_command(["logs", "-f", "counter"]));
    for rotation in 1..=3 {
        integration::eventually("some lines were followed", async || {
            let lines = following.stdout().lines().count();
            if lines >= rotation * 50 {
                Ok(())
            } else {
                Err(lines)
            }
        })
        .await;
        std::fs::rename(
            &log,
            log.with_file_name(format!("0.log.20261121-00000{rotation}")),
        )
        .unwrap();
        let request = debuglet_proto::v1::ReopenContainerLogRequest {
            container_id: id.trim_start_matches("containerd://").to_owned(),
        };
        node.cri().runtime().reopen_container_log(request).await.unwrap();
    }
    let output = following.output().await.succeeded();
    let expected: String = (0..300).map(|number| format!("{number}\n")).collect();
    assert_eq!(output.stdout, expected);
}
