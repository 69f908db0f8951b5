//! What `debuglet ps` says of a pod's debug containers.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

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
