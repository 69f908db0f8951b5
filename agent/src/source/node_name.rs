//! Looks whether the node's name is the one that its cluster knows it by, and reports where it is not.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::kubernetes::api_server::ApiServer;
use crate::kubernetes::back_off::{BackOff, Growth};
use crate::kubernetes::node_name::NodeName;
use crate::store::Store;
use crate::store::problems::ProblemKind;

/// How often a name that nothing speaks against is looked at again: a cluster may have been joined under another.
const INTERVAL: Duration = Duration::from_secs(600);

/// Looks whenever the API server begins to answer, and now and then, until `shutdown`.
pub(crate) async fn run(api_server: Arc<ApiServer>, store: Arc<Store>, shutdown: CancellationToken) {
    let mut reach = api_server.reach();
    let mut back_off = BackOff::new(Growth::REFUSAL);
    let mut told = None;
    let looks = async {
        loop {
            let answers = reach.borrow_and_update().answers();
            let wait = match answers {
                true => look(&api_server, &store, &mut told, &mut back_off).await,
                false => INTERVAL,
            };
            tokio::select! {
                changed = reach.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait) => {}
            }
        }
    };
    shutdown.run_until_cancelled(looks).await;
}

/// Looks once. Answers how long to wait for the next look.
async fn look(
    api_server: &ApiServer,
    store: &Store,
    told: &mut Option<String>,
    back_off: &mut BackOff,
) -> Duration {
    let node_name = store.node_name();
    match api_server.node_name(node_name).await {
        NodeName::NotDoubted => {
            store.solved(ProblemKind::NodeName, node_name);
            *told = None;
            back_off.reset();
            INTERVAL
        }
        NodeName::Doubted(doubt) => {
            if told.as_ref() != Some(&doubt) {
                tracing::warn!("{doubt}");
            }
            store.problem(ProblemKind::NodeName, node_name, "", doubt.clone());
            *told = Some(doubt);
            back_off.next(rand::random())
        }
        NodeName::Unknown => back_off.next(rand::random()),
    }
}
