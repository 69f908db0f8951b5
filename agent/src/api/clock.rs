//! Whether this machine's clock was set: then it is later or earlier than the time that has passed since.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;

/// How far the clock may be from where it should be. Clocks that are kept in step are moved by less at once.
const TOLERANCE: Duration = Duration::from_secs(60);

/// The wall clock, and the one that nobody sets, as they were at the same moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocks {
    wall: OffsetDateTime,
    monotonic: Instant,
}

impl Clocks {
    /// As they are now.
    pub(super) fn now() -> Clocks {
        Clocks {
            wall: OffsetDateTime::now_utc(),
            monotonic: Instant::now(),
        }
    }

    /// Whether the wall clock was set between `before` and here. A machine that slept counts as well.
    pub(super) fn were_set_since(&self, before: &Clocks) -> bool {
        let passed = self.monotonic.saturating_duration_since(before.monotonic);
        let shown = self.wall - before.wall;
        (shown - passed).unsigned_abs() > TOLERANCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_was_set_if_it_went_another_way_than_time() {
        let before = Clocks::now();
        for (passed, shown, expected) in [
            (60, 60, false),
            (60, 61, false),
            (60, 0, false),
            (60, -3600, true),
            (60, 3600, true),
            (3600, 3600, false),
            (0, 1_700_000_000, true),
        ] {
            let after = Clocks {
                wall: before.wall + time::Duration::seconds(shown),
                monotonic: before.monotonic + Duration::from_secs(passed),
            };
            assert_eq!(after.were_set_since(&before), expected, "{passed} {shown}");
        }
    }
}
