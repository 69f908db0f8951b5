//! The last lines of the logs of containers that have failed: what one asks for next.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use tokio::time::{Instant, timeout_at};

use crate::cli::client::{Client, ClientError, pod_path, with_query};

/// How many lines are shown of one container.
const LINES: usize = 3;

/// How much of them is read, in bytes: a line may be as long as its container likes.
const MAX_BYTES: usize = 4096;

/// How many logs are asked for at once.
const AT_ONCE: usize = 16;

/// How long all logs together are waited for. The agent waits 8 s for a runtime that does not answer, and then reads the
/// log where it was before.
const PATIENCE: Duration = Duration::from_secs(10);

/// The last lines of each container that has failed, or why they cannot be shown.
#[derive(Debug, Default)]
pub(super) struct LastLines(BTreeMap<String, Result<Vec<String>, String>>);

impl LastLines {
    /// Reads all logs side by side, and waits for them once. A log that cannot be read is no reason not to describe the pod.
    pub(super) async fn read(client: &Client, namespace: &str, name: &str, pod: &Pod) -> LastLines {
        let latest = Instant::now() + PATIENCE;
        let failed = statuses(pod).filter(|status| has_failed(status));
        let containers: Vec<String> = failed.map(|status| status.name.clone()).collect();
        let reads = containers.into_iter().map(|container| async move {
            let read = timeout_at(latest, tail(client, namespace, name, &container)).await;
            let lines = match read {
                Ok(Ok(log)) => Ok(lines(&log)),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!(
                    "the agent has not answered within {} s",
                    PATIENCE.as_secs()
                )),
            };
            (container, lines)
        });
        LastLines(stream::iter(reads).buffer_unordered(AT_ONCE).collect().await)
    }

    /// Of a container; no lines where it has not failed or has written nothing.
    pub(super) fn of(&self, container: &str) -> Result<&[String], &str> {
        match self.0.get(container) {
            Some(Ok(lines)) => Ok(lines),
            Some(Err(reason)) => Err(reason),
            None => Ok(&[]),
        }
    }

    /// Adds what was read of one container.
    #[cfg(test)]
    pub(super) fn insert(&mut self, container: &str, read: Result<&str, &str>) {
        let read = read.map(lines).map_err(str::to_owned);
        self.0.insert(container.to_owned(), read);
    }
}

/// The lines of the end of a log.
fn lines(log: &str) -> Vec<String> {
    log.lines().map(str::to_owned).collect()
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
    use axum::Router;
    use axum::extract::Query;
    use axum::routing::get;
    use serde_json::json;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_logs_are_waited_for_once_and_what_does_not_come_has_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("debuglet.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        // As an agent whose runtime is silent: it answers late, or, of one log, not at all.
        let log = async |Query(query): Query<BTreeMap<String, String>>| {
            if query["container"] == "c0" {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_secs(8)).await;
            format!("the end of {}\n", query["container"])
        };
        let router = Router::new().route("/api/v1/namespaces/shop/pods/web/log", get(log));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let statuses: Vec<_> = (0..AT_ONCE + 1)
            .map(|number| {
                json!({"name": format!("c{number}"), "image": "", "imageID": "", "ready": false, "restartCount": 0,
                       "state": {"terminated": {"exitCode": 1}}})
            })
            .collect();
        let pod = json!({"metadata": {}, "status": {"containerStatuses": statuses}});
        let pod = serde_json::from_value(pod).unwrap();

        let begun = Instant::now();
        let client = Client::new(socket);
        let last_lines = LastLines::read(&client, "shop", "web", &pod).await;
        assert!(
            begun.elapsed() <= PATIENCE + Duration::from_millis(10),
            "waited more than once"
        );
        let none = "the agent has not answered within 10 s";
        assert_eq!(last_lines.of("c0"), Err(none));
        for number in 1..AT_ONCE {
            let expected = [format!("the end of c{number}")];
            assert_eq!(last_lines.of(&format!("c{number}")), Ok(&expected[..]));
        }
        assert_eq!(
            last_lines.of(&format!("c{AT_ONCE}")),
            Err(none),
            "it was asked for late"
        );
        assert_eq!(last_lines.of("unknown"), Ok(&[][..]));
    }

    #[tokio::test]
    async fn a_log_that_the_agent_cannot_read_has_the_agents_reason() {
        let folder = tempfile::tempdir().unwrap();
        let client = Client::new(folder.path().join("debuglet.sock"));
        let status = json!({"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                            "state": {"terminated": {"exitCode": 1}}});
        let pod = json!({"metadata": {}, "status": {"containerStatuses": [status]}});
        let pod = serde_json::from_value(pod).unwrap();
        let last_lines = LastLines::read(&client, "shop", "web", &pod).await;
        let reason = last_lines.of("main").unwrap_err();
        assert!(reason.starts_with("the agent is not running"), "{reason}");
    }

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
