//! The API on a Unix socket: for root, and for the members of a group where the configuration names one.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::{Gid, Uid, chown};
use tokio::net::{UnixListener as Socket, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use super::identity::Identity;
use super::server::{ACCEPT_BACK_OFF, Peer, Server, places};
use super::status::Failure;

/// The socket's name in the run folder.
pub(crate) const SOCKET: &str = "debuglet.sock";

/// Where in the run folder the socket is made, before it has its owner and mode. Short: so is the longest path that
/// a socket may have.
const WORKSHOP: &str = "new";

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
pub(crate) struct UnixListener {
    listener: Socket,
    socket: PathBuf,
    group: Option<Gid>,
}

impl UnixListener {
    /// Listens on the socket in `run_dir`, which is made if need be, for root and the members of `group`. A socket
    /// that was left behind is removed, but only if nobody answers on it.
    pub(crate) fn bind(run_dir: &Path, group: Option<Gid>) -> Result<UnixListener, BindError> {
        make_folder(run_dir, 0o755)?;
        let socket = run_dir.join(SOCKET);
        remove_stale(&socket)?;
        let workshop = run_dir.join(WORKSHOP);
        make_folder(&workshop, 0o700)?;
        let listener = make(&workshop, &socket, group).map_err(|source| BindError::Listen {
            path: socket.clone(),
            source,
        })?;
        Ok(UnixListener {
            listener,
            socket,
            group,
        })
    }

    /// Serves until the server's shutdown; then nobody is accepted any more.
    #[expect(
        clippy::disallowed_methods,
        reason = "the run folder is root's alone, and this is done once, at start or end"
    )]
    pub(super) async fn serve(self, server: Arc<Server>) {
        let places = places();
        loop {
            let accepted = tokio::select! {
                () = server.shutdown().cancelled() => break,
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
            let identity = stream
                .peer_cred()
                .ok()
                .and_then(|peer| Identity::of_process(Uid::from_raw(peer.uid()), self.group));
            let peer = match identity {
                Some(identity) => Peer::Known(identity),
                None => Peer::Refused(Failure::forbidden("only root may use this socket")),
            };
            let serving = Arc::clone(&server);
            server.spawn(async move { serving.serve(stream, peer, place).await });
        }
        drop(self.listener);
        if let Err(error) = std::fs::remove_file(&self.socket) {
            tracing::debug!(%error, "the socket was gone already");
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

#[expect(
    clippy::disallowed_methods,
    reason = "the run folder is root's alone, and this is done once, at start or end"
)]
fn make_folder(path: &Path, mode: u32) -> Result<(), BindError> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|source| BindError::Folder {
            path: path.to_owned(),
            source,
        })
}

/// Makes the socket where nobody else can come, and gives it its place once its mode says who may connect. The mode is
/// what lets members of the group in: it counts supplementary groups too, which a peer's credentials do not name.
#[expect(
    clippy::disallowed_methods,
    reason = "the run folder is root's alone, and this is done once, at start or end"
)]
fn make(workshop: &Path, socket: &Path, group: Option<Gid>) -> io::Result<Socket> {
    std::fs::set_permissions(workshop, Permissions::from_mode(0o700))?;
    let unfinished = workshop.join("s");
    crate::durable_file::remove_if_there(&unfinished)?;
    let listener = Socket::bind(&unfinished)?;
    let mode = match group {
        Some(group) => {
            chown(&unfinished, None, Some(group))?;
            0o660
        }
        None => 0o600,
    };
    std::fs::set_permissions(&unfinished, Permissions::from_mode(mode))?;
    std::fs::rename(&unfinished, socket)?;
    std::fs::remove_dir(workshop)?;
    Ok(listener)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the run folder is root's alone, and this is done once, at start or end"
)]
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

#[cfg(test)]
mod tests;
