//! `pods/attach` and `pods/exec`: Kubernetes' remote command protocol over WebSocket, v5 and v4, carried on to the
//! runtime's session. v5 can half-close stdin, and so can the runtime's; with v4 stdin ends with the connection.

use std::future::{Future, pending};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, Query, State};
use axum::http::Uri;
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::Context;
use super::container::ServedContainer;
use super::pods::find;
use super::status::Failure;
use crate::pod::streaming::{
    CHANNEL_ERROR, CHANNEL_RESIZE, CHANNEL_STDERR, CHANNEL_STDIN, CHANNEL_STDOUT, CLOSE_SIGNAL, V4_CHANNEL,
    V5_CHANNEL,
};
use crate::runtime::client::Runtime;
use crate::runtime::streams::{Outcome, Resize, Session, StreamError, StreamOptions, attach, exec};

/// The most output that goes into one message, in bytes.
const CHUNK_BYTES: usize = 32 * 1024;
/// The largest message that is accepted, in bytes: clients send stdin in messages of their own choice.
const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// How often a client is pinged, so that one that is gone is noticed while the container is silent.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How long a client that was told the end may take to close the connection.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// Why a stream is refused before the protocols are switched.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// The client speaks none of the subprotocols.
    #[error(
        "the WebSocket subprotocols {V5_CHANNEL} and {V4_CHANNEL} are served here, and none of them was asked for"
    )]
    Subprotocol,
    /// The query cannot be read.
    #[error("the query cannot be read: {0}")]
    Query(String),
    /// Nothing to stream.
    #[error("at least one of stdin, stdout and stderr must be asked for")]
    NoStream,
    /// Nothing to run.
    #[error("exec needs a command")]
    NoCommand,
    /// The runtime did not open the session.
    #[error(transparent)]
    Session(#[from] StreamError),
}

/// What a client asks for: the parameters of PodAttachOptions and PodExecOptions.
#[derive(Debug, Default, PartialEq, Eq)]
struct StreamParameters {
    /// The container's name; empty for the pod's default.
    container: String,
    /// What exec runs, in the order of the query.
    command: Vec<String>,
    /// Which streams.
    options: StreamOptions,
}

impl StreamParameters {
    /// Reads the query of `uri`; parameters that are not known are ignored.
    fn read(uri: &Uri) -> Result<StreamParameters, Refusal> {
        let query = Query::<Vec<(String, String)>>::try_from_uri(uri);
        let Query(pairs) = query.map_err(|error| Refusal::Query(error.body_text()))?;
        let mut read = StreamParameters::default();
        for (name, value) in pairs {
            // A flag is on unless it says `false` or `0`.
            let on = value != "0" && !value.eq_ignore_ascii_case("false");
            match name.as_str() {
                "container" => read.container = value,
                "command" => read.command.push(value),
                "stdin" => read.options.stdin = on,
                "stdout" => read.options.stdout = on,
                "stderr" => read.options.stderr = on,
                "tty" => read.options.tty = on,
                _ => {}
            }
        }
        let StreamOptions {
            stdin,
            stdout,
            stderr,
            ..
        } = read.options;
        if stdin || stdout || stderr {
            Ok(read)
        } else {
            Err(Refusal::NoStream)
        }
    }
}

/// A client that may have asked for a WebSocket.
type Client = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// Attaches the client to a container's main process.
pub(crate) async fn attach_to(
    State(context): State<Arc<Context>>,
    Path((namespace, name)): Path<(String, String)>,
    uri: Uri,
    client: Client,
) -> Result<Response, Failure> {
    let StreamParameters {
        container,
        mut options,
        ..
    } = StreamParameters::read(&uri)?;
    let container = ServedContainer::find(&*find(&context.store, &namespace, &name)?, &container)?;
    options.tty = container.spec.tty.unwrap_or(false);
    let client = client.map_err(|rejection| Failure::bad_request(rejection.body_text()))?;
    Ok(serve_attach(client, &context.runtime, container.running_id()?, options).await?)
}

/// Runs a command in a container for the client.
pub(crate) async fn exec_in(
    State(context): State<Arc<Context>>,
    Path((namespace, name)): Path<(String, String)>,
    uri: Uri,
    client: Client,
) -> Result<Response, Failure> {
    let StreamParameters {
        container,
        command,
        options,
    } = StreamParameters::read(&uri)?;
    let container = ServedContainer::find(&*find(&context.store, &namespace, &name)?, &container)?;
    let client = client.map_err(|rejection| Failure::bad_request(rejection.body_text()))?;
    Ok(serve_exec(
        client,
        &context.runtime,
        container.running_id()?,
        command,
        options,
    )
    .await?)
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        let message = refusal.to_string();
        match refusal {
            Refusal::Session(_) => Failure::internal(message),
            Refusal::Subprotocol | Refusal::Query(_) | Refusal::NoStream | Refusal::NoCommand => {
                Failure::bad_request(message)
            }
        }
    }
}

/// Attaches the client to the main process of a container. `options.tty` must say what the container has.
async fn serve_attach(
    client: WebSocketUpgrade,
    runtime: &Runtime,
    container_id: &str,
    options: StreamOptions,
) -> Result<Response, Refusal> {
    serve(client, attach(runtime, container_id, options)).await
}

/// Runs a command in a container for the client.
async fn serve_exec(
    client: WebSocketUpgrade,
    runtime: &Runtime,
    container_id: &str,
    command: Vec<String>,
    options: StreamOptions,
) -> Result<Response, Refusal> {
    if command.is_empty() {
        return Err(Refusal::NoCommand);
    }
    serve(client, exec(runtime, container_id, command, options)).await
}

/// Opens the session and then switches protocols: what goes wrong before is still an answer of HTTP.
async fn serve(
    client: WebSocketUpgrade,
    session: impl Future<Output = Result<Session, StreamError>>,
) -> Result<Response, Refusal> {
    let client = client.protocols([V5_CHANNEL, V4_CHANNEL]);
    let half_close = match client.selected_protocol() {
        Some(protocol) => protocol == V5_CHANNEL,
        None => return Err(Refusal::Subprotocol),
    };
    let session = session.await?;
    let client = client
        .max_message_size(MAX_MESSAGE_BYTES)
        .max_frame_size(MAX_MESSAGE_BYTES);
    Ok(client.on_upgrade(move |socket| relay(socket, session, half_close)))
}

/// Carries bytes between the client and the session until one of them ends. Nothing is read from either side
/// before the other side has taken what came before.
async fn relay(socket: WebSocket, session: Session, half_close: bool) {
    let (to_client, from_client) = socket.split();
    let mut input = pin!(relay_input(
        from_client,
        session.stdin,
        session.resize,
        half_close
    ));
    let output = relay_output(to_client, session.stdout, session.stderr, session.outcome);
    tokio::select! {
        () = &mut input => return,
        sent = output => if sent.is_err() { return },
    }
    // Closing while the client still sends would discard what it has not read yet.
    let _ = tokio::time::timeout(CLOSE_DEADLINE, input).await;
}

/// Carries the client's messages to the session until the client is gone.
async fn relay_input(
    mut from_client: impl Stream<Item = Result<Message, axum::Error>> + Unpin,
    mut stdin: Option<DuplexStream>,
    mut resize: Option<Resize>,
    half_close: bool,
) {
    while let Some(Ok(message)) = from_client.next().await {
        let data = match message {
            Message::Binary(data) => data,
            Message::Close(_) => return,
            Message::Text(_) | Message::Ping(_) | Message::Pong(_) => continue,
        };
        match &data[..] {
            [CHANNEL_STDIN, data @ ..] => {
                if let Some(writer) = &mut stdin
                    && writer.write_all(data).await.is_err()
                {
                    // The process reads no more; its output goes on.
                    stdin = None;
                }
            }
            [CHANNEL_RESIZE, json @ ..] => {
                if let (Some(resize), Ok(size)) = (&mut resize, serde_json::from_slice(json)) {
                    resize.send(size).await;
                }
            }
            [CLOSE_SIGNAL, CHANNEL_STDIN] if half_close => stdin = None,
            _ => {}
        }
    }
}

/// Carries the session's output to the client, up to the end of both streams, and then how it ended.
async fn relay_output(
    mut to_client: impl Sink<Message, Error = axum::Error> + Unpin,
    mut stdout: Option<DuplexStream>,
    mut stderr: Option<DuplexStream>,
    outcome: Outcome,
) -> Result<(), axum::Error> {
    let (mut from_stdout, mut from_stderr) = (BytesMut::new(), BytesMut::new());
    let mut outcome = pin!(outcome.wait());
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    let end = loop {
        let output = tokio::select! {
            output = next_message(CHANNEL_STDOUT, &mut stdout, &mut from_stdout) => output,
            output = next_message(CHANNEL_STDERR, &mut stderr, &mut from_stderr) => output,
            end = &mut outcome, if stdout.is_none() && stderr.is_none() => break end,
            _ = heartbeat.tick() => Some(Message::Ping(Bytes::new())),
        };
        if let Some(message) = output {
            to_client.send(message).await?;
        }
    };
    let mut message = vec![CHANNEL_ERROR];
    message.extend(serde_json::to_vec(&end.unwrap_or_else(broken)).map_err(axum::Error::new)?);
    to_client.send(Message::Binary(message.into())).await?;
    to_client.send(Message::Close(None)).await
}

/// What `stream` has next, as a message; `None` at its end, which also takes it away. Waits forever where there
/// is no such stream. Can be dropped and called again without losing bytes.
async fn next_message(
    channel: u8,
    stream: &mut Option<DuplexStream>,
    buffer: &mut BytesMut,
) -> Option<Message> {
    let Some(reader) = stream else {
        return pending().await;
    };
    if buffer.is_empty() {
        buffer.reserve(1 + CHUNK_BYTES);
        buffer.put_u8(channel);
    }
    match reader.read_buf(buffer).await {
        Ok(count) if count > 0 => Some(Message::Binary(buffer.split().freeze())),
        _ => {
            *stream = None;
            None
        }
    }
}

/// The Status of a session that did not tell how it ended.
fn broken(error: StreamError) -> Status {
    Status {
        code: Some(500),
        message: Some(error.to_string()),
        reason: Some("InternalError".to_owned()),
        status: Some("Failure".to_owned()),
        ..Status::default()
    }
}

#[cfg(test)]
mod tests;
