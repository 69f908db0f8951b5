//! What may go wrong with a request to the API server, as far as it matters what to do next, and how long to wait then.

use std::collections::HashMap;
use std::time::Duration;

use kube::Client;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::kubernetes::api_server::{ApiServer, Reach};
use crate::kubernetes::back_off::Pauses;
use crate::kubernetes::failure::is_missing_right;

/// At which refusal in a row it is told that a right is missing, or what a policy says: an API server that has just started
/// refuses everything for some seconds.
const TOLD_AT: u32 = 5;

/// Why a request did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// Somebody was faster: read again.
    #[error("it has changed meanwhile")]
    Conflict,
    /// It exists already.
    #[error("it exists already")]
    Exists,
    /// There is no such object, or its namespace is going.
    #[error("it is gone")]
    Gone,
    /// The API server does not take it, and never will.
    #[error("the API server refuses it: {0}")]
    Refused(String),
    /// A right is missing.
    #[error("the credential may not: {0}")]
    Forbidden(String),
    /// An admission plugin refuses it, as its policy is now.
    #[error("a policy of the API server refuses it: {0}")]
    Denied(String),
    /// It has answered, and could not do this one thing.
    #[error("the API server cannot do it: {0}")]
    Failed(String),
    /// It does not answer, or to nobody as it should.
    #[error("the API server does not answer: {0}")]
    Away(String),
}

impl Trouble {
    /// What an error means, whose cause in one line is `reason`.
    fn of(error: &kube::Error, reason: String) -> Trouble {
        let kube::Error::Api(status) = error else {
            return Trouble::Away(reason);
        };
        if status.is_already_exists() {
            Trouble::Exists
        } else if status.is_conflict() {
            Trouble::Conflict
        } else if status.is_not_found() || reason.contains("because it is being terminated") {
            Trouble::Gone
        } else if status.code == 403 && is_missing_right(&reason) {
            Trouble::Forbidden(reason)
        } else if status.code == 403 {
            Trouble::Denied(reason)
        } else if status.code == 400 || status.code == 413 || status.is_invalid() {
            Trouble::Refused(reason)
        } else if matches!(status.code, 401 | 429 | 503) {
            // Whatever is asked. 401 too: a credential that is renewed by somebody else may be late.
            Trouble::Away(reason)
        } else {
            Trouble::Failed(reason)
        }
    }

    /// Whether it is a refusal: a right is missing, or a policy forbids it.
    fn is_refusal(&self) -> bool {
        matches!(self, Trouble::Forbidden(_) | Trouble::Denied(_))
    }

    /// Whether it is of what was asked for alone, so that other things can be asked for.
    pub(super) fn is_of_one(&self) -> bool {
        !matches!(self, Trouble::Away(_))
    }
}

/// A client to ask with now.
pub(super) async fn client(api_server: &ApiServer) -> Result<Client, Trouble> {
    let client = api_server.client().await;
    client.map_err(|error| Trouble::Away(error.to_string()))
}

/// The answer to a request.
pub(super) async fn answer<T>(
    api_server: &ApiServer,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Trouble> {
    let answered = api_server.heard(request.await);
    answered.map_err(|(error, reason)| Trouble::of(&error, reason))
}

/// Returns when the API server begins to answer, or answers to somebody else again.
pub(super) async fn answers_again(reach: &mut watch::Receiver<Reach>) {
    // Who waits holds the sender.
    while reach.changed().await.is_ok() {
        if *reach.borrow() == Reach::Answers {
            return;
        }
    }
}

/// How trouble is borne: how long it is waited out, and what of it is told.
#[derive(Debug, Default)]
pub(super) struct Patience {
    pauses: Pauses,
    troubled: bool,
    /// Whether a missing right, or a policy, was told of since there was no trouble.
    told: bool,
}

/// What waits for its own trouble to pass, while everything else is done.
#[derive(Debug, Default)]
pub(super) struct Waits {
    /// By what their owner calls them, who also forgets those that are no more.
    of: HashMap<String, (Patience, Instant)>,
}

impl Waits {
    /// For how long this one still waits.
    pub(super) fn remaining(&self, key: &str) -> Option<Duration> {
        let (_, until) = self.of.get(key)?;
        let remaining = until.saturating_duration_since(Instant::now());
        (!remaining.is_zero()).then_some(remaining)
    }

    /// This one is in trouble: how long it waits, and whether that is news.
    pub(super) fn after(&mut self, key: &str, trouble: &Trouble, spread: u32) -> (Duration, bool) {
        let now = Instant::now();
        let (patience, until) = self
            .of
            .entry(key.to_owned())
            .or_insert_with(|| (Patience::default(), now));
        let wait = patience.after(trouble, spread);
        *until = now + wait;
        (wait, patience.is_news(trouble))
    }

    /// This one is in no trouble any more.
    pub(super) fn forget(&mut self, key: &str) {
        self.of.remove(key);
    }

    /// Forgets those that are no more.
    pub(super) fn keep(&mut self, is_there: impl Fn(&str) -> bool) {
        self.of.retain(|key, _| is_there(key));
    }

    /// Nobody waits any longer, as the API server begins to answer, and the next waits are short again. What was told is
    /// not told again.
    pub(super) fn end(&mut self) {
        let now = Instant::now();
        for (patience, until) in self.of.values_mut() {
            patience.pauses = Pauses::default();
            *until = now;
        }
    }
}

/// The sooner of two waits, where one may be none.
pub(super) fn sooner(one: Option<Duration>, other: Duration) -> Option<Duration> {
    Some(one.map_or(other, |one| one.min(other)))
}

impl Patience {
    /// Whether there was no trouble since the last success.
    pub(super) fn is_calm(&self) -> bool {
        !self.troubled
    }

    /// There is no trouble any more.
    pub(super) fn reset(&mut self) {
        *self = Patience::default();
    }

    /// How long to wait after this; `spread` is a random number, so that the nodes of a cluster do not come all at once.
    pub(super) fn after(&mut self, trouble: &Trouble, spread: u32) -> Duration {
        self.troubled = true;
        self.pauses.after(trouble.is_refusal(), spread)
    }

    /// Whether this trouble, which was waited for already, is to be told of: that a right is missing, or what a policy says,
    /// is told once, when it was refused [`TOLD_AT`] times.
    pub(super) fn is_news(&mut self, trouble: &Trouble) -> bool {
        let lasts = trouble.is_refusal() && self.pauses.refusals() >= TOLD_AT;
        lasts && !std::mem::replace(&mut self.told, true)
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;
    use crate::kubernetes::back_off::Growth;

    #[test]
    fn a_missing_right_is_asked_for_soon_and_then_at_a_growing_pace_and_told_of_once() {
        for refusal in [
            Trouble::Forbidden("no".to_owned()),
            Trouble::Denied("no".to_owned()),
        ] {
            let mut patience = Patience::default();
            assert!(patience.is_calm());
            for failures in 0..20 {
                assert_eq!(
                    patience.after(&refusal, u32::MAX),
                    Growth::REFUSAL.wait(failures),
                    "{refusal:?}"
                );
                assert_eq!(patience.is_news(&refusal), failures + 1 == TOLD_AT, "{refusal:?}");
            }
            assert!(!patience.is_calm() && !patience.is_news(&Trouble::Conflict));
            patience.reset();
            assert!(patience.is_calm());
            assert_eq!(patience.after(&refusal, u32::MAX), Growth::REFUSAL.wait(0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_in_trouble_waits_longer_each_time_and_nobody_else_does() {
        let (mut waits, failed) = (Waits::default(), Trouble::Failed("x".to_owned()));
        let (wait, news) = waits.after("a", &failed, u32::MAX);
        assert_eq!((wait, news), (Duration::from_secs(1), false));
        assert_eq!((waits.remaining("a"), waits.remaining("b")), (Some(wait), None));
        tokio::time::advance(wait).await;
        assert_eq!(waits.remaining("a"), None);
        assert_eq!(waits.after("a", &failed, u32::MAX).0, Duration::from_secs(2));
        let denied = Trouble::Denied("x".to_owned());
        let refuse = |waits: &mut Waits| {
            let refused = (0..TOLD_AT).map(|_| waits.after("b", &denied, u32::MAX));
            refused.collect::<Vec<_>>()
        };
        let (longest, news) = refuse(&mut waits)[TOLD_AT as usize - 1];
        assert_eq!((longest, news), (Growth::REFUSAL.wait(TOLD_AT - 1), true));
        waits.end();
        assert_eq!((waits.remaining("a"), waits.remaining("b")), (None, None));
        let again = refuse(&mut waits);
        assert_eq!(
            again[0].0,
            Growth::REFUSAL.wait(0),
            "it begins to answer: soon again"
        );
        assert!(again.iter().all(|(_, news)| !news), "told already");
        waits.keep(|key| key == "a");
        assert!(refuse(&mut waits)[TOLD_AT as usize - 1].1, "forgotten");
        waits.forget("a");
        assert_eq!(waits.after("a", &failed, u32::MAX).0, Duration::from_secs(1));
    }

    #[test]
    fn only_a_server_that_does_not_answer_stops_everything() {
        let reason = String::new;
        assert!(Trouble::Failed(reason()).is_of_one() && Trouble::Forbidden(reason()).is_of_one());
        assert!(Trouble::Denied(reason()).is_of_one() && !Trouble::Away(reason()).is_of_one());
    }

    #[test]
    fn an_answer_says_whether_to_try_again() {
        let of = |code: u16, reason: &str, message: &str| {
            let status = Status {
                code,
                reason: reason.to_owned(),
                message: message.to_owned(),
                ..Status::default()
            };
            Trouble::of(&kube::Error::Api(Box::new(status)), message.to_owned())
        };
        assert!(matches!(of(409, "Conflict", ""), Trouble::Conflict));
        assert!(matches!(of(409, "AlreadyExists", ""), Trouble::Exists));
        assert!(matches!(of(404, "NotFound", ""), Trouble::Gone));
        let ending = "unable to create new content in namespace shop because it is being terminated";
        assert!(matches!(of(403, "Forbidden", ending), Trouble::Gone));
        let right = "events is forbidden: User \"x\" cannot create resource \"events\" in API group \"\"";
        assert!(matches!(of(403, "Forbidden", right), Trouble::Forbidden(_)));
        let policy = "exceeded quota: objects";
        assert!(matches!(of(403, "Forbidden", policy), Trouble::Denied(_)));
        assert!(matches!(of(500, "InternalError", "x"), Trouble::Failed(_)));
        assert!(matches!(of(422, "Invalid", "x"), Trouble::Refused(_)));
        assert!(matches!(of(401, "Unauthorized", "x"), Trouble::Away(_)));
        assert!(matches!(of(429, "TooManyRequests", "x"), Trouble::Away(_)));
        assert!(matches!(of(503, "", "x"), Trouble::Away(_)));
    }
}
