//! The stream of a watch on pods: one JSON object a line. It is pulled by its client and keeps nothing for it
//! but the version it has come to, so that a thousand watchers cost little, and a slow one nobody else.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::connection::{OnDuty, ReadDuty};
use super::pods::PodSelector;
use super::request::ListParameters;
use super::status::Failure;
use crate::store::Store;
use crate::store::changes::{Change, ChangeKind, Gone};

/// How often a client that allows bookmarks is told the newest version.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// A far moment, for a timer that is not to fire.
const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The answer whose body is these lines. The client must read them.
pub(crate) fn lines<S>(lines: S) -> Response
where
    S: stream::Stream<Item = Bytes> + Send + 'static,
{
    let lines = stream::StreamExt::map(lines, Ok::<_, Infallible>);
    ([(CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response()
}

/// One JSON object and the end of its line.
pub(crate) fn line(object: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(object).unwrap_or_else(|error| {
        tracing::error!(%error, "an object cannot be written as JSON");
        Vec::new()
    });
    line.push(b'\n');
    line.into()
}

/// What a watcher is told: the words are those of Kubernetes' `WatchEvent`.
#[derive(Debug)]
enum Told {
    Pod(&'static str, Arc<Pod>),
    Bookmark { initial_events_end: bool },
}

/// A watch on pods.
struct PodWatch {
    store: Arc<Store>,
    selector: PodSelector,
    versions: tokio::sync::watch::Receiver<u64>,
    /// Everything up to here is in `waiting`, or was told.
    version: u64,
    waiting: VecDeque<Told>,
    bookmarks: bool,
    next_bookmark: Instant,
    /// When the client wants it to end.
    end: Instant,
    /// An error was told: nothing comes after it.
    over: bool,
    shutdown: CancellationToken,
    _duty: OnDuty,
}

/// Starts a watch: from the version that is asked for, or with the present pods first.
pub(crate) fn start(
    store: &Arc<Store>,
    selector: PodSelector,
    parameters: &ListParameters,
    duty: ReadDuty,
    shutdown: CancellationToken,
) -> Result<Response, Failure> {
    let versions = store.versions();
    let mut waiting = VecDeque::new();
    let version = match parameters.version()? {
        Some(version) if !parameters.send_initial_events => {
            store.changes_since(version)?;
            if version > store.pods().0 {
                // Not of this history: the state folder was lost, or the clock went back.
                return Err(Failure::expired(format!(
                    "version {version} has not been reached"
                )));
            }
            version
        }
        _ => {
            let (version, pods) = store.pods();
            let pods = pods.into_iter().filter(|pod| selector.selects(pod));
            waiting.extend(pods.map(|pod| Told::Pod("ADDED", pod)));
            if parameters.send_initial_events {
                waiting.push_back(Told::Bookmark {
                    initial_events_end: true,
                });
            }
            version
        }
    };
    let now = Instant::now();
    let watch = PodWatch {
        store: Arc::clone(store),
        selector,
        versions,
        version,
        waiting,
        bookmarks: parameters.allow_watch_bookmarks,
        next_bookmark: now + BOOKMARK_INTERVAL,
        end: now
            + parameters
                .timeout_seconds
                .map_or(NEVER, Duration::from_secs)
                .min(NEVER),
        over: false,
        shutdown,
        _duty: duty.begin(),
    };
    Ok(lines(stream::unfold(watch, PodWatch::next)))
}

impl PodWatch {
    /// The next line, once there is one; none when the watch has ended.
    async fn next(mut self) -> Option<(Bytes, PodWatch)> {
        loop {
            if let Some(told) = self.waiting.pop_front() {
                return Some((self.write(&told), self));
            }
            if self.over {
                return None;
            }
            // Seen before the changes are read, so that one that comes in between wakes us again.
            self.versions.borrow_and_update();
            match self.read_changes() {
                Ok(()) if !self.waiting.is_empty() => continue,
                Ok(()) => {}
                Err(gone) => {
                    self.over = true;
                    let failure = Failure::from(gone);
                    let error = json!({"type": "ERROR", "object": failure.status()});
                    return Some((line(&error), self));
                }
            }
            tokio::select! {
                changed = self.versions.changed() => changed.ok()?,
                () = sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark = Instant::now() + BOOKMARK_INTERVAL;
                    self.waiting.push_back(Told::Bookmark { initial_events_end: false });
                }
                () = sleep_until(self.end) => return None,
                () = self.shutdown.cancelled() => return None,
            }
        }
    }

    fn read_changes(&mut self) -> Result<(), Gone> {
        for change in self.store.changes_since(self.version)? {
            self.version = change.version;
            self.waiting.extend(tell(&self.selector, change));
        }
        Ok(())
    }

    fn write(&self, told: &Told) -> Bytes {
        match told {
            Told::Pod(kind, pod) => {
                #[derive(Serialize)]
                struct Event<'a> {
                    r#type: &'a str,
                    object: &'a Pod,
                }
                line(&Event {
                    r#type: kind,
                    object: pod,
                })
            }
            Told::Bookmark { initial_events_end } => line(&bookmark(self.version, *initial_events_end)),
        }
    }
}

fn bookmark(version: u64, initial_events_end: bool) -> Value {
    let mut metadata = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
    if initial_events_end {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    json!({"type": "BOOKMARK", "object": {"kind": "Pod", "apiVersion": "v1", "metadata": metadata}})
}

/// What a change is to a watcher: a pod that comes under its selector is new to it, one that leaves it is gone.
fn tell(selector: &PodSelector, change: Change) -> Option<Told> {
    let Change {
        version,
        kind,
        previous,
        pod,
    } = change;
    let is = kind != ChangeKind::Deleted && selector.selects(&pod);
    let was = kind != ChangeKind::Added && selector.selects(previous.as_ref().unwrap_or(&pod));
    match (was, is) {
        (false, true) => Some(Told::Pod("ADDED", pod)),
        (true, true) => Some(Told::Pod("MODIFIED", pod)),
        (true, false) if kind == ChangeKind::Deleted => Some(Told::Pod("DELETED", pod)),
        (true, false) => {
            // As it was when it was selected, under the version that took it away.
            let mut last = Arc::unwrap_or_clone(previous.unwrap_or(pod));
            last.metadata.resource_version = Some(version.to_string());
            Some(Told::Pod("DELETED", Arc::new(last)))
        }
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodStatus;

    use super::*;

    fn pod(phase: &str) -> Arc<Pod> {
        Arc::new(Pod {
            status: Some(PodStatus {
                phase: Some(phase.to_owned()),
                ..PodStatus::default()
            }),
            ..Pod::default()
        })
    }

    #[test]
    fn a_pod_that_comes_under_a_selector_is_added_and_one_that_leaves_it_is_deleted() {
        let running = ListParameters {
            field_selector: "status.phase=Running".to_owned(),
            ..ListParameters::default()
        };
        let selector = PodSelector::parse(None, &running).expect("a selector");
        for (kind, before, after, expected) in [
            (ChangeKind::Added, None, "Pending", None),
            (ChangeKind::Added, None, "Running", Some("ADDED")),
            (ChangeKind::Modified, Some("Pending"), "Pending", None),
            (ChangeKind::Modified, Some("Pending"), "Running", Some("ADDED")),
            (ChangeKind::Modified, Some("Running"), "Running", Some("MODIFIED")),
            (ChangeKind::Modified, Some("Running"), "Failed", Some("DELETED")),
            (ChangeKind::Deleted, Some("Running"), "Running", Some("DELETED")),
            (ChangeKind::Deleted, Some("Failed"), "Failed", None),
        ] {
            let change = Change {
                version: 9,
                kind,
                previous: before.map(pod),
                pod: pod(after),
            };
            let told = tell(&selector, change).map(|told| match told {
                Told::Pod(kind, _) => kind,
                Told::Bookmark { .. } => "BOOKMARK",
            });
            assert_eq!(told, expected, "{kind:?} {before:?} -> {after}");
        }
    }

    #[test]
    fn a_pod_that_leaves_a_selector_is_shown_as_it_was_under_the_new_version() {
        let running = ListParameters {
            field_selector: "status.phase=Running".to_owned(),
            ..ListParameters::default()
        };
        let selector = PodSelector::parse(None, &running).expect("a selector");
        let change = Change {
            version: 9,
            kind: ChangeKind::Modified,
            previous: Some(pod("Running")),
            pod: pod("Failed"),
        };
        let Some(Told::Pod("DELETED", last)) = tell(&selector, change) else {
            panic!("it is deleted");
        };
        assert_eq!(last.metadata.resource_version.as_deref(), Some("9"));
        assert_eq!(
            last.status.as_ref().and_then(|status| status.phase.as_deref()),
            Some("Running")
        );
    }
}
