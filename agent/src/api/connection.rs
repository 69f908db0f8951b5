//! One client's connection. A client must read what it asked for: one that does not is dropped, and what was kept for
//! it with it. Only who reads a log, or is in a session (exec, attach, port-forward), may pause as long as it likes, as
//! under `less`: little is kept for it meanwhile.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};
use tokio_util::task::task_tracker::TaskTrackerToken;

/// How long a client may leave its connection full. One that takes a little each time is let be: its connection costs
/// no more than any other, and slow lines look the same.
const STALLED: Duration = Duration::from_secs(30);

/// How many clients watch.
pub(crate) type Watchers = prometheus::IntGauge;

/// Whether the client of a connection must read what it is sent; in the extensions of each request.
#[derive(Clone, Debug)]
pub(crate) struct ReadDuty {
    may_pause: Arc<AtomicBool>,
    watchers: Watchers,
}

impl ReadDuty {
    /// The client must read; where it watches, it is one of the `watchers`.
    pub(crate) fn counted_by(watchers: Watchers) -> ReadDuty {
        ReadDuty {
            may_pause: Arc::default(),
            watchers,
        }
    }

    /// A request has come: whatever the one before it was allowed, its client must read.
    pub(crate) fn begin(&self) {
        self.may_pause.store(false, Ordering::Relaxed);
    }

    /// From now on the client may pause, until its next request: what waits for it is little, also when the answer has
    /// ended and its last bytes are under way.
    pub(crate) fn lift(&self) {
        self.may_pause.store(true, Ordering::Relaxed);
    }

    /// Counts a watch, until what comes back is dropped.
    pub(crate) fn watching(&self) -> Watching {
        self.watchers.inc();
        Watching(self.watchers.clone())
    }

    fn may_pause(&self) -> bool {
        self.may_pause.load(Ordering::Relaxed)
    }
}

/// Held by the body of a watch.
#[derive(Debug)]
pub(crate) struct Watching(Watchers);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A place among the connections of a listener, which the shutdown waits for. The connection holds it, also in the session
/// that it is upgraded to, and so does a write that it has brought: that goes on when the client is gone. It is in the
/// extensions of each request.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    _held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    _permit: OwnedSemaphorePermit,
    _tracked: TaskTrackerToken,
}

impl Place {
    /// A place that is free, and that the shutdown waits for, when the last of those who hold it drops it.
    pub(crate) fn new(permit: OwnedSemaphorePermit, tracked: TaskTrackerToken) -> Place {
        let held = Held {
            _permit: permit,
            _tracked: tracked,
        };
        Place {
            _held: Arc::new(held),
        }
    }
}

/// A client's connection, which knows whether the client must read. It lives on in the session that a request
/// is upgraded to, and so does its place among the connections.
#[derive(Debug)]
pub(crate) struct Connection<S> {
    stream: S,
    duty: ReadDuty,
    /// Runs while the connection is full and the client should read.
    stalled: Option<Pin<Box<Sleep>>>,
    _place: Place,
}

impl<S> Connection<S> {
    /// A connection that holds `place` until it is closed.
    pub(crate) fn new(stream: S, duty: ReadDuty, place: Place) -> Connection<S> {
        Connection {
            stream,
            duty,
            stalled: None,
            _place: place,
        }
    }

    /// Lets a write wait, but not for ever.
    fn wait<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() || self.duty.may_pause() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALLED)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "a client does not read",
        )))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wait(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.wait(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TLS takes a record's worth of bytes in any case; whether they go out shows here.
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.wait(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A TLS connection says goodbye first, which a full one cannot take.
        let shut_down = Pin::new(&mut self.stream).poll_shutdown(context);
        self.wait(context, shut_down)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::sync::Semaphore;
    use tokio_util::task::TaskTracker;

    use super::*;

    fn duty() -> ReadDuty {
        ReadDuty::counted_by(Watchers::new("watchers", "Clients").expect("a gauge"))
    }

    async fn full_connection(
        duty: ReadDuty,
    ) -> (Connection<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(64);
        let place = Arc::new(Semaphore::new(1)).acquire_owned().await.expect("open");
        let place = Place::new(place, TaskTracker::new().token());
        let mut connection = Connection::new(ours, duty, place);
        connection.write_all(&[0; 64]).await.expect("fits");
        (connection, theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_dropped_whatever_it_asked_for() {
        for watches in [false, true] {
            let duty = duty();
            let (mut connection, _theirs) = full_connection(duty.clone()).await;
            let watch = watches.then(|| duty.watching());
            assert_eq!(duty.watchers.get(), i64::from(watches));
            // The end of a watch leaves its last bytes to be read.
            drop(watch);
            assert_eq!(duty.watchers.get(), 0);
            let error = connection.write_all(&[0; 64]).await.expect_err("dropped");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_a_log_may_pause_until_it_asks_for_something_else() {
        let duty = duty();
        let (mut connection, _theirs) = full_connection(duty.clone()).await;
        duty.lift();
        let day = Duration::from_secs(24 * 60 * 60);
        let paused = tokio::time::timeout(day, connection.write_all(&[0; 64])).await;
        assert!(paused.is_err());
        duty.begin();
        connection.write_all(&[0; 64]).await.expect_err("dropped");
    }
}
