//! One HTTP/1.1 request that switches protocols: to SPDY with the runtime, to WebSocket with the agent.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::http::response::Parts;
use hyper::upgrade::Upgraded;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::AbortOnDropHandle;

/// How much of a refusal's text is read, in bytes.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;

/// Why the protocols were not switched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpgradeError {
    /// The other side broke off, or does not speak HTTP/1.1.
    #[error("the connection failed while it switched protocols: {0}")]
    Http(#[from] hyper::Error),
    /// The other side answered with something else than 101.
    #[error(
        "the protocol switch was refused with {status}: {}",
        String::from_utf8_lossy(body)
    )]
    Refused {
        /// Its answer's code.
        status: StatusCode,
        /// Its answer's text, up to 64 KiB.
        body: Bytes,
    },
}

/// Sends `request`, which carries the headers that ask for the other protocol, and gives the answer's headers
/// and the connection in its new protocol. Has no deadline of its own.
pub(crate) async fn upgrade<S>(
    stream: S,
    request: Request<Empty<Bytes>>,
) -> Result<(Parts, TokioIo<Upgraded>), UpgradeError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection.with_upgrades()));
    let response = sender.send_request(request).await?;
    let status = response.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let body = Limited::new(response.into_body(), MAX_REFUSAL_BYTES)
            .collect()
            .await;
        let body = body.map_or_else(|_| Bytes::new(), http_body_util::Collected::to_bytes);
        return Err(UpgradeError::Refused { status, body });
    }
    let (parts, body) = response.into_parts();
    let mut response = hyper::Response::from_parts(parts.clone(), body);
    let upgraded = hyper::upgrade::on(&mut response).await?;
    Ok((parts, TokioIo::new(upgraded)))
}
