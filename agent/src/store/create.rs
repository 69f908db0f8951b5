//! Pods that clients of the API create.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::claim::{Holder, Refusal};
use super::disk::{DiskError, KeptPod};
use super::{DryRun, Entry, Store, Wanted};
use crate::pod::identity::random_uid;
use crate::pod::size::{self, TooLarge};
use crate::pod::source::Source;
use crate::pod::visibility::Audience;
use crate::write_threads::NotRun;

/// Why a pod was not created. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateError {
    /// Its name is taken.
    #[error("there is a pod of this name already")]
    AlreadyExists(Holder),
    /// There are as many pods as there may be.
    #[error("{0} pods have been created here already, and more are not taken: delete some")]
    TooMany(usize),
    /// It has too many bytes.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// It could not be made durable.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The write did not come to its end.
    #[error(transparent)]
    NotRun(#[from] NotRun),
}

impl Store {
    /// Takes in a pod as `pod::creation` prepared it, under a UID of its own. On return it would survive a power cut;
    /// answers it as it is served then. `audience` is told no more of who has its name already than it sees.
    pub(crate) async fn create(
        self: &Arc<Self>,
        audience: Audience,
        pod: Pod,
        dry_run: DryRun,
    ) -> Result<Arc<Pod>, CreateError> {
        let store = Arc::clone(self);
        self.write_threads()
            .run(move || store.create_blocking(audience, pod, dry_run))
            .await?
    }

    pub(super) fn create_blocking(
        &self,
        audience: Audience,
        mut pod: Pod,
        dry_run: DryRun,
    ) -> Result<Arc<Pod>, CreateError> {
        let metadata = &mut pod.metadata;
        let uid = random_uid(rand::random());
        metadata.uid = Some(uid.clone());
        metadata.creation_timestamp = Some(Time(Timestamp::now()));
        let namespace = metadata.namespace.clone().unwrap_or_default();
        let name = metadata.name.clone().unwrap_or_default();
        let version = self.lock().history.version();
        let tried = Entry::new(pod.clone(), Source::Api, 0, Wanted::Running, Vec::new()).serve(version);
        size::judge(tried.whole())?;
        if dry_run == DryRun::All {
            self.free_for_api(audience, &namespace, &name)?;
            return Ok(Arc::clone(tried.whole()));
        }
        let claim = self.claim_for_api(audience, &namespace, &name)?;
        self.write_unwritten_named(&namespace, &name)?;
        let kept = KeptPod {
            pod,
            source: Source::Api,
            incarnation: 0,
            removal: None,
            evicted: None,
            gone_since: None,
        };
        if let Err(error) = self.disk.write_pod(&uid, &kept) {
            // What was answered with an error must not be there after a restart.
            if let Err(error) = self.disk.remove_pod(&uid) {
                tracing::error!(pod = %format!("{namespace}/{name}"), "a pod that was refused stays on the disk: {error}");
            }
            return Err(error.into());
        }
        let mut inner = self.lock();
        inner.insert(Entry::new(kept.pod, kept.source, 0, Wanted::Running, Vec::new()));
        let version = inner.history.version();
        let served = inner
            .pods
            .get(&uid)
            .map(|entry| Arc::clone(entry.served.whole()))
            .unwrap_or_default();
        drop(inner);
        drop(claim);
        self.announce(version);
        Ok(served)
    }
}

impl From<Refusal> for CreateError {
    fn from(refusal: Refusal) -> CreateError {
        match refusal {
            Refusal::Taken(holder) => CreateError::AlreadyExists(holder),
            Refusal::TooMany(count) => CreateError::TooMany(count),
        }
    }
}
