//! The process of an accepted debug container is started at most once, and is never forgotten, wherever the
//! agent, or the runtime, is killed.

use std::path::PathBuf;
use std::time::Duration;

use debuglet_proto::v1::ContainerState;
use integration::{
    Agent, ContainerdVersion, Moment, Node, debug_container, is_running, sleeping_pod, state_of,
};
use serde_json::{Value, json};

use crate::tracer::kill_at;

on_both_versions!(
    a_launch_survives_a_kill_between_any_two_calls,
    a_stop_survives_a_kill_between_any_two_calls,
    a_launch_survives_a_kill_at_any_step_on_the_disk,
    a_container_that_is_created_after_an_error_to_startcontainer_is_not_started_again,
);

/// The state of a container of which nobody can tell whether it ran.
const MAY_HAVE_RUN: &str = "terminated:ContainerStatusUnknown";

async fn a_launch_survives_a_kill_between_any_two_calls(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let proxy = node.start_proxy().await;
    for (number, (method, moment)) in [
        ("ImageStatus", Moment::Before),
        ("PullImage", Moment::Before),
        ("PullImage", Moment::After),
        ("CreateContainer", Moment::Before),
        ("CreateContainer", Moment::After),
        ("StartContainer", Moment::Before),
        ("StartContainer", Moment::After),
    ]
    .into_iter()
    .enumerate()
    {
        let step = format!("{method} {moment:?}");
        let agent = node.start_agent_behind(&proxy).await;
        let pod = start_pod(&node, &agent, &format!("launch-{number}")).await;
        let mut held = proxy.hold(method, moment);
        let answer = agent
            .api()
            .debug("default", &pod.name, &[counting_container()])
            .await;
        assert_eq!(answer.status, 200, "{step}: {answer:?}");
        let call = held.next().await;

        agent.kill().await;
        proxy.let_pass();
        call.abandoned().await;

        let agent = node.start_agent_behind(&proxy).await;
        let served = agent
            .api()
            .pod_until("default", &pod.name, has_begun("dbg"))
            .await;
        // StartContainer may have been called, and what the runtime shows does not say whether it was.
        if (method, moment) == ("StartContainer", Moment::Before) {
            assert_eq!(state_of(&served, "dbg"), MAY_HAVE_RUN, "{step}");
            pod.has_no_container(&node).await;
            assert_eq!(pod.starts("starts"), 0, "{step}");
        } else {
            assert_eq!(state_of(&served, "dbg"), "running:", "{step}");
            pod.started_times(1, &step).await;
            assert_eq!(containers_of(&node, &pod).await, 1, "{step}");
        }
        agent.kill().await;
    }
}

async fn a_stop_survives_a_kill_between_any_two_calls(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let proxy = node.start_proxy().await;
    for (number, moment) in [Moment::Before, Moment::After].into_iter().enumerate() {
        let step = format!("StopContainer {moment:?}");
        let agent = node.start_agent_behind(&proxy).await;
        let pod = start_pod(&node, &agent, &format!("stop-{number}")).await;
        agent
            .api()
            .debug("default", &pod.name, &[counting_container()])
            .await;
        agent
            .api()
            .pod_until("default", &pod.name, |pod| state_of(pod, "dbg") == "running:")
            .await;
        let mut held = proxy.hold("StopContainer", moment);
        let answer = agent.api().stop("default", &pod.name, "dbg").await;
        assert_eq!(answer.status, 200, "{step}: {answer:?}");
        let call = held.next().await;

        agent.kill().await;
        proxy.let_pass();
        call.abandoned().await;

        let agent = node.start_agent_behind(&proxy).await;
        let stopped = |pod: &Value| state_of(pod, "dbg").starts_with("terminated:");
        agent.api().pod_until("default", &pod.name, stopped).await;
        pod.started_times(1, &step).await;
        assert_eq!(
            agent.api().stop("default", &pod.name, "dbg").await.status,
            200,
            "stopping twice is no error"
        );
        agent.kill().await;
    }
}

/// strace ends the agent at its Nth call of each kind that makes something durable.
async fn a_launch_survives_a_kill_at_any_step_on_the_disk(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let proxy = node.start_proxy().await;
    let mut kills = 0;
    for calls in ["fsync,fdatasync", "rename,renameat,renameat2"] {
        for nth in 1..=3 {
            let step = format!("{calls} {nth}");
            let mut agent = node.start_agent_behind(&proxy).await;
            let pod = start_pod(&node, &agent, &format!("disk-{}-{nth}", &calls[..5])).await;
            let tracer = kill_at(&node, &mut agent, calls, nth).await;

            let answer = agent
                .api()
                .try_debug("default", &pod.name, &[counting_container()])
                .await;
            let accepted = answer.as_ref().is_ok_and(|answer| answer.status == 200);
            // Either the tracer ends it, or there are not as many such calls.
            let ended = tokio::time::timeout(Duration::from_secs(5), agent.process().ended()).await;
            kills += usize::from(ended.is_ok());
            tracer.signal(nix::sys::signal::Signal::SIGTERM);
            tracer.ended().await;
            agent.kill().await;

            let agent = node.start_agent_behind(&proxy).await;
            let served = agent.api().pod_until("default", &pod.name, is_running).await;
            let known = served["spec"]["ephemeralContainers"]
                .as_array()
                .is_some_and(|all| !all.is_empty());
            assert!(known || !accepted, "{step}: accepted and forgotten");
            if known {
                let served = agent
                    .api()
                    .pod_until("default", &pod.name, has_begun("dbg"))
                    .await;
                match state_of(&served, "dbg").as_str() {
                    "running:" => {
                        pod.started_times(1, &step).await;
                        assert_eq!(containers_of(&node, &pod).await, 1, "{step}");
                    }
                    // It was killed after the record *created*.
                    MAY_HAVE_RUN => assert_eq!(pod.starts("starts"), 0, "{step}"),
                    other => panic!("{step}: {other}"),
                }
            }
            agent.kill().await;
        }
    }
    assert!(kills >= 2, "the tracer killed the agent {kills} times only");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_survives_kills_at_any_time() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let agent = node.start_agent().await;
    let pod = start_pod(&node, &agent, "any-time").await;
    agent.kill().await;
    for number in 0..12u64 {
        let name = format!("dbg-{number}");
        let agent = node.start_agent().await;
        let mut container = counting_container();
        container["name"] = json!(name);
        container["command"][2] = json!(format!("echo started >>/scratch/{name}; exec sleep 600"));
        let answer = agent.api().debug("default", &pod.name, &[container]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(number * 15)).await;
        agent.kill().await;

        let agent = node.start_agent().await;
        let served = agent
            .api()
            .pod_until("default", &pod.name, has_begun(&name))
            .await;
        let starts = pod.starts(&name);
        match state_of(&served, &name).as_str() {
            "running:" => {
                pod.file_has_lines(&name, 1).await;
                assert_eq!(pod.starts(&name), 1, "{name}");
                assert_eq!(node.cri().containers(&name).await.len(), 1);
            }
            // Its StartContainer call was cut, or not made.
            "terminated:StartError" | MAY_HAVE_RUN => assert!(starts <= 1, "{name} started {starts} times"),
            other => panic!("{name}: {other}, started {starts} times"),
        }
        agent.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_ran_before_the_runtime_was_killed_is_adopted_and_not_started_again() {
    let node = Node::start(ContainerdVersion::V1_6).await;
    let agent = node.start_agent().await;
    let pod = start_pod(&node, &agent, "runtime-killed").await;
    agent
        .api()
        .debug("default", &pod.name, &[counting_container()])
        .await;
    let before = agent
        .api()
        .pod_until("default", &pod.name, |pod| state_of(pod, "dbg") == "running:")
        .await;

    agent.kill().await;
    node.kill_containerd().await;
    node.start_containerd().await;
    let agent = node.start_agent().await;

    let after = agent
        .api()
        .pod_until("default", &pod.name, |pod| state_of(pod, "dbg") == "running:")
        .await;
    let id = |pod: &Value| integration::ephemeral_status(pod, "dbg")["containerID"].clone();
    assert_eq!(id(&before), id(&after));
    pod.started_times(1, "containerd killed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_may_have_run_under_another_runtime_is_not_started() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let proxy = node.start_proxy().await;
    let agent = node.start_agent_behind(&proxy).await;
    let pod = start_pod(&node, &agent, "another-runtime").await;
    let mut held = proxy.hold("StartContainer", Moment::Before);
    agent
        .api()
        .debug("default", &pod.name, &[counting_container()])
        .await;
    let call = held.next().await;
    agent.kill().await;
    call.abandoned().await;

    node.kill_containerd().await;
    node.start_containerd().await;
    let agent = node.start_agent().await;

    let served = agent
        .api()
        .pod_until("default", &pod.name, has_begun("dbg"))
        .await;
    assert_eq!(state_of(&served, "dbg"), MAY_HAVE_RUN);
    assert_eq!(
        integration::ephemeral_status(&served, "dbg")["state"]["terminated"]["exitCode"],
        137
    );
    assert_eq!(pod.starts("starts"), 0, "never started");
}

/// containerd that cannot write down that a process runs kills it, answers an error, and shows the container as CREATED.
async fn a_container_that_is_created_after_an_error_to_startcontainer_is_not_started_again(
    version: ContainerdVersion,
) {
    let node = Node::start(version).await;
    let proxy = node.start_proxy().await;
    let agent = node.start_agent_behind(&proxy).await;
    let pod = start_pod(&node, &agent, "start-error").await;
    let before = proxy.calls("StartContainer");
    let error = "failed to update container state: no space left on device";
    proxy.fail("StartContainer", Moment::After, tonic::Code::Unknown, error);
    proxy.show_container_as("dbg", ContainerState::ContainerCreated);
    agent
        .api()
        .debug("default", &pod.name, &[counting_container()])
        .await;

    let served = agent
        .api()
        .pod_until("default", &pod.name, has_begun("dbg"))
        .await;
    assert_eq!(state_of(&served, "dbg"), MAY_HAVE_RUN);
    let terminated = &integration::ephemeral_status(&served, "dbg")["state"]["terminated"];
    let message = terminated["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("does not say whether the container ran") && message.contains(error),
        "{terminated}"
    );
    pod.has_no_container(&node).await;
    pod.started_times(1, "an error after the start").await;
    assert_eq!(proxy.calls("StartContainer"), before + 1);

    // Neither a new sandbox nor a new agent is a reason to start it again.
    proxy.let_pass();
    agent.kill().await;
    let sandboxes = node.crictl(["pods", "-q"]).await.succeeded().stdout;
    node.crictl(["stopp", sandboxes.trim()]).await.succeeded();
    let agent = node.start_agent_behind(&proxy).await;
    let restarted =
        |pod: &Value| is_running(pod) && pod["status"]["containerStatuses"][0]["restartCount"] == json!(1);
    let served = agent.api().pod_until("default", &pod.name, restarted).await;
    assert_eq!(state_of(&served, "dbg"), MAY_HAVE_RUN);
    pod.started_times(1, "a new sandbox").await;
    assert_eq!(containers_of(&node, &pod).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_of_a_container_that_waits_outlives_the_agent() {
    let node = Node::start(ContainerdVersion::V1_6).await;
    let agent = node.start_agent().await;
    let pod = start_pod(&node, &agent, "stopped-while-waiting").await;
    let mut container = counting_container();
    container["image"] = json!("127.0.0.1:5000/later:1");
    agent.api().debug("default", &pod.name, &[container]).await;
    agent
        .api()
        .pod_until("default", &pod.name, |pod| {
            state_of(pod, "dbg").starts_with("waiting:ErrImage")
        })
        .await;

    let answer = agent.api().stop("default", &pod.name, "dbg").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    agent.kill().await;
    node.tag(integration::BUSYBOX, "127.0.0.1:5000/later:1").await;
    let agent = node.start_agent().await;

    let ended = |pod: &Value| state_of(pod, "dbg").starts_with("terminated:");
    agent.api().pod_until("default", &pod.name, ended).await;
    assert_eq!(containers_of(&node, &pod).await, 0);
}

/// A pod whose debug containers leave a line at each start.
struct CountingPod {
    name: String,
    /// Its emptyDir on the node.
    scratch: PathBuf,
}

impl CountingPod {
    /// How many lines a container has left in `file`.
    fn starts(&self, file: &str) -> usize {
        let text = std::fs::read_to_string(self.scratch.join(file)).unwrap_or_default();
        text.lines().count()
    }

    async fn has_no_container(&self, node: &Node) {
        integration::eventually("the container is removed", async || {
            match containers_of(node, self).await {
                0 => Ok(()),
                some => Err(some),
            }
        })
        .await;
    }

    async fn started_times(&self, times: usize, step: &str) {
        self.file_has_lines("starts", times).await;
        assert_eq!(self.starts("starts"), times, "{step}");
    }

    async fn file_has_lines(&self, file: &str, lines: usize) {
        let path = self.scratch.join(file);
        integration::eventually("the container has begun", async || {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            if text.lines().count() >= lines {
                Ok(())
            } else {
                Err(path.clone())
            }
        })
        .await;
    }
}

async fn start_pod(node: &Node, agent: &Agent, name: &str) -> CountingPod {
    node.write_manifest(&format!("{name}.json"), &sleeping_pod(name));
    let pod = agent.api().pod_until("default", name, is_running).await;
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let scratch = node
        .folder()
        .join("state/pods")
        .join(uid)
        .join("volumes/kubernetes.io~empty-dir/scratch");
    CountingPod {
        name: name.to_owned(),
        scratch,
    }
}

/// Leaves a line in the pod's volume, and is pulled each time.
fn counting_container() -> Value {
    let mut container = debug_container(
        "dbg",
        &["sh", "-c", "echo started >>/scratch/starts; exec sleep 600"],
    );
    container["image"] = json!(integration::BUSYBOX);
    container["imagePullPolicy"] = json!("Always");
    container["volumeMounts"] = json!([{ "name": "scratch", "mountPath": "/scratch" }]);
    container
}

/// Whether a debug container runs, or has come to an end.
fn has_begun(name: &str) -> impl Fn(&Value) -> bool {
    move |pod| {
        let state = state_of(pod, name);
        state.starts_with("running") || state.starts_with("terminated")
    }
}

/// How many containers named `dbg` the runtime has in a pod.
async fn containers_of(node: &Node, pod: &CountingPod) -> usize {
    let containers = node.cri().containers("dbg").await;
    containers
        .iter()
        .filter(|container| container.labels["io.kubernetes.pod.name"] == pod.name)
        .count()
}
