//! Pods that clients of the API delete. That a pod is to go is durable before the answer, so that it does not come back;
//! where the disk refuses that, the pod goes all the same and the answer says so.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::changes::ChangeKind;
use super::unwritten::InForce;
use super::{DryRun, Entry, Store, Wanted};
use crate::pod::deletion::deleted;
use crate::pod::source::Source;
use crate::pod::visibility::Audience;
use crate::write_threads::NotRun;

/// What a client asks for when it deletes a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deletion {
    /// How long its containers may take, in seconds; none: as long as the pod says.
    pub(crate) grace_seconds: Option<i64>,
    /// Only the pod of this UID.
    pub(crate) uid: Option<String>,
    /// Only while it is at this version.
    pub(crate) resource_version: Option<String>,
}

/// Why a pod was not deleted. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeleteError {
    /// There is no such pod.
    #[error("there is no such pod")]
    NoSuchPod,
    /// It is not the pod, or not at the version, that the client means.
    #[error("the pod's {field} is {is:?}, not {asked:?}")]
    Precondition {
        /// `uid` or `resourceVersion`.
        field: &'static str,
        /// What the pod has.
        is: String,
        /// What the client said.
        asked: String,
    },
    /// It belongs to the folder.
    #[error("the pod stands in {}", .0.display())]
    OfManifest(PathBuf),
    /// Somebody else runs it.
    #[error("somebody else runs the pod")]
    Foreign,
    /// The write did not come to its end.
    #[error(transparent)]
    NotRun(#[from] NotRun),
}

impl Store {
    /// Has a pod that `audience` sees go, or go sooner; answers the pod as it is served then, or was served last. On return
    /// that would survive a power cut, unless the answer says why not: then the pod goes all the same, and would be back
    /// after a restart of the agent before it is written down.
    pub(crate) async fn delete(
        self: &Arc<Self>,
        audience: Audience,
        namespace: &str,
        name: &str,
        deletion: Deletion,
        dry_run: DryRun,
    ) -> Result<InForce<Arc<Pod>>, DeleteError> {
        let store = Arc::clone(self);
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let delete = move || store.delete_blocking(audience, &namespace, &name, &deletion, dry_run);
        self.write_threads().run(delete).await?
    }

    fn delete_blocking(
        &self,
        audience: Audience,
        namespace: &str,
        name: &str,
        deletion: &Deletion,
        dry_run: DryRun,
    ) -> Result<InForce<Arc<Pod>>, DeleteError> {
        let pod = self.to_write(audience, namespace, name);
        let (uid, writing) = pod.ok_or(DeleteError::NoSuchPod)?;
        let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (removal, kept) = {
            let inner = self.lock();
            let entry = inner.pods.get(&uid).filter(|entry| !entry.is_deleted());
            let entry = entry.ok_or(DeleteError::NoSuchPod)?;
            may_delete(entry, audience, deletion)?;
            let asked = deletion.grace_seconds;
            let served = entry.served.of(audience).ok_or(DeleteError::NoSuchPod)?;
            let Some(removal) = deleted(served, entry.removal(), asked, Timestamp::now()) else {
                return Ok(InForce::written(Arc::clone(served)));
            };
            let mut leaving = entry.clone();
            leaving.wanted = Wanted::Removed(removal);
            if dry_run == DryRun::All {
                let tried = leaving.serve(inner.history.version());
                let tried = tried.of(audience).cloned().ok_or(DeleteError::NoSuchPod)?;
                return Ok(InForce::written(tried));
            }
            (removal, leaving.kept())
        };
        let unwritten = self.disk.write_pod(&uid, &kept).err();
        if let Some(error) = &unwritten {
            let message = format!("The pod is being removed, which is not written down yet: {error}");
            self.tell_unwritten(&uid, message, None);
        }
        let mut inner = self.lock();
        let entry = inner.pods.get_mut(&uid).ok_or(DeleteError::NoSuchPod)?;
        entry.wanted = Wanted::Removed(removal);
        entry.unwritten.pod = unwritten.is_some();
        entry.wake.notify_one();
        let kind = if entry.is_deleted() {
            ChangeKind::Deleted
        } else {
            ChangeKind::Modified
        };
        let version = inner.publish_always(&uid, kind);
        let served = inner
            .pods
            .get(&uid)
            .and_then(|entry| entry.served.of(audience).cloned())
            .unwrap_or_default();
        drop(inner);
        self.announce(version);
        Ok(InForce {
            object: served,
            unwritten,
        })
    }
}

fn may_delete(entry: &Entry, audience: Audience, deletion: &Deletion) -> Result<(), DeleteError> {
    let version = entry.version_for(audience).unwrap_or_default();
    for (field, asked, is) in [
        ("uid", &deletion.uid, entry.key.uid.as_str()),
        ("resourceVersion", &deletion.resource_version, version),
    ] {
        if let Some(asked) = asked.as_ref().filter(|asked| *asked != is) {
            return Err(DeleteError::Precondition {
                field,
                is: is.to_owned(),
                asked: asked.clone(),
            });
        }
    }
    match &entry.source {
        Source::Manifest(path) => Err(DeleteError::OfManifest(path.clone())),
        Source::Api => Ok(()),
        Source::Discovered(_) => Err(DeleteError::Foreign),
    }
}
