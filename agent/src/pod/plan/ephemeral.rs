//! What to do next about one ephemeral container: the rules that keep "at most once" after any crash
//! (`agent/ARCHITECTURE.md`, "At most once").

use k8s_openapi::api::core::v1::ContainerStateTerminated;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::pod::eviction;
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
    /// It exists, and StartContainer was not called for it, since there is no record *created*: write that, then start
    /// it.
    Start {
        /// The runtime's id.
        container_id: String,
    },
    /// It runs or ran, and the disk does not know it: write *created*.
    Adopt {
        /// The runtime's id.
        container_id: String,
    },
    /// It was made in a sandbox that is dead, and StartContainer was not called for it, since there is no record
    /// *created*: remove the container; the next plan launches it again.
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
    /// It is over and that is on disk, but a container that does not run is left in state CREATED: remove it.
    Remove {
        /// The runtime's id.
        container_id: String,
    },
}

/// Decides the next step of `record`'s container.
///
/// `found` is the newest container of its name; `ready_sandbox` the pod's ready sandbox, if any.
///
/// StartContainer is called at most once for a record: by the step that has just written *created*. Whoever finds
/// *created* beside a container in state CREATED cannot tell whether it ran. The runtime shows CREATED before the
/// call; after a call that it never received; after it was restarted and lost the process (containerd 1.6); and after
/// it killed a process that ran, because it could not write that down (containerd with a full disk).
pub(crate) fn step(
    record: &Record,
    found: Option<&ObservedContainer>,
    ready_sandbox: Option<&str>,
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
        Phase::Created(created) => maybe_started(created, found, now),
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
        (Some((ContainerState::Created, _)), Some(created)) => {
            EphemeralStep::EndAs(may_have_run(created, now))
        }
        (Some((ContainerState::Created, _)) | None, None) => EphemeralStep::EndAs(terminated(
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
        ContainerState::Created if ready_sandbox == Some(found.sandbox_id.as_str()) => {
            EphemeralStep::Start { container_id }
        }
        ContainerState::Created => EphemeralStep::Discard { container_id },
        ContainerState::Running | ContainerState::Unknown => EphemeralStep::Adopt { container_id },
        ContainerState::Exited => EphemeralStep::End { container_id },
    }
}

fn maybe_started(
    created: &CreatedContainer,
    found: Option<&ObservedContainer>,
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
        // Whatever its sandbox: a container that may have run is not made anew in another one either.
        ContainerState::Created => EphemeralStep::EndAs(may_have_run(created, now)),
    }
}

/// The final status of a container that ran, or may have run, and of which nothing is left to read.
fn lost(created: &CreatedContainer, now: Nanoseconds) -> ContainerStateTerminated {
    let message =
        "The runtime no longer knows how it ended; it ran, or may have run, and is not started again.";
    unknown(&created.container_id, message, now)
}

/// The final status of a container that is still CREATED although its record says that StartContainer was about to be
/// called.
fn may_have_run(created: &CreatedContainer, now: Nanoseconds) -> ContainerStateTerminated {
    let message = "StartContainer may have been called, and the runtime does not say whether the container ran; \
                   it is not started again.";
    unknown(&created.container_id, message, now)
}

/// The final status of a container that is still CREATED after the runtime answered `error` to StartContainer.
///
/// No error counts as proof that the container did not run, not even one that says that the runtime was not reached:
/// which of them the runtime, a proxy or the client made cannot be told for sure, and a second process is worse than a
/// debug container that somebody has to ask for again.
pub(crate) fn start_refused(container_id: &str, error: &str, now: Nanoseconds) -> ContainerStateTerminated {
    let message = format!(
        "The runtime answered an error to StartContainer and does not say whether the container ran; \
         it is not started again. The error: {error}"
    );
    unknown(container_id, &message, now)
}

fn unknown(container_id: &str, message: &str, now: Nanoseconds) -> ContainerStateTerminated {
    terminated(
        "ContainerStatusUnknown",
        message,
        UNKNOWN_EXIT_CODE,
        Some(container_id),
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

/// The final status of an ephemeral container whose pod was evicted before it could start.
pub(crate) fn pod_evicted(now: Nanoseconds) -> ContainerStateTerminated {
    let message = "The pod was evicted before it started.";
    terminated(eviction::REASON, message, STOPPED_EXIT_CODE, None, now)
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

    fn created() -> CreatedContainer {
        CreatedContainer {
            container_id: "c1".to_owned(),
            sandbox_id: READY.to_owned(),
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
            asked_by: None,
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
            EphemeralStep::Start { .. } => "record and start",
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
            ("created, shown as not started",         made(),     Some((Created, READY)),    "end as unknown"),
            ("the same in a dead sandbox",            made(),     Some((Created, "dead")),   "end as unknown"),
            ("created, runs",                         made(),     Some((Running, READY)),    "nothing"),
            ("created, has ended",                    made(),     Some((Exited, "dead")),    "end"),
            ("created, unknown",                      made(),     Some((Unknown, READY)),    "stop"),
            ("stopping, never made",                  stopping_none(), None,                 "end as stopped"),
            ("stopping, made and not recorded",       stopping_none(), Some((Created, READY)), "end as stopped"),
            ("the same in a dead sandbox",            stopping_none(), Some((Created, "dead")), "end as stopped"),
            ("stopping, not recorded, runs",          stopping_none(), Some((Running, READY)), "stop"),
            ("stopping, gone",                        stopping(), None,                      "end as unknown"),
            ("stopping, shown as not started",        stopping(), Some((Created, READY)),    "end as unknown"),
            ("the same in a dead sandbox",            stopping(), Some((Created, "dead")),   "end as unknown"),
            ("stopping, runs",                        stopping(), Some((Running, READY)),    "stop"),
            ("stopping, has ended",                   stopping(), Some((Exited, READY)),     "end"),
            ("stopping, unknown",                     stopping(), Some((Unknown, READY)),    "stop"),
            ("ended, nothing there",                  ended(),    None,                      "nothing"),
            ("ended, a container that is CREATED",    ended(),    Some((Created, READY)),    "remove"),
            ("ended, has ended",                      ended(),    Some((Exited, READY)),     "nothing"),
            ("ended, runs",                           ended(),    Some((Running, READY)),    "stop"),
        ];
        for (case, phase, container, expected) in table {
            let container = container.map(|(state, sandbox)| found(state, sandbox, true));
            let step = step(&record(phase), container.as_ref(), Some(READY), 7);
            assert_eq!(name(&step), expected, "{case}");
        }
    }

    /// Only *accepted* leads to a start, and a step that starts writes *created* first: so no record leads to two.
    #[test]
    fn once_a_record_says_created_no_state_of_the_container_leads_to_a_start() {
        use ContainerState::{Created, Exited, Running, Unknown};
        let containers = [None, Some(Created), Some(Running), Some(Exited), Some(Unknown)];
        let phases = [
            Phase::Created(created()),
            Phase::Stopping { created: None },
            Phase::Stopping {
                created: Some(created()),
            },
            ended(),
        ];
        for (phase, state) in phases
            .iter()
            .flat_map(|phase| containers.map(|state| (phase, state)))
        {
            for (sandbox, ready) in [(READY, Some(READY)), ("dead", Some(READY)), (READY, None)] {
                let container = state.map(|state| found(state, sandbox, true));
                let step = step(&record(phase.clone()), container.as_ref(), ready, 7);
                assert!(
                    !matches!(name(&step), "launch" | "record and start" | "discard"),
                    "{phase:?} {state:?} {sandbox}: {step:?}"
                );
            }
        }
    }

    #[test]
    fn whatever_error_answered_startcontainer_the_end_says_that_the_container_may_have_run() {
        for error in ["no space left on device", "transport error", "not found"] {
            let status = start_refused("c1", error, 7);
            assert_eq!(
                status.reason.as_deref(),
                Some("ContainerStatusUnknown"),
                "{error}"
            );
            assert_eq!(status.exit_code, UNKNOWN_EXIT_CODE, "{error}");
            assert_eq!(status.container_id.as_deref(), Some("containerd://c1"), "{error}");
            let message = status.message.unwrap_or_default();
            assert!(
                message.contains("does not say whether the container ran"),
                "{message}"
            );
            assert!(message.ends_with(error), "{message}");
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
                let step = step(&record(phase.clone()), Some(&container), Some(READY), 7);
                assert_eq!(name(&step), "foreign", "{phase:?} {state:?}");
            }
        }
    }

    #[test]
    fn without_a_ready_sandbox_a_new_container_is_not_discarded_from_nowhere() {
        let step = step(&record(Phase::Accepted), None, None, 7);
        assert_eq!(
            name(&step),
            "launch",
            "the pod's plan holds it back until a sandbox is ready"
        );
    }
}
