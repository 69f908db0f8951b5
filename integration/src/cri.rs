//! A bare CRI connection to a node's containerd.

use std::path::Path;
use std::time::Duration;

use debuglet_proto::v1::image_service_client::ImageServiceClient;
use debuglet_proto::v1::runtime_service_client::RuntimeServiceClient;
use debuglet_proto::v1::{Container, ContainerFilter, ListContainersRequest};
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};

/// How long a call may take: a runtime that does not answer fails the test.
const PATIENCE: Duration = Duration::from_secs(120);

/// CRI's services on one connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Cri {
    channel: Channel,
}

impl Cri {
    /// Prepares a connection to the socket; it is made at the first call.
    pub(crate) fn connect_lazy(socket: &Path) -> Cri {
        let socket = socket.to_path_buf();
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(tokio::net::UnixStream::connect(socket).await?)) }
        });
        Cri {
            channel: Endpoint::from_static("http://runtime")
                .timeout(PATIENCE)
                .connect_with_connector_lazy(connector),
        }
    }

    /// The `RuntimeService`.
    pub fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone())
    }

    /// The `ImageService`.
    pub fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone())
    }

    /// Every container of this name, in every state.
    pub async fn containers(&self, name: &str) -> Vec<Container> {
        let label = ("io.kubernetes.container.name".to_owned(), name.to_owned());
        let filter = ContainerFilter {
            label_selector: [label].into(),
            ..Default::default()
        };
        let request = ListContainersRequest { filter: Some(filter) };
        self.runtime()
            .list_containers(request)
            .await
            .unwrap()
            .into_inner()
            .containers
    }
}
