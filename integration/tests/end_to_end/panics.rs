//! A worker, or a step of one, that panics: the defect is shown, the pod is looked after again, and no debug container
//! is started twice.

use std::path::Path;

use integration::{
    Agent, AgentOptions, ContainerdVersion, Node, debug_container, ephemeral_status, eventually, is_running,
    sleeping_pod, state_of,
};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_is_shown_and_survived_and_starts_nothing_twice() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let panics = node.folder().join("panics");
    std::fs::create_dir(&panics).unwrap();
    let agent = node
        .start_agent_with(AgentOptions {
            under: vec![
                "env".to_owned(),
                format!("DEBUGLET_TEST_PANICS={}", panics.display()),
            ],
            ..AgentOptions::default()
        })
        .await;
    node.write_manifest("web.json", &sleeping_pod("web"));
    let pod = agent.api().pod_until("default", "web", is_running).await;
    let scratch = node
        .folder()
        .join("state/pods")
        .join(pod["metadata"]["uid"].as_str().unwrap())
        .join("volumes/kubernetes.io~empty-dir/scratch");

    // (where it panics, what is known of the container afterwards, how often its process was started)
    for (point, state, starts) in [
        ("worker", "running:", 1),
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
        r#"debuglet_panics_total{of="worker"} 1"#,
    ] {
        assert!(metrics.as_str().unwrap().contains(counted), "{metrics}");
    }
}

fn ask_for_panic(folder: &Path, point: &str) {
    std::fs::write(folder.join(point), "").unwrap();
}

async fn debug(agent: &Agent, name: &str) {
    let mut container = debug_container(
        name,
        &[
            "sh",
            "-c",
            &format!("echo started >>/scratch/{name}; exec sleep 600"),
        ],
    );
    container["volumeMounts"] = json!([{ "name": "scratch", "mountPath": "/scratch" }]);
    let answer = agent.api().debug("default", "web", &[container]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
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
    let answer = agent.api().get("/readyz").await;
    assert_eq!(answer.status, 500, "{answer:?}");
    let told = node.debuglet(["ps"]).await.succeeded();
    let text = format!("{}{}", told.stdout, told.stderr);
    assert!(text.contains("panicked: a test asked for it at"), "{text}");
}
