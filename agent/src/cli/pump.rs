//! Copies between our standard streams and those of a container.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};

use super::client::{Client, ClientError, pod_path, with_query};
use super::failure::Failure;
use super::output::{container_stderr, container_stdout, tell};
use super::raw_terminal::{RawTerminal, TerminalSizes, terminal_size};
use super::stream_client::{StreamError, StreamSession, open};

/// How much is copied at once, in bytes.
const BUFFER_BYTES: usize = 64 * 1024;

/// How often, and with what pause, an attach is tried whose container has only just started.
const ATTACH_ATTEMPTS: u32 = 20;
const ATTACH_PAUSE: Duration = Duration::from_millis(100);

/// The streams that a session carries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streams {
    /// To the container.
    pub(crate) stdin: bool,
    /// From the container.
    pub(crate) output: bool,
    /// Whether they are a terminal's.
    pub(crate) tty: bool,
}

/// The path of an attach or exec; `command` is that of an exec.
pub(crate) fn stream_path(
    namespace: &str,
    pod: &str,
    verb: &str,
    container: &str,
    command: &[String],
    streams: Streams,
) -> String {
    let flag = |set: bool| if set { "true".to_owned() } else { String::new() };
    let words = command.iter().map(|word| ("command", word.clone()));
    let rest = [
        ("container", container.to_owned()),
        ("stdin", flag(streams.stdin)),
        ("stdout", flag(streams.output)),
        // A terminal has one output.
        ("stderr", flag(streams.output && !streams.tty)),
        ("tty", flag(streams.tty)),
    ];
    with_query(&pod_path(namespace, pod, verb), words.chain(rest))
}

/// The words for a stream that failed.
pub(crate) fn stream_failure(error: StreamError) -> Failure {
    match error {
        StreamError::Connect { socket, source } => ClientError::connecting(socket, source).into(),
        StreamError::Refused(status) => ClientError::Refused(status).into(),
        StreamError::Failed(status) => ClientError::Refused(status).into(),
        StreamError::Lost => Failure::new("the connection to the agent was lost")
            .hint("The container goes on; \"journalctl -u debuglet\" shows what happened to the agent."),
        error => Failure::new(error.to_string()),
    }
}

/// Copies between our standard streams and the session's until it has ended; answers its exit code.
pub(crate) async fn pump(session: StreamSession, streams: Streams) -> Result<i32, Failure> {
    let StreamSession {
        stdin,
        stdout,
        stderr,
        resize,
        outcome,
    } = session;
    let raw = match streams.tty {
        true => Some(
            RawTerminal::enter()
                .map_err(|error| Failure::new(format!("cannot use the terminal: {error}")))?,
        ),
        false => None,
    };
    let typing = async move {
        match streams.stdin {
            true => copy_stdin(stdin, streams.tty).await,
            // Kept open: closing it says that our input has ended.
            false => std::future::pending::<()>().await,
        }
    };
    let sizing = async move {
        if streams.tty {
            keep_size(|size| resize.set(size)).await;
        }
    };
    let printing = async {
        let (out, err) = tokio::join!(copy(stdout, container_stdout()), copy(stderr, container_stderr()));
        out.and(err)
    };
    let side = async {
        tokio::join!(typing, sizing);
        std::future::pending::<()>().await;
    };
    let printed = tokio::select! {
        printed = printing => printed,
        () = side => Ok(()),
    };
    let ended = match printed {
        Ok(()) => outcome.wait().await.map_err(stream_failure),
        Err(error) => Err(error.into()),
    };
    drop(raw);
    ended
}

/// Tells `set` the terminal's size, now and whenever it changes.
pub(crate) async fn keep_size(set: impl Fn(crate::pod::streaming::TerminalSize)) {
    // Looking for changes before asking for the size: none is missed in between.
    let sizes = TerminalSizes::watch();
    if let Some(size) = terminal_size() {
        set(size);
    }
    let Ok(mut sizes) = sizes else { return };
    while let Some(size) = sizes.changed().await {
        set(size);
    }
}

/// Copies our standard input until its end, which a pipe hands on and a terminal does not.
async fn copy_stdin(mut to: tokio::io::DuplexStream, tty: bool) {
    let mut from = BufReader::with_capacity(BUFFER_BYTES, tokio::io::stdin());
    // A container that reads no more is no failure: it goes on, or ends by itself.
    let _ = tokio::io::copy_buf(&mut from, &mut to).await;
    if tty {
        std::future::pending::<()>().await;
    }
    let _ = to.shutdown().await;
}

async fn copy(from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut from = BufReader::with_capacity(BUFFER_BYTES, from);
    tokio::io::copy_buf(&mut from, &mut to).await?;
    to.flush().await
}

/// Sends our standard input, and its end, to a container whose output is read elsewhere. Returns when all of it is
/// sent, or cannot be any more.
pub(crate) async fn send_stdin(client: &Client, namespace: &str, pod: &str, container: &str, quiet: bool) {
    let streams = Streams {
        stdin: true,
        output: false,
        tty: false,
    };
    let path = stream_path(namespace, pod, "attach", container, &[], streams);
    let mut attempt = 0;
    let session = loop {
        attempt += 1;
        match open(client.socket(), &path).await {
            Ok(session) => break session,
            Err(_) if attempt < ATTACH_ATTEMPTS => tokio::time::sleep(ATTACH_PAUSE).await,
            // It may have ended without waiting for its input; its log and its exit code tell.
            Err(_) => return,
        }
    };
    let StreamSession { stdin, outcome, .. } = session;
    tokio::select! {
        ended = outcome.wait() => {
            if matches!(ended, Err(StreamError::Lost)) && !quiet {
                tell("The connection to the agent was lost: what is left of the input does not reach the container.");
            }
        }
        () = async { copy_stdin(stdin, false).await; std::future::pending::<()>().await } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_session_carries_is_in_its_path() {
        let all = Streams {
            stdin: true,
            output: true,
            tty: false,
        };
        let command = ["sh".to_owned(), "-c".to_owned(), "a & b".to_owned()];
        assert_eq!(
            stream_path("shop", "cart", "exec", "web", &command, all),
            "/api/v1/namespaces/shop/pods/cart/exec?command=sh&command=-c&command=a+%26+b\
             &container=web&stdin=true&stdout=true&stderr=true"
        );
        let terminal = Streams { tty: true, ..all };
        assert_eq!(
            stream_path("shop", "cart", "attach", "web", &[], terminal),
            "/api/v1/namespaces/shop/pods/cart/attach?container=web&stdin=true&stdout=true&tty=true"
        );
    }
}
