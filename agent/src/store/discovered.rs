//! The pods that somebody else runs, merged into the store: which there are is for the runtime to say, and what was
//! written about their ephemeral containers outlives them, like that of pods of ours.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::jiff::Timestamp;

use super::changes::ChangeKind;
use super::disk::KeptPod;
use super::{Entry, Inner, Store, Wanted, bearer};
use crate::pod::deletion::Removal;
use crate::pod::discovered::enriched::Known;
use crate::pod::discovered::identity::{self, ListedSandbox};
use crate::pod::discovered::resolved::without_resolved;
use crate::pod::discovered::{DiscoveredPod, Owner};
use crate::pod::identity::PodKey;
use crate::pod::record::Record;
use crate::pod::source::Source;
use crate::write_threads::NotRun;

/// What one look at the runtime showed of the pods that somebody else runs.
#[derive(Debug, Default)]
pub(crate) struct Discovered {
    /// Those with a ready sandbox that are new, or look otherwise than at the last look.
    pub(crate) changed: Vec<DiscoveredPod>,
    /// The UIDs of all with a ready sandbox.
    pub(crate) ready: BTreeSet<String>,
    /// The UIDs of all with any sandbox.
    pub(crate) listed: BTreeSet<String>,
    /// Whether new ones were looked for, so that the store has all of them afterwards.
    pub(crate) complete: bool,
}

impl Store {
    /// Makes the discovered pods what the runtime shows.
    ///
    /// A pod whose last sandbox has ended stays as long as it has debug containers and the runtime knows it: a kubelet
    /// makes it a new sandbox. Once it is gone altogether, its worker writes down how they ended, and it is forgotten.
    ///
    /// Answers the UIDs of the pods that are not shown because what is known of them from before cannot be read.
    ///
    /// # Errors
    ///
    /// When the write did not come to its end. Which of the pods are in force is not known then: a call with all of them
    /// makes it so.
    pub(crate) async fn apply_discovered(
        self: &Arc<Self>,
        discovered: Discovered,
    ) -> Result<BTreeSet<String>, NotRun> {
        let store = Arc::clone(self);
        self.write_threads()
            .run(move || store.apply_discovered_blocking(discovered))
            .await
    }

    /// Whether somebody else runs the pod with this UID.
    pub(crate) fn is_foreign(&self, uid: &str) -> bool {
        self.lock().pods.get(uid).is_some_and(Entry::is_foreign)
    }

    /// The UIDs of the external pods of `sandboxes`, in their order (see [`identity`]).
    pub(crate) fn external_uids(&self, sandboxes: &[ListedSandbox]) -> Vec<String> {
        let inner = self.lock();
        identity::uids(sandboxes, |uid| {
            let entry = inner.pods.get(uid).map(|entry| bearer(&entry.key, &entry.source));
            entry.or_else(|| Some(inner.tombstones.get(uid)?.bearer.clone()))
        })
    }

    /// The sandbox that the external pod with this UID was found in; `None` for a pod of ours.
    pub(crate) fn sandbox_of_external(&self, uid: &str) -> Option<String> {
        self.lock().pods.get(uid)?.known_by.sandbox_id.clone()
    }

    /// Whether there is a pod with this UID, whoever runs it.
    pub(crate) fn has_pod(&self, uid: &str) -> bool {
        self.lock().pods.contains_key(uid)
    }

    /// How many pods of a kubelet are here; `None` where nobody looks for them, or not yet.
    pub(crate) fn kubelet_pods(&self) -> Option<usize> {
        let inner = self.lock();
        let of_kubelet = |entry: &&Entry| match entry.source {
            Source::Discovered(owner) => owner != Owner::Cri && entry.removal().is_none(),
            _ => false,
        };
        inner
            .discovered
            .then(|| inner.pods.values().filter(of_kubelet).count())
    }

    /// Whether nothing of the pod with this UID need be looked at but what the discovery sees: somebody else runs it, and
    /// it has no ephemeral containers.
    pub(crate) fn is_only_shown(&self, uid: &str) -> bool {
        let inner = self.lock();
        let entry = inner.pods.get(uid);
        entry.is_some_and(|entry| entry.is_foreign() && entry.records.is_empty() && entry.theirs().is_empty())
    }

    fn apply_discovered_blocking(&self, discovered: Discovered) -> BTreeSet<String> {
        let mut refused = BTreeSet::new();
        let Discovered {
            changed,
            ready,
            listed,
            complete,
        } = discovered;
        let before = self.lock().history.version();
        for found in changed {
            let uid = found.pod.metadata.uid.clone().unwrap_or_default();
            // Its worker may be about to bury it: it is back before that, or comes out of its grave.
            let writing = self.writing(&uid);
            let _writing = writing
                .as_ref()
                .map(|writing| writing.lock().unwrap_or_else(PoisonError::into_inner));
            let buried = self.lock().tombstones.contains_key(&uid);
            // A static pod that comes back under its UID does not run its debug containers again.
            let records = match buried.then(|| self.disk.records(&uid)) {
                None => Vec::new(),
                Some(Ok(records)) => records,
                Some(Err(error)) => {
                    tracing::error!(
                        "a pod is not shown, because its debug containers would run again: {error}"
                    );
                    refused.insert(uid);
                    continue;
                }
            };
            if buried && let Err(error) = self.disk.write_pod(&uid, &risen(&found)) {
                tracing::error!("a pod that came back is not shown yet: {error}");
                refused.insert(uid);
                continue;
            }
            let mut inner = self.lock();
            if inner.is_borne_by_another(&uid, &found) {
                tracing::error!("a pod is not shown, because another one has its UID {uid}");
                refused.insert(uid);
                continue;
            }
            inner.tombstones.remove(&uid);
            inner.show(&uid, found, records);
            drop(inner);
            self.orphan_found(&uid);
        }
        let gone: Vec<(String, Arc<Mutex<()>>)> = {
            let inner = self.lock();
            let gone = inner.pods.iter().filter(|(uid, entry)| {
                entry.is_foreign()
                    && !ready.contains(*uid)
                    && (entry.records.is_empty() || !listed.contains(*uid))
            });
            gone.map(|(uid, entry)| (uid.clone(), Arc::clone(&entry.writing)))
                .collect()
        };
        for (uid, writing) in gone {
            self.hide(&uid, &writing, listed.contains(&uid));
        }
        let version = {
            let mut inner = self.lock();
            inner.discovered = complete;
            inner.history.version()
        };
        // Most looks see nothing new: nobody is woken for them.
        if version != before {
            self.announce(version);
        }
        refused
    }

    /// Takes away a pod of which there is no ready sandbox any more; `listed` says whether the runtime has any of it.
    /// Whoever writes its first debug container meanwhile is waited for, so that no record is without a pod.
    #[expect(
        clippy::disallowed_methods,
        reason = "the state folder is root's alone; callers are on threads that may block"
    )]
    fn hide(&self, uid: &str, writing: &Arc<Mutex<()>>, listed: bool) {
        let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
        let version = {
            let mut inner = self.lock();
            let Some(entry) = inner.held(uid, writing) else {
                return;
            };
            if !entry.records.is_empty() {
                if !listed {
                    inner.let_go(uid);
                }
                return;
            }
            entry.wake.notify_one();
            let version = inner.publish(uid, ChangeKind::Deleted);
            inner.pods.remove(uid);
            version
        };
        self.announce(version);
        // Only one whose first debug container could not be written down has a folder.
        if self.disk.pod_dir(uid).exists()
            && let Err(error) = self.disk.remove_pod(uid)
        {
            tracing::warn!("{error}");
        }
    }
}

/// What is kept of a pod that was buried and came back: it is no tombstone any more.
fn risen(found: &DiscoveredPod) -> KeptPod {
    KeptPod {
        pod: without_resolved(&found.pod),
        source: Source::Discovered(found.owner),
        incarnation: 0,
        removal: None,
        evicted: None,
        gone_since: None,
    }
}

impl Inner {
    /// Whether the UID is that of another pod than the one that was found: then nothing of it is shown under that UID.
    fn is_borne_by_another(&self, uid: &str, found: &DiscoveredPod) -> bool {
        let key = PodKey::of(&found.pod);
        let another = |entry: &Entry| entry.is_foreign() && entry.key != key;
        self.pods.get(uid).is_some_and(another)
    }

    /// Shows a pod as it was found; `records` are what is known of its ephemeral containers from before.
    fn show(&mut self, uid: &str, found: DiscoveredPod, records: Vec<Record>) {
        let source = Source::Discovered(found.owner);
        let key = PodKey::of(&found.pod);
        let kubernetes = self.said_of(&key, found.owner);
        let known_by = Known {
            as_of: kubernetes.as_ref().and(self.kubernetes_away),
            kubernetes,
            sandbox_id: Some(found.sandbox_id),
            manifest: found.manifest.map(Arc::new),
            found: Some(Arc::new(found.pod)),
            kept: false,
        };
        let pod = known_by.pod().unwrap_or_default();
        match self.pods.get_mut(uid) {
            None => {
                let orphans = self.orphans.remove(uid).map(|orphans| orphans.records);
                let records = match records.is_empty() {
                    true => orphans.unwrap_or_default(),
                    false => records,
                };
                let mut entry = Entry::new(pod, source, 0, Wanted::Running, records);
                entry.key = key;
                entry.known_by = known_by;
                self.insert(entry);
            }
            Some(entry) if entry.is_foreign() => {
                let same = *entry.pod == pod
                    && entry.source == source
                    && entry.wanted == Wanted::Running
                    && entry.known_by.spec_from() == known_by.spec_from();
                // Another value even where it says the same: by that the worker knows that it is to look.
                entry.pod = Arc::new(pod);
                entry.known_by = known_by;
                entry.source = source;
                entry.wanted = Wanted::Running;
                entry.wake.notify_one();
                if !same {
                    self.publish(uid, ChangeKind::Modified);
                }
            }
            // It is ours: whoever made a sandbox under its UID has to live with it.
            Some(_) => {}
        }
    }

    /// Has the worker of a pod with debug containers write down how they ended, and bury it.
    fn let_go(&mut self, uid: &str) {
        let Some(entry) = self.pods.get_mut(uid) else {
            return;
        };
        if entry.removal().is_none() {
            entry.wanted = Wanted::Removed(Removal {
                grace_seconds: 0,
                since: Timestamp::now(),
            });
            entry.wake.notify_one();
            self.publish(uid, ChangeKind::Modified);
        }
    }
}

#[cfg(test)]
#[path = "discovered_tests.rs"]
mod tests;
