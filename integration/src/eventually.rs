//! Waiting for what has no event to wait for.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long a thing may take before a test fails: far more than it takes, as the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Calls `look` until it gives `Ok`, for a minute at most; the last `Err` is what the failure shows.
pub async fn eventually<T, E: Debug>(what: &str, look: impl AsyncFnMut() -> Result<T, E>) -> T {
    eventually_within(PATIENCE, what, look).await
}

/// Whether something becomes true within twenty seconds.
pub async fn settles(mut look: impl AsyncFnMut() -> bool) -> bool {
    let started = Instant::now();
    while !look().await {
        if started.elapsed() > Duration::from_secs(20) {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

/// [`eventually`], with a patience of its own.
pub async fn eventually_within<T, E: Debug>(
    patience: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let started = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if started.elapsed() > patience => {
                panic!("waited in vain until {what}; last seen: {seen:#?}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
