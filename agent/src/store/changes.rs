//! The history of what is served: every change of every object under its own version, for lists and watches. All kinds
//! share one sequence of versions, and each keeps its newest changes in a log of its own.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod};
use serde::Serialize;

use super::views::Views;
use crate::pod::size::json_bytes;
use crate::pod::visibility::Audience;

/// How many changes of one kind are kept for watches that resume; older ones answer `410 Gone`, and clients list again.
const HISTORY: usize = 1024;
/// The same of events: there are many, and who has missed some lists what is left of them.
const EVENT_HISTORY: usize = 256;
/// How many bytes the objects of all kept changes of one kind may have together: each change holds its object whole, and
/// a pod may be large. The newest change is kept in any case.
const HISTORY_BYTES: usize = 8 * 1024 * 1024;
/// How many of the newest changes keep what watchers were told of them: those that follow come to it together, and
/// one that is far behind makes its own.
const SHARED_LINES: usize = 16;

/// What happened to an object, in the words of a watch event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    /// It is new.
    Added,
    /// Something of it changed.
    Modified,
    /// It is gone; the object is its last state.
    Deleted,
}

impl ChangeKind {
    /// The `type` of a watch event.
    pub(crate) fn word(self) -> &'static str {
        match self {
            ChangeKind::Added => "ADDED",
            ChangeKind::Modified => "MODIFIED",
            ChangeKind::Deleted => "DELETED",
        }
    }
}

/// One change of one served object.
#[derive(Debug)]
pub(crate) struct Change<T> {
    /// The version that this change made: the object's `metadata.resourceVersion`.
    pub(crate) version: u64,
    /// What happened.
    pub(crate) kind: ChangeKind,
    /// The object before, unless it was added: by it a watch tells whether the object came, changed or left for its client.
    pub(crate) previous: Option<Views<T>>,
    /// The object afterwards.
    pub(crate) object: Views<T>,
    /// Room for the lines that watchers are told; none on an older change, where nobody is left to share them with.
    pub(crate) lines: Option<Arc<Lines>>,
    /// About how many bytes the object takes: its texts are as long as in JSON, and what holds them about as large again.
    bytes: usize,
}

/// What watchers without a selector are told of a change, so that a thousand of them share its bytes.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// Those who see the object as clients of the node do.
    whole: OnceLock<Bytes>,
    /// Users of the cluster who see another one.
    cluster: OnceLock<Bytes>,
}

impl Lines {
    /// The line that `audience` is told of `object`.
    pub(crate) fn of<T>(&self, audience: Audience, object: &Views<T>) -> &OnceLock<Bytes> {
        match audience {
            Audience::Cluster if !object.are_the_same() => &self.cluster,
            Audience::Cluster | Audience::Node => &self.whole,
        }
    }
}

impl<T: Serialize> Change<T> {
    /// A change that made `version`.
    pub(crate) fn new(
        version: u64,
        kind: ChangeKind,
        previous: Option<Views<T>>,
        object: Views<T>,
    ) -> Change<T> {
        let mut bytes = size_of::<T>() + 2 * json_bytes(&**object.whole());
        if let Some(cluster) = object.of(Audience::Cluster).filter(|_| !object.are_the_same()) {
            bytes += size_of::<T>() + 2 * json_bytes(&**cluster);
        }
        Change {
            bytes,
            version,
            kind,
            previous,
            object,
            lines: Some(Arc::default()),
        }
    }
}

impl<T> Clone for Change<T> {
    fn clone(&self) -> Change<T> {
        Change {
            version: self.version,
            kind: self.kind,
            previous: self.previous.clone(),
            object: self.object.clone(),
            lines: self.lines.clone(),
            bytes: self.bytes,
        }
    }
}

/// The version asked for is older than the history: the client must list again (HTTP 410).
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("version {asked} is too old: the history begins at {oldest}")]
pub(crate) struct Gone {
    asked: u64,
    oldest: u64,
}

/// The sequence of versions, and the newest changes of each kind.
#[derive(Debug)]
pub(crate) struct History {
    version: u64,
    /// Of pods.
    pub(crate) pods: Log<Pod>,
    /// Of events.
    pub(crate) events: Log<Event>,
    /// Of namespaces.
    pub(crate) namespaces: Log<Namespace>,
    /// Of the node.
    pub(crate) nodes: Log<Node>,
}

impl History {
    /// An empty history that goes on from `version`.
    pub(crate) fn starting_at(version: u64) -> History {
        History {
            version,
            pods: Log::starting_at(version, HISTORY),
            events: Log::starting_at(version, EVENT_HISTORY),
            namespaces: Log::starting_at(version, HISTORY),
            nodes: Log::starting_at(version, HISTORY),
        }
    }

    /// The newest version, of whatever kind.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Takes the next version; the caller builds the object with it and hands it to [`Log::push`].
    pub(crate) fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }
}

/// The newest changes of one kind, oldest first.
#[derive(Debug)]
pub(crate) struct Log<T> {
    changes: VecDeque<Change<T>>,
    /// How many are kept.
    bound: usize,
    /// How many bytes the objects have, all together.
    bytes: usize,
    /// The version before the first change that is kept.
    before: u64,
}

impl<T> Log<T> {
    fn starting_at(version: u64, bound: usize) -> Log<T> {
        Log {
            changes: VecDeque::new(),
            bound,
            bytes: 0,
            before: version,
        }
    }

    /// Adds a change; the oldest ones make room.
    pub(crate) fn push(&mut self, change: Change<T>) {
        self.bytes += change.bytes;
        self.changes.push_back(change);
        if let Some(older) = self.changes.len().checked_sub(SHARED_LINES + 1)
            && let Some(older) = self.changes.get_mut(older)
        {
            older.lines = None;
        }
        while self.changes.len() > self.bound || (self.bytes > HISTORY_BYTES && self.changes.len() > 1) {
            let Some(oldest) = self.changes.pop_front() else {
                break;
            };
            self.bytes -= oldest.bytes;
            self.before = oldest.version;
        }
    }

    /// All changes after `version`, oldest first.
    pub(crate) fn since(&self, version: u64) -> Result<Vec<Change<T>>, Gone> {
        if version < self.before {
            return Err(Gone {
                asked: version,
                oldest: self.before,
            });
        }
        let from = self.changes.partition_point(|change| change.version <= version);
        Ok(self.changes.range(from..).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history_of(count: u64) -> History {
        let mut history = History::starting_at(100);
        for _ in 0..count {
            let version = history.next_version();
            let change = Change::new(version, ChangeKind::Modified, None, Views::default());
            history.pods.push(change);
        }
        history
    }

    #[test]
    fn a_watch_from_a_version_sees_every_later_change_in_order() {
        let versions: Vec<u64> = history_of(5)
            .pods
            .since(102)
            .expect("kept")
            .iter()
            .map(|change| change.version)
            .collect();
        assert_eq!(versions, [103, 104, 105]);
    }

    #[test]
    fn a_watch_from_now_sees_nothing_yet() {
        assert!(history_of(5).pods.since(105).expect("kept").is_empty());
    }

    #[test]
    fn a_version_older_than_the_history_is_gone() {
        let history = history_of(HISTORY as u64 + 10);
        assert!(history.pods.since(109).is_err());
        assert_eq!(
            history
                .pods
                .since(110)
                .expect("the oldest version that is kept")
                .len(),
            HISTORY
        );
        assert!(history.pods.since(5).is_err());
    }

    #[test]
    fn changes_of_large_pods_make_room_sooner_and_the_newest_is_always_kept() {
        let large = |bytes| {
            let mut pod = Pod::default();
            pod.metadata.annotations = Some([("note".to_owned(), "x".repeat(bytes))].into());
            Views::same(Arc::new(pod))
        };
        let push = |history: &mut History, pod| {
            let version = history.next_version();
            history
                .pods
                .push(Change::new(version, ChangeKind::Modified, None, pod));
        };
        let mut history = History::starting_at(0);
        for _ in 0..5 {
            push(&mut history, large(HISTORY_BYTES / 6));
        }
        assert!(history.pods.since(2).is_err());
        assert_eq!(history.pods.since(3).expect("kept").len(), 2);
        push(&mut history, large(HISTORY_BYTES));
        assert_eq!(history.pods.since(5).expect("kept").len(), 1);
    }

    #[test]
    fn only_the_newest_changes_have_room_for_a_shared_line() {
        let history = history_of(SHARED_LINES as u64 + 3);
        let changes = history.pods.since(100).expect("kept");
        let shared = changes.iter().filter(|change| change.lines.is_some()).count();
        assert_eq!(shared, SHARED_LINES);
        assert!(changes[0].lines.is_none() && changes[changes.len() - 1].lines.is_some());
    }

    #[test]
    fn kinds_share_the_versions_and_not_the_history() {
        let mut history = history_of(1);
        for _ in 0..EVENT_HISTORY + 1 {
            let version = history.next_version();
            let change = Change::new(version, ChangeKind::Added, None, Views::default());
            history.events.push(change);
        }
        assert_eq!(history.pods.since(100).expect("kept").len(), 1);
        assert!(history.events.since(100).is_err());
        assert_eq!(history.version(), 101 + EVENT_HISTORY as u64 + 1);
    }
}
