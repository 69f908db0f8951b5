//! The client side of attach and exec: the Kubernetes streaming protocol over WebSocket, on the agent's socket.
//!
//! One task owns the connection. It hands bytes to and from the session's ends through buffers of
//! [`BUFFER_BYTES`], so that whoever is slow slows the other side down. It ends when the [`Outcome`] is dropped.

use std::path::{Path, PathBuf};

use base64::Engine;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use http_body_util::Empty;
use hyper::Request;
use hyper::header::{
    CONNECTION, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};
use tokio_util::task::AbortOnDropHandle;

use crate::http_upgrade::{UpgradeError, upgrade};
use crate::pod::streaming::{
    CHANNEL_ERROR, CHANNEL_RESIZE, CHANNEL_STDERR, CHANNEL_STDIN, CHANNEL_STDOUT, CLOSE_SIGNAL, TerminalSize,
    V4_CHANNEL, V5_CHANNEL, exit_code,
};

/// How many bytes wait in each direction of each stream before its writer has to wait.
const BUFFER_BYTES: usize = 64 * 1024;
/// The most bytes that go into one message.
const CHUNK_BYTES: usize = 32 * 1024;
/// The largest message that is accepted, in bytes.
const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// Why a stream could not be opened, or how it ended otherwise than with an exit code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// The agent's socket is not there, or nobody listens.
    #[error("cannot connect to {}: {source}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The agent refused the stream and said why.
    #[error("{}", .0.message.as_deref().unwrap_or("the agent gave no reason"))]
    Refused(Box<Status>),
    /// The agent does not speak the protocol.
    #[error(transparent)]
    Upgrade(UpgradeError),
    /// The path is not one of a URL.
    #[error("{path:?} is not the path of a request: {source}")]
    Path {
        /// What was to be asked for.
        path: String,
        /// What is wrong with it.
        source: hyper::http::Error,
    },
    /// The stream ended with a failure that is not the process's exit code.
    #[error("{}", .0.message.as_deref().unwrap_or("the stream failed and gave no reason"))]
    Failed(Box<Status>),
    /// The connection ended before the stream did: the agent was stopped, or is being upgraded.
    #[error("the connection to the agent was lost")]
    Lost,
}

/// An open attach or exec. Read `stdout` and `stderr` at the same time: they share one connection.
pub(crate) struct StreamSession {
    /// To the container. `shutdown` (or dropping it) half-closes it.
    pub(crate) stdin: DuplexStream,
    /// From the container, up to its end.
    pub(crate) stdout: DuplexStream,
    /// From the container, up to its end; with a terminal nothing comes here.
    pub(crate) stderr: DuplexStream,
    /// The terminal's size.
    pub(crate) resize: Resize,
    /// How it ends. Holds the connection: dropping it ends the session.
    pub(crate) outcome: Outcome,
}

/// Tells the container the size of its terminal. Where two sizes come fast, the newest one counts.
pub(crate) struct Resize(watch::Sender<Option<TerminalSize>>);

impl Resize {
    /// Sends `size`.
    pub(crate) fn set(&self, size: TerminalSize) {
        self.0.send_replace(Some(size));
    }
}

/// How a session ends.
pub(crate) struct Outcome(AbortOnDropHandle<Option<Status>>);

impl Outcome {
    /// Waits for the end. Gives the exit code of an exec's process; an attach whose container ended gives 0,
    /// whatever the container's exit code is. All output has been handed over by then.
    pub(crate) async fn wait(self) -> Result<i32, StreamError> {
        let status = self.0.await.ok().flatten().ok_or(StreamError::Lost)?;
        exit_code(&status).ok_or_else(|| StreamError::Failed(Box::new(status)))
    }
}

/// Opens the stream that `path_and_query` names, such as `/api/v1/namespaces/NS/pods/POD/exec?command=sh&stdin=true`
/// (already percent-encoded), on the agent's `socket`.
pub(crate) async fn open(socket: &Path, path_and_query: &str) -> Result<StreamSession, StreamError> {
    let connection = UnixStream::connect(socket)
        .await
        .map_err(|source| StreamError::Connect {
            socket: socket.to_path_buf(),
            source,
        })?;
    let key = base64::engine::general_purpose::STANDARD.encode(rand::random::<[u8; 16]>());
    let request = Request::get(path_and_query)
        .header(HOST, "localhost")
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, key)
        .header(SEC_WEBSOCKET_PROTOCOL, format!("{V5_CHANNEL}, {V4_CHANNEL}"))
        .body(Empty::<Bytes>::new())
        .map_err(|source| StreamError::Path {
            path: path_and_query.to_owned(),
            source,
        })?;
    let (head, connection) = upgrade(connection, request).await.map_err(refusal)?;
    let half_close = head
        .headers
        .get(SEC_WEBSOCKET_PROTOCOL)
        .is_some_and(|name| name == V5_CHANNEL);
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    let socket = WebSocketStream::from_raw_socket(connection, Role::Client, Some(config)).await;

    let (stdin, far_stdin) = tokio::io::duplex(BUFFER_BYTES);
    let (stdout, far_stdout) = tokio::io::duplex(BUFFER_BYTES);
    let (stderr, far_stderr) = tokio::io::duplex(BUFFER_BYTES);
    let (resize, sizes) = watch::channel(None);
    let task = tokio::spawn(async move {
        let (to_agent, from_agent) = socket.split();
        tokio::select! {
            status = receive(from_agent, far_stdout, far_stderr) => status,
            () = send(to_agent, far_stdin, sizes, half_close) => None,
        }
    });
    Ok(StreamSession {
        stdin,
        stdout,
        stderr,
        resize: Resize(resize),
        outcome: Outcome(AbortOnDropHandle::new(task)),
    })
}

/// What the agent's refusal says: its Status where it sent one.
fn refusal(error: UpgradeError) -> StreamError {
    if let UpgradeError::Refused { body, .. } = &error
        && let Ok(status) = serde_json::from_slice::<Status>(body)
    {
        return StreamError::Refused(Box::new(status));
    }
    StreamError::Upgrade(error)
}

/// Hands over what comes from the agent until the connection ends; gives the Status if one came.
async fn receive(
    mut from_agent: impl Stream<Item = Result<Message, WebSocketError>> + Unpin,
    mut stdout: DuplexStream,
    mut stderr: DuplexStream,
) -> Option<Status> {
    let mut status = None;
    while let Some(Ok(message)) = from_agent.next().await {
        let Message::Binary(mut data) = message else {
            if message.is_close() {
                break;
            }
            continue;
        };
        if data.is_empty() {
            continue;
        }
        // A reader that is gone does not end the session: its bytes are dropped.
        match data.split_to(1)[0] {
            CHANNEL_STDOUT => drop(stdout.write_all(&data).await),
            CHANNEL_STDERR => drop(stderr.write_all(&data).await),
            CHANNEL_ERROR => status = serde_json::from_slice(&data).ok(),
            _ => {}
        }
    }
    status
}

/// Sends what is typed and the terminal's sizes for as long as the session lasts: it never ends of itself, since
/// how the session ends is what [`receive`] learns.
async fn send(
    mut to_agent: impl Sink<Message, Error = WebSocketError> + Unpin,
    mut stdin: DuplexStream,
    mut sizes: watch::Receiver<Option<TerminalSize>>,
    half_close: bool,
) {
    let mut buffer = BytesMut::new();
    let (mut typing, mut sizing) = (true, true);
    while typing || sizing {
        if buffer.is_empty() {
            buffer.reserve(1 + CHUNK_BYTES);
            buffer.put_u8(CHANNEL_STDIN);
        }
        let message = tokio::select! {
            read = stdin.read_buf(&mut buffer), if typing => match read {
                Ok(count) if count > 0 => buffer.split().freeze(),
                _ => {
                    typing = false;
                    // v4 has no word for it: the process sees no end of its input until the stream ends.
                    if !half_close {
                        continue;
                    }
                    Bytes::from_static(&[CLOSE_SIGNAL, CHANNEL_STDIN])
                }
            },
            changed = sizes.changed(), if sizing => {
                let size = *sizes.borrow_and_update();
                sizing = changed.is_ok();
                let Some(json) = size.filter(|_| sizing).and_then(|size| serde_json::to_vec(&size).ok()) else {
                    continue;
                };
                let mut message = vec![CHANNEL_RESIZE];
                message.extend(json);
                message.into()
            },
        };
        if to_agent.send(Message::Binary(message)).await.is_err() {
            break;
        }
    }
    // Dropping the far end makes further writes to stdin fail, which is what somebody who still writes must see.
    drop(stdin);
    std::future::pending::<()>().await;
}
