//! `pods/log`: what containers wrote, whatever became of them and of their log files.

use integration::{
    Agent, ContainerdVersion, Node, debug_container, ephemeral_status, eventually, is_running, sleeping_pod,
};
use serde_json::{Value, json};

on_both_versions!(
    a_followed_log_goes_on_across_rotation,
    older_lines_come_from_the_files_that_were_rotated_away,
    the_log_of_before_a_restart_is_the_previous_one,
    the_log_outlives_the_runtime_s_record_of_its_container,
    a_log_that_is_not_there_is_a_bad_request,
);

async fn log(agent: &Agent, pod: &str, query: &str) -> integration::Answer {
    let path = format!("/api/v1/namespaces/default/pods/{pod}/log?{query}");
    agent.api().get(&path).await
}

/// Runs `script` in a pod that is not started again.
fn once(name: &str, script: &str) -> Value {
    let mut pod = sleeping_pod(name);
    pod["spec"]["restartPolicy"] = "Never".into();
    pod["spec"]["containers"][0]["command"] = json!(["sh", "-c", script]);
    pod
}

async fn older_lines_come_from_the_files_that_were_rotated_away(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    let script = "for i in 1 2 3; do echo $i; done; sleep 1000";
    node.write_manifest("counter.json", &once("counter", script));
    let served = agent.api().pod_until("default", "counter", is_running).await;
    eventually("the lines are there", async || {
        let answer = log(&agent, "counter", "").await;
        if answer.body == "1\n2\n3\n" {
            Ok(())
        } else {
            Err(answer)
        }
    })
    .await;
    let uid = served["metadata"]["uid"].as_str().unwrap();
    let file = node
        .folder()
        .join(format!("logs/default_counter_{uid}/main/0.log"));
    std::fs::rename(&file, file.with_file_name("0.log.20261121-000001")).unwrap();
    std::fs::write(file.with_file_name("0.log.20261121-000000.gz"), "").unwrap();
    let id = served["status"]["containerStatuses"][0]["containerID"]
        .as_str()
        .unwrap();
    let request = debuglet_proto::v1::ReopenContainerLogRequest {
        container_id: id.trim_start_matches("containerd://").to_owned(),
    };
    node.cri().runtime().reopen_container_log(request).await.unwrap();
    assert_eq!(log(&agent, "counter", "").await.body, "1\n2\n3\n");
    assert_eq!(log(&agent, "counter", "tailLines=2").await.body, "2\n3\n");
    assert_eq!(
        log(&agent, "counter", "sinceSeconds=3600").await.body,
        "1\n2\n3\n"
    );
}

async fn the_log_of_before_a_restart_is_the_previous_one(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    let mut pod = sleeping_pod("restarting");
    let script = "if mkdir /scratch/once 2>&-; then echo first; exit 1; fi; echo second; sleep 1000";
    pod["spec"]["containers"][0]["command"] = json!(["sh", "-c", script]);
    node.write_manifest("restarting.json", &pod);
    let restarted = |pod: &Value| {
        let status = &pod["status"]["containerStatuses"][0];
        status["restartCount"] == 1 && status["state"]["running"].is_object()
    };
    agent.api().pod_until("default", "restarting", restarted).await;
    assert_eq!(log(&agent, "restarting", "previous=true").await.body, "first\n");
    eventually("the second one has written", async || {
        let answer = log(&agent, "restarting", "").await;
        if answer.body == "second\n" {
            Ok(())
        } else {
            Err(answer)
        }
    })
    .await;
}

async fn the_log_outlives_the_runtime_s_record_of_its_container(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    node.write_manifest("web.json", &sleeping_pod("web"));
    agent.api().pod_until("default", "web", is_running).await;
    let container = debug_container("debugger", &["sh", "-c", "echo words"]);
    assert_eq!(
        agent.api().debug("default", "web", &[container]).await.status,
        200
    );
    let ended = |pod: &Value| ephemeral_status(pod, "debugger")["state"]["terminated"].is_object();
    let served = agent.api().pod_until("default", "web", ended).await;
    let id = ephemeral_status(&served, "debugger")["containerID"]
        .as_str()
        .unwrap()
        .to_owned();
    let uid = served["metadata"]["uid"].as_str().unwrap();
    let file = node
        .folder()
        .join(format!("logs/default_web_{uid}/debugger/0.log"));
    // Removing a container takes its log file along, but not one of another name.
    let aside = file.with_extension("aside");
    std::fs::rename(&file, &aside).unwrap();
    node.crictl(["rm", id.trim_start_matches("containerd://")])
        .await
        .succeeded();
    std::fs::rename(&aside, &file).unwrap();

    for query in ["container=debugger", "container=debugger&follow=1"] {
        assert_eq!(log(&agent, "web", query).await.body, "words\n", "{query}");
    }
    std::fs::remove_file(file).unwrap();
    let answer = log(&agent, "web", "container=debugger").await;
    assert_eq!((answer.status, &answer.body["reason"]), (404, &json!("NotFound")));
}

async fn a_log_that_is_not_there_is_a_bad_request(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    let mut pod = sleeping_pod("two");
    let mut absent = pod["spec"]["containers"][0].clone();
    absent["name"] = "absent".into();
    absent["image"] = "127.0.0.1:5000/nothing:1".into();
    pod["spec"]["containers"].as_array_mut().unwrap().push(absent);
    node.write_manifest("two.json", &pod);
    let waits = |pod: &Value| {
        let statuses = pod["status"]["containerStatuses"].as_array();
        let is = |name: &str, state: &str| {
            let status = statuses.and_then(|all| all.iter().find(|one| one["name"] == name));
            status.is_some_and(|status| status["state"][state].is_object())
        };
        is("main", "running") && is("absent", "waiting")
    };
    agent.api().pod_until("default", "two", waits).await;
    for (query, status) in [
        ("", 400),
        ("container=nobody", 400),
        ("container=absent", 400),
        ("container=main&previous=true", 400),
        ("container=main&tailLines=x", 400),
        ("container=main&tailLines=-1", 422),
        ("container=main&tailLines=1&stream=Stdout", 422),
        ("container=main&tailLines=1&stream=All", 200),
    ] {
        let answer = log(&agent, "two", query).await;
        assert_eq!(answer.status, status, "{query}: {answer:?}");
    }
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
        eventually("some lines were followed", async || {
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
