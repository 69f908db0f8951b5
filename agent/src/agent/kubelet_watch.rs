//! Keeps looking for a kubelet: where one runs, debuglet starts no pods of its own.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::runtime::client::Runtime;
use crate::source::kubelet::{self, Evidence};
use crate::store::Store;

/// How often it is looked for.
const INTERVAL: Duration = Duration::from_secs(15);

/// Looks every few seconds until `shutdown`, and says in `forbid` why nothing of our own may be started.
pub(super) async fn run(
    runtime: Runtime,
    store: std::sync::Arc<Store>,
    forbid: watch::Sender<Option<String>>,
    shutdown: CancellationToken,
) {
    while shutdown
        .run_until_cancelled(tokio::time::sleep(INTERVAL))
        .await
        .is_some()
    {
        look(&runtime, &store, &forbid).await;
    }
}

/// Looks once.
pub(super) async fn look(runtime: &Runtime, store: &Store, forbid: &watch::Sender<Option<String>>) {
    let evidence = kubelet::look(runtime).await;
    let reason = reason(&evidence);
    let changed = forbid.send_if_modified(|current| {
        let changed = current.is_some() != reason.is_some();
        current.clone_from(&reason);
        changed
    });
    if changed {
        match &reason {
            Some(reason) => tracing::warn!("{reason}"),
            None => tracing::info!("no kubelet runs here any more: pods of the manifests folder are started"),
        }
    }
    store.report_node(|report| {
        report.kubelet.running = evidence.is_here();
        report.kubelet.evidence = if evidence.is_here() {
            evidence.to_string()
        } else {
            String::new()
        };
    });
}

fn reason(evidence: &Evidence) -> Option<String> {
    evidence.is_here().then(|| {
        format!("a kubelet runs on this node ({evidence}): debuglet starts no pods of its own beside it")
    })
}
