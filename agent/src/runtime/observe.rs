//! Everything of one pod that the runtime lists, in the words of the rules (`pod::observed`).

use std::collections::HashMap;

use debuglet_proto::v1::{
    Container, ContainerFilter, ContainerState as CriState, ContainerStatus, ContainerStatusRequest,
    ListContainersRequest, ListPodSandboxRequest, PodSandbox, PodSandboxFilter, PodSandboxState,
    PodSandboxStatus, PodSandboxStatusRequest,
};
use futures_util::future::join_all;
use tonic::Code;

use super::client::Runtime;
use super::error::RuntimeError;
use super::foreign::listed;
use crate::pod::identity::PodKey;
use crate::pod::labels;
use crate::pod::observed::{ContainerState, ObservedContainer, ObservedPod, ObservedSandbox};

/// The exit code of a container of which nobody can say how it ended (a kubelet's `ContainerStatusUnknown`).
const EXIT_CODE_UNKNOWN: i32 = 137;

impl Runtime {
    /// What the runtime shows of `pod`, which is ours or, with `foreign`, somebody else's. `known` are containers whose
    /// last look showed them exited: nothing of them changes any more, so they are not asked for again.
    pub(crate) async fn observe_pod(
        &self,
        pod: &PodKey,
        foreign: bool,
        known: &HashMap<String, ObservedContainer>,
    ) -> Result<ObservedPod, RuntimeError> {
        let (sandboxes, containers) = if foreign {
            self.list_foreign(pod).await?
        } else {
            self.list_labelled(&pod.uid).await?
        };
        let mut observed = ObservedPod {
            foreign,
            ..ObservedPod::default()
        };
        for sandbox in sandboxes {
            match self.observe_sandbox(&sandbox.id).await {
                Ok(status) => observed.sandboxes.extend(status),
                // One that is broken must not hide the others: what the list says of it will do.
                Err(error) if hides_one_object(&error) => {
                    observed.unread.insert(sandbox.id.clone(), error.to_string());
                    observed.sandboxes.push(listed_sandbox(&sandbox));
                }
                Err(error) => return Err(error),
            }
        }
        let mut unknown = Vec::new();
        for container in containers {
            match known.get(&container.id) {
                Some(exited) => observed.containers.push(exited.clone()),
                None => unknown.push(container),
            }
        }
        // One that the runtime is silent about must not keep the others waiting.
        let statuses = unknown.iter().map(|container| {
            let (id, sandbox_id) = (&container.id, &container.pod_sandbox_id);
            self.observe_container(id, sandbox_id)
        });
        for (container, status) in unknown.iter().zip(join_all(statuses).await) {
            match status {
                Ok(status) => observed.containers.extend(status),
                // One that is broken must not hide the others: what the list says of it will do.
                Err(error) if hides_one_object(&error) => {
                    observed.unread.insert(container.id.clone(), error.to_string());
                    observed.containers.push(listed_container(container, &error));
                }
                Err(error) => return Err(error),
            }
        }
        observed
            .sandboxes
            .sort_by_key(|sandbox| std::cmp::Reverse(sandbox.attempt));
        observed.containers.sort_by(|one, other| {
            (&one.name, other.attempt, other.created_at).cmp(&(&other.name, one.attempt, one.created_at))
        });
        Ok(observed)
    }

    /// The sandboxes and containers that carry the pod's UID as a label, as ours all do.
    async fn list_labelled(&self, uid: &str) -> Result<(Vec<PodSandbox>, Vec<Container>), RuntimeError> {
        let of_pod = HashMap::from([(labels::POD_UID.to_owned(), uid.to_owned())]);
        let filter = PodSandboxFilter {
            label_selector: of_pod.clone(),
            ..PodSandboxFilter::default()
        };
        let sandboxes = self
            .runtime()
            .list_pod_sandbox(ListPodSandboxRequest { filter: Some(filter) })
            .await
            .map_err(|status| RuntimeError::new("list the sandboxes of pod", uid, &status))?
            .into_inner()
            .items;
        let filter = ContainerFilter {
            label_selector: of_pod,
            ..ContainerFilter::default()
        };
        let containers = self
            .runtime()
            .list_containers(ListContainersRequest { filter: Some(filter) })
            .await
            .map_err(|status| RuntimeError::new("list the containers of pod", uid, &status))?
            .into_inner()
            .containers;
        Ok((sandboxes, containers))
    }

    /// The sandboxes whose metadata says that they are the pod's, and what is in them: others' need not be labelled.
    async fn list_foreign(&self, pod: &PodKey) -> Result<(Vec<PodSandbox>, Vec<Container>), RuntimeError> {
        let mut sandboxes = self.list_sandboxes().await?;
        sandboxes.retain(|sandbox| {
            !is_our_sandbox(&sandbox.labels, &sandbox.annotations) && listed(sandbox).is_of(pod)
        });
        let mut containers = Vec::new();
        for sandbox in &sandboxes {
            containers.extend(self.list_containers_in(&sandbox.id).await?);
        }
        Ok((sandboxes, containers))
    }

    /// The UID of the pod that a container says it belongs to; `None` if it is gone, or says nothing.
    pub(crate) async fn uid_of_container(&self, id: &str) -> Result<Option<String>, RuntimeError> {
        let request = ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: false,
        };
        match self.runtime().container_status(request).await {
            Ok(answer) => Ok(answer
                .into_inner()
                .status
                .and_then(|mut status| status.labels.remove(labels::POD_UID))),
            Err(status) => none_if_gone(RuntimeError::new("read the status of container", id, &status)),
        }
    }

    async fn observe_sandbox(&self, id: &str) -> Result<Option<ObservedSandbox>, RuntimeError> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: false,
        };
        match self.runtime().pod_sandbox_status(request).await {
            Ok(answer) => Ok(answer.into_inner().status.map(observed_sandbox)),
            Err(status) => none_if_gone(RuntimeError::new("read the status of sandbox", id, &status)),
        }
    }

    /// What the runtime shows of one container; `None` if it is gone.
    pub(crate) async fn observe_container(
        &self,
        id: &str,
        sandbox_id: &str,
    ) -> Result<Option<ObservedContainer>, RuntimeError> {
        let request = ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: false,
        };
        match self.runtime().container_status(request).await {
            Ok(answer) => Ok(answer
                .into_inner()
                .status
                .map(|status| observed_container(status, sandbox_id))),
            Err(status) => none_if_gone(RuntimeError::new("read the status of container", id, &status)),
        }
    }
}

/// What was listed a moment ago may be gone by now: then it is as if it had not been listed.
pub(super) fn none_if_gone<T>(error: RuntimeError) -> Result<Option<T>, RuntimeError> {
    if error.is_not_found() {
        Ok(None)
    } else {
        Err(error)
    }
}

/// Whether the runtime could not, or did not, tell of one object, though others of the pod may well be told of. containerd
/// answers `Unknown` where its own bookkeeping of the object is at fault.
pub(super) fn hides_one_object(error: &RuntimeError) -> bool {
    matches!(error.code, Code::Unknown | Code::DeadlineExceeded)
}

/// A container as the list shows it, where its status cannot be read. How one has ended stands only there.
pub(super) fn listed_container(container: &Container, error: &RuntimeError) -> ObservedContainer {
    let metadata = container.metadata.clone().unwrap_or_default();
    let state = state_of(container.state());
    let (exit_code, reason, message, finished_at) = match state {
        ContainerState::Exited => (
            EXIT_CODE_UNKNOWN,
            "ContainerStatusUnknown",
            error.to_string(),
            container.created_at,
        ),
        _ => (0, "", String::new(), 0),
    };
    let has_started = matches!(state, ContainerState::Running | ContainerState::Exited);
    ObservedContainer {
        id: container.id.clone(),
        name: metadata.name,
        attempt: metadata.attempt,
        sandbox_id: container.pod_sandbox_id.clone(),
        ours: is_ours(&container.labels),
        state,
        created_at: container.created_at,
        started_at: if has_started { container.created_at } else { 0 },
        finished_at,
        exit_code,
        reason: reason.to_owned(),
        message,
        image: container.image.clone().unwrap_or_default().image,
        image_id: container.image_ref.clone(),
        log_path: String::new(),
    }
}

fn state_of(state: CriState) -> ContainerState {
    match state {
        CriState::ContainerCreated => ContainerState::Created,
        CriState::ContainerRunning => ContainerState::Running,
        CriState::ContainerExited => ContainerState::Exited,
        CriState::ContainerUnknown => ContainerState::Unknown,
    }
}

fn listed_sandbox(sandbox: &PodSandbox) -> ObservedSandbox {
    ObservedSandbox {
        id: sandbox.id.clone(),
        attempt: sandbox.metadata.as_ref().map_or(0, |metadata| metadata.attempt),
        ours: is_our_sandbox(&sandbox.labels, &sandbox.annotations),
        ready: sandbox.state() == PodSandboxState::SandboxReady,
        created_at: sandbox.created_at,
        ips: Vec::new(),
        runtime_handler: sandbox.runtime_handler.clone(),
    }
}

/// Whether debuglet made a sandbox of these labels and annotations. A kubelet copies the pod's labels to it, and anyone
/// may write them; its own annotation is on all of its sandboxes, and on none of ours.
pub(crate) fn is_our_sandbox(
    of_object: &HashMap<String, String>,
    annotations: &HashMap<String, String>,
) -> bool {
    is_ours(of_object) && !annotations.contains_key(labels::CONFIG_SOURCE)
}

/// Whether debuglet made a container of these labels: nobody copies a pod's labels to its containers.
pub(crate) fn is_ours(of_object: &HashMap<String, String>) -> bool {
    of_object
        .get(labels::ORIGIN)
        .is_some_and(|origin| origin == labels::ORIGIN_DEBUGLET)
}

pub(super) fn observed_sandbox(status: PodSandboxStatus) -> ObservedSandbox {
    let ready = status.state() == PodSandboxState::SandboxReady;
    let network = status.network.unwrap_or_default();
    let addresses = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|ip| ip.ip));
    ObservedSandbox {
        id: status.id,
        attempt: status.metadata.unwrap_or_default().attempt,
        ours: is_our_sandbox(&status.labels, &status.annotations),
        ready,
        created_at: status.created_at,
        ips: addresses.filter(|ip| !ip.is_empty()).collect(),
        runtime_handler: status.runtime_handler,
    }
}

pub(super) fn observed_container(status: ContainerStatus, sandbox_id: &str) -> ObservedContainer {
    let state = state_of(status.state());
    let metadata = status.metadata.unwrap_or_default();
    ObservedContainer {
        id: status.id,
        name: metadata.name,
        attempt: metadata.attempt,
        sandbox_id: sandbox_id.to_owned(),
        ours: is_ours(&status.labels),
        state,
        created_at: status.created_at,
        started_at: status.started_at,
        finished_at: status.finished_at,
        exit_code: status.exit_code,
        reason: status.reason,
        message: status.message,
        image: status.image.unwrap_or_default().image,
        image_id: status.image_ref,
        log_path: status.log_path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubelets_sandbox_is_not_ours_whatever_labels_its_pod_has() {
        let of = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
            let pairs = pairs.iter();
            pairs
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        let ours = [("io.debuglet.origin", "debuglet")];
        for (labels, annotations, expected) in [
            (&ours[..], &[][..], true),
            (&ours[..], &[("note", "x")][..], true),
            (&ours[..], &[("kubernetes.io/config.source", "api")][..], false),
            (&ours[..], &[("kubernetes.io/config.source", "file")][..], false),
            (&[("io.debuglet.origin", "other")][..], &[][..], false),
            (&[][..], &[][..], false),
        ] {
            let (labels, annotations) = (of(labels), of(annotations));
            assert_eq!(
                is_our_sandbox(&labels, &annotations),
                expected,
                "{labels:?} {annotations:?}"
            );
            let listed = PodSandbox {
                labels: labels.clone(),
                annotations: annotations.clone(),
                ..PodSandbox::default()
            };
            let status = PodSandboxStatus {
                labels,
                annotations,
                ..PodSandboxStatus::default()
            };
            assert_eq!(
                (listed_sandbox(&listed).ours, observed_sandbox(status).ours),
                (expected, expected)
            );
        }
    }
}
