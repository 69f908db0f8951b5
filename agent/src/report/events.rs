//! Events of the API server's pods, in the API server: so that `kubectl describe` shows there who debugged what.
//!
//! What is to be told are the events that the store keeps; each goes under its own name, so that one whose answer was lost
//! is not there twice. While the API server is away they wait in the store, where the newest have room; what had to make
//! room, and what was still to be told when the agent ended, is lost.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::trouble::{Patience, Trouble, Waits, answer, answers_again, client, sooner};
use crate::kubernetes::api_server::ApiServer;
use crate::store::Store;

/// Requests come no closer together than this.
const PACE: Duration = Duration::from_millis(100);
/// How often one event is counted up in the API server, however often it happens.
const COUNTED_EVERY: Duration = Duration::from_secs(10);

/// Tells events until `shutdown`.
pub(crate) async fn run(api_server: Arc<ApiServer>, store: Arc<Store>, shutdown: CancellationToken) {
    let mut report = Report {
        api_server,
        store,
        told: HashMap::new(),
        waiting: HashSet::new(),
        lost: 0,
        patience: Patience::default(),
        waits: Waits::default(),
    };
    shutdown.run_until_cancelled(report.run()).await;
}

/// How an event stands in the API server.
#[derive(Clone, Copy, Debug)]
struct Told {
    count: i32,
    at: Instant,
}

/// What was told, beside what is to be.
struct Report {
    api_server: Arc<ApiServer>,
    store: Arc<Store>,
    /// By the event's UID; never more than the store keeps.
    told: HashMap<String, Told>,
    /// The UIDs of those that were never told.
    waiting: HashSet<String>,
    /// How many of those the store has dropped since the API server answered last.
    lost: usize,
    patience: Patience,
    /// What waits alone: events by their UID, and namespaces in which nothing may be told.
    waits: Waits,
}

impl Report {
    async fn run(&mut self) {
        let (mut events, mut pods) = (self.store.versions_of::<Event>(), self.store.versions());
        let mut reach = self.api_server.reach();
        loop {
            events.mark_unchanged();
            pods.mark_unchanged();
            reach.mark_unchanged();
            let wait = self.pass().await;
            tokio::select! {
                () = answers_again(&mut reach), if wait.is_some() => self.waits.end(),
                changed = events.changed(), if self.patience.is_calm() => if changed.is_err() { return },
                // A pod that the API server begins to know may have events from before.
                changed = pods.changed(), if self.patience.is_calm() => if changed.is_err() { return },
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
        }
    }

    /// Tells what is new, the oldest first. Answers after how long there is more to do, if that is known.
    async fn pass(&mut self) -> Option<Duration> {
        let events = self.store.events_to_tell();
        self.keep_account(&events);
        let mut again: Option<Duration> = None;
        for event in events {
            let uid = event.metadata.uid.clone().unwrap_or_default();
            let count = event.count.unwrap_or(1);
            let told = self.told.get(&uid).copied();
            if let Some(told) = told {
                if told.count >= count {
                    continue;
                }
                let due = COUNTED_EVERY.saturating_sub(told.at.elapsed());
                if !due.is_zero() {
                    again = sooner(again, due);
                    continue;
                }
            }
            let namespace = event.metadata.namespace.clone().unwrap_or_default();
            let waits = self.waits.remaining(&uid).max(self.waits.remaining(&namespace));
            if let Some(remaining) = waits {
                again = sooner(again, remaining);
                continue;
            }
            let mut count = count;
            match self.tell(&event, told.is_some()).await {
                Ok(()) | Err(Trouble::Gone) => {}
                // Its first telling had arrived after all: what has happened since is counted up with the next.
                Err(Trouble::Exists) => count = 0,
                Err(trouble @ (Trouble::Refused(_) | Trouble::Conflict)) => {
                    tracing::warn!(reason = event.reason, "an event is not reported: {trouble}");
                }
                Err(trouble) if trouble.is_of_one() => {
                    let of_namespace = matches!(trouble, Trouble::Forbidden(_) | Trouble::Denied(_));
                    let key = if of_namespace { &namespace } else { &uid };
                    let (wait, is_news) = self.waits.after(key, &trouble, rand::random());
                    if is_news {
                        tracing::warn!(
                            namespace,
                            "the API server shows no events of debuglet's: {trouble} (rights: create events, patch events)"
                        );
                    }
                    self.patience.reset();
                    again = sooner(again, wait);
                    tokio::time::sleep(PACE).await;
                    continue;
                }
                Err(trouble) => {
                    // The next time others come first: what cannot be read may be this answer alone.
                    let wait = self.patience.after(&trouble, rand::random());
                    self.waits.after(&uid, &trouble, rand::random());
                    return Some(wait);
                }
            }
            self.patience.reset();
            self.waits.forget(&uid);
            self.waits.forget(&namespace);
            self.waiting.remove(&uid);
            let at = Instant::now();
            self.told.insert(uid, Told { count, at });
            if self.lost > 0 {
                tracing::warn!("{} events were dropped while the API server was away", self.lost);
                self.lost = 0;
            }
            tokio::time::sleep(PACE).await;
        }
        self.patience.reset();
        again
    }

    /// Forgets what the store keeps no more, and counts what of it was never told.
    fn keep_account(&mut self, events: &[Arc<Event>]) {
        let kept: HashSet<&str> = events
            .iter()
            .filter_map(|event| event.metadata.uid.as_deref())
            .collect();
        self.told.retain(|uid, _| kept.contains(uid.as_str()));
        let namespaces: HashSet<&str> = events
            .iter()
            .filter_map(|event| event.metadata.namespace.as_deref())
            .collect();
        self.waits
            .keep(|key| kept.contains(key) || namespaces.contains(key));
        let before = self.waiting.len();
        self.waiting.retain(|uid| kept.contains(uid.as_str()));
        self.lost += before - self.waiting.len();
        let new = kept.into_iter().filter(|uid| !self.told.contains_key(*uid));
        self.waiting.extend(new.map(str::to_owned));
    }

    /// Makes the event in the API server, or, where it is there, counts it up.
    async fn tell(&self, event: &Event, is_there: bool) -> Result<(), Trouble> {
        let client = client(&self.api_server).await?;
        let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
        let name = event.metadata.name.as_deref().unwrap_or_default();
        let events = Api::<Event>::namespaced(client, namespace);
        if is_there {
            let patch = json!({"count": event.count, "lastTimestamp": event.last_timestamp});
            let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
            match answer(&self.api_server, events.patch(name, &parameters, &patch)).await {
                // The API server keeps events for an hour only.
                Err(Trouble::Gone) => {}
                counted => return counted.map(drop),
            }
        }
        let created = as_told(event);
        answer(&self.api_server, events.create(&PostParams::default(), &created))
            .await
            .map(drop)
    }
}

/// The event as it is made in the API server, which gives it a UID and a version of its own.
fn as_told(event: &Event) -> Event {
    let mut event = event.clone();
    event.metadata.uid = None;
    event.metadata.resource_version = None;
    event.metadata.creation_timestamp = None;
    event
}
