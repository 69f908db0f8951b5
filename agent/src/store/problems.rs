//! What is wrong on this node at this moment, in one list: `debuglet ps` and `describe` print it, `/readyz` fails for
//! the kinds that keep the agent from its work, and a metric counts it by kind.
//!
//! The part of the agent that meets a problem reports it with [`Store::problem`] and withdraws it with
//! [`Store::solved`]; a problem that is reported again keeps the time of its first report. Problems are not kept over
//! a restart: the new agent meets them again.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use prometheus::core::Collector;
use prometheus::{IntCounterVec, IntGaugeVec};
use serde::{Deserialize, Serialize};

use super::Store;
use crate::metrics::{counters, gauges};
use crate::write_threads::PanicObserver;

/// How many problems are listed; further ones are only counted in the metric.
const LISTED: usize = 100;
/// How long after its last panic what goes on after it is no problem any more.
pub(crate) const PANIC_SHOWN_FOR: Duration = Duration::from_secs(600);

/// The object of the problem that a write to the disk panicked.
pub(crate) const WRITE: &str = "a write to the disk";

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
    /// Debuglet panicked. The object is what did: the pod's UID for its worker or a step of it, [`WRITE`] for a write to
    /// the disk, else the part of the agent.
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
    /// The kernel gives no events of the manifests folder, which is polled. The object is the folder.
    FolderNotWatched,
}

/// What panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PanicOf {
    /// A pod's worker.
    Worker,
    /// A step that a worker has begun.
    Step,
    /// A write to the disk.
    Write,
    /// A part of the agent, such as the discovery.
    Part,
}

impl PanicOf {
    /// The value of the metric's label.
    fn name(self) -> &'static str {
        match self {
            PanicOf::Worker => "worker",
            PanicOf::Step => "step",
            PanicOf::Write => "write",
            PanicOf::Part => "part",
        }
    }
}

impl ProblemKind {
    /// The kinds, for the metric's label.
    #[cfg(test)]
    const ALL: [ProblemKind; 12] = [
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
        ProblemKind::FolderNotWatched,
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
            ProblemKind::FolderNotWatched => "FolderNotWatched",
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
            // It is polled.
            ProblemKind::FolderNotWatched => false,
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
    /// When each object last panicked that goes on after it.
    survived_panics: BTreeMap<String, Instant>,
    counted: IntGaugeVec,
    panics: IntCounterVec,
}

impl Default for Problems {
    fn default() -> Problems {
        Problems {
            problems: Vec::new(),
            survived_panics: BTreeMap::new(),
            counted: gauges(
                "debuglet_problems",
                "What is wrong on this node at this moment, by kind.",
                &["kind"],
            ),
            panics: counters(
                "debuglet_panics_total",
                "Panics of the workers of pods, of their steps, of writes to the disk and of parts of the agent; each is a defect of debuglet.",
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

    /// Takes note of a panic of `object`, which goes on after it.
    fn survived(&mut self, object: &str, now: Instant) {
        self.survived_panics.insert(object.to_owned(), now);
    }

    /// Withdraws the panics after which nothing has panicked for [`PANIC_SHOWN_FOR`].
    fn withdraw_old_panics(&mut self, now: Instant) {
        let is_over = |last: &Instant| now.saturating_duration_since(*last) >= PANIC_SHOWN_FOR;
        let over = self.survived_panics.extract_if(.., |_, last| is_over(last));
        let over: Vec<String> = over.map(|(object, _)| object).collect();
        for object in over {
            self.withdraw(|problem| problem.kind == ProblemKind::Panicked && problem.object == object);
        }
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

    /// Counts a panic, and shows it as a problem of `object`. `pod` is the `namespace/name` of the pod that it concerns,
    /// if any. It is shown until [`PANIC_SHOWN_FOR`] has passed; that of a part of the agent, which does not go on, until
    /// the agent ends.
    pub(crate) fn panicked(
        &self,
        of: PanicOf,
        object: &str,
        pod: impl Into<String>,
        message: impl Into<String>,
    ) {
        {
            let problems = &mut self.lock().problems;
            problems.panics.with_label_values(&[of.name()]).inc();
            if of != PanicOf::Part {
                problems.survived(object, Instant::now());
            }
        }
        self.problem(ProblemKind::Panicked, object, pod, message);
    }

    /// Withdraws the panics that are shown for long enough. To be called now and again.
    pub(crate) fn withdraw_old_panics(&self) {
        self.lock().problems.withdraw_old_panics(Instant::now());
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

impl PanicObserver for Weak<Store> {
    fn write_panicked(&self, message: &str) {
        if let Some(store) = self.upgrade() {
            let message = format!("{WRITE} panicked: {message}");
            store.panicked(PanicOf::Write, WRITE, "", message);
        }
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
    fn a_panic_is_shown_until_nothing_has_panicked_for_long_enough() {
        let mut problems = Problems::default();
        let begun = Instant::now();
        let panic = || Problem {
            kind: ProblemKind::Panicked,
            ..problem("uid", "", 1)
        };
        let silence = Duration::from_secs(1);
        for (seconds, panics, shown) in [
            (0, true, true),
            (500, true, true),
            // Counted from the last one.
            (1099, false, true),
            (1100, false, false),
            (1200, true, true),
        ] {
            let now = begun + silence * seconds;
            if panics {
                problems.report(panic());
                problems.survived("uid", now);
            }
            problems.withdraw_old_panics(now);
            assert_eq!(!problems.listed().is_empty(), shown, "after {seconds} s");
        }
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
