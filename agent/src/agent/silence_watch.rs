//! Shows the calls that the runtime does not answer as problems of the node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::runtime::client::Runtime;
use crate::store::Store;
use crate::store::problems::ProblemKind;

/// How often it is looked, while there are any, which of them nobody makes any more.
const FORGET_EVERY: Duration = Duration::from_secs(10);

/// Keeps the store's problems of the kind `RuntimeSilent` what the runtime does not answer, until `shutdown`.
pub(super) async fn run(runtime: Runtime, store: Arc<Store>, shutdown: CancellationToken) {
    let mut changes = runtime.unanswered().changes();
    let mut shown = BTreeMap::new();
    loop {
        changes.borrow_and_update();
        let silences = runtime.unanswered().all();
        for call in shown.keys().filter(|call| !silences.contains_key(*call)) {
            store.solved(ProblemKind::RuntimeSilent, &call.name());
        }
        for (call, silence) in silences
            .iter()
            .filter(|(call, silence)| shown.get(*call) != Some(*silence))
        {
            let message = silence.message(call);
            store.problem(
                ProblemKind::RuntimeSilent,
                call.name(),
                silence.pod.as_str(),
                message,
            );
        }
        shown = silences;
        tokio::select! {
            // Never an error: the sender is in `runtime`.
            _ = changes.changed() => {}
            () = tokio::time::sleep(FORGET_EVERY), if !shown.is_empty() => runtime.unanswered().forget_old(),
            () = shutdown.cancelled() => return,
        }
    }
}
