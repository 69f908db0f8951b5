//! How long somebody who does not answer is left alone: longer each time, and never for the same time on all nodes.

use std::time::Duration;

/// The wait after the first failure, before it is spread.
const FIRST: Duration = Duration::from_secs(1);
/// No wait is longer, however often there was no answer.
const LONGEST: Duration = Duration::from_secs(60);

/// The waits between tries that fail.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BackOff {
    failures: u32,
}

impl BackOff {
    /// Forgets the failures: somebody has answered.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after one more failure. `spread` is a random number: where all nodes lose their API server at once, they
    /// do not all come back to it at once.
    pub(crate) fn next(&mut self, spread: u32) -> Duration {
        let doubled = FIRST.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        let wait = doubled.min(LONGEST);
        // Between a half and all of it.
        wait / 2 + (wait / 2).mul_f64(f64::from(spread) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_twice_the_one_before_up_to_a_minute_and_spread_over_its_second_half() {
        let mut longest = BackOff::default();
        let mut shortest = BackOff::default();
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let whole = Duration::from_secs(seconds);
            assert_eq!(longest.next(u32::MAX), whole);
            assert_eq!(shortest.next(0), whole / 2);
        }
        for _ in 0..100 {
            assert_eq!(longest.next(u32::MAX), LONGEST, "however often");
        }
        longest.reset();
        assert_eq!(longest.next(u32::MAX), FIRST);
    }
}
