//! The runtime's streaming server: CRI gives a URL for each session, and the connection that is opened there speaks
//! SPDY (even its WebSocket cannot half-close stdin). Neither the URL nor the server's address ever reaches a client.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use debuglet_proto::v1::{
    AttachRequest, ExecRequest, ListPodSandboxRequest, PodSandbox, PodSandboxFilter, PodSandboxState,
    PodSandboxStateValue, PortForwardRequest,
};
use http_body_util::Empty;
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::client::Runtime;
use super::error::RuntimeError;
use super::observe::is_our_sandbox;
use crate::http_upgrade::{UpgradeError, upgrade};

/// How long the opening of a session may take: the question for its URL, the connection to the streaming server, and its
/// switch of protocols. A client waits for it.
pub(crate) const OPENED_WITHIN: Duration = Duration::from_secs(10);

/// The protocol that a connection is switched to, as the `Upgrade` header names it.
pub(crate) const SPDY: &str = "SPDY/3.1";
/// The header that names what is spoken over SPDY, once per protocol; the server answers with the one it chose.
pub(crate) const PROTOCOL_HEADER: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// Why a session could not be opened, or how it broke.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// The runtime did not answer the call, or refused it.
    #[error(transparent)]
    Call(#[from] RuntimeError),
    /// The pod has no sandbox that is ready.
    #[error("the pod's sandbox is not ready: there is no network to forward ports to")]
    NoSandbox,
    /// The runtime gave a URL that cannot be used.
    #[error("the runtime's streaming URL is not of the form http://HOST:PORT/PATH")]
    Url,
    /// The streaming server does not accept connections.
    #[error("cannot connect to the runtime's streaming server: {0}")]
    Connect(io::Error),
    /// The streaming server did not switch to SPDY.
    #[error("the runtime's streaming server failed: {0}")]
    Upgrade(#[from] UpgradeError),
    /// The runtime or its streaming server takes too long.
    #[error("the runtime does not answer: no session was opened within {} s", OPENED_WITHIN.as_secs())]
    Deadline,
    /// The connection ended before it was told how the session ended.
    #[error("the connection to the runtime was lost")]
    Lost,
}

impl StreamError {
    /// Whether the server speaks nothing of what it was offered.
    pub(crate) fn is_refused_protocol(&self) -> bool {
        let StreamError::Upgrade(UpgradeError::Refused { status, .. }) = self else {
            return false;
        };
        *status == StatusCode::FORBIDDEN
    }
}

/// Which streams a session has. With a terminal there is no `stderr`, whatever is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamOptions {
    /// To the container.
    pub(crate) stdin: bool,
    /// From the container.
    pub(crate) stdout: bool,
    /// From the container.
    pub(crate) stderr: bool,
    /// The process has a terminal: an exec gets one, an attach must say what the container has.
    pub(crate) tty: bool,
}

impl StreamOptions {
    /// The runtime refuses a terminal with a stderr of its own.
    pub(super) fn checked(self) -> StreamOptions {
        StreamOptions {
            stderr: self.stderr && !self.tty,
            ..self
        }
    }
}

/// Where one session can be opened, once and soon. It is as good as a password, and so has no `Debug`.
pub(crate) struct StreamingUrl(String);

/// A connection that speaks SPDY.
pub(crate) type SpdyConnection = TokioIo<Upgraded>;

impl Runtime {
    /// A session with the main process of a container (CRI `Attach`).
    pub(crate) async fn attach_url(
        &self,
        container_id: &str,
        options: StreamOptions,
    ) -> Result<StreamingUrl, StreamError> {
        let options = options.checked();
        let request = AttachRequest {
            container_id: container_id.to_owned(),
            stdin: options.stdin,
            tty: options.tty,
            stdout: options.stdout,
            stderr: options.stderr,
        };
        let answer = self.runtime().attach(request).await;
        let answer =
            answer.map_err(|status| RuntimeError::new("attach to container", container_id, &status))?;
        Ok(StreamingUrl(answer.into_inner().url))
    }

    /// A session with `command`, which is run in a container (CRI `Exec`).
    pub(crate) async fn exec_url(
        &self,
        container_id: &str,
        command: Vec<String>,
        options: StreamOptions,
    ) -> Result<StreamingUrl, StreamError> {
        let options = options.checked();
        let request = ExecRequest {
            container_id: container_id.to_owned(),
            cmd: command,
            tty: options.tty,
            stdin: options.stdin,
            stdout: options.stdout,
            stderr: options.stderr,
        };
        let answer = self.runtime().exec(request).await;
        let answer =
            answer.map_err(|status| RuntimeError::new("exec in container", container_id, &status))?;
        Ok(StreamingUrl(answer.into_inner().url))
    }

    /// A session with `ports` of a pod (CRI `PortForward`); of those the runtime only wants to know where a client
    /// names them before it opens its streams.
    ///
    /// `external` is the sandbox that a pod which somebody else runs is shown as: its ports and no other's are meant.
    pub(crate) async fn port_forward_url(
        &self,
        pod_uid: &str,
        external: Option<&str>,
        ports: &[u16],
    ) -> Result<StreamingUrl, StreamError> {
        let sandbox = self.ready_sandbox(pod_uid, external).await?;
        let request = PortForwardRequest {
            pod_sandbox_id: sandbox.clone(),
            port: ports.iter().copied().map(i32::from).collect(),
        };
        let answer = self.runtime().port_forward(request).await;
        let answer =
            answer.map_err(|status| RuntimeError::new("forward ports of sandbox", sandbox, &status))?;
        Ok(StreamingUrl(answer.into_inner().url))
    }

    /// The id of the sandbox that was found of an external pod, or of the newest sandbox of a pod of ours, if it is ready.
    async fn ready_sandbox(&self, pod_uid: &str, external: Option<&str>) -> Result<String, StreamError> {
        let filter = PodSandboxFilter {
            state: Some(PodSandboxStateValue {
                state: PodSandboxState::SandboxReady.into(),
            }),
            ..PodSandboxFilter::default()
        };
        let listed = self
            .runtime()
            .list_pod_sandbox(ListPodSandboxRequest { filter: Some(filter) })
            .await
            .map_err(|status| RuntimeError::new("list the sandboxes of pod", pod_uid, &status))?;
        let ready = listed.into_inner().items;
        let found = match external {
            Some(id) => ready
                .into_iter()
                .map(|sandbox| sandbox.id)
                .find(|ready| ready == id),
            None => newest_of_ours(pod_uid, ready),
        };
        found.ok_or(StreamError::NoSandbox)
    }
}

/// The id of the newest sandbox that debuglet made for a pod. Whose a sandbox is stands in its metadata, which anybody may
/// have copied: so it counts only with our own label.
fn newest_of_ours(pod_uid: &str, sandboxes: Vec<PodSandbox>) -> Option<String> {
    let attempts = sandboxes.into_iter().filter_map(|sandbox| {
        let metadata = sandbox.metadata.as_ref()?;
        let is_its = metadata.uid == pod_uid && is_our_sandbox(&sandbox.labels, &sandbox.annotations);
        is_its.then_some((metadata.attempt, sandbox.created_at, sandbox.id))
    });
    attempts.max().map(|(_, _, id)| id)
}

impl StreamingUrl {
    /// Opens the session and offers `protocols`; gives the one that the server chose, if it names one, and the
    /// connection.
    pub(crate) async fn open(
        &self,
        protocols: impl IntoIterator<Item = HeaderValue>,
    ) -> Result<(Option<HeaderValue>, SpdyConnection), StreamError> {
        let connecting = tokio::time::timeout(OPENED_WITHIN, self.connect(protocols));
        let (mut headers, connection) = connecting.await.map_err(|_| StreamError::Deadline)??;
        Ok((headers.remove(PROTOCOL_HEADER), connection))
    }

    async fn connect(
        &self,
        protocols: impl IntoIterator<Item = HeaderValue>,
    ) -> Result<(HeaderMap, SpdyConnection), StreamError> {
        let uri: Uri = self.0.parse().map_err(|_| StreamError::Url)?;
        let authority = uri
            .authority()
            .filter(|_| uri.scheme_str() == Some("http"))
            .ok_or(StreamError::Url)?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::post(path)
            .header(HOST, authority.as_str())
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, SPDY);
        for protocol in protocols {
            request = request.header(PROTOCOL_HEADER, protocol);
        }
        let request = request
            .body(Empty::<Bytes>::new())
            .map_err(|_| StreamError::Url)?;

        let port = authority.port_u16().unwrap_or(80);
        let stream = connect_to(authority.host(), port).await.map_err(|error| {
            tracing::warn!(%authority, %error, "cannot connect to the runtime's streaming server");
            StreamError::Connect(error)
        })?;
        let (head, connection) = upgrade(stream, request).await?;
        Ok((head.headers, connection))
    }
}

/// Connects to `host` as a URL writes it. A server that listens on all addresses names the unspecified one.
async fn connect_to(host: &str, port: u16) -> io::Result<TcpStream> {
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let stream = match name.parse::<IpAddr>() {
        Ok(address) => {
            let addresses = loopback_if_unspecified(address);
            let addresses: Vec<_> = addresses
                .into_iter()
                .map(|address| SocketAddr::new(address, port))
                .collect();
            TcpStream::connect(&addresses[..]).await?
        }
        Err(_) => TcpStream::connect((name, port)).await?,
    };
    // Keys are to be seen at once.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The addresses to try, in this order.
fn loopback_if_unspecified(address: IpAddr) -> Vec<IpAddr> {
    match address {
        IpAddr::V4(v4) if v4.is_unspecified() => vec![Ipv4Addr::LOCALHOST.into()],
        // A socket on [::] takes both families, unless the system has only one of them.
        IpAddr::V6(v6) if v6.is_unspecified() => vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()],
        other => vec![other],
    }
}

#[cfg(test)]
mod tests {
    use debuglet_proto::v1::PodSandboxMetadata;

    use super::*;
    use crate::pod::labels;

    #[test]
    fn a_sandbox_is_a_pod_of_ours_by_its_metadata_and_our_label() {
        let sandbox = |id: &str, uid: &str, attempt, origin: &str| PodSandbox {
            id: id.to_owned(),
            metadata: Some(PodSandboxMetadata {
                uid: uid.to_owned(),
                attempt,
                ..PodSandboxMetadata::default()
            }),
            labels: [(labels::ORIGIN.to_owned(), origin.to_owned())].into(),
            ..PodSandbox::default()
        };
        let sandboxes = vec![
            sandbox("old", "u1", 0, labels::ORIGIN_DEBUGLET),
            sandbox("new", "u1", 2, labels::ORIGIN_DEBUGLET),
            sandbox("copied", "u1", 7, ""),
            sandbox("other", "u2", 7, labels::ORIGIN_DEBUGLET),
        ];
        assert_eq!(newest_of_ours("u1", sandboxes.clone()).as_deref(), Some("new"));
        assert_eq!(newest_of_ours("u3", sandboxes), None);
    }

    #[test]
    fn a_server_on_all_addresses_is_reached_on_loopback() {
        let addresses = |host: &str| loopback_if_unspecified(host.parse().unwrap());
        assert_eq!(addresses("0.0.0.0"), [IpAddr::from(Ipv4Addr::LOCALHOST)]);
        assert_eq!(
            addresses("::"),
            [
                IpAddr::from(Ipv6Addr::LOCALHOST),
                IpAddr::from(Ipv4Addr::LOCALHOST)
            ]
        );
        assert_eq!(addresses("10.0.0.7"), ["10.0.0.7".parse::<IpAddr>().unwrap()]);
    }

    #[tokio::test]
    async fn urls_that_are_not_plain_http_are_refused() {
        for url in ["https://127.0.0.1:1/exec/x", "/exec/x", "", "http://"] {
            let error = StreamingUrl(url.to_owned()).open([]).await.err().unwrap();
            assert!(matches!(error, StreamError::Url), "{url}: {error}");
        }
    }

    #[tokio::test]
    async fn an_error_does_not_tell_the_server_s_address() {
        let url = StreamingUrl("http://127.0.0.1:1/exec/secret".to_owned());
        let error = url.open([]).await.err().unwrap().to_string();
        assert!(
            !error.contains("127.0.0.1") && !error.contains("secret"),
            "{error}"
        );
    }
}
