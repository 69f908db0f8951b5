//! Requests over the real socket, answered from a real store.

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
use crate::runtime::client::Runtime;
use crate::runtime::images::Images;
use crate::runtime::pulled_images::PulledImages;
use crate::store::Store;
use crate::store::disk::Disk;
use crate::store::manifests::{LogDir, ManifestPod};

mod lists;
mod tables;

const POD: &str = "/api/v1/namespaces/default/pods/web";
const EPHEMERAL: &str = "/api/v1/namespaces/default/pods/web/ephemeralcontainers";
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

impl Node {
    async fn start() -> Node {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk::open(&folder.path().join("state")).expect("a state folder");
        let (store, problems) = Store::load("node1", disk).expect("a store");
        assert!(problems.is_empty(), "{problems:?}");
        let api = Api::bind(Settings {
            run_dir: folder.path().to_path_buf(),
            group: None,
            listen: None,
            state_dir: folder.path().join("state"),
            node_name: "node1".to_owned(),
        })
        .expect("a socket");
        let shutdown = CancellationToken::new();
        let runtime = Runtime::connect_lazy(&folder.path().join("no-runtime.sock"));
        let pulled = Arc::new(PulledImages::load(folder.path()));
        let context = Context {
            store: Arc::clone(&store),
            images: Images::new(runtime.clone(), PathBuf::new(), pulled, shutdown.clone()),
            runtime,
            log_dir: folder.path().join("logs"),
            shutdown: shutdown.clone(),
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
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (code, serde_json::from_slice(&body).unwrap_or(Value::Null))
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

#[tokio::test]
async fn pods_are_listed_of_one_namespace_or_of_all_and_by_selectors() {
    let node = Node::start().await;
    for (path, expected) in [
        ("/api/v1/pods", vec!["web", "cart"]),
        ("/api/v1/namespaces/shop/pods", vec!["cart"]),
        ("/api/v1/namespaces/none/pods", vec![]),
        ("/api/v1/pods?fieldSelector=metadata.name%3Dweb", vec!["web"]),
        (
            "/api/v1/pods?fieldSelector=metadata.namespace%21%3Dshop,spec.nodeName%3Dnode1",
            vec!["web"],
        ),
        ("/api/v1/pods?labelSelector=app+in+(cart,none)", vec!["cart"]),
        ("/api/v1/pods?limit=500&resourceVersion=0", vec!["web", "cart"]),
    ] {
        let (code, list) = node.get(path).await;
        assert_eq!((code, &list["kind"]), (200, &json!("PodList")), "{path}");
        let items = list["items"].as_array().expect("items").iter();
        let names: Vec<&str> = items.filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
        assert_eq!(names, expected, "{path}");
        let version = list["metadata"]["resourceVersion"].as_str().expect("a version");
        assert!(version.parse::<u64>().expect("a number") > 0, "{path}");
    }
    for path in [
        "?fieldSelector=spec.unknown%3D1",
        "?labelSelector=a+in+(",
        "?resourceVersion=x",
    ] {
        let answer = node.get(&format!("/api/v1/pods{path}")).await;
        assert_eq!(outcome(&answer), (400, "BadRequest", vec![]), "{path}");
    }
}

#[tokio::test]
async fn what_is_not_served_is_a_status() {
    let node = Node::start().await;
    let answer = node.get("/api/v1/namespaces/default/pods/none").await;
    assert_eq!(outcome(&answer), (404, "NotFound", vec![]));
    let answer = node.get("/api/v1/secrets").await;
    assert_eq!(outcome(&answer), (404, "NotFound", vec![]));
    let answer = node.request("DELETE", POD, "", &Value::Null).await;
    assert_eq!(outcome(&answer), (405, "MethodNotAllowed", vec![]));
}

#[tokio::test]
async fn a_watch_without_a_version_shows_what_is_there_and_then_every_change() {
    let node = Node::start().await;
    let mut watch = node.watch("").await;
    assert_eq!(watch.next_pod().await, told("ADDED", "web"));
    assert_eq!(watch.next_pod().await, told("ADDED", "cart"));
    let patch = json!({"spec": {"ephemeralContainers": [debugger("dbg")]}});
    assert_eq!(node.patch(STRATEGIC, &patch).await.0, 200);
    let line = watch.next().await.expect("a line");
    assert_eq!(line["type"], "MODIFIED");
    assert_eq!(names(&line["object"]), ["dbg"]);
}

#[tokio::test]
async fn a_watch_goes_on_from_the_version_of_a_list() {
    let node = Node::start().await;
    let (_, list) = node.get("/api/v1/pods").await;
    let version = list["metadata"]["resourceVersion"].as_str().expect("a version");
    node.manifests([
        manifest("default", "web"),
        manifest("shop", "cart"),
        manifest("shop", "new"),
    ])
    .await;
    let mut watch = node
        .watch(&format!("resourceVersion={version}&timeoutSeconds=0"))
        .await;
    assert_eq!(watch.next_pod().await, told("ADDED", "new"));
}

#[tokio::test]
async fn a_watch_with_a_selector_sees_nothing_of_other_pods() {
    let node = Node::start().await;
    let mut watch = node.watch("fieldSelector=metadata.name%3Dlate").await;
    node.manifests([
        manifest("default", "web"),
        manifest("shop", "cart"),
        manifest("shop", "late"),
    ])
    .await;
    assert_eq!(watch.next_pod().await, told("ADDED", "late"));
}

#[tokio::test]
async fn the_initial_events_of_a_watch_end_with_a_bookmark() {
    let node = Node::start().await;
    let query = "sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut watch = node.watch(query).await;
    watch.next().await;
    watch.next().await;
    let line = watch.next().await.expect("a line");
    assert_eq!(line["type"], "BOOKMARK");
    assert_eq!(
        line["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
}

#[tokio::test]
async fn a_watch_from_a_version_that_is_not_known_any_more_must_list_again() {
    let node = Node::start().await;
    for version in ["5", "18446744073709551615"] {
        let (code, line) = node
            .get(&format!("/api/v1/pods?watch=1&resourceVersion={version}"))
            .await;
        assert_eq!((code, &line["type"]), (200, &json!("ERROR")), "{version}");
        let told = (410, line["object"].clone());
        assert_eq!(outcome(&told), (410, "Expired", vec![]), "{version}");
    }
}

#[tokio::test]
async fn a_watch_ends_after_its_time_and_when_the_agent_stops() {
    let node = Node::start().await;
    let mut timed = node
        .watch("timeoutSeconds=1&fieldSelector=metadata.name%3Dnone")
        .await;
    assert_eq!(timed.next().await, None);
    let mut endless = node.watch("fieldSelector=metadata.name%3Dnone").await;
    node.shutdown.cancel();
    assert_eq!(endless.next().await, None);
    node.serving.await.expect("it ends");
    assert!(!node.folder.path().join(SOCKET).exists());
}

#[tokio::test]
async fn a_put_of_the_whole_list_is_taken_and_everything_else_in_the_body_is_ignored() {
    let node = Node::start().await;
    let mut pod = node.with(&json!([debugger("dbg")])).await;
    pod["spec"]["activeDeadlineSeconds"] = json!(99);
    pod["metadata"]["labels"] = json!({"x": "y"});
    let (code, pod) = node.put(&pod).await;
    assert_eq!((code, names(&pod)), (200, vec!["dbg"]));
    assert_eq!(pod["metadata"]["labels"], json!({"app": "web"}));
    assert_eq!(pod["spec"].get("activeDeadlineSeconds"), None);
    let (code, served) = node.get(EPHEMERAL).await;
    assert_eq!((code, served), (200, pod));
}

#[tokio::test]
async fn an_entry_may_not_be_changed_or_removed() {
    let node = Node::start().await;
    node.put(&node.with(&json!([debugger("dbg")])).await).await;
    let mut changed = debugger("dbg");
    changed["image"] = json!("other");
    let forbidden = (
        422,
        "Invalid",
        vec![("FieldValueForbidden", "spec.ephemeralContainers")],
    );
    assert_eq!(
        outcome(&node.put(&node.with(&json!([changed])).await).await),
        forbidden
    );
    assert_eq!(outcome(&node.put(&node.with(&json!([])).await).await), forbidden);
    let delete = json!({"spec": {"ephemeralContainers": [{"name": "dbg", "$patch": "delete"}]}});
    assert_eq!(outcome(&node.patch(STRATEGIC, &delete).await), forbidden);
    let other = json!({"spec": {"ephemeralContainers": [debugger("two")]}});
    assert_eq!(
        outcome(&node.patch("application/merge-patch+json", &other).await),
        forbidden
    );
    assert_eq!(names(&node.get(POD).await.1), ["dbg"]);
}

#[tokio::test]
async fn an_invalid_entry_is_refused_with_its_field_and_nothing_of_the_write_is_kept() {
    let node = Node::start().await;
    let mut invalid = debugger("bad");
    invalid["ports"] = json!([{"containerPort": 80}]);
    let answer = node
        .put(&node.with(&json!([debugger("good"), invalid])).await)
        .await;
    let cause = ("FieldValueForbidden", "spec.ephemeralContainers[1].ports");
    assert_eq!(outcome(&answer), (422, "Invalid", vec![cause]));
    assert_eq!(answer.1["details"]["kind"], "Pod");
    assert!(names(&node.get(POD).await.1).is_empty());
}

#[tokio::test]
async fn a_body_of_another_pod_of_nothing_or_of_the_wrong_type_is_a_bad_request() {
    let node = Node::start().await;
    let mut renamed = node.with(&json!([debugger("dbg")])).await;
    renamed["metadata"]["name"] = json!("other");
    let mut moved = node.with(&json!([debugger("dbg")])).await;
    moved["metadata"]["namespace"] = json!("other");
    let mut container = debugger("dbg");
    container["command"] = json!("sleep");
    let mistyped = node.with(&json!([container])).await;
    for body in [
        &renamed,
        &moved,
        &mistyped,
        &json!({}),
        &json!([]),
        &json!({"kind": "Node", "apiVersion": "v1"}),
    ] {
        assert_eq!(
            outcome(&node.put(body).await),
            (400, "BadRequest", vec![]),
            "{body}"
        );
    }
    let (_, status) = node.put(&mistyped).await;
    let message = status["message"].as_str().expect("a message");
    assert!(
        message.starts_with("spec.ephemeralContainers[0].command: "),
        "{message}"
    );
}

#[tokio::test]
async fn a_write_to_an_older_version_or_another_pod_of_the_name_is_a_conflict() {
    let node = Node::start().await;
    let mut stale = node.with(&json!([debugger("dbg")])).await;
    stale["metadata"]["resourceVersion"] = json!("1");
    let mut other = node.with(&json!([debugger("dbg")])).await;
    other["metadata"]["uid"] = json!("other");
    for pod in [stale, other] {
        let answer = node.put(&pod).await;
        assert_eq!(outcome(&answer), (409, "Conflict", vec![]));
        assert_eq!(answer.1["details"]["kind"], "pods");
    }
    let patch =
        json!({"metadata": {"resourceVersion": "1"}, "spec": {"ephemeralContainers": [debugger("dbg")]}});
    assert_eq!(
        outcome(&node.patch(STRATEGIC, &patch).await),
        (409, "Conflict", vec![])
    );
}

#[tokio::test]
async fn patches_in_their_three_forms_add_an_entry() {
    let node = Node::start().await;
    let list = |name: &str| json!({"spec": {"ephemeralContainers": [debugger(name)]}});
    let (code, pod) = node.patch("application/merge-patch+json", &list("one")).await;
    assert_eq!((code, names(&pod)), (200, vec!["one"]));
    let (code, pod) = node.patch(STRATEGIC, &list("two")).await;
    assert_eq!((code, names(&pod)), (200, vec!["one", "two"]));
    let add = json!([{"op": "add", "path": "/spec/ephemeralContainers/-", "value": debugger("three")}]);
    let (code, pod) = node.patch("application/json-patch+json", &add).await;
    assert_eq!((code, names(&pod)), (200, vec!["one", "two", "three"]));
}

#[tokio::test]
async fn patches_at_once_all_arrive() {
    let node = Arc::new(Node::start().await);
    let patches = (0..4).map(|index| {
        let node = Arc::clone(&node);
        tokio::spawn(async move {
            let patch = json!({"spec": {"ephemeralContainers": [debugger(&format!("d{index}"))]}});
            node.patch(STRATEGIC, &patch).await.0
        })
    });
    for patch in patches.collect::<Vec<_>>() {
        assert_eq!(patch.await.expect("done"), 200);
    }
    let (_, pod) = node.get(POD).await;
    let mut names = names(&pod);
    names.sort_unstable();
    assert_eq!(names, ["d0", "d1", "d2", "d3"]);
}

#[tokio::test]
async fn a_patch_that_cannot_be_done_says_why() {
    let node = Node::start().await;
    let patch = json!({"spec": {}});
    for media_type in ["text/plain", "", "application/apply-patch+yaml"] {
        let answer = node.patch(media_type, &patch).await;
        assert_eq!(
            outcome(&answer),
            (415, "UnsupportedMediaType", vec![]),
            "{media_type}"
        );
    }
    let mistyped = json!({"spec": {"ephemeralContainers": [{"name": "dbg", "command": "sleep"}]}});
    let answer = node.patch(STRATEGIC, &mistyped).await;
    assert_eq!(
        outcome(&answer),
        (422, "Invalid", vec![("FieldValueInvalid", "patch")])
    );
    let renaming = json!({"metadata": {"name": "other"}});
    let answer = node.patch(STRATEGIC, &renaming).await;
    assert_eq!(
        outcome(&answer),
        (422, "Invalid", vec![("FieldValueInvalid", "metadata.name")])
    );
    let answer = node
        .request("PATCH", &format!("{EPHEMERAL}?dryRun=All"), STRATEGIC, &patch)
        .await;
    assert_eq!(outcome(&answer), (400, "BadRequest", vec![]));
}

#[tokio::test]
async fn fields_that_a_pod_does_not_have_are_warned_of_refused_or_ignored() {
    let node = Node::start().await;
    let mut misspelt = debugger("dbg");
    misspelt["imag"] = json!("x");
    let pod = node.with(&json!([misspelt])).await;
    let strict = format!("{EPHEMERAL}?fieldValidation=Strict");
    let answer = node.request("PUT", &strict, "application/json", &pod).await;
    assert_eq!(outcome(&answer), (400, "BadRequest", vec![]));
    let mut client = node.connect().await;
    let response = send(&mut client, "PUT", EPHEMERAL, "application/json", pod.to_string()).await;
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.headers()["warning"],
        r#"299 - "unknown field \"spec.ephemeralContainers[0].imag\"""#
    );
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let node = Node::start().await;
    let large = json!({"x": "x".repeat(super::request::MAX_BODY_BYTES)});
    let answer = node.patch(STRATEGIC, &large).await;
    assert_eq!(outcome(&answer), (413, "RequestEntityTooLarge", vec![]));
}

#[tokio::test]
async fn a_launch_is_shown_stopped_and_watched_to_its_end() {
    let node = Node::start().await;
    let launch = "/apis/debuglet.io/v1alpha1/namespaces/default/pods/web/launches/dbg";
    let answer = node.get(launch).await;
    assert_eq!(outcome(&answer), (404, "NotFound", vec![]));
    let patch = json!({"spec": {"ephemeralContainers": [debugger("dbg")]}});
    assert_eq!(node.patch(STRATEGIC, &patch).await.0, 200);
    let (code, shown) = node.get(launch).await;
    assert_eq!(
        (code, &shown["kind"], &shown["stage"]),
        (200, &json!("Launch"), &json!("Accepted"))
    );
    let path = format!("{launch}?watch=true");
    let response = send(&mut node.connect().await, "GET", &path, "", String::new()).await;
    let mut watch = Watch {
        body: response.into_body(),
        rest: Vec::new(),
    };
    assert_eq!(watch.next().await.expect("a line")["stage"], "Accepted");
    for _ in 0..2 {
        let (code, stopped) = node
            .request("POST", &format!("{launch}/stop"), "", &Value::Null)
            .await;
        assert_eq!((code, &stopped["container"]), (200, &json!("dbg")));
    }
    let answer = node
        .request("POST", &format!("{launch}/flushlog"), "", &Value::Null)
        .await;
    assert_eq!(outcome(&answer), (409, "Conflict", vec![]));
}

#[tokio::test]
async fn an_ordinary_container_has_no_launch_and_is_not_stopped() {
    let node = Node::start().await;
    let launch = "/apis/debuglet.io/v1alpha1/namespaces/default/pods/web/launches/main";
    assert_eq!(outcome(&node.get(launch).await), (404, "NotFound", vec![]));
    let answer = node
        .request("POST", &format!("{launch}/stop"), "", &Value::Null)
        .await;
    assert_eq!(outcome(&answer), (409, "Conflict", vec![]));
}

#[tokio::test]
async fn the_node_report_and_discovery_are_served() {
    let node = Node::start().await;
    let (_, report) = node.get("/apis/debuglet.io/v1alpha1/node").await;
    assert_eq!(
        (&report["kind"], &report["nodeName"]),
        (&json!("NodeReport"), &json!("node1"))
    );
    for (path, kind) in [
        ("/api", "APIVersions"),
        ("/apis", "APIGroupList"),
        ("/apis/debuglet.io", "APIGroup"),
        ("/api/v1", "APIResourceList"),
        ("/apis/debuglet.io/v1alpha1", "APIResourceList"),
        ("/api/v1/events", "EventList"),
        ("/api/v1/namespaces/default/events", "EventList"),
    ] {
        let (code, answer) = node.get(path).await;
        assert_eq!((code, &answer["kind"]), (200, &json!(kind)), "{path}");
    }
    let (_, version) = node.get("/version").await;
    assert_eq!(version["major"], "1");
    assert_eq!(node.get("/livez").await.0, 200);
    assert_eq!(node.get("/readyz").await.0, 200);
}
