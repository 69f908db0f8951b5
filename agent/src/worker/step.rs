//! What a step of a worker comes to.

use crate::pod::observed::{Nanoseconds, ObservedContainer};
use crate::pod::plan::Held;
use crate::pod::status::Waiting;
use crate::runtime::error::RuntimeError;

/// How long a step that the runtime refused waits before it is tried again.
pub(crate) const RETRY_AFTER: Nanoseconds = 2_000_000_000;
/// How long a step waits whose failure takes a person to mend.
pub(crate) const RETRY_SLOWLY: Nanoseconds = 15_000_000_000;

/// What a step came to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is done; the runtime is to be looked at anew.
    Done,
    /// The image is there.
    Pulled,
    /// A container was started, and stands as this.
    Seen(Box<ObservedContainer>),
    /// It did not succeed.
    Failed(Held),
    /// The pod's volumes are gone.
    VolumesGone,
    /// Nothing is left of the pod.
    Forgotten,
}

impl Outcome {
    /// A failure that is tried again in `after` nanoseconds.
    pub(crate) fn failed(reason: &str, message: impl Into<String>, after: Nanoseconds) -> Outcome {
        let waiting = Waiting {
            reason: reason.to_owned(),
            message: message.into(),
        };
        Outcome::Failed(Held {
            waiting,
            retry_at: Some(now() + after),
            permanent: false,
            of_launch: false,
        })
    }

    /// A failure that no patience ends.
    pub(crate) fn failed_for_good(reason: &str, message: impl Into<String>) -> Outcome {
        let waiting = Waiting {
            reason: reason.to_owned(),
            message: message.into(),
        };
        Outcome::Failed(Held {
            waiting,
            retry_at: None,
            permanent: true,
            of_launch: false,
        })
    }
}

impl Outcome {
    /// The outcome of a stop or a removal that the runtime refused: what is gone is stopped, and removed. Meanwhile the
    /// waiting reason is `reason`.
    pub(crate) fn done_if_gone(error: &RuntimeError, reason: &str) -> Outcome {
        if error.is_not_found() {
            return Outcome::Done;
        }
        if !error.is_logged() {
            tracing::warn!("{error}");
        }
        Outcome::failed(reason, error.to_string(), RETRY_AFTER)
    }

    /// The outcome of a launch: its failure holds back launches only.
    pub(crate) fn of_launch(self) -> Outcome {
        match self {
            Outcome::Failed(held) => Outcome::Failed(Held {
                of_launch: true,
                ..held
            }),
            other => other,
        }
    }
}

/// Now, as CRI counts.
pub(crate) fn now() -> Nanoseconds {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
