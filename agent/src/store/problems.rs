//! What is wrong on this node at this moment, in one list: `debuglet ps` and `describe` print it, `/readyz` fails for
//! the kinds that keep the agent from its work, and a metric counts it by kind.
//!
//! The part of the agent that meets a problem reports it with [`Store::problem`] and withdraws it with
//! [`Store::solved`]; a problem that is reported again keeps the time of its first report. Problems are not kept over
//! a restart: the new agent meets them again.

use k8s_openapi::jiff::Timestamp;
use prometheus::core::Collector;
use prometheus::{IntCounterVec, IntGaugeVec};
use serde::{Deserialize, Serialize};

use super::Store;
use crate::metrics::{counters, gauges};

/// How many problems are listed; further ones are only counted in the metric.
const LISTED: usize = 100;

/// The kinds of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum ProblemKind {
    /// The runtime does not answer the question for its version. The object is its socket.
    RuntimeNotReady,
    /// The disk refuses what is to be kept, or has no room that could be kept for the end of something. The object is the
    /// state folder.
    StateNotWritten,
    /// There are records of debug containers whose pod cannot be read. The object is the pod's folder.
    UnreadablePod,
    /// A sandbox or container that debuglet made, of which this agent has no record. The object is its id.
    Leftover,
    /// A pod's worker, or a step of it, panicked, and goes on after a pause. The object is the pod's UID.
    Panicked,
    /// The runtime does not answer a call. The object is the call by its name, such as `ContainerStatus of container 3fa1c0`.
    RuntimeSilent,
    /// The runtime cannot say how a container or sandbox stands, though it lists it. The object is its id.
    StatusUnreadable,
    /// Somebody answers at a kubelet's health port who does not count as one. The object is the port.
    HealthPort,
    /// /proc hides processes from the agent, a kubelet's too. The object is the mount.
    HiddenProcesses,
    /// The API server shows no Lease of the node. The object is the node's name.
    NoLease,
    /// The node's name is not the one that its cluster knows it by. The object is the name.
    NodeName,
}

/// What panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PanicOf {
    /// A pod's worker.
    Worker,
    /// A step that a worker has begun.
    Step,
}

impl ProblemKind {
    /// The kinds, for the metric's label.
    #[cfg(test)]
    const ALL: [ProblemKind; 11] = [
        ProblemKind::RuntimeNotReady,
        ProblemKind::Panicked,
        ProblemKind::Leftover,
        ProblemKind::StateNotWritten,
        ProblemKind::UnreadablePod,
        ProblemKind::RuntimeSilent,
        ProblemKind::StatusUnreadable,
        ProblemKind::HealthPort,
        ProblemKind::HiddenProcesses,
        ProblemKind::NoLease,
        ProblemKind::NodeName,
    ];

    /// The kind as `/readyz`, the metric and the node report name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ProblemKind::RuntimeNotReady => "RuntimeNotReady",
            ProblemKind::Panicked => "Panicked",
            ProblemKind::Leftover => "Leftover",
            ProblemKind::StateNotWritten => "StateNotWritten",
            ProblemKind::UnreadablePod => "UnreadablePod",
            ProblemKind::RuntimeSilent => "RuntimeSilent",
            ProblemKind::StatusUnreadable => "StatusUnreadable",
            ProblemKind::HealthPort => "HealthPort",
            ProblemKind::HiddenProcesses => "HiddenProcesses",
            ProblemKind::NoLease => "NoLease",
            ProblemKind::NodeName => "NodeName",
        }
    }

    /// Whether the agent cannot do its work while such a problem lasts: `/readyz` fails then.
    pub(crate) fn makes_unready(self) -> bool {
        match self {
            ProblemKind::RuntimeNotReady
            | ProblemKind::Panicked
            | ProblemKind::StateNotWritten
            | ProblemKind::RuntimeSilent => true,
            // The others are looked after.
            ProblemKind::Leftover | ProblemKind::UnreadablePod | ProblemKind::StatusUnreadable => false,
            ProblemKind::HealthPort
            | ProblemKind::HiddenProcesses
            | ProblemKind::NoLease
            | ProblemKind::NodeName => false,
        }
    }
}

/// Something that is wrong and lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Problem {
    /// What kind of problem it is.
    pub(crate) kind: ProblemKind,
    /// What it is about, such as a socket, a CRI method or a container's id. With the kind it identifies the problem.
    pub(crate) object: String,
    /// `namespace/name` of the pod that it concerns; empty where it concerns the node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) pod: String,
    /// One sentence for the user: what is wrong and, where there is something to do, what.
    pub(crate) message: String,
    /// When it was first reported.
    pub(crate) since: Timestamp,
}

/// The problems of this moment. The store owns them under its lock.
#[derive(Debug)]
pub(super) struct Problems {
    /// In the order of their first report.
    problems: Vec<Problem>,
    counted: IntGaugeVec,
    panics: IntCounterVec,
}

impl Default for Problems {
    fn default() -> Problems {
        Problems {
            problems: Vec::new(),
            counted: gauges(
                "debuglet_problems",
                "What is wrong on this node at this moment, by kind.",
                &["kind"],
            ),
            panics: counters(
                "debuglet_panics_total",
                "Panics of the workers of pods and of their steps; each is a defect of debuglet.",
                &["of"],
            ),
        }
    }
}

impl Problems {
    fn report(&mut self, problem: Problem) {
        let known = self
            .problems
            .iter_mut()
            .find(|known| known.kind == problem.kind && known.object == problem.object);
        match known {
            Some(known) => {
                let since = known.since;
                *known = Problem { since, ..problem };
            }
            None => {
                self.counted.with_label_values(&[problem.kind.name()]).inc();
                self.problems.push(problem);
            }
        }
    }

    fn withdraw(&mut self, concerns: impl Fn(&Problem) -> bool) {
        let counted = &self.counted;
        self.problems.retain(|problem| {
            let stays = !concerns(problem);
            if !stays {
                counted.with_label_values(&[problem.kind.name()]).dec();
            }
            stays
        });
    }

    /// The first [`LISTED`] problems.
    pub(super) fn listed(&self) -> Vec<Problem> {
        self.problems.iter().take(LISTED).cloned().collect()
    }
}

impl Store {
    /// Reports a problem, or that it lasts with another message.
    pub(crate) fn problem(
        &self,
        kind: ProblemKind,
        object: impl Into<String>,
        pod: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.lock().problems.report(Problem {
            kind,
            object: object.into(),
            pod: pod.into(),
            message: message.into(),
            since: Timestamp::now(),
        });
    }

    /// Withdraws the problem of this kind and object, if it was reported.
    pub(crate) fn solved(&self, kind: ProblemKind, object: &str) {
        self.lock()
            .problems
            .withdraw(|problem| problem.kind == kind && problem.object == object);
    }

    /// The kinds of problems that keep the agent from its work, each once.
    pub(crate) fn unready(&self) -> Vec<ProblemKind> {
        let inner = self.lock();
        let kinds = inner.problems.problems.iter().map(|problem| problem.kind);
        let mut kinds: Vec<ProblemKind> = kinds.filter(|kind| kind.makes_unready()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    /// Counts a panic.
    pub(crate) fn panicked(&self, of: PanicOf) {
        let of = match of {
            PanicOf::Worker => "worker",
            PanicOf::Step => "step",
        };
        self.lock().problems.panics.with_label_values(&[of]).inc();
    }

    /// The families of metrics.
    pub(crate) fn problem_families(&self) -> Vec<Box<dyn Collector>> {
        let problems = &self.lock().problems;
        vec![
            Box::new(problems.counted.clone()),
            Box::new(problems.panics.clone()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(object: &str, message: &str, since: i64) -> Problem {
        Problem {
            kind: ProblemKind::RuntimeNotReady,
            object: object.to_owned(),
            pod: String::new(),
            message: message.to_owned(),
            since: Timestamp::from_second(since).expect("a time"),
        }
    }

    fn counted(problems: &Problems) -> i64 {
        let kind = ProblemKind::RuntimeNotReady.name();
        problems.counted.with_label_values(&[kind]).get()
    }

    #[test]
    fn a_problem_that_is_reported_again_keeps_its_first_time_and_takes_the_new_message() {
        let mut problems = Problems::default();
        problems.report(problem("a", "first", 1));
        problems.report(problem("a", "second", 2));
        assert_eq!(problems.listed(), [problem("a", "second", 1)]);
        assert_eq!(counted(&problems), 1);
    }

    #[test]
    fn a_problem_is_withdrawn_by_its_kind_and_object() {
        let mut problems = Problems::default();
        problems.report(problem("a", "", 1));
        problems.report(problem("b", "", 1));
        problems.withdraw(|problem| problem.object == "a");
        assert_eq!(problems.listed(), [problem("b", "", 1)]);
        assert_eq!(counted(&problems), 1);
    }

    #[test]
    fn more_problems_than_are_listed_are_counted() {
        let mut problems = Problems::default();
        for number in 0..=LISTED {
            problems.report(problem(&number.to_string(), "", 1));
        }
        assert_eq!(problems.listed().len(), LISTED);
        assert_eq!(counted(&problems), i64::try_from(LISTED + 1).expect("a number"));
    }

    #[test]
    fn a_kind_is_named_as_the_node_report_writes_it() {
        for kind in ProblemKind::ALL {
            assert_eq!(serde_json::json!(kind), kind.name());
        }
    }
}
