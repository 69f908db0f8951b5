//! How families of metrics are made. Each part of the agent keeps its own, and `/metrics` gathers them
//! (`api/metrics.rs`): nothing is global. Names follow the Prometheus conventions: base units, `_total` for what only
//! grows. Every label has few values, whatever clients or runtimes say.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
};

/// A name or label that Prometheus does not take is a mistake in this program, which the first test finds.
const GOOD: &str = "a name that Prometheus takes";

/// A counter.
pub(crate) fn counter(name: &str, help: &str) -> IntCounter {
    IntCounter::new(name, help).expect(GOOD)
}

/// A counter for each value of its labels.
pub(crate) fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect(GOOD)
}

/// A number that goes up and down.
pub(crate) fn gauge(name: &str, help: &str) -> IntGauge {
    IntGauge::new(name, help).expect(GOOD)
}

/// A number that goes up and down for each value of its labels.
pub(crate) fn gauges(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    IntGaugeVec::new(Opts::new(name, help), labels).expect(GOOD)
}

/// Seconds, in buckets that end at these bounds.
pub(crate) fn seconds(name: &str, help: &str, bounds: &[f64]) -> Histogram {
    Histogram::with_opts(options(name, help, bounds)).expect(GOOD)
}

/// Seconds for each value of its labels.
pub(crate) fn seconds_by(name: &str, help: &str, bounds: &[f64], labels: &[&str]) -> HistogramVec {
    HistogramVec::new(options(name, help, bounds), labels).expect(GOOD)
}

fn options(name: &str, help: &str, bounds: &[f64]) -> HistogramOpts {
    HistogramOpts::new(name, help).buckets(bounds.to_vec())
}
