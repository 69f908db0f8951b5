//! The phase of a pod, which its init and ordinary containers decide; its ephemeral ones never do.

use k8s_openapi::api::core::v1::{Container, ContainerStatus, PodSpec};

use super::containers::is_sidecar;

/// `status.phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Something has not been started yet.
    Pending,
    /// Everything was started, and something runs or is to be restarted.
    Running,
    /// Everything has ended for good, and well.
    Succeeded,
    /// Everything has ended for good, and not all of it well.
    Failed,
}

impl Phase {
    /// The name on the wire.
    pub(super) fn name(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Running => "Running",
            Phase::Succeeded => "Succeeded",
            Phase::Failed => "Failed",
        }
    }

    /// Whether nothing of the pod will run any more.
    pub(super) fn is_terminal(self) -> bool {
        matches!(self, Phase::Succeeded | Phase::Failed)
    }
}

/// How far a container is, as far as the phase is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Never started.
    NotStarted,
    /// Its process runs.
    Running,
    /// It has ended with this exit code, and may be waiting to be restarted.
    Ended(i32),
}

fn progress(status: Option<&ContainerStatus>) -> Progress {
    let ended = |state: Option<&k8s_openapi::api::core::v1::ContainerState>| {
        let terminated = state.and_then(|state| state.terminated.as_ref());
        terminated.map(|terminated| Progress::Ended(terminated.exit_code))
    };
    let Some(status) = status else {
        return Progress::NotStarted;
    };
    let state = status.state.as_ref();
    if state.is_some_and(|state| state.running.is_some()) {
        return Progress::Running;
    }
    ended(state)
        .or_else(|| ended(status.last_state.as_ref()))
        .unwrap_or(Progress::NotStarted)
}

/// Whether a container that ended so is started again.
fn is_restarted(spec: &PodSpec, container: &Container, exit_code: i32) -> bool {
    let policy = container
        .restart_policy
        .as_deref()
        .or(spec.restart_policy.as_deref());
    match policy {
        Some("Never") => false,
        Some("OnFailure") => exit_code != 0,
        _ => true,
    }
}

/// The phase that follows from the containers' statuses.
pub(super) fn phase(
    spec: &PodSpec,
    init_containers: &[ContainerStatus],
    containers: &[ContainerStatus],
) -> Phase {
    let of = |statuses: &[ContainerStatus], container: &Container| {
        progress(statuses.iter().find(|status| status.name == container.name))
    };
    let ordinary: Vec<_> = spec
        .containers
        .iter()
        .map(|container| (container, of(containers, container)))
        .collect();
    let any_was_made = containers.iter().any(|status| status.container_id.is_some());

    let mut initializing = false;
    let mut sidecar_runs = false;
    for container in spec.init_containers.iter().flatten() {
        match of(init_containers, container) {
            Progress::Running if is_sidecar(container) => sidecar_runs = true,
            // A sidecar that has to start again takes nothing back from a pod that has come past it.
            Progress::NotStarted if is_sidecar(container) => initializing |= !any_was_made,
            Progress::Ended(_) if is_sidecar(container) => {}
            Progress::NotStarted | Progress::Running => initializing = true,
            Progress::Ended(0) => {}
            // It is run until it succeeds, unless nothing of the pod is ever restarted.
            Progress::Ended(exit_code) => {
                if !is_restarted(spec, container, exit_code) {
                    return Phase::Failed;
                }
                initializing = true;
            }
        }
    }

    if initializing
        || ordinary
            .iter()
            .any(|(_, progress)| *progress == Progress::NotStarted)
    {
        return Phase::Pending;
    }
    let goes_on = |(container, progress): &(&Container, Progress)| match progress {
        Progress::Running => true,
        Progress::Ended(exit_code) => is_restarted(spec, container, *exit_code),
        Progress::NotStarted => false,
    };
    if sidecar_runs || ordinary.iter().any(goes_on) {
        Phase::Running
    } else if ordinary.is_empty() {
        Phase::Pending
    } else if ordinary
        .iter()
        .all(|(_, progress)| *progress == Progress::Ended(0))
    {
        Phase::Succeeded
    } else {
        Phase::Failed
    }
}
