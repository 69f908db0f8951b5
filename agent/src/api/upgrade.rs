//! Clients that want another protocol than HTTP: a WebSocket, or SPDY/3.1, whose bytes are passed through.

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::ws::WebSocketUpgrade;
use axum::http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, copy_buf, split};
use tokio::time::timeout;

use super::channels::{CLOSE_DEADLINE, MAX_MESSAGE_BYTES};
use super::status::Failure;
use super::stream_end::StreamEnd;
use crate::runtime::streaming_server::{PROTOCOL_HEADER, SPDY, StreamError, StreamingUrl};

/// How many bytes of each direction wait in the agent.
const BUFFER_BYTES: usize = 32 * 1024;

/// What a client asks to be upgraded to.
pub(super) enum Upgrade {
    /// A WebSocket.
    WebSocket(WebSocketClient),
    /// SPDY/3.1.
    Spdy(SpdyClient),
}

/// A client that asks for a WebSocket.
pub(super) struct WebSocketClient {
    upgrade: WebSocketUpgrade,
    /// Whether it names subprotocols.
    names_protocols: bool,
}

/// A client that asks for SPDY/3.1.
pub(super) struct SpdyClient {
    upgrade: OnUpgrade,
    /// What it would speak over SPDY, as it names them.
    protocols: Vec<HeaderValue>,
}

impl<S: Send + Sync> FromRequestParts<S> for Upgrade {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Upgrade, Failure> {
        if names(&parts.headers, "websocket") {
            let names_protocols = parts.headers.contains_key(SEC_WEBSOCKET_PROTOCOL);
            let upgrade = WebSocketUpgrade::from_request_parts(parts, state)
                .await
                .map_err(|rejection| Failure::bad_request(rejection.body_text()))?;
            return Ok(Upgrade::WebSocket(WebSocketClient {
                upgrade: upgrade
                    .max_message_size(MAX_MESSAGE_BYTES)
                    .max_frame_size(MAX_MESSAGE_BYTES),
                names_protocols,
            }));
        }
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        match upgrade.filter(|_| names(&parts.headers, SPDY)) {
            Some(upgrade) => Ok(Upgrade::Spdy(SpdyClient {
                upgrade,
                protocols: parts.headers.get_all(PROTOCOL_HEADER).iter().cloned().collect(),
            })),
            None => Err(Failure::bad_request(
                "this needs a connection that is upgraded to a WebSocket or to SPDY/3.1",
            )),
        }
    }
}

/// Whether the `Upgrade` header names `protocol`.
fn names(headers: &HeaderMap, protocol: &str) -> bool {
    let named = headers
        .get_all(UPGRADE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    named
        .flat_map(|value| value.split(','))
        .any(|one| one.trim().eq_ignore_ascii_case(protocol))
}

impl WebSocketClient {
    /// Chooses the first of `protocols` that the client names too, by its place in `protocols`. Where the client
    /// names none it is the one called `""`, as in Kubernetes. `None`: nothing in common.
    pub(super) fn choose(self, protocols: &[&'static str]) -> Option<(usize, WebSocketUpgrade)> {
        let place = |name: &str| protocols.iter().position(|protocol| *protocol == name);
        if !self.names_protocols {
            return Some((place("")?, self.upgrade));
        }
        let upgrade = self
            .upgrade
            .protocols(protocols.iter().copied().filter(|name| !name.is_empty()));
        let chosen = upgrade.selected_protocol().and_then(|name| name.to_str().ok());
        Some((place(chosen?)?, upgrade))
    }
}

impl SpdyClient {
    /// Opens the session that waits at `url` with what the client offers, and then switches protocols: what goes
    /// wrong before is still an answer of HTTP. The session ends with the stream's `end` at the latest.
    pub(super) async fn pass_through(
        self,
        url: &StreamingUrl,
        end: StreamEnd,
    ) -> Result<Response, StreamError> {
        let (chosen, runtime) = url.open(self.protocols).await?;
        // The task ends with the connection, which counts among the server's until then.
        tokio::spawn(async move {
            match self.upgrade.await {
                Ok(client) => copy_both_ways(TokioIo::new(client), runtime, end).await,
                Err(error) => tracing::debug!(%error, "a client left while it was upgraded"),
            }
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
        if let Some(chosen) = chosen {
            headers.insert(PROTOCOL_HEADER, chosen);
        }
        Ok(response)
    }
}

/// Copies until both have said all, or the `end`. A client whose runtime has said all gets a moment to take notice.
async fn copy_both_ways(
    client: impl AsyncRead + AsyncWrite,
    runtime: impl AsyncRead + AsyncWrite,
    end: StreamEnd,
) {
    let (from_client, mut to_client) = split(client);
    let (from_runtime, mut to_runtime) = split(runtime);
    let copied = async {
        let up = copy(from_client, &mut to_runtime);
        let down = copy(from_runtime, &mut to_client);
        tokio::pin!(up, down);
        tokio::select! {
            copied = &mut up => if copied.is_ok() { drop(down.await) },
            copied = &mut down => if copied.is_ok() { drop(timeout(CLOSE_DEADLINE, up).await) },
        }
    };
    let ended = tokio::select! {
        () = copied => false,
        () = end.reached() => true,
    };
    if ended {
        let _ = timeout(CLOSE_DEADLINE, to_client.shutdown()).await;
    }
}

/// Copies up to the end, which is handed on too.
async fn copy(from: impl AsyncRead + Unpin, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let mut from = BufReader::with_capacity(BUFFER_BYTES, from);
    copy_buf(&mut from, to).await?;
    to.shutdown().await
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn headers(upgrade: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(UPGRADE, HeaderValue::from_static(upgrade))])
    }

    #[test]
    fn the_upgrade_header_is_a_list_in_any_case() {
        assert!(names(&headers("SPDY/3.1"), SPDY));
        assert!(names(&headers("h2c, spdy/3.1"), SPDY));
        assert!(!names(&headers("SPDY/3"), SPDY));
        assert!(!names(&HeaderMap::new(), SPDY));
    }

    fn copying(shutdown: &CancellationToken) -> (DuplexStream, DuplexStream, tokio::task::JoinHandle<()>) {
        let (client, near) = duplex(64);
        let (runtime, far) = duplex(64);
        (
            client,
            runtime,
            tokio::spawn(copy_both_ways(near, far, StreamEnd::new(shutdown))),
        )
    }

    async fn rest(stream: &mut DuplexStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn a_client_that_has_said_all_still_hears() {
        let (mut client, mut runtime, task) = copying(&CancellationToken::new());
        client.write_all(b"asked").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(rest(&mut runtime).await, "asked");
        runtime.write_all(b"answered").await.unwrap();
        drop(runtime);
        assert_eq!(rest(&mut client).await, "answered");
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_whose_runtime_has_said_all_ends_also_if_the_client_stays() {
        let (mut client, runtime, task) = copying(&CancellationToken::new());
        drop(runtime);
        assert_eq!(rest(&mut client).await, "");
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_shutdown_ends_both_sides() {
        let shutdown = CancellationToken::new();
        let (mut client, mut runtime, task) = copying(&shutdown);
        shutdown.cancel();
        assert_eq!(rest(&mut client).await, "");
        assert_eq!(rest(&mut runtime).await, "");
        task.await.unwrap();
    }
}
