//! What to do next about one ephemeral container: the rules that keep "at most once" after any crash
//! (`agent/ARCHITECTURE.md`, "At most once").

use k8s_openapi::api::core::v1::ContainerStateTerminated;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::pod::observed::{ContainerState, Nanoseconds, ObservedContainer};
use crate::pod::record::{CreatedContainer, Phase, Record};

/// The exit code of a container whose own is not known (the kubelet's, for `ContainerStatusUnknown`).
const UNKNOWN_EXIT_CODE: i32 = 137;
/// The exit code that tells of a container that was stopped before it started: as if killed.
const STOPPED_EXIT_CODE: i32 = 137;

/// The next step of one ephemeral container.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum EphemeralStep {
    /// Nothing: it runs, or all is said and done.
    Nothing,
    /// Somebody else's container has the name: show it, never touch it.
    Foreign,
    /// Get the image, create the container in the ready sandbox, write *created*, start it.
    Launch,
    /// It exists and was surely not started: write *created* if that was not done, then start it.
    Start {
        /// The runtime's id.
        container_id: String,
        /// Whether *created* is still to be written.
        unrecorded: bool,
    },
    /// It runs or ran, and the disk does not know it: write *created*.
    Adopt {
        /// The runtime's id.
        container_id: String,
    },
    /// It was made in a sandbox that is dead, and surely not started: put the record back to *accepted* where
    /// it says more, then remove the container; the next plan launches it again.
    Discard {
        /// The runtime's id.
        container_id: String,
    },
    /// Stop it with the pod's grace.
    Stop {
        /// The runtime's id.
        container_id: String,
    },
    /// It has ended: read its last words, and write *ended* with its status.
    End {
        /// The runtime's id.
        container_id: String,
    },
    /// It is over though nothing can be read of it: write *ended* with this status.
    EndAs(ContainerStateTerminated),
    /// Over and on disk, but a container that never ran is left: remove it.
    Remove {
        /// The runtime's id.
        container_id: String,
    },
}

/// Decides the next step of `record`'s container.
///
/// `found` is the newest container of its name; `ready_sandbox` the pod's ready sandbox, if any;
/// `runtime_instance` names the running runtime, empty where that cannot be told.
pub(crate) fn step(
    record: &Record,
    found: Option<&ObservedContainer>,
    ready_sandbox: Option<&str>,
    runtime_instance: &str,
    now: Nanoseconds,
) -> EphemeralStep {
    if let Some(found) = found
        && !found.ours
    {
        return EphemeralStep::Foreign;
    }
    match &record.phase {
        Phase::Ended { .. } => after_the_end(found),
        Phase::Stopping { created } => finish_stop(created.as_ref(), found, now),
        Phase::Accepted => not_known_to_be_created(found, ready_sandbox),
        Phase::Created(created) => maybe_started(created, found, ready_sandbox, runtime_instance, now),
    }
}

fn after_the_end(found: Option<&ObservedContainer>) -> EphemeralStep {
    match found {
        Some(found) if found.state == ContainerState::Created => EphemeralStep::Remove {
            container_id: found.id.clone(),
        },
        // Ended is written only of a container that does not run; one that runs all the same is stopped.
        Some(found) if found.state == ContainerState::Running => EphemeralStep::Stop {
            container_id: found.id.clone(),
        },
        _ => EphemeralStep::Nothing,
    }
}

fn finish_stop(
    created: Option<&CreatedContainer>,
    found: Option<&ObservedContainer>,
    now: Nanoseconds,
) -> EphemeralStep {
    match (found.map(|found| (found.state, found)), created) {
        (Some((ContainerState::Running | ContainerState::Unknown, found)), _) => EphemeralStep::Stop {
            container_id: found.id.clone(),
        },
        (Some((ContainerState::Exited, found)), _) => EphemeralStep::End {
            container_id: found.id.clone(),
        },
        (Some((ContainerState::Created, _)), _) | (None, None) => EphemeralStep::EndAs(terminated(
            "Stopped",
            "It was stopped before it started.",
            STOPPED_EXIT_CODE,
            None,
            now,
        )),
        (None, Some(created)) => EphemeralStep::EndAs(lost(created, now)),
    }
}

fn not_known_to_be_created(found: Option<&ObservedContainer>, ready_sandbox: Option<&str>) -> EphemeralStep {
    let Some(found) = found else {
        return EphemeralStep::Launch;
    };
    let container_id = found.id.clone();
    match found.state {
        // StartContainer is called only once *created* is on disk: it was never started.
        ContainerState::Created if ready_sandbox == Some(found.sandbox_id.as_str()) => EphemeralStep::Start {
            container_id,
            unrecorded: true,
        },
        ContainerState::Created => EphemeralStep::Discard { container_id },
        ContainerState::Running | ContainerState::Unknown => EphemeralStep::Adopt { container_id },
        ContainerState::Exited => EphemeralStep::End { container_id },
    }
}

fn maybe_started(
    created: &CreatedContainer,
    found: Option<&ObservedContainer>,
    ready_sandbox: Option<&str>,
    runtime_instance: &str,
    now: Nanoseconds,
) -> EphemeralStep {
    let Some(found) = found else {
        return EphemeralStep::EndAs(lost(created, now));
    };
    let container_id = found.id.clone();
    match found.state {
        ContainerState::Running => EphemeralStep::Nothing,
        ContainerState::Exited => EphemeralStep::End { container_id },
        ContainerState::Unknown => EphemeralStep::Stop { container_id },
        // A runtime that was restarted shows a container whose process it lost as CREATED: it may have run.
        ContainerState::Created
            if runtime_instance.is_empty() || created.runtime_instance != runtime_instance =>
        {
            EphemeralStep::EndAs(lost(created, now))
        }
        ContainerState::Created if ready_sandbox == Some(found.sandbox_id.as_str()) => EphemeralStep::Start {
            container_id,
            unrecorded: false,
        },
        ContainerState::Created => EphemeralStep::Discard { container_id },
    }
}

/// The final status of a container that ran, or may have run, and of which nothing is left to read.
fn lost(created: &CreatedContainer, now: Nanoseconds) -> ContainerStateTerminated {
    let message =
        "The runtime no longer knows how it ended; it ran, or may have run, and is not started again.";
    terminated(
        "ContainerStatusUnknown",
        message,
        UNKNOWN_EXIT_CODE,
        Some(&created.container_id),
        now,
    )
}

/// The final status of an ephemeral container whose pod went away before it could start.
pub(crate) fn pod_removed(now: Nanoseconds) -> ContainerStateTerminated {
    terminated(
        "PodRemoved",
        "The pod was removed before it started.",
        STOPPED_EXIT_CODE,
        None,
        now,
    )
}

fn terminated(
    reason: &str,
    message: &str,
    exit_code: i32,
    container_id: Option<&str>,
    now: Nanoseconds,
) -> ContainerStateTerminated {
    ContainerStateTerminated {
        container_id: container_id
            .filter(|id| !id.is_empty())
            .map(|id| format!("containerd://{id}")),
        exit_code,
        finished_at: Timestamp::from_nanosecond(now.into()).ok().map(Time),
        message: Some(message.to_owned()),
        reason: Some(reason.to_owned()),
        ..ContainerStateTerminated::default()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::EphemeralContainer;

    use super::*;
    use crate::pod::record::Origin;

    const READY: &str = "ready-sandbox";
    const INSTANCE: &str = "instance-1";

    fn created() -> CreatedContainer {
        CreatedContainer {
            container_id: "c1".to_owned(),
            sandbox_id: READY.to_owned(),
            runtime_instance: INSTANCE.to_owned(),
            log_path: None,
        }
    }

    fn record(phase: Phase) -> Record {
        let spec = EphemeralContainer {
            name: "dbg".to_owned(),
            ..EphemeralContainer::default()
        };
        Record {
            spec,
            order: 0,
            origin: Origin::Api,
            copy_mounts: None,
            phase,
        }
    }

    fn ended() -> Phase {
        Phase::Ended {
            created: Some(created()),
            terminated: ContainerStateTerminated::default(),
        }
    }

    fn found(state: ContainerState, sandbox_id: &str, ours: bool) -> ObservedContainer {
        ObservedContainer {
            id: "c1".to_owned(),
            name: "dbg".to_owned(),
            attempt: 0,
            sandbox_id: sandbox_id.to_owned(),
            ours,
            state,
            created_at: 1,
            started_at: 0,
            finished_at: 0,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: String::new(),
            image_id: String::new(),
            log_path: String::new(),
        }
    }

    fn name(step: &EphemeralStep) -> &'static str {
        match step {
            EphemeralStep::Nothing => "nothing",
            EphemeralStep::Foreign => "foreign",
            EphemeralStep::Launch => "launch",
            EphemeralStep::Start { unrecorded: true, .. } => "record and start",
            EphemeralStep::Start {
                unrecorded: false, ..
            } => "start",
            EphemeralStep::Adopt { .. } => "adopt",
            EphemeralStep::Discard { .. } => "discard",
            EphemeralStep::Stop { .. } => "stop",
            EphemeralStep::End { .. } => "end",
            EphemeralStep::EndAs(terminated) => match terminated.reason.as_deref() {
                Some("ContainerStatusUnknown") => "end as unknown",
                Some("Stopped") => "end as stopped",
                other => panic!("a reason nobody expects: {other:?}"),
            },
            EphemeralStep::Remove { .. } => "remove",
        }
    }

    /// What the case is, the record's phase, the container that is found and its sandbox, the expected step.
    type Row = (
        &'static str,
        Phase,
        Option<(ContainerState, &'static str)>,
        &'static str,
    );

    /// Every record beside everything that the runtime can show: the whole of the at-most-once rules.
    #[test]
    fn after_a_crash_every_record_and_state_has_one_safe_step() {
        use ContainerState::{Created, Exited, Running, Unknown};
        let accepted = || Phase::Accepted;
        let made = || Phase::Created(created());
        let stopping_none = || Phase::Stopping { created: None };
        let stopping = || Phase::Stopping {
            created: Some(created()),
        };
        #[rustfmt::skip]
        let table: Vec<Row> = vec![
            ("accepted, nothing there",               accepted(), None,                      "launch"),
            ("accepted, made in the ready sandbox",   accepted(), Some((Created, READY)),    "record and start"),
            ("accepted, made in a dead sandbox",      accepted(), Some((Created, "dead")),   "discard"),
            ("accepted, runs",                        accepted(), Some((Running, READY)),    "adopt"),
            ("accepted, has ended",                   accepted(), Some((Exited, READY)),     "end"),
            ("accepted, unknown",                     accepted(), Some((Unknown, READY)),    "adopt"),
            ("created, nothing there",                made(),     None,                      "end as unknown"),
            ("created, not started",                  made(),     Some((Created, READY)),    "start"),
            ("created, not started, dead sandbox",    made(),     Some((Created, "dead")),   "discard"),
            ("created, runs",                         made(),     Some((Running, READY)),    "nothing"),
            ("created, has ended",                    made(),     Some((Exited, "dead")),    "end"),
            ("created, unknown",                      made(),     Some((Unknown, READY)),    "stop"),
            ("stopping, never made",                  stopping_none(), None,                 "end as stopped"),
            ("stopping, made and not recorded",       stopping_none(), Some((Created, READY)), "end as stopped"),
            ("stopping, not recorded, runs",          stopping_none(), Some((Running, READY)), "stop"),
            ("stopping, gone",                        stopping(), None,                      "end as unknown"),
            ("stopping, not started",                 stopping(), Some((Created, READY)),    "end as stopped"),
            ("stopping, runs",                        stopping(), Some((Running, READY)),    "stop"),
            ("stopping, has ended",                   stopping(), Some((Exited, READY)),     "end"),
            ("stopping, unknown",                     stopping(), Some((Unknown, READY)),    "stop"),
            ("ended, nothing there",                  ended(),    None,                      "nothing"),
            ("ended, a container that never ran",     ended(),    Some((Created, READY)),    "remove"),
            ("ended, has ended",                      ended(),    Some((Exited, READY)),     "nothing"),
            ("ended, runs",                           ended(),    Some((Running, READY)),    "stop"),
        ];
        for (case, phase, container, expected) in table {
            let container = container.map(|(state, sandbox)| found(state, sandbox, true));
            let step = step(&record(phase), container.as_ref(), Some(READY), INSTANCE, 7);
            assert_eq!(name(&step), expected, "{case}");
        }
    }

    #[test]
    fn a_created_container_under_another_run_of_the_runtime_may_have_run_and_is_ended_whatever_its_sandbox() {
        for sandbox in [READY, "dead"] {
            let container = found(ContainerState::Created, sandbox, true);
            for instance in ["instance-2", ""] {
                let step = step(
                    &record(Phase::Created(created())),
                    Some(&container),
                    Some(READY),
                    instance,
                    7,
                );
                assert_eq!(name(&step), "end as unknown", "{sandbox} {instance:?}");
            }
        }
    }

    #[test]
    fn somebody_elses_container_of_the_name_is_never_touched() {
        for phase in [
            Phase::Accepted,
            Phase::Created(created()),
            Phase::Stopping { created: None },
            ended(),
        ] {
            for state in [
                ContainerState::Created,
                ContainerState::Running,
                ContainerState::Exited,
            ] {
                let container = found(state, READY, false);
                let step = step(&record(phase.clone()), Some(&container), Some(READY), INSTANCE, 7);
                assert_eq!(name(&step), "foreign", "{phase:?} {state:?}");
            }
        }
    }

    #[test]
    fn without_a_ready_sandbox_a_new_container_is_not_discarded_from_nowhere() {
        let step = step(&record(Phase::Accepted), None, None, INSTANCE, 7);
        assert_eq!(
            name(&step),
            "launch",
            "the pod's plan holds it back until a sandbox is ready"
        );
    }
}
