//! What is said of each container of a pod.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, PodSpec, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::super::container_config::recursive_read_only;
use super::super::node::Node;
use super::super::observed::{self, Nanoseconds, ObservedContainer};
use super::{StatusContext, ephemeral_containers, seconds};

/// The exit code of a container of which nobody knows how it ended: that of a kill.
const LOST_EXIT_CODE: i32 = 137;

/// The three lists of containers that a pod has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ordinary,
    Init,
    Ephemeral,
}

/// The ordinary containers, by name.
pub(super) fn ordinary(context: &StatusContext<'_>, spec: &PodSpec) -> Vec<ContainerStatus> {
    let previous = context
        .previous
        .and_then(|status| status.container_statuses.as_deref());
    let mut statuses = statuses(context, spec, spec.containers.iter(), Kind::Ordinary, previous);
    statuses.sort_by(|one, other| one.name.cmp(&other.name));
    statuses
}

/// The init containers, in the order in which they run.
pub(super) fn init(context: &StatusContext<'_>, spec: &PodSpec) -> Vec<ContainerStatus> {
    let previous = context
        .previous
        .and_then(|status| status.init_container_statuses.as_deref());
    statuses(
        context,
        spec,
        spec.init_containers.iter().flatten(),
        Kind::Init,
        previous,
    )
}

/// The ephemeral containers, by name.
pub(super) fn ephemeral(context: &StatusContext<'_>, spec: &PodSpec) -> Vec<ContainerStatus> {
    let previous = context
        .previous
        .and_then(|status| status.ephemeral_container_statuses.as_deref());
    let containers: Vec<_> = ephemeral_containers(spec).collect();
    let mut statuses = statuses(context, spec, containers.iter(), Kind::Ephemeral, previous);
    statuses.sort_by(|one, other| one.name.cmp(&other.name));
    statuses
}

fn statuses<'a>(
    context: &StatusContext<'_>,
    spec: &PodSpec,
    containers: impl Iterator<Item = &'a Container>,
    kind: Kind,
    previous: Option<&[ContainerStatus]>,
) -> Vec<ContainerStatus> {
    containers
        .map(|container| {
            let previous = previous
                .unwrap_or_default()
                .iter()
                .find(|status| status.name == container.name);
            let (current, before) = newest_two(context, &container.name);
            let mut status = match kind {
                Kind::Ephemeral => ephemeral_status(context, spec, container, current, previous),
                _ => match current {
                    Some(current) => observed_status(context, spec, container, current, before, previous),
                    None => unobserved_status(context, spec, container, kind, previous),
                },
            };
            finish(&mut status, container, kind, context.node);
            status
        })
        .collect()
}

/// The newest container of this name, and the one before it.
fn newest_two<'a>(
    context: &StatusContext<'a>,
    name: &str,
) -> (Option<&'a ObservedContainer>, Option<&'a ObservedContainer>) {
    let current = context.observed.newest(name);
    let before = context
        .observed
        .containers
        .iter()
        .filter(|container| {
            container.name == name && Some(&container.id) != current.map(|current| &current.id)
        })
        .max_by_key(|container| (container.attempt, container.created_at));
    (current, before)
}

/// An ephemeral container runs at most once, so its first end is its last state.
fn ephemeral_status(
    context: &StatusContext<'_>,
    spec: &PodSpec,
    container: &Container,
    current: Option<&ObservedContainer>,
    previous: Option<&ContainerStatus>,
) -> ContainerStatus {
    let mut status = match (current, context.theirs.get(&container.name)) {
        (Some(current), _) => of_observed(container, current),
        (None, Some(told)) => return of_kubelet(told),
        (None, None) => of_spec(container),
    };
    let state = match (context.ended.get(&container.name), current) {
        (Some(ended), _) => {
            status.container_id.clone_from(&ended.container_id);
            if current.is_none() {
                // The runtime has forgotten it; its image was known while it had not.
                keep_image(&mut status, previous);
            }
            of_terminated(ended.clone())
        }
        (None, Some(current)) => match current.state {
            observed::ContainerState::Running => running(current),
            observed::ContainerState::Exited => of_terminated(terminated(current)),
            observed::ContainerState::Created | observed::ContainerState::Unknown => {
                waiting(context, spec, container)
            }
        },
        (None, None) => waiting(context, spec, container),
    };
    status.state = Some(state);
    status
}

/// What the API server says of a kubelet's ephemeral container that the runtime does not list: a kubelet removes what has
/// ended. One that ran is no more.
fn of_kubelet(told: &ContainerStatus) -> ContainerStatus {
    let mut status = told.clone();
    if state_of(Some(told)).is_some_and(|state| state.running.is_some()) {
        let lost = ContainerStateTerminated {
            container_id: told.container_id.clone(),
            ..lost(None)
        };
        status.state = Some(of_terminated(lost));
    }
    status
}

/// A container that the runtime lists.
fn observed_status(
    context: &StatusContext<'_>,
    spec: &PodSpec,
    container: &Container,
    current: &ObservedContainer,
    before: Option<&ObservedContainer>,
    previous: Option<&ContainerStatus>,
) -> ContainerStatus {
    let mut status = of_observed(container, current);
    status.restart_count =
        restarts(current.attempt).max(previous.map_or(0, |previous| previous.restart_count));
    let mut last = before
        .filter(|before| before.state == observed::ContainerState::Exited)
        .map(terminated)
        .or_else(|| last_of_previous(&status, previous));
    let was_running = state_of(previous).is_some_and(|state| state.running.is_some());
    let state = match current.state {
        observed::ContainerState::Running => running(current),
        observed::ContainerState::Created => waiting(context, spec, container),
        observed::ContainerState::Exited if context.waiting.contains_key(&container.name) => {
            last = Some(terminated(current));
            waiting(context, spec, container)
        }
        observed::ContainerState::Exited => of_terminated(terminated(current)),
        observed::ContainerState::Unknown if was_running => of_terminated(lost(Some(&current.id))),
        observed::ContainerState::Unknown => waiting(context, spec, container),
    };
    status.state = Some(state);
    status.last_state = Some(last.map(of_terminated).unwrap_or_default());
    status
}

/// A container that the runtime does not list: not made yet, or made and forgotten.
fn unobserved_status(
    context: &StatusContext<'_>,
    spec: &PodSpec,
    container: &Container,
    kind: Kind,
    previous: Option<&ContainerStatus>,
) -> ContainerStatus {
    let mut status = of_spec(container);
    let before = state_of(previous);
    let ended_before = before.and_then(|state| state.terminated.clone());
    let must_wait = context.waiting.contains_key(&container.name);
    if let Some(previous) = previous {
        if ended_before.is_some() && !must_wait {
            return previous.clone();
        }
        status.restart_count = previous.restart_count;
        status.last_state = Some(match ended_before {
            Some(ended) => of_terminated(ended),
            None => previous.last_state.clone().unwrap_or_default(),
        });
    }
    if kind == Kind::Init && !is_sidecar(container) && !must_wait && has_ordinary_container(context, spec) {
        // The pod came past it, so it had succeeded.
        status.state = Some(of_terminated(ContainerStateTerminated {
            reason: Some("Completed".to_owned()),
            message: Some("It is no longer listed, and the containers after it were started.".to_owned()),
            ..Default::default()
        }));
        return status;
    }
    if before.is_some_and(|state| state.running.is_some()) {
        // It ran and is gone: the pod does not go back to Pending for that, and one more start is due.
        status.restart_count += 1;
        status.last_state = Some(of_terminated(lost(None)));
    }
    status.state = Some(waiting(context, spec, container));
    status
}

/// What a container shows that the runtime does not list.
fn of_spec(container: &Container) -> ContainerStatus {
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        last_state: Some(ContainerState::default()),
        ..Default::default()
    }
}

/// What a container shows that the runtime lists.
fn of_observed(container: &Container, current: &ObservedContainer) -> ContainerStatus {
    let mut status = of_spec(container);
    if !current.image.is_empty() {
        status.image.clone_from(&current.image);
    }
    status.image_id.clone_from(&current.image_id);
    status.container_id = Some(full_id(&current.id));
    status
}

/// Takes over the image from the status before, if that was of the same container.
fn keep_image(status: &mut ContainerStatus, previous: Option<&ContainerStatus>) {
    if let Some(previous) = previous.filter(|previous| previous.container_id == status.container_id) {
        status.image.clone_from(&previous.image);
        status.image_id.clone_from(&previous.image_id);
    }
}

/// What follows from the state and from the spec alone.
fn finish(status: &mut ContainerStatus, container: &Container, kind: Kind, node: &Node) {
    let state = status.state.as_ref();
    let is_running = state.is_some_and(|state| state.running.is_some());
    let succeeded = state
        .and_then(|state| state.terminated.as_ref())
        .is_some_and(|terminated| terminated.exit_code == 0);
    (status.ready, status.started) = match kind {
        Kind::Ordinary => (is_running, Some(is_running)),
        Kind::Init if is_sidecar(container) => (is_running, Some(is_running)),
        Kind::Init => (succeeded, Some(is_running)),
        // No probe can ask for it, and no service sends anything there.
        Kind::Ephemeral => (false, None),
    };
    if status.container_id.is_some() {
        let resources = container.resources.clone().unwrap_or_default();
        status.allocated_resources.clone_from(&resources.requests);
        status.resources = Some(resources);
    }
    status.volume_mounts = container
        .volume_mounts
        .as_ref()
        .filter(|mounts| !mounts.is_empty())
        .map(|mounts| {
            mounts
                .iter()
                .map(|mount| {
                    let read_only = mount.read_only == Some(true);
                    let recursive = if recursive_read_only(mount, node) {
                        "Enabled"
                    } else {
                        "Disabled"
                    };
                    VolumeMountStatus {
                        name: mount.name.clone(),
                        mount_path: mount.mount_path.clone(),
                        read_only: read_only.then_some(true),
                        recursive_read_only: read_only.then(|| recursive.to_owned()),
                        volume_status: None,
                    }
                })
                .collect()
        });
}

/// Whether an init container goes on beside those after it.
pub(super) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn has_ordinary_container(context: &StatusContext<'_>, spec: &PodSpec) -> bool {
    spec.containers
        .iter()
        .any(|container| context.observed.newest(&container.name).is_some())
}

fn state_of(status: Option<&ContainerStatus>) -> Option<&ContainerState> {
    status.and_then(|status| status.state.as_ref())
}

/// How the container ended before, where only the status before this one knows it.
fn last_of_previous(
    status: &ContainerStatus,
    previous: Option<&ContainerStatus>,
) -> Option<ContainerStateTerminated> {
    let previous = previous?;
    let state = match previous.container_id == status.container_id {
        true => previous.last_state.as_ref()?,
        false => match previous.state.as_ref()? {
            state if state.terminated.is_some() => state,
            _ => previous.last_state.as_ref()?,
        },
    };
    state.terminated.clone()
}

fn running(container: &ObservedContainer) -> ContainerState {
    ContainerState {
        running: Some(ContainerStateRunning {
            started_at: Some(time(container.started_at)),
        }),
        ..Default::default()
    }
}

fn of_terminated(terminated: ContainerStateTerminated) -> ContainerState {
    ContainerState {
        terminated: Some(terminated),
        ..Default::default()
    }
}

/// What the container waits for; without anything better to say, for its turn.
fn waiting(context: &StatusContext<'_>, spec: &PodSpec, container: &Container) -> ContainerState {
    let waits = context.waiting.get(&container.name);
    let has_init_containers = spec
        .init_containers
        .as_ref()
        .is_some_and(|containers| !containers.is_empty());
    let its_turn = if has_init_containers {
        "PodInitializing"
    } else {
        "ContainerCreating"
    };
    let message = waits.map(|waits| waits.message.clone());
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(waits.map_or(its_turn, |waits| &waits.reason).to_owned()),
            message: message.filter(|message| !message.is_empty()),
        }),
        ..Default::default()
    }
}

/// How an exited container ended, as Kubernetes says it: also for the record of an ephemeral container.
pub(crate) fn terminated(container: &ObservedContainer) -> ContainerStateTerminated {
    let reason = match container.reason.as_str() {
        "" if container.exit_code == 0 => "Completed",
        "" => "Error",
        reason => reason,
    };
    ContainerStateTerminated {
        container_id: Some(full_id(&container.id)),
        exit_code: container.exit_code,
        finished_at: Some(time(container.finished_at)),
        message: Some(container.message.clone()).filter(|message| !message.is_empty()),
        reason: Some(reason.to_owned()),
        signal: None,
        started_at: Some(time(container.started_at)),
    }
}

/// What is said of a container that ran, or may have run, and of whose end nobody knows.
pub(crate) fn lost(id: Option<&str>) -> ContainerStateTerminated {
    ContainerStateTerminated {
        container_id: id.map(full_id),
        exit_code: LOST_EXIT_CODE,
        message: Some("The runtime no longer knows the container, so how it ended is not known.".to_owned()),
        reason: Some("ContainerStatusUnknown".to_owned()),
        ..Default::default()
    }
}

/// A container's id as Kubernetes writes it, with the runtime's name.
fn full_id(id: &str) -> String {
    format!("containerd://{id}")
}

/// The count of restarts is the attempt of the newest container.
fn restarts(attempt: u32) -> i32 {
    i32::try_from(attempt).unwrap_or(i32::MAX)
}

/// A moment of the runtime's. One that never came is the epoch, which a kubelet shows too.
fn time(nanoseconds: Nanoseconds) -> Time {
    seconds(Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or(Timestamp::UNIX_EPOCH))
}
