//! What wakes the workers, and what they find when they wake: a pod that is to be looked at anew, containers
//! that have ended.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::runtime::events::ContainerEventKind;

/// How many ends of containers that nobody owns yet are remembered; most are other people's.
const UNCLAIMED: usize = 256;

/// What came for one pod since its worker last looked. Signals that come together are one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Whether the runtime has something new of the pod.
    pub(crate) dirty: bool,
    /// The containers whose process has ended, by id: the runtime may need a moment until it says so.
    pub(crate) exited: BTreeSet<String>,
}

/// The signals of one pod.
#[derive(Debug)]
pub(crate) struct Signal {
    /// Wakes the pod's worker.
    pub(crate) wake: Arc<Notify>,
    seen: Mutex<Seen>,
}

impl Signal {
    /// Takes what has come.
    pub(crate) fn take(&self) -> Seen {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn mark(&self, exited: Option<&str>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.dirty = true;
        seen.exited.extend(exited.map(str::to_owned));
        drop(seen);
        self.wake.notify_one();
    }
}

/// The signals of all pods, and which container or sandbox is whose.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    pods: BTreeMap<String, Arc<Signal>>,
    /// The pod's UID by the id of each of its containers and sandboxes.
    owners: HashMap<String, String>,
    /// Containers that ended before anybody owned them, oldest first: a command may be over before the call that
    /// started it has returned.
    unclaimed: VecDeque<String>,
}

impl Signals {
    /// The signals of a pod; its worker finds everything new.
    pub(crate) fn of_pod(&self, uid: &str, wake: Arc<Notify>) -> Arc<Signal> {
        let signal = Arc::new(Signal {
            wake,
            seen: Mutex::new(Seen {
                dirty: true,
                exited: BTreeSet::new(),
            }),
        });
        self.lock().pods.insert(uid.to_owned(), Arc::clone(&signal));
        signal
    }

    /// Forgets a pod whose worker has ended.
    pub(crate) fn forget(&self, uid: &str) {
        let mut inner = self.lock();
        inner.pods.remove(uid);
        inner.owners.retain(|_, owner| owner != uid);
    }

    /// Says which containers and sandboxes are the pod's, so that their events find it.
    pub(crate) fn own<'a>(&self, uid: &str, ids: impl Iterator<Item = &'a str>) {
        let mut inner = self.lock();
        let ids: BTreeSet<&str> = ids.collect();
        inner
            .owners
            .retain(|id, owner| owner != uid || ids.contains(id.as_str()));
        for id in ids {
            inner.owners.insert(id.to_owned(), uid.to_owned());
            let ended = inner.unclaimed.iter().position(|unclaimed| unclaimed == id);
            if let Some(place) = ended {
                inner.unclaimed.remove(place);
                if let Some(signal) = inner.pods.get(uid) {
                    signal.mark(Some(id));
                }
            }
        }
    }

    /// Brings an event to its pod, and answers that pod's UID; none where nobody knows whose it is.
    pub(crate) fn event(&self, id: &str, kind: ContainerEventKind) -> Option<String> {
        let mut inner = self.lock();
        let exited = kind == ContainerEventKind::Exited;
        if let Some(uid) = inner.owners.get(id)
            && let Some(signal) = inner.pods.get(uid)
        {
            signal.mark(exited.then_some(id));
            return Some(uid.clone());
        }
        if exited {
            if inner.unclaimed.len() == UNCLAIMED {
                inner.unclaimed.pop_front();
            }
            inner.unclaimed.push_back(id.to_owned());
        }
        None
    }

    /// Has one pod looked at anew.
    pub(crate) fn dirty(&self, uid: &str) {
        if let Some(signal) = self.lock().pods.get(uid) {
            signal.mark(None);
        }
    }

    /// Has every pod for which `counts` holds looked at anew.
    pub(crate) fn relist(&self, counts: impl Fn(&str) -> bool) {
        let inner = self.lock();
        let pods = inner.pods.iter().filter(|(uid, _)| counts(uid));
        pods.for_each(|(_, signal)| signal.mark(None));
    }

    /// Has every pod planned anew.
    pub(crate) fn wake_all(&self) {
        self.lock()
            .pods
            .values()
            .for_each(|signal| signal.wake.notify_one());
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_ends_before_its_start_has_returned_is_noticed_once_it_is_owned() {
        let signals = Signals::default();
        let signal = signals.of_pod("u1", Arc::default());
        signal.take();
        assert!(
            signals.event("c1", ContainerEventKind::Exited).is_none(),
            "nobody owns it yet"
        );
        signals.own("u1", ["c1"].into_iter());
        assert_eq!(signal.take().exited, BTreeSet::from(["c1".to_owned()]));
        signals.own("u1", ["c1"].into_iter());
        assert_eq!(signal.take(), Seen::default(), "it is told once");
    }

    #[test]
    fn ends_that_nobody_claims_are_forgotten_in_their_turn() {
        let signals = Signals::default();
        for index in 0..2 * UNCLAIMED {
            signals.event(&index.to_string(), ContainerEventKind::Exited);
        }
        assert_eq!(signals.lock().unclaimed.len(), UNCLAIMED);
    }

    #[test]
    fn an_event_wakes_only_the_pod_whose_container_it_is() {
        let signals = Signals::default();
        let (one, other) = (
            signals.of_pod("u1", Arc::default()),
            signals.of_pod("u2", Arc::default()),
        );
        one.take();
        other.take();
        signals.own("u1", ["c1"].into_iter());
        let owner = signals.event("c1", ContainerEventKind::Started);
        assert_eq!(owner.as_deref(), Some("u1"));
        assert!(one.take().dirty);
        assert!(!other.take().dirty);
    }
}
