//! What systemd is told (sd_notify(3)): that the agent is ready, stops, and is alive. Where nobody listens, nothing
//! is said.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;

/// The agent serves; `status` is what `systemctl status` shows.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// What the agent does now, in one line for `systemctl status`.
pub(crate) fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// The agent ends on purpose.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells systemd that the agent is alive as long as `is_alive` comes to its end in time, until the handle is dropped;
/// `None` where systemd does not ask for it (`WatchdogSec=`).
///
/// `is_alive` should do what everything else depends on, such as a durable write: a process that can do it no more is then
/// restarted. Only that it ends counts, not how: a restart does not help against an error. It should not ask the runtime,
/// whose failure a restart of the agent does not mend.
pub(crate) fn watchdog<F, A>(is_alive: F) -> Option<AbortOnDropHandle<()>>
where
    F: FnMut() -> A + Send + 'static,
    A: Future<Output = ()> + Send + 'static,
{
    let limit = sd_notify::watchdog_enabled()?;
    let task = feed(limit, is_alive, || tell(&[NotifyState::Watchdog]));
    Some(AbortOnDropHandle::new(tokio::spawn(task)))
}

/// Calls `tell_alive` twice within each `limit`, and not before `is_alive` has ended. It is asked once at a time: what
/// hangs is not asked again, which would occupy one more thread each time.
async fn feed<F, A>(limit: Duration, mut is_alive: F, tell_alive: impl Fn())
where
    F: FnMut() -> A,
    A: Future<Output = ()>,
{
    let period = limit / 2;
    let mut ticks = interval(period);
    // After a pause one sign of life is enough.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut answer = pin!(is_alive());
        while timeout(period, &mut answer).await.is_err() {
            tracing::error!("the agent hangs: systemd is not told that it is alive");
        }
        tell_alive();
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("cannot reach systemd: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::watch;

    #[tokio::test(start_paused = true)]
    async fn systemd_hears_of_a_life_twice_in_its_limit_and_nothing_while_the_agent_hangs() {
        let (hangs, asked, told) = (
            watch::Sender::new(false),
            AtomicUsize::new(0),
            AtomicUsize::new(0),
        );
        let is_alive = || {
            asked.fetch_add(1, Ordering::Relaxed);
            let mut hangs = hangs.subscribe();
            async move {
                let _ = hangs.wait_for(|hangs| !*hangs).await;
            }
        };
        let tell_alive = || {
            told.fetch_add(1, Ordering::Relaxed);
        };
        let watchdog = feed(Duration::from_secs(10), is_alive, tell_alive);
        let story = async {
            tokio::time::sleep(Duration::from_secs(29)).await;
            assert_eq!(told.load(Ordering::Relaxed), 6, "at 0, 5, ... 25 s");
            hangs.send_replace(true);
            tokio::time::sleep(Duration::from_secs(30)).await;
            assert_eq!(told.load(Ordering::Relaxed), 6);
            assert_eq!(asked.load(Ordering::Relaxed), 7, "what hangs is not asked again");
            hangs.send_replace(false);
            tokio::time::sleep(Duration::from_secs(11)).await;
            assert!(told.load(Ordering::Relaxed) > 6, "it goes on");
        };
        tokio::select! {
            () = watchdog => {}
            () = story => {}
        }
    }
}
