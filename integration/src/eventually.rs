//! Waiting for what has no event to wait for. A wait that is in vain says what it waited for, how long, and what it saw
//! last.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

/// How long a thing may take before a test fails: far more than it takes, as the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_millis(20);

/// How much of what was seen last is shown, in bytes: its beginning and its end.
const SHOWN_BYTES: usize = 16 * 1024;

/// Calls `look` until it gives `Ok`, for a minute at most; the last `Err` is what the failure shows.
pub async fn eventually<T, E: Debug>(what: &str, look: impl AsyncFnMut() -> Result<T, E>) -> T {
    eventually_within(PATIENCE, what, look).await
}

/// Whether something becomes true within a minute. The caller shows what it saw where that fails.
pub async fn settles(mut look: impl AsyncFnMut() -> bool) -> bool {
    let started = Instant::now();
    while !look().await {
        if started.elapsed() > PATIENCE {
            return false;
        }
        sleep(PAUSE).await;
    }
    true
}

/// [`eventually`], with a patience of its own. A single look may take as long as that, too.
pub async fn eventually_within<T, E: Debug>(
    patience: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let started = Instant::now();
    let mut before = None;
    loop {
        match timeout(patience, look()).await {
            Ok(Ok(found)) => return found,
            Ok(Err(seen)) if started.elapsed() > patience => {
                panic!(
                    "waited in vain for {patience:?} until {what}; last seen: {}",
                    shown(&seen)
                )
            }
            Ok(Err(seen)) => {
                before = Some(seen);
                sleep(PAUSE).await;
            }
            Err(_) => panic!(
                "waited in vain until {what}: looking once has not ended in {patience:?}; seen before: {}",
                shown(&before)
            ),
        }
    }
}

/// What `wait` comes to, which has to be within a minute; else the failure says what was waited for, and what `seen`
/// tells then.
pub async fn in_time<T, E: Debug>(what: &str, wait: impl Future<Output = T>, seen: impl FnOnce() -> E) -> T {
    match timeout(PATIENCE, wait).await {
        Ok(found) => found,
        Err(_) => panic!(
            "waited in vain for {PATIENCE:?} until {what}; seen: {}",
            shown(&seen())
        ),
    }
}

/// What was seen, cut in the middle where it is long.
fn shown(seen: &impl Debug) -> String {
    let text = format!("{seen:#?}");
    if text.len() <= SHOWN_BYTES {
        return text;
    }
    let start = text.floor_char_boundary(SHOWN_BYTES / 2);
    let end = text.ceil_char_boundary(text.len() - SHOWN_BYTES / 2);
    format!(
        "{}\n[{} bytes left out]\n{}",
        &text[..start],
        end - start,
        &text[end..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[should_panic(expected = "waited in vain for 10ms until it rains; last seen: \"the sun, 2\"")]
    async fn a_wait_in_vain_says_what_for_and_what_was_seen_last() {
        let mut looks = 0;
        eventually_within::<(), _>(Duration::from_millis(10), "it rains", async || {
            looks += 1;
            if looks == 2 {
                sleep(Duration::from_millis(10)).await;
            }
            Err(format!("the sun, {looks}"))
        })
        .await;
    }

    #[tokio::test]
    #[should_panic(
        expected = "until it rains: looking once has not ended in 10ms; seen before: Some(\n    \"clouds\",\n)"
    )]
    async fn a_look_without_an_end_is_a_wait_in_vain() {
        let mut looks = 0;
        eventually_within::<(), _>(Duration::from_millis(10), "it rains", async || {
            looks += 1;
            if looks > 1 {
                std::future::pending::<()>().await;
            }
            Err("clouds")
        })
        .await;
    }

    #[test]
    fn of_much_the_beginning_and_the_end_are_shown() {
        let text = shown(&format!("begin{}end", "é".repeat(SHOWN_BYTES)));
        assert!(text.starts_with("\"begin") && text.ends_with("end\""), "{text}");
        assert!(text.len() < SHOWN_BYTES + 100 && text.contains(" bytes left out]"));
    }
}
