//! What the API writes: new ephemeral containers, and stops. Nothing is answered before it is on disk. Who asks is in the
//! record and in an event; a client that does not see all of a pod neither reaches nor removes what it does not see.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{EphemeralContainer, Pod};

use super::changes::ChangeKind;
use super::disk::DiskError;
use super::events::{Happening, Severity};
use super::progress::AdvanceError;
use super::unwritten::{IfRefused, InForce};
use super::{DryRun, Entry, Inner, Store, Wanted, first_launch};
use crate::pod::asked_by::AskedBy;
use crate::pod::container_path::ContainerPath;
use crate::pod::copied_mounts::{self, CopyMounts};
use crate::pod::field_error::{Cause, FieldError};
use crate::pod::launch::Launch;
use crate::pod::record::{Origin, Phase, Record, arrange};
use crate::pod::size::{self, TooLarge};
use crate::pod::visibility::Audience;
use crate::pod::{defaults, validation};
use crate::test_panic;
use crate::write_threads::NotRun;

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
    /// The pod as it would be served to the client.
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
    /// The write did not come to its end.
    #[error(transparent)]
    NotRun(#[from] NotRun),
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
    /// The write did not come to its end.
    #[error(transparent)]
    NotRun(#[from] NotRun),
}

impl Store {
    /// Accepts the list of `wanted` as that of a pod's ephemeral containers: the ones that the client sees, unchanged, and
    /// new ones, which get their defaults. Those that it does not see stay. On return the list would survive a power cut;
    /// answers the pod as it is served to the client then.
    pub(crate) async fn accept(
        self: &Arc<Self>,
        asked_by: &AskedBy,
        namespace: &str,
        name: &str,
        wanted: WantedList,
        dry_run: DryRun,
    ) -> Result<Arc<Pod>, AcceptError> {
        let store = Arc::clone(self);
        let (namespace, name, asked_by) = (namespace.to_owned(), name.to_owned(), asked_by.clone());
        let accept = move || store.accept_blocking(&asked_by, &namespace, &name, wanted, dry_run);
        self.write_threads().run(accept).await?
    }

    fn accept_blocking(
        &self,
        asked_by: &AskedBy,
        namespace: &str,
        name: &str,
        wanted: WantedList,
        dry_run: DryRun,
    ) -> Result<Arc<Pod>, AcceptError> {
        let audience = asked_by.audience();
        let pod = self.to_write(audience, namespace, name);
        let (uid, writing) = pod.ok_or(AcceptError::NoSuchPod)?;
        let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
        let Judged { new, moved, tried } = self.judge(asked_by, &uid, &writing, wanted)?;
        if dry_run == DryRun::All {
            return Ok(tried);
        }
        test_panic::point("accept");
        self.keep_foreign(&uid)?;
        let names: Vec<String> = new.iter().map(|record| record.spec.name.clone()).collect();
        // What comes last first: cut short, this leaves the others in the order that they had.
        let written: Vec<Record> = moved.into_iter().rev().chain(new).collect();
        self.keep(&uid, &written)?;
        let mut inner = self.lock();
        let version = inner.add(&uid, written);
        let served = inner
            .pods
            .get(&uid)
            .and_then(|entry| entry.served.of(audience).cloned());
        drop(inner);
        self.announce(version);
        for name in names {
            self.record_event(&uid, requested(asked_by, name));
        }
        served.ok_or(AcceptError::NoSuchPod)
    }

    /// Judges a list, and changes nothing.
    pub(super) fn judge(
        &self,
        asked_by: &AskedBy,
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
            if !is_meant(entry, asked_by.audience(), &wanted) {
                return Err(AcceptError::Conflict);
            }
            let new = new_records(entry, asked_by, &wanted)?;
            (new, entry.clone(), inner.history.version())
        };
        let before = std::mem::take(&mut with_new.records);
        with_new.records = before.iter().cloned().chain(new).collect();
        let names = names_in_order(&before, &wanted.containers);
        let is_kept = |record: &Record| before.iter().any(|before| before.spec.name == record.spec.name);
        arrange(&mut with_new.records, names.into_iter(), is_kept);
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
            size::judge(tried.whole())?;
        }
        let tried = tried.of(asked_by.audience()).cloned();
        Ok(Judged {
            new,
            moved,
            tried: tried.ok_or(AcceptError::NoSuchPod)?,
        })
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

    /// Has an ephemeral container that the client sees end, whether it runs or still waits. That is durable on return,
    /// unless the answer says why not: then it ends all the same, and an agent that is restarted before it is written down
    /// does not know that. Stopping one that has ended, or is being stopped, changes nothing.
    pub(crate) async fn stop(
        self: &Arc<Self>,
        asked_by: &AskedBy,
        namespace: &str,
        pod: &str,
        container: &str,
    ) -> Result<InForce<Launch>, StopError> {
        let uid = {
            let inner = self.lock();
            let audience = asked_by.audience();
            let entry = inner.seen_by(audience, namespace, pod);
            let entry = entry.ok_or(StopError::NoSuchPod)?;
            let mut records = entry.records.iter();
            let recorded = records.any(|record| record.spec.name == container);
            if !recorded || !entry.visibility.shows_record(audience, container) {
                if entry.asked_of_api_server().any(|asked| asked.name == container) {
                    return Err(StopError::NotOurs);
                }
                return Err(not_ephemeral(&entry.pod, container));
            }
            if entry.foreign.contains(container) {
                return Err(StopError::NotOurs);
            }
            entry.key.uid.clone()
        };
        let stopping = |phase: &Phase| match phase {
            Phase::Accepted => Some(Phase::Stopping { created: None }),
            Phase::Created(created) => Some(Phase::Stopping {
                created: Some(created.clone()),
            }),
            Phase::Stopping { .. } | Phase::Ended { .. } => None,
        };
        let stop = {
            let (store, uid, container) = (Arc::clone(self), uid.clone(), container.to_owned());
            move || store.advance_blocking(&uid, &container, stopping, IfRefused::Take)
        };
        let stopped = self.write_threads().run(stop).await?;
        let stopped = stopped.map_err(|error| match error {
            AdvanceError::Disk(error) => StopError::Disk(error),
            AdvanceError::Gone | AdvanceError::NotEnded | AdvanceError::Stays => StopError::NoSuchContainer,
            AdvanceError::NotRun(error) => StopError::NotRun(error),
        })?;
        self.record_event(&uid, asked_to_stop(asked_by, container.to_owned()));
        if let Some(error) = &stopped.unwritten {
            let message = format!("Container {container} is stopped, which is not written down yet: {error}");
            self.tell_unwritten(
                &uid,
                message,
                Some(ContainerPath::Ephemeral(container.to_owned())),
            );
        }
        let launch = self.launch(asked_by.audience(), namespace, pod, container);
        Ok(InForce {
            object: launch.ok_or(StopError::NoSuchContainer)?,
            unwritten: stopped.unwritten,
        })
    }
}

/// That somebody asked for an ephemeral container.
pub(crate) fn requested(asked_by: &AskedBy, container: String) -> Happening {
    Happening {
        severity: Severity::Normal,
        reason: "EphemeralContainerRequested",
        message: format!("Ephemeral container {container} was asked for by {asked_by}"),
        container: Some(ContainerPath::Ephemeral(container)),
    }
}

/// That somebody asked for its end.
fn asked_to_stop(asked_by: &AskedBy, container: String) -> Happening {
    Happening {
        severity: Severity::Normal,
        reason: "StopRequested",
        message: format!("The end of ephemeral container {container} was asked for by {asked_by}"),
        container: Some(ContainerPath::Ephemeral(container)),
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

/// The names of the client's list, and of the records that it does not see: each of these stays behind the one before it.
fn names_in_order<'a>(records: &'a [Record], wanted: &'a [EphemeralContainer]) -> Vec<&'a str> {
    let mut names: Vec<&str> = wanted.iter().map(|container| container.name.as_str()).collect();
    let named: BTreeSet<&str> = names.iter().copied().collect();
    let mut previous: Option<&str> = None;
    for record in records {
        let name = record.spec.name.as_str();
        if !named.contains(name) {
            let before = previous.and_then(|previous| names.iter().position(|name| *name == previous));
            names.insert(before.map_or(0, |before| before + 1), name);
        }
        previous = Some(name);
    }
    names
}

/// Whether the pod is the one, and at the version, that the client means, as far as it says.
fn is_meant(entry: &Entry, audience: Audience, wanted: &WantedList) -> bool {
    let version = entry.version_for(audience);
    wanted.uid.as_ref().is_none_or(|uid| *uid == entry.key.uid)
        && (wanted.resource_version.is_none() || wanted.resource_version.as_deref() == version)
}

/// The records that the client's `list` adds to the pod's.
fn new_records(entry: &Entry, asked_by: &AskedBy, list: &WantedList) -> Result<Vec<Record>, AcceptError> {
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
    let (audience, visibility) = (asked_by.audience(), entry.visible_now());
    let shows = |name: &str| visibility.shows_record(audience, name);
    let records = || entry.records.iter().map(|record| &record.spec);
    let own = records().filter(|own| shows(&own.name)).cloned();
    let mut accepted: Vec<EphemeralContainer> = own.collect();
    let others = entry.ephemeral_containers(audience, &visibility);
    let mut theirs: Vec<EphemeralContainer> = others.into_iter().skip(accepted.len()).collect();
    theirs.iter_mut().for_each(defaults::ephemeral_container);
    let mut errors = validation::ephemeral_containers(&entry.pod, wanted, &theirs);
    accepted.extend(theirs);
    errors.extend(validation::ephemeral_change(&accepted, wanted));
    for (index, container) in wanted.iter().enumerate() {
        let taken = |own: &EphemeralContainer| own.name == container.name && !shows(&own.name);
        if records().any(taken) && !accepted.iter().any(|accepted| accepted.name == container.name) {
            let message = format!(
                "{:?} is the name of another container on this node",
                container.name
            );
            let field = format!("spec.ephemeralContainers[{index}].name");
            errors.push(FieldError::new(field, Cause::Duplicate, message));
        }
    }
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
            asked_by: Some(asked_by.clone()),
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
