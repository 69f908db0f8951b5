//! What the API writes: new ephemeral containers, and stops. Nothing is answered before it is on disk.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{EphemeralContainer, Pod};

use super::changes::ChangeKind;
use super::disk::DiskError;
use super::{DryRun, Entry, Inner, Store, Wanted, first_launch};
use crate::pod::copied_mounts::{self, CopyMounts};
use crate::pod::field_error::{Cause, FieldError};
use crate::pod::launch::Launch;
use crate::pod::record::{Origin, Phase, Record, arrange};
use crate::pod::size::{self, TooLarge};
use crate::pod::{defaults, validation};

/// What a client wants the ephemeral containers of a pod to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct WantedList {
    /// The pod that it means.
    pub(crate) uid: Option<String>,
    /// The version that it means, where it says so.
    pub(crate) resource_version: Option<String>,
    /// The whole list.
    pub(crate) containers: Vec<EphemeralContainer>,
    /// Whose mounts new ones of it are to have, by name.
    pub(crate) copy_mounts: BTreeMap<String, CopyMounts>,
}

/// A list that can be accepted.
pub(super) struct Judged {
    /// The records that it adds.
    pub(super) new: Vec<Record>,
    /// The records that it gives another place.
    moved: Vec<Record>,
    /// The pod as it would be served.
    pub(super) tried: Arc<Pod>,
}

/// Why ephemeral containers were not accepted. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcceptError {
    /// There is no such pod.
    #[error("there is no such pod")]
    NoSuchPod,
    /// It is another pod, or another version, than the client means.
    #[error("the pod has changed")]
    Conflict,
    /// The pod is on its way out.
    #[error("the pod is being removed")]
    Terminating,
    /// The pod was never started.
    #[error("the pod was refused: {message}")]
    Refused {
        /// Why.
        message: String,
    },
    /// The list breaks a rule.
    #[error("the ephemeral containers are not valid")]
    Invalid(Vec<FieldError>),
    /// The pod would have too many bytes.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// It could not be made durable.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The agent is shutting down.
    #[error("the agent is shutting down")]
    ShuttingDown,
}

/// Why a debug container was not stopped. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StopError {
    /// There is no such pod.
    #[error("there is no such pod")]
    NoSuchPod,
    /// The pod has no container of this name.
    #[error("the pod has no container of this name")]
    NoSuchContainer,
    /// It is an ordinary container: its pod's manifest rules over it.
    #[error("it is not a debug container")]
    NotEphemeral,
    /// Somebody else made the container.
    #[error("debuglet did not make the container")]
    NotOurs,
    /// It could not be made durable.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The agent is shutting down.
    #[error("the agent is shutting down")]
    ShuttingDown,
}

impl Store {
    /// Accepts the list of `wanted` as that of a pod's ephemeral containers: the ones it has, unchanged, and
    /// new ones, which get their defaults. On return the list would survive a power cut; answers the pod as it
    /// is served then.
    pub(crate) async fn accept(
        self: &Arc<Self>,
        namespace: &str,
        name: &str,
        wanted: WantedList,
        dry_run: DryRun,
    ) -> Result<Arc<Pod>, AcceptError> {
        let store = Arc::clone(self);
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        tokio::task::spawn_blocking(move || store.accept_blocking(&namespace, &name, wanted, dry_run))
            .await
            .map_err(|_| AcceptError::ShuttingDown)?
    }

    fn accept_blocking(
        &self,
        namespace: &str,
        name: &str,
        wanted: WantedList,
        dry_run: DryRun,
    ) -> Result<Arc<Pod>, AcceptError> {
        let (uid, writing) = self.to_write(namespace, name).ok_or(AcceptError::NoSuchPod)?;
        let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
        let Judged { new, moved, tried } = self.judge(&uid, &writing, wanted)?;
        if dry_run == DryRun::All {
            return Ok(tried);
        }
        self.keep_foreign(&uid)?;
        // What comes last first: cut short, this leaves the others in the order that they had.
        let written: Vec<Record> = moved.into_iter().rev().chain(new).collect();
        self.keep(&uid, &written)?;
        let mut inner = self.lock();
        let version = inner.add(&uid, written);
        let served = inner
            .pods
            .get(&uid)
            .map(|entry| Arc::clone(&entry.served))
            .ok_or(AcceptError::NoSuchPod)?;
        drop(inner);
        self.announce(version);
        Ok(served)
    }

    /// Judges a list, and changes nothing.
    pub(super) fn judge(
        &self,
        uid: &str,
        writing: &Arc<Mutex<()>>,
        mut wanted: WantedList,
    ) -> Result<Judged, AcceptError> {
        wanted
            .containers
            .iter_mut()
            .for_each(defaults::ephemeral_container);
        let (new, mut with_new, version) = {
            let inner = self.lock();
            let entry = inner.held(uid, writing).ok_or(AcceptError::NoSuchPod)?;
            if !is_meant(entry, &wanted) {
                return Err(AcceptError::Conflict);
            }
            let new = new_records(entry, &wanted)?;
            (new, entry.clone(), inner.history.version())
        };
        let before = std::mem::take(&mut with_new.records);
        with_new.records = before.iter().cloned().chain(new).collect();
        let names = wanted.containers.iter().map(|container| container.name.as_str());
        arrange(&mut with_new.records, names);
        let (mut new, mut moved) = (Vec::new(), Vec::new());
        for record in &with_new.records {
            match before.iter().find(|before| before.spec.name == record.spec.name) {
                None => new.push(record.clone()),
                Some(before) if before.order != record.order => moved.push(record.clone()),
                Some(_) => {}
            }
        }
        let tried = with_new.serve(version);
        if !new.is_empty() {
            size::judge(&tried)?;
        }
        Ok(Judged { new, moved, tried })
    }

    /// Keeps a pod that somebody else runs along with its first records: they are shown while it is away, and buried
    /// with it.
    pub(super) fn keep_foreign(&self, uid: &str) -> Result<(), DiskError> {
        let kept = {
            let inner = self.lock();
            let first = |entry: &&Entry| entry.is_foreign() && entry.records.is_empty();
            inner.pods.get(uid).filter(first).map(Entry::kept)
        };
        kept.map_or(Ok(()), |kept| self.disk.write_pod(uid, &kept))
    }

    /// Writes records that are new or have another place. All or none: where one fails, the new ones go again, so that
    /// what was answered with an error is not launched after a restart, and the others are written as they were.
    pub(super) fn keep(&self, uid: &str, records: &[Record]) -> Result<(), DiskError> {
        for (index, record) in records.iter().enumerate() {
            if let Err(error) = self.disk.write_record(uid, record) {
                for undone in &records[..=index] {
                    self.undo(uid, &undone.spec.name);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Makes a record on disk what it is in memory.
    fn undo(&self, uid: &str, container: &str) {
        let before = {
            let inner = self.lock();
            let mut records = inner.pods.get(uid).into_iter().flat_map(|entry| &entry.records);
            records.find(|record| record.spec.name == container).cloned()
        };
        match before {
            None => self.disk.drop_record(uid, container),
            // Where the disk refuses this too, only its place is another after a restart.
            Some(before) => drop(self.disk.write_record(uid, &before)),
        }
    }

    /// Accepts that an ephemeral container is to end, whether it runs or still waits. Durable on return;
    /// stopping one that has ended, or is being stopped, changes nothing.
    pub(crate) async fn stop(
        self: &Arc<Self>,
        namespace: &str,
        pod: &str,
        container: &str,
    ) -> Result<Launch, StopError> {
        let uid = {
            let inner = self.lock();
            let entry = inner.by_name(namespace, pod).ok_or(StopError::NoSuchPod)?;
            if entry.theirs().iter().any(|theirs| theirs.name == container) {
                return Err(StopError::NotOurs);
            }
            if !entry.records.iter().any(|record| record.spec.name == container) {
                return Err(not_ephemeral(&entry.pod, container));
            }
            if entry.foreign.contains(container) {
                return Err(StopError::NotOurs);
            }
            entry.key.uid.clone()
        };
        self.advance(&uid, container, |phase| match phase {
            Phase::Accepted => Some(Phase::Stopping { created: None }),
            Phase::Created(created) => Some(Phase::Stopping {
                created: Some(created.clone()),
            }),
            Phase::Stopping { .. } | Phase::Ended { .. } => None,
        })
        .await
        .map_err(|error| match error {
            super::progress::AdvanceError::Disk(error) => StopError::Disk(error),
            super::progress::AdvanceError::Gone
            | super::progress::AdvanceError::NotEnded
            | super::progress::AdvanceError::Stays => StopError::NoSuchContainer,
            super::progress::AdvanceError::ShuttingDown => StopError::ShuttingDown,
        })?;
        self.launch(namespace, pod, container)
            .ok_or(StopError::NoSuchContainer)
    }
}

impl Inner {
    /// Takes in records that are on disk, new or with another place, and wakes the pod's worker.
    pub(super) fn add(&mut self, uid: &str, records: Vec<Record>) -> u64 {
        if let Some(entry) = self.pods.get_mut(uid) {
            if records.is_empty() {
                return self.history.version();
            }
            for record in records {
                let mut known = entry.records.iter_mut();
                if let Some(known) = known.find(|known| known.spec.name == record.spec.name) {
                    known.order = record.order;
                    continue;
                }
                self.launch_clock.accepted(uid, &record.spec.name);
                entry
                    .launches
                    .insert(record.spec.name.clone(), first_launch(&record));
                entry.records.push(record);
            }
            entry.records.sort_by_key(|record| record.order);
            entry.wake.notify_one();
        }
        self.publish(uid, ChangeKind::Modified)
    }

    /// Takes out a record that is not on disk any more, and wakes the pod's worker.
    pub(super) fn take_out(&mut self, uid: &str, container: &str) -> u64 {
        if let Some(entry) = self.pods.get_mut(uid) {
            entry.records.retain(|record| record.spec.name != container);
            entry.launches.remove(container);
            entry.foreign.remove(container);
            entry.wake.notify_one();
        }
        self.launch_clock.withdrawn(uid, container);
        self.publish(uid, ChangeKind::Modified)
    }
}

/// Whether the pod is the one, and at the version, that the client means, as far as it says.
fn is_meant(entry: &Entry, wanted: &WantedList) -> bool {
    let version = &entry.served.metadata.resource_version;
    wanted.uid.as_ref().is_none_or(|uid| *uid == entry.key.uid)
        && (wanted.resource_version.is_none() || wanted.resource_version == *version)
}

/// The records that `list` adds to the pod's.
fn new_records(entry: &Entry, list: &WantedList) -> Result<Vec<Record>, AcceptError> {
    let WantedList {
        containers: wanted,
        copy_mounts,
        ..
    } = list;
    match &entry.wanted {
        Wanted::Running => {}
        Wanted::Removed(_) => return Err(AcceptError::Terminating),
        Wanted::Refused { message, .. } => {
            return Err(AcceptError::Refused {
                message: message.clone(),
            });
        }
    }
    let mut theirs = entry.theirs();
    theirs.iter_mut().for_each(defaults::ephemeral_container);
    let mut errors = validation::ephemeral_containers(&entry.pod, wanted, &theirs);
    let own = entry.records.iter().map(|record| record.spec.clone());
    let accepted: Vec<EphemeralContainer> = own.chain(theirs).collect();
    errors.extend(validation::ephemeral_change(&accepted, wanted));
    for (name, copy) in copy_mounts {
        errors.extend(copied_mounts::check(&entry.pod, copy));
        if accepted.iter().any(|accepted| accepted.name == *name) {
            let message = format!("{name:?} was accepted before and cannot be changed");
            errors.push(FieldError::new("copyMounts", Cause::Forbidden, message));
        }
    }
    if !errors.is_empty() {
        return Err(AcceptError::Invalid(errors));
    }
    let new = wanted
        .iter()
        .filter(|wanted| !accepted.iter().any(|accepted| accepted.name == wanted.name));
    Ok(new
        .map(|spec| Record {
            spec: spec.clone(),
            // Its place follows from the whole list.
            order: 0,
            origin: Origin::Api,
            copy_mounts: copy_mounts.get(&spec.name).cloned(),
            phase: Phase::Accepted,
        })
        .collect())
}

fn not_ephemeral(pod: &Pod, container: &str) -> StopError {
    let spec = pod.spec.as_ref();
    let ordinary = spec.into_iter().flat_map(|spec| {
        spec.containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
    });
    if ordinary.into_iter().any(|ordinary| ordinary.name == container) {
        StopError::NotEphemeral
    } else {
        StopError::NoSuchContainer
    }
}
