//! Whose the containers are that somebody else has started: asked beside the events, which must not wait for a runtime that
//! takes its time.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::signals::Signals;
use crate::runtime::client::Runtime;

/// How many containers may wait to be asked for.
const WAITING: usize = 256;
/// How many are asked for at the same time.
const AT_ONCE: usize = 8;

/// Asks for the pod of each container whose id is sent, and has that pod looked at anew, until `shutdown`.
pub(super) fn ask(
    runtime: Runtime,
    signals: Arc<Signals>,
    shutdown: &CancellationToken,
) -> (mpsc::Sender<String>, JoinHandle<()>) {
    let (sender, mut ids) = mpsc::channel(WAITING);
    let shutdown = shutdown.clone();
    let asking = async move {
        let mut questions = JoinSet::new();
        loop {
            tokio::select! {
                Some(answer) = questions.join_next() => if let Ok(Some(uid)) = answer {
                    let uid: String = uid;
                    signals.dirty(&uid);
                },
                id = ids.recv(), if questions.len() < AT_ONCE => {
                    let id: Option<String> = id;
                    let Some(id) = id else { return };
                    let runtime = runtime.clone();
                    // One that cannot be asked for is found by the slow re-list.
                    questions.spawn(async move { runtime.uid_of_container(&id).await.ok().flatten() });
                }
            }
        }
    };
    let task = tokio::spawn(async move {
        shutdown.run_until_cancelled(asking).await;
    });
    (sender, task)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_silent_runtime_keeps_no_more_waiting_than_a_bound_and_nobody_from_going_on() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("silent.sock");
        let _silent = tokio::net::UnixListener::bind(&socket).unwrap();
        let shutdown = CancellationToken::new();
        let (sender, asking) = ask(Runtime::alone(&socket), Arc::default(), &shutdown);
        let mut taken = 0;
        while sender.try_send(taken.to_string()).is_ok() {
            taken += 1;
            tokio::task::yield_now().await;
        }
        assert!(taken <= WAITING + AT_ONCE, "{taken}");
        shutdown.cancel();
        asking.await.unwrap();
    }
}
