//! What to do next about one pod: from its spec, what the runtime shows of it, and the records of its
//! ephemeral containers. The worker does what the plan says and plans again.

pub(crate) mod ephemeral;
mod ordinary;
pub(crate) use removal::grace;

mod removal;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;

use super::crash_back_off::CrashBackOff;
use super::labels;
use super::observed::{ContainerState, Nanoseconds, ObservedContainer, ObservedPod, ObservedSandbox};
use super::record::{Phase, Record};
use super::status::Waiting;
use super::take_over;
use ephemeral::EphemeralStep;

/// The name under which the sandbox is held back and kept busy: no container can bear it.
pub(crate) const SANDBOX: &str = "";

/// The waiting reason of an ephemeral container whose target does not run (the kubelet's).
pub(crate) const TARGET_NOT_RUNNING: &str = "CreateContainerError";

/// A step that did not succeed, and when it may be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// What the container's status says meanwhile.
    pub(crate) waiting: Waiting,
    /// When the step may be tried again; `None`: only when something changes.
    pub(crate) retry_at: Option<Nanoseconds>,
    /// Whether trying again without a change cannot help.
    pub(crate) permanent: bool,
    /// Whether it was a launch: then it holds back launches only, never a stop, an end or a removal.
    pub(crate) of_launch: bool,
}

/// Everything a plan is made from.
#[derive(Debug)]
pub(crate) struct Situation<'a> {
    /// The pod's spec, without its ephemeral containers.
    pub(crate) pod: &'a Pod,
    /// Its ephemeral containers, in the order in which they were accepted.
    pub(crate) records: &'a [Record],
    /// What the runtime shows.
    pub(crate) observed: &'a ObservedPod,
    /// Whether the pod is to go, with the grace of its containers in seconds.
    pub(crate) removal: Option<i64>,
    /// Whether all of it is to end though the pod stays, with the grace of its containers in seconds.
    pub(crate) eviction: Option<i64>,
    /// Whether its volumes were taken away already, for either.
    pub(crate) volumes_gone: bool,
    /// Why no sandbox and no ordinary container of ours may be started now, if so.
    pub(crate) forbidden: Option<&'a str>,
    /// The pod as the API server knows it, if it does.
    pub(crate) kubernetes: Option<&'a Pod>,
    /// Whether the node's kubelet is surely down, and its work is done here meanwhile.
    pub(crate) kubelet_down: bool,
    /// The delays of containers that keep ending.
    pub(crate) crashes: &'a CrashBackOff,
    /// Steps that failed, by container name.
    pub(crate) held: &'a BTreeMap<String, Held>,
    /// The containers whose image is known to be there, by name.
    pub(crate) pulled: &'a BTreeSet<String>,
    /// The containers with a step under way, by name.
    pub(crate) busy: &'a BTreeSet<String>,
    /// Now.
    pub(crate) now: Nanoseconds,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Prepare the volumes and run a sandbox of this attempt.
    RunSandbox {
        /// `metadata.attempt`.
        attempt: u32,
        /// The dead sandbox that this one follows, whose delay grows.
        after: Option<Box<ObservedSandbox>>,
    },
    /// Stop a sandbox and whatever runs in it.
    StopSandbox {
        /// The runtime's id.
        id: String,
    },
    /// Remove a sandbox that is stopped and empty.
    RemoveSandbox {
        /// The runtime's id.
        id: String,
    },
    /// Remove a dead and empty sandbox that another one followed. Its failure holds back nothing else.
    RemoveDeadSandbox {
        /// The runtime's id.
        id: String,
    },
    /// Take away the volumes of a pod in which nothing runs any more: they may be what fills the disk.
    TearDownVolumes,
    /// Get the image of an init or ordinary container, create it and start it.
    Launch {
        /// The container's name.
        name: String,
        /// `metadata.attempt`, its restart count.
        attempt: u32,
        /// The ended container that this one follows, whose delay grows.
        after: Option<Box<ObservedContainer>>,
    },
    /// Stop a container.
    Stop {
        /// The container's name.
        name: String,
        /// The runtime's id.
        id: String,
        /// How long it may take to end by itself, in seconds.
        grace_seconds: i64,
    },
    /// Remove a container that does not run.
    Remove {
        /// The container's name.
        name: String,
        /// The runtime's id.
        id: String,
    },
    /// Remove an ended container that another one followed, with its log.
    RemoveDead {
        /// The container's name.
        name: String,
        /// The runtime's id.
        id: String,
        /// `metadata.attempt`.
        attempt: u32,
    },
    /// Get the image of an ephemeral container whose target does not run yet.
    PullEphemeral {
        /// The container's name.
        name: String,
    },
    /// Get the image of an ephemeral container, create it and start it.
    LaunchEphemeral {
        /// The container's name.
        name: String,
        /// The container whose PID namespace it joins.
        target_id: Option<String>,
    },
    /// Leave an ephemeral container to the kubelet, whose it is.
    HandBack {
        /// The container's name.
        name: String,
    },
    /// One of the other steps of an ephemeral container; never `Nothing`, `Foreign` or `Launch`.
    Ephemeral {
        /// The container's name.
        name: String,
        /// What to do.
        step: EphemeralStep,
        /// What holds where it is an end and the disk refuses it.
        refused: RefusedEnd,
    },
    /// Nothing of the pod is left in the runtime: clean up after it.
    Forget,
}

/// What holds where the disk refuses to take how an ephemeral container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusedEnd {
    /// The container has not ended as far as the record says, and the write is tried again.
    Waits,
    /// The end is in force in memory and is written later, so that the removal of its pod goes on and makes room.
    StandsInMemory,
}

/// What to do, what to say meanwhile, and when to look again.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// What to do now, side by side.
    pub(crate) actions: Vec<Action>,
    /// Why containers wait, by name.
    pub(crate) waiting: BTreeMap<String, Waiting>,
    /// The waits that no patience ends, by container name.
    pub(crate) permanent: BTreeSet<String>,
    /// When to plan again even if nothing happens.
    pub(crate) wake_at: Option<Nanoseconds>,
}

impl Plan {
    fn wait(&mut self, name: &str, reason: &str, message: impl Into<String>) {
        self.waiting.insert(
            name.to_owned(),
            Waiting {
                reason: reason.to_owned(),
                message: message.into(),
            },
        );
    }

    fn wake_by(&mut self, at: Nanoseconds) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Whether `name` is held back by an earlier failure; says so in its waiting reason if it is.
    fn held(&mut self, situation: &Situation<'_>, name: &str) -> bool {
        let Some(held) = situation.held.get(name) else {
            return false;
        };
        // A clock that was set back must not hold anything for long.
        let due = |at: Nanoseconds| at <= situation.now || at - situation.now > LONGEST_HOLD;
        if held.retry_at.is_some_and(due) {
            return false;
        }
        self.waiting.insert(name.to_owned(), held.waiting.clone());
        if held.permanent {
            self.permanent.insert(name.to_owned());
        }
        if let Some(at) = held.retry_at {
            self.wake_by(at);
        }
        true
    }

    /// Like [`Plan::held`], for steps that end something: the failure of a launch does not hold these back.
    fn held_at_the_end(&mut self, situation: &Situation<'_>, name: &str) -> bool {
        let of_launch = situation.held.get(name).is_some_and(|held| held.of_launch);
        !of_launch && self.held(situation, name)
    }
}

/// No step waits longer than this to be tried again, in nanoseconds.
const LONGEST_HOLD: Nanoseconds = 330_000_000_000;

/// Makes the plan of one pod.
pub(crate) fn plan(situation: &Situation<'_>) -> Plan {
    let mut plan = Plan::default();
    if situation.removal.is_some() {
        removal::plan(situation, &mut plan);
        return plan;
    }
    if let Some(grace_seconds) = situation.eviction {
        removal::evict(situation, grace_seconds, &mut plan);
        return plan;
    }
    if !situation.observed.foreign {
        ordinary::plan(situation, &mut plan);
    }
    for record in situation.records {
        plan_ephemeral(situation, record, &mut plan);
    }
    remove_dead(situation, &mut plan);
    plan
}

/// Of the ended containers of one name only the newest stays: its log is what `--previous` reads.
fn remove_dead(situation: &Situation<'_>, plan: &mut Plan) {
    let dead = |container: &&ObservedContainer| container.ours && container.state == ContainerState::Exited;
    for container in situation.observed.containers.iter().filter(dead) {
        let name = &container.name;
        let newer = |other: &ObservedContainer| other.name == *name && other.attempt > container.attempt;
        let ephemeral = situation.records.iter().any(|record| record.spec.name == *name);
        if !ephemeral
            && !situation.busy.contains(&container.id)
            && !plan.held(situation, &container.id)
            && situation.observed.containers.iter().filter(dead).any(newer)
        {
            let (name, id, attempt) = (name.clone(), container.id.clone(), container.attempt);
            plan.actions.push(Action::RemoveDead { name, id, attempt });
        }
    }
}

fn plan_ephemeral(situation: &Situation<'_>, record: &Record, plan: &mut Plan) {
    let name = &record.spec.name;
    if situation.busy.contains(name) {
        if let Some(held) = situation.held.get(name) {
            plan.waiting.insert(name.clone(), held.waiting.clone());
        }
        return;
    }
    let observed = situation.observed;
    let ready = observed.ready_sandbox().map(|sandbox| sandbox.id.as_str());
    let to_join = observed.sandbox_to_join().map(|sandbox| sandbox.id.as_str());
    let found = situation.observed.of_record(record);
    if take_over::goes_back(
        record,
        situation.observed,
        situation.kubernetes,
        situation.kubelet_down,
    ) {
        plan.actions.push(Action::HandBack { name: name.clone() });
        return;
    }
    match ephemeral::step(record, found, ready, situation.now) {
        EphemeralStep::Nothing => {}
        EphemeralStep::Foreign => {
            if matches!(record.phase, Phase::Accepted) {
                plan.wait(
                    name,
                    "CreateContainerError",
                    "a container of this name exists already, and debuglet did not make it",
                );
                plan.permanent.insert(name.clone());
            }
        }
        // A kubelet that comes back takes it for the entry's own container; without it, it would start one.
        EphemeralStep::Remove { .. } if take_over::asked_for(situation.kubernetes, name).is_some() => {}
        EphemeralStep::Launch => plan_launch(situation, record, to_join, plan),
        step => {
            let held = match step {
                EphemeralStep::End { .. }
                | EphemeralStep::EndAs(_)
                | EphemeralStep::Stop { .. }
                | EphemeralStep::Remove { .. } => plan.held_at_the_end(situation, name),
                _ => plan.held(situation, name),
            };
            if !held {
                plan.actions.push(Action::Ephemeral {
                    name: name.clone(),
                    step,
                    refused: RefusedEnd::Waits,
                });
            }
        }
    }
}

fn plan_launch(situation: &Situation<'_>, record: &Record, ready: Option<&str>, plan: &mut Plan) {
    let name = &record.spec.name;
    if plan.held(situation, name) {
        return;
    }
    if situation.busy.contains(SANDBOX) {
        // It may be on its way out: a container that is started into it would have used up its one start.
        plan.wait(name, "ContainerCreating", "");
        return;
    }
    if ready.is_none() {
        if situation.observed.ready_sandbox().is_some() {
            plan.wait(
                name,
                "ContainerCreating",
                "the pod has a new sandbox, which is being looked at",
            );
        } else if situation.observed.foreign {
            let message = "the pod has no sandbox that is ready; whoever runs it has to make one";
            plan.wait(name, "ContainerCreating", message);
        } else if ordinary::finished(situation) {
            plan.wait(
                name,
                "PodFinished",
                "all containers of the pod have ended for good, and its sandbox is stopped",
            );
            plan.permanent.insert(name.clone());
        } else {
            let why = ordinary::sandbox_is_paced(situation).map(|(_, why)| why);
            plan.wait(name, "ContainerCreating", why.unwrap_or_default());
        }
        return;
    }
    let was_made = |name: &str| {
        let mut made = situation.observed.containers.iter();
        made.any(|container| container.name == name && Some(container.sandbox_id.as_str()) == ready)
    };
    if let Some(copy) = record.copy_mounts.as_ref().filter(|copy| !was_made(&copy.from)) {
        let message = format!(
            "container {:?}, whose mounts are to be copied, has not been made yet",
            copy.from
        );
        plan.wait(name, TARGET_NOT_RUNNING, message);
        if !situation.pulled.contains(name) {
            plan.actions.push(Action::PullEphemeral { name: name.clone() });
        }
        return;
    }
    let wanted = record
        .spec
        .target_container_name
        .as_deref()
        .filter(|target| !target.is_empty());
    let Some(target) = wanted.filter(|_| containers_have_their_own_processes(situation.pod)) else {
        plan.actions.push(Action::LaunchEphemeral {
            name: name.clone(),
            target_id: None,
        });
        return;
    };
    match situation.observed.newest(target) {
        Some(container) if container.state == ContainerState::Running => {
            let target_id = Some(container.id.clone());
            plan.actions.push(Action::LaunchEphemeral {
                name: name.clone(),
                target_id,
            });
        }
        // The pull goes ahead meanwhile: it is what takes long once the target is there.
        found => {
            plan.wait(name, TARGET_NOT_RUNNING, target_message(situation, target, found));
            if !situation.pulled.contains(name) {
                plan.actions.push(Action::PullEphemeral { name: name.clone() });
            }
        }
    }
}

/// Whether each container of the pod has a PID namespace of its own (CRI's PID mode CONTAINER): only then does
/// a target mean anything.
pub(crate) fn containers_have_their_own_processes(pod: &Pod) -> bool {
    pod.spec
        .as_ref()
        .is_none_or(|spec| spec.host_pid != Some(true) && spec.share_process_namespace != Some(true))
}

/// Says where a target that does not run stands, and when it is to start again.
fn target_message(situation: &Situation<'_>, target: &str, found: Option<&ObservedContainer>) -> String {
    let state = match found {
        None => "it has not been started yet".to_owned(),
        Some(container) => match container.state {
            ContainerState::Exited => format!(
                "it ended at {} with exit code {} ({}, restart {})",
                time_of_day(container.finished_at),
                container.exit_code,
                if container.reason.is_empty() {
                    "Error"
                } else {
                    &container.reason
                },
                container.attempt
            ),
            _ => "it is about to start".to_owned(),
        },
    };
    let next = found
        .filter(|container| container.state == ContainerState::Exited)
        .map(|container| next_start(situation, container))
        .unwrap_or_default();
    format!("target container {target:?} does not run: {state}{next}")
}

/// Says when a container that has ended is started again, as far as it can be told.
fn next_start(situation: &Situation<'_>, container: &ObservedContainer) -> String {
    let foreign = situation.observed.foreign;
    if foreign && !a_kubelet_runs(situation.pod) {
        // That is for whoever runs the pod to know.
        return String::new();
    }
    if !ordinary::restarts(situation.pod, container) {
        return "; it is not started again".to_owned();
    }
    // When a kubelet's own delay ends is worked out from outside.
    let (until, about) = match foreign {
        true => (CrashBackOff::of_a_kubelet(container), "about "),
        false => (situation.crashes.until(container), ""),
    };
    match until.filter(|until| *until > situation.now) {
        Some(until) => format!("; it is to start again at {about}{}", time_of_day(until)),
        None => "; it is to start again now".to_owned(),
    }
}

/// Whether it is a kubelet that runs a pod which is not ours: its sandbox says so, or an API server knows it.
fn a_kubelet_runs(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    let known = pod
        .spec
        .as_ref()
        .is_some_and(|spec| spec.restart_policy.is_some());
    known || annotations.is_some_and(|annotations| annotations.contains_key(labels::CONFIG_SOURCE))
}

fn time_of_day(at: Nanoseconds) -> String {
    jiff::Timestamp::from_nanosecond(at.into()).map_or_else(
        |_| "an unknown time".to_owned(),
        |time| time.strftime("%H:%M:%S UTC").to_string(),
    )
}

/// The exit code of a process that was killed: what process 1 of a PID namespace does to the others when it ends.
const KILLED: i32 = 137;

/// Whether the container has a target and was killed, so that the target's end may be why.
pub(crate) fn may_have_ended_with_target(record: &Record, ended: &ObservedContainer) -> bool {
    ended.exit_code == KILLED
        && record
            .spec
            .target_container_name
            .as_deref()
            .is_some_and(|target| !target.is_empty())
}

/// Says so where an ephemeral container was killed because its target, process 1 of the PID namespace they
/// shared, ended.
pub(crate) fn target_took_it_along(
    record: &Record,
    ended: &ObservedContainer,
    observed: &ObservedPod,
) -> Option<String> {
    /// How far apart the two ends may be seen.
    const TOGETHER: Nanoseconds = 2_000_000_000;
    let target = record
        .spec
        .target_container_name
        .as_deref()
        .filter(|target| !target.is_empty())?;
    let went = observed.containers.iter().find(|container| {
        container.name == target
            && container.state == ContainerState::Exited
            && container.started_at <= ended.started_at
            && (container.finished_at - ended.finished_at).abs() < TOGETHER
    })?;
    (ended.exit_code == KILLED).then(|| {
        format!(
            "It shared the processes of its target {target:?}, and ended with it ({}, exit code {}).",
            if went.reason.is_empty() {
                "Error"
            } else {
                &went.reason
            },
            went.exit_code
        )
    })
}
