//! What may go wrong with a request to the API server, as far as it matters what to do next, and how long to wait then.

use std::time::Duration;

use kube::Client;
use tokio::sync::watch;

use crate::kubernetes::api_server::{ApiServer, Reach};
use crate::kubernetes::back_off::BackOff;

/// How long rights that are missing are waited for: they come when a person gives them.
const FORBIDDEN_WAIT: Duration = Duration::from_secs(300);
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
    /// It does not answer, or not with what was asked for.
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
        } else if status.is_forbidden() {
            Trouble::Forbidden(reason)
        } else if status.code == 400 || status.code == 413 || status.is_invalid() {
            Trouble::Refused(reason)
        } else {
            // 401 too: a credential that is renewed by somebody else may be late.
            Trouble::Away(reason)
        }
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
    let answered = request.await;
    answered.map_err(|error| Trouble::of(&error, api_server.saw(&error)))
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
    back_off: BackOff,
    troubled: bool,
    /// Whether a missing right was told of since there was no trouble.
    told: bool,
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
        match trouble {
            Trouble::Forbidden(_) => FORBIDDEN_WAIT,
            _ => self.back_off.next(spread),
        }
    }

    /// Whether this is trouble to tell of: that a right is missing is told once.
    pub(super) fn is_news(&mut self, trouble: &Trouble) -> bool {
        let forbidden = matches!(trouble, Trouble::Forbidden(_));
        forbidden && !std::mem::replace(&mut self.told, forbidden)
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn a_missing_right_is_told_of_once_and_asked_for_rarely() {
        let (mut patience, forbidden) = (Patience::default(), Trouble::Forbidden(String::new()));
        assert!(patience.is_calm());
        assert!(patience.is_news(&forbidden));
        assert!(!patience.is_news(&forbidden));
        assert!(!patience.is_news(&Trouble::Conflict));
        assert_eq!(patience.after(&forbidden, 0), FORBIDDEN_WAIT);
        assert!(!patience.is_calm());
        assert!(patience.after(&Trouble::Conflict, u32::MAX) < FORBIDDEN_WAIT);
        patience.reset();
        assert!(patience.is_calm() && patience.is_news(&forbidden));
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
        assert!(matches!(of(403, "Forbidden", "x"), Trouble::Forbidden(_)));
        assert!(matches!(of(422, "Invalid", "x"), Trouble::Refused(_)));
        assert!(matches!(of(401, "Unauthorized", "x"), Trouble::Away(_)));
        assert!(matches!(of(429, "TooManyRequests", "x"), Trouble::Away(_)));
        assert!(matches!(of(503, "", "x"), Trouble::Away(_)));
    }
}
