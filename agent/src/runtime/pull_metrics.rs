//! How long pulls of images take, and how much they bring.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{Histogram, IntCounter};

use crate::metrics::{counter, seconds};

/// From an image that a registry next door has to a large one over a slow line.
const BOUNDS: [f64; 11] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0];

/// The pulls that brought an image.
#[derive(Clone, Debug)]
pub(crate) struct PullMetrics {
    durations: Histogram,
    bytes: IntCounter,
}

impl Default for PullMetrics {
    fn default() -> PullMetrics {
        PullMetrics {
            durations: seconds(
                "debuglet_image_pull_duration_seconds",
                "How long pulls took that brought an image, waiting for other pulls included.",
                &BOUNDS,
            ),
            bytes: counter(
                "debuglet_image_pull_bytes_total",
                "Sizes of the images that were pulled and were not there before.",
            ),
        }
    }
}

impl PullMetrics {
    /// The families.
    pub(crate) fn families(&self) -> Vec<Box<dyn Collector>> {
        vec![Box::new(self.durations.clone()), Box::new(self.bytes.clone())]
    }

    /// A pull brought an image, of so many bytes that were not there.
    pub(crate) fn pulled(&self, took: Duration, bytes: u64) {
        self.durations.observe(took.as_secs_f64());
        self.bytes.inc_by(bytes);
    }
}
