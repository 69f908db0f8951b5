//! What ends a stream that does not end by itself: the shutdown, and for a user of the cluster the end of the rights that it
//! was opened with. A stream is everything that may last: a session (exec, attach, port-forward), a watch, a log.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::StreamExt;
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How often the rights to a stream are asked about anew: for as long a right that was taken away goes on, and for as long
/// as the answer about it is remembered.
const RECHECK: Duration = Duration::from_secs(30);

/// How long a stream goes on while nobody can be asked about its rights.
const UNCHECKED: Duration = Duration::from_secs(10 * 60);

/// Whether the rights to a stream are still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// They are.
    Granted,
    /// They are not.
    Lost,
    /// Nobody can be asked.
    Unknown,
}

/// The end of one stream; in the extensions of each request. Whoever serves the stream holds it as long as that lasts.
#[derive(Clone, Debug)]
pub(super) struct StreamEnd {
    shutdown: CancellationToken,
    /// Cancelled with `shutdown`, and when the rights are gone.
    end: CancellationToken,
    /// Cancelled when nobody holds the stream any more.
    over: CancellationToken,
    _held: Arc<DropGuard>,
}

impl StreamEnd {
    /// The end of a stream that lasts until `shutdown` at most.
    pub(super) fn new(shutdown: &CancellationToken) -> StreamEnd {
        let over = CancellationToken::new();
        StreamEnd {
            shutdown: shutdown.clone(),
            end: shutdown.child_token(),
            _held: Arc::new(over.clone().drop_guard()),
            over,
        }
    }

    /// Returns once the stream is to end.
    pub(super) async fn reached(&self) {
        self.end.cancelled().await;
    }

    /// Why it is to end, as its client is told.
    pub(super) fn reason(&self) -> &'static str {
        match self.shutdown.is_cancelled() {
            true => "the agent is shutting down",
            false => "the right to this is gone, or can no longer be checked",
        }
    }

    /// The answer, which ends with the rights if it is a stream: `standing` is asked about them.
    pub(super) fn bind<F: Future<Output = Standing> + Send>(
        self,
        response: Response,
        standing: impl FnMut() -> F + Send + 'static,
    ) -> Response {
        let is_session = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if !is_session && response.body().size_hint().exact().is_some() {
            return response;
        }
        // The task ends with the stream. Should it fail, the stream ends with it: nobody would ask any more.
        let (ended, over) = (self.end.clone().drop_guard(), self.over.clone());
        tokio::spawn(async move {
            let _ended = ended;
            over.run_until_cancelled(lost(standing)).await;
        });
        if is_session {
            return response;
        }
        let end = async move { self.reached().await };
        response.map(|body| Body::from_stream(body.into_data_stream().take_until(Box::pin(end))))
    }
}

/// Returns once the rights are lost, or could not be asked about for too long.
async fn lost<F: Future<Output = Standing>>(mut standing: impl FnMut() -> F) {
    let mut granted = Instant::now();
    loop {
        sleep(RECHECK).await;
        match standing().await {
            Standing::Granted => granted = Instant::now(),
            Standing::Lost => return,
            Standing::Unknown if granted.elapsed() >= UNCHECKED => return,
            Standing::Unknown => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::body::Bytes;
    use futures_util::stream;
    use http_body_util::BodyExt;
    use tokio::time::timeout;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn endless() -> Response {
        let lines = stream::once(async { Bytes::from_static(b"line\n") }).chain(stream::pending());
        Response::new(Body::from_stream(lines.map(Ok::<_, std::convert::Infallible>)))
    }

    /// Gives these answers, and then that the rights are there.
    fn told(
        standings: Vec<Standing>,
    ) -> (
        Arc<Mutex<usize>>,
        impl FnMut() -> std::future::Ready<Standing> + Send,
    ) {
        let asked = Arc::new(Mutex::new(0));
        let count = Arc::clone(&asked);
        let mut standings = standings.into_iter();
        let next = move || {
            *count.lock().unwrap() += 1;
            std::future::ready(standings.next().unwrap_or(Standing::Granted))
        };
        (asked, next)
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_its_rights_are_lost_or_cannot_be_asked_about_for_long() {
        use Standing::{Granted, Lost, Unknown};
        for (standings, asked_before_the_end) in [
            (vec![Granted, Granted, Lost], Some(3)),
            (vec![Unknown, Granted, Lost], Some(3)),
            (vec![Unknown; 100], Some(20)),
            (vec![Unknown; 19], None),
            (vec![], None),
        ] {
            let what = format!("{standings:?}");
            let end = StreamEnd::new(&CancellationToken::new());
            let (asked, standing) = told(standings);
            let response = end.bind(endless(), standing);
            let body = timeout(DAY, response.into_body().collect()).await;
            assert_eq!(body.is_ok(), asked_before_the_end.is_some(), "{what}");
            if let (Ok(body), Some(expected)) = (body, asked_before_the_end) {
                assert_eq!(body.expect("a whole body").to_bytes(), "line\n", "{what}");
                assert_eq!(*asked.lock().unwrap(), expected, "{what}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_with_its_rights_and_is_asked_about_no_more_when_it_is_over() {
        let session = || {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response
        };
        let end = StreamEnd::new(&CancellationToken::new());
        let held = end.clone();
        let (_, standing) = told(vec![Standing::Lost]);
        drop(end.bind(session(), standing));
        timeout(DAY, held.reached()).await.expect("it ends");
        assert!(held.reason().contains("right"), "{}", held.reason());

        let end = StreamEnd::new(&CancellationToken::new());
        let (asked, standing) = told(vec![]);
        drop(end.bind(session(), standing));
        sleep(DAY).await;
        assert_eq!(*asked.lock().unwrap(), 0, "nobody holds it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_whole_answer_is_left_as_it_is_and_a_shutdown_ends_a_stream() {
        let shutdown = CancellationToken::new();
        let end = StreamEnd::new(&shutdown);
        let (asked, standing) = told(vec![Standing::Lost]);
        let whole = end.bind(Response::new(Body::from("whole")), standing);
        sleep(DAY).await;
        assert_eq!(whole.into_body().collect().await.unwrap().to_bytes(), "whole");
        assert_eq!(*asked.lock().unwrap(), 0);

        let end = StreamEnd::new(&shutdown);
        let (_, standing) = told(vec![]);
        let response = end.clone().bind(endless(), standing);
        shutdown.cancel();
        let body = timeout(DAY, response.into_body().collect()).await;
        assert!(body.expect("it ends").is_ok(), "and not amid a chunk");
        assert_eq!(end.reason(), "the agent is shutting down");
    }
}
