//! The last lines of the logs of containers that have failed: what one asks for next.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

use crate::cli::client::{Client, ClientError, pod_path, with_query};

/// How many lines are shown of one container.
const LINES: usize = 3;

/// How much of them is read, in bytes: a line may be as long as its container likes.
const MAX_BYTES: usize = 4096;

/// By container.
#[derive(Debug, Default)]
pub(super) struct LastLines(BTreeMap<String, Vec<String>>);

impl LastLines {
    /// Reads them. A log that cannot be read is no reason not to describe the pod.
    pub(super) async fn read(client: &Client, namespace: &str, name: &str, pod: &Pod) -> LastLines {
        let mut all = LastLines::default();
        for status in statuses(pod).filter(|status| has_failed(status)) {
            if let Ok(log) = tail(client, namespace, name, &status.name).await {
                all.insert(&status.name, &log);
            }
        }
        all
    }

    /// Takes the lines from the end of a log.
    pub(super) fn insert(&mut self, container: &str, log: &str) {
        self.0
            .insert(container.to_owned(), log.lines().map(str::to_owned).collect());
    }

    /// Those of a container; none where it has not failed or has written nothing.
    pub(super) fn of(&self, container: &str) -> &[String] {
        self.0.get(container).map_or(&[], Vec::as_slice)
    }
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let lists = pod.status.iter().flat_map(|status| {
        [
            &status.init_container_statuses,
            &status.container_statuses,
            &status.ephemeral_container_statuses,
        ]
    });
    lists.flatten().flatten()
}

/// Whether what the container did last was to fail: it has ended so, or waits to be started again after that.
fn has_failed(status: &ContainerStatus) -> bool {
    let failed = |state: &Option<ContainerState>| {
        let ended = state.as_ref().and_then(|state| state.terminated.as_ref());
        ended.is_some_and(|ended| ended.exit_code != 0)
    };
    let runs = status.state.as_ref().is_some_and(|state| state.running.is_some());
    !runs && (failed(&status.state) || failed(&status.last_state))
}

async fn tail(client: &Client, namespace: &str, pod: &str, container: &str) -> Result<String, ClientError> {
    let asked = [
        ("container", container.to_owned()),
        ("tailLines", LINES.to_string()),
        ("limitBytes", MAX_BYTES.to_string()),
    ];
    let mut log = client
        .bytes(&with_query(&pod_path(namespace, pod, "log"), asked))
        .await?;
    let mut text = Vec::new();
    while let Some(bytes) = log.next().await? {
        text.extend_from_slice(&bytes);
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_container_has_failed_that_ended_so_and_does_not_run_again() {
        let failed = json!({"terminated": {"exitCode": 1}});
        for (state, last, expected) in [
            (failed.clone(), json!({}), true),
            (
                json!({"waiting": {"reason": "CrashLoopBackOff"}}),
                failed.clone(),
                true,
            ),
            (json!({"running": {}}), failed, false),
            (json!({"terminated": {"exitCode": 0}}), json!({}), false),
            (
                json!({"waiting": {"reason": "ContainerCreating"}}),
                json!({}),
                false,
            ),
        ] {
            let status: ContainerStatus = serde_json::from_value(json!({
                "name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": state, "lastState": last,
            }))
            .unwrap();
            assert_eq!(has_failed(&status), expected, "{status:?}");
        }
    }
}
