//! Pods that use more of the disk than they may. That one was evicted is written down, so that it does not run again after
//! a restart.

use std::sync::{Arc, PoisonError};

use k8s_openapi::jiff::Timestamp;

use super::events::{Happening, Severity};
use super::{Entry, Store, Wanted};
use crate::pod::eviction::{self, Eviction, LimitedVolume};

impl Store {
    /// The volumes on the disk that have a limit, of each pod of ours that is to run.
    pub(crate) fn limited_volumes(&self) -> Vec<(String, Vec<LimitedVolume>)> {
        let inner = self.lock();
        let running = inner.pods.iter().filter(|(_, entry)| may_be_evicted(entry));
        let limited = running.map(|(uid, entry)| (uid.clone(), eviction::limited_volumes(&entry.pod)));
        limited.filter(|(_, limited)| !limited.is_empty()).collect()
    }

    /// Has all of a pod end, for the reason in `message`; it stays as Failed. It is in force also where the disk refuses
    /// it: what fills the disk must go.
    pub(crate) async fn evict(self: &Arc<Self>, uid: &str, message: String) {
        let store = Arc::clone(self);
        let uid = uid.to_owned();
        // A volume that is still there and too large is measured again, also after a panic.
        let _ = self
            .write_threads()
            .run(move || store.evict_blocking(&uid, message))
            .await;
    }

    fn evict_blocking(&self, uid: &str, message: String) {
        let Some(writing) = self.writing(uid) else { return };
        let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
        let eviction = Eviction {
            message: message.clone(),
            since: Timestamp::now(),
        };
        let kept = {
            let inner = self.lock();
            let Some(entry) = inner.held(uid, &writing).filter(|entry| may_be_evicted(entry)) else {
                return;
            };
            let mut evicted = entry.clone();
            evicted.evicted = Some(eviction.clone());
            evicted.kept()
        };
        let written = self.disk.write_pod(uid, &kept);
        if let Err(error) = &written {
            tracing::error!(
                pod_uid = uid,
                "that a pod is evicted is not written down yet: {error}"
            );
        }
        tracing::warn!(pod_uid = uid, "the pod is evicted: {message}");
        if let Some(entry) = self.lock().pods.get_mut(uid) {
            entry.evicted = Some(eviction);
            entry.unwritten.pod = written.is_err();
            entry.wake.notify_one();
        }
        let happening = Happening {
            severity: Severity::Warning,
            reason: eviction::REASON,
            message,
            container: None,
        };
        self.record_event(uid, happening);
    }
}

fn may_be_evicted(entry: &Entry) -> bool {
    !entry.is_foreign()
        && entry.wanted == Wanted::Running
        && entry.evicted.is_none()
        && !matches!(entry.status.phase.as_deref(), Some("Succeeded" | "Failed"))
}
