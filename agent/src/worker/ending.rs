//! The end of a container: its last words, and for an ephemeral one the record that says how it ended, for ever.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use debuglet_proto::v1::{RemoveContainerRequest, StopContainerRequest};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};

use super::context::Context;
use super::launch::{disk_failed, record_created, start_once};
use super::step::Outcome;
use super::{files, garbage};
use crate::pod::container_config::log_path;
use crate::pod::identity::PodKey;
use crate::pod::log_names::{log_folder, log_link};
use crate::pod::observed::{ObservedContainer, ObservedPod};
use crate::pod::plan::ephemeral::EphemeralStep;
use crate::pod::plan::{
    RefusedEnd, containers_have_their_own_processes, may_have_ended_with_target, target_took_it_along,
};
use crate::pod::record::{CreatedContainer, Phase, Record};
use crate::pod::status;
use crate::pod::termination_message as message;
use crate::runtime::error::RuntimeError;
use crate::runtime::logs::{self, LogFile};
use crate::store::events::Severity;
use crate::store::progress::AdvanceError;

/// How long the end of a target is waited for that may have taken its debug container along.
const TARGET_SETTLES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(500),
];

/// Stops a container within `grace_seconds`.
pub(crate) async fn stop(context: &Context, id: &str, grace_seconds: i64) -> Outcome {
    let request = StopContainerRequest {
        container_id: id.to_owned(),
        timeout: stop_timeout(grace_seconds),
    };
    match context.runtime.runtime().stop_container(request).await {
        Ok(_) => Outcome::Done,
        Err(status) => Outcome::done_if_gone(
            &RuntimeError::new("stop container", id, &status),
            "ContainerStopping",
        ),
    }
}

/// The grace as the runtime is told it. It counts in nanoseconds, where a very long one would come out as none.
fn stop_timeout(grace_seconds: i64) -> i64 {
    grace_seconds.clamp(0, i64::from(i32::MAX))
}

/// Removes a container that does not run.
pub(crate) async fn remove(context: &Context, id: &str) -> Outcome {
    let request = RemoveContainerRequest {
        container_id: id.to_owned(),
    };
    match context.runtime.runtime().remove_container(request).await {
        Ok(_) => Outcome::Done,
        Err(status) => Outcome::done_if_gone(
            &RuntimeError::new("remove container", id, &status),
            "ContainerStopping",
        ),
    }
}

/// Removes an ended container of which another has taken the place, with its log.
#[expect(
    clippy::disallowed_methods,
    reason = "the pod's folder is root's alone; on a thread that may block"
)]
pub(crate) async fn remove_dead(context: &Context, pod: &Pod, name: &str, id: &str, attempt: u32) -> Outcome {
    if let Outcome::Failed(held) = remove(context, id).await {
        return Outcome::Failed(held);
    }
    let log = context
        .log_dir
        .join(log_folder(pod))
        .join(log_path(name, attempt));
    let pod_dir = context
        .store
        .pod_dir(pod.metadata.uid.as_deref().unwrap_or_default());
    // Its message is in no status any more; where the file stays, it goes with the pod.
    let _ = tokio::fs::remove_file(files::termination_log(&pod_dir, name, attempt)).await;
    let removed = garbage::remove_log(&context.log_dir, &log, log_link(pod, name, id)).await;
    if let Err(error) = removed {
        tracing::warn!("cannot remove the log {}: {error}", log.display());
    }
    Outcome::Done
}

/// Takes one of the steps of an ephemeral container that is not a launch. `observed` is what the plan saw; an end that the
/// disk refuses is in force in memory alone where `refused` says so.
pub(crate) async fn ephemeral(
    context: &Context,
    pod: &Pod,
    record: &Record,
    step: EphemeralStep,
    refused: RefusedEnd,
    observed: &ObservedPod,
    grace_seconds: i64,
) -> Outcome {
    let name = record.spec.name.as_str();
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let found = observed.of_record(record);
    let made = |container_id: String| CreatedContainer {
        container_id,
        sandbox_id: found.map(|found| found.sandbox_id.clone()).unwrap_or_default(),
        log_path: found
            .map(|found| PathBuf::from(&found.log_path))
            .filter(|path| !path.as_os_str().is_empty()),
    };
    match step {
        EphemeralStep::Nothing | EphemeralStep::Foreign | EphemeralStep::Launch => Outcome::Done,
        EphemeralStep::Start { container_id } => {
            match record_created(context, &uid, name, made(container_id)).await {
                Ok(Some(permit)) => start_once(context, pod, permit).await,
                // A stop was accepted since the plan was made.
                Ok(None) => Outcome::Done,
                Err(error) => disk_failed(&error),
            }
        }
        // It runs already: the right to start it is given up.
        EphemeralStep::Adopt { container_id } => written(
            record_created(context, &uid, name, made(container_id))
                .await
                .map(drop),
        ),
        EphemeralStep::Stop { container_id } => stop(context, &container_id, grace_seconds).await,
        EphemeralStep::Discard { container_id } => remove(context, &container_id).await,
        // What tells that it never ran goes only once the record that says so is on the disk.
        EphemeralStep::Remove { container_id } => match context.store.advance(&uid, name, |_| None).await {
            Ok(_) => remove(context, &container_id).await,
            Err(error) => disk_failed(&error),
        },
        EphemeralStep::End { .. } => {
            let Some(found) = found else { return Outcome::Done };
            let mut terminated = status::containers::terminated(found);
            let with_target = ended_with_target(context, pod, record, found, observed).await;
            if context.runtime.is_stopping() {
                // The runtime was not asked to the end: the next agent asks it, and writes what holds for ever.
                return Outcome::Done;
            }
            if let Some(why) = with_target {
                let said = terminated.message.take().unwrap_or_default();
                terminated.message = Some(message::joined(&why, &said));
            }
            end(context, &uid, name, terminated, refused).await
        }
        EphemeralStep::EndAs(terminated) => {
            let nothing_was_made = found.is_none() && record.created().is_none();
            let ended = end(context, &uid, name, terminated, refused).await;
            if nothing_was_made && matches!(ended, Outcome::Done) && context.store.is_asked_for(&uid, name) {
                let message = "It has ended before anything was made for it, and the API server still asks for it: \
                               a kubelet that comes back would start it";
                context.tell(pod, Some(name), Severity::Warning, "LeftToKubelet", message);
            }
            ended
        }
    }
}

/// Says so where the container was killed because its target ended. Both ends come at once, and the runtime may
/// show the target's a little later.
async fn ended_with_target(
    context: &Context,
    pod: &Pod,
    record: &Record,
    found: &ObservedContainer,
    observed: &ObservedPod,
) -> Option<String> {
    let key = PodKey::of(pod);
    let mut observed = observed.clone();
    for wait in TARGET_SETTLES {
        if !containers_have_their_own_processes(pod) || !may_have_ended_with_target(record, found) {
            return None;
        }
        if let Some(why) = target_took_it_along(record, found, &observed) {
            return Some(why);
        }
        tokio::time::sleep(wait).await;
        observed = context
            .runtime
            .observe_pod(&key, observed.foreign, &HashMap::new())
            .await
            .ok()?;
    }
    target_took_it_along(record, found, &observed)
}

/// Makes the record *ended* durable, with the container's final status; one that has ended keeps the status it has.
pub(super) async fn end(
    context: &Context,
    uid: &str,
    name: &str,
    terminated: ContainerStateTerminated,
    refused: RefusedEnd,
) -> Outcome {
    let ended = move |phase: &Phase| match phase {
        Phase::Ended { .. } => None,
        Phase::Accepted => Some(Phase::Ended {
            created: None,
            terminated,
        }),
        Phase::Created(created) => Some(Phase::Ended {
            created: Some(created.clone()),
            terminated,
        }),
        Phase::Stopping { created } => Some(Phase::Ended {
            created: created.clone(),
            terminated,
        }),
    };
    let store = Arc::clone(&context.store);
    written(match refused {
        RefusedEnd::Waits => store.advance(uid, name, ended).await.map(drop),
        RefusedEnd::StandsInMemory => store.end(uid, name, ended).await,
    })
}

fn written(advanced: Result<(), AdvanceError>) -> Outcome {
    match advanced {
        Ok(()) => Outcome::Done,
        Err(error) => disk_failed(&error),
    }
}

/// The message of a container that has ended: the runtime's words, and what the container left behind. Of the file that it
/// left it in only so much is kept as a message may have.
pub(crate) async fn last_words(
    context: &Context,
    pod: &Pod,
    container: &ObservedContainer,
    policy: &str,
) -> String {
    let pod_dir = context
        .store
        .pod_dir(pod.metadata.uid.as_deref().unwrap_or_default());
    let file = files::termination_log(&pod_dir, &container.name, container.attempt);
    let content = tokio::task::spawn_blocking(move || files::keep_end(&file, message::MAX_BYTES))
        .await
        .unwrap_or_default();
    let mut left = message::from_file(&content);
    if message::falls_back_to_log(policy, container.exit_code, &container.reason, content.is_empty()) {
        let log = LogFile::new(&context.log_dir, Path::new(&container.log_path));
        left = logs::termination_message(&log).await.unwrap_or_default();
    }
    let containers = pod.spec.as_ref().map_or(1, |spec| {
        spec.containers.len()
            + spec.init_containers.as_ref().map_or(0, Vec::len)
            + spec.ephemeral_containers.as_ref().map_or(0, Vec::len)
    });
    message::cut(&mut left, message::share(containers));
    message::joined(&container.message, &left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grace_of_ages_is_told_as_one_that_the_runtime_can_count() {
        let most = i64::from(i32::MAX);
        for (grace, told) in [(-1, 0), (0, 0), (30, 30), (most, most), (i64::MAX, most)] {
            assert_eq!(stop_timeout(grace), told, "{grace}");
        }
        let nanoseconds = stop_timeout(i64::MAX).checked_mul(1_000_000_000);
        assert!(nanoseconds.is_some());
    }
}
