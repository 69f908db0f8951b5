//! The sandboxes and containers that debuglet made, as the runtime lists them all, and the end of one of them that no worker
//! looks after.

use std::collections::HashMap;

use debuglet_proto::v1::{
    Container, ContainerState as CriState, PodSandbox, PodSandboxState, RemoveContainerRequest,
    RemovePodSandboxRequest, StopContainerRequest, StopPodSandboxRequest,
};
use futures_util::future::try_join_all;

use super::client::Runtime;
use super::error::RuntimeError;
use super::observe::{is_our_sandbox, is_ours};
use crate::pod::identity::PodKey;
use crate::pod::labels;
use crate::pod::leftover::{Leftover, OwnContainer, OwnSandbox};
use crate::pod::observed::ContainerState;

/// The grace of a container that does not say (Kubernetes' default), in seconds.
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// Those of `listed` that debuglet made.
pub(crate) fn own_sandboxes(listed: &[PodSandbox]) -> Vec<OwnSandbox> {
    let ours = listed
        .iter()
        .filter(|sandbox| is_our_sandbox(&sandbox.labels, &sandbox.annotations));
    let own = ours.map(|sandbox| OwnSandbox {
        id: sandbox.id.clone(),
        pod: key(&sandbox.labels),
        ready: sandbox.state() == PodSandboxState::SandboxReady,
    });
    own.collect()
}

/// Those of `listed` that debuglet made.
pub(crate) fn own_containers(listed: &[Container]) -> Vec<OwnContainer> {
    let ours = listed.iter().filter(|container| is_ours(&container.labels));
    let own = ours.map(|container| OwnContainer {
        id: container.id.clone(),
        name: label(&container.labels, labels::CONTAINER_NAME),
        pod: key(&container.labels),
        sandbox_id: container.pod_sandbox_id.clone(),
        state: match container.state() {
            CriState::ContainerCreated => ContainerState::Created,
            CriState::ContainerRunning => ContainerState::Running,
            CriState::ContainerExited => ContainerState::Exited,
            CriState::ContainerUnknown => ContainerState::Unknown,
        },
        grace_seconds: container
            .annotations
            .get(labels::TERMINATION_GRACE_PERIOD)
            .and_then(|seconds| seconds.parse().ok())
            .unwrap_or(DEFAULT_GRACE_SECONDS)
            .clamp(0, i64::from(i32::MAX)),
    });
    own.collect()
}

/// Whose it is, as its labels say: debuglet puts them on all that it makes.
fn key(of_object: &HashMap<String, String>) -> PodKey {
    PodKey {
        namespace: label(of_object, labels::POD_NAMESPACE),
        name: label(of_object, labels::POD_NAME),
        uid: label(of_object, labels::POD_UID),
    }
}

fn label(of_object: &HashMap<String, String>, name: &str) -> String {
    of_object.get(name).cloned().unwrap_or_default()
}

impl Runtime {
    /// Stops what is left over, with the grace that its containers were made with, and removes it. What is gone already is
    /// no error.
    pub(crate) async fn end_leftover(&self, leftover: &Leftover) -> Result<(), RuntimeError> {
        match leftover {
            Leftover::Container(container) => {
                self.stop_own_container(container).await?;
                let request = RemoveContainerRequest {
                    container_id: container.id.clone(),
                };
                let removed = self.runtime().remove_container(request).await;
                gone(removed, "remove container", &container.id)
            }
            Leftover::Sandbox { sandbox, containers } => {
                try_join_all(
                    containers
                        .iter()
                        .map(|container| self.stop_own_container(container)),
                )
                .await?;
                let request = StopPodSandboxRequest {
                    pod_sandbox_id: sandbox.id.clone(),
                };
                let stopped = self.runtime().stop_pod_sandbox(request).await;
                gone(stopped, "stop sandbox", &sandbox.id)?;
                let request = RemovePodSandboxRequest {
                    pod_sandbox_id: sandbox.id.clone(),
                };
                let removed = self.runtime().remove_pod_sandbox(request).await;
                gone(removed, "remove sandbox", &sandbox.id)
            }
        }
    }

    async fn stop_own_container(&self, container: &OwnContainer) -> Result<(), RuntimeError> {
        let request = StopContainerRequest {
            container_id: container.id.clone(),
            timeout: container.grace_seconds,
        };
        let stopped = self.runtime().stop_container(request).await;
        gone(stopped, "stop container", &container.id)
    }
}

/// What a stop or a removal came to: what is gone is stopped, and removed.
fn gone<T>(
    answer: Result<tonic::Response<T>, tonic::Status>,
    step: &'static str,
    id: &str,
) -> Result<(), RuntimeError> {
    match answer.map_err(|status| RuntimeError::new(step, id, &status)) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
