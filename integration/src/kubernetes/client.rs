//! A client library's way into a node: a test's process is not in the node's network, its sockets can be.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::Uri;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::client::ConfigExt;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::net::TcpStream;
use tower::{BoxError, Layer, Service, ServiceExt};

use crate::node::{Node, Place};

/// A `kube` client of whom `kubeconfig` names, through the node's network.
pub async fn client(node: &Node, kubeconfig: &Path) -> kube::Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    let connector = Connector { place: node.place() };
    let https = config.rustls_https_connector_with_connector(connector).unwrap();
    let http: HttpClient<_, kube::client::Body> = HttpClient::builder(TokioExecutor::new()).build(https);
    let service = config.base_uri_layer().layer(http).map_err(BoxError::from);
    match config.auth_layer().unwrap() {
        Some(auth) => kube::Client::new(auth.layer(service), config.default_namespace),
        None => kube::Client::new(service, config.default_namespace),
    }
}

/// Connects from inside the node.
#[derive(Clone)]
struct Connector {
    place: Place,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        let place = self.place.clone();
        Box::pin(async move {
            let host = server
                .host()
                .unwrap_or_default()
                .trim_matches(['[', ']'])
                .to_owned();
            let port = server.port_u16().unwrap_or(443);
            Ok(TokioIo::new(place.connect(host, port).await?))
        })
    }
}
