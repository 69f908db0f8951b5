//! What a kubelet that is down leaves undone: the ephemeral containers of the API server that nobody has launched. They
//! become records while debuglet stands in for it, and go back to it when it returns before anything was made for them.

use std::sync::{Arc, PoisonError};

use k8s_openapi::api::core::v1::{EphemeralContainer, Pod};

use super::disk::DiskError;
use super::{Entry, Store, Wanted};
use crate::pod::asked_by::{AskedBy, WayIn};
use crate::pod::field_error::FieldError;
use crate::pod::record::{Origin, Phase, Record, next_order};
use crate::pod::{defaults, take_over, validation};
use crate::write_threads::NotRun;

/// A pod with ephemeral containers that were not launched, as far as the API server knows.
#[derive(Clone, Debug)]
pub(crate) struct LeftUndone {
    /// The pod's UID in the runtime.
    pub(crate) uid: String,
    /// The pod as the API server knows it.
    pub(crate) known: Arc<Pod>,
    /// The containers' names.
    pub(crate) names: Vec<String>,
}

/// Why an ephemeral container was not taken over. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeOverError {
    /// The API server asks for it no more, or somebody was faster.
    #[error("it is not asked for any more")]
    Gone,
    /// It breaks a rule.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<FieldError>),
    /// It could not be made durable.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The write did not come to its end.
    #[error(transparent)]
    NotRun(#[from] NotRun),
}

impl Store {
    /// The ephemeral containers that the API server asks for and nobody has launched, as far as it knows.
    pub(crate) fn left_undone(&self) -> Vec<LeftUndone> {
        let inner = self.lock();
        let of = |(uid, entry): (&String, &Entry)| {
            let known = entry
                .known_by
                .kubernetes
                .as_ref()
                .filter(|_| entry.wanted == Wanted::Running)?;
            if !take_over::may_be_debugged(known) {
                return None;
            }
            let names = entry.theirs().into_iter().map(|container| container.name);
            let names: Vec<String> = names
                .filter(|name| !take_over::is_reported(known, name))
                .collect();
            (!names.is_empty()).then(|| LeftUndone {
                uid: uid.clone(),
                known: Arc::clone(known),
                names,
            })
        };
        inner.pods.iter().filter_map(of).collect()
    }

    /// Makes an ephemeral container that the API server asks for one that is launched here. Durable on return.
    pub(crate) async fn take_over(self: &Arc<Self>, uid: &str, container: &str) -> Result<(), TakeOverError> {
        let store = Arc::clone(self);
        let (uid, container) = (uid.to_owned(), container.to_owned());
        self.write_threads()
            .run(move || store.take_over_blocking(&uid, &container))
            .await?
    }

    fn take_over_blocking(&self, uid: &str, container: &str) -> Result<(), TakeOverError> {
        let writing = self.writing(uid).ok_or(TakeOverError::Gone)?;
        let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (pod, records, theirs) = {
            let inner = self.lock();
            let entry = inner.held(uid, &writing).ok_or(TakeOverError::Gone)?;
            if entry.wanted != Wanted::Running {
                return Err(TakeOverError::Gone);
            }
            (Arc::clone(&entry.pod), entry.records.clone(), entry.theirs())
        };
        let mut spec = theirs
            .into_iter()
            .find(|theirs| theirs.name == container)
            .ok_or(TakeOverError::Gone)?;
        defaults::ephemeral_container(&mut spec);
        let errors = errors_of(&pod, &records, &spec);
        if !errors.is_empty() {
            return Err(TakeOverError::Invalid(errors));
        }
        let record = Record {
            spec,
            order: next_order(&records),
            origin: Origin::KubeApiserver,
            asked_by: Some(AskedBy::new("", WayIn::ApiServer)),
            copy_mounts: None,
            phase: Phase::Accepted,
        };
        self.keep_foreign(uid)?;
        self.keep(uid, std::slice::from_ref(&record))?;
        let version = self.lock().add(uid, vec![record]);
        self.announce(version);
        Ok(())
    }

    /// Whether the API server asks for this ephemeral container, as it was last heard.
    pub(crate) fn is_asked_for(&self, uid: &str, container: &str) -> bool {
        let inner = self.lock();
        let known = inner
            .pods
            .get(uid)
            .and_then(|entry| entry.known_by.kubernetes.as_deref());
        take_over::asked_for(known, container).is_some()
    }

    /// Whether this ephemeral container is, as of now, to be launched here: it was not stopped, and is not the kubelet's.
    pub(crate) fn is_to_launch(&self, uid: &str, container: &str, kubelet_down: bool) -> bool {
        let inner = self.lock();
        inner.pods.get(uid).is_some_and(|entry| {
            let known = entry.known_by.kubernetes.as_deref();
            let accepted = entry.accepted(container);
            accepted.is_some_and(|record| !take_over::is_the_kubelets(record, known, kubelet_down))
        })
    }

    /// Leaves an ephemeral container that is the kubelet's to it, if nothing was made for it yet; answers whether it was.
    pub(crate) async fn hand_back(self: &Arc<Self>, uid: &str, container: &str) -> Result<bool, NotRun> {
        let store = Arc::clone(self);
        let (uid, container) = (uid.to_owned(), container.to_owned());
        self.write_threads()
            .run(move || store.hand_back_blocking(&uid, &container))
            .await
    }

    fn hand_back_blocking(&self, uid: &str, container: &str) -> bool {
        let Some(writing) = self.writing(uid) else {
            return false;
        };
        let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
        let there = {
            let inner = self.lock();
            let goes_back = |entry: &Entry| {
                let known = entry.known_by.kubernetes.as_deref();
                let accepted = entry.accepted(container);
                accepted.is_some_and(|record| take_over::is_the_kubelets(record, known, false))
            };
            inner.held(uid, &writing).is_some_and(goes_back)
        };
        if !there {
            return false;
        }
        // Should the disk refuse, it is there again after a restart; then the kubelet is not known to be down, and it goes
        // back once more.
        self.disk.drop_record(uid, container);
        let version = self.lock().take_out(uid, container);
        self.announce(version);
        true
    }
}

impl Entry {
    /// The record of this ephemeral container, if nothing was recorded as made for it and it was not stopped.
    fn accepted(&self, container: &str) -> Option<&Record> {
        let mut records = self.records.iter();
        records.find(|record| record.spec.name == container && record.phase == Phase::Accepted)
    }
}

/// What is wrong with `spec` as the next ephemeral container of the pod.
fn errors_of(pod: &Pod, records: &[Record], spec: &EphemeralContainer) -> Vec<FieldError> {
    let mut list: Vec<EphemeralContainer> = records.iter().map(|record| record.spec.clone()).collect();
    let prefix = format!("spec.ephemeralContainers[{}]", list.len());
    list.push(spec.clone());
    validation::ephemeral_containers(pod, &list, &[])
        .into_iter()
        .filter(|error| error.field.starts_with(&prefix))
        .collect()
}
