//! How launches of debug containers come out, and how long they take from accepted to running.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ContainerStateTerminated;
use prometheus::core::Collector;
use prometheus::{Histogram, IntCounterVec};

use crate::metrics::{counters, seconds};
use crate::pod::launch::{Launch, Stage};

/// From an image that is there to one that has to be pulled.
const BOUNDS: [f64; 12] = [
    0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// The launches of this process' life.
#[derive(Clone, Debug)]
pub(crate) struct LaunchMetrics {
    outcomes: IntCounterVec,
    durations: Histogram,
}

impl Default for LaunchMetrics {
    fn default() -> LaunchMetrics {
        LaunchMetrics {
            outcomes: counters(
                "debuglet_launches_total",
                "Launches of debug containers by outcome: running (its process ran, however it ended), failed (it \
                 never did), stopped (before it could).",
                &["outcome"],
            ),
            durations: seconds(
                "debuglet_launch_duration_seconds",
                "From a debug container's being accepted to its running.",
                &BOUNDS,
            ),
        }
    }
}

impl LaunchMetrics {
    /// The families.
    pub(crate) fn families(&self) -> Vec<Box<dyn Collector>> {
        vec![Box::new(self.outcomes.clone()), Box::new(self.durations.clone())]
    }
}

/// The launches whose outcome is not counted yet, by UID of the pod and name of the container, and since when. Those
/// of before a restart are not among them: when they were accepted is not known to this process' clock.
#[derive(Debug, Default)]
pub(super) struct LaunchClock {
    metrics: LaunchMetrics,
    open: HashMap<(String, String), Instant>,
}

impl LaunchClock {
    pub(super) fn metrics(&self) -> LaunchMetrics {
        self.metrics.clone()
    }

    /// A launch was accepted.
    pub(super) fn accepted(&mut self, uid: &str, container: &str) {
        self.open
            .insert((uid.to_owned(), container.to_owned()), Instant::now());
    }

    /// A launch has moved on to this stage.
    pub(super) fn reached(&mut self, uid: &str, container: &str, stage: Stage) {
        if stage == Stage::Running {
            let took = self.close(uid, container, "running");
            if let Some(took) = took {
                self.metrics.durations.observe(took.as_secs_f64());
            }
        }
    }

    /// A launch is over: how it stood before, and how it ended.
    pub(super) fn ended(
        &mut self,
        uid: &str,
        container: &str,
        before: &Launch,
        terminated: &ContainerStateTerminated,
    ) {
        let ran = terminated
            .started_at
            .as_ref()
            .is_some_and(|started| started.0.as_second() > 0);
        let outcome = if ran {
            "running"
        } else if before.reason.is_empty() && terminated.reason.as_deref() != Some("StartError") {
            "stopped"
        } else {
            "failed"
        };
        self.close(uid, container, outcome);
    }

    /// A pod is gone: what was not counted will not be.
    pub(super) fn forget(&mut self, uid: &str) {
        self.open.retain(|(of, _), _| of != uid);
    }

    /// Counts a launch, once; answers how long it took until now.
    fn close(&mut self, uid: &str, container: &str, outcome: &str) -> Option<Duration> {
        let since = self.open.remove(&(uid.to_owned(), container.to_owned()))?;
        self.metrics.outcomes.with_label_values(&[outcome]).inc();
        Some(since.elapsed())
    }
}
