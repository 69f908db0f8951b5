//! One client's connection. A client that watches must read: one that does not is dropped, so that it costs
//! nobody anything. (One that follows a log or is attached may pause as long as it likes, as under `less`.)

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

/// How long a client that watches may leave its connection full.
const STALLED: Duration = Duration::from_secs(30);

/// How many clients watch.
pub(crate) type Watchers = prometheus::IntGauge;

/// Whether the client of a connection must read what it is sent; in the extensions of each request.
#[derive(Clone, Debug)]
pub(crate) struct ReadDuty(Arc<Duty>);

#[derive(Debug)]
struct Duty {
    must_read: AtomicBool,
    watchers: Watchers,
}

impl ReadDuty {
    /// The client need not read yet; while it must, it is one of the `watchers`.
    pub(crate) fn counted_by(watchers: Watchers) -> ReadDuty {
        ReadDuty(Arc::new(Duty {
            must_read: AtomicBool::new(false),
            watchers,
        }))
    }

    /// From now on, until the answer is dropped, the client must read.
    pub(crate) fn begin(self) -> OnDuty {
        self.0.must_read.store(true, Ordering::Relaxed);
        self.0.watchers.inc();
        OnDuty(self)
    }

    fn must_read(&self) -> bool {
        self.0.must_read.load(Ordering::Relaxed)
    }
}

/// Held by the body of an answer that must be read.
#[derive(Debug)]
pub(crate) struct OnDuty(ReadDuty);

impl Drop for OnDuty {
    fn drop(&mut self) {
        let OnDuty(ReadDuty(duty)) = self;
        duty.must_read.store(false, Ordering::Relaxed);
        duty.watchers.dec();
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
    _place: (OwnedSemaphorePermit, TaskTrackerToken),
}

impl<S> Connection<S> {
    /// A connection that holds `place` until it is closed.
    pub(crate) fn new(
        stream: S,
        duty: ReadDuty,
        place: (OwnedSemaphorePermit, TaskTrackerToken),
    ) -> Connection<S> {
        Connection {
            stream,
            duty,
            stalled: None,
            _place: place,
        }
    }

    /// Lets a write wait, but not for ever.
    fn wait<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() || !self.duty.must_read() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALLED)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "a client that watches does not read",
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
        Pin::new(&mut self.stream).poll_shutdown(context)
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
        let mut connection = Connection::new(ours, duty, (place, TaskTracker::new().token()));
        connection.write_all(&[0; 64]).await.expect("fits");
        (connection, theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_watches_and_does_not_read_is_dropped() {
        let duty = duty();
        let (mut connection, _theirs) = full_connection(duty.clone()).await;
        let watchers = duty.0.watchers.clone();
        let watch = duty.begin();
        assert_eq!(watchers.get(), 1);
        let error = connection.write_all(&[0; 64]).await.expect_err("dropped");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(watch);
        assert_eq!(watchers.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_follows_a_log_may_pause() {
        let (mut connection, _theirs) = full_connection(duty()).await;
        let day = Duration::from_secs(24 * 60 * 60);
        assert!(
            tokio::time::timeout(day, connection.write_all(&[0; 64]))
                .await
                .is_err()
        );
    }
}
