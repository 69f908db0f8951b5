//! What goes wrong between us and the runtime: the call, its object, and the runtime's own words.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

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
    /// See [`RuntimeError::is_logged`].
    logged: bool,
}

impl RuntimeError {
    /// The error of a call, from its gRPC status.
    pub(crate) fn new(step: &'static str, object: impl Into<String>, status: &Status) -> RuntimeError {
        RuntimeError {
            step,
            object: object.into(),
            code: status.code(),
            message: message(status),
            logged: is_logged(status),
        }
    }

    /// An error that is logged and shown already, with its reason.
    pub(crate) fn told(step: &'static str, object: String, message: String) -> RuntimeError {
        RuntimeError {
            step,
            object,
            code: Code::Unknown,
            message,
            logged: true,
        }
    }

    /// Whether the object does not exist: for a removal that is success.
    pub(crate) fn is_not_found(&self) -> bool {
        self.code == Code::NotFound
    }

    /// Whether the log has this already, once for all calls of its kind: the runtime was silent, or debuglet stops.
    pub(crate) fn is_logged(&self) -> bool {
        self.logged
    }
}

/// Why a call failed, in words: that the runtime does not answer where that is so, else what it says.
pub(crate) fn message(status: &Status) -> String {
    match unreachable_peer(status) {
        Some(why) => format!("the runtime does not answer: {why}"),
        None => status.message().to_owned(),
    }
}

/// Whether the call was given up here, see [`RuntimeError::is_logged`].
pub(crate) fn is_logged(status: &Status) -> bool {
    causes(status).any(|cause| cause.is::<NoAnswer>() || cause.is::<Stopping>())
}

/// Whether it is the runtime that did not answer in time.
pub(crate) fn is_silence(status: &Status) -> bool {
    causes(status).any(<dyn Error>::is::<NoAnswer>)
}

/// Why the runtime could not be asked, or that it was silent; `None` for a status that it has answered.
fn unreachable_peer(status: &Status) -> Option<String> {
    let is_transport = |cause: &&(dyn Error + 'static)| {
        cause.is::<NoAnswer>()
            || cause.is::<std::io::Error>()
            || cause.is::<hyper::Error>()
            || cause.is::<tonic::transport::Error>()
    };
    // The innermost says the most.
    causes(status)
        .filter(is_transport)
        .last()
        .map(ToString::to_string)
}

/// What a status comes from, the innermost last.
fn causes(status: &Status) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let mut next = status.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

/// The runtime has not answered a call in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer to {call} within {} s", limit.as_secs())]
pub(crate) struct NoAnswer {
    call: String,
    limit: Duration,
}

impl NoAnswer {
    /// The call by its name, and how long it was waited for.
    pub(crate) fn new(call: String, limit: Duration) -> NoAnswer {
        NoAnswer { call, limit }
    }

    /// As the outcome of a call.
    pub(crate) fn into_status(self) -> Status {
        let mut status = Status::deadline_exceeded(self.to_string());
        status.set_source(Arc::new(self));
        status
    }
}

/// The agent stops, and with it its calls.
#[derive(Debug, thiserror::Error)]
#[error("debuglet stops")]
pub(super) struct Stopping;

impl Stopping {
    pub(super) fn into_status(self) -> Status {
        let mut status = Status::cancelled(self.to_string());
        status.set_source(Arc::new(self));
        status
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use debuglet_proto::v1::VersionRequest;
    use tokio_util::sync::CancellationToken;

    use super::super::call_limits::CallLimits;
    use super::super::client::Runtime;
    use super::*;

    async fn asked(socket: &Path) -> RuntimeError {
        let limits = CallLimits::new(Duration::from_millis(100));
        let runtime = Runtime::connect_lazy(socket, limits, CancellationToken::new());
        let status = runtime.runtime().version(VersionRequest::default()).await;
        RuntimeError::new("ask", "it", &status.unwrap_err())
    }

    #[tokio::test]
    async fn that_the_runtime_does_not_answer_is_said_where_it_is_so() {
        let folder = tempfile::tempdir().unwrap();
        let missing = asked(&folder.path().join("missing.sock")).await;
        assert_eq!(
            missing.to_string(),
            "cannot ask it: the runtime does not answer: No such file or directory (os error 2)"
        );
        assert!(!missing.is_logged());

        let path = folder.path().join("left.sock");
        drop(tokio::net::UnixListener::bind(&path).unwrap());
        let left = asked(&path).await.to_string();
        assert!(
            left.starts_with("cannot ask it: the runtime does not answer: Connection refused"),
            "{left}"
        );

        let path = folder.path().join("silent.sock");
        let _silent = tokio::net::UnixListener::bind(&path).unwrap();
        let silent = asked(&path).await;
        assert_eq!(
            silent.to_string(),
            "cannot ask it: the runtime does not answer: no answer to Version within 0 s"
        );
        assert!(silent.is_logged());

        let path = folder.path().join("closing.sock");
        let closing = tokio::net::UnixListener::bind(&path).unwrap();
        tokio::spawn(async move { while closing.accept().await.is_ok() {} });
        let closed = asked(&path).await.to_string();
        assert!(
            closed.starts_with("cannot ask it: the runtime does not answer: "),
            "{closed}"
        );
    }

    #[test]
    fn what_the_runtime_says_is_passed_on() {
        let error = RuntimeError::new("stop container", "c1", &Status::unavailable("shim is busy"));
        assert_eq!(error.to_string(), "cannot stop container c1: shim is busy");
        assert!(!error.is_logged());
    }
}
