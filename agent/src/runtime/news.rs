//! News for whoever looks for somebody else's pods: which events may concern them.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// How many ids of one burst of events are remembered to be waited for; the re-list makes up for the others.
const AWAITED: usize = 1024;

/// What has happened in the runtime that may concern somebody else's pods.
#[derive(Debug, Default)]
pub(crate) struct News {
    wake: Notify,
    awaited: Mutex<Awaited>,
}

/// What CRI's lists need not show yet: its events come first.
#[derive(Debug, Default)]
pub(crate) struct Awaited {
    /// Containers and sandboxes that were started.
    pub(crate) started: BTreeSet<String>,
    /// Containers and sandboxes that have ended.
    pub(crate) ended: BTreeSet<String>,
    /// Whether anything has come.
    pub(crate) any: bool,
}

impl News {
    /// A container or sandbox was started.
    pub(crate) fn started(&self, id: &str) {
        self.tell(|awaited| {
            if awaited.started.len() < AWAITED {
                awaited.started.insert(id.to_owned());
            }
        });
    }

    /// A container or sandbox has ended.
    pub(crate) fn ended(&self, id: &str) {
        self.tell(|awaited| {
            awaited.started.remove(id);
            if awaited.ended.len() < AWAITED {
                awaited.ended.insert(id.to_owned());
            }
        });
    }

    /// Something is different; what, the lists will show.
    pub(crate) fn anything(&self) {
        self.tell(|_| {});
    }

    fn tell(&self, change: impl FnOnce(&mut Awaited)) {
        let mut awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut awaited);
        awaited.any = true;
        drop(awaited);
        self.wake.notify_one();
    }

    /// Returns when there is news.
    pub(crate) async fn wait(&self) {
        self.wake.notified().await;
    }

    /// Takes what has come.
    pub(crate) fn take(&self) -> Awaited {
        std::mem::take(&mut *self.awaited.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
