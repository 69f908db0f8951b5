//! What goes wrong between us and the runtime: the call, its object, and the runtime's own words.

use tonic::{Code, Status};

/// A CRI call that failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot {step} {object}: {message}")]
pub(crate) struct RuntimeError {
    /// What was tried, in words: `start container`.
    pub(crate) step: &'static str,
    /// What it was tried on: a name or an id.
    pub(crate) object: String,
    /// The gRPC code.
    pub(crate) code: Code,
    /// The runtime's reason, without gRPC's frame around it.
    pub(crate) message: String,
}

impl RuntimeError {
    /// The error of a call, from its gRPC status.
    pub(crate) fn new(step: &'static str, object: impl Into<String>, status: &Status) -> RuntimeError {
        let message = if unreachable_peer(status) {
            "the runtime does not answer".to_owned()
        } else {
            status.message().to_owned()
        };
        RuntimeError {
            step,
            object: object.into(),
            code: status.code(),
            message,
        }
    }

    /// Whether the object does not exist: for a removal that is success.
    pub(crate) fn is_not_found(&self) -> bool {
        self.code == Code::NotFound
    }
}

fn unreachable_peer(status: &Status) -> bool {
    status.code() == Code::Unavailable && status.message().contains("error trying to connect")
}
