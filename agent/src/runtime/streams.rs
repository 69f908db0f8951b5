//! Attach and exec sessions with the runtime: CRI gives a URL of the runtime's streaming server, which speaks
//! Kubernetes' remote command protocol over SPDY (there even its WebSocket cannot half-close stdin).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use debuglet_proto::v1::{AttachRequest, ExecRequest};
use http_body_util::Empty;
use hyper::header::{CONNECTION, HOST, HeaderMap, UPGRADE};
use hyper::{Request, Uri};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::client::Runtime;
use super::spdy::connection::Streams;
use crate::http_upgrade::{UpgradeError, upgrade};
use crate::pod::streaming::{TerminalSize, V4_CHANNEL};

/// How long the streaming server may take to accept the connection and to switch protocols.
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);
/// The header that names the remote command protocol; the server answers with the one that it chose.
const PROTOCOL_HEADER: &str = "x-stream-protocol-version";
/// The protocols before v4, newest first. Their error stream is text, and empty where all went well.
const OLDER_PROTOCOLS: [&str; 3] = ["v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
/// The SPDY header that names what a stream is for.
const STREAM_TYPE: &str = "streamtype";

/// Why a session could not be opened, or how it broke.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// The runtime refused the call.
    #[error("the runtime refused to {verb} container {container}: {}", status.message())]
    Call {
        /// `attach to` or `exec in`.
        verb: &'static str,
        /// The container's id.
        container: String,
        /// The runtime's answer.
        status: Box<tonic::Status>,
    },
    /// The runtime gave a URL that cannot be used.
    #[error("the runtime's streaming URL {url:?} is not of the form http://HOST:PORT/PATH")]
    Url {
        /// What it gave.
        url: String,
    },
    /// The streaming server does not accept connections.
    #[error("cannot connect to the runtime's streaming server at {address}: {source}")]
    Connect {
        /// Its address.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// The streaming server did not switch to SPDY.
    #[error("the runtime's streaming server failed: {0}")]
    Upgrade(#[from] UpgradeError),
    /// The streaming server takes too long.
    #[error("the runtime's streaming server did not answer within {} s", CONNECT_DEADLINE.as_secs())]
    Deadline,
    /// The connection ended before it was told how the session ended.
    #[error("the connection to the runtime was lost")]
    Lost,
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

/// Attaches to the main process of the container (CRI `Attach`).
pub(crate) async fn attach(
    runtime: &Runtime,
    container_id: &str,
    options: StreamOptions,
) -> Result<Session, StreamError> {
    let options = options.checked();
    let request = AttachRequest {
        container_id: container_id.to_owned(),
        stdin: options.stdin,
        tty: options.tty,
        stdout: options.stdout,
        stderr: options.stderr,
    };
    let answer = runtime.runtime().attach(request).await;
    let answer = answer.map_err(|status| StreamError::call("attach to", container_id, status))?;
    open(&answer.into_inner().url, options).await
}

/// Runs `command` in the container (CRI `Exec`).
pub(crate) async fn exec(
    runtime: &Runtime,
    container_id: &str,
    command: Vec<String>,
    options: StreamOptions,
) -> Result<Session, StreamError> {
    let options = options.checked();
    let request = ExecRequest {
        container_id: container_id.to_owned(),
        cmd: command,
        tty: options.tty,
        stdin: options.stdin,
        stdout: options.stdout,
        stderr: options.stderr,
    };
    let answer = runtime.runtime().exec(request).await;
    let answer = answer.map_err(|status| StreamError::call("exec in", container_id, status))?;
    open(&answer.into_inner().url, options).await
}

impl StreamOptions {
    /// The runtime refuses a terminal with a stderr of its own.
    fn checked(self) -> StreamOptions {
        StreamOptions {
            stderr: self.stderr && !self.tty,
            ..self
        }
    }
}

impl StreamError {
    fn call(verb: &'static str, container_id: &str, status: tonic::Status) -> StreamError {
        StreamError::Call {
            verb,
            container: container_id.to_owned(),
            status: Box::new(status),
        }
    }
}

/// Opens the session that waits at `url`.
async fn open(url: &str, options: StreamOptions) -> Result<Session, StreamError> {
    let connecting = tokio::time::timeout(CONNECT_DEADLINE, connect(url));
    let (headers, connection) = connecting.await.map_err(|_| StreamError::Deadline)??;
    let protocol = headers
        .get(PROTOCOL_HEADER)
        .map_or(&b""[..], |name| name.as_bytes());
    Ok(Session::start(connection, protocol, options))
}

impl Session {
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

/// Connects to the streaming server and switches to SPDY; gives its headers and the connection.
async fn connect(
    url: &str,
) -> Result<(HeaderMap, hyper_util::rt::TokioIo<hyper::upgrade::Upgraded>), StreamError> {
    let bad_url = || StreamError::Url { url: url.to_owned() };
    let uri: Uri = url.parse().map_err(|_| bad_url())?;
    let authority = uri
        .authority()
        .filter(|_| uri.scheme_str() == Some("http"))
        .ok_or_else(bad_url)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::post(path)
        .header(HOST, authority.as_str())
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "SPDY/3.1")
        .header(PROTOCOL_HEADER, V4_CHANNEL);
    for older in OLDER_PROTOCOLS {
        request = request.header(PROTOCOL_HEADER, older);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|_| bad_url())?;

    let port = authority.port_u16().unwrap_or(80);
    let stream = connect_to(authority.host(), port)
        .await
        .map_err(|source| StreamError::Connect {
            address: authority.to_string(),
            source,
        })?;
    let (head, connection) = upgrade(stream, request).await?;
    Ok((head.headers, connection))
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
    use super::super::spdy::peer::Peer;
    use super::*;
    use crate::pod::streaming::exit_code;

    const OUTPUT: StreamOptions = StreamOptions {
        stdin: false,
        stdout: true,
        stderr: true,
        tty: false,
    };

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
            let error = open(url, OUTPUT).await.err().unwrap();
            assert!(matches!(error, StreamError::Url { .. }), "{url}: {error}");
        }
    }

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
