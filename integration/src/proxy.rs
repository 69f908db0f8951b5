//! Stands between the agent and containerd: passes every gRPC call through, whatever its service, and lets a
//! test hold one at a moment of its choice, answer it with an error, and count them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use crate::cri::Cri;
use crate::eventually::eventually;
use crate::process::Process;

/// When a call is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moment {
    /// Before containerd hears of it.
    Before,
    /// When containerd has answered, before the agent hears of it.
    After,
}

/// A proxy on a socket of its own; it ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    socket: PathBuf,
    rules: Rules,
    accepting: tokio::task::JoinHandle<()>,
    _relay: Process,
}

/// A call that waits in the proxy. It goes on when this is dropped.
#[derive(Debug)]
pub struct Held {
    release: oneshot::Sender<()>,
}

impl Held {
    /// Waits until whoever made the call is gone, and the call with it: it will never reach containerd, or its
    /// answer nobody.
    pub async fn abandoned(mut self) {
        self.release.closed().await;
    }
}

/// What a test has asked for, by the method's name.
#[derive(Clone, Debug, Default)]
struct Rules(Arc<Mutex<RulesInner>>);

#[derive(Debug, Default)]
struct RulesInner {
    counts: HashMap<String, usize>,
    holds: HashMap<(String, Moment), mpsc::UnboundedSender<Held>>,
    failures: HashMap<String, (i32, String)>,
}

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

impl Proxy {
    /// Listens on `outside` for calls to the runtime at `runtime`; `relay` brings it those that are made on `inside`.
    pub(crate) async fn start(inside: &Path, outside: &Path, runtime: &Path, relay: Process) -> Proxy {
        let listener = UnixListener::bind(outside).unwrap();
        let (rules, runtime) = (Rules::default(), runtime.to_path_buf());
        let shared = rules.clone();
        let accepting = tokio::spawn(async move {
            // Its end ends the connections with it.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, runtime.clone(), shared.clone()));
            }
        });
        eventually("the relay listens", async || UnixStream::connect(inside).await).await;
        Proxy {
            socket: inside.to_path_buf(),
            rules,
            accepting,
            _relay: relay,
        }
    }

    /// The socket to give to the agent.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A CRI connection through this proxy.
    pub fn cri(&self) -> Cri {
        Cri::connect_lazy(&self.socket)
    }

    /// How many calls of a method (`StartContainer`) there were.
    pub fn calls(&self, method: &str) -> usize {
        self.rules
            .0
            .lock()
            .unwrap()
            .counts
            .get(method)
            .copied()
            .unwrap_or(0)
    }

    /// The calls of every method, by its name.
    pub fn all_calls(&self) -> HashMap<String, usize> {
        self.rules.0.lock().unwrap().counts.clone()
    }

    /// Holds the calls of a method at a moment until [`Proxy::let_pass`]: each comes out of the receiver,
    /// and goes on when the `Held` is dropped.
    pub fn hold(&self, method: &str, moment: Moment) -> mpsc::UnboundedReceiver<Held> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.rules
            .0
            .lock()
            .unwrap()
            .holds
            .insert((method.to_owned(), moment), sender);
        receiver
    }

    /// Holds no call any more that comes from now on.
    pub fn let_pass(&self) {
        self.rules.0.lock().unwrap().holds.clear();
    }

    /// Answers the next call of a method with a gRPC status, without asking containerd.
    pub fn fail_once(&self, method: &str, code: tonic::Code, message: &str) {
        let failure = (code as i32, message.to_owned());
        self.rules
            .0
            .lock()
            .unwrap()
            .failures
            .insert(method.to_owned(), failure);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Rules {
    fn count(&self, method: &str) {
        *self
            .0
            .lock()
            .unwrap()
            .counts
            .entry(method.to_owned())
            .or_default() += 1;
    }

    fn failure(&self, method: &str) -> Option<(i32, String)> {
        self.0.lock().unwrap().failures.remove(method)
    }

    fn holds(&self, method: &str, moment: Moment) -> bool {
        self.0
            .lock()
            .unwrap()
            .holds
            .contains_key(&(method.to_owned(), moment))
    }

    /// Waits as long as a test holds this call.
    async fn pause(&self, method: &str, moment: Moment) {
        let (release, released) = oneshot::channel();
        let holder = self
            .0
            .lock()
            .unwrap()
            .holds
            .get(&(method.to_owned(), moment))
            .cloned();
        if let Some(holder) = holder
            && holder.send(Held { release }).is_ok()
        {
            // Ends with an error, as nothing is ever sent: the sender's end is the sign.
            let _ = released.await;
        }
    }
}

/// One connection of the agent's, over one of our own to the runtime.
async fn serve(stream: UnixStream, runtime: PathBuf, rules: Rules) {
    let upstream = Arc::new(tokio::sync::Mutex::new(None));
    let service = service_fn(move |request| {
        let (upstream, runtime, rules) = (upstream.clone(), runtime.clone(), rules.clone());
        async move { Ok::<_, Infallible>(forward(request, &upstream, &runtime, &rules).await) }
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service);
    // A killed agent breaks its connection; its calls end with it.
    let _ = connection.await;
}

async fn forward(
    request: Request<Incoming>,
    upstream: &tokio::sync::Mutex<Option<SendRequest<Incoming>>>,
    runtime: &Path,
    rules: &Rules,
) -> Response<Body> {
    let method = request
        .uri()
        .path()
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .to_owned();
    rules.count(&method);
    if let Some((code, message)) = rules.failure(&method) {
        return refusal(code, &message);
    }
    rules.pause(&method, Moment::Before).await;
    let answer = match connected(upstream, runtime).await {
        Ok(mut sender) => sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let response = match answer {
        Ok(response) => response,
        Err(message) => return refusal(tonic::Code::Unavailable as i32, &message),
    };
    let (head, body) = response.into_parts();
    if !rules.holds(&method, Moment::After) {
        return Response::from_parts(head, body.boxed_unsync());
    }
    // The whole answer first: containerd is done when its last frame is here.
    let frames = whole(body).await;
    rules.pause(&method, Moment::After).await;
    let frames = futures_util::stream::iter(frames).map(Ok::<_, hyper::Error>);
    Response::from_parts(head, StreamBody::new(frames).boxed_unsync())
}

/// A whole body, with its trailers, which hold gRPC's status.
async fn whole(mut body: Incoming) -> Vec<Frame<Bytes>> {
    let mut frames = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        frames.push(frame);
    }
    frames
}

async fn connected(
    upstream: &tokio::sync::Mutex<Option<SendRequest<Incoming>>>,
    runtime: &Path,
) -> std::io::Result<SendRequest<Incoming>> {
    let mut upstream = upstream.lock().await;
    if let Some(sender) = upstream.as_ref().filter(|sender| !sender.is_closed()) {
        return Ok(sender.clone());
    }
    let stream = tokio::time::timeout(Duration::from_secs(5), UnixStream::connect(runtime)).await??;
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
    tokio::spawn(connection);
    *upstream = Some(sender.clone());
    Ok(sender)
}

/// An answer that is nothing but a gRPC status.
fn refusal(code: i32, message: &str) -> Response<Body> {
    Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", code)
        .header("grpc-message", percent_encoded(message))
        .body(
            Empty::new()
                .map_err(|never: Infallible| match never {})
                .boxed_unsync(),
        )
        .unwrap()
}

/// gRPC's form of a message in a header.
fn percent_encoded(message: &str) -> String {
    message
        .bytes()
        .map(|byte| match byte {
            b' '..=b'~' if byte != b'%' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
