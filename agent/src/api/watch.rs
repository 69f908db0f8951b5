//! The stream of a watch: one JSON object a line. It is pulled by its client and keeps nothing for it but the version it
//! has come to, so that a thousand watchers cost little, and a slow one nobody else.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::connection::{ReadDuty, Watching};
use super::list_options::ListOptions;
use super::representation::Representation;
use super::resource::{Resource, Selection, reached};
use super::status::Failure;
use crate::pod::visibility::Audience;
use crate::store::Store;
use crate::store::changes::{Change, ChangeKind, Lines};
use crate::store::views::Views;

/// How often a client that allows bookmarks is told the newest version.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// A far moment, for a timer that is not to fire.
const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The answer whose body is these lines.
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
enum Told<T> {
    Object {
        word: &'static str,
        object: Arc<T>,
        /// Where others who are told the same find the line, or leave it.
        line: Option<SharedLine<T>>,
    },
    Bookmark {
        initial_events_end: bool,
    },
    /// What was asked for cannot be told: the end.
    Error(Failure),
}

/// The line of a change that is told whole.
#[derive(Debug)]
struct SharedLine<T> {
    lines: Arc<Lines>,
    change: Views<T>,
}

#[derive(Serialize)]
struct WatchEvent<'a, O> {
    r#type: &'a str,
    object: O,
}

/// A watch on the objects of a resource.
struct ObjectWatch<T> {
    store: Arc<Store>,
    selection: Selection<T>,
    representation: Representation,
    /// Whether the client has been told a table's columns: they come once.
    columns_told: bool,
    versions: tokio::sync::watch::Receiver<u64>,
    /// Everything up to here is in `present` or `waiting`, or was told.
    version: u64,
    /// The objects that were there at the beginning, as far as they are not told yet.
    present: std::vec::IntoIter<Arc<T>>,
    waiting: VecDeque<Told<T>>,
    bookmarks: bool,
    next_bookmark: Instant,
    /// When the client wants it to end.
    end: Instant,
    /// An error was told: nothing comes after it.
    over: bool,
    shutdown: CancellationToken,
    _watching: Watching,
}

/// Where a watch begins.
struct Beginning<T> {
    /// The version that it goes on from.
    version: u64,
    /// What its client is told before that: the present objects,
    present: Vec<Arc<T>>,
    /// and this.
    then: Option<Told<T>>,
}

/// Starts a watch: from the version that is asked for, from now, or with the present objects first.
pub(crate) fn start<T: Resource>(
    store: &Arc<Store>,
    selection: Selection<T>,
    representation: Representation,
    options: &ListOptions,
    duty: ReadDuty,
    shutdown: CancellationToken,
) -> Result<Response, Failure> {
    // Before anything is read, so that a change that comes in between wakes us.
    let versions = store.versions_of::<T>();
    let asked = options.version()?;
    // A version that can be read and not be met is an error in the stream, as from kube-apiserver: there clients look
    // for it, and begin anew.
    let beginning =
        beginning(store, selection.audience(), options, asked).unwrap_or_else(|failure| Beginning {
            version: 0,
            present: Vec::new(),
            then: Some(Told::Error(failure)),
        });
    let now = Instant::now();
    let lasts = options
        .timeout_seconds
        .and_then(|seconds| u64::try_from(seconds).ok());
    let lasts = lasts
        .filter(|seconds| *seconds > 0)
        .map_or(NEVER, Duration::from_secs);
    let watch = ObjectWatch {
        store: Arc::clone(store),
        selection,
        representation,
        columns_told: false,
        versions,
        version: beginning.version,
        present: beginning.present.into_iter(),
        waiting: beginning.then.into_iter().collect(),
        bookmarks: options.allow_watch_bookmarks,
        next_bookmark: now + BOOKMARK_INTERVAL,
        end: now + lasts.min(NEVER),
        over: false,
        shutdown,
        _watching: duty.watching(),
    };
    Ok(lines(stream::unfold(watch, ObjectWatch::next)))
}

fn beginning<T: Resource>(
    store: &Store,
    audience: Audience,
    options: &ListOptions,
    asked: Option<u64>,
) -> Result<Beginning<T>, Failure> {
    if options.send_initial_events.unwrap_or(asked.is_none()) {
        let (version, present) = store.list::<T>(audience);
        if let Some(asked) = asked {
            reached(asked, version)?;
        }
        let bookmark = options.send_initial_events == Some(true) && options.allow_watch_bookmarks;
        let then = bookmark.then_some(Told::Bookmark {
            initial_events_end: true,
        });
        return Ok(Beginning {
            version,
            present,
            then,
        });
    }
    let newest = store.version();
    let version = asked.unwrap_or(newest);
    store.changes::<T>(version)?;
    if version > newest {
        // Not of this history: the state folder was lost. kube-apiserver would wait; here the client lists anew.
        let message = format!("version {version} has not been reached: the newest is {newest}");
        return Err(Failure::expired(message));
    }
    Ok(Beginning {
        version,
        present: Vec::new(),
        then: None,
    })
}

impl<T: Resource> ObjectWatch<T> {
    /// The next line, once there is one; none when the watch has ended.
    async fn next(mut self) -> Option<(Bytes, ObjectWatch<T>)> {
        loop {
            if self.over {
                return None;
            }
            if let Some(told) = self.next_present().or_else(|| self.waiting.pop_front()) {
                return Some((self.write(&told), self));
            }
            // Seen before the changes are read, so that one that comes in between wakes us again. Where others have
            // woken us (a launch has moved on), the number is all that is looked at.
            let newest = *self.versions.borrow_and_update();
            if newest > self.version {
                self.read_changes();
            }
            if !self.waiting.is_empty() {
                continue;
            }
            tokio::select! {
                changed = self.versions.changed() => changed.ok()?,
                () = sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark = Instant::now() + BOOKMARK_INTERVAL;
                    // Other kinds take versions too: the client is told how far nothing of this one has changed.
                    self.read_changes();
                    self.waiting.push_back(Told::Bookmark { initial_events_end: false });
                }
                () = sleep_until(self.end) => return None,
                () = self.shutdown.cancelled() => return None,
            }
        }
    }

    fn next_present(&mut self) -> Option<Told<T>> {
        let object = self.present.find(|object| self.selection.selects(object));
        if object.is_none() {
            // The list may have been long, and the watch is: its room is given back.
            self.present = Vec::new().into_iter();
        }
        object.map(|object| Told::Object {
            word: "ADDED",
            object,
            line: None,
        })
    }

    fn read_changes(&mut self) {
        match self.store.changes::<T>(self.version) {
            Ok((newest, changes)) => {
                self.version = newest;
                let told = changes
                    .into_iter()
                    .filter_map(|change| tell(&self.selection, change));
                self.waiting.extend(told);
            }
            Err(gone) => self.waiting.push_back(Told::Error(gone.into())),
        }
    }

    fn write(&mut self, told: &Told<T>) -> Bytes {
        match told {
            Told::Object { word, object, line } => match line {
                Some(shared) if self.representation == Representation::Object => {
                    let line = shared.lines.of(self.selection.audience(), &shared.change);
                    line.get_or_init(|| self.event(word, object)).clone()
                }
                _ => {
                    let event = self.event(word, object);
                    self.columns_told = true;
                    event
                }
            },
            Told::Bookmark { initial_events_end } => self.bookmark(*initial_events_end),
            Told::Error(failure) => {
                self.over = true;
                line(&WatchEvent {
                    r#type: "ERROR",
                    object: failure.status(),
                })
            }
        }
    }

    fn event(&self, word: &str, object: &T) -> Bytes {
        let columns = !self.columns_told;
        line(&WatchEvent {
            r#type: word,
            object: self.representation.object(object, columns, Timestamp::now()),
        })
    }

    /// An object of which only the version counts.
    fn bookmark(&self, initial_events_end: bool) -> Bytes {
        let mut metadata = ObjectMeta {
            resource_version: Some(self.version.to_string()),
            ..ObjectMeta::default()
        };
        if initial_events_end {
            let annotation = ("k8s.io/initial-events-end".to_owned(), "true".to_owned());
            metadata.annotations = Some([annotation].into());
        }
        if self.representation == Representation::Object {
            let object = json!({"kind": T::KIND, "apiVersion": T::API_VERSION, "metadata": metadata});
            return line(&WatchEvent {
                r#type: "BOOKMARK",
                object,
            });
        }
        let mut object = T::default();
        *object.metadata_mut() = metadata;
        self.event("BOOKMARK", &object)
    }
}

/// What a change is to a watcher: an object that comes under its selector, or that it is shown from now on, is new to it, and
/// one that leaves either is gone.
fn tell<T: Resource>(selection: &Selection<T>, change: Change<T>) -> Option<Told<T>> {
    let Change {
        version,
        kind,
        previous,
        object: change,
        lines,
        ..
    } = change;
    let audience = selection.audience();
    let after = change.of(audience);
    let before = previous.as_ref().and_then(|views| views.of(audience));
    // Only others see that something has changed.
    let unchanged = kind != ChangeKind::Deleted
        && before.is_some_and(|before| after.is_some_and(|after| Arc::ptr_eq(before, after)));
    if unchanged {
        return None;
    }
    let is = kind != ChangeKind::Deleted && after.is_some_and(|object| selection.selects(object));
    let was = before.is_some_and(|object| selection.selects(object));
    let word = match (was, is) {
        (false, true) => "ADDED",
        (true, true) => "MODIFIED",
        (true, false) => "DELETED",
        (false, false) => return None,
    };
    let object = match after.filter(|_| word != "DELETED" || kind == ChangeKind::Deleted) {
        Some(object) => Arc::clone(object),
        // As it was when it was selected and shown, under the version that took it away.
        None => {
            let mut last = T::clone(before?);
            last.metadata_mut().resource_version = Some(version.to_string());
            Arc::new(last)
        }
    };
    // Who sees it come or go by a selector, or because it is shown or hidden, is told another line than the others.
    let line = lines
        .filter(|_| word == kind.word())
        .map(|lines| SharedLine { lines, change });
    Some(Told::Object { word, object, line })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Pod, PodStatus};

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
        let running = ListOptions {
            field_selector: "status.phase=Running".to_owned(),
            ..ListOptions::default()
        };
        let selection = Selection::parse(Audience::Node, None, &running).expect("a selection");
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
            let shown = |phase| Views::same(pod(phase));
            let change = Change::new(9, kind, before.map(shown), shown(after));
            let told = tell(&selection, change);
            let (word, shared) = match told {
                Some(Told::Object { word, line, .. }) => (Some(word), line.is_some()),
                _ => (None, false),
            };
            assert_eq!(word, expected, "{kind:?} {before:?} -> {after}");
            assert_eq!(
                shared,
                word == Some(kind.word()),
                "{kind:?} {before:?} -> {after}"
            );
        }
    }

    #[test]
    fn a_pod_that_leaves_a_selector_is_shown_as_it_was_under_the_new_version() {
        let running = ListOptions {
            field_selector: "status.phase=Running".to_owned(),
            ..ListOptions::default()
        };
        let selection = Selection::parse(Audience::Node, None, &running).expect("a selection");
        let [before, after] = ["Running", "Failed"].map(|phase| Views::same(pod(phase)));
        let change = Change::new(9, ChangeKind::Modified, Some(before), after);
        let Some(Told::Object {
            word: "DELETED",
            object: last,
            line: None,
        }) = tell(&selection, change)
        else {
            panic!("it is deleted");
        };
        assert_eq!(last.metadata.resource_version.as_deref(), Some("9"));
        assert_eq!(
            last.status.as_ref().and_then(|status| status.phase.as_deref()),
            Some("Running")
        );
    }
}
