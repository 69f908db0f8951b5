//! A front of the API server that answers every request with 403 for a while, as kube-apiserver itself does until it has
//! read its roles, and passes requests on from then on.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::UnixListener;
use tokio::task::{AbortHandle, JoinSet};
use tower::BoxError;

use crate::node::Node;
use crate::process::Process;

/// The port in the node. Every node has a network of its own.
const PORT: u16 = 6444;

type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Passes requests on until it is dropped.
#[derive(Debug)]
pub struct RefusingFront {
    kubeconfig: PathBuf,
    refuses_until: Arc<Mutex<Instant>>,
    accepting: AbortHandle,
    /// What passes bytes from the node's network to the test's process.
    _relay: Process,
}

impl RefusingFront {
    /// A front whose requests go to the API server as those of whom `kubeconfig` names. It refuses nothing yet.
    pub async fn start(node: &Node, kubeconfig: &Path) -> RefusingFront {
        let socket = node.folder().join("front.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut relay = Command::new("socat");
        relay
            .arg(format!("TCP-LISTEN:{PORT},bind=127.0.0.1,fork,reuseaddr"))
            .arg(format!("UNIX-CONNECT:{}", socket.display()))
            .stdin(Stdio::null());
        let relay = node.spawn(relay);
        let refuses_until = Arc::new(Mutex::new(Instant::now()));
        let client = super::client(node, kubeconfig).await;
        let accepting = tokio::spawn(accept(listener, client, Arc::clone(&refuses_until)));
        let file = node.folder().join("front.kubeconfig");
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "front",
            "clusters": [{"name": "front", "cluster": {"server": format!("http://127.0.0.1:{PORT}")}}],
            "users": [{"name": "front", "user": {}}],
            "contexts": [{"name": "front", "context": {"cluster": "front", "user": "front"}}],
        });
        std::fs::write(&file, text.to_string()).unwrap();
        RefusingFront {
            kubeconfig: file,
            refuses_until,
            accepting: accepting.abort_handle(),
            _relay: relay,
        }
    }

    /// A kubeconfig that leads to it.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Refuses everything from now on, for this long.
    pub fn refuse_for(&self, time: Duration) {
        *self.refuses_until.lock().unwrap() = Instant::now() + time;
    }
}

impl Drop for RefusingFront {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: UnixListener, client: kube::Client, refuses_until: Arc<Mutex<Instant>>) {
    // Dropped with this task: so no connection outlives the front.
    let mut connections = JoinSet::new();
    while let Ok((connection, _)) = listener.accept().await {
        let (client, refuses_until) = (client.clone(), Arc::clone(&refuses_until));
        let service = service_fn(move |request| {
            let refuses = Instant::now() < *refuses_until.lock().unwrap();
            let client = client.clone();
            async move {
                let answer = if refuses {
                    refusal(&request)
                } else {
                    passed_on(client, request).await
                };
                Ok::<_, Infallible>(answer)
            }
        });
        connections.spawn(async move {
            let served = http1::Builder::new().serve_connection(TokioIo::new(connection), service);
            // A client that has gone is nobody's fault.
            let _ = served.await;
        });
    }
}

fn body(text: String) -> Body {
    http_body_util::Full::from(text)
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// What an authorizer without roles answers.
fn refusal(request: &Request<Incoming>) -> Response<Body> {
    let message = format!(
        "forbidden: User \"debuglet\" cannot {} path \"{}\"",
        request.method().as_str().to_lowercase(),
        request.uri().path()
    );
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": 403,
        "reason": "Forbidden", "message": message,
    });
    Response::builder()
        .status(403)
        .header(CONTENT_TYPE, "application/json")
        .body(body(status.to_string()))
        .unwrap()
}

async fn passed_on(client: kube::Client, request: Request<Incoming>) -> Response<Body> {
    let (mut head, content) = request.into_parts();
    head.headers.remove(AUTHORIZATION);
    head.headers.remove(HOST);
    let content = match content.collect().await {
        Ok(content) => content.to_bytes().to_vec(),
        Err(error) => return bad_gateway(&error),
    };
    match client.send(Request::from_parts(head, content.into())).await {
        Ok(answer) => answer.map(|content| content.map_err(BoxError::from).boxed_unsync()),
        Err(error) => bad_gateway(&error),
    }
}

fn bad_gateway(error: &dyn std::error::Error) -> Response<Body> {
    Response::builder()
        .status(502)
        .body(body(error.to_string()))
        .unwrap()
}
