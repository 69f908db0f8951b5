//! How long something has lasted, in the few characters that kubectl spends on it.

use jiff::{SignedDuration, Timestamp};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// The time since `moment`; `<unknown>` when there is none.
pub(crate) fn since(moment: Option<Timestamp>, now: Timestamp) -> String {
    match moment {
        Some(moment) => human(now.duration_since(moment)),
        None => "<unknown>".into(),
    }
}

/// A duration with two units while the smaller one still means something: `75s`, `3m20s`, `5h`, `41d`.
pub(crate) fn human(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        // Two clocks may disagree a little; more than that is worth seeing.
        _ if seconds < -1 => "<invalid>".into(),
        ..0 => "0s".into(),
        _ if seconds < 2 * MINUTE => format!("{seconds}s"),
        _ if seconds < 10 * MINUTE => two_units(seconds, (MINUTE, "m"), (1, "s")),
        _ if seconds < 3 * HOUR => format!("{}m", seconds / MINUTE),
        _ if seconds < 8 * HOUR => two_units(seconds, (HOUR, "h"), (MINUTE, "m")),
        _ if seconds < 2 * DAY => format!("{}h", seconds / HOUR),
        _ if seconds < 8 * DAY => two_units(seconds, (DAY, "d"), (HOUR, "h")),
        _ if seconds < 2 * YEAR => format!("{}d", seconds / DAY),
        _ if seconds < 8 * YEAR => two_units(seconds, (YEAR, "y"), (DAY, "d")),
        _ => format!("{}y", seconds / YEAR),
    }
}

/// `3m20s`, or `3m` where nothing of the smaller unit is left.
fn two_units(seconds: i64, (large, large_name): (i64, &str), (small, small_name): (i64, &str)) -> String {
    let rest = seconds % large / small;
    match rest {
        0 => format!("{}{large_name}", seconds / large),
        _ => format!("{}{large_name}{rest}{small_name}", seconds / large),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_two_units_while_the_smaller_one_means_something() {
        for (seconds, shown) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (600, "10m"),
            (3 * HOUR - 1, "179m"),
            (3 * HOUR, "3h"),
            (3 * HOUR + 61, "3h1m"),
            (8 * HOUR + 61, "8h"),
            (2 * DAY - 1, "47h"),
            (2 * DAY + 5 * HOUR, "2d5h"),
            (41 * DAY + 5, "41d"),
            (2 * YEAR, "2y"),
            (3 * YEAR + 7 * DAY, "3y7d"),
            (9 * YEAR, "9y"),
        ] {
            assert_eq!(human(SignedDuration::from_secs(seconds)), shown, "{seconds}");
        }
    }
}
