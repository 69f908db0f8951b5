//! News for whoever looks for somebody else's pods: which events may concern them.

use std::collections::{BTreeSet, HashMap};
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
    /// Containers and sandboxes that were created.
    pub(crate) created: BTreeSet<String>,
    /// Containers and sandboxes that were started.
    pub(crate) started: BTreeSet<String>,
    /// Containers and sandboxes that have ended.
    pub(crate) ended: BTreeSet<String>,
    /// Containers and sandboxes that were removed.
    pub(crate) removed: BTreeSet<String>,
    /// Whether anything has come.
    pub(crate) any: bool,
}

/// How CRI's lists show a sandbox or a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    /// A sandbox that is ready, or a container that runs.
    Runs,
    /// A sandbox that is not ready: it has ended, or is not ready yet.
    NotReady,
    /// A container that has not started.
    Created,
    /// A container that has ended, or of which the runtime knows nothing any more.
    Exited,
}

impl Awaited {
    /// Adds what has come since.
    pub(crate) fn extend(&mut self, news: Awaited) {
        self.created.extend(news.created);
        self.started.extend(news.started);
        self.ended.extend(news.ended);
        self.removed.extend(news.removed);
    }

    /// Removes what the lists show by now: `listed` holds each listed sandbox and container by its id.
    pub(crate) fn settle(&mut self, listed: &HashMap<&str, Listed>) {
        let state = |id: &String| listed.get(id.as_str()).copied();
        self.created.retain(|id| state(id).is_none());
        self.started
            .retain(|id| !matches!(state(id), Some(Listed::Runs | Listed::Exited)));
        self.ended
            .retain(|id| matches!(state(id), Some(Listed::Runs | Listed::Created)));
        self.removed.retain(|id| state(id).is_some());
    }

    /// Whether the lists show everything that has happened.
    pub(crate) fn is_settled(&self) -> bool {
        [&self.created, &self.started, &self.ended, &self.removed]
            .iter()
            .all(|ids| ids.is_empty())
    }
}

impl News {
    /// A container or sandbox was created.
    pub(crate) fn created(&self, id: &str) {
        self.tell(|awaited| remember(&mut awaited.created, id));
    }

    /// A container or sandbox was started.
    pub(crate) fn started(&self, id: &str) {
        self.tell(|awaited| remember(&mut awaited.started, id));
    }

    /// A container or sandbox has ended.
    pub(crate) fn ended(&self, id: &str) {
        self.tell(|awaited| {
            awaited.started.remove(id);
            remember(&mut awaited.ended, id);
        });
    }

    /// A container or sandbox was removed.
    pub(crate) fn removed(&self, id: &str) {
        self.tell(|awaited| {
            awaited.created.remove(id);
            awaited.started.remove(id);
            remember(&mut awaited.removed, id);
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

/// Adds an id where there is room for it.
fn remember(ids: &mut BTreeSet<String>, id: &str) {
    if ids.len() < AWAITED {
        ids.insert(id.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_awaited_until_the_lists_show_it() {
        use Listed::{Created, Exited, NotReady, Runs};
        // What happened to a sandbox or container, and in which of these states the lists show that.
        let states = [None, Some(Runs), Some(NotReady), Some(Created), Some(Exited)];
        let table = [
            ("created", [false, true, true, true, true]),
            ("started", [false, true, false, false, true]),
            ("ended", [true, false, true, false, true]),
            ("removed", [true, false, false, false, false]),
        ];
        for (happened, shown) in table {
            for (state, shown) in states.into_iter().zip(shown) {
                let news = News::default();
                match happened {
                    "created" => news.created("a"),
                    "started" => news.started("a"),
                    "ended" => news.ended("a"),
                    _ => news.removed("a"),
                }
                let mut awaited = Awaited::default();
                awaited.extend(news.take());
                awaited.settle(&state.map(|state| ("a", state)).into_iter().collect());
                assert_eq!(awaited.is_settled(), shown, "{happened} {state:?}");
            }
        }
    }
}
