//! The HTTP server on a Unix socket: who may connect, how many at once, and how it ends.

use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::connection::{Connection, ReadDuty};
use super::status::Failure;

/// The socket's name in the run folder.
pub(crate) const SOCKET: &str = "debuglet.sock";

/// How many connections are open at once; the next ones wait to be accepted. Sessions of attach and exec
/// count until they end.
const MAX_CONNECTIONS: usize = 2048;

/// How long a client may take for a request's head, and how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How many bytes of a connection are buffered in either direction: the largest head of a request (a command
/// to execute is in its path), and the most that a slow reader makes us hold.
const MAX_BUFFER_BYTES: usize = 128 * 1024;

/// How long requests that are under way at a shutdown may take to their end.
const DRAIN: Duration = Duration::from_secs(5);

/// How long to wait when no more connections can be accepted because the process has too many files open.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// Why the server does not listen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// The run folder cannot be made.
    #[error("cannot make the folder {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody answers on the socket.
    #[error("another process answers on {}", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is no socket lies there.
    #[error("{} is in the way: it is not a socket", path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The socket cannot be made.
    #[error("cannot listen on {}: {source}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A socket that is bound and not served yet.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: UnixListener,
    socket: PathBuf,
    /// The user whose processes may ask.
    allowed: u32,
}

impl Listener {
    /// Listens on the socket in `run_dir`, which is made if need be, for processes of the user `allowed`.
    /// A socket that was left behind is removed, but only if nobody answers on it.
    pub(crate) fn bind(run_dir: &Path, allowed: u32) -> Result<Listener, BindError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(run_dir)
            .map_err(|source| BindError::Folder {
                path: run_dir.to_owned(),
                source,
            })?;
        let socket = run_dir.join(SOCKET);
        remove_stale(&socket)?;
        let failed = |source| BindError::Listen {
            path: socket.clone(),
            source,
        };
        let listener = UnixListener::bind(&socket).map_err(failed)?;
        // Between these two calls others could connect, which is why the peer's user is what counts.
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Listener {
            listener,
            socket,
            allowed,
        })
    }

    /// Serves until `shutdown`; then no one is accepted any more, and what is under way gets a moment to end.
    pub(crate) async fn serve(self, router: Router, shutdown: CancellationToken) {
        let stranger = Router::new().fallback(async || Failure::forbidden("only root may use this socket"));
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = self.accept(&places) => accepted,
            };
            let (stream, place) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    sleep(ACCEPT_BACK_OFF).await;
                    continue;
                }
            };
            let router = match stream.peer_cred() {
                Ok(peer) if peer.uid() == self.allowed => router.clone(),
                _ => stranger.clone(),
            };
            let duty = ReadDuty::default();
            let stream = Connection::new(stream, duty.clone(), (place, connections.token()));
            connections.spawn(serve_connection(stream, duty, router, shutdown.clone()));
        }
        drop(self.listener);
        if let Err(error) = std::fs::remove_file(&self.socket) {
            tracing::debug!(%error, "the socket was gone already");
        }
        connections.close();
        if timeout(DRAIN, connections.wait()).await.is_err() {
            tracing::info!(connections = connections.len(), "some clients are cut off");
        }
    }

    async fn accept(&self, places: &Arc<Semaphore>) -> io::Result<(UnixStream, OwnedSemaphorePermit)> {
        let place = Arc::clone(places)
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let (stream, _) = self.listener.accept().await?;
        Ok((stream, place))
    }
}

fn remove_stale(socket: &Path) -> Result<(), BindError> {
    let path = || socket.to_owned();
    let failed = |source| BindError::Listen { path: path(), source };
    match std::fs::symlink_metadata(socket) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotASocket { path: path() });
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(socket) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(socket).map_err(failed)
        }
        Err(error) => Err(failed(error)),
        Ok(_) => Err(BindError::InUse { path: path() }),
    }
}

async fn serve_connection(
    stream: Connection<UnixStream>,
    duty: ReadDuty,
    router: Router,
    shutdown: CancellationToken,
) {
    let service = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(duty.clone());
        request
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match timeout(DRAIN, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}
