//! The sandboxes that somebody else runs, with all that the runtime tells of them when it is asked verbosely.

use std::collections::HashMap;

use debuglet_proto::v1::{
    Container, ContainerConfig, ContainerFilter, ContainerStatusRequest, ContainerStatusResponse,
    ListContainersRequest, ListPodSandboxRequest, PodSandbox, PodSandboxConfig, PodSandboxState,
    PodSandboxStatusRequest, PodSandboxStatusResponse,
};
use futures_util::future::join_all;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::client::Runtime;
use super::error::RuntimeError;
use super::observe::{
    hides_one_object, is_ours, listed_container, none_if_gone, observed_container, observed_sandbox,
};
use crate::pod::discovered::identity::ListedSandbox;
use crate::pod::discovered::{ForeignContainer, ForeignSandbox};
use crate::pod::identity::PodKey;
use crate::pod::labels;

/// The entry of a verbose answer that holds all the runtime knows, as one JSON document.
const INFO: &str = "info";

/// What is read of that document.
#[derive(Deserialize)]
struct Info<T> {
    config: Option<T>,
}

impl Runtime {
    /// All sandboxes, as the runtime lists them.
    pub(crate) async fn list_sandboxes(&self) -> Result<Vec<PodSandbox>, RuntimeError> {
        let listed = self
            .runtime()
            .list_pod_sandbox(ListPodSandboxRequest::default())
            .await
            .map_err(|status| RuntimeError::new("list the sandboxes of", "all pods", &status))?;
        Ok(listed.into_inner().items)
    }

    /// All containers of all sandboxes, as the runtime lists them.
    pub(crate) async fn list_all_containers(&self) -> Result<Vec<Container>, RuntimeError> {
        let listed = self
            .runtime()
            .list_containers(ListContainersRequest::default())
            .await
            .map_err(|status| RuntimeError::new("list the containers of", "all pods", &status))?;
        Ok(listed.into_inner().containers)
    }

    /// The containers in one sandbox, as the runtime lists them.
    pub(super) async fn list_containers_in(&self, sandbox_id: &str) -> Result<Vec<Container>, RuntimeError> {
        let filter = ContainerFilter {
            pod_sandbox_id: sandbox_id.to_owned(),
            ..ContainerFilter::default()
        };
        let listed = self
            .runtime()
            .list_containers(ListContainersRequest { filter: Some(filter) })
            .await
            .map_err(|status| RuntimeError::new("list the containers of sandbox", sandbox_id, &status))?;
        Ok(listed.into_inner().containers)
    }

    /// One of them; `None` if it is gone.
    pub(crate) async fn foreign_sandbox(&self, id: &str) -> Result<Option<ForeignSandbox>, RuntimeError> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: true,
        };
        match self.runtime().pod_sandbox_status(request).await {
            Ok(answer) => Ok(foreign_sandbox(answer.into_inner())),
            Err(status) => none_if_gone(RuntimeError::new("read the status of sandbox", id, &status)),
        }
    }

    /// The containers in a sandbox that debuglet did not make, and why of one of them only what the list says is known, if
    /// that is so: it does not hide the others.
    pub(crate) async fn foreign_containers(
        &self,
        sandbox_id: &str,
    ) -> Result<(Vec<ForeignContainer>, Option<RuntimeError>), RuntimeError> {
        let mut listed = self.list_containers_in(sandbox_id).await?;
        listed.retain(|container| !is_ours(&container.labels));
        let statuses = listed.iter().map(async |container| {
            let request = ContainerStatusRequest {
                container_id: container.id.clone(),
                verbose: true,
            };
            self.runtime().container_status(request).await
        });
        let statuses = join_all(statuses).await;
        let (mut containers, mut unread) = (Vec::new(), None);
        for (container, status) in listed.into_iter().zip(statuses) {
            match status {
                Ok(answer) => containers.extend(foreign_container(answer.into_inner(), sandbox_id)),
                Err(status) => {
                    let error = RuntimeError::new("read the status of container", &container.id, &status);
                    if hides_one_object(&error) {
                        containers.push(ForeignContainer {
                            observed: listed_container(&container, &error),
                            annotations: container.annotations.into_iter().collect(),
                            mounts: Vec::new(),
                            config: None,
                        });
                        unread = Some(error);
                    } else {
                        none_if_gone::<()>(error)?;
                    }
                }
            }
        }
        Ok((containers, unread))
    }
}

/// What of a listed sandbox says which external pod it is of.
pub(crate) fn listed(sandbox: &PodSandbox) -> ListedSandbox {
    let metadata = sandbox.metadata.clone().unwrap_or_default();
    ListedSandbox {
        id: sandbox.id.clone(),
        said: PodKey {
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
        },
        attempt: metadata.attempt,
        created_at: sandbox.created_at,
        ready: sandbox.state() == PodSandboxState::SandboxReady,
        of_kubelet: sandbox.annotations.contains_key(labels::CONFIG_SOURCE),
    }
}

fn foreign_sandbox(answer: PodSandboxStatusResponse) -> Option<ForeignSandbox> {
    let status = answer.status?;
    let namespaces = status
        .linux
        .as_ref()
        .and_then(|linux| linux.namespaces.as_ref()?.options.clone())
        .unwrap_or_default();
    Some(ForeignSandbox {
        metadata: status.metadata.clone().unwrap_or_default(),
        labels: status.labels.clone().into_iter().collect(),
        annotations: status.annotations.clone().into_iter().collect(),
        namespaces,
        config: config::<PodSandboxConfig>(&answer.info),
        observed: observed_sandbox(status),
    })
}

fn foreign_container(answer: ContainerStatusResponse, sandbox_id: &str) -> Option<ForeignContainer> {
    let status = answer.status?;
    Some(ForeignContainer {
        annotations: status.annotations.clone().into_iter().collect(),
        mounts: status.mounts.clone(),
        config: config::<ContainerConfig>(&answer.info),
        observed: observed_container(status, sandbox_id),
    })
}

/// The configuration in a verbose answer; none where a runtime tells it in another form.
fn config<T: DeserializeOwned>(info: &HashMap<String, String>) -> Option<T> {
    serde_json::from_str::<Info<T>>(info.get(INFO)?).ok()?.config
}
