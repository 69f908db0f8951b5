//! Requests over the real socket, answered from a real store.

mod bounds;
mod ephemeral_containers;
mod hung_up;
mod kubectl_requests;
mod launches;
mod lists;
mod pods;
mod reading;
mod reference;
mod tables;
mod verbs;
mod visibility;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::unix_listener::SOCKET;
use super::{Api, Context, Settings};
use crate::kubernetes::api_server::ApiServer;
use crate::runtime::client::Runtime;
use crate::runtime::images::Images;
use crate::runtime::pulled_images::PulledImages;
use crate::store::Store;
use crate::store::disk::Disk;
use crate::store::manifests::{LogDir, ManifestPod};

const POD: &str = "/api/v1/namespaces/default/pods/web";
const EPHEMERAL: &str = "/api/v1/namespaces/default/pods/web/ephemeralcontainers";
const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// The API on a socket in a folder of its own, with the pods `default/web` and `shop/cart`.
struct Node {
    folder: TempDir,
    store: Arc<Store>,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

fn manifest(namespace: &str, name: &str) -> (PathBuf, ManifestPod) {
    let document = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {
            "nodeName": "node1",
            "containers": [{"name": "main", "image": "docker.io/library/busybox:latest"}],
            "volumes": [{"name": "scratch", "emptyDir": {}}],
        },
    });
    let pod: Pod = serde_json::from_value(document.clone()).expect("a pod");
    (
        PathBuf::from(format!("{namespace}-{name}.yaml")),
        ManifestPod { pod, document },
    )
}

/// What handlers work with where there is no runtime; everything else lies in `folder`.
pub(super) fn context(folder: &Path, store: &Arc<Store>, shutdown: &CancellationToken) -> Context {
    let runtime = Runtime::alone(&folder.join("no-runtime.sock"));
    let pulled = Arc::new(PulledImages::load(folder, Arc::clone(store.write_threads())));
    Context {
        store: Arc::clone(store),
        api_server: None,
        cluster_users: None,
        images: Images::new(runtime.clone(), PathBuf::new(), pulled, shutdown.clone()),
        runtime,
        log_dir: folder.join("logs"),
        log_followers: Default::default(),
        large_bodies: Default::default(),
        shutdown: shutdown.clone(),
    }
}

impl Node {
    async fn start() -> Node {
        Node::start_with(None).await
    }

    /// The same, which knows this API server.
    async fn start_with(api_server: Option<Arc<ApiServer>>) -> Node {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk::open(&folder.path().join("state")).expect("a state folder");
        let (store, problems) = Store::load("node1", disk).expect("a store");
        assert!(problems.is_empty(), "{problems:?}");
        store.report_node(|report| report.kubelet.looked = true);
        let api = Api::bind(Settings {
            run_dir: folder.path().to_path_buf(),
            group: None,
            listen: None,
            state_dir: folder.path().join("state"),
            node_name: "node1".to_owned(),
        })
        .await
        .expect("a socket");
        let shutdown = CancellationToken::new();
        let context = Context {
            api_server,
            ..context(folder.path(), &store, &shutdown)
        };
        let serving = tokio::spawn(api.serve(context));
        let node = Node {
            folder,
            store,
            shutdown,
            serving,
        };
        node.manifests([manifest("default", "web"), manifest("shop", "cart")])
            .await;
        node
    }

    async fn manifests(&self, pods: impl IntoIterator<Item = (PathBuf, ManifestPod)>) {
        let files: BTreeMap<_, _> = pods
            .into_iter()
            .map(|(file, pod)| (file, Ok(vec![pod])))
            .collect();
        let logs = LogDir(self.folder.path().join("logs"));
        self.store.apply_manifests(files, logs).await.expect("applied");
    }

    async fn connect(&self) -> SendRequest<Full<Bytes>> {
        connect(self.folder.path()).await
    }

    async fn request(&self, method: &str, path: &str, media_type: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let response = send(&mut self.connect().await, method, path, media_type, body).await;
        answer_of(response).await
    }

    /// A request of a client that says what it is; a body is JSON where nothing else is said.
    async fn request_of(&self, client: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let media_type = if method == "PATCH" { STRATEGIC } else { JSON };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "node")
            .header("user-agent", client)
            .header("content-type", media_type)
            .body(Full::from(if body.is_null() {
                String::new()
            } else {
                body.to_string()
            }))
            .expect("a request");
        let mut sender = self.connect().await;
        answer_of(sender.send_request(request).await.expect("an answer")).await
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.request("GET", path, "", &Value::Null).await
    }

    async fn put(&self, pod: &Value) -> (u16, Value) {
        self.request("PUT", EPHEMERAL, "application/json", pod).await
    }

    async fn patch(&self, media_type: &str, patch: &Value) -> (u16, Value) {
        self.request("PATCH", EPHEMERAL, media_type, patch).await
    }

    /// The pod as it is served, with these ephemeral containers instead of its own.
    async fn with(&self, containers: &Value) -> Value {
        let (_, mut pod) = self.get(POD).await;
        pod["spec"]["ephemeralContainers"] = containers.clone();
        pod
    }

    async fn watch(&self, query: &str) -> Watch {
        let path = format!("/api/v1/pods?watch=true&{query}");
        let response = send(&mut self.connect().await, "GET", &path, "", String::new()).await;
        assert_eq!(response.status(), 200);
        Watch {
            body: response.into_body(),
            rest: Vec::new(),
        }
    }
}

async fn connect(run_dir: &Path) -> SendRequest<Full<Bytes>> {
    let stream = UnixStream::connect(run_dir.join(SOCKET))
        .await
        .expect("a connection");
    let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    sender
}

async fn send(
    sender: &mut SendRequest<Full<Bytes>>,
    method: &str,
    path: &str,
    media_type: &str,
    body: String,
) -> Response<Incoming> {
    let mut request = Request::builder().method(method).uri(path).header("host", "node");
    if !media_type.is_empty() {
        request = request.header("content-type", media_type);
    }
    let request = request.body(Full::from(body)).expect("a request");
    sender.send_request(request).await.expect("an answer")
}

async fn answer_of(response: Response<Incoming>) -> (u16, Value) {
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (code, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// A stream of JSON lines.
struct Watch {
    body: Incoming,
    rest: Vec<u8>,
}

impl Watch {
    /// The next line; none at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("JSON"));
            }
            let frame = self.body.frame().await?.expect("a whole answer");
            self.rest.extend_from_slice(&frame.into_data().expect("data"));
        }
    }

    /// The next line's type and pod.
    async fn next_pod(&mut self) -> (String, String) {
        let line = self.next().await.expect("a line");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&line["type"]), text(&line["object"]["metadata"]["name"]))
    }
}

fn told(kind: &str, pod: &str) -> (String, String) {
    (kind.to_owned(), pod.to_owned())
}

fn debugger(name: &str) -> Value {
    json!({
        "name": name, "image": "docker.io/library/busybox:latest", "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "600"],
    })
}

/// The names of a pod's ephemeral containers.
fn names(pod: &Value) -> Vec<&str> {
    let containers = pod["spec"]["ephemeralContainers"].as_array();
    containers
        .into_iter()
        .flatten()
        .filter_map(|one| one["name"].as_str())
        .collect()
}

/// Code, reason, and each cause's reason and field.
fn outcome((code, status): &(u16, Value)) -> (u16, &str, Vec<(&str, &str)>) {
    assert_eq!(status["kind"], "Status", "{status}");
    assert_eq!(status["code"], *code, "{status}");
    assert!(
        status["message"]
            .as_str()
            .is_some_and(|message| !message.is_empty()),
        "{status}"
    );
    let causes = status["details"]["causes"].as_array().into_iter().flatten();
    let causes = causes
        .map(|cause| {
            (
                cause["reason"].as_str().unwrap_or_default(),
                cause["field"].as_str().unwrap_or_default(),
            )
        })
        .collect();
    (*code, status["reason"].as_str().unwrap_or_default(), causes)
}
