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
    /// Containers and sandboxes that were removed.
    pub(crate) removed: BTreeSet<String>,
    /// Whether anything has come.
    pub(crate) any: bool,
}

impl Awaited {
    /// Adds what has come since.
    pub(crate) fn extend(&mut self, news: Awaited) {
        self.started.extend(news.started);
        self.ended.extend(news.ended);
        self.removed.extend(news.removed);
    }

    /// Strikes out what the lists show by now, each by its ids: the `ready` sandboxes, the other sandboxes, the containers.
    pub(crate) fn settle(
        &mut self,
        ready: &BTreeSet<&str>,
        others: &BTreeSet<&str>,
        containers: &BTreeSet<&str>,
    ) {
        let is_in = |ids: &BTreeSet<&str>, id: &String| ids.contains(id.as_str());
        self.started
            .retain(|id| !is_in(ready, id) && !is_in(containers, id));
        self.ended.retain(|id| is_in(ready, id));
        self.removed
            .retain(|id| is_in(ready, id) || is_in(others, id) || is_in(containers, id));
    }

    /// Whether the lists show everything that has happened.
    pub(crate) fn is_settled(&self) -> bool {
        self.started.is_empty() && self.ended.is_empty() && self.removed.is_empty()
    }
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

    /// A container or sandbox was removed.
    pub(crate) fn removed(&self, id: &str) {
        self.tell(|awaited| {
            awaited.started.remove(id);
            if awaited.removed.len() < AWAITED {
                awaited.removed.insert(id.to_owned());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_awaited_until_the_lists_show_it() {
        // What happened to the sandbox or container "a", the lists, whether they show it.
        type Ids = &'static [&'static str];
        type Row = (&'static str, Ids, Ids, Ids, bool);
        #[rustfmt::skip]
        let table: &[Row] = &[
            ("started", &[],    &[],    &[],    false),
            ("started", &["a"], &[],    &[],    true),
            ("started", &[],    &[],    &["a"], true),
            ("started", &[],    &["a"], &[],    false),
            ("ended",   &["a"], &[],    &[],    false),
            ("ended",   &[],    &["a"], &[],    true),
            ("ended",   &[],    &[],    &[],    true),
            ("removed", &["a"], &[],    &[],    false),
            ("removed", &[],    &["a"], &[],    false),
            ("removed", &[],    &[],    &["a"], false),
            ("removed", &[],    &[],    &[],    true),
        ];
        for (happened, ready, others, containers, shown) in table {
            let news = News::default();
            match *happened {
                "started" => news.started("a"),
                "ended" => news.ended("a"),
                _ => news.removed("a"),
            }
            let mut awaited = Awaited::default();
            awaited.extend(news.take());
            let ids = |ids: Ids| ids.iter().copied().collect();
            awaited.settle(&ids(ready), &ids(others), &ids(containers));
            assert_eq!(
                awaited.is_settled(),
                *shown,
                "{happened} {ready:?} {others:?} {containers:?}"
            );
        }
    }
}
