//! Attach and exec sessions with the runtime: Kubernetes' remote command protocol over SPDY.

use std::io;

use hyper::header::HeaderValue;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::spdy::connection::Streams;
use super::streaming_server::{StreamError, StreamOptions, StreamingUrl};
use crate::pod::streaming::{TerminalSize, V4_CHANNEL};

/// The protocols before v4, newest first. Their error stream is text, and empty where all went well.
const OLDER_PROTOCOLS: [&str; 3] = ["v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
/// The SPDY header that names what a stream is for.
const STREAM_TYPE: &str = "streamtype";

/// An open session. Read `stdout` and `stderr` at the same time: they share one connection, where a stream that
/// is not read holds up the other.
pub(crate) struct Session {
    /// To the process. Shutting it down (or dropping it) half-closes it.
    pub(crate) stdin: Option<DuplexStream>,
    /// From the process, up to its end.
    pub(crate) stdout: Option<DuplexStream>,
    /// From the process, up to its end.
    pub(crate) stderr: Option<DuplexStream>,
    /// The size of the process's terminal, where it has one.
    pub(crate) resize: Option<Resize>,
    /// How it ends. Holds the connection: dropping it ends the session.
    pub(crate) outcome: Outcome,
}

/// Tells the process the size of its terminal.
pub(crate) struct Resize(DuplexStream);

impl Resize {
    /// Sends `size`; does nothing once the session has ended.
    pub(crate) async fn send(&mut self, size: TerminalSize) {
        if let Ok(json) = serde_json::to_vec(&size) {
            let _ = self.0.write_all(&json).await;
        }
    }
}

/// How a session ends.
pub(crate) struct Outcome {
    status_as_json: bool,
    error_stream: oneshot::Receiver<Vec<u8>>,
    _connection: AbortOnDropHandle<io::Result<()>>,
}

impl Outcome {
    /// Waits for the end. Gives the runtime's Status: `Success`, or a `Failure` that says why, for an exec with
    /// the process's exit code ([`crate::pod::streaming::exit_code`]). All output has been handed over by then.
    pub(crate) async fn wait(self) -> Result<Status, StreamError> {
        let told = self.error_stream.await.map_err(|_| StreamError::Lost)?;
        if self.status_as_json {
            return serde_json::from_slice(&told).map_err(|_| StreamError::Lost);
        }
        let failure = (!told.is_empty()).then(|| String::from_utf8_lossy(&told).into_owned());
        Ok(Status {
            status: Some(if failure.is_some() { "Failure" } else { "Success" }.to_owned()),
            reason: failure.is_some().then(|| "InternalError".to_owned()),
            message: failure,
            ..Status::default()
        })
    }
}

impl Session {
    /// Opens the session that waits at `url`, which was asked for with the same `options`.
    pub(crate) async fn open(url: &StreamingUrl, options: StreamOptions) -> Result<Session, StreamError> {
        let protocols = [V4_CHANNEL].into_iter().chain(OLDER_PROTOCOLS);
        let (protocol, connection) = url.open(protocols.map(HeaderValue::from_static)).await?;
        let protocol = protocol.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
        Ok(Session::start(connection, protocol, options.checked()))
    }

    /// Starts the session on `connection`, which speaks SPDY and the remote command protocol `protocol`.
    pub(crate) fn start(
        connection: impl AsyncRead + AsyncWrite + Send + 'static,
        protocol: &[u8],
        options: StreamOptions,
    ) -> Session {
        let status_as_json = protocol == V4_CHANNEL.as_bytes();
        let resizes = status_as_json || protocol == OLDER_PROTOCOLS[0].as_bytes();
        let mut streams = Streams::default();
        let error_stream = streams.short_stream(&[(STREAM_TYPE, "error")]);
        let stdin = options
            .stdin
            .then(|| streams.write_stream(&[(STREAM_TYPE, "stdin")]));
        let stdout = options
            .stdout
            .then(|| streams.read_stream(&[(STREAM_TYPE, "stdout")]));
        let stderr = options
            .stderr
            .then(|| streams.read_stream(&[(STREAM_TYPE, "stderr")]));
        let resize = (options.tty && resizes).then(|| streams.write_stream(&[(STREAM_TYPE, "resize")]));
        Session {
            stdin,
            stdout,
            stderr,
            resize: resize.map(Resize),
            outcome: Outcome {
                status_as_json,
                error_stream,
                _connection: AbortOnDropHandle::new(tokio::spawn(streams.run(connection))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::spdy::peer::Peer;
    use super::*;
    use crate::pod::streaming::exit_code;

    const OUTPUT: StreamOptions = StreamOptions {
        stdin: false,
        stdout: true,
        stderr: true,
        tty: false,
    };

    #[tokio::test]
    async fn the_status_of_v4_tells_the_exit_code() {
        let (client, server) = tokio::io::duplex(1024);
        let session = Session::start(client, V4_CHANNEL.as_bytes(), OUTPUT);
        let mut server = Peer(server);
        let error = server.accept("error").await;
        let status = br#"{"metadata":{},"status":"Failure","reason":"NonZeroExitCode",
            "details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
        server.data(error, false, status).await;
        server.reset(error).await;
        assert_eq!(exit_code(&session.outcome.wait().await.unwrap()), Some(3));
    }

    #[tokio::test]
    async fn before_v4_an_error_is_text_and_success_is_nothing() {
        for (text, code, message) in [("", Some(0), None), ("no such file", None, Some("no such file"))] {
            let (client, server) = tokio::io::duplex(1024);
            let session = Session::start(client, b"v2.channel.k8s.io", OUTPUT);
            let mut server = Peer(server);
            let error = server.accept("error").await;
            server.data(error, true, text.as_bytes()).await;
            let status = session.outcome.wait().await.unwrap();
            assert_eq!((exit_code(&status), status.message.as_deref()), (code, message));
        }
    }

    #[tokio::test]
    async fn a_connection_that_breaks_is_no_exit() {
        let (client, server) = tokio::io::duplex(1024);
        let session = Session::start(client, V4_CHANNEL.as_bytes(), OUTPUT);
        let mut server = Peer(server);
        server.accept("error").await;
        drop(server);
        assert!(matches!(session.outcome.wait().await, Err(StreamError::Lost)));
    }
}
