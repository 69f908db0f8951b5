//! A pod that is to go: stop its containers, write down how its ephemeral containers ended, then stop and
//! remove its sandboxes. One that is evicted ends in the same order, and stays. Where the disk refuses what is to be
//! written, the volumes go first: they may be what fills it. Where it refuses that still, what fills it may be a container's
//! own files or its log: then the ends stand in memory, and the sandbox goes.

use k8s_openapi::api::core::v1::Pod;

use super::ephemeral::{self, EphemeralStep};
use super::{Action, Plan, RefusedEnd, SANDBOX, Situation};
use crate::pod::observed::{ContainerState, ObservedContainer, ObservedSandbox};
use crate::pod::record::{Phase, Record};
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
    let Some(ending) = end_processes(situation, grace_seconds, plan) else {
        return;
    };
    if ending == Ending::Refused {
        // The sandbox and what ran in it stay until it is known how that ended: only they tell.
        tear_down_volumes(situation, plan);
        return;
    }
    // Removing a sandbox removes its containers.
    if let Some(sandbox) = our_sandboxes(situation).next() {
        plan.actions.push(Action::RemoveSandbox {
            id: sandbox.id.clone(),
        });
        return;
    }
    plan.actions.push(Action::Forget);
}

/// Ends all of a pod that stays: its containers and its sandbox show how it ended, and its volumes go.
pub(super) fn evict(situation: &Situation<'_>, grace_seconds: i64, plan: &mut Plan) {
    if end_processes(situation, grace_seconds, plan).is_some() {
        tear_down_volumes(situation, plan);
    }
}

/// Ends everything that runs; once nothing does, answers how far it is with the records.
fn end_processes(situation: &Situation<'_>, grace_seconds: i64, plan: &mut Plan) -> Option<Ending> {
    // A step that is under way ends first: what it makes must be seen before it can be removed.
    if !situation.busy.is_empty() {
        stop_containers(situation, grace_seconds, plan);
        return None;
    }
    let stopping = stop_containers(situation, grace_seconds, plan);
    let ending = end_records(situation, plan);
    if stopping || ending == Ending::UnderWay || plan.held_at_the_end(situation, SANDBOX) {
        return None;
    }
    if let Some(sandbox) = our_sandboxes(situation).find(|sandbox| sandbox.ready) {
        plan.actions.push(Action::StopSandbox {
            id: sandbox.id.clone(),
        });
        return None;
    }
    Some(ending)
}

/// The sandboxes that are ours to end: whoever runs the pod ends its own.
fn our_sandboxes<'a>(situation: &Situation<'a>) -> impl Iterator<Item = &'a ObservedSandbox> {
    let observed = situation.observed;
    let ours = move |sandbox: &&ObservedSandbox| sandbox.ours && !observed.foreign;
    observed.sandboxes.iter().filter(ours)
}

fn tear_down_volumes(situation: &Situation<'_>, plan: &mut Plan) {
    if !situation.volumes_gone && !situation.observed.foreign {
        plan.actions.push(Action::TearDownVolumes);
    }
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

/// How far it is with writing down how the ephemeral containers ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// All of it is written.
    Done,
    /// Something is about to be written, or can be seen only when a container has ended.
    UnderWay,
    /// The disk has refused what is left, which is tried again later.
    Refused,
}

/// Writes down the end of every ephemeral container.
fn end_records(situation: &Situation<'_>, plan: &mut Plan) -> Ending {
    let mut ending = Ending::Done;
    for record in situation.records {
        let name = &record.spec.name;
        if matches!(record.phase, Phase::Ended { .. }) {
            continue;
        }
        // Nothing was made for it here, and what becomes of it is for the cluster to say: the pod may be back.
        if take_over::goes_back(record, situation.observed, situation.kubernetes, false) {
            plan.actions.push(Action::HandBack { name: name.clone() });
            ending = Ending::UnderWay;
            continue;
        }
        if plan.held_at_the_end(situation, name) {
            if ending == Ending::Done {
                ending = Ending::Refused;
            }
            continue;
        }
        let found = situation.observed.of_record(record);
        let runs = |found: &ObservedContainer| {
            found.ours && matches!(found.state, ContainerState::Running | ContainerState::Unknown)
        };
        ending = Ending::UnderWay;
        if found.is_some_and(runs) {
            // It is being stopped: how it ends is still to be seen.
            continue;
        }
        let step = match ephemeral::step(record, found, None, situation.now) {
            EphemeralStep::End { container_id } => EphemeralStep::End { container_id },
            EphemeralStep::EndAs(terminated) => EphemeralStep::EndAs(terminated),
            // It was never started, and will not be.
            _ if situation.removal.is_none() => EphemeralStep::EndAs(ephemeral::pod_evicted(situation.now)),
            _ => EphemeralStep::EndAs(ephemeral::pod_removed(situation.now)),
        };
        plan.actions.push(Action::Ephemeral {
            name: name.clone(),
            step,
            refused: refused_end(situation, record, found),
        });
    }
    ending
}

/// Whether the pod waits for the disk to take this end. It does not where the pod goes for good and its volumes are gone
/// already. What comes of its containers then is in memory alone, and an agent that is restarted finds neither them nor how
/// they ended: so that it starts none of them again, *created* must be on the disk, or nothing must have been made.
fn refused_end(situation: &Situation<'_>, record: &Record, found: Option<&ObservedContainer>) -> RefusedEnd {
    let volumes_are_gone = situation.volumes_gone || situation.observed.foreign;
    let never_starts_again = record.created().is_some() || found.is_none();
    match situation.removal.is_some() && volumes_are_gone && never_starts_again {
        true => RefusedEnd::StandsInMemory,
        false => RefusedEnd::Waits,
    }
}
