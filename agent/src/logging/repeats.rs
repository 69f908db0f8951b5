//! Paces what is said again and again. Whatever fails is tried again, for as long as a peer is away, and each try may say
//! why it failed. A warning or an error is written once, and as long as it is repeated, again after a minute, two, four, up
//! to an hour. All lines of the agent and of its libraries go through here, news too: a peer that comes and goes is told of at
//! the same pace.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::NEWS;

/// After what time a line that is repeated is written for the second time; doubles.
const FIRST: Duration = Duration::from_secs(60);
/// The longest of these times.
const LONGEST: Duration = Duration::from_secs(3600);
/// A line that was not said for so long is a new one: nothing is tried again less often.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// How many lines are remembered. Where there are more, the one that was not said for longest makes room.
const REMEMBERED: usize = 256;

/// Lets a line through, or not.
#[derive(Debug, Default)]
pub(super) struct Repeats(Mutex<Seen>);

impl<S: Subscriber> Layer<S> for Repeats {
    fn event_enabled(&self, event: &Event<'_>, _context: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = metadata.target() == NEWS;
        if !is_news && *metadata.level() > Level::WARN {
            return true;
        }
        let mut line = Line(DefaultHasher::new());
        metadata.callsite().hash(&mut line.0);
        event.record(&mut line);
        let now = Instant::now();
        let due = seen.is_due(line.0.finish(), now);
        if is_news && *metadata.level() == Level::INFO {
            seen.works_again = Some(now);
        }
        due
    }
}

/// What a line says, as a hash.
struct Line(DefaultHasher);

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        (field.name(), value).hash(&mut self.0);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        (field.name(), format!("{value:?}")).hash(&mut self.0);
    }
}

/// The lines that were said.
#[derive(Debug, Default)]
struct Seen {
    lines: HashMap<u64, Said>,
    /// When the news last were that something works again.
    works_again: Option<Instant>,
}

/// How a line was said.
#[derive(Clone, Copy, Debug)]
struct Said {
    written: Instant,
    last: Instant,
    /// After what time it is written again.
    wait: Duration,
}

impl Seen {
    /// Whether a line that is said `now` is to be written.
    fn is_due(&mut self, line: u64, now: Instant) -> bool {
        if let Some(said) = self.lines.get_mut(&line) {
            let quiet = now.saturating_duration_since(said.last);
            // Something has worked again since, and long enough that it does not only come and go.
            let is_new = self
                .works_again
                .is_some_and(|at| said.last <= at && now.saturating_duration_since(at) >= FIRST);
            said.last = now;
            if quiet < FORGOTTEN_AFTER && !is_new {
                let due = now.saturating_duration_since(said.written) >= said.wait;
                if due {
                    said.written = now;
                    said.wait = (said.wait * 2).min(LONGEST);
                }
                return due;
            }
        } else if self.lines.len() >= REMEMBERED {
            let oldest = self.lines.iter().min_by_key(|(_, said)| said.last);
            if let Some(oldest) = oldest.map(|(line, _)| *line) {
                self.lines.remove(&oldest);
            }
        }
        let said = Said {
            written: now,
            last: now,
            wait: FIRST,
        };
        self.lines.insert(line, said);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds at which a line is written that is said at all of these.
    fn written(said: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let (mut seen, start) = (Seen::default(), Instant::now());
        said.into_iter()
            .filter(|second| seen.is_due(1, start + Duration::from_secs(*second)))
            .collect()
    }

    #[test]
    fn a_line_that_is_repeated_is_written_at_once_and_then_at_a_growing_pace() {
        assert_eq!(written((0..2000).step_by(2)), [0, 60, 180, 420, 900, 1860]);
        assert_eq!(
            written([0, 300, 600, 900]),
            [0, 300, 600, 900],
            "said rarely enough"
        );
        let day = written((0..24 * 3600).step_by(5));
        assert_eq!(
            day.last()
                .zip(day.iter().nth_back(1))
                .map(|(last, other)| last - other),
            Some(3600)
        );
        assert_eq!(day.len(), 29, "{day:?}");
    }

    #[test]
    fn a_line_that_was_not_said_for_long_is_a_new_one() {
        let later = 2000 + FORGOTTEN_AFTER.as_secs();
        let said = (0..2000).step_by(2).chain([later, later + 2, later + 60]);
        assert_eq!(written(said)[6..], [later, later + 60]);
    }

    #[test]
    fn a_line_is_new_once_something_has_worked_again_for_a_minute_and_not_while_it_comes_and_goes() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        assert!(seen.is_due(1, at(0)));
        seen.works_again = Some(at(10));
        assert!(!seen.is_due(1, at(20)), "it comes and goes");
        seen.works_again = Some(at(30));
        assert!(seen.is_due(1, at(90)), "it has worked for a minute");
        assert!(!seen.is_due(1, at(92)));
        let flaps: Vec<u64> = (100..2000)
            .step_by(2)
            .filter(|second| {
                seen.works_again = Some(at(second - 1));
                seen.is_due(1, at(*second))
            })
            .collect();
        assert_eq!(flaps, [150, 270, 510, 990, 1950]);
    }

    #[test]
    fn each_line_has_a_pace_of_its_own_and_of_too_many_the_oldest_makes_room() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        let at = |millisecond| start + Duration::from_millis(millisecond);
        for line in 0..REMEMBERED as u64 {
            assert!(seen.is_due(line, at(line)));
        }
        assert!(!seen.is_due(0, at(1000)), "it is remembered");
        assert!(seen.is_due(1_000_000, at(1001)));
        assert_eq!(seen.lines.len(), REMEMBERED);
        assert!(!seen.is_due(0, at(1002)), "it was said a moment ago");
        assert!(seen.is_due(1, at(1003)), "it made room");
    }
}
