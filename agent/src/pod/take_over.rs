//! What may be done in the place of a kubelet that is down: which of the ephemeral containers that the API server asks
//! for were surely not launched, and when what was taken over goes back to the kubelet.

use k8s_openapi::api::core::v1::{ContainerStatus, EphemeralContainer, Pod};

use super::labels;
use super::observed::{ObservedContainer, ObservedPod};
use super::record::{Origin, Phase, Record};
use super::same_container::same;

/// Why an ephemeral container that the API server asks for is left to the kubelet though that is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotTaken {
    /// The API's status has a container id or an end for it.
    #[error("the API server's status says that it was started")]
    Reported,
    /// The runtime has a container of this name.
    #[error("the runtime has a container of its name")]
    Listed,
    /// There is a log of it.
    #[error("its log folder holds a log, so it may have run")]
    Logged,
}

/// Whether the pod, as the API server shows it, is one whose ephemeral containers may be started at all: it is no mirror
/// pod, and neither over nor on its way out.
pub(crate) fn may_be_debugged(known: &Pod) -> bool {
    let metadata = &known.metadata;
    let mirror = metadata
        .annotations
        .as_ref()
        .is_some_and(|annotations| annotations.contains_key(labels::CONFIG_MIRROR));
    let phase = known.status.as_ref().and_then(|status| status.phase.as_deref());
    !mirror && metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the API's status of the container `name` says that it was launched: it has a container id, or tells of a
/// process.
pub(crate) fn is_reported(known: &Pod, name: &str) -> bool {
    let statuses = known
        .status
        .as_ref()
        .and_then(|status| status.ephemeral_container_statuses.as_ref());
    let tells_of_one = |status: &ContainerStatus| {
        let ended_or_runs = |state: &k8s_openapi::api::core::v1::ContainerState| {
            state.running.is_some() || state.terminated.is_some()
        };
        status.container_id.as_ref().is_some_and(|id| !id.is_empty())
            || [&status.state, &status.last_state]
                .into_iter()
                .flatten()
                .any(ended_or_runs)
    };
    statuses
        .into_iter()
        .flatten()
        .any(|status| status.name == name && tells_of_one(status))
}

/// Judges the container `name` by all that tells of a launch before: the API's status, the runtime, and, `logged`, a log
/// in its log folder.
pub(crate) fn judge(known: &Pod, observed: &ObservedPod, logged: bool, name: &str) -> Result<(), NotTaken> {
    if is_reported(known, name) {
        return Err(NotTaken::Reported);
    }
    if observed.newest(name).is_some() {
        return Err(NotTaken::Listed);
    }
    if logged {
        return Err(NotTaken::Logged);
    }
    Ok(())
}

/// The entry `name` among the ephemeral containers that the API server asks for in the pod, as it is `known` there.
pub(crate) fn asked_for<'a>(known: Option<&'a Pod>, name: &str) -> Option<&'a EphemeralContainer> {
    let asked_for = known?.spec.as_ref()?.ephemeral_containers.as_ref()?;
    asked_for.iter().find(|container| container.name == name)
}

/// Whether a container of which nothing was made yet is to be left to the kubelet.
///
/// One that was taken over is, when the kubelet is not surely down any more, or when the API server asks for it no more. So
/// is one that was asked for here, when it turns out that the API server asks for the same: the kubelet starts that too, or
/// has done so, and what can be taken over of it is judged anew.
pub(crate) fn is_the_kubelets(record: &Record, known: Option<&Pod>, kubelet_down: bool) -> bool {
    let asked_for = asked_for(known, &record.spec.name);
    match record.origin {
        Origin::KubeApiserver => !kubelet_down || asked_for.is_none() || !known.is_some_and(may_be_debugged),
        Origin::Api => asked_for.is_some_and(|asked_for| same(asked_for, &record.spec)),
        Origin::Manifest => false,
    }
}

/// Whether a record is dropped and its container left to the kubelet: nothing of ours was made for it yet, and it is the
/// kubelet's, or the kubelet has made its own in the meantime.
pub(crate) fn goes_back(
    record: &Record,
    observed: &ObservedPod,
    known: Option<&Pod>,
    kubelet_down: bool,
) -> bool {
    let of_name = |container: &&ObservedContainer| container.name == record.spec.name;
    let mut found = observed.containers.iter().filter(of_name).peekable();
    let is_made = record.origin == Origin::KubeApiserver && found.peek().is_some();
    record.phase == Phase::Accepted
        && found.all(|found| !found.ours)
        && (is_made || is_the_kubelets(record, known, kubelet_down))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::defaults;
    use crate::pod::observed::ContainerState;
    use crate::pod::record::CreatedContainer;
    use crate::pod::same_container::table;

    fn pod(value: serde_json::Value) -> Pod {
        serde_json::from_value(value).expect("a pod")
    }

    fn container(ours: bool) -> ObservedContainer {
        ObservedContainer {
            id: "c1".to_owned(),
            name: "debugger".to_owned(),
            attempt: 0,
            sandbox_id: "s1".to_owned(),
            ours,
            state: ContainerState::Exited,
            created_at: 1,
            started_at: 1,
            finished_at: 2,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: String::new(),
            image_id: String::new(),
            log_path: String::new(),
        }
    }

    #[test]
    fn what_may_have_been_launched_before_is_not_taken_over() {
        let status = |status: serde_json::Value| {
            let mut status = status;
            status["name"] = json!("debugger");
            pod(json!({"status": {"ephemeralContainerStatuses": [status]}}))
        };
        let nothing = || pod(json!({}));
        let id = json!({"containerID": "containerd://c1"});
        let waiting = json!({"state": {"waiting": {"reason": "ErrImagePull"}}, "containerID": ""});
        let ended = json!({"state": {"terminated": {"exitCode": 0}}});
        let ended_before = json!({"lastState": {"terminated": {"exitCode": 0}}});
        let other = pod(json!({"status": {"ephemeralContainerStatuses": [
            {"name": "other", "containerID": "containerd://c1"}]}}));
        #[rustfmt::skip]
        let table = [
            ("nothing tells of it",           nothing(),            None,        false, Ok(())),
            ("it waits",                      status(waiting),      None,        false, Ok(())),
            ("another one ran",               other,                None,        false, Ok(())),
            ("it has an id",                  status(id),           None,        false, Err(NotTaken::Reported)),
            ("it has ended",                  status(ended),        None,        false, Err(NotTaken::Reported)),
            ("it had ended before",           status(ended_before), None,        false, Err(NotTaken::Reported)),
            ("the kubelet's is there",        nothing(),            Some(false), false, Err(NotTaken::Listed)),
            ("one of ours is there",          nothing(),            Some(true),  false, Err(NotTaken::Listed)),
            ("only a log is left",            nothing(),            None,        true,  Err(NotTaken::Logged)),
        ];
        for (case, known, found, logged, expected) in table {
            let observed = ObservedPod {
                containers: found.map(container).into_iter().collect(),
                ..ObservedPod::default()
            };
            assert_eq!(judge(&known, &observed, logged, "debugger"), expected, "{case}");
        }
    }

    #[test]
    fn only_pods_that_are_to_run_and_are_the_api_servers_own_are_debugged_for_the_kubelet() {
        let mirror = json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "h1"}}});
        let leaving = json!({"metadata": {"deletionTimestamp": "2026-11-21T03:12:40Z"}});
        #[rustfmt::skip]
        let table = [
            (json!({}),                                true),
            (json!({"status": {"phase": "Pending"}}),  true),
            (json!({"status": {"phase": "Failed"}}),   false),
            (json!({"status": {"phase": "Succeeded"}}), false),
            (mirror,                                   false),
            (leaving,                                  false),
        ];
        for (known, expected) in table {
            assert_eq!(may_be_debugged(&pod(known.clone())), expected, "{known}");
        }
    }

    #[test]
    fn what_was_taken_over_goes_back_until_something_was_made_for_it() {
        let made = || {
            Phase::Created(CreatedContainer {
                container_id: "c1".to_owned(),
                sandbox_id: "s1".to_owned(),
                log_path: None,
            })
        };
        use Origin::{Api, KubeApiserver};
        let accepted = || Phase::Accepted;
        let (ours, theirs) = (container(true), container(false));
        let second = ObservedContainer {
            attempt: 1,
            ..theirs.clone()
        };
        let asks = json!({"spec": {"containers": [], "ephemeralContainers": [{"name": "debugger", "image": "busybox"}]}});
        let asks_for_another = json!({"spec": {"containers": [], "ephemeralContainers": [{"name": "debugger", "image": "other"}]}});
        let asks_not = json!({"spec": {"containers": []}});
        let mut leaves = asks.clone();
        leaves["metadata"] = json!({"deletionTimestamp": "2026-11-21T03:12:40Z"});
        let (asks, other, asks_not, leaves) = (pod(asks), pod(asks_for_another), pod(asks_not), pod(leaves));
        let nothing = Vec::new;
        #[rustfmt::skip]
        let table = [
            ("the kubelet is down",                  KubeApiserver, accepted(), nothing(),                   Some(&asks),     true,  false),
            ("it is back",                           KubeApiserver, accepted(), nothing(),                   Some(&asks),     false, true),
            ("it is back, and made its own",         KubeApiserver, accepted(), vec![theirs.clone()],        Some(&asks),     false, true),
            ("it made its own and went down again",  KubeApiserver, accepted(), vec![theirs.clone()],        Some(&asks),     true,  true),
            ("it is back, and ours is there",        KubeApiserver, accepted(), vec![ours.clone()],          Some(&asks),     false, false),
            ("beside ours it made a newer one",      KubeApiserver, accepted(), vec![second, ours.clone()],  Some(&asks),     false, false),
            ("it is back, and ours was recorded",    KubeApiserver, made(),     vec![ours.clone()],          Some(&asks),     false, false),
            ("it is back, and ours is gone",         KubeApiserver, made(),     nothing(),                   Some(&asks),     false, false),
            ("it is asked for no more",              KubeApiserver, accepted(), nothing(),                   Some(&asks_not), true,  true),
            ("the pod is deleted",                   KubeApiserver, accepted(), nothing(),                   Some(&leaves),   true,  true),
            ("the pod is gone from the API server",  KubeApiserver, accepted(), nothing(),                   None,            true,  true),
            ("the pod is deleted, and ours is there", KubeApiserver, accepted(), vec![ours.clone()],         Some(&leaves),   true,  false),
            ("it was asked for here",                Api,           accepted(), nothing(),                   None,            false, false),
            ("it was asked for here alone",          Api,           accepted(), nothing(),                   Some(&asks_not), false, false),
            ("the API server asks for it too",       Api,           accepted(), nothing(),                   Some(&asks),     false, true),
            ("it does so while the kubelet is down", Api,           accepted(), nothing(),                   Some(&asks),     true,  true),
            ("it does so, and theirs is there",      Api,           accepted(), vec![theirs.clone()],        Some(&asks),     false, true),
            ("it does so, and ours is there",        Api,           accepted(), vec![ours.clone()],          Some(&asks),     false, false),
            ("it does so, and ours was recorded",    Api,           made(),     nothing(),                   Some(&asks),     false, false),
            ("it asks for another of the name",      Api,           accepted(), nothing(),                   Some(&other),    false, false),
            ("theirs is there, of another one",      Api,           accepted(), vec![theirs],                Some(&asks_not), false, false),
            ("a manifest asks for it",               Origin::Manifest, accepted(), nothing(),                Some(&asks),     false, false),
        ];
        for (case, origin, phase, containers, known, kubelet_down, expected) in table {
            let spec = json!({"name": "debugger", "image": "busybox"});
            let mut spec = serde_json::from_value(spec).expect("a container");
            defaults::ephemeral_container(&mut spec);
            let record = Record {
                spec,
                order: 0,
                origin,
                asked_by: None,
                copy_mounts: None,
                phase,
            };
            let observed = ObservedPod {
                containers,
                ..ObservedPod::default()
            };
            assert_eq!(
                goes_back(&record, &observed, known, kubelet_down),
                expected,
                "{case}"
            );
        }
    }

    #[test]
    fn a_local_entry_goes_back_exactly_when_the_api_server_asks_for_the_same_container() {
        let mut spec = table::base();
        defaults::ephemeral_container(&mut spec);
        let record = Record {
            spec,
            origin: Origin::Api,
            copy_mounts: None,
            order: 0,
            phase: Phase::Accepted,
            asked_by: None,
        };
        for (more, same) in table::rows() {
            let asked_for = table::container(&more);
            let known = pod(json!({"spec": {"containers": [], "ephemeralContainers": [asked_for]}}));
            assert_eq!(is_the_kubelets(&record, Some(&known), false), same, "{more}");
        }
    }
}
