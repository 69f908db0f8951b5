//! A pod that somebody else runs: made over CRI, as crictl and kubelets do it, and debuglet is not asked.

use debuglet_proto::v1::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ImageSpec, LinuxContainerConfig,
    LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode,
    NamespaceOption, PodSandboxConfig, PodSandboxMetadata, PodSandboxStatusRequest, RemovePodSandboxRequest,
    RunPodSandboxRequest, StartContainerRequest, StopPodSandboxRequest,
};

use crate::cri::Cri;
use crate::images::BUSYBOX;
use crate::node::Node;

/// A sandbox in the namespace `shop`, and what to do with it.
#[derive(Clone, Debug)]
pub struct ForeignPod {
    cri: Cri,
    config: PodSandboxConfig,
    sandbox_id: String,
}

impl ForeignPod {
    /// How a sandbox is asked for: with a network of its own, a PID namespace for each container, and its logs in
    /// `NAME-logs` of the node's folder.
    pub fn config(node: &Node, name: &str, uid: &str) -> PodSandboxConfig {
        let metadata = PodSandboxMetadata {
            name: name.to_owned(),
            uid: uid.to_owned(),
            namespace: "shop".to_owned(),
            attempt: 0,
        };
        let security_context = LinuxSandboxSecurityContext {
            namespace_options: Some(own_processes()),
            ..Default::default()
        };
        PodSandboxConfig {
            metadata: Some(metadata),
            log_directory: node
                .folder()
                .join(format!("{name}-logs"))
                .to_string_lossy()
                .into_owned(),
            linux: Some(LinuxPodSandboxConfig {
                security_context: Some(security_context),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// Runs a sandbox without containers.
    pub async fn run(cri: &Cri, config: PodSandboxConfig) -> ForeignPod {
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
            ..Default::default()
        };
        let answer = cri.runtime().run_pod_sandbox(request).await.unwrap();
        ForeignPod {
            cri: cri.clone(),
            config,
            sandbox_id: answer.into_inner().pod_sandbox_id,
        }
    }

    /// The same with the container `main`, which sleeps.
    pub async fn run_sleeping(cri: &Cri, config: PodSandboxConfig) -> ForeignPod {
        let pod = Box::pin(ForeignPod::run(cri, config)).await;
        let id = Box::pin(pod.create("main", &["sleep", "86400"])).await;
        pod.start(id).await;
        pod
    }

    /// Creates a container of busybox, and answers its id.
    pub async fn create(&self, name: &str, command: &[&str]) -> String {
        let security_context = LinuxContainerSecurityContext {
            namespace_options: Some(own_processes()),
            ..Default::default()
        };
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata {
                name: name.to_owned(),
                // The runtime makes a container's name of the pod's and this: that of a sandbox before may still be there.
                attempt: self.config.metadata.as_ref().unwrap().attempt,
            }),
            image: Some(ImageSpec {
                image: BUSYBOX.to_owned(),
                ..Default::default()
            }),
            command: command.iter().map(ToString::to_string).collect(),
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig {
                security_context: Some(security_context),
                ..Default::default()
            }),
            ..Default::default()
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: self.sandbox_id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let answer = self.cri.runtime().create_container(request).await.unwrap();
        answer.into_inner().container_id
    }

    /// Starts a container.
    pub async fn start(&self, container_id: String) {
        let request = StartContainerRequest { container_id };
        self.cri.runtime().start_container(request).await.unwrap();
    }

    /// The address of its sandbox.
    pub async fn address(&self) -> String {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: self.sandbox_id.clone(),
            verbose: false,
        };
        let answer = self.cri.runtime().pod_sandbox_status(request).await.unwrap();
        answer.into_inner().status.unwrap().network.unwrap().ip
    }

    /// Stops the sandbox, and all that runs in it.
    pub async fn stop(&self) {
        let request = StopPodSandboxRequest {
            pod_sandbox_id: self.sandbox_id.clone(),
        };
        self.cri.runtime().stop_pod_sandbox(request).await.unwrap();
    }

    /// Removes the sandbox with all that is in it.
    pub async fn remove(&self) {
        let request = RemovePodSandboxRequest {
            pod_sandbox_id: self.sandbox_id.clone(),
        };
        self.cri.runtime().remove_pod_sandbox(request).await.unwrap();
    }
}

fn own_processes() -> NamespaceOption {
    NamespaceOption {
        pid: NamespaceMode::Container.into(),
        ..Default::default()
    }
}
