//! Ephemeral containers that were accepted here while the API server did not answer, or did not let us add them, are
//! appended to its pod once it does: so the cluster shows who debugs what.
//!
//! Only what exists in the runtime is appended: a kubelet that finds a container under the name of a new entry takes it
//! as that entry's, and one that finds none starts one. So each is looked for right before.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::trouble::{Trouble, Waits};
use crate::kubernetes::api_server::{ApiServer, Reach};
use crate::kubernetes::back_off::{BackOff, Growth};
use crate::kubernetes::ephemeral_containers::{Addition, AdditionError};
use crate::pod::container_path::ContainerPath;
use crate::pod::identity::PodKey;
use crate::pod::observed::{ContainerState, ObservedPod};
use crate::pod::record::{Phase, Record};
use crate::runtime::client::Runtime;
use crate::store::Store;
use crate::store::events::{Happening, Severity};
use crate::store::kubernetes::KubernetesChange;
use crate::store::union::LocalEntry;

/// Appends what the API server has not heard of, until `shutdown`.
pub(crate) async fn run(
    api_server: Arc<ApiServer>,
    store: Arc<Store>,
    runtime: Runtime,
    shutdown: CancellationToken,
) {
    let mut versions = store.versions();
    let mut reach = api_server.reach();
    let mut appender = Appender {
        api_server,
        store,
        runtime,
        settled: BTreeSet::new(),
        not_before: None,
        back_off: BackOff::new(Growth::SILENCE),
        waits: Waits::default(),
        without_right: false,
    };
    loop {
        // Seen before the pass, so that a change that comes meanwhile wakes us again.
        versions.borrow_and_update();
        if reach.has_changed().unwrap_or(false) && matches!(*reach.borrow_and_update(), Reach::Answers) {
            appender.begin_anew();
        }
        let Some(again) = shutdown.run_until_cancelled(appender.pass()).await else {
            return;
        };
        let due = again.unwrap_or_else(Instant::now);
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = versions.changed() => if changed.is_err() { return },
            changed = reach.changed() => match changed {
                Ok(()) => reach.mark_changed(),
                Err(_) => return,
            },
            () = tokio::time::sleep_until(due), if again.is_some() => {}
        }
    }
}

struct Appender {
    api_server: Arc<ApiServer>,
    store: Arc<Store>,
    runtime: Runtime,
    /// UID and name of the entries of which all is said: nothing is tried again for them. Bounded by the records.
    settled: BTreeSet<(String, String)>,
    /// When the API server may be asked again.
    not_before: Option<Instant>,
    /// The pauses while it does not answer.
    back_off: BackOff,
    /// The pods that wait alone, by their UID.
    waits: Waits,
    /// Whether it has refused us the right, and that was said.
    without_right: bool,
}

impl Appender {
    /// Forgets how it was before: the API server answers again, or another one does.
    fn begin_anew(&mut self) {
        self.not_before = None;
        self.back_off.reset();
        self.waits.end();
    }

    /// Appends what there is to append. Answers when that is to be tried again, though nothing has changed.
    async fn pass(&mut self) -> Option<Instant> {
        let mut by_pod: BTreeMap<String, Vec<LocalEntry>> = BTreeMap::new();
        let mut named = BTreeSet::new();
        for entry in self.store.local_entries() {
            let key = (entry.uid.clone(), entry.record.spec.name.clone());
            if !self.settled.contains(&key) {
                by_pod.entry(entry.uid.clone()).or_default().push(entry);
            }
            named.insert(key);
        }
        self.settled.retain(|key| named.contains(key));
        self.waits.keep(|uid| by_pod.contains_key(uid));
        let mut again: Option<Instant> = None;
        for (uid, entries) in by_pod {
            let (differing, local): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.differs);
            for entry in &differing {
                self.tell_difference(entry);
            }
            // Those without a container are looked at again when their record moves on.
            let mut local: Vec<LocalEntry> = local
                .into_iter()
                .filter(|entry| was_created(&entry.record))
                .collect();
            let Some(LocalEntry { namespace, name, .. }) = local.first() else {
                continue;
            };
            let key = PodKey {
                namespace: namespace.clone(),
                name: name.clone(),
                uid: uid.clone(),
            };
            if let Some(at) = self.waits_until(&uid) {
                again = Some(again.map_or(at, |sooner| sooner.min(at)));
                continue;
            }
            match self.runtime.observe_pod(&key, true, &HashMap::new()).await {
                Ok(observed) => local.retain(|entry| self.exists(entry, &observed)),
                Err(error) => {
                    tracing::warn!("it is not known which debug containers exist: {error}");
                    self.pause();
                    local.clear();
                }
            }
            if !local.is_empty() {
                self.append(&local).await;
            }
            if let Some(at) = self.waits_until(&uid) {
                again = Some(again.map_or(at, |sooner| sooner.min(at)));
            }
        }
        again
    }

    /// When this pod may be asked for again, if that is not now.
    fn waits_until(&self, uid: &str) -> Option<Instant> {
        let now = Instant::now();
        let alone = self.waits.remaining(uid).map(|remaining| now + remaining);
        self.not_before.filter(|at| *at > now).max(alone)
    }

    /// Whether the entry's container is there for a kubelet to find. One that has ended and is gone never comes back.
    fn exists(&mut self, entry: &LocalEntry, observed: &ObservedPod) -> bool {
        let found = observed.of_record(&entry.record);
        let there = found.is_some_and(|found| {
            found.ours && matches!(found.state, ContainerState::Running | ContainerState::Exited)
        });
        if !there && matches!(entry.record.phase, Phase::Ended { .. }) {
            self.settle(entry);
        }
        there
    }

    /// Appends entries of one pod, which waits where that is to be tried again.
    async fn append(&mut self, entries: &[LocalEntry]) {
        let Some(first) = entries.first() else { return };
        let addition = Addition {
            namespace: first.namespace.clone(),
            name: first.name.clone(),
            uid: first.uid.clone(),
            behind: self.store.names_in_api_server(&first.uid),
            containers: entries.iter().map(|entry| entry.record.spec.clone()).collect(),
        };
        match self.api_server.add_ephemeral_containers(&addition, false).await {
            Ok(pod) => {
                self.answered(&first.uid);
                self.without_right = false;
                for entry in entries {
                    let name = &entry.record.spec.name;
                    let message = format!("The API server knows of ephemeral container {name} now");
                    self.tell(entry, Severity::Normal, "EphemeralContainerAppended", message);
                    self.settle(entry);
                }
                self.store
                    .apply_kubernetes(KubernetesChange::Written(Box::new(pod)));
            }
            Err(AdditionError::Refused(status)) => {
                // One that is refused does not hold up the others.
                if entries.len() > 1 {
                    for entry in entries {
                        Box::pin(self.append(std::slice::from_ref(entry))).await;
                        if self.waits_until(&entry.uid).is_some() {
                            return;
                        }
                    }
                    return;
                }
                self.answered(&first.uid);
                let name = &first.record.spec.name;
                let message = format!(
                    "Ephemeral container {name} stays on this node alone: the API server refuses it: {}",
                    status.message
                );
                self.tell(first, Severity::Warning, "EphemeralContainerRefused", message);
                self.settle(first);
            }
            Err(error @ AdditionError::NotAllowed(_)) => {
                // Elsewhere it may be granted. Nothing tells when it is here.
                let trouble = Trouble::Forbidden(error.to_string());
                let (_, is_news) = self.waits.after(&first.uid, &trouble, rand::random());
                if is_news && !std::mem::replace(&mut self.without_right, true) {
                    tracing::warn!(
                        "ephemeral containers of this node are not appended to the cluster's pods: {error}"
                    );
                }
            }
            // The watch brings its end, and with it the end of the entry; until then there is no hurry.
            Err(AdditionError::NoSuchPod) => {
                self.waits.after(&first.uid, &Trouble::Gone, rand::random());
            }
            Err(AdditionError::NoAnswer(reason)) => {
                // The next time others come first: it may be this pod alone.
                self.waits
                    .after(&first.uid, &Trouble::Away(reason), rand::random());
                self.pause();
            }
        }
    }

    /// The API server has answered, and said what there is to say of this pod.
    fn answered(&mut self, uid: &str) {
        self.not_before = None;
        self.back_off.reset();
        self.waits.forget(uid);
    }

    fn tell_difference(&mut self, entry: &LocalEntry) {
        let name = &entry.record.spec.name;
        let message = format!(
            "Ephemeral container {name} means two things: the one that was accepted on this node, and another one in the \
             API server's pod. Each stays as it is."
        );
        self.tell(entry, Severity::Warning, "EphemeralContainerConflict", message);
        self.settle(entry);
    }

    fn tell(&self, entry: &LocalEntry, severity: Severity, reason: &'static str, message: String) {
        let (namespace, pod) = (&entry.namespace, &entry.name);
        match severity {
            Severity::Normal => tracing::info!("{namespace}/{pod}: {message}"),
            Severity::Warning => tracing::warn!("{namespace}/{pod}: {message}"),
        }
        let name = entry.record.spec.name.clone();
        let happening = Happening {
            severity,
            reason,
            message,
            container: Some(ContainerPath::Ephemeral(name)),
        };
        self.store.record_event(&entry.uid, happening);
    }

    fn settle(&mut self, entry: &LocalEntry) {
        self.settled
            .insert((entry.uid.clone(), entry.record.spec.name.clone()));
    }

    fn pause(&mut self) {
        self.not_before = Some(Instant::now() + self.back_off.next(rand::random()));
    }
}

/// Whether there was a container of it.
fn was_created(record: &Record) -> bool {
    match &record.phase {
        Phase::Accepted => false,
        Phase::Created(_) => true,
        Phase::Stopping { created } | Phase::Ended { created, .. } => created.is_some(),
    }
}
