//! The connections whose clients are not known yet. There is room for so many; who comes next waits until one of them is
//! known or gone. A client that does not get on with its handshake makes room sooner than its deadline when others wait:
//! who opens many connections and says nothing holds the others up, but not for long.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How long a client has for its handshake even where others wait. Long enough for as many as there is room for to be
/// greeted all at once on a slow machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// All of one listener.
#[derive(Debug)]
pub(super) struct Strangers {
    rooms: Arc<Semaphore>,
    /// The oldest first. A token is cancelled to end its connection, and when its client is known or gone.
    admitted: VecDeque<(Instant, CancellationToken)>,
}

/// Room for one more.
pub(super) type Room = OwnedSemaphorePermit;

/// A client that is not known yet. Dropped when it is known, or gone.
#[derive(Debug)]
pub(super) struct Stranger {
    dismissed: CancellationToken,
    _room: Room,
}

impl Strangers {
    /// With room for `limit` at once.
    pub(super) fn new(limit: usize) -> Strangers {
        Strangers {
            rooms: Arc::new(Semaphore::new(limit)),
            admitted: VecDeque::new(),
        }
    }

    /// Waits for room, which the oldest has to make once it has had [`PATIENCE`]. Can be dropped and called again.
    pub(super) async fn room(&mut self) -> Result<Room, AcquireError> {
        self.admitted.retain(|(_, stranger)| !stranger.is_cancelled());
        let mut free = pin!(Arc::clone(&self.rooms).acquire_owned());
        if let Some((since, oldest)) = self.admitted.front() {
            tokio::select! {
                biased;
                free = &mut free => return free,
                () = sleep_until(*since + PATIENCE) => oldest.cancel(),
            }
        }
        free.await
    }

    /// One more, in a room of its own.
    pub(super) fn admit(&mut self, room: Room) -> Stranger {
        let dismissed = CancellationToken::new();
        self.admitted.push_back((Instant::now(), dismissed.clone()));
        Stranger {
            dismissed,
            _room: room,
        }
    }
}

impl Stranger {
    /// What comes of `work`; `None` where the client has to make room first.
    pub(super) async fn run_until_dismissed<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.dismissed.run_until_cancelled(work).await
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.dismissed.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn next(strangers: &mut Strangers) -> Stranger {
        let room = strangers.room().await.expect("room");
        strangers.admit(room)
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_one_waits_until_somebody_is_known_and_nobody_is_dismissed_for_it() {
        let mut strangers = Strangers::new(2);
        let (first, second) = (next(&mut strangers).await, next(&mut strangers).await);
        let start = Instant::now();
        let known = async move {
            tokio::time::sleep(PATIENCE / 2).await;
            drop(second);
        };
        let (_third, ()) = tokio::join!(next(&mut strangers), known);
        assert_eq!(start.elapsed(), PATIENCE / 2);
        assert!(!first.dismissed.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_makes_room_once_it_has_had_its_time_and_only_the_oldest() {
        let mut strangers = Strangers::new(2);
        let start = Instant::now();
        let (first, second) = (next(&mut strangers).await, next(&mut strangers).await);
        let silent =
            tokio::spawn(async move { first.run_until_dismissed(std::future::pending::<()>()).await });
        let _third = next(&mut strangers).await;
        assert_eq!(start.elapsed(), PATIENCE);
        assert_eq!(silent.await.expect("a task"), None);
        assert!(!second.dismissed.is_cancelled());
    }
}
