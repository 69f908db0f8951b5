//! Launches and exits, side by side with the runtime alone, and the memory that pods cost.

use std::time::{Duration, Instant};

use debuglet_proto::v1::{
    ContainerConfig, ContainerMetadata, ContainerState, ContainerStatusRequest, CreateContainerRequest,
    ImageSpec, LinuxContainerConfig, LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxMetadata,
    RemoveContainerRequest, RunPodSandboxRequest, StartContainerRequest,
};
use integration::{
    Agent, BUSYBOX, Cri, Node, Watch, debug_container, ephemeral_status, is_running, sleeping_pod, state_of,
};
use serde_json::Value;

use crate::SAMPLES;
use crate::figures::{median, row, verdict};

/// How many pods the agent keeps while its memory is measured.
const PODS: usize = 30;

/// The agent's memory with many pods, before anything else was asked of it.
pub(crate) async fn memory(node: &Node, agent: &Agent) {
    for number in 1..PODS {
        let name = format!("pod-{number}");
        node.write_manifest(&format!("{name}.json"), &sleeping_pod(&name));
    }
    integration::eventually_within(Duration::from_secs(300), "all pods run", async || {
        let running = agent
            .api()
            .pods()
            .await
            .iter()
            .filter(|pod| is_running(pod))
            .count();
        if running == PODS { Ok(()) } else { Err(running) }
    })
    .await;
    // What the start needed is given back by then.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let megabytes = agent.resident_bytes() as f64 / 1e6;
    let what = format!("resident memory with {PODS} pods, MB");
    verdict(&what, megabytes, megabytes < 20.0, "20 MB");
}

/// Launches in turn with the same create and start without the agent.
pub(crate) async fn launches(node: &Node, agent: &Agent) {
    let bare = Bare::start(node).await;
    let (mut accepted, mut running, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..SAMPLES {
        alone.push(bare.create_and_start(number).await);
        let (answered, seen) = write_to_running(agent, number).await;
        accepted.push(answered);
        running.push(seen);
    }
    row("write to its 2xx (accepted, on disk)", &accepted);
    row("write to Running, seen in a watch", &running);
    row("create and start over bare CRI", &alone);
    let (running, alone) = (median(&running), median(&alone));
    let ratio = running.as_secs_f64() / alone.as_secs_f64();
    let bound = alone.mul_f64(1.3) + Duration::from_millis(10);
    verdict(
        "write to Running / bare CRI",
        ratio,
        running <= bound,
        "1.3 x + 10 ms",
    );
}

/// How long after its exit a container is reported.
pub(crate) async fn exits(node: &Node, agent: &Agent) {
    let mut lags = Vec::new();
    for number in 0..SAMPLES {
        lags.push(exit_to_reported(node, agent, number).await);
    }
    row("exit: CRI's EXITED to Terminated in a watch", &lags);
    let lag = median(&lags);
    verdict(
        "exit reported after, ms",
        lag.as_secs_f64() * 1000.0,
        lag <= Duration::from_millis(50),
        "50 ms",
    );
}

/// A sandbox of our own, in which the same container is made without the agent.
struct Bare {
    cri: Cri,
    sandbox: String,
    config: PodSandboxConfig,
}

impl Bare {
    async fn start(node: &Node) -> Bare {
        let cri = node.cri();
        let metadata = PodSandboxMetadata {
            name: "bare".to_owned(),
            uid: "bare".to_owned(),
            namespace: "bench".to_owned(),
            attempt: 0,
        };
        let config = PodSandboxConfig {
            metadata: Some(metadata),
            log_directory: node.folder().join("bare-logs").to_string_lossy().into_owned(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: "/kubepods/besteffort".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
            ..Default::default()
        };
        let sandbox = cri
            .runtime()
            .run_pod_sandbox(request)
            .await
            .unwrap()
            .into_inner()
            .pod_sandbox_id;
        Bare { cri, sandbox, config }
    }

    async fn create_and_start(&self, number: usize) -> Duration {
        let mut runtime = self.cri.runtime();
        let name = format!("bare-{number}");
        std::fs::create_dir_all(format!("{}/{name}", self.config.log_directory)).unwrap();
        let container = ContainerConfig {
            metadata: Some(ContainerMetadata {
                name: name.clone(),
                attempt: 0,
            }),
            image: Some(ImageSpec {
                image: BUSYBOX.to_owned(),
                ..Default::default()
            }),
            command: vec!["sleep".to_owned(), "600".to_owned()],
            log_path: format!("{name}/0.log"),
            linux: Some(LinuxContainerConfig::default()),
            ..Default::default()
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: self.sandbox.clone(),
            config: Some(container),
            sandbox_config: Some(self.config.clone()),
        };
        let started = Instant::now();
        let container_id = runtime
            .create_container(request)
            .await
            .unwrap()
            .into_inner()
            .container_id;
        runtime
            .start_container(StartContainerRequest {
                container_id: container_id.clone(),
            })
            .await
            .unwrap();
        let took = started.elapsed();
        runtime
            .remove_container(RemoveContainerRequest { container_id })
            .await
            .unwrap();
        took
    }
}

/// From the write to its answer, and from the write to `Running` in a watch.
async fn write_to_running(agent: &Agent, number: usize) -> (Duration, Duration) {
    let name = format!("run-{number}");
    let mut watch = watch(agent).await;
    let started = Instant::now();
    let answer = agent
        .api()
        .debug(
            "default",
            "measured",
            &[debug_container(&name, &["sleep", "600"])],
        )
        .await;
    let answered = started.elapsed();
    assert_eq!(answer.status, 200, "{answer:?}");
    until(&mut watch, |pod| state_of(pod, &name) == "running:").await;
    let seen = started.elapsed();
    assert_eq!(agent.api().stop("default", "measured", &name).await.status, 200);
    agent
        .api()
        .pod_until("default", "measured", |pod| {
            state_of(pod, &name).starts_with("terminated:")
        })
        .await;
    (answered, seen)
}

/// From CRI's first answer that says EXITED to `Terminated` in a watch; zero where the watch was first.
async fn exit_to_reported(node: &Node, agent: &Agent, number: usize) -> Duration {
    let name = format!("exit-{number}");
    let mut watch = watch(agent).await;
    agent
        .api()
        .debug(
            "default",
            "measured",
            &[debug_container(&name, &["sleep", "0.5"])],
        )
        .await;
    let pod = until(&mut watch, |pod| state_of(pod, &name) == "running:").await;
    let id = ephemeral_status(&pod, &name)["containerID"].as_str().unwrap();
    let container_id = id.trim_start_matches("containerd://").to_owned();
    let mut runtime = node.cri().runtime();
    let exited = tokio::spawn(async move {
        loop {
            let request = ContainerStatusRequest {
                container_id: container_id.clone(),
                verbose: false,
            };
            let status = runtime
                .container_status(request)
                .await
                .unwrap()
                .into_inner()
                .status
                .unwrap();
            if status.state() == ContainerState::ContainerExited {
                return Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    until(&mut watch, |pod| state_of(pod, &name).starts_with("terminated:")).await;
    let reported = Instant::now();
    reported.saturating_duration_since(exited.await.unwrap())
}

async fn watch(agent: &Agent) -> Watch {
    agent
        .api()
        .watch("/api/v1/namespaces/default/pods?watch=true&fieldSelector=metadata.name%3Dmeasured")
        .await
}

async fn until(watch: &mut Watch, told: impl Fn(&Value) -> bool) -> Value {
    loop {
        let mut event = watch.next().await.expect("the watch goes on");
        if told(&event["object"]) {
            return event["object"].take();
        }
    }
}
