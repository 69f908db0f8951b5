//! Looks after the state folder: what a full disk refused is written once there is room, and the room that is kept for the
//! next time is made again.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::Store;

/// How often it is looked at. While all is well that costs one `stat`.
const INTERVAL: Duration = Duration::from_secs(10);

/// Looks now and again until `shutdown`.
pub(super) async fn run(store: Arc<Store>, shutdown: CancellationToken) {
    let mut trouble = None;
    while shutdown
        .run_until_cancelled(tokio::time::sleep(INTERVAL))
        .await
        .is_some()
    {
        store.withdraw_old_panics();
        let now = store.keep_up().await;
        match &now {
            Some(message) if trouble.is_none() => tracing::error!("{message}"),
            None if trouble.is_some() => {
                tracing::info!("the state folder has room again, and everything is written down");
            }
            _ => {}
        }
        trouble = now;
    }
}
