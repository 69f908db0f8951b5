//! Panics of workers and of their steps. Each is a defect of debuglet, so it is shown (`ps`, `/readyz`, a metric); and
//! each is survived: the work begins anew after a pause that grows. What was half done is for the records and the
//! runtime to say, as after a restart of the agent.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::task::JoinError;

use super::context::{Context, pod_name};
use super::step::Outcome;
use crate::panic_message;
use crate::store::problems::{PANIC_SHOWN_FOR, PanicOf, ProblemKind};

/// The pause after the first panic; it doubles with each that follows.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The panics of one pod's worker and of its steps since the last time when nothing panicked for long.
#[derive(Clone, Debug, Default)]
pub(super) struct Panics {
    /// How many there were, by the name of the step; those of the worker itself without a name.
    counts: BTreeMap<Option<String>, u32>,
    /// When the last one was.
    last: Option<Instant>,
}

impl Panics {
    /// Takes note of a panic of the worker; answers how long it is to rest.
    pub(super) fn of_worker(&mut self, context: &Context, uid: &str, message: &str) -> Duration {
        let pause = self.note(None);
        tracing::error!(
            pod_uid = uid,
            "a pod's worker panicked; it begins anew in {} s: {message}",
            pause.as_secs()
        );
        show(
            context,
            uid,
            PanicOf::Worker,
            format!("the pod's worker panicked: {message}"),
        );
        pause
    }

    /// Takes note of the panic of a step; answers what came of the step.
    pub(super) fn of_step(&mut self, context: &Context, uid: &str, name: &str, error: JoinError) -> Outcome {
        let message = panic_message::of_task(error);
        let pause = self.note(Some(name.to_owned()));
        tracing::error!(
            pod_uid = uid,
            step = name,
            "a step panicked; it is looked at anew in {} s: {message}",
            pause.as_secs()
        );
        show(
            context,
            uid,
            PanicOf::Step,
            format!("a step of {name:?} panicked: {message}"),
        );
        let nanoseconds = i64::try_from(pause.as_nanos()).unwrap_or(i64::MAX);
        Outcome::failed(
            "InternalError",
            format!("debuglet panicked: {message}"),
            nanoseconds,
        )
    }

    /// Takes note that the worker's task ended though the pod has not; answers how long its successor is to rest.
    pub(super) fn of_task(&mut self, context: &Context, uid: &str, error: JoinError) -> Duration {
        self.of_worker(context, uid, &panic_message::of_task(error))
    }

    fn note(&mut self, name: Option<String>) -> Duration {
        let is_over = |last: Instant| last.elapsed() >= PANIC_SHOWN_FOR;
        if self.last.is_some_and(is_over) {
            self.counts.clear();
        }
        self.last = Some(Instant::now());
        let count = self.counts.entry(name).or_default();
        let pause = pause(*count);
        *count = count.saturating_add(1);
        pause
    }
}

/// The pause after a panic that had so many before it.
fn pause(before: u32) -> Duration {
    FIRST_PAUSE
        .saturating_mul(2_u32.saturating_pow(before))
        .min(LONGEST_PAUSE)
}

/// Withdraws the panics of a pod that is gone.
pub(super) fn forget(context: &Context, uid: &str) {
    context.store.solved(ProblemKind::Panicked, uid);
}

fn show(context: &Context, uid: &str, of: PanicOf, message: String) {
    let view = context.store.view(uid);
    let pod = view.map(|view| pod_name(&view.pod)).unwrap_or_default();
    context.store.panicked(of, uid, pod, message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_with_each_panic_and_has_a_bound() {
        let pauses: Vec<u64> = [0, 1, 2, 8, 9, 40].map(|before| pause(before).as_secs()).to_vec();
        assert_eq!(pauses, [1, 2, 4, 256, 300, 300]);
    }

    #[test]
    fn the_worker_and_each_name_have_pauses_of_their_own() {
        let mut panics = Panics::default();
        let mut note = |name: Option<&str>| panics.note(name.map(str::to_owned)).as_secs();
        assert_eq!([note(None), note(Some("a")), note(Some("b"))], [1, 1, 1]);
        assert_eq!([note(Some("a")), note(Some("a")), note(None)], [2, 4, 2]);
    }
}
