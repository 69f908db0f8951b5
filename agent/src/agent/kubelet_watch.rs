//! Keeps looking for a kubelet: where one runs, debuglet starts no pods of its own; where it is down, debuglet may do
//! what the API server asks of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::kubernetes::kubelet::Kubelet;
use crate::kubernetes::kubelet_signs::KubeletSigns;
use crate::runtime::client::Runtime;
use crate::source::kubelet;
use crate::store::Store;
use crate::store::node_report::KubeletReport;

/// How often it is looked for.
const INTERVAL: Duration = Duration::from_secs(15);

/// Looks every few seconds until `shutdown`, and says in `forbid` why nothing of our own may be started.
pub(super) async fn run(
    runtime: Runtime,
    store: Arc<Store>,
    kubelet: Arc<Kubelet>,
    forbid: watch::Sender<Option<String>>,
    shutdown: CancellationToken,
) {
    // Who has little patience with a kubelet that is away looks more closely.
    let interval = INTERVAL.min(kubelet.down_after() / 2);
    let looks = async {
        loop {
            tokio::time::sleep(interval).await;
            look(&runtime, &store, &kubelet, &forbid).await;
        }
    };
    shutdown.run_until_cancelled(looks).await;
}

/// Looks once, and says in `forbid` why nothing of our own may be started.
pub(super) async fn look(
    runtime: &Runtime,
    store: &Store,
    kubelet: &Kubelet,
    forbid: &watch::Sender<Option<String>>,
) {
    let (signs, _) = kubelet.look().await;
    let reason = report(runtime, store, signs).await;
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
}

/// Looks for a kubelet's pods beside its `signs`, and reports both in the store; answers why nothing of our own may be
/// started. The runtime is asked only where nobody keeps its pods in the store.
pub(super) async fn report(runtime: &Runtime, store: &Store, signs: KubeletSigns) -> Option<String> {
    let sandboxes = match store.kubelet_pods() {
        Some(pods) => pods,
        None => kubelet::sandboxes(runtime).await,
    };
    let evidence = kubelet::evidence(signs, sandboxes);
    let report = KubeletReport {
        looked: true,
        running: evidence.is_here(),
        evidence: evidence.to_string(),
    };
    let reason = report.allows_pods().err().map(|reason| reason.to_string());
    store.report_node(|node| node.kubelet = report);
    reason
}
