//! The calls that the runtime does not answer: each is logged when it is first given up, or first takes long, and when it
//! is answered again; in between they are only kept here, for the agent to show.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::call_object::Call;

/// How many are kept; further ones are not logged either.
const KEPT: usize = 256;
/// A call that was given up and that nobody has made again for this long is forgotten. Everything that the agent asks by
/// itself is asked again sooner, as long as it needs the answer.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(900);
/// The same for a call that was made for an HTTP client: the client has its error, and nobody need ask again.
const FORGOTTEN_FOR_CLIENTS_AFTER: Duration = Duration::from_secs(30);

/// A call without an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Silence {
    /// `namespace/name` of the pod that it is made for; empty where that is not known.
    pub(crate) pod: String,
    /// How long the runtime was waited for.
    pub(crate) waited: Duration,
    /// Whether it still is.
    pub(crate) goes_on: bool,
    /// Whether only HTTP clients have asked for it.
    for_client: bool,
    last: Instant,
}

impl Silence {
    /// Of a call that was given up and is made again, for this pod.
    fn new(pod: &str, waited: Duration) -> Silence {
        Silence {
            pod: pod.to_owned(),
            waited,
            goes_on: false,
            for_client: false,
            last: Instant::now(),
        }
    }

    /// What is the case, in one sentence.
    pub(crate) fn message(&self, call: &Call) -> String {
        let (call, seconds) = (call.name(), self.waited.as_secs());
        if self.goes_on {
            format!(
                "the runtime has not answered {call} for {seconds} s; that call is not given up, since cut short \
                 it would end what it makes"
            )
        } else if self.for_client {
            format!(
                "the runtime does not answer {call} (no answer within {seconds} s), which a client asked for"
            )
        } else {
            format!("the runtime does not answer {call} (no answer within {seconds} s); it is asked again")
        }
    }

    /// Whether it may still be asked for.
    fn is_fresh(&self) -> bool {
        let forgotten_after = match self.for_client {
            true => FORGOTTEN_FOR_CLIENTS_AFTER,
            false => FORGOTTEN_AFTER,
        };
        self.goes_on || self.last.elapsed() < forgotten_after
    }
}

/// The calls to one runtime that it does not answer. The connection to the runtime owns it; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unanswered(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    silences: Mutex<BTreeMap<Call, Silence>>,
    changes: watch::Sender<()>,
}

impl Unanswered {
    /// A call was given up that the agent makes again, as long as it needs the answer.
    pub(super) fn given_up(&self, call: &Call, pod: &str, waited: Duration) {
        self.add(call, Silence::new(pod, waited));
    }

    /// A call was given up that was made for an HTTP client.
    pub(super) fn given_up_for_client(&self, call: &Call, waited: Duration) {
        let silence = Silence::new("", waited);
        self.add(
            call,
            Silence {
                for_client: true,
                ..silence
            },
        );
    }

    /// A call takes long and goes on. It counts until the guard is dropped.
    pub(super) fn takes_long(&self, call: &Call, pod: &str, waited: Duration) -> TakesLong {
        let silence = Silence::new(pod, waited);
        self.add(
            call,
            Silence {
                goes_on: true,
                ..silence
            },
        );
        TakesLong {
            unanswered: self.clone(),
            call: call.clone(),
        }
    }

    /// The runtime has answered such a call.
    pub(super) fn answered(&self, call: &Call) {
        if self.lock().remove(call).is_some() {
            tracing::info!("the runtime answers {} again", call.name());
            self.0.changes.send_replace(());
        }
    }

    /// No call that was given up is made again for this pod (`namespace/name`): the pod is gone, or is as it should be. The
    /// runtime may have done what it was asked for without an answer.
    pub(crate) fn settled(&self, pod: &str) {
        let mut silences = self.lock();
        let before = silences.len();
        silences.retain(|_, silence| silence.goes_on || silence.pod != pod);
        if silences.len() != before {
            tracing::info!(pod, "what the runtime did not answer is not asked for any more");
            self.0.changes.send_replace(());
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> BTreeMap<Call, Silence> {
        self.lock().clone()
    }

    /// Wakes when there are others.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }

    /// Forgets those that nobody has made again for a long time.
    pub(crate) fn forget_old(&self) {
        let mut silences = self.lock();
        let before = silences.len();
        silences.retain(|_, silence| silence.is_fresh());
        if silences.len() != before {
            self.0.changes.send_replace(());
        }
    }

    fn add(&self, call: &Call, silence: Silence) {
        let mut silences = self.lock();
        if let Some(known) = silences.get_mut(call) {
            // Once the agent itself needs the answer, a client who asks for it, too, changes nothing.
            if known.for_client || !silence.for_client {
                *known = silence;
            }
            return;
        }
        if silences.len() >= KEPT {
            return;
        }
        tracing::warn!(pod = silence.pod, "{}", silence.message(call));
        silences.insert(call.clone(), silence);
        self.0.changes.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Call, Silence>> {
        // A panic elsewhere leaves the map as whole as it was: every change is one insert or remove.
        self.0.silences.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that takes long and goes on. Dropping it says that it has ended.
pub(super) struct TakesLong {
    unanswered: Unanswered,
    call: Call,
}

impl Drop for TakesLong {
    fn drop(&mut self) {
        self.unanswered.answered(&self.call);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(object: &str) -> Call {
        Call {
            method: "ContainerStatus".to_owned(),
            object: object.to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_kept_until_it_is_answered_or_nobody_makes_it_any_more() {
        let unanswered = Unanswered::default();
        let mut changes = unanswered.changes();
        unanswered.given_up(&call("a"), "shop/web", Duration::from_secs(30));
        unanswered.given_up(&call("b"), "", Duration::from_secs(30));
        assert!(changes.has_changed().unwrap());
        changes.borrow_and_update();
        unanswered.given_up(&call("a"), "shop/web", Duration::from_secs(30));
        assert!(!changes.has_changed().unwrap(), "nothing new");
        unanswered.answered(&call("a"));
        let left: Vec<Call> = unanswered.all().into_keys().collect();
        assert_eq!(left, [call("b")]);

        tokio::time::advance(FORGOTTEN_AFTER).await;
        unanswered.given_up(&call("c"), "", Duration::from_secs(30));
        unanswered.forget_old();
        let left: Vec<Call> = unanswered.all().into_keys().collect();
        assert_eq!(left, [call("c")]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_only_a_client_asked_for_is_soon_forgotten_as_nobody_need_ask_again() {
        let unanswered = Unanswered::default();
        let limit = Duration::from_secs(8);
        unanswered.given_up_for_client(&call("a"), limit);
        unanswered.given_up_for_client(&call("both"), limit);
        unanswered.given_up(&call("both"), "shop/web", limit);
        unanswered.given_up_for_client(&call("both"), limit);
        let message = unanswered.all()[&call("a")].message(&call("a"));
        assert!(message.ends_with("which a client asked for"), "{message}");
        assert_eq!(unanswered.all()[&call("both")].pod, "shop/web");
        tokio::time::advance(FORGOTTEN_FOR_CLIENTS_AFTER).await;
        unanswered.forget_old();
        let left: Vec<Call> = unanswered.all().into_keys().collect();
        assert_eq!(left, [call("both")]);
    }

    #[tokio::test]
    async fn what_a_pod_does_not_need_any_more_is_forgotten_but_for_calls_that_go_on() {
        let unanswered = Unanswered::default();
        let mut changes = unanswered.changes();
        unanswered.given_up(&call("a"), "shop/web", Duration::from_secs(30));
        unanswered.given_up(&call("b"), "shop/cart", Duration::from_secs(30));
        unanswered.given_up(&call("c"), "", Duration::from_secs(30));
        let _long = unanswered.takes_long(&call("d"), "shop/web", Duration::from_secs(30));
        changes.borrow_and_update();
        unanswered.settled("shop/web");
        assert!(changes.has_changed().unwrap());
        let left: Vec<Call> = unanswered.all().into_keys().collect();
        assert_eq!(left, [call("b"), call("c"), call("d")]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_goes_on_is_kept_as_long_as_it_does() {
        let unanswered = Unanswered::default();
        let long = unanswered.takes_long(&call("a"), "", Duration::from_secs(30));
        tokio::time::advance(2 * FORGOTTEN_AFTER).await;
        unanswered.forget_old();
        assert!(
            unanswered.all()[&call("a")]
                .message(&call("a"))
                .contains("not given up")
        );
        drop(long);
        assert!(unanswered.all().is_empty());
    }

    #[tokio::test]
    async fn no_more_are_kept_than_a_bound() {
        let unanswered = Unanswered::default();
        for number in 0..2 * KEPT {
            unanswered.given_up(&call(&number.to_string()), "", Duration::ZERO);
        }
        assert_eq!(unanswered.all().len(), KEPT);
    }
}
