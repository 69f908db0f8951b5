//! The worker's side: what is wanted of a pod, how its launches advance on disk, what it reports.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use k8s_openapi::api::core::v1::{EphemeralContainer, Pod, PodStatus};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;

use super::changes::ChangeKind;
use super::disk::{DiskError, KeptPod};
use super::{Entry, Store, Tombstone, Wanted};
use crate::pod::deletion::Removal;
use crate::pod::launch::Launch;
use crate::pod::record::{Phase, Record};
use crate::pod::source::Source;

/// How long the records of a pod that is gone are kept.
const TOMBSTONE_LIFE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How many pods that are gone are remembered; the oldest make room.
const TOMBSTONES: usize = 1000;

/// Why a record did not advance. It is as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdvanceError {
    /// The pod or the record is not there any more.
    #[error("the record is gone")]
    Gone,
    /// The pod cannot be forgotten while one of its ephemeral containers has no end on disk.
    #[error("an ephemeral container has not ended")]
    NotEnded,
    /// The pod cannot be forgotten because it is not to go any more: somebody else runs it, and it is back.
    #[error("the pod is back")]
    Stays,
    /// It could not be made durable.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The agent is shutting down.
    #[error("the agent is shutting down")]
    ShuttingDown,
}

/// What a worker is to do for its pod.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// The pod, with defaults, without ephemeral containers.
    pub(crate) pod: Arc<Pod>,
    /// Its ephemeral containers, in the order in which they were accepted.
    pub(crate) records: Vec<Record>,
    /// The ephemeral containers that the API server asks for beside them: the kubelet's.
    pub(crate) theirs: Vec<EphemeralContainer>,
    /// The pod as the API server knows it.
    pub(crate) kubernetes: Option<Arc<Pod>>,
    /// Whether that is how the API server knows it now: it answers.
    pub(crate) is_current: bool,
    /// Whether it is to go.
    pub(crate) removal: Option<Removal>,
    /// The status as last reported.
    pub(crate) status: PodStatus,
    /// Whether somebody else runs the pod.
    pub(crate) foreign: bool,
    /// The sandbox that a pod which somebody else runs was found in; `None` where it was not found yet.
    pub(crate) sandbox_id: Option<String>,
    /// What wakes its worker: a pod that went and came back under its UID has another one.
    pub(crate) wake: Arc<Notify>,
}

/// What a worker has to say of its pod.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// The pod's status.
    pub(crate) status: PodStatus,
    /// How far the launches of its ephemeral containers have come, by name.
    pub(crate) launches: BTreeMap<String, Launch>,
    /// The ephemeral containers whose name somebody else's container has.
    pub(crate) foreign: BTreeSet<String>,
}

impl Store {
    /// The pods that need a worker, and what wakes it. A pod whose name an older one still has waits for that
    /// one's end.
    pub(crate) fn workable(&self) -> Vec<(String, Arc<Notify>)> {
        let inner = self.lock();
        let waits_for_another = |entry: &Entry| {
            // An external pod is there already, whatever else goes.
            let is_to_start = !entry.is_foreign() && entry.removal().is_none();
            let mut namesakes = inner.pods.named(&entry.key.namespace, &entry.key.name);
            is_to_start && namesakes.any(|other| other.removal().is_some())
        };
        inner
            .pods
            .iter()
            .filter(|(_, entry)| !matches!(entry.wanted, Wanted::Refused { .. }) && !waits_for_another(entry))
            .map(|(uid, entry)| (uid.clone(), Arc::clone(&entry.wake)))
            .collect()
    }

    /// What is wanted of the pod; `None` once it is gone.
    pub(crate) fn view(&self, uid: &str) -> Option<View> {
        let inner = self.lock();
        let entry = inner.pods.get(uid)?;
        Some(View {
            pod: Arc::clone(&entry.pod),
            records: entry.records.clone(),
            theirs: entry.theirs(),
            kubernetes: entry.known_by.kubernetes.clone(),
            is_current: entry.known_by.as_of.is_none(),
            removal: entry.removal(),
            status: entry.status.clone(),
            foreign: entry.is_foreign(),
            sandbox_id: entry.known_by.sandbox_id.clone(),
            wake: Arc::clone(&entry.wake),
        })
    }

    /// Moves the record of an ephemeral container on: `next` sees the phase it is in and gives the one to
    /// write, or `None` to leave it. Durable on return; answers the phase that holds then. Writes of one pod
    /// come one after the other, so a stop and a launch cannot overtake each other.
    pub(crate) async fn advance(
        self: &Arc<Self>,
        uid: &str,
        container: &str,
        next: impl FnOnce(&Phase) -> Option<Phase> + Send + 'static,
    ) -> Result<Phase, AdvanceError> {
        let store = Arc::clone(self);
        let (uid, container) = (uid.to_owned(), container.to_owned());
        tokio::task::spawn_blocking(move || store.advance_blocking(&uid, &container, next))
            .await
            .map_err(|_| AdvanceError::ShuttingDown)?
    }

    fn advance_blocking(
        &self,
        uid: &str,
        container: &str,
        next: impl FnOnce(&Phase) -> Option<Phase>,
    ) -> Result<Phase, AdvanceError> {
        let writing = self.writing(uid).ok_or(AdvanceError::Gone)?;
        let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut record = {
            let inner = self.lock();
            let mut records = inner
                .held(uid, &writing)
                .ok_or(AdvanceError::Gone)?
                .records
                .iter();
            let record = records.find(|record| record.spec.name == container);
            record.cloned().ok_or(AdvanceError::Gone)?
        };
        let Some(phase) = next(&record.phase) else {
            return Ok(record.phase);
        };
        record.phase = phase.clone();
        self.disk.write_record(uid, &record)?;
        let mut guard = self.lock();
        let inner = &mut *guard;
        let entry = inner.pods.get_mut(uid).ok_or(AdvanceError::Gone)?;
        if let (Phase::Ended { terminated, .. }, Some(launch)) = (&phase, entry.launches.get_mut(container)) {
            inner.launch_clock.ended(uid, container, terminated);
            launch.end(terminated);
        }
        let mut records = entry.records.iter_mut();
        if let Some(kept) = records.find(|kept| kept.spec.name == container) {
            *kept = record;
        }
        entry.wake.notify_one();
        let version = inner.history.version();
        drop(guard);
        self.announce(version);
        Ok(phase)
    }

    /// Takes what a worker has to say; watches see it where it says something new.
    pub(crate) fn report(&self, uid: &str, report: Report) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let Some(entry) = inner.pods.get_mut(uid) else {
            return;
        };
        entry.foreign = report.foreign;
        let first = !std::mem::replace(&mut entry.known, true);
        // One that was accepted since the worker looked is not in the report, and stays.
        let mut launches_moved = false;
        for (name, launch) in report.launches {
            launches_moved |= entry.launches.get(&name) != Some(&launch);
            inner.launch_clock.moved(uid, &launch);
            entry.launches.insert(name, launch);
        }
        let published = entry.status != report.status;
        let version = if published {
            entry.status = report.status;
            inner.publish(uid, ChangeKind::Modified)
        } else {
            inner.history.version()
        };
        drop(guard);
        if first || launches_moved || published {
            self.announce(version);
        }
    }

    /// Buries a pod that is to go and of which nothing is left in the runtime: the records of a manifest's pod stay on disk as a
    /// tombstone.
    pub(crate) async fn forget(self: &Arc<Self>, uid: &str) -> Result<(), AdvanceError> {
        let store = Arc::clone(self);
        let uid = uid.to_owned();
        tokio::task::spawn_blocking(move || store.forget_blocking(&uid))
            .await
            .map_err(|_| AdvanceError::ShuttingDown)?
    }

    fn forget_blocking(&self, uid: &str) -> Result<(), AdvanceError> {
        let now = Timestamp::now();
        let writing = self.writing(uid).ok_or(AdvanceError::Gone)?;
        let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = {
            let inner = self.lock();
            let entry = inner.held(uid, &writing).ok_or(AdvanceError::Gone)?;
            if entry.removal().is_none() {
                return Err(AdvanceError::Stays);
            }
            // One that was accepted at the last moment has still to be ended.
            if !entry
                .records
                .iter()
                .all(|record| matches!(record.phase, Phase::Ended { .. }))
            {
                return Err(AdvanceError::NotEnded);
            }
            KeptPod {
                gone_since: Some(now),
                ..entry.kept()
            }
        };
        // A random UID never comes back, so nothing of it need be remembered.
        let remembered = kept.source != Source::Api;
        if remembered {
            self.disk.write_pod(uid, &kept)?;
        } else {
            self.disk.remove_pod(uid)?;
        }
        let version = {
            let mut inner = self.lock();
            let version = inner.publish(uid, ChangeKind::Deleted);
            inner.pods.remove(uid);
            inner.launch_clock.forget(uid);
            if remembered {
                inner.tombstones.insert(uid.to_owned(), Tombstone::of(&kept, now));
            }
            version
        };
        self.announce(version);
        self.expire_tombstones();
        Ok(())
    }

    /// Removes the tombstones that are too old, or too many.
    pub(super) fn expire_tombstones(&self) {
        let expired: Vec<String> = {
            let inner = self.lock();
            let mut by_age: Vec<(&Timestamp, &String)> = inner
                .tombstones
                .iter()
                .map(|(uid, tombstone)| (&tombstone.since, uid))
                .collect();
            by_age.sort();
            let excess = by_age.len().saturating_sub(TOMBSTONES);
            let now = Timestamp::now();
            let old = by_age.iter().enumerate().filter(|(index, (since, _))| {
                *index < excess || now.duration_since(**since) > TOMBSTONE_LIFE
            });
            old.map(|(_, (_, uid))| (*uid).clone()).collect()
        };
        for uid in expired {
            if let Err(error) = self.disk.remove_pod(&uid) {
                tracing::warn!(
                    pod_uid = uid,
                    "cannot remove the records of a pod that is long gone: {error}"
                );
            }
            self.lock().tombstones.remove(&uid);
        }
    }
}
