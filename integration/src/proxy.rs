//! Stands between the agent and containerd: passes every gRPC call through, whatever its service, and lets a
//! test hold one at a moment of its choice, never answer it, answer it with an error, and count them.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use debuglet_proto::v1::{
    ContainerMetadata, ContainerState, ContainerStatusResponse, FilesystemIdentifier, ImageFsInfoResponse,
    ListContainersResponse,
};
use futures_util::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};

use crate::cri::Cri;
use crate::eventually::in_time;

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
}

/// The calls of one method that the proxy holds. A test owns it.
#[derive(Debug)]
pub struct HeldCalls {
    method: String,
    moment: Moment,
    calls: mpsc::UnboundedReceiver<Held>,
    rules: Rules,
}

impl HeldCalls {
    /// The next call, which has to come within a minute.
    pub async fn next(&mut self) -> Held {
        let what = format!(
            "a call of {} is held at the moment {:?}",
            self.method, self.moment
        );
        let seen = || self.rules.lock().counts.clone();
        let call = in_time(&what, self.calls.recv(), seen).await;
        call.expect("the proxy holds calls until let_pass")
    }
}

/// A call that waits in the proxy. It goes on when this is dropped.
#[derive(Debug)]
pub struct Held {
    method: String,
    release: oneshot::Sender<()>,
}

impl Held {
    /// Waits until the caller has given up the call, which has to be within a minute: the call will never reach
    /// containerd, or its answer will never reach the caller.
    pub async fn abandoned(mut self) {
        let what = format!("the caller of {} gives it up", self.method);
        in_time(&what, self.release.closed(), || "the caller still waits").await;
    }
}

/// What a test has asked for, by the method's name. Shared by the proxy and its connections.
#[derive(Clone, Debug, Default)]
struct Rules(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    rules: Mutex<RulesInner>,
    /// Which calls are not answered. Calls wait in it for the end of the silence.
    silence: watch::Sender<Silence>,
}

#[derive(Debug, Default)]
struct RulesInner {
    counts: HashMap<String, usize>,
    holds: HashMap<(String, Moment), mpsc::UnboundedSender<Held>>,
    failures_once: HashMap<String, Failure>,
    failures: HashMap<(String, Moment), Failure>,
    /// By the method and the id that the request names.
    failures_of_objects: HashMap<(String, String), Failure>,
    /// The state that a container of this name is shown in.
    states: HashMap<String, ContainerState>,
    /// The folder that `ImageFsInfo` names as the images' disk.
    image_disk: Option<PathBuf>,
}

/// What is in front of a gRPC message, in bytes: whether it is compressed, and its length.
const FRAME_HEAD: usize = 5;

/// The methods that are taken and not answered.
#[derive(Debug, Default)]
enum Silence {
    #[default]
    Nothing,
    Methods(HashSet<String>),
    Everything,
}

/// A gRPC status that is answered.
#[derive(Clone, Debug)]
struct Failure {
    code: tonic::Code,
    message: String,
}

/// What all requests about one object begin with, for example `ContainerStatusRequest` and `StopPodSandboxRequest`:
/// its id is their first field.
#[derive(Clone, PartialEq, Message)]
struct OfObject {
    #[prost(string, tag = "1")]
    id: String,
}

type Body = UnsyncBoxBody<Bytes, hyper::Error>;
/// The whole of a request, as no method has a stream of requests.
type RequestBody = Full<Bytes>;

impl Proxy {
    /// Listens on `socket` for calls to the runtime at `runtime`.
    pub(crate) fn start(socket: &Path, runtime: &Path) -> Proxy {
        let listener = UnixListener::bind(socket).unwrap();
        let (rules, runtime) = (Rules::default(), runtime.to_path_buf());
        let shared = rules.clone();
        let accepting = tokio::spawn(async move {
            // Its end ends the connections with it.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, runtime.clone(), shared.clone()));
            }
        });
        Proxy {
            socket: socket.to_path_buf(),
            rules,
            accepting,
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
        self.rules.lock().counts.get(method).copied().unwrap_or(0)
    }

    /// The calls of every method, by its name.
    pub fn all_calls(&self) -> HashMap<String, usize> {
        self.rules.lock().counts.clone()
    }

    /// Holds the calls of a method at a moment until [`Proxy::let_pass`]: [`HeldCalls::next`] gives each of them to the
    /// test, and a call goes on when its `Held` is dropped.
    pub fn hold(&self, method: &str, moment: Moment) -> HeldCalls {
        let (sender, calls) = mpsc::unbounded_channel();
        let key = (method.to_owned(), moment);
        self.rules.lock().holds.insert(key, sender);
        HeldCalls {
            method: method.to_owned(),
            moment,
            calls,
            rules: self.rules.clone(),
        }
    }

    /// Takes the calls of a method and answers none of them until [`Proxy::let_pass`]; those that are still waited for
    /// go on to containerd then.
    pub fn silence(&self, method: &str) {
        self.rules.0.silence.send_modify(|silence| match silence {
            Silence::Nothing => *silence = Silence::Methods([method.to_owned()].into()),
            Silence::Methods(methods) => drop(methods.insert(method.to_owned())),
            Silence::Everything => {}
        });
    }

    /// [`Proxy::silence`], for every method of every service.
    pub fn silence_all(&self) {
        self.rules.0.silence.send_replace(Silence::Everything);
    }

    /// Answers the next call of a method with a gRPC status, without asking containerd.
    pub fn fail_once(&self, method: &str, code: tonic::Code, message: &str) {
        let failure = Failure::new(code, message);
        let key = method.to_owned();
        self.rules.lock().failures_once.insert(key, failure);
    }

    /// Answers the calls of a method with a gRPC status until [`Proxy::let_pass`]: without asking containerd, or when
    /// containerd has done what was asked.
    pub fn fail(&self, method: &str, moment: Moment, code: tonic::Code, message: &str) {
        let failure = Failure::new(code, message);
        let key = (method.to_owned(), moment);
        self.rules.lock().failures.insert(key, failure);
    }

    /// Answers the calls of a method about one container or sandbox with a gRPC status until [`Proxy::let_pass`],
    /// without asking containerd. The method is one whose request has the id in its first field.
    pub fn fail_for(&self, method: &str, id: &str, code: tonic::Code, message: &str) {
        let failure = Failure::new(code, message);
        let key = (method.to_owned(), id.to_owned());
        self.rules.lock().failures_of_objects.insert(key, failure);
    }

    /// Shows the containers of this name in `state` until [`Proxy::let_pass`], whatever containerd says of them.
    pub fn show_container_as(&self, name: &str, state: ContainerState) {
        self.rules.lock().states.insert(name.to_owned(), state);
    }

    /// Shows this folder as the disk of the images until [`Proxy::let_pass`].
    pub fn show_image_disk_at(&self, folder: &Path) {
        self.rules.lock().image_disk = Some(folder.to_path_buf());
    }

    /// Ends every hold, silence, failure and whatever is shown in the place of the truth. What is held goes on when its
    /// `Held` is dropped.
    pub fn let_pass(&self) {
        let mut rules = self.rules.lock();
        rules.holds.clear();
        rules.failures_once.clear();
        rules.failures.clear();
        rules.failures_of_objects.clear();
        rules.states.clear();
        rules.image_disk = None;
        drop(rules);
        self.rules.0.silence.send_replace(Silence::Nothing);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Failure {
    fn new(code: tonic::Code, message: &str) -> Failure {
        Failure {
            code,
            message: message.to_owned(),
        }
    }
}

impl Silence {
    fn covers(&self, method: &str) -> bool {
        match self {
            Silence::Nothing => false,
            Silence::Methods(methods) => methods.contains(method),
            Silence::Everything => true,
        }
    }
}

impl Rules {
    fn lock(&self) -> MutexGuard<'_, RulesInner> {
        self.0.rules.lock().unwrap()
    }

    fn count(&self, method: &str) {
        *self.lock().counts.entry(method.to_owned()).or_default() += 1;
    }

    /// What is answered in the place of containerd.
    fn failure_before(&self, method: &str, request: &Bytes) -> Option<Failure> {
        let mut rules = self.lock();
        if let Some(failure) = rules.failures_once.remove(method) {
            return Some(failure);
        }
        if let Some(failure) = rules.failures.get(&(method.to_owned(), Moment::Before)) {
            return Some(failure.clone());
        }
        let key = (method.to_owned(), id_of_object(request)?);
        rules.failures_of_objects.get(&key).cloned()
    }

    /// What is answered in the place of containerd's answer.
    fn failure_after(&self, method: &str) -> Option<Failure> {
        let key = (method.to_owned(), Moment::After);
        self.lock().failures.get(&key).cloned()
    }

    fn holds(&self, method: &str, moment: Moment) -> bool {
        self.lock().holds.contains_key(&(method.to_owned(), moment))
    }

    /// Whether the answers of this method are changed.
    fn changes(&self, method: &str) -> bool {
        let rules = self.lock();
        match method {
            "ContainerStatus" | "ListContainers" => !rules.states.is_empty(),
            "ImageFsInfo" => rules.image_disk.is_some(),
            _ => false,
        }
    }

    /// containerd's answer to this method, with what a test wants in it.
    fn changed(&self, method: &str, answer: &Bytes) -> Bytes {
        let message = &answer[FRAME_HEAD..];
        let message = match method {
            "ContainerStatus" => self.with_state(message),
            "ListContainers" => self.with_states(message),
            _ => self.with_image_disk(message),
        };
        let mut frame = vec![0];
        frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        frame.extend(message);
        frame.into()
    }

    /// An answer to `ContainerStatus`, with the state that a test wants.
    fn with_state(&self, message: &[u8]) -> Vec<u8> {
        let mut answer = ContainerStatusResponse::decode(message).unwrap();
        if let Some(status) = &mut answer.status
            && let Some(state) = self.state_of(status.metadata.as_ref())
        {
            status.set_state(state);
            (status.started_at, status.finished_at) = (0, 0);
        }
        answer.encode_to_vec()
    }

    /// The state that a test wants of this container.
    fn state_of(&self, container: Option<&ContainerMetadata>) -> Option<ContainerState> {
        self.lock().states.get(&container?.name).copied()
    }

    /// An answer to `ListContainers`, with the states that a test wants.
    fn with_states(&self, message: &[u8]) -> Vec<u8> {
        let mut answer = ListContainersResponse::decode(message).unwrap();
        for container in &mut answer.containers {
            if let Some(state) = self.state_of(container.metadata.as_ref()) {
                container.set_state(state);
            }
        }
        answer.encode_to_vec()
    }

    /// An answer to `ImageFsInfo`, with the disk that a test wants.
    fn with_image_disk(&self, message: &[u8]) -> Vec<u8> {
        let mut answer = ImageFsInfoResponse::decode(message).unwrap();
        let disk = self.lock().image_disk.clone().unwrap_or_default();
        for usage in &mut answer.image_filesystems {
            usage.fs_id = Some(FilesystemIdentifier {
                mountpoint: disk.to_string_lossy().into_owned(),
            });
        }
        answer.encode_to_vec()
    }

    /// Waits as long as this method is not answered.
    async fn wait_out_silence(&self, method: &str) {
        let mut silence = self.0.silence.subscribe();
        // The sender is in `self`.
        drop(silence.wait_for(|silence| !silence.covers(method)).await);
    }

    /// Waits as long as a test holds this call.
    async fn pause(&self, method: &str, moment: Moment) {
        let (release, released) = oneshot::channel();
        let key = (method.to_owned(), moment);
        let holder = self.lock().holds.get(&key).cloned();
        let held = Held {
            method: method.to_owned(),
            release,
        };
        if let Some(holder) = holder
            && holder.send(held).is_ok()
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
    upstream: &tokio::sync::Mutex<Option<SendRequest<RequestBody>>>,
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
    let (head, body) = request.into_parts();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return refusal(&Failure::new(tonic::Code::Unavailable, &error.to_string())),
    };
    rules.wait_out_silence(&method).await;
    if let Some(failure) = rules.failure_before(&method, &body) {
        return refusal(&failure);
    }
    rules.pause(&method, Moment::Before).await;
    let answer = match connected(upstream, runtime).await {
        Ok(mut sender) => sender
            .send_request(Request::from_parts(head, Full::new(body)))
            .await
            .map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let response = match answer {
        Ok(response) => response,
        Err(message) => return refusal(&Failure::new(tonic::Code::Unavailable, &message)),
    };
    let (head, body) = response.into_parts();
    if let Some(failure) = rules.failure_after(&method) {
        whole(body).await;
        return refusal(&failure);
    }
    if rules.changes(&method) {
        let frames: Vec<_> = whole(body)
            .await
            .into_iter()
            .map(|frame| Ok::<_, hyper::Error>(frame.map_data(|data| rules.changed(&method, &data))))
            .collect();
        let body = StreamBody::new(futures_util::stream::iter(frames));
        return Response::from_parts(head, body.boxed_unsync());
    }
    if !rules.holds(&method, Moment::After) {
        return Response::from_parts(head, body.boxed_unsync());
    }
    // The whole answer first: containerd is done when its last frame is here.
    let frames = whole(body).await;
    rules.pause(&method, Moment::After).await;
    let frames = futures_util::stream::iter(frames).map(Ok::<_, hyper::Error>);
    Response::from_parts(head, StreamBody::new(frames).boxed_unsync())
}

/// The id that a request about one object names.
fn id_of_object(request: &Bytes) -> Option<String> {
    let message = OfObject::decode(request.get(FRAME_HEAD..)?).ok()?;
    Some(message.id)
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
    upstream: &tokio::sync::Mutex<Option<SendRequest<RequestBody>>>,
    runtime: &Path,
) -> std::io::Result<SendRequest<RequestBody>> {
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
fn refusal(failure: &Failure) -> Response<Body> {
    Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", failure.code as i32)
        .header("grpc-message", percent_encoded(&failure.message))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A proxy to no containerd.
    fn proxy(folder: &tempfile::TempDir) -> Proxy {
        let [socket, runtime] = ["proxy.sock", "runtime.sock"].map(|name| folder.path().join(name));
        Proxy::start(&socket, &runtime)
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(
        expected = "waited in vain for 60s until a call of Version is held at the moment Before; seen: {}"
    )]
    async fn a_wait_for_a_call_that_nobody_makes_ends_with_what_it_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        proxy(&folder).hold("Version", Moment::Before).next().await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "waited in vain for 60s until the caller of Version gives it up")]
    async fn a_wait_for_a_caller_that_stays_ends_with_what_it_waited_for() {
        let (release, _waits) = oneshot::channel();
        let method = "Version".to_owned();
        Held { method, release }.abandoned().await;
    }
}
