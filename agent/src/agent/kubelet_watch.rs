//! Keeps looking for a kubelet: where one runs, debuglet starts no pods of its own; where it is down, debuglet may do
//! what the API server asks of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::kubernetes::kubelet::{Kubelet, Look};
use crate::kubernetes::kubelet_signs::HEALTH_PORT;
use crate::logging::NEWS;
use crate::runtime::client::Runtime;
use crate::source::kubelet;
use crate::store::Store;
use crate::store::node_report::KubeletReport;
use crate::store::problems::ProblemKind;

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
    let reason = report(runtime, store, kubelet.look().await).await;
    let changed = forbid.send_if_modified(|current| {
        let changed = current.is_some() != reason.is_some();
        current.clone_from(&reason);
        changed
    });
    if changed {
        match &reason {
            Some(reason) => tracing::warn!(target: NEWS, "{reason}"),
            None => {
                tracing::info!(target: NEWS, "no kubelet runs here any more: pods of the manifests folder are started");
            }
        }
    }
}

/// Says in the store what is doubtful about a look, or that it is so no more, and in the log what of it is new.
fn tell(store: &Store, kind: ProblemKind, object: &str, doubt: Option<String>) {
    let Some(doubt) = doubt else {
        store.solved(kind, object);
        return;
    };
    let known = store.node_report().problems;
    let is_told = known
        .iter()
        .any(|problem| problem.kind == kind && problem.object == object && problem.message == doubt);
    if !is_told {
        tracing::warn!("{doubt}");
        store.problem(kind, object, "", doubt);
    }
}

/// Looks for a kubelet's pods beside its signs of life, which `look` showed, and reports both in the store; answers why
/// nothing of our own may be started. The runtime is asked only where nobody keeps its pods in the store.
pub(super) async fn report(runtime: &Runtime, store: &Store, look: Look) -> Option<String> {
    let sandboxes = match store.kubelet_pods() {
        Some(pods) => pods,
        None => kubelet::sandboxes(runtime).await,
    };
    let doubts = kubelet::doubts(&look, store.node_name());
    for (kind, object, doubt) in [
        (
            ProblemKind::HealthPort,
            HEALTH_PORT.to_string(),
            doubts.health_port,
        ),
        (ProblemKind::HiddenProcesses, "/proc".to_owned(), doubts.processes),
        (ProblemKind::NoLease, store.node_name().to_owned(), doubts.lease),
    ] {
        tell(store, kind, &object, doubt);
    }
    let evidence = kubelet::evidence(look, sandboxes);
    let report = KubeletReport {
        looked: true,
        running: evidence.is_here(),
        evidence: evidence.to_string(),
    };
    let reason = report.allows_pods().err().map(|reason| reason.to_string());
    store.report_node(|node| node.kubelet = report);
    reason
}
