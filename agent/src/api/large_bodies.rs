//! What large bodies may take of the agent. A body takes many times its size while it is decoded, and so long that
//! whoever is served by the same thread would notice: so few large ones are held at once, fewer are worked on, and
//! that on threads of their own.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::status::Failure;

/// How many bytes a body has that is not large. What `kubectl debug` and `kubectl apply` send is smaller.
pub(crate) const SMALL_BODY_BYTES: usize = 64 * 1024;

/// How many large bodies are held at once, from when they turn out to be large until they are answered.
const HELD: usize = 8;

/// How many of them are worked on at once. One takes up to some hundred megabytes then.
const WORKED_ON: usize = 1;

/// How long a request waits for either, before it is told to come again.
const PATIENCE: Duration = Duration::from_secs(5);

/// The seconds after which a client is told to come again.
const COME_AGAIN: i32 = 1;

/// The places of large bodies, shared by all requests.
#[derive(Clone, Debug)]
pub(crate) struct LargeBodies {
    held: Arc<Semaphore>,
    worked_on: Arc<Semaphore>,
}

/// The place of one large body; free for the next when it is dropped.
#[derive(Debug)]
pub(crate) struct Place(#[expect(dead_code, reason = "kept for what its end does")] OwnedSemaphorePermit);

impl Default for LargeBodies {
    fn default() -> LargeBodies {
        LargeBodies {
            held: Arc::new(Semaphore::new(HELD)),
            worked_on: Arc::new(Semaphore::new(WORKED_ON)),
        }
    }
}

impl LargeBodies {
    /// A place for a body that turns out to be large.
    pub(super) async fn place(&self) -> Result<Place, Failure> {
        take(&self.held).await.map(Place)
    }

    /// Does `work` in its turn, on a thread where nobody waits for it. It goes on to its end, and keeps its turn until
    /// then, where the request is given up.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let turn = take(&self.worked_on).await?;
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        done.await
            .unwrap_or_else(|error| Err(Failure::internal(format!("the body was not read: {error}"))))
    }
}

async fn take(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Failure> {
    match timeout(PATIENCE, Arc::clone(places).acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        // The semaphores are never closed, so it is time that has run out.
        Ok(Err(_)) | Err(_) => Err(Failure::too_many_requests(
            "too many large requests are under way: come again",
            COME_AGAIN,
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn of_large_bodies_few_are_held_and_the_next_are_told_to_come_again() {
        let bodies = LargeBodies::default();
        let mut held = Vec::new();
        for _ in 0..HELD {
            held.push(bodies.place().await.expect("a place"));
        }
        let refused = bodies.place().await.expect_err("refused");
        let status = refused.status();
        assert_eq!(
            (status.code, status.reason.as_deref()),
            (Some(429), Some("TooManyRequests"))
        );
        let details = status.details.clone().unwrap_or_default();
        assert_eq!(details.retry_after_seconds, Some(COME_AGAIN));
        held.pop();
        bodies.place().await.expect("the place of one that has gone");
    }

    #[tokio::test]
    async fn a_turn_lasts_to_the_end_of_the_work_also_when_nobody_waits_for_it() {
        let bodies = LargeBodies::default();
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let working = tokio::spawn({
            let bodies = bodies.clone();
            async move {
                let work = move || {
                    let _ = begun.send(());
                    let _ = wait.recv();
                    Ok(())
                };
                bodies.work(work).await
            }
        });
        has_begun.await.expect("begun");
        working.abort();
        assert!(working.await.expect_err("given up").is_cancelled());
        assert_eq!(bodies.worked_on.available_permits(), WORKED_ON - 1);
        drop(go_on);
        let all = u32::try_from(WORKED_ON).expect("few");
        let _all = bodies.worked_on.acquire_many(all).await.expect("all turns");
    }
}
