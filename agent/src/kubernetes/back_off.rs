//! How long to wait before something that failed is tried again: longer each time, and never for the same time on all
//! nodes. Everything that is asked of the API server again and again waits by this rule.

use std::time::Duration;

/// How the waits grow: each is twice the one before, from `first` up to `longest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Growth {
    first: Duration,
    longest: Duration,
}

impl Growth {
    /// For somebody who does not answer.
    pub(crate) const SILENCE: Growth = Growth {
        first: Duration::from_secs(1),
        longest: Duration::from_secs(60),
    };
    /// For somebody who answers and refuses: a right or an object is missing, or a policy forbids it. In the long run only a
    /// person changes that. But the first tries come soon, because an API server that has just started refuses everything
    /// until it has read its roles.
    pub(crate) const REFUSAL: Growth = Growth {
        first: Duration::from_secs(1),
        longest: Duration::from_secs(300),
    };

    /// The wait after so many failures in a row, the latest not counted.
    pub(crate) fn wait(self, failures: u32) -> Duration {
        let doubled = self
            .first
            .saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX));
        doubled.min(self.longest)
    }
}

/// The waits between tries that fail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackOff {
    growth: Growth,
    failures: u32,
}

impl BackOff {
    /// No failure yet.
    pub(crate) fn new(growth: Growth) -> BackOff {
        BackOff { growth, failures: 0 }
    }

    /// Forgets the failures: somebody has answered.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// How many failures there were in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// The wait after one more failure. `spread` is a random number: where all nodes lose their API server at once, they
    /// do not all come back to it at once.
    pub(crate) fn next(&mut self, spread: u32) -> Duration {
        let wait = self.growth.wait(self.failures);
        self.failures = self.failures.saturating_add(1);
        // Between a half and all of it.
        wait / 2 + (wait / 2).mul_f64(f64::from(spread) / f64::from(u32::MAX))
    }
}

/// The waits between tries of somebody who may be refused, or get no answer. Those after refusals grow apart from the
/// others: a server that was away for long and then refuses for some seconds is asked again soon.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pauses {
    refusals: BackOff,
    others: BackOff,
}

impl Default for Pauses {
    fn default() -> Pauses {
        Pauses {
            refusals: BackOff::new(Growth::REFUSAL),
            others: BackOff::new(Growth::SILENCE),
        }
    }
}

impl Pauses {
    /// The wait after one more failure, a refusal or not. `spread` is as for [`BackOff::next`].
    pub(crate) fn after(&mut self, refused: bool, spread: u32) -> Duration {
        match refused {
            true => self.refusals.next(spread),
            false => self.others.next(spread),
        }
    }

    /// How many refusals there were.
    pub(crate) fn refusals(&self) -> u32 {
        self.refusals.failures()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_twice_the_one_before_from_a_second_up_to_the_longest() {
        #[rustfmt::skip]
        let table = [
            (Growth::SILENCE, [1, 2, 4, 8, 16, 32,  60,  60,  60,  60]),
            (Growth::REFUSAL, [1, 2, 4, 8, 16, 32,  64, 128, 256, 300]),
        ];
        for (growth, seconds) in table {
            for (failures, seconds) in (0..).zip(seconds) {
                assert_eq!(
                    growth.wait(failures).as_secs(),
                    seconds,
                    "{growth:?} after {failures}"
                );
            }
            assert_eq!(growth.wait(u32::MAX), growth.longest, "however often");
        }
    }

    #[test]
    fn a_wait_is_spread_over_its_second_half_and_an_answer_begins_anew() {
        let mut longest = BackOff::new(Growth::SILENCE);
        let mut shortest = BackOff::new(Growth::SILENCE);
        for failures in 0..100 {
            let whole = Growth::SILENCE.wait(failures);
            assert_eq!(longest.next(u32::MAX), whole);
            assert_eq!(shortest.next(0), whole / 2);
        }
        longest.reset();
        assert_eq!(longest.failures(), 0);
        assert_eq!(longest.next(u32::MAX), Duration::from_secs(1));
    }

    #[test]
    fn a_server_that_was_away_for_long_and_then_refuses_is_asked_again_soon_and_then_less_and_less() {
        let mut pauses = Pauses::default();
        for failures in 0..20 {
            assert_eq!(pauses.after(false, u32::MAX), Growth::SILENCE.wait(failures));
        }
        for failures in 0..20 {
            assert_eq!(pauses.after(true, u32::MAX), Growth::REFUSAL.wait(failures));
        }
        assert_eq!(pauses.refusals(), 20);
    }
}
