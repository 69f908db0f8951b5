//! The history of the served pods: every change under its own version, for lists and watches.

use std::collections::VecDeque;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

/// How many changes are kept for watches that resume; older ones answer `410 Gone`, and clients list again.
const HISTORY: usize = 1024;
/// How many containers the pods of all kept changes may have together: each change holds its pod whole, and a pod with
/// many debug containers is large (about 3 KB for each).
const CONTAINERS: usize = 2048;

/// What happened to a pod, in the words of a watch event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    /// It is new.
    Added,
    /// Something of it changed.
    Modified,
    /// It is gone; the object is its last state.
    Deleted,
}

/// One change of one served pod.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// The version that this change made: the object's `metadata.resourceVersion`.
    pub(crate) version: u64,
    /// What happened.
    pub(crate) kind: ChangeKind,
    /// The pod before, unless it was added: a watch with a selector tells by it whether the pod came or left.
    pub(crate) previous: Option<Arc<Pod>>,
    /// The pod afterwards.
    pub(crate) pod: Arc<Pod>,
}

/// The version asked for is older than the history: the client must list again (HTTP 410).
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("version {asked} is too old: the history begins at {oldest}")]
pub(crate) struct Gone {
    asked: u64,
    oldest: u64,
}

/// The newest changes, oldest first.
#[derive(Debug)]
pub(crate) struct History {
    changes: VecDeque<Change>,
    /// The containers of all their pods.
    containers: usize,
    /// The version before the first change that is kept.
    before: u64,
    version: u64,
}

impl History {
    /// An empty history that goes on from `version`.
    pub(crate) fn starting_at(version: u64) -> History {
        History {
            changes: VecDeque::new(),
            containers: 0,
            before: version,
            version,
        }
    }

    /// The newest version.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Takes the next version; the caller builds the object with it and hands it to [`History::push`].
    pub(crate) fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// Adds a change; the oldest ones make room.
    pub(crate) fn push(&mut self, change: Change) {
        self.containers += containers(&change.pod);
        self.changes.push_back(change);
        while self.changes.len() > HISTORY || (self.containers > CONTAINERS && self.changes.len() > 1) {
            let Some(oldest) = self.changes.pop_front() else {
                break;
            };
            self.containers -= containers(&oldest.pod);
            self.before = oldest.version;
        }
    }

    /// All changes after `version`, oldest first.
    pub(crate) fn since(&self, version: u64) -> Result<Vec<Change>, Gone> {
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

/// How many containers of all kinds a pod has; one without any counts as well.
fn containers(pod: &Pod) -> usize {
    let spec = pod.spec.as_ref();
    let count = spec.map_or(0, |spec| {
        spec.containers.len()
            + spec.init_containers.as_ref().map_or(0, Vec::len)
            + spec.ephemeral_containers.as_ref().map_or(0, Vec::len)
    });
    count.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history_of(count: u64) -> History {
        let mut history = History::starting_at(100);
        for _ in 0..count {
            let version = history.next_version();
            history.push(Change {
                version,
                kind: ChangeKind::Modified,
                previous: None,
                pod: Arc::default(),
            });
        }
        history
    }

    #[test]
    fn a_watch_from_a_version_sees_every_later_change_in_order() {
        let versions: Vec<u64> = history_of(5)
            .since(102)
            .expect("kept")
            .iter()
            .map(|change| change.version)
            .collect();
        assert_eq!(versions, [103, 104, 105]);
    }

    #[test]
    fn a_watch_from_now_sees_nothing_yet() {
        assert!(history_of(5).since(105).expect("kept").is_empty());
    }

    #[test]
    fn a_version_older_than_the_history_is_gone() {
        let history = history_of(HISTORY as u64 + 10);
        assert!(history.since(109).is_err());
        assert_eq!(
            history.since(110).expect("the oldest version that is kept").len(),
            HISTORY
        );
        assert!(history.since(5).is_err());
    }

    #[test]
    fn changes_of_large_pods_make_room_sooner_and_the_newest_is_always_kept() {
        let ephemeral_containers = Some(vec![Default::default(); CONTAINERS / 2]);
        let spec = Some(k8s_openapi::api::core::v1::PodSpec {
            ephemeral_containers,
            ..Default::default()
        });
        let pod = Arc::new(Pod {
            spec,
            ..Pod::default()
        });
        let mut history = History::starting_at(0);
        for _ in 0..5 {
            let version = history.next_version();
            history.push(Change {
                version,
                kind: ChangeKind::Modified,
                previous: None,
                pod: Arc::clone(&pod),
            });
        }
        assert!(history.since(2).is_err());
        assert_eq!(history.since(3).expect("kept").len(), 2);
    }
}
