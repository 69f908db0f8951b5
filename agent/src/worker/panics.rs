//! Panics of workers and of their steps. Each is a defect of debuglet, so it is shown (`ps`, `/readyz`, a metric); and
//! each is survived: the work begins anew after a pause that grows. What was half done is for the records and the
//! runtime to say, as after a restart of the agent.

use std::any::Any;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::task::JoinError;

use super::context::{Context, pod_name};
use super::step::Outcome;
use crate::store::problems::{PanicOf, ProblemKind};

/// The pause after the first panic; it doubles with each that follows.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// How long nothing may have panicked before the panics of a pod are no problem any more.
const QUIET: Duration = Duration::from_secs(600);

/// The panics of one pod's worker and of its steps since the last quiet time.
#[derive(Debug, Default)]
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
        let message = text_of(error);
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

    /// After how long a pod whose worker or steps have panicked is well again, if nothing happens.
    pub(super) fn quiet_in(&self) -> Option<Duration> {
        self.last.map(|last| QUIET.saturating_sub(last.elapsed()))
    }

    /// Forgets the panics, as it was quiet for long enough, or the pod is gone.
    pub(super) fn forget(&mut self, context: &Context, uid: &str) {
        if self.last.take().is_some() {
            self.counts.clear();
            context.store.solved(ProblemKind::Panicked, uid);
        }
    }

    fn note(&mut self, name: Option<String>) -> Duration {
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

/// Shows that a worker's task has ended by a panic: nothing looks after its pod any more.
pub(super) fn of_task(context: &Context, uid: &str, error: JoinError) {
    let message = text_of(error);
    tracing::error!(
        pod_uid = uid,
        "a pod's worker has ended, and nothing looks after the pod: {message}"
    );
    show(
        context,
        uid,
        PanicOf::Worker,
        format!(
            "the pod's worker has ended, and the pod is not looked after until debuglet is restarted: {message}"
        ),
    );
}

fn show(context: &Context, uid: &str, of: PanicOf, message: String) {
    let view = context.store.view(uid);
    let pod = view.map(|view| pod_name(&view.pod)).unwrap_or_default();
    context.store.panicked(of);
    context.store.problem(ProblemKind::Panicked, uid, pod, message);
}

fn text_of(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => message(&*panic),
        Err(error) => error.to_string(),
    }
}

/// What a panic says.
pub(super) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "it says nothing".to_owned())
}

/// A place at which tests can have a debug build panic: where the folder `DEBUGLET_TEST_PANICS` holds a file of this
/// name, which goes. A release build has nothing here.
#[cfg(debug_assertions)]
#[expect(
    clippy::disallowed_methods,
    reason = "the pod's folder is root's alone; on a thread that may block"
)]
pub(super) fn point(name: &str) {
    let Some(folder) = std::env::var_os("DEBUGLET_TEST_PANICS") else {
        return;
    };
    if std::fs::remove_file(std::path::Path::new(&folder).join(name)).is_ok() {
        panic!("a test asked for it at {name:?}");
    }
}

#[cfg(not(debug_assertions))]
pub(super) fn point(_name: &str) {}

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
        assert!(panics.quiet_in().is_some());
    }

    #[test]
    fn a_panic_is_told_by_its_message() {
        let caught = |panic: fn()| message(&*std::panic::catch_unwind(panic).unwrap_err());
        assert_eq!(caught(|| panic!("plain")), "plain");
        assert_eq!(caught(|| panic!("with {}", 1)), "with 1");
        assert_eq!(caught(|| std::panic::panic_any(7)), "it says nothing");
    }
}
