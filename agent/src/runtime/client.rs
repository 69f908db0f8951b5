//! The connection to a CRI runtime on its Unix socket.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use debuglet_proto::v1::image_service_client::ImageServiceClient;
use debuglet_proto::v1::runtime_service_client::RuntimeServiceClient;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Uri};

use super::bounded_channel::{BoundedChannel, Caller, Rules};
use super::call_limits::CallLimits;
use super::call_metrics::{CallMetrics, MeasuredChannel};
use super::unanswered::Unanswered;

/// The largest answer that is read from the runtime: a node with many containers lists more than tonic's 4 MiB.
pub(super) const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
/// How long the connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The runtime's two CRI services over one connection that is made again when it breaks. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    shared: Arc<Shared>,
    caller: Caller,
}

#[derive(Debug)]
struct Shared {
    channel: Mutex<Channel>,
    socket: PathBuf,
    metrics: CallMetrics,
    rules: Rules,
    renewed: watch::Sender<()>,
}

impl Runtime {
    /// Prepares the connection to the Unix socket at `socket`; it is made at the first call. Calls have `limits`, and
    /// `shutdown` ends those that may be cut short.
    pub(crate) fn connect_lazy(socket: &Path, limits: CallLimits, shutdown: CancellationToken) -> Runtime {
        let rules = Rules {
            limits,
            unanswered: Unanswered::default(),
            shutdown,
        };
        let shared = Shared {
            channel: Mutex::new(channel(socket)),
            socket: socket.to_path_buf(),
            metrics: CallMetrics::default(),
            rules,
            renewed: watch::Sender::new(()),
        };
        Runtime {
            shared: Arc::new(shared),
            caller: Caller::default(),
        }
    }

    /// The connection of a program that asks a few questions and ends.
    pub(crate) fn alone(socket: &Path) -> Runtime {
        Runtime::connect_lazy(socket, CallLimits::default(), CancellationToken::new())
    }

    /// The same runtime, asked by the worker of the pod `namespace/name`: calls that are not answered are shown with it.
    pub(crate) fn for_pod(&self, pod: &str) -> Runtime {
        let mut runtime = self.clone();
        runtime.caller.pod = Arc::from(pod);
        runtime
    }

    /// The same runtime, asked on behalf of HTTP clients, who get an answer in 10 s.
    pub(crate) fn for_clients(&self) -> Runtime {
        let mut runtime = self.clone();
        runtime.caller.is_client = true;
        runtime
    }

    /// Makes the next calls over a new connection; those that are under way go on over the one before. HTTP/2's own
    /// keep-alive would end them all, also CreateContainer and StartContainer, and containerd (grpc-go) takes pings more
    /// often than every five minutes as an attack.
    pub(crate) fn renew_connection(&self) {
        let mut connection = self.shared.channel.lock().unwrap_or_else(PoisonError::into_inner);
        *connection = channel(&self.shared.socket);
        drop(connection);
        self.shared.renewed.send_replace(());
    }

    /// Wakes when there is a new connection: streams over the one before are to be opened anew.
    pub(crate) fn renewals(&self) -> watch::Receiver<()> {
        self.shared.renewed.subscribe()
    }

    /// The socket's path.
    pub(crate) fn socket(&self) -> &Path {
        &self.shared.socket
    }

    /// The connection, for containerd's own services.
    pub(crate) fn channel(&self) -> BoundedChannel {
        let channel = self.shared.channel.lock().unwrap_or_else(PoisonError::into_inner);
        BoundedChannel::new(channel.clone(), self.shared.rules.clone(), self.caller.clone())
    }

    /// How long its CRI calls take.
    pub(crate) fn call_metrics(&self) -> &CallMetrics {
        &self.shared.metrics
    }

    /// The calls that it does not answer.
    pub(crate) fn unanswered(&self) -> &Unanswered {
        &self.shared.rules.unanswered
    }

    /// Whether the agent stops, so that calls end without an answer.
    pub(crate) fn is_stopping(&self) -> bool {
        self.shared.rules.shutdown.is_cancelled()
    }

    /// How long calls are waited for.
    pub(super) fn limits(&self) -> CallLimits {
        self.shared.rules.limits
    }

    fn measured(&self) -> MeasuredChannel {
        MeasuredChannel::new(self.channel(), self.shared.metrics.clone())
    }

    /// CRI's `RuntimeService`.
    pub(crate) fn runtime(&self) -> RuntimeServiceClient<MeasuredChannel> {
        RuntimeServiceClient::new(self.measured()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// CRI's `ImageService`.
    pub(crate) fn images(&self) -> ImageServiceClient<MeasuredChannel> {
        ImageServiceClient::new(self.measured()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }
}

/// A connection to the socket, which is made at the first call and again when it breaks.
fn channel(socket: &Path) -> Channel {
    let socket = socket.to_path_buf();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(tokio::net::UnixStream::connect(socket).await?)) }
    });
    // The authority is never looked up: the connector above ignores it.
    Endpoint::from_static("http://runtime")
        .connect_timeout(CONNECT_TIMEOUT)
        .connect_with_connector_lazy(connector)
}
