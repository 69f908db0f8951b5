//! The connection to a CRI runtime on its Unix socket.

use std::path::{Path, PathBuf};

use debuglet_proto::v1::image_service_client::ImageServiceClient;
use debuglet_proto::v1::runtime_service_client::RuntimeServiceClient;
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};

use super::call_metrics::{CallMetrics, MeasuredChannel};

/// The largest answer that is read from the runtime: a node with many containers lists more than tonic's 4 MiB.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// The runtime's two CRI services over one connection that is made again when it breaks. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    channel: Channel,
    socket: PathBuf,
    metrics: CallMetrics,
}

impl Runtime {
    /// Prepares the connection to the Unix socket at `socket`; it is made at the first call.
    pub(crate) fn connect_lazy(socket: &Path) -> Runtime {
        let path = socket.to_path_buf();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(tokio::net::UnixStream::connect(path).await?)) }
        });
        // The authority is never looked up: the connector above ignores it.
        let channel = Endpoint::from_static("http://runtime").connect_with_connector_lazy(connector);
        Runtime {
            channel,
            socket: socket.to_path_buf(),
            metrics: CallMetrics::default(),
        }
    }

    /// The socket's path.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The connection, for containerd's own services.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// How long its CRI calls take.
    pub(crate) fn call_metrics(&self) -> &CallMetrics {
        &self.metrics
    }

    fn measured(&self) -> MeasuredChannel {
        MeasuredChannel::new(self.channel.clone(), self.metrics.clone())
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
