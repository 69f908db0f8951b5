//! The HTTP server: what every connection gets, whichever way it came, and how it ends.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::access::Arrival;
use super::connection::{Connection, Place, ReadDuty, Watchers};
use super::identity::Identity;
use super::status::Failure;

/// How many connections a listener has open at once; the next ones wait to be accepted. Sessions of attach and exec
/// count until they end. Each listener has places of its own: whoever takes all of one leaves the other free.
const MAX_CONNECTIONS: usize = 2048;

/// How long a client may take for a request's head, and how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How many header fields a request may have.
const MAX_HEADERS: usize = 100;

/// How many bytes of a connection are buffered in either direction: the largest head of a request (a command
/// to execute is in its path), and the most that a slow reader makes us hold.
const MAX_BUFFER_BYTES: usize = 128 * 1024;

/// How long requests that are under way at a shutdown may take to their end.
const DRAIN: Duration = Duration::from_secs(5);

/// How long a listener waits when no more connections can be accepted because the process has too many files open.
pub(super) const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// The places of one listener's connections.
pub(super) fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MAX_CONNECTIONS))
}

/// Whose connection it is.
pub(super) enum Peer {
    /// Somebody whom this node lets in.
    Known(Identity),
    /// Somebody whose requests say who it is; told when one of them was believed.
    WithToken(Arrival),
    /// Nobody who is let in: gets this one answer.
    Refused(Failure),
}

/// What the listeners hand their connections to.
#[derive(Debug)]
pub(super) struct Server {
    router: Router,
    connections: TaskTracker,
    watchers: Watchers,
    /// Whether requests may say by a token whose they are.
    pub(super) takes_tokens: bool,
    shutdown: CancellationToken,
}

impl Server {
    /// Serves `router` until `shutdown`; the watches are counted in `watchers`.
    pub(super) fn new(
        router: Router,
        watchers: Watchers,
        takes_tokens: bool,
        shutdown: CancellationToken,
    ) -> Arc<Server> {
        Arc::new(Server {
            router,
            connections: TaskTracker::new(),
            watchers,
            takes_tokens,
            shutdown,
        })
    }

    /// Told when nobody is to be accepted any more.
    pub(super) fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// Does `work` for a connection in a task of its own, which the shutdown waits for.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.connections.spawn(work);
    }

    /// Serves one connection to its end, for the `peer` who is let in or is to say who it is, or with the one answer that
    /// a stranger gets. The connection keeps its `place` as long as it is open, also in a session that it is upgraded to, and
    /// as long as a write that it has brought is under way.
    pub(super) async fn serve<S>(&self, stream: S, peer: Peer, place: OwnedSemaphorePermit)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let duty = ReadDuty::counted_by(self.watchers.clone());
        let place = Place::new(place, self.connections.token());
        let stream = Connection::new(stream, duty.clone(), place.clone());
        let known = !matches!(peer, Peer::Refused(_));
        let (router, identity, arrival) = match peer {
            Peer::Known(identity) => (self.router.clone(), Some(identity), None),
            Peer::WithToken(arrival) => (self.router.clone(), None, Some(arrival)),
            Peer::Refused(refusal) => {
                let answer = Router::new().fallback(async move || refusal.clone());
                (answer, None, None)
            }
        };
        let session = duty.clone();
        let service = router.map_request(move |mut request: Request<Incoming>| {
            duty.begin();
            let extensions = request.extensions_mut();
            extensions.insert(duty.clone());
            extensions.insert(place.clone());
            if let Some(identity) = &identity {
                extensions.insert(identity.clone());
            }
            if let Some(arrival) = &arrival {
                extensions.insert(arrival.clone());
            }
            request
        });
        let service = service.map_response(move |response: Response| {
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                session.lift();
            }
            response
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_BUFFER_BYTES)
            // A stranger has its answer, and nothing more to ask.
            .keep_alive(known)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
            .with_upgrades();
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.shutdown.cancelled() => {
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

    /// Waits a moment for what is under way, once the listeners have ended.
    pub(super) async fn drain(&self) {
        self.connections.close();
        if timeout(DRAIN, self.connections.wait()).await.is_err() {
            tracing::info!(connections = self.connections.len(), "some clients are cut off");
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::Extension;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;

    use super::*;

    /// Far more than fits into a connection.
    const ANSWER_BYTES: usize = 8 * 1024 * 1024;

    /// A client that has asked for `path`, and what serves it.
    async fn asked(path: &str) -> (DuplexStream, JoinHandle<()>) {
        let router = Router::new()
            .route("/whole", get(async || vec![b'x'; ANSWER_BYTES]))
            .route(
                "/log",
                get(async |Extension(duty): Extension<ReadDuty>| {
                    duty.lift();
                    vec![b'x'; ANSWER_BYTES]
                }),
            )
            .route(
                "/session",
                get(async |mut request: Request| {
                    let upgrade = hyper::upgrade::on(&mut request);
                    tokio::spawn(async move {
                        let mut client = TokioIo::new(upgrade.await.expect("upgraded"));
                        let _ = client.write_all(&[b'x'; ANSWER_BYTES]).await;
                    });
                    let mut response = Response::new(Body::empty());
                    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                    response
                }),
            );
        let watchers = Watchers::new("watchers", "Clients").expect("a gauge");
        let server = Server::new(router, watchers, false, CancellationToken::new());
        let (mut client, stream) = duplex(1024);
        let place = places().acquire_owned().await.expect("a place");
        let tracked = Arc::clone(&server);
        tokio::spawn(async move { tracked.serve(stream, Peer::Known(Identity::root()), place).await });
        let upgrade = "connection: upgrade\r\nupgrade: x\r\n";
        let request = format!("GET {path} HTTP/1.1\r\nhost: node\r\n{upgrade}\r\n");
        client.write_all(request.as_bytes()).await.expect("sent");
        // Sessions too end with the connection.
        let gone = tokio::spawn(async move {
            server.connections.close();
            server.connections.wait().await;
        });
        (client, gone)
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_an_answer_is_dropped_with_it_and_who_reads_a_log_or_is_in_a_session_is_not() {
        let day = Duration::from_secs(24 * 60 * 60);
        for (path, is_dropped) in [("/whole", true), ("/log", false), ("/session", false)] {
            let (mut client, gone) = asked(path).await;
            let dropped = timeout(day, gone).await.is_ok();
            assert_eq!(dropped, is_dropped, "{path}");
            let mut read = vec![0; ANSWER_BYTES / 2];
            let rest = client.read_exact(&mut read).await;
            assert_eq!(rest.is_err(), is_dropped, "{path}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_a_little_each_time_has_the_whole_answer_in_the_end() {
        let (mut client, _gone) = asked("/whole").await;
        let mut read = vec![0; ANSWER_BYTES / 64];
        for _ in 0..64 {
            tokio::time::sleep(Duration::from_secs(20)).await;
            client.read_exact(&mut read).await.expect("not dropped");
        }
    }
}
