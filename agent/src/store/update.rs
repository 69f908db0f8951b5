//! Labels and annotations that clients of the API change.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use k8s_openapi::api::core::v1::Pod;

use super::changes::ChangeKind;
use super::disk::DiskError;
use super::unwritten::IfRefused;
use super::{DryRun, Entry, Store};
use crate::pod::size::{self, TooLarge};
use crate::pod::source::Source;
use crate::pod::update::Changeable;
use crate::pod::visibility::Audience;
use crate::write_threads::NotRun;

/// What a client writes to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Update {
    /// The pod that it means.
    pub(crate) uid: Option<String>,
    /// The version that it means, where it says so.
    pub(crate) resource_version: Option<String>,
    /// What the change was made from; none where it holds whatever was there.
    pub(crate) base: Option<Changeable>,
    /// What the pod is to have.
    pub(crate) wanted: Changeable,
}

/// Why a pod was not updated. Nothing has changed, unless the error is [`DiskError::NotSynced`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpdateError {
    /// There is no such pod.
    #[error("there is no such pod")]
    NoSuchPod,
    /// It is another pod, or another version, than the client means.
    #[error("the pod has changed")]
    Conflict,
    /// Somebody else wrote since the base was read: make the change anew.
    #[error("the pod has changed since it was read")]
    Overtaken,
    /// It belongs to the folder.
    #[error("the pod stands in {}", .0.display())]
    OfManifest(PathBuf),
    /// The pod would have too many bytes.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// Somebody else runs it.
    #[error("somebody else runs the pod")]
    Foreign,
    /// It could not be made durable.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The write did not come to its end.
    #[error(transparent)]
    NotRun(#[from] NotRun),
}

impl Store {
    /// Gives a pod that `audience` sees new labels and annotations. On return they would survive a power cut; answers the pod as it is
    /// served then, which is as before where nothing changes.
    pub(crate) async fn update(
        self: &Arc<Self>,
        audience: Audience,
        namespace: &str,
        name: &str,
        update: Update,
        dry_run: DryRun,
    ) -> Result<Arc<Pod>, UpdateError> {
        let store = Arc::clone(self);
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let update = move || store.update_blocking(audience, &namespace, &name, update, dry_run);
        self.write_threads().run(update).await?
    }

    fn update_blocking(
        &self,
        audience: Audience,
        namespace: &str,
        name: &str,
        update: Update,
        dry_run: DryRun,
    ) -> Result<Arc<Pod>, UpdateError> {
        let pod = self.to_write(audience, namespace, name);
        let (uid, writing) = pod.ok_or(UpdateError::NoSuchPod)?;
        let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (updated, version) = {
            let inner = self.lock();
            let entry = inner.pods.get(&uid).filter(|entry| !entry.is_deleted());
            let entry = entry.ok_or(UpdateError::NoSuchPod)?;
            if !may_update(entry, audience, &update)? {
                let served = entry.served.of(audience).cloned();
                return served.ok_or(UpdateError::NoSuchPod);
            }
            let mut updated = entry.clone();
            update.wanted.write_to(Arc::make_mut(&mut updated.pod));
            (updated, inner.history.version())
        };
        let tried = updated.serve(version);
        size::judge(tried.whole())?;
        if dry_run == DryRun::All {
            return tried.of(audience).cloned().ok_or(UpdateError::NoSuchPod);
        }
        let written = self.disk.write_pod(&uid, &updated.kept());
        if !IfRefused::Leave.takes(&written) {
            return written.map(|()| Arc::default()).map_err(UpdateError::Disk);
        }
        let mut inner = self.lock();
        let entry = inner.pods.get_mut(&uid).ok_or(UpdateError::NoSuchPod)?;
        entry.pod = updated.pod;
        entry.unwritten.pod = written.is_err();
        entry.wake.notify_one();
        let version = inner.publish(&uid, ChangeKind::Modified);
        let served = inner
            .pods
            .get(&uid)
            .and_then(|entry| entry.served.of(audience).cloned())
            .unwrap_or_default();
        drop(inner);
        self.announce(version);
        written?;
        Ok(served)
    }
}

/// Whether there is anything to write, if it may be written.
fn may_update(entry: &Entry, audience: Audience, update: &Update) -> Result<bool, UpdateError> {
    let is_meant = |asked: &Option<String>, is: Option<&str>| asked.is_none() || asked.as_deref() == is;
    let version = entry.version_for(audience);
    if !is_meant(&update.uid, Some(entry.key.uid.as_str())) || !is_meant(&update.resource_version, version) {
        return Err(UpdateError::Conflict);
    }
    let present = Changeable::of(&entry.pod);
    if update.base.as_ref().is_some_and(|base| *base != present) {
        return Err(UpdateError::Overtaken);
    }
    if update.wanted == present {
        return Ok(false);
    }
    match &entry.source {
        Source::Manifest(path) => Err(UpdateError::OfManifest(path.clone())),
        Source::Api => Ok(true),
        Source::Discovered(_) => Err(UpdateError::Foreign),
    }
}
