//! How samples are shown.

use std::time::Duration;

/// A row of the table: median and 95th percentile.
pub(crate) fn row(what: &str, samples: &[Duration]) {
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1000.0;
    println!(
        "{what:<46} {:>8.1} ms {:>8.1} ms",
        milliseconds(median(samples)),
        milliseconds(percentile(samples, 95))
    );
}

/// A number, and whether it keeps its bound.
pub(crate) fn verdict(what: &str, number: f64, holds: bool, bound: &str) {
    println!(
        "{what:<46} {number:>8.2}    {} (bound: {bound})\n",
        if holds { "holds" } else { "DOES NOT HOLD" }
    );
}

/// The median.
pub(crate) fn median(samples: &[Duration]) -> Duration {
    percentile(samples, 50)
}

fn percentile(samples: &[Duration], percent: usize) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}
