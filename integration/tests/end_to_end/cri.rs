//! The CRI client of `proto/` against both real runtimes.

use debuglet_proto::v1::{
    ContainerConfig, ContainerEventType, ContainerMetadata, ContainerStatusRequest, CreateContainerRequest,
    GetEventsRequest, ImageSpec, LinuxContainerConfig, LinuxPodSandboxConfig, ListPodSandboxRequest,
    PodSandboxConfig, PodSandboxMetadata, PodSandboxState, PodSandboxStatusRequest, RemovePodSandboxRequest,
    RunPodSandboxRequest, RuntimeConfigRequest, StartContainerRequest, StatusRequest, StopPodSandboxRequest,
    VersionRequest,
};
use integration::{BUSYBOX, ContainerdVersion, Node};

on_both_versions!(
    it_says_its_version_and_that_it_is_ready,
    a_sandbox_runs_a_container_and_goes,
    what_a_runtime_does_not_know_is_unimplemented,
);

async fn it_says_its_version_and_that_it_is_ready(version: ContainerdVersion) {
    let node = Node::start(version).await;

    let said = node
        .cri()
        .runtime()
        .version(VersionRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (said.runtime_name.as_str(), said.runtime_api_version.as_str()),
        ("containerd", "v1")
    );
    let expected = match version {
        ContainerdVersion::V1_6 => "1.6.",
        ContainerdVersion::V2_4 => "v2.4.",
    };
    let said_version = said.runtime_version;
    assert!(
        said_version.starts_with(expected) || said_version.starts_with(&expected[1..]),
        "{said_version}"
    );

    let status = node
        .cri()
        .runtime()
        .status(StatusRequest { verbose: true })
        .await
        .unwrap()
        .into_inner();
    let conditions = status.status.unwrap().conditions;
    for kind in ["RuntimeReady", "NetworkReady"] {
        assert!(
            conditions
                .iter()
                .any(|condition| condition.r#type == kind && condition.status),
            "{conditions:?}"
        );
    }
    assert!(status.info.contains_key("config"), "the verbose form");
}

async fn a_sandbox_runs_a_container_and_goes(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let mut runtime = node.cri().runtime();

    let config = sandbox("plain");
    let request = RunPodSandboxRequest {
        config: Some(config.clone()),
        ..Default::default()
    };
    let sandbox = runtime
        .run_pod_sandbox(request)
        .await
        .unwrap()
        .into_inner()
        .pod_sandbox_id;
    let status = PodSandboxStatusRequest {
        pod_sandbox_id: sandbox.clone(),
        verbose: true,
    };
    let status = runtime.pod_sandbox_status(status).await.unwrap().into_inner();
    assert!(
        status.info["info"].contains("\"config\""),
        "the whole configuration comes back"
    );
    let status = status.status.unwrap();
    assert_eq!(status.state, PodSandboxState::SandboxReady as i32);
    assert!(status.network.unwrap().ip.starts_with("10.99.0."));

    let container = ContainerConfig {
        metadata: Some(ContainerMetadata {
            name: "main".to_owned(),
            attempt: 0,
        }),
        image: Some(ImageSpec {
            image: BUSYBOX.to_owned(),
            ..Default::default()
        }),
        command: vec!["sleep".to_owned(), "600".to_owned()],
        linux: Some(LinuxContainerConfig::default()),
        ..Default::default()
    };
    let request = CreateContainerRequest {
        pod_sandbox_id: sandbox.clone(),
        config: Some(container),
        sandbox_config: Some(config),
    };
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
    let request = ContainerStatusRequest {
        container_id,
        verbose: true,
    };
    let status = runtime.container_status(request).await.unwrap().into_inner();
    assert!(status.info["info"].contains("runtimeSpec"));
    assert!(status.status.unwrap().started_at > 0);

    runtime
        .stop_pod_sandbox(StopPodSandboxRequest {
            pod_sandbox_id: sandbox.clone(),
        })
        .await
        .unwrap();
    runtime
        .remove_pod_sandbox(RemovePodSandboxRequest {
            pod_sandbox_id: sandbox,
        })
        .await
        .unwrap();
    let left = runtime
        .list_pod_sandbox(ListPodSandboxRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(left.items, Vec::new());
}

/// 1.6 knows neither RuntimeConfig nor GetContainerEvents; 2.4 knows both.
async fn what_a_runtime_does_not_know_is_unimplemented(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let mut runtime = node.cri().runtime();

    let driver = runtime.runtime_config(RuntimeConfigRequest::default()).await;
    let first_event = {
        let mut runtime = runtime.clone();
        tokio::spawn(async move {
            // 2.4 answers with the first event only.
            runtime
                .get_container_events(GetEventsRequest::default())
                .await?
                .into_inner()
                .message()
                .await
        })
    };

    match version {
        ContainerdVersion::V1_6 => {
            assert_eq!(driver.unwrap_err().code(), tonic::Code::Unimplemented);
            assert_eq!(
                first_event.await.unwrap().unwrap_err().code(),
                tonic::Code::Unimplemented
            );
        }
        ContainerdVersion::V2_4 => {
            assert!(driver.unwrap().into_inner().linux.is_some());
            let mut attempt = 0;
            while !first_event.is_finished() {
                let config = Some(sandbox(&format!("watched-{attempt}")));
                runtime
                    .run_pod_sandbox(RunPodSandboxRequest {
                        config,
                        ..Default::default()
                    })
                    .await
                    .unwrap();
                attempt += 1;
            }
            let event = first_event.await.unwrap().unwrap().unwrap();
            assert_eq!(
                event.container_event_type(),
                ContainerEventType::ContainerCreatedEvent
            );
        }
    }
}

fn sandbox(name: &str) -> PodSandboxConfig {
    let metadata = PodSandboxMetadata {
        name: name.to_owned(),
        uid: format!("uid-of-{name}"),
        namespace: "default".to_owned(),
        attempt: 0,
    };
    PodSandboxConfig {
        metadata: Some(metadata),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: "/kubepods/besteffort".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    }
}
