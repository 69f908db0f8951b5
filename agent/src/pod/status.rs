//! A pod's `status`: what the runtime says of the pod, in Kubernetes' words.

mod conditions;
pub(crate) mod containers;
mod phase;
mod told;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerStateTerminated, ContainerStatus, HostIP, Pod, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::defaults::as_container;
use super::eviction::{self, Eviction};
use super::node::Node;
use super::observed::{ContainerState, ObservedPod};
use super::resources::qos_class;
use super::termination_message;

/// The reason of a condition that is `Unknown` because the runtime does not tell it of somebody else's pod.
pub(crate) const RUN_BY_SOMEBODY_ELSE: &str = "RunBySomebodyElse";

/// Why a container does not run yet, or not at the moment (`ContainerStateWaiting`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Kubernetes' word for it: `ErrImagePull`, `CrashLoopBackOff`, `CreateContainerConfigError`, ...
    pub(crate) reason: String,
    /// A sentence; empty if there is nothing to add.
    pub(crate) message: String,
}

/// What a pod's status follows from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StatusContext<'a> {
    /// The pod; its own `status` is not looked at.
    pub(crate) pod: &'a Pod,
    /// What the runtime has of it.
    pub(crate) observed: &'a ObservedPod,
    /// By name, the containers that cannot go on now, and why. A container whose process runs, and an ephemeral
    /// one that has ended, are not waiting for anything whatever is said here.
    pub(crate) waiting: &'a BTreeMap<String, Waiting>,
    /// By name, the last word on the ephemeral containers that are over.
    pub(crate) ended: &'a BTreeMap<String, ContainerStateTerminated>,
    /// Of somebody else's pod, the status that the API server shows of it, while that answers.
    pub(crate) known: Option<&'a PodStatus>,
    /// By name, what the API server last said of ephemeral containers that are a kubelet's.
    pub(crate) theirs: &'a BTreeMap<String, ContainerStatus>,
    /// The status before this one.
    pub(crate) previous: Option<&'a PodStatus>,
    /// The node it runs on.
    pub(crate) node: &'a Node,
    /// Why all of the pod has to end though it stays, if so.
    pub(crate) evicted: Option<&'a Eviction>,
    /// When the pod was first seen.
    pub(crate) start_time: Timestamp,
    /// The current time: when what is different from `previous` has changed.
    pub(crate) now: Timestamp,
}

/// The status of a pod.
pub(crate) fn pod_status(context: &StatusContext<'_>) -> PodStatus {
    let nothing = PodSpec::default();
    let spec = context.pod.spec.as_ref().unwrap_or(&nothing);
    let previous = context.previous;

    let mut containers = containers::ordinary(context, spec);
    let mut init_containers = containers::init(context, spec);
    let mut ephemeral_containers = containers::ephemeral(context, spec);
    let phase = phase::phase(spec, &init_containers, &containers);
    let told = context
        .observed
        .foreign
        .then(|| told::take_readiness(context.known, spec, &mut init_containers, &mut containers))
        .flatten();
    // What is over stays over, even once the runtime has forgotten the containers.
    let over = previous.filter(|previous| {
        matches!(previous.phase.as_deref(), Some("Succeeded" | "Failed")) && !phase.is_terminal()
    });
    // As with a kubelet, it has failed once nothing of it runs any more.
    let evicted = context.evicted.filter(|_| !anything_runs(context.observed));
    let phase = match over.and_then(|over| over.phase.as_deref()) {
        _ if evicted.is_some() => phase::Phase::Failed,
        Some("Failed") => phase::Phase::Failed,
        Some(_) => phase::Phase::Succeeded,
        None => phase,
    };
    let unchanged = previous.filter(|previous| previous.phase.as_deref() == Some(phase.name()));

    let conditions = conditions::conditions(context, spec, phase, told, &init_containers, &containers);
    let of_all_kinds = containers.len() + init_containers.len() + ephemeral_containers.len();
    for statuses in [&mut containers, &mut init_containers, &mut ephemeral_containers] {
        share_messages(statuses, of_all_kinds);
    }
    let host_ips = &context.node.ips;
    let pod_ips = pod_ips(context, spec);
    PodStatus {
        phase: Some(phase.name().to_owned()),
        reason: evicted
            .map(|_| eviction::REASON.to_owned())
            .or_else(|| unchanged.and_then(|previous| previous.reason.clone())),
        message: evicted
            .map(|evicted| evicted.message.clone())
            .or_else(|| unchanged.and_then(|previous| previous.message.clone())),
        conditions: Some(conditions),
        host_ip: host_ips.first().cloned(),
        host_ips: present(host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        pod_ip: pod_ips.first().cloned(),
        pod_ips: present(pod_ips.into_iter().map(|ip| PodIP { ip }).collect()),
        start_time: Some(seconds(context.start_time)),
        qos_class: qos(spec),
        container_statuses: present(containers),
        init_container_statuses: present(init_containers),
        ephemeral_container_statuses: present(ephemeral_containers),
        observed_generation: context.pod.metadata.generation,
        ..Default::default()
    }
}

fn anything_runs(observed: &ObservedPod) -> bool {
    let mut containers = observed.containers.iter();
    containers.any(|container| matches!(container.state, ContainerState::Running | ContainerState::Unknown))
}

/// The status of a pod that is not run at all: `reason` is one word, `message` a sentence that names the field.
pub(crate) fn refused(pod: &Pod, reason: &str, message: &str, start_time: Timestamp) -> PodStatus {
    PodStatus {
        phase: Some(phase::Phase::Failed.name().to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        qos_class: pod.spec.as_ref().and_then(qos),
        start_time: Some(seconds(start_time)),
        observed_generation: pod.metadata.generation,
        ..Default::default()
    }
}

/// The QoS class; none where the requests and limits cannot be read, which only a refused pod's can be.
fn qos(spec: &PodSpec) -> Option<String> {
    qos_class(spec).ok().map(|class| class.name().to_owned())
}

/// The pod's addresses: those of the ready sandbox, or the last known ones; the node's on its network.
fn pod_ips(context: &StatusContext<'_>, spec: &PodSpec) -> Vec<String> {
    let sandbox = context.observed.ready_sandbox();
    if spec.host_network == Some(true) {
        return context.node.ips.clone();
    }
    match sandbox {
        Some(sandbox) if !sandbox.ips.is_empty() => sandbox.ips.clone(),
        _ => context
            .previous
            .into_iter()
            .flat_map(|previous| previous.pod_ips.iter().flatten())
            .map(|pod_ip| pod_ip.ip.clone())
            .collect(),
    }
}

/// The ephemeral containers of a pod in the form of ordinary ones.
fn ephemeral_containers(spec: &PodSpec) -> impl Iterator<Item = Container> {
    spec.ephemeral_containers.iter().flatten().map(as_container)
}

/// Cuts termination messages so that together they stay within the pod's bound.
fn share_messages(statuses: &mut [ContainerStatus], containers: usize) {
    let bytes = termination_message::share(containers);
    for status in statuses {
        for state in [&mut status.state, &mut status.last_state].into_iter().flatten() {
            if let Some(message) = state
                .terminated
                .as_mut()
                .and_then(|terminated| terminated.message.as_mut())
            {
                termination_message::cut(message, bytes);
            }
        }
    }
}

/// A list that is left out when empty.
fn present<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// A moment in whole seconds, as Kubernetes writes it.
fn seconds(moment: Timestamp) -> Time {
    Time(Timestamp::from_second(moment.as_second()).unwrap_or(Timestamp::UNIX_EPOCH))
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value)] // `json!` literals read better without a `&`
mod tests;
