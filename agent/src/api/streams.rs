//! `pods/attach` and `pods/exec`: Kubernetes' remote command protocol. A WebSocket is carried on to the runtime's
//! session stream by stream; SPDY, which the runtime speaks itself, is passed through.
//!
//! Of the WebSocket's subprotocols only v5 can half-close stdin; with the others stdin ends with the connection.

use std::pin::pin;
use std::sync::Arc;

use axum::extract::ws::{Message, WebSocket};
use axum::extract::{Extension, Path, Query, State};
use axum::http::Uri;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use tokio::io::{AsyncWriteExt, DuplexStream};

use super::Context;
use super::audit::Touched;
use super::channels::{self, FrameReader, Framing, HEARTBEAT, frame};
use super::container::ServedContainer;
use super::identity::Identity;
use super::pods::find;
use super::reached::Reached;
use super::request::is_on;
use super::status::Failure;
use super::stream_end::StreamEnd;
use super::upgrade::{Upgrade, WebSocketClient};
use crate::pod::streaming::{
    CHANNEL_ERROR, CHANNEL_RESIZE, CHANNEL_STDERR, CHANNEL_STDIN, CHANNEL_STDOUT, CLOSE_SIGNAL,
    V1_BASE64_CHANNEL, V1_CHANNEL, V4_BASE64_CHANNEL, V4_CHANNEL, V5_CHANNEL,
};
use crate::runtime::streaming_server::{OPENED_WITHIN, StreamError, StreamOptions, StreamingUrl};
use crate::runtime::streams::{Outcome, Resize, Session};

/// A subprotocol of the WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Protocol {
    /// How its messages are written.
    framing: Framing,
    /// Whether stdin can be half-closed.
    half_close: bool,
    /// Whether the error channel carries a Status as JSON, also where all went well.
    status: bool,
}

/// The subprotocols and their names, the best first. No name counts as the first version's.
const PROTOCOLS: [(&str, Protocol); 6] = [
    (
        V5_CHANNEL,
        Protocol {
            half_close: true,
            ..V4
        },
    ),
    (V4_CHANNEL, V4),
    (
        V4_BASE64_CHANNEL,
        Protocol {
            framing: Framing::Base64,
            ..V4
        },
    ),
    (V1_CHANNEL, V1),
    (
        V1_BASE64_CHANNEL,
        Protocol {
            framing: Framing::Base64,
            ..V1
        },
    ),
    ("", V1),
];
const V4: Protocol = Protocol {
    framing: Framing::Binary,
    half_close: false,
    status: true,
};
const V1: Protocol = Protocol { status: false, ..V4 };

/// Why a stream is refused before the protocols are switched.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The client speaks none of the subprotocols.
    #[error("none of the WebSocket subprotocols that were asked for is served here; {0} are")]
    Subprotocol(String),
    /// The query cannot be read.
    #[error("the query cannot be read: {0}")]
    Query(String),
    /// Nothing to stream.
    #[error("at least one of stdin, stdout and stderr must be asked for")]
    NoStream,
    /// Nothing to run.
    #[error("exec needs a command")]
    NoCommand,
    /// A port that cannot be forwarded to.
    #[error("ports: {0}")]
    Ports(String),
    /// The runtime did not open the session.
    #[error(transparent)]
    Session(#[from] StreamError),
}

impl Refusal {
    /// That only `protocols` are served.
    pub(super) fn subprotocol(protocols: &[&str]) -> Refusal {
        let names: Vec<_> = protocols
            .iter()
            .copied()
            .filter(|name| !name.is_empty())
            .collect();
        Refusal::Subprotocol(names.join(", "))
    }
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
            let on = is_on(&value);
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

/// Attaches the client to a container's main process.
pub(crate) async fn attach_to(
    State(context): State<Arc<Context>>,
    Path((namespace, name)): Path<(String, String)>,
    Extension(identity): Extension<Identity>,
    Extension(end): Extension<StreamEnd>,
    uri: Uri,
    client: Upgrade,
) -> Result<Response, Failure> {
    let StreamParameters {
        container,
        mut options,
        ..
    } = StreamParameters::read(&uri)?;
    let pod = find(&context.store, identity.audience(), &namespace, &name)?;
    let container = ServedContainer::find(&pod, &container)?;
    options.tty = container.spec.tty.unwrap_or(false);
    let url = context.runtime.attach_url(container.running_id()?, options);
    let response = opened(serve(client, url, options, end)).await?;
    let reached = Reached::new(identity.audience(), &pod, Some(&container.spec.name));
    Ok(Touched::container(&container.spec.name).on(reached.on(response)))
}

/// Runs a command in a container for the client.
pub(crate) async fn exec_in(
    State(context): State<Arc<Context>>,
    Path((namespace, name)): Path<(String, String)>,
    Extension(identity): Extension<Identity>,
    Extension(end): Extension<StreamEnd>,
    uri: Uri,
    client: Upgrade,
) -> Result<Response, Failure> {
    let StreamParameters {
        container,
        command,
        options,
    } = StreamParameters::read(&uri)?;
    if command.is_empty() {
        return Err(Refusal::NoCommand.into());
    }
    let pod = find(&context.store, identity.audience(), &namespace, &name)?;
    let container = ServedContainer::find(&pod, &container)?;
    let url = context
        .runtime
        .exec_url(container.running_id()?, command, options);
    let response = opened(serve(client, url, options, end)).await?;
    let reached = Reached::new(identity.audience(), &pod, Some(&container.spec.name));
    Ok(Touched::container(&container.spec.name).on(reached.on(response)))
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        let message = refusal.to_string();
        match refusal {
            Refusal::Session(error) if error.is_refused_protocol() => Failure::forbidden(message),
            Refusal::Session(_) => Failure::internal(message),
            Refusal::Subprotocol(_)
            | Refusal::Query(_)
            | Refusal::NoStream
            | Refusal::NoCommand
            | Refusal::Ports(_) => Failure::bad_request(message),
        }
    }
}

/// Waits no longer than [`OPENED_WITHIN`] for the opening of a session.
pub(super) async fn opened(
    opening: impl Future<Output = Result<Response, Refusal>>,
) -> Result<Response, Refusal> {
    let opened = tokio::time::timeout(OPENED_WITHIN, opening).await;
    opened.unwrap_or(Err(Refusal::Session(StreamError::Deadline)))
}

/// Opens the session at `url` and then switches protocols: what goes wrong before is still an answer of HTTP.
async fn serve(
    client: Upgrade,
    url: impl Future<Output = Result<StreamingUrl, StreamError>>,
    options: StreamOptions,
    end: StreamEnd,
) -> Result<Response, Refusal> {
    let url = &url.await?;
    match client {
        Upgrade::Spdy(client) => Ok(client.pass_through(url, end).await?),
        Upgrade::WebSocket(client) => serve_web_socket(client, Session::open(url, options), end).await,
    }
}

/// Carries a WebSocket on to `session`.
async fn serve_web_socket(
    client: WebSocketClient,
    session: impl Future<Output = Result<Session, StreamError>>,
    end: StreamEnd,
) -> Result<Response, Refusal> {
    let names = PROTOCOLS.map(|(name, _)| name);
    let (place, upgrade) = client
        .choose(&names)
        .ok_or_else(|| Refusal::subprotocol(&names))?;
    let (_, protocol) = PROTOCOLS[place];
    let session = session.await?;
    Ok(upgrade.on_upgrade(move |socket| relay(socket, session, protocol, end)))
}

/// Carries bytes between the client and the session until one of them ends, or the stream is to. Nothing is read from
/// either side before the other side has taken what came before.
async fn relay(socket: WebSocket, session: Session, protocol: Protocol, end: StreamEnd) {
    let (to_client, from_client) = socket.split();
    let input = relay_input(from_client, session.stdin, session.resize, protocol);
    let (stdout, stderr, outcome) = (session.stdout, session.stderr, session.outcome);
    let output = async |to_client: &mut _| relay_output(to_client, stdout, stderr, outcome, protocol).await;
    channels::relay(to_client, input, output, &end).await;
}

/// Carries the client's messages to the session until the client is gone.
async fn relay_input(
    mut from_client: impl Stream<Item = Result<Message, axum::Error>> + Unpin,
    mut stdin: Option<DuplexStream>,
    mut resize: Option<Resize>,
    protocol: Protocol,
) {
    while let Some(Ok(message)) = from_client.next().await {
        if matches!(message, Message::Close(_)) {
            return;
        }
        let Some(frame) = protocol.framing.frame(message) else {
            continue;
        };
        match &frame[..] {
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
            [CLOSE_SIGNAL, CHANNEL_STDIN] if protocol.half_close => stdin = None,
            _ => {}
        }
    }
}

/// Carries the session's output to the client, up to the end of both streams, and then how it ended.
async fn relay_output(
    to_client: &mut (impl Sink<Message, Error = axum::Error> + Unpin),
    stdout: Option<DuplexStream>,
    stderr: Option<DuplexStream>,
    outcome: Outcome,
    protocol: Protocol,
) -> Result<(), axum::Error> {
    let mut stdout = FrameReader::new(CHANNEL_STDOUT, stdout);
    let mut stderr = FrameReader::new(CHANNEL_STDERR, stderr);
    let mut outcome = pin!(outcome.wait());
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    heartbeat.reset();
    // Kubernetes says so that the session is there; some clients wait for it.
    let first = [&stdout, &stderr].into_iter().find(|stream| !stream.has_ended());
    if let Some(first) = first {
        let opened = frame(first.channel(), b"");
        to_client.send(protocol.framing.message(opened)).await?;
    }
    let end = loop {
        let output = tokio::select! {
            output = stdout.next() => output,
            output = stderr.next() => output,
            end = &mut outcome, if stdout.has_ended() && stderr.has_ended() => break end,
            _ = heartbeat.tick() => {
                to_client.send(Message::Ping(Bytes::new())).await?;
                None
            }
        };
        if let Some(output) = output {
            to_client.send(protocol.framing.message(output)).await?;
        }
    };
    let status = end.unwrap_or_else(|error| broken(&error));
    match protocol.last_words(&status) {
        Some(words) => {
            to_client
                .send(protocol.framing.message(frame(CHANNEL_ERROR, &words)))
                .await
        }
        None => Ok(()),
    }
}

impl Protocol {
    /// What the error channel carries at the end of a session.
    fn last_words(self, status: &Status) -> Option<Vec<u8>> {
        if self.status {
            return serde_json::to_vec(status).ok();
        }
        let failed = status.status.as_deref() != Some("Success");
        failed.then(|| status.message.clone().unwrap_or_default().into_bytes())
    }
}

/// The Status of a session that did not tell how it ended.
fn broken(error: &StreamError) -> Status {
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
