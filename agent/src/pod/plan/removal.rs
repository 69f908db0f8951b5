//! A pod that is to go: stop its containers, write down how its ephemeral containers ended, then stop and
//! remove its sandboxes.

use k8s_openapi::api::core::v1::Pod;

use super::ephemeral::{self, EphemeralStep};
use super::{Action, Plan, SANDBOX, Situation};
use crate::pod::observed::{ContainerState, ObservedContainer, ObservedSandbox};
use crate::pod::record::Phase;
use crate::pod::take_over;

/// The grace of a pod whose manifest does not say (Kubernetes' default), in seconds.
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// How long a container of the pod may take to end by itself, in seconds (`terminationGracePeriodSeconds`).
pub(crate) fn grace(pod: &Pod) -> i64 {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.termination_grace_period_seconds)
        .unwrap_or(DEFAULT_GRACE_SECONDS)
}

pub(super) fn plan(situation: &Situation<'_>, plan: &mut Plan) {
    let grace_seconds = situation.removal.unwrap_or_else(|| grace(situation.pod));
    // A step that is under way ends first: what it makes must be seen before it can be removed.
    if !situation.busy.is_empty() {
        stop_containers(situation, grace_seconds, plan);
        return;
    }
    let stopping = stop_containers(situation, grace_seconds, plan);
    let ending = end_records(situation, plan);
    if stopping || ending || plan.held_at_the_end(situation, SANDBOX) {
        return;
    }
    // Whoever runs the pod ends its sandboxes.
    let ours = |sandbox: &&ObservedSandbox| sandbox.ours && !situation.observed.foreign;
    let mut sandboxes = situation.observed.sandboxes.iter().filter(ours);
    if let Some(sandbox) = sandboxes.clone().find(|sandbox| sandbox.ready) {
        plan.actions.push(Action::StopSandbox {
            id: sandbox.id.clone(),
        });
        return;
    }
    // Removing a sandbox removes its containers.
    if let Some(sandbox) = sandboxes.next() {
        plan.actions.push(Action::RemoveSandbox {
            id: sandbox.id.clone(),
        });
        return;
    }
    plan.actions.push(Action::Forget);
}

/// Stops what runs, side by side; true while anything of ours does. What others put into our sandbox ends
/// with the sandbox.
fn stop_containers(situation: &Situation<'_>, grace_seconds: i64, plan: &mut Plan) -> bool {
    let mut any = false;
    for container in &situation.observed.containers {
        if container.ours && matches!(container.state, ContainerState::Running | ContainerState::Unknown) {
            any = true;
            if !situation.busy.contains(&container.name) && !plan.held_at_the_end(situation, &container.name)
            {
                let (name, id) = (container.name.clone(), container.id.clone());
                plan.actions.push(Action::Stop {
                    name,
                    id,
                    grace_seconds,
                });
            }
        }
    }
    any
}

/// Writes down the end of every ephemeral container; true while one has none.
fn end_records(situation: &Situation<'_>, plan: &mut Plan) -> bool {
    let mut any = false;
    for record in situation.records {
        let name = &record.spec.name;
        if matches!(record.phase, Phase::Ended { .. }) {
            continue;
        }
        any = true;
        // Nothing was made for it here, and what becomes of it is for the cluster to say: the pod may be back.
        if take_over::goes_back(record, situation.observed, situation.kubernetes, false) {
            plan.actions.push(Action::HandBack { name: name.clone() });
            continue;
        }
        if plan.held_at_the_end(situation, name) {
            continue;
        }
        let found = situation.observed.of_record(record);
        let runs = |found: &ObservedContainer| {
            found.ours && matches!(found.state, ContainerState::Running | ContainerState::Unknown)
        };
        if found.is_some_and(runs) {
            // It is being stopped: how it ends is still to be seen.
            continue;
        }
        let step = match ephemeral::step(record, found, None, situation.now) {
            EphemeralStep::End { container_id } => EphemeralStep::End { container_id },
            EphemeralStep::EndAs(terminated) => EphemeralStep::EndAs(terminated),
            // It was never started, and will not be.
            _ => EphemeralStep::EndAs(ephemeral::pod_removed(situation.now)),
        };
        plan.actions.push(Action::Ephemeral {
            name: name.clone(),
            step,
        });
    }
    any
}
