//! A pod in one line, as `kubectl get pods` and `debuglet ps` show it: how many containers are ready, one word for its
//! state, restarts. The words are kubectl's own.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodSpec, PodStatus,
};

use super::age;
use super::status::RUN_BY_SOMEBODY_ELSE;

/// What stands for something that there is none of.
const NONE: &str = "<none>";

/// A pod in a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PodLine {
    /// Containers that are ready, sidecars included.
    ready: usize,
    /// Containers that there are, sidecars included.
    total: usize,
    /// Whether it is known which are ready: not so of a pod that somebody else runs.
    told: bool,
    /// The word: a phase, a reason, `Init:0/1`, `Terminating`, ...
    pub(crate) status: String,
    restarts: Restarts,
}

/// How often containers were started again, and when the last of their earlier lives ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Restarts {
    count: i32,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &ContainerStatus) {
        self.count = self.count.saturating_add(container.restart_count);
        let earlier = container.last_state.as_ref();
        let ended = earlier.and_then(|state| state.terminated.as_ref()?.finished_at.as_ref());
        self.last = self.last.max(ended.map(|time| time.0));
    }
}

impl PodLine {
    /// READY: `1/2`, or `?/2` where nobody tells.
    pub(crate) fn ready(&self) -> String {
        match self.told {
            true => format!("{}/{}", self.ready, self.total),
            false => format!("?/{}", self.total),
        }
    }

    /// RESTARTS: `0`, `3`, `3 (2m ago)`.
    pub(crate) fn restarts(&self, now: Timestamp) -> String {
        let Restarts { count, last } = self.restarts;
        match last {
            Some(last) if count != 0 => format!("{count} ({} ago)", age::since(Some(last), now)),
            _ => count.to_string(),
        }
    }
}

/// READY, STATUS and RESTARTS of a pod.
pub(crate) fn pod_line(pod: &Pod) -> PodLine {
    let (no_spec, no_status) = (PodSpec::default(), PodStatus::default());
    let spec = pod.spec.as_ref().unwrap_or(&no_spec);
    let status = pod.status.as_ref().unwrap_or(&no_status);
    let init_containers = spec.init_containers.as_deref().unwrap_or_default();
    let sidecars = init_containers
        .iter()
        .filter(|container| is_sidecar(container))
        .count();
    let mut line = PodLine {
        ready: 0,
        told: readiness_is_told(status),
        total: spec.containers.len() + sidecars,
        status: pod_word(status),
        restarts: Restarts::default(),
    };
    let initializing = read_init_containers(&mut line, init_containers, status);
    if !initializing || condition_is_true(status, "Initialized") {
        read_containers(&mut line, status);
    }
    if pod.metadata.deletion_timestamp.is_some() {
        match (status.reason.as_deref(), status.phase.as_deref()) {
            // The node does not answer any more: nobody knows whether the pod still runs.
            (Some("NodeLost"), _) => line.status = "Unknown".into(),
            (_, Some("Succeeded" | "Failed")) => {}
            _ => line.status = "Terminating".into(),
        }
    }
    line
}

/// IP: the pod's first address.
pub(crate) fn pod_ip(pod: &Pod) -> &str {
    let addresses = pod.status.as_ref().and_then(|status| status.pod_ips.as_ref());
    or_none(
        addresses
            .and_then(|addresses| addresses.first())
            .map(|first| &first.ip),
    )
}

/// NODE.
pub(crate) fn node_name(pod: &Pod) -> &str {
    or_none(pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()))
}

/// NOMINATED NODE.
pub(crate) fn nominated_node(pod: &Pod) -> &str {
    or_none(
        pod.status
            .as_ref()
            .and_then(|status| status.nominated_node_name.as_ref()),
    )
}

/// READINESS GATES: how many of them are open.
pub(crate) fn readiness_gates(pod: &Pod) -> String {
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_deref());
    let gates = gates.unwrap_or_default();
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let is_open = |kind: &str| {
        pod.status
            .as_ref()
            .is_some_and(|status| condition_is_true(status, kind))
    };
    let open = gates.iter().filter(|gate| is_open(&gate.condition_type)).count();
    format!("{open}/{}", gates.len())
}

fn or_none(value: Option<&String>) -> &str {
    value
        .map(String::as_str)
        .filter(|value| !value.is_empty())
        .unwrap_or(NONE)
}

/// The pod's own word, before its containers are looked at.
fn pod_word(status: &PodStatus) -> String {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let gated = conditions.iter().any(|condition| {
        condition.type_ == "PodScheduled" && condition.reason.as_deref() == Some("SchedulingGated")
    });
    if gated {
        return "SchedulingGated".to_owned();
    }
    let reason = status.reason.as_deref().filter(|reason| !reason.is_empty());
    let word = reason.or(status.phase.as_deref());
    word.unwrap_or("Unknown").to_owned()
}

/// Whether an init container is a sidecar: it keeps running beside the others (KEP-753).
fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Counts ready sidecars; says whether an init container stands in the way, and puts it in the status if so.
fn read_init_containers(line: &mut PodLine, specs: &[Container], status: &PodStatus) -> bool {
    let statuses = status.init_container_statuses.as_deref().unwrap_or_default();
    let (mut of_all, mut of_sidecars) = (Restarts::default(), Restarts::default());
    for (index, container) in statuses.iter().enumerate() {
        let sidecar = specs
            .iter()
            .any(|spec| spec.name == container.name && is_sidecar(spec));
        of_all.add(container);
        if sidecar {
            of_sidecars.add(container);
        }
        let state = State::of(container.state.as_ref());
        match state {
            State::Terminated(terminated) if terminated.exit_code == 0 => continue,
            _ if sidecar && container.started == Some(true) => {
                line.ready += usize::from(container.ready);
                continue;
            }
            State::Terminated(terminated) => line.status = format!("Init:{}", end_word(terminated)),
            State::Waiting(reason) if reason != "PodInitializing" => line.status = format!("Init:{reason}"),
            _ => line.status = format!("Init:{index}/{}", specs.len()),
        }
        // Once the pod was initialized, only what lives on counts: an init container that runs again does not.
        let initialized = condition_is_true(status, "Initialized");
        line.restarts = if initialized { of_sidecars } else { of_all };
        return true;
    }
    line.restarts = of_sidecars;
    false
}

/// Counts the ready containers; what one of them waits for or ended with is the pod's status.
fn read_containers(line: &mut PodLine, status: &PodStatus) {
    let statuses = status.container_statuses.as_deref().unwrap_or_default();
    let told = line.told;
    let mut running = false;
    let mut failed_with = None;
    // From the last to the first: the first one's trouble is what shows in the end.
    for container in statuses.iter().rev() {
        line.restarts.add(container);
        match State::of(container.state.as_ref()) {
            State::Waiting(reason) => line.status = reason.to_owned(),
            State::Terminated(terminated) => {
                line.status = end_word(terminated);
                if terminated.exit_code != 0 {
                    failed_with = Some(line.status.clone());
                }
            }
            State::Running if container.ready || !told => {
                running = true;
                line.ready += usize::from(container.ready);
            }
            State::Running | State::Unknown => {}
        }
    }
    if line.status == "Completed" {
        if running && (!told || condition_is_true(status, "Ready")) {
            line.status = "Running".into();
        } else if let Some(failed_with) = failed_with {
            line.status = failed_with;
        } else if running {
            line.status = "NotReady".into();
        }
    }
}

/// What a container does, as far as it has a word of its own.
enum State<'a> {
    /// Why it waits; never empty.
    Waiting(&'a str),
    Terminated(&'a ContainerStateTerminated),
    Running,
    Unknown,
}

impl State<'_> {
    fn of(state: Option<&ContainerState>) -> State<'_> {
        let Some(state) = state else {
            return State::Unknown;
        };
        let waiting = state
            .waiting
            .as_ref()
            .and_then(|waiting| waiting.reason.as_deref());
        match (waiting, &state.terminated, &state.running) {
            (Some(reason), _, _) if !reason.is_empty() => State::Waiting(reason),
            (_, Some(terminated), _) => State::Terminated(terminated),
            (_, _, Some(_)) => State::Running,
            _ => State::Unknown,
        }
    }
}

/// What a container ended with: its reason, else its signal, else its exit code.
fn end_word(terminated: &ContainerStateTerminated) -> String {
    let reason = terminated.reason.as_deref().unwrap_or_default();
    match (reason, terminated.signal.unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", terminated.exit_code),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn readiness_is_told(status: &PodStatus) -> bool {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    !conditions.iter().any(|condition| {
        condition.type_ == "Ready" && condition.reason.as_deref() == Some(RUN_BY_SOMEBODY_ELSE)
    })
}

/// Whether one of the pod's conditions holds.
fn condition_is_true(status: &PodStatus, kind: &str) -> bool {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    conditions
        .iter()
        .any(|condition| condition.type_ == kind && condition.status == "True")
}

#[cfg(test)]
mod tests;
