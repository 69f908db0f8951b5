//! The words of Kubernetes' streaming protocols, which both ends of a stream speak: the subprotocols' names, the
//! channels of a WebSocket message, a terminal's size, and the Status that a stream ends with.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde::{Deserialize, Serialize};

/// The subprotocol whose stdin can be half-closed, over WebSocket only (KEP-4006).
pub(crate) const V5_CHANNEL: &str = "v5.channel.k8s.io";
/// The subprotocol that ends with a Status as JSON; the newest one over SPDY.
pub(crate) const V4_CHANNEL: &str = "v4.channel.k8s.io";
/// As v4, in text messages: the channel as a digit, and what follows it as Base64.
pub(crate) const V4_BASE64_CHANNEL: &str = "v4.base64.channel.k8s.io";
/// The first subprotocol, which also counts where none is named. Its error channel is text, and silent where all
/// went well.
pub(crate) const V1_CHANNEL: &str = "channel.k8s.io";
/// The first one in text messages.
pub(crate) const V1_BASE64_CHANNEL: &str = "base64.channel.k8s.io";

/// What port forwarding speaks over SPDY: pairs of streams, opened by the client for each connection.
pub(crate) const PORT_FORWARD: &str = "portforward.k8s.io";
/// The subprotocol of a WebSocket whose messages are the bytes of such a SPDY connection.
pub(crate) const PORT_FORWARD_TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// The first byte of a WebSocket message: standard input, to the container.
pub(crate) const CHANNEL_STDIN: u8 = 0;
/// Standard output, from the container.
pub(crate) const CHANNEL_STDOUT: u8 = 1;
/// Standard error, from the container; nothing comes here from a terminal.
pub(crate) const CHANNEL_STDERR: u8 = 2;
/// The Status at the end, as JSON.
pub(crate) const CHANNEL_ERROR: u8 = 3;
/// Terminal sizes, to the container, as JSON.
pub(crate) const CHANNEL_RESIZE: u8 = 4;
/// v5 only: the channel in the message's second byte ends here; nothing more comes on it.
pub(crate) const CLOSE_SIGNAL: u8 = 0xff;

/// The `reason` of a Status whose process ran and exited with another code than 0.
pub(crate) const NON_ZERO_EXIT_CODE: &str = "NonZeroExitCode";
/// The `reason` of the cause whose message is the exit code.
const EXIT_CODE: &str = "ExitCode";

/// A terminal's size in characters, as the resize channel carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TerminalSize {
    /// Columns.
    pub(crate) width: u16,
    /// Rows.
    pub(crate) height: u16,
}

/// The exit code that a Status at the end of a stream tells: 0 for `Success`, the cause `ExitCode` where the
/// process exited with another code, and `None` where the Status is about anything else than a process's exit.
pub(crate) fn exit_code(status: &Status) -> Option<i32> {
    if status.status.as_deref() == Some("Success") {
        return Some(0);
    }
    if status.reason.as_deref() != Some(NON_ZERO_EXIT_CODE) {
        return None;
    }
    let causes = status.details.as_ref()?.causes.as_ref()?;
    let cause = causes
        .iter()
        .find(|cause| cause.reason.as_deref() == Some(EXIT_CODE))?;
    cause.message.as_ref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(json: &str) -> Status {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn success_is_exit_code_0() {
        assert_eq!(
            exit_code(&status(r#"{"metadata":{},"status":"Success"}"#)),
            Some(0)
        );
    }

    #[test]
    fn the_cause_exit_code_tells_how_the_process_ended() {
        let ended = r#"{"metadata":{},"status":"Failure","reason":"NonZeroExitCode",
            "message":"command terminated with non-zero exit code: exit status 137",
            "details":{"causes":[{"reason":"ExitCode","message":"137"}]}}"#;
        assert_eq!(exit_code(&status(ended)), Some(137));
    }

    #[test]
    fn a_failure_of_another_kind_has_no_exit_code() {
        let failed = r#"{"status":"Failure","reason":"InternalError","message":"no such container"}"#;
        assert_eq!(exit_code(&status(failed)), None);
    }

    #[test]
    fn a_terminal_size_is_written_with_capital_keys() {
        let size = TerminalSize {
            width: 80,
            height: 24,
        };
        assert_eq!(
            serde_json::to_string(&size).unwrap(),
            r#"{"Width":80,"Height":24}"#
        );
    }
}
