//! The API on TCP, with TLS and client certificates, or bearer tokens where the configuration takes them. Its trouble is its own: where the port is taken or the
//! certificates cannot be kept, the Unix socket goes on, and this is tried again.

mod strangers;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{CommonState, ServerConfig};
use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, interval_at, sleep, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::access::Arrival;
use super::certificates::{self, CertificateError, Certificates, provider};
use super::clock::Clocks;
use super::identity::Identity;
use super::kubeconfig::{self, KUBECONFIG, reachable};
use super::server::{ACCEPT_BACK_OFF, Peer, Server, places};
use super::status::Failure;
use crate::store::Store;
use strangers::{Stranger, Strangers};

/// How long somebody who is not known yet may take: for the handshake, and where no certificate came with it, for the
/// request that is answered with 401.
const STRANGER_TIMEOUT: Duration = Duration::from_secs(10);

/// How many connections may be unknown at once; the next ones wait. A few: handshakes are work, and many at once all
/// take long.
const MAX_STRANGERS: usize = 64;

/// How many connections wait in the kernel until they are accepted, at most (it may have a lower limit of its own):
/// all who come back at once after a restart.
const BACKLOG: u32 = 4096;

/// How often it is looked at whether a certificate is to be made anew.
const RENEWAL: Duration = Duration::from_secs(60 * 60);

/// How often it is looked at whether the clock was set: that changes what is left of a certificate's life at once.
const CLOCK_LOOK: Duration = Duration::from_secs(60);

/// How long it waits before it tries again to listen: at first, and at most.
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(60);

/// How much TLS may hold for a client that does not read, in bytes: one record.
const TLS_BUFFER_BYTES: usize = 16 * 1024;

/// Why it does not listen.
#[derive(Debug, thiserror::Error)]
enum ListenError {
    #[error("cannot listen on {listen}: {source}")]
    Bind { listen: SocketAddr, source: io::Error },
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    #[error("cannot write {}: {source}", path.display())]
    Kubeconfig { path: PathBuf, source: io::Error },
    #[error("the agent is shutting down")]
    ShuttingDown,
}

/// Where to listen, and where its files are.
#[derive(Clone, Debug)]
pub(crate) struct TlsListener {
    /// The address and port; port 0 takes a free one.
    pub(crate) listen: SocketAddr,
    /// The folder of the certificates.
    pub(crate) pki_dir: PathBuf,
    /// The folder of the kubeconfig.
    pub(crate) run_dir: PathBuf,
    /// The node's name, which is one of the server's.
    pub(crate) node_name: String,
}

/// Listening, and what to greet clients with.
struct Open {
    socket: TcpListener,
    acceptor: TlsAcceptor,
    /// As they were before the certificates were looked at: they may be set before anybody is served.
    clocks: Clocks,
}

/// A [`TlsListener`] and what came of its first attempt to listen: the kubeconfig is written and connections wait to be
/// accepted, or not, and it is tried again while it is served.
pub(super) struct BoundTls {
    listener: TlsListener,
    first: Result<Open, ListenError>,
}

impl BoundTls {
    /// Says in the node report of `store` what came of the first attempt.
    pub(super) fn report(&self, store: &Store) {
        self.listener.report(store, &self.first);
    }

    /// Serves until the server's shutdown. Whether it listens is in the node report of `store`.
    pub(super) async fn serve(self, server: Arc<Server>, store: &Store) {
        let BoundTls { listener, first } = self;
        let mut attempt = first;
        let mut back_off = FIRST_BACK_OFF;
        let mut told = String::new();
        loop {
            listener.report(store, &attempt);
            match attempt {
                Ok(open) => return listener.accept_all(open, &server).await,
                Err(error) => {
                    let message = error.to_string();
                    if message != told {
                        tracing::warn!("no API over TLS: {message}; it is tried again");
                    }
                    told = message;
                }
            }
            let pause = server.shutdown().run_until_cancelled(sleep(back_off));
            if pause.await.is_none() {
                return;
            }
            back_off = (back_off * 2).min(LONGEST_BACK_OFF);
            attempt = listener.open().await;
        }
    }
}

impl TlsListener {
    /// Tries to listen, once.
    pub(super) async fn bind(self) -> BoundTls {
        let first = self.open().await;
        BoundTls {
            listener: self,
            first,
        }
    }

    fn report(&self, store: &Store, attempt: &Result<Open, ListenError>) {
        let listening = match attempt {
            Ok(open) => open.socket.local_addr().unwrap_or(self.listen),
            Err(_) => self.listen,
        };
        store.report_node(|report| {
            report.api.listen = format!("https://{}", reachable(listening));
            report.api.kubeconfig = self.run_dir.join(KUBECONFIG).display().to_string();
            report.api.ready = attempt.is_ok();
            report.api.message = attempt
                .as_ref()
                .err()
                .map(ToString::to_string)
                .unwrap_or_default();
        });
    }

    /// Takes the port, writes the kubeconfig, and only then lets clients connect: whoever reaches the port finds the file
    /// that says how to get in.
    async fn open(&self) -> Result<Open, ListenError> {
        let failed = |source| ListenError::Bind {
            listen: self.listen,
            source,
        };
        let socket = match self.listen {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        };
        let socket = socket.map_err(failed)?;
        // What is left of an earlier process's connections does not hold the port.
        socket.set_reuseaddr(true).map_err(failed)?;
        socket.bind(self.listen).map_err(failed)?;
        let clocks = Clocks::now();
        let acceptor = self.prepare(socket.local_addr().map_err(failed)?).await?;
        let socket = socket.listen(BACKLOG).map_err(failed)?;
        tracing::info!(
            "the API listens on https://{}",
            socket.local_addr().unwrap_or(self.listen)
        );
        Ok(Open {
            socket,
            acceptor,
            clocks,
        })
    }

    /// Has certificates that are good for a while, tells root how to connect, and answers how to greet clients.
    async fn prepare(&self, listening: SocketAddr) -> Result<TlsAcceptor, ListenError> {
        let this = self.clone();
        let prepared = tokio::task::spawn_blocking(move || {
            let certificates =
                certificates::ensure(&this.pki_dir, &this.names(listening), OffsetDateTime::now_utc())?;
            kubeconfig::write(&this.run_dir, &certificates, listening).map_err(|source| {
                ListenError::Kubeconfig {
                    path: this.run_dir.join(KUBECONFIG),
                    source,
                }
            })?;
            Ok(tls_acceptor(&certificates)?)
        });
        prepared.await.map_err(|_| ListenError::ShuttingDown)?
    }

    /// By which names and addresses it is reached.
    fn names(&self, listening: SocketAddr) -> Vec<String> {
        let mut names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        for name in [self.node_name.clone(), reachable(listening).ip().to_string()] {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    async fn accept_all(&self, open: Open, server: &Arc<Server>) {
        let Open {
            socket,
            mut acceptor,
            mut clocks,
        } = open;
        let listening = socket.local_addr().unwrap_or(self.listen);
        let places = places();
        let mut strangers = Strangers::new(MAX_STRANGERS);
        let mut renewals = interval_at(Instant::now() + RENEWAL, RENEWAL);
        let mut clock_looks = interval_at(Instant::now() + CLOCK_LOOK, CLOCK_LOOK);
        loop {
            let accepted = tokio::select! {
                () = server.shutdown().cancelled() => return,
                _ = clock_looks.tick() => {
                    let now = Clocks::now();
                    if now.were_set_since(&clocks) {
                        renewals.reset_immediately();
                    }
                    clocks = now;
                    continue;
                }
                _ = renewals.tick() => {
                    match self.prepare(listening).await {
                        Ok(prepared) => acceptor = prepared,
                        Err(error) => tracing::warn!("the API's certificates could not be looked after: {error}"),
                    }
                    continue;
                }
                accepted = accept(&socket, &places, &mut strangers) => accepted,
            };
            match accepted {
                Ok((stream, place, stranger)) => {
                    let (acceptor, serving) = (acceptor.clone(), Arc::clone(server));
                    server.spawn(async move { greet(stream, place, acceptor, stranger, &serving).await });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    sleep(ACCEPT_BACK_OFF).await;
                }
            }
        }
    }
}

/// The next connection, once there is room for it: until then it waits in the kernel.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    strangers: &mut Strangers,
) -> io::Result<(TcpStream, OwnedSemaphorePermit, Stranger)> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let room = strangers.room().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place, strangers.admit(room)))
}

/// Finds out who is there, and serves whom it knows; a stranger gets one answer, and not much time for it. Where tokens
/// are taken, who has no certificate is a stranger until one of its requests has brought a good one.
async fn greet(
    stream: TcpStream,
    place: OwnedSemaphorePermit,
    acceptor: TlsAcceptor,
    stranger: Stranger,
    server: &Server,
) {
    let deadline = Instant::now() + STRANGER_TIMEOUT;
    if let Err(error) = prepare_socket(&stream) {
        tracing::debug!(%error, "a connection broke");
    }
    let handshake = acceptor.accept_with(stream, |connection| {
        connection.set_buffer_limit(Some(TLS_BUFFER_BYTES));
    });
    let handshake = timeout_at(deadline, handshake);
    let stream = match stranger.run_until_dismissed(Box::pin(handshake)).await {
        Some(Ok(Ok(stream))) => stream,
        Some(Ok(Err(error))) => return tracing::debug!(%error, "a TLS handshake failed"),
        Some(Err(_)) | None => return tracing::debug!("a TLS handshake was not finished in time"),
    };
    match identity(stream.get_ref().1) {
        Some(identity) => {
            drop(stranger);
            server.serve(stream, Peer::Known(identity), place).await;
        }
        None if server.takes_tokens => {
            let arrival = Arrival::default();
            let mut serving = pin!(server.serve(stream, Peer::WithToken(arrival.clone()), place));
            let known = timeout_at(deadline, arrival.known());
            tokio::select! {
                () = serving.as_mut() => return,
                known = stranger.run_until_dismissed(known) => match known {
                    Some(Ok(())) => drop(stranger),
                    Some(Err(_)) | None => return tracing::debug!("a client did not say in time who it is"),
                },
            }
            serving.await;
        }
        None => {
            let refusal =
                Failure::unauthorized("a client certificate is needed; root's is in its kubeconfig");
            let answered = timeout_at(deadline, server.serve(stream, Peer::Refused(refusal), place));
            let _ = stranger.run_until_dismissed(Box::pin(answered)).await;
        }
    }
}

/// Whose certificate it was; TLS has verified it.
fn identity(connection: &CommonState) -> Option<Identity> {
    Identity::of_certificate(connection.peer_certificates()?.first()?)
}

/// What is sent is sent at once, and a watcher whose machine went away does not keep its place for ever.
fn prepare_socket(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    Ok(())
}

/// TLS 1.2 and 1.3, with client certificates of our own authority where there are any: who has none is told so in
/// HTTP, who has another's is turned away.
fn tls_acceptor(certificates: &Certificates) -> Result<TlsAcceptor, CertificateError> {
    let failed = |error: &dyn std::fmt::Display| CertificateError::Tls(error.to_string());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&certificates.roots), provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| failed(&error))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| failed(&error))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&certificates.server))));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Nothing is kept for a client that comes back: a new handshake costs less than its memory, and looks at the
    // certificate again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests;
