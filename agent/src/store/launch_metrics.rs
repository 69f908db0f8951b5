//! How launches of debug containers come out, and how long they take from accepted to running.

use std::collections::HashMap;
use std::time::Instant;

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

/// A launch whose outcome is not counted yet.
#[derive(Debug)]
struct Open {
    since: Instant,
    /// Whether something stood in its way.
    hindered: bool,
}

/// The launches whose outcome is not counted yet, by UID of the pod and name of the container. Those of before a
/// restart are not among them: when they were accepted is not known to this process' clock.
#[derive(Debug, Default)]
pub(super) struct LaunchClock {
    metrics: LaunchMetrics,
    open: HashMap<(String, String), Open>,
}

impl LaunchClock {
    pub(super) fn metrics(&self) -> LaunchMetrics {
        self.metrics.clone()
    }

    /// A launch was accepted.
    pub(super) fn accepted(&mut self, uid: &str, container: &str) {
        let open = Open {
            since: Instant::now(),
            hindered: false,
        };
        self.open.insert((uid.to_owned(), container.to_owned()), open);
    }

    /// A launch has moved on.
    pub(super) fn moved(&mut self, uid: &str, launch: &Launch) {
        match launch.stage {
            Stage::Running => {
                if let Some(open) = self.close(uid, &launch.container) {
                    self.count("running");
                    self.metrics.durations.observe(open.since.elapsed().as_secs_f64());
                }
            }
            Stage::Waiting if !launch.reason.is_empty() => {
                let key = (uid.to_owned(), launch.container.clone());
                if let Some(open) = self.open.get_mut(&key) {
                    open.hindered = true;
                }
            }
            _ => {}
        }
    }

    /// A launch is over, and this is how.
    pub(super) fn ended(&mut self, uid: &str, container: &str, terminated: &ContainerStateTerminated) {
        let Some(open) = self.close(uid, container) else {
            return;
        };
        let started = terminated.started_at.as_ref();
        if started.is_some_and(|started| started.0.as_second() > 0) {
            // When it began to run was not seen, so how long it took is not counted.
            self.count("running");
        } else if open.hindered || terminated.reason.as_deref() == Some("StartError") {
            self.count("failed");
        } else {
            self.count("stopped");
        }
    }

    /// A launch is somebody else's again.
    pub(super) fn withdrawn(&mut self, uid: &str, container: &str) {
        self.close(uid, container);
    }

    /// A pod is gone: what was not counted will not be.
    pub(super) fn forget(&mut self, uid: &str) {
        self.open.retain(|(of, _), _| of != uid);
    }

    /// A launch is counted once.
    fn close(&mut self, uid: &str, container: &str) -> Option<Open> {
        self.open.remove(&(uid.to_owned(), container.to_owned()))
    }

    fn count(&self, outcome: &str) {
        self.metrics.outcomes.with_label_values(&[outcome]).inc();
    }
}
