//! What memory has of a pod and the disk has not. An end (a stop, the removal of a pod) is in force also where the disk
//! refuses it; and a file whose folder could not be synced may be gone after a power cut. Both are remembered here, and
//! written as soon as the disk takes them.
//!
//! Memory never tells less than the disk does: whoever reads the files, as the next agent does, finds nothing that this
//! one does not have.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::disk::DiskError;
use super::events::{Happening, Severity};
use super::problems::ProblemKind;
use super::{Entry, Store};
use crate::pod::container_path::ContainerPath;
use crate::write_threads::NotRun;

/// Something that was done, and whether that was written down.
#[derive(Debug)]
pub(crate) struct InForce<T> {
    /// What it was done to, as it is now.
    pub(crate) object: T,
    /// Why it is not written down yet, if it is not: an agent that is restarted before then does not know of it.
    pub(crate) unwritten: Option<DiskError>,
}

impl<T> InForce<T> {
    /// Something that is on the disk, or need not be.
    pub(super) fn written(object: T) -> InForce<T> {
        InForce {
            object,
            unwritten: None,
        }
    }
}

/// What a refused write means for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfRefused {
    /// Memory stays as it was too.
    Leave,
    /// Memory takes it all the same, and it is written later: what ends something does not wait for the disk.
    Take,
}

/// Which files of a pod the disk lacks, or may lack after a power cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Unwritten {
    /// The pod's own.
    pub(super) pod: bool,
    /// The records of these ephemeral containers.
    pub(super) records: BTreeSet<String>,
}

impl Unwritten {
    fn is_empty(&self) -> bool {
        !self.pod && self.records.is_empty()
    }
}

impl IfRefused {
    /// Whether memory takes what the disk answered so.
    pub(super) fn takes(self, written: &Result<(), DiskError>) -> bool {
        match written {
            Ok(()) => true,
            // Whoever reads the file finds it.
            Err(DiskError::NotSynced { .. }) => true,
            Err(_) => self == IfRefused::Take,
        }
    }
}

impl Entry {
    /// Nothing of it is known to be on the disk for good.
    pub(super) fn all_unwritten(&mut self) {
        self.unwritten = Unwritten {
            pod: true,
            records: self
                .records
                .iter()
                .map(|record| record.spec.name.clone())
                .collect(),
        };
    }
}

impl Store {
    /// Writes what the disk lacks, and makes the room again that is kept for what ends something. What is still wrong then
    /// is a problem of the node, and is answered.
    pub(crate) async fn keep_up(self: &Arc<Self>) -> Option<String> {
        let store = Arc::clone(self);
        let kept_up = self.write_threads().run(move || store.keep_up_blocking()).await;
        let trouble = match kept_up {
            Ok(trouble) => trouble,
            Err(NotRun::ShuttingDown) => return None,
            Err(error @ NotRun::Panicked { .. }) => Some(error.to_string()),
        };
        let folder = self.disk.root().display().to_string();
        match &trouble {
            Some(message) => self.problem(ProblemKind::StateNotWritten, folder, "", message),
            None => self.solved(ProblemKind::StateNotWritten, &folder),
        }
        trouble
    }

    fn keep_up_blocking(&self) -> Option<String> {
        if let Some((pods, error)) = self.write_unwritten(|_| true) {
            return Some(format!(
                "a stop or a removal in {pods} pods is in force and not on the disk, so an agent that is restarted would not know of it: {error}"
            ));
        }
        let error = self.disk.restore_ballast().err()?;
        Some(format!(
            "nothing new is accepted, as the disk is full; debug containers can be stopped and pods deleted: {error}"
        ))
    }

    /// Writes a small file, and ends once the disk has answered, whatever it did.
    pub(crate) async fn write_sign_of_life(self: &Arc<Self>) {
        let store = Arc::clone(self);
        let _ = self
            .write_threads()
            .run(move || store.disk.write_sign_of_life())
            .await;
    }

    /// Writes what the disk lacks of the pods of this name. A pod of that name that is new must not be there beside one
    /// whose end would be unknown after a restart.
    pub(super) fn write_unwritten_named(&self, namespace: &str, name: &str) -> Result<(), DiskError> {
        let named = |entry: &Entry| entry.key.namespace == namespace && entry.key.name == name;
        match self.write_unwritten(named) {
            None => Ok(()),
            Some((_, error)) => Err(error),
        }
    }

    /// Answers how many pods have still something to be written, and why the first of it was refused.
    fn write_unwritten(&self, counts: impl Fn(&Entry) -> bool) -> Option<(usize, DiskError)> {
        let behind: Vec<(String, Arc<Mutex<()>>)> = {
            let inner = self.lock();
            let behind = inner
                .pods
                .iter()
                .filter(|(_, entry)| !entry.unwritten.is_empty() && counts(entry));
            behind
                .map(|(uid, entry)| (uid.clone(), Arc::clone(&entry.writing)))
                .collect()
        };
        let mut refused = None;
        for (uid, writing) in behind {
            let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = self.catch_up(&uid, &writing) {
                let (count, first) = refused.unwrap_or((0, error));
                refused = Some((count + 1, first));
            }
        }
        refused
    }

    /// Writes what the disk lacks of this pod, whose `writing` is held.
    pub(super) fn catch_up(&self, uid: &str, writing: &Arc<Mutex<()>>) -> Result<(), DiskError> {
        let (pod, records) = {
            let inner = self.lock();
            let Some(entry) = inner.held(uid, writing) else {
                return Ok(());
            };
            let unwritten = &entry.unwritten;
            let records = entry.records.iter();
            let records = records.filter(|record| unwritten.records.contains(&record.spec.name));
            (
                unwritten.pod.then(|| entry.kept()),
                records.cloned().collect::<Vec<_>>(),
            )
        };
        if let Some(kept) = pod {
            self.disk.write_pod(uid, &kept)?;
            self.written(uid, |unwritten| unwritten.pod = false);
        }
        for record in records {
            self.disk.write_record(uid, &record)?;
            self.written(uid, |unwritten| {
                unwritten.records.remove(&record.spec.name);
            });
        }
        Ok(())
    }

    /// Tells in an event, and in the log, of an end that is in force and not written down yet.
    pub(super) fn tell_unwritten(&self, uid: &str, message: String, container: Option<ContainerPath>) {
        tracing::error!(pod_uid = uid, "{message}");
        let happening = Happening {
            severity: Severity::Warning,
            reason: "NotWritten",
            message,
            container,
        };
        self.record_event(uid, happening);
    }

    fn written(&self, uid: &str, note: impl FnOnce(&mut Unwritten)) {
        if let Some(entry) = self.lock().pods.get_mut(uid) {
            note(&mut entry.unwritten);
        }
    }
}
