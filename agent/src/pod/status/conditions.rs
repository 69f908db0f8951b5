//! The conditions of a pod: the five that a kubelet writes, in its order.

use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodSpec, PodStatus};

use super::containers::is_sidecar;
use super::phase::Phase;
use super::{RUN_BY_SOMEBODY_ELSE, StatusContext, seconds};

/// Whether a condition holds, and if not, or not any more, why.
struct Finding {
    /// `True`, `False` or `Unknown`.
    status: &'static str,
    reason: &'static str,
    message: String,
}

impl Finding {
    fn holds() -> Finding {
        Finding::because(true, "", String::new())
    }

    fn because(holds: bool, reason: &'static str, message: String) -> Finding {
        Finding {
            status: if holds { "True" } else { "False" },
            reason,
            message,
        }
    }

    /// Of a pod that somebody else runs: its probes, and which of its containers are to end, are theirs to know.
    fn not_told() -> Finding {
        Finding {
            status: "Unknown",
            reason: RUN_BY_SOMEBODY_ELSE,
            message: "the runtime does not tell".to_owned(),
        }
    }
}

/// The pod's conditions. The time of a condition that holds as before stays. Of somebody else's pod those that follow from
/// readiness are what `told`, the API server's status of the pod as it is now, says of them.
pub(super) fn conditions(
    context: &StatusContext<'_>,
    spec: &PodSpec,
    phase: Phase,
    told: Option<&PodStatus>,
    init_containers: &[ContainerStatus],
    containers: &[ContainerStatus],
) -> Vec<PodCondition> {
    let has_network = context
        .observed
        .ready_sandbox()
        .is_some_and(|sandbox| spec.host_network == Some(true) || !sandbox.ips.is_empty());
    let scheduled = Finding::holds();
    let foreign = context.observed.foreign;
    let told = |name: &str| {
        let mut conditions = told?.conditions.as_ref()?.iter();
        conditions.find(|condition| condition.type_ == name).cloned()
    };
    let ours = |finding: Finding| if foreign { Finding::not_told() } else { finding };
    let [ready, containers_ready] = [(); 2].map(|()| ours(ready(spec, phase, init_containers, containers)));
    [
        (
            "PodReadyToStartContainers",
            Finding::because(has_network, "", String::new()),
        ),
        (
            "Initialized",
            ours(initialized(context, spec, phase, init_containers, containers)),
        ),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", scheduled),
    ]
    .map(|(name, finding)| match told(name) {
        Some(told) if finding.reason == RUN_BY_SOMEBODY_ELSE => told,
        _ => condition(context, name, finding),
    })
    .into()
}

/// Whether all init containers have done their work.
fn initialized(
    context: &StatusContext<'_>,
    spec: &PodSpec,
    phase: Phase,
    init_containers: &[ContainerStatus],
    containers: &[ContainerStatus],
) -> Finding {
    let incomplete: Vec<_> = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| {
            let status = init_containers
                .iter()
                .find(|status| status.name == container.name);
            !status.is_some_and(|status| match is_sidecar(container) {
                true => status.started == Some(true),
                false => status.ready,
            })
        })
        .map(|container| container.name.as_str())
        .collect();
    let was_initialized =
        previous(context, "Initialized").is_some_and(|condition| condition.status == "True");
    if phase == Phase::Succeeded {
        Finding::because(true, "PodCompleted", String::new())
    } else if incomplete.is_empty()
        || was_initialized
        || containers.iter().any(|status| status.container_id.is_some())
    {
        Finding::holds()
    } else {
        let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
        Finding::because(false, "ContainersNotInitialized", message)
    }
}

/// Whether all containers that should run do. There are no readiness gates here, so the pod is ready when its
/// containers are.
fn ready(
    spec: &PodSpec,
    phase: Phase,
    init_containers: &[ContainerStatus],
    containers: &[ContainerStatus],
) -> Finding {
    match phase {
        Phase::Succeeded => return Finding::because(false, "PodCompleted", String::new()),
        Phase::Failed => return Finding::because(false, "PodFailed", String::new()),
        Phase::Pending | Phase::Running => {}
    }
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| is_sidecar(container));
    let unready: Vec<_> = sidecars
        .chain(&spec.containers)
        .map(|container| container.name.as_str())
        .filter(|name| {
            let status = init_containers
                .iter()
                .chain(containers)
                .find(|status| status.name == *name);
            !status.is_some_and(|status| status.ready)
        })
        .collect();
    if unready.is_empty() {
        Finding::holds()
    } else {
        let message = format!("containers with unready status: [{}]", unready.join(" "));
        Finding::because(false, "ContainersNotReady", message)
    }
}

fn previous<'a>(context: &StatusContext<'a>, name: &str) -> Option<&'a PodCondition> {
    let mut conditions = context.previous?.conditions.as_ref()?.iter();
    conditions.find(|condition| condition.type_ == name)
}

fn condition(context: &StatusContext<'_>, name: &str, finding: Finding) -> PodCondition {
    let status = finding.status;
    let since = previous(context, name)
        .filter(|before| before.status == status)
        .and_then(|before| before.last_transition_time.clone());
    PodCondition {
        type_: name.to_owned(),
        status: status.to_owned(),
        reason: Some(finding.reason.to_owned()).filter(|reason| !reason.is_empty()),
        message: Some(finding.message).filter(|message| !message.is_empty()),
        last_transition_time: since.or_else(|| Some(seconds(context.now))),
        observed_generation: context.pod.metadata.generation,
        ..Default::default()
    }
}
