//! Every method over a socket that takes calls and never answers.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use tokio::net::UnixListener;
use tonic::Status;

use super::super::call_limits::METHODS;
use super::super::client::Runtime;
use super::super::error::is_silence;
use super::*;

const LIMIT: Duration = Duration::from_secs(2);

/// A socket whose backlog takes every connection.
struct Silent {
    runtime: Runtime,
    shutdown: CancellationToken,
    _listener: UnixListener,
    _folder: tempfile::TempDir,
}

impl Silent {
    fn new() -> Silent {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("runtime.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let shutdown = CancellationToken::new();
        Silent {
            runtime: Runtime::connect_lazy(&socket, CallLimits::new(LIMIT), shutdown.clone()),
            shutdown,
            _listener: listener,
            _folder: folder,
        }
    }

    async fn call(&self, path: &str) -> Result<Response<Body>, Status> {
        let request = Request::post(format!("http://runtime{path}"));
        let request = request.body(Body::empty()).unwrap();
        let answer = self.runtime.channel().call(request).await;
        answer.map_err(|error| *error.downcast::<Status>().unwrap())
    }
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

#[tokio::test(start_paused = true)]
async fn each_method_with_a_limit_is_given_up_and_shown_and_no_other() {
    let silent = Silent::new();
    let mut waited_for = BTreeSet::new();
    for method in METHODS {
        match tokio::time::timeout(10 * LIMIT, silent.call(method.path)).await {
            Ok(answer) => {
                let status = answer.unwrap_err();
                assert!(is_silence(&status), "{}: {status:?}", method.path);
                let shown = silent.runtime.unanswered().all();
                let shown = shown.keys().any(|call| call.method == name(method.path));
                assert!(shown, "{}: {:?}", method.path, silent.runtime.unanswered());
            }
            Err(_) => drop(waited_for.insert(name(method.path))),
        }
    }
    let expected = [
        "CreateContainer",
        "GetContainerEvents",
        "PullImage",
        "StartContainer",
        "Subscribe",
    ];
    assert_eq!(waited_for, BTreeSet::from(expected));
}

#[tokio::test(start_paused = true)]
async fn what_must_not_be_cut_short_is_shown_while_it_takes_long() {
    let silent = Silent::new();
    for method in METHODS.iter().filter(|method| method.limit == Limit::Never) {
        let mut call = pin!(silent.call(method.path));
        let ended = tokio::time::timeout(LIMIT / 2, &mut call).await;
        assert!(ended.is_err() && silent.runtime.unanswered().all().is_empty());
        assert!(tokio::time::timeout(LIMIT, &mut call).await.is_err());
        let shown = silent.runtime.unanswered().all();
        let (call, silence) = shown.first_key_value().unwrap();
        assert!(call.method == name(method.path) && silence.goes_on, "{shown:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_has_ended_in_whatever_way_is_not_shown_as_one_that_goes_on() {
    let silent = Silent::new();
    let call = silent.call("/runtime.v1.RuntimeService/StartContainer");
    assert!(tokio::time::timeout(2 * LIMIT, call).await.is_err());
    assert!(silent.runtime.unanswered().all().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_shutdown_ends_every_call_but_those_that_must_not_be_cut_short() {
    let silent = Silent::new();
    let mut waited_for = BTreeSet::new();
    for method in METHODS {
        let call = async {
            let (answer, ()) = tokio::join!(silent.call(method.path), async {
                tokio::time::sleep(LIMIT / 2).await;
                silent.shutdown.cancel();
            });
            answer
        };
        match tokio::time::timeout(10 * LIMIT, call).await {
            Ok(answer) => {
                let status = answer.unwrap_err();
                assert!(!is_silence(&status), "{}: {status:?}", method.path);
                assert_eq!(status.message(), "debuglet stops", "{}", method.path);
            }
            Err(_) => drop(waited_for.insert(name(method.path))),
        }
    }
    assert_eq!(waited_for, BTreeSet::from(["CreateContainer", "StartContainer"]));
}

#[tokio::test(start_paused = true)]
async fn a_client_is_waited_for_no_longer_than_it_waits() {
    let mut silent = Silent::new();
    let limits = CallLimits::default();
    silent.runtime =
        Runtime::connect_lazy(silent.runtime.socket(), limits, CancellationToken::new()).for_clients();
    let begun = tokio::time::Instant::now();
    let status = silent.call("/runtime.v1.RuntimeService/Exec").await.unwrap_err();
    assert!(
        is_silence(&status) && begun.elapsed() < Duration::from_secs(10),
        "{status:?}"
    );
}

#[tokio::test]
async fn an_answer_without_end_is_an_error_and_is_not_gathered() {
    let sent = Arc::new(AtomicUsize::new(0));
    let frames = |count: usize| {
        let sent = sent.clone();
        let frames = (0..count).map(move |_| {
            sent.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Status>(Frame::data(Bytes::from_static(&[0; 64 * 1024])))
        });
        Body::new(StreamBody::new(tokio_stream::iter(frames)))
    };
    let fits = LONGEST_ANSWER_BYTES / (64 * 1024);
    let whole = gathered(frames(fits)).await.unwrap().collect().await.unwrap();
    assert_eq!(whole.to_bytes().len(), LONGEST_ANSWER_BYTES);
    sent.store(0, Ordering::Relaxed);
    assert!(gathered(frames(usize::MAX)).await.is_err());
    assert!(sent.load(Ordering::Relaxed) <= fits + 1);
}
