//! The one word that `kubectl get pods` has for a pod's state, and how many of its containers are ready.

use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, Pod, PodStatus};

/// A pod in a line: what READY and STATUS show.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PodLine {
    /// Containers that are ready, sidecars included.
    pub(crate) ready: usize,
    /// Containers that there are, sidecars included.
    pub(crate) total: usize,
    /// The word: a phase, a reason, `Init:0/1`, `Terminating`, ...
    pub(crate) status: String,
    /// Restarts of all containers.
    pub(crate) restarts: i32,
}

/// Whether an init container is a sidecar: it keeps running beside the others (KEP-753).
fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// What kubectl's table says of a pod.
pub(crate) fn pod_line(pod: &Pod) -> PodLine {
    let empty = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&empty);
    let init_containers: &[Container] = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.init_containers.as_deref())
        .unwrap_or_default();
    let sidecars = init_containers
        .iter()
        .filter(|container| is_sidecar(container))
        .count();
    let containers = pod.spec.as_ref().map_or(0, |spec| spec.containers.len());
    let phase = status.phase.clone().unwrap_or_else(|| "Unknown".into());
    let mut line = PodLine {
        ready: 0,
        total: containers + sidecars,
        status: status
            .reason
            .clone()
            .filter(|reason| !reason.is_empty())
            .unwrap_or_else(|| phase.clone()),
        restarts: 0,
    };
    let initializing = read_init_containers(&mut line, init_containers, status);
    if !initializing || condition_is_true(status, "Initialized") {
        read_containers(&mut line, status);
    }
    let over = phase == "Succeeded" || phase == "Failed";
    if pod.metadata.deletion_timestamp.is_some() && !over {
        line.status = "Terminating".into();
    }
    line
}

/// Counts ready sidecars; says whether an init container stands in the way, and puts it in the status if so.
fn read_init_containers(line: &mut PodLine, specs: &[Container], status: &PodStatus) -> bool {
    let statuses = status.init_container_statuses.as_deref().unwrap_or_default();
    let mut all_restarts = 0;
    for (index, container) in statuses.iter().enumerate() {
        let state = container.state.clone().unwrap_or_default();
        let sidecar = specs
            .iter()
            .any(|spec| spec.name == container.name && is_sidecar(spec));
        all_restarts += container.restart_count;
        if sidecar {
            line.restarts += container.restart_count;
        }
        if state
            .terminated
            .as_ref()
            .is_some_and(|terminated| terminated.exit_code == 0)
        {
            continue;
        }
        if sidecar && container.started == Some(true) {
            if container.ready {
                line.ready += 1;
            }
            continue;
        }
        let waiting = state.waiting.and_then(|waiting| waiting.reason);
        line.status = match (&state.terminated, waiting) {
            (Some(terminated), _) => format!("Init:{}", end_word(terminated)),
            (None, Some(reason)) if !reason.is_empty() && reason != "PodInitializing" => {
                format!("Init:{reason}")
            }
            _ => format!("Init:{index}/{}", specs.len()),
        };
        line.restarts = all_restarts;
        return true;
    }
    false
}

/// Counts the ready containers; what one of them waits for or ended with is the pod's status.
fn read_containers(line: &mut PodLine, status: &PodStatus) {
    let statuses = status.container_statuses.as_deref().unwrap_or_default();
    let mut running = false;
    let mut failed_with = None;
    // From the last to the first: the first one's trouble is what shows in the end.
    for container in statuses.iter().rev() {
        line.restarts += container.restart_count;
        let state = container.state.clone().unwrap_or_default();
        let waiting = state
            .waiting
            .and_then(|waiting| waiting.reason)
            .unwrap_or_default();
        if !waiting.is_empty() {
            line.status = waiting;
        } else if let Some(terminated) = &state.terminated {
            line.status = end_word(terminated);
            if terminated.exit_code != 0 {
                failed_with = Some(line.status.clone());
            }
        } else if container.ready && state.running.is_some() {
            running = true;
            line.ready += 1;
        }
    }
    if line.status == "Completed" {
        if running && condition_is_true(status, "Ready") {
            line.status = "Running".into();
        } else if let Some(failed_with) = failed_with {
            line.status = failed_with;
        } else if running {
            line.status = "NotReady".into();
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

/// Whether one of the pod's conditions holds.
fn condition_is_true(status: &PodStatus, kind: &str) -> bool {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    conditions
        .iter()
        .any(|condition| condition.type_ == kind && condition.status == "True")
}

/// The debug containers of a pod in a few words: `1 running, 1 waiting`; those that ended count only while nothing
/// else is there. `-` without any.
pub(crate) fn debug_words(pod: &Pod) -> String {
    let entries = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.ephemeral_containers.as_deref())
        .unwrap_or_default();
    let statuses: &[ContainerStatus] = pod
        .status
        .as_ref()
        .and_then(|status| status.ephemeral_container_statuses.as_deref())
        .unwrap_or_default();
    let (mut running, mut waiting, mut ended) = (0, 0, 0);
    for entry in entries {
        let state = statuses
            .iter()
            .find(|status| status.name == entry.name)
            .and_then(|status| status.state.as_ref());
        match state {
            Some(state) if state.running.is_some() => running += 1,
            Some(state) if state.terminated.is_some() => ended += 1,
            _ => waiting += 1,
        }
    }
    let counted: Vec<String> = [(running, "running"), (waiting, "waiting")]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    match (counted.is_empty(), ended) {
        (false, _) => counted.join(", "),
        (true, 0) => "-".into(),
        (true, ended) => format!("{ended} ended"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn status_of(pod: Value) -> String {
        pod_line(&serde_json::from_value(pod).unwrap()).status
    }

    fn with_containers(states: &Value) -> Value {
        let statuses: Vec<Value> = states
            .as_array()
            .unwrap()
            .iter()
            .enumerate()
            .map(|(index, state)| {
                json!({"name": format!("c{index}"), "image": "i", "imageID": "", "restartCount": 2,
                       "ready": state.get("running").is_some(), "state": state})
            })
            .collect();
        let containers: Vec<Value> = (0..statuses.len())
            .map(|index| json!({"name": format!("c{index}")}))
            .collect();
        json!({
            "metadata": {"name": "p"},
            "spec": {"containers": containers},
            "status": {"phase": "Running", "containerStatuses": statuses,
                       "conditions": [{"type": "Ready", "status": "True"}]},
        })
    }

    fn with_init(state: &Value) -> Value {
        json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]},
            "status": {"phase": "Pending", "initContainerStatuses": [
                {"name": "i", "image": "i", "imageID": "", "restartCount": 0, "ready": false, "state": state}
            ]},
        })
    }

    #[test]
    fn the_word_is_the_phase_unless_a_container_has_more_to_say() {
        let running = json!({"running": {}});
        let completed = json!({"terminated": {"exitCode": 0, "reason": "Completed"}});
        let failed = json!({"terminated": {"exitCode": 1, "reason": "Error"}});
        let looping = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        for (states, word) in [
            (json!([running]), "Running"),
            (json!([running, looping]), "CrashLoopBackOff"),
            (json!([completed]), "Completed"),
            (json!([completed, failed]), "Error"),
            (json!([completed, running]), "Running"),
            (json!([{"terminated": {"exitCode": 3}}]), "ExitCode:3"),
            (
                json!([{"terminated": {"exitCode": 137, "signal": 9}}]),
                "Signal:9",
            ),
        ] {
            assert_eq!(status_of(with_containers(&states)), word, "{states}");
        }
        let pod = json!({"metadata": {}, "status": {"phase": "Failed", "reason": "NotSupported"}});
        assert_eq!(status_of(pod), "NotSupported");
    }

    #[test]
    fn ready_counts_what_is_ready_of_all() {
        let pod = with_containers(&json!([{"running": {}}, {"waiting": {"reason": "ContainerCreating"}}]));
        let line = pod_line(&serde_json::from_value(pod).unwrap());
        assert_eq!((line.ready, line.total, line.restarts), (1, 2, 4));
    }

    #[test]
    fn an_init_container_in_the_way_is_named() {
        assert_eq!(status_of(with_init(&json!({"running": {}}))), "Init:0/1");
        assert_eq!(
            status_of(with_init(&json!({"waiting": {"reason": "CrashLoopBackOff"}}))),
            "Init:CrashLoopBackOff"
        );
        assert_eq!(
            status_of(with_init(
                &json!({"terminated": {"exitCode": 1, "reason": "Error"}})
            )),
            "Init:Error"
        );
    }

    #[test]
    fn a_sidecar_counts_among_the_containers() {
        let pod = json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]},
            "status": {"phase": "Running",
                "initContainerStatuses": [{"name": "s", "image": "i", "imageID": "", "restartCount": 0,
                                            "ready": true, "started": true, "state": {"running": {}}}],
                "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "restartCount": 0,
                                       "ready": true, "state": {"running": {}}}]},
        });
        let line = pod_line(&serde_json::from_value(pod).unwrap());
        assert_eq!((line.ready, line.total, line.status.as_str()), (2, 2, "Running"));
    }

    #[test]
    fn a_pod_that_is_being_removed_is_terminating() {
        let mut pod = with_containers(&json!([{"running": {}}]));
        pod["metadata"]["deletionTimestamp"] = "2026-11-21T03:00:00Z".into();
        assert_eq!(status_of(pod), "Terminating");
    }

    #[test]
    fn debug_containers_are_counted_by_what_they_do() {
        let pod = |states: &[(&str, Value)]| -> Pod {
            let entries: Vec<Value> = states
                .iter()
                .map(|(name, _)| json!({"name": name, "image": "i"}))
                .collect();
            let statuses: Vec<Value> = states
                .iter()
                .map(|(name, state)| {
                    json!({"name": name, "image": "i", "imageID": "", "restartCount": 0, "ready": false,
                           "state": state})
                })
                .collect();
            serde_json::from_value(
                json!({"metadata": {}, "spec": {"containers": [], "ephemeralContainers": entries},
                "status": {"ephemeralContainerStatuses": statuses}}),
            )
            .unwrap()
        };
        let ended = json!({"terminated": {"exitCode": 0}});
        assert_eq!(debug_words(&pod(&[])), "-");
        assert_eq!(debug_words(&pod(&[("a", ended.clone())])), "1 ended");
        assert_eq!(
            debug_words(&pod(&[
                ("a", ended),
                ("b", json!({"running": {}})),
                ("c", json!({}))
            ])),
            "1 running, 1 waiting"
        );
    }
}
