//! The worker's side: what is wanted of a pod, how its launches advance on disk, what it reports.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use k8s_openapi::api::core::v1::{EphemeralContainer, Pod, PodStatus};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;

use super::changes::ChangeKind;
use super::disk::{DiskError, KeptPod};
use super::problems::ProblemKind;
use super::unwritten::{IfRefused, InForce};
use super::{Entry, Store, Tombstone, Wanted};
use crate::pod::container_path::ContainerPath;
use crate::pod::deletion::Removal;
use crate::pod::eviction::Eviction;
use crate::pod::launch::Launch;
use crate::pod::record::{Phase, Record};
use crate::pod::source::Source;
use crate::test_panic;
use crate::write_threads::NotRun;

/// How long the records of a pod that is gone are kept.
const TOMBSTONE_LIFE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How many pods that are gone are remembered; the oldest make room.
const TOMBSTONES: usize = 1000;

/// Why a record did not advance. It is as it was, unless the error is [`DiskError::NotSynced`]: then it has advanced, and
/// nothing may be done because of it before it was written once more.
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
    /// The write did not come to its end.
    #[error(transparent)]
    NotRun(#[from] NotRun),
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
    /// Why all of it has to end though it stays, if so.
    pub(crate) evicted: Option<Eviction>,
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
            evicted: entry.evicted.clone(),
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
        let advanced = self
            .write_threads()
            .run(move || store.advance_blocking(&uid, &container, next, IfRefused::Leave))
            .await??;
        Ok(advanced.object)
    }

    /// Like [`Store::advance`], for the end of an ephemeral container whose pod goes. Where the disk refuses it, it is in
    /// force all the same, which an event tells, and is written later.
    pub(crate) async fn end(
        self: &Arc<Self>,
        uid: &str,
        container: &str,
        next: impl FnOnce(&Phase) -> Option<Phase> + Send + 'static,
    ) -> Result<(), AdvanceError> {
        let end = {
            let (store, uid, container) = (Arc::clone(self), uid.to_owned(), container.to_owned());
            move || store.advance_blocking(&uid, &container, next, IfRefused::Take)
        };
        let ended = self.write_threads().run(end).await??;
        if let Some(error) = &ended.unwritten {
            let message = format!("How container {container} ended is not written down yet: {error}");
            let container = ContainerPath::Ephemeral(container.to_owned());
            self.tell_unwritten(uid, message, Some(container));
        }
        Ok(())
    }

    /// Answers the phase that holds then, and why it is not on the disk, where memory takes it all the same.
    pub(super) fn advance_blocking(
        &self,
        uid: &str,
        container: &str,
        next: impl FnOnce(&Phase) -> Option<Phase>,
        refused: IfRefused,
    ) -> Result<InForce<Phase>, AdvanceError> {
        let writing = self.writing(uid).ok_or(AdvanceError::Gone)?;
        let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut record, is_unwritten) = {
            let inner = self.lock();
            let entry = inner.held(uid, &writing).ok_or(AdvanceError::Gone)?;
            let mut records = entry.records.iter();
            let record = records.find(|record| record.spec.name == container);
            let is_unwritten = entry.unwritten.records.contains(container);
            (record.ok_or(AdvanceError::Gone)?.clone(), is_unwritten)
        };
        let phase = match next(&record.phase) {
            Some(phase) => phase,
            // What is answered is on the disk.
            None if is_unwritten => record.phase.clone(),
            None => {
                return Ok(InForce {
                    object: record.phase,
                    unwritten: None,
                });
            }
        };
        let has_moved = record.phase != phase;
        record.phase = phase.clone();
        let written = self.disk.write_record(uid, &record);
        test_panic::point("record-written");
        if !refused.takes(&written) {
            return Err(written.map_or_else(AdvanceError::Disk, |()| AdvanceError::Gone));
        }
        let mut guard = self.lock();
        let inner = &mut *guard;
        let entry = inner.pods.get_mut(uid).ok_or(AdvanceError::Gone)?;
        if has_moved
            && let (Phase::Ended { terminated, .. }, Some(launch)) =
                (&phase, entry.launches.get_mut(container))
        {
            inner.launch_clock.ended(uid, container, terminated);
            launch.end(terminated);
        }
        if let Some(kept) = entry.records.iter_mut().find(|kept| kept.spec.name == container) {
            *kept = record;
        }
        match &written {
            Ok(()) => entry.unwritten.records.remove(container),
            Err(_) => entry.unwritten.records.insert(container.to_owned()),
        };
        entry.wake.notify_one();
        let version = inner.history.version();
        drop(guard);
        self.announce(version);
        match written {
            Err(error) if refused == IfRefused::Leave => Err(error.into()),
            written => Ok(InForce {
                object: phase,
                unwritten: written.err(),
            }),
        }
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
        self.write_threads()
            .run(move || store.forget_blocking(&uid))
            .await?
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
            self.catch_up(uid, &writing)?;
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
        let expired = {
            let inner = self.lock();
            let tombstones = inner.tombstones.iter();
            let tombstones = tombstones.map(|(uid, tombstone)| (uid, tombstone.since));
            expired(tombstones, Timestamp::now())
        };
        for uid in expired {
            self.remove_expired(&uid);
            self.lock().tombstones.remove(&uid);
        }
    }

    /// Removes the records of pods that cannot be read where they are too old, or too many. Only at the start: later, a
    /// source may be about to name such a pod again.
    pub(super) fn expire_orphans(&self) {
        let expired = {
            let inner = self.lock();
            let orphans = inner.orphans.iter().map(|(uid, orphans)| (uid, orphans.since));
            expired(orphans, Timestamp::now())
        };
        for uid in expired {
            self.remove_expired(&uid);
            self.lock().orphans.remove(&uid);
        }
    }

    /// Reports the pods that cannot be read and of which there are records.
    pub(super) fn report_orphans(&self) {
        let orphans: Vec<(String, usize)> = {
            let inner = self.lock();
            let orphans = inner.orphans.iter();
            orphans
                .map(|(uid, orphans)| (uid.clone(), orphans.records.len()))
                .collect()
        };
        for (uid, records) in orphans {
            let folder = self.disk.pod_dir(&uid).display().to_string();
            let message = format!(
                "the pod in {folder} cannot be read; the records of its {records} debug containers are kept for 30 days, \
                 so that none of them runs again if the pod comes back"
            );
            self.problem(ProblemKind::UnreadablePod, folder, "", message);
        }
    }

    /// Withdraws the problem of a pod that could not be read: a source has named it again.
    pub(super) fn orphan_found(&self, uid: &str) {
        let folder = self.disk.pod_dir(uid).display().to_string();
        self.solved(ProblemKind::UnreadablePod, &folder);
    }

    fn remove_expired(&self, uid: &str) {
        if let Err(error) = self.disk.remove_pod(uid) {
            tracing::warn!(
                pod_uid = uid,
                "cannot remove the records of a pod that is long gone: {error}"
            );
        }
    }
}

/// Which of these pods, given with the time since when they are gone, are not remembered any longer.
fn expired<'a>(pods: impl Iterator<Item = (&'a String, Timestamp)>, now: Timestamp) -> Vec<String> {
    let mut by_age: Vec<(Timestamp, &String)> = pods.map(|(uid, since)| (since, uid)).collect();
    by_age.sort();
    let excess = by_age.len().saturating_sub(TOMBSTONES);
    let old = by_age
        .iter()
        .enumerate()
        .filter(|(index, (since, _))| *index < excess || now.duration_since(*since) > TOMBSTONE_LIFE);
    old.map(|(_, (_, uid))| (*uid).clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_that_are_gone_are_remembered_for_thirty_days_and_the_newest_thousand_of_them() {
        let now = Timestamp::from_second(100_000_000).unwrap();
        let uids: Vec<String> = (0..TOMBSTONES + 2).map(|number| format!("{number:04}")).collect();
        let aged = |hours: i64| now - SignedDuration::from_hours(hours);
        let ages = [(&uids[0], aged(30 * 24 - 1)), (&uids[1], aged(30 * 24 + 1))];
        assert_eq!(expired(ages.into_iter(), now), ["0001"]);
        let many = uids.iter().enumerate().map(|(number, uid)| {
            let seconds = SignedDuration::from_secs(i64::try_from(number).unwrap());
            (uid, now - SignedDuration::from_hours(1) + seconds)
        });
        assert_eq!(expired(many, now), ["0000", "0001"]);
    }
}
