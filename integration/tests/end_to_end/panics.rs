//! A worker, or a step of one, that panics: the defect is shown, the pod is looked after again, and no debug container
//! is started twice.

use std::path::{Path, PathBuf};

use integration::{
    Agent, AgentOptions, ContainerdVersion, Moment, Node, debug_container, ephemeral_status, eventually,
    is_running, sleeping_pod, state_of,
};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_is_shown_and_survived_and_starts_nothing_twice() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let panics = node.folder().join("panics");
    std::fs::create_dir(&panics).unwrap();
    let agent = start_agent(&node, &panics, None).await;
    let scratch = start_pod(&node, &agent).await;

    // (where it panics, what is known of the container afterwards, how often its process was started)
    for (point, state, starts) in [
        ("worker", "running:", 1),
        // The worker's task itself ends.
        ("worker-task", "running:", 1),
        ("after-create", "running:", 1),
        ("after-start", "running:", 1),
        // The record says that StartContainer was about to be called, and nothing says whether it was.
        ("before-start", "terminated:ContainerStatusUnknown", 0),
    ] {
        let name = format!("dbg-{point}");
        ask_for_panic(&panics, point);
        debug(&agent, &name).await;
        let begun = |pod: &Value| {
            let status = ephemeral_status(pod, &name);
            status["state"]["running"].is_object() || status["state"]["terminated"].is_object()
        };
        let served = agent.api().pod_until("default", "web", begun).await;
        assert!(
            !panics.join(point).exists(),
            "{point}: nothing panicked\n{}",
            agent.log()
        );
        assert_eq!(state_of(&served, &name), state, "{point}");
        if starts > 0 {
            lines_in(&scratch.join(&name), starts).await;
        } else {
            assert!(!scratch.join(&name).exists(), "{point}: it was started");
        }
        assert!(node.cri().containers(&name).await.len() <= 1, "{point}");
        shown(&node, &agent).await;
    }
    let metrics = agent.api().get("/metrics").await.body;
    for counted in [
        r#"debuglet_panics_total{of="step"} 3"#,
        r#"debuglet_panics_total{of="worker"} 2"#,
    ] {
        assert!(metrics.as_str().unwrap().contains(counted), "{metrics}");
    }
}

/// The task of a worker ends while a step of it starts a container: the step goes on to its end, and the next worker, which
/// rests until then, finds what came of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_is_started_to_the_end_though_its_worker_is_gone() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let panics = node.folder().join("panics");
    std::fs::create_dir(&panics).unwrap();
    let proxy = node.start_proxy().await;
    let agent = start_agent(&node, &panics, Some(proxy.socket().to_path_buf())).await;
    let scratch = start_pod(&node, &agent).await;

    let mut starts = proxy.hold("StartContainer", Moment::Before);
    debug(&agent, "dbg").await;
    let held = starts.next().await;
    ask_for_panic(&panics, "worker-task");
    // Wakes the worker.
    debug(&agent, "next").await;
    eventually("the task panicked", async || {
        match panics.join("worker-task").exists() {
            true => Err(agent.log()),
            false => Ok(()),
        }
    })
    .await;
    shown(&node, &agent).await;
    drop(held);

    proxy.let_pass();
    for name in ["dbg", "next"] {
        let runs = |pod: &Value| ephemeral_status(pod, name)["state"]["running"].is_object();
        agent.api().pod_until("default", "web", runs).await;
        lines_in(&scratch.join(name), 1).await;
        assert_eq!(node.cri().containers(name).await.len(), 1, "{name}");
    }
}

/// A write to the disk panics, in a request and in a step: whoever waits for it gets an error, and tries again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_a_durable_write_is_an_error_and_shown_and_starts_nothing_twice() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let panics = node.folder().join("panics");
    std::fs::create_dir(&panics).unwrap();
    let agent = start_agent(&node, &panics, None).await;
    let scratch = start_pod(&node, &agent).await;

    ask_for_panic(&panics, "accept");
    let answer = agent.api().debug("default", "web", &[debugger("dbg")]).await;
    assert_eq!(answer.status, 500, "{answer:?}");
    let message = answer.body["message"].as_str().unwrap();
    assert!(message.contains("debuglet panicked"), "{message}");
    shown(&node, &agent).await;

    // The record *created* is on the disk and not in memory, and nothing may be started for it.
    ask_for_panic(&panics, "record-written");
    debug(&agent, "dbg").await;
    let runs = |pod: &Value| ephemeral_status(pod, "dbg")["state"]["running"].is_object();
    agent.api().pod_until("default", "web", runs).await;
    assert!(!panics.join("record-written").exists(), "{}", agent.log());
    lines_in(&scratch.join("dbg"), 1).await;
    assert_eq!(node.cri().containers("dbg").await.len(), 1);
    let metrics = agent.api().get("/metrics").await.body;
    let counted = r#"debuglet_panics_total{of="write"} 2"#;
    assert!(metrics.as_str().unwrap().contains(counted), "{metrics}");
}

async fn start_agent(node: &Node, panics: &Path, runtime_socket: Option<PathBuf>) -> Agent {
    node.start_agent_with(AgentOptions {
        runtime_socket,
        under: vec![
            "env".to_owned(),
            format!("DEBUGLET_TEST_PANICS={}", panics.display()),
        ],
        ..AgentOptions::default()
    })
    .await
}

/// Starts the pod that is debugged; answers where its volume is on the node.
async fn start_pod(node: &Node, agent: &Agent) -> PathBuf {
    node.write_manifest("web.json", &sleeping_pod("web"));
    let pod = agent.api().pod_until("default", "web", is_running).await;
    node.folder()
        .join("state/pods")
        .join(pod["metadata"]["uid"].as_str().unwrap())
        .join("volumes/kubernetes.io~empty-dir/scratch")
}

fn ask_for_panic(folder: &Path, point: &str) {
    std::fs::write(folder.join(point), "").unwrap();
}

async fn debug(agent: &Agent, name: &str) {
    let answer = agent.api().debug("default", "web", &[debugger(name)]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// A debug container that writes a line each time when it is started.
fn debugger(name: &str) -> Value {
    let mut container = debug_container(
        name,
        &[
            "sh",
            "-c",
            &format!("echo started >>/scratch/{name}; exec sleep 600"),
        ],
    );
    container["volumeMounts"] = json!([{ "name": "scratch", "mountPath": "/scratch" }]);
    container
}

async fn lines_in(file: &Path, lines: usize) {
    eventually("the container has begun", async || {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if text.lines().count() >= lines {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await;
    let text = std::fs::read_to_string(file).unwrap();
    assert_eq!(text.lines().count(), lines, "{}", file.display());
}

/// What the node's owner sees of it.
async fn shown(node: &Node, agent: &Agent) {
    eventually("the panic is shown", async || {
        let ready = agent.api().get("/readyz").await;
        if ready.status != 500 {
            return Err(format!("{ready:?}"));
        }
        let told = node.debuglet(["ps"]).await.succeeded();
        let text = format!("{}{}", told.stdout, told.stderr);
        match text.contains("panicked: a test asked for it at") {
            true => Ok(()),
            false => Err(text),
        }
    })
    .await;
}
