//! Clients that hang up before they are answered: what they began is done, and the log and the events tell who began it.

use std::time::Duration;

use axum::http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::time::timeout;

use super::lists::uid;
use super::*;
use crate::kubernetes::scripted::Scripted;
use crate::logging::tests::{Kept, kept_log};
use crate::pod::discovered::volumes::MountedVolumes;
use crate::pod::discovered::{DiscoveredPod, Owner};
use crate::store::discovered::Discovered;
use crate::store::kubernetes::KubernetesChange;
use crate::store::progress::Report;
use crate::write_threads::tests::occupy;

/// A hang in a test.
const SOON: Duration = Duration::from_secs(20);

impl Node {
    /// Sends a request and hangs up once `begun` returns. Returns when the server has taken notice: it has closed the
    /// connection without an answer.
    async fn hang_up(
        &self,
        method: &str,
        path: &str,
        head: &str,
        body: &Value,
        begun: impl Future<Output = ()>,
    ) {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let mut stream = UnixStream::connect(self.folder.path().join(SOCKET))
            .await
            .expect("a connection");
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: node\r\n{head}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.expect("sent");
        timeout(SOON, begun).await.expect("it begins");
        stream.shutdown().await.expect("hung up");
        let mut answer = Vec::new();
        let read = timeout(SOON, stream.read_to_end(&mut answer)).await;
        read.expect("it is closed").expect("in good order");
        assert_eq!(String::from_utf8_lossy(&answer), "", "nothing is answered");
    }

    /// The messages of the events with this reason.
    async fn told_in_events(&self, reason: &str) -> Vec<String> {
        let (_, list) = self.get("/api/v1/events").await;
        let events = list["items"].as_array().into_iter().flatten();
        let events = events.filter(|event| event["reason"] == reason);
        events
            .filter_map(|event| event["message"].as_str().map(str::to_owned))
            .collect()
    }
}

/// The lines of the log that tell who did this, without what is in every line.
fn told_in_log(log: &Kept, what: &str) -> Vec<Value> {
    let text = log.text();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines
        .filter(|line| line["message"] == what)
        .map(|mut line| {
            let fields = line.as_object_mut().expect("an object");
            for everywhere in ["timestamp", "level", "message"] {
                fields.shift_remove(everywhere);
            }
            line
        })
        .collect()
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(SOON, waiting).await.is_ok(), "{what}");
}

#[tokio::test]
async fn a_stop_whose_client_has_hung_up_is_told_and_the_shutdown_waits_for_it() {
    let (log, _guard) = kept_log();
    let mut node = Node::start().await;
    let patch = json!({"spec": {"ephemeralContainers": [debugger("dbg")]}});
    assert_eq!(node.patch(STRATEGIC, &patch).await.0, 200);
    let launch = "/apis/debuglet.io/v1alpha1/namespaces/default/pods/web/launches/dbg";
    let release = occupy(node.store.write_threads()).await;
    let stop = format!("{launch}/stop");
    node.hang_up("POST", &stop, "", &Value::Null, async {}).await;
    assert_eq!(node.told_in_events("StopRequested").await, Vec::<String>::new());

    node.shutdown.cancel();
    let early = timeout(Duration::from_millis(300), &mut node.serving).await;
    assert!(early.is_err(), "the write is under way");
    drop(release);
    timeout(SOON, &mut node.serving)
        .await
        .expect("it ends")
        .expect("in good order");
    assert_eq!(
        told_in_log(&log, "create pods/launches/stop"),
        [json!({
            "user": "debuglet:root", "way_in": "socket", "pod": "default/web", "container": "dbg",
            "outcome": "200 OK",
        })]
    );
    let events = node
        .store
        .list::<k8s_openapi::api::core::v1::Event>(crate::pod::visibility::Audience::Node);
    let stops = events
        .1
        .iter()
        .filter(|event| event.reason.as_deref() == Some("StopRequested"));
    assert_eq!(stops.count(), 1);
}

/// The pod `shop/till`, which a kubelet runs and the API server has.
async fn run_tills_pod(node: &Node) -> Value {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "till", "namespace": "shop", "uid": "u1", "resourceVersion": "7"},
        "spec": {"containers": [{"name": "main", "image": "busybox:1"}], "securityContext": {}},
    });
    let read = || serde_json::from_value::<Pod>(pod.clone()).expect("a pod");
    let uids = std::collections::BTreeSet::from(["u1".to_owned()]);
    let refused = node
        .store
        .apply_discovered(Discovered {
            changed: vec![DiscoveredPod {
                pod: read(),
                owner: Owner::Kubelet,
                sandbox_id: "s1".to_owned(),
                manifest: None,
                volumes: MountedVolumes::default(),
                etc_hosts: None,
                kubelet_root: None,
            }],
            ready: uids.clone(),
            listed: uids,
            complete: true,
        })
        .await;
    assert!(refused.unwrap().is_empty());
    node.store.apply_kubernetes(KubernetesChange::All(vec![read()]));
    pod
}

#[tokio::test]
async fn what_the_api_server_took_for_a_client_that_has_hung_up_is_told_with_its_user() {
    let (log, _guard) = kept_log();
    let api_server = Scripted::start(|_, _| {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "till", "namespace": "shop", "uid": "u1", "resourceVersion": "8"},
            "spec": {
                "containers": [{"name": "main", "image": "busybox:1"}],
                "ephemeralContainers": [debugger("dbg")],
            },
        });
        (200, pod)
    })
    .await;
    let node = Node::start_with(Some(Arc::clone(&api_server.api_server))).await;
    run_tills_pod(&node).await;
    api_server.hold(true);
    let path = "/api/v1/namespaces/shop/pods/till/ephemeralcontainers";
    let patch = json!({"spec": {"ephemeralContainers": [debugger("dbg")]}});
    let head = format!("content-type: {STRATEGIC}\r\n");
    let asked = until("the API server is asked", async || {
        api_server.count(&Method::PATCH, "/ephemeralcontainers") == 1
    });
    node.hang_up("PATCH", path, &head, &patch, asked).await;
    api_server.hold(false);
    until("it is told", async || {
        !told_in_log(&log, "patch pods/ephemeralcontainers").is_empty()
    })
    .await;
    assert_eq!(
        told_in_log(&log, "patch pods/ephemeralcontainers"),
        [json!({
            "user": "debuglet:root", "way_in": "socket", "pod": "shop/till", "container": "dbg",
            "outcome": "200 OK",
        })]
    );
    assert_eq!(
        node.told_in_events("EphemeralContainerRequested").await,
        ["Ephemeral container dbg was asked for by debuglet:root, over the socket"]
    );
}

#[tokio::test]
async fn a_stream_ends_with_its_client_also_before_it_is_open_and_that_is_told() {
    let (log, _guard) = kept_log();
    let node = Node::start().await;
    let status = json!({
        "phase": "Running",
        "containerStatuses": [{
            "name": "main", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "containerID": "containerd://c1", "state": {"running": {}},
        }],
    });
    node.store.report(
        &uid(&node, POD).await,
        Report {
            status: serde_json::from_value(status).expect("a status"),
            launches: BTreeMap::new(),
            foreign: Default::default(),
        },
    );
    // A runtime that accepts and says nothing.
    let runtime = UnixListener::bind(node.folder.path().join("no-runtime.sock")).expect("a socket");
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (what, path) in [
        ("create pods/exec", "exec?container=main&command=id&stdout=1"),
        ("create pods/attach", "attach?container=main&stdout=1"),
        ("create pods/portforward", "portforward?ports=80"),
        ("get pods/log", "log?container=main"),
    ] {
        let head = if what == "get pods/log" { "" } else { upgrade };
        // The handler is under way once the runtime is asked; the connection stays for the later ones.
        node.hang_up("GET", &format!("{POD}/{path}"), head, &Value::Null, async {})
            .await;
        let mut expected = json!({
            "user": "debuglet:root", "way_in": "socket", "pod": "default/web", "outcome": "no answer",
        });
        if what != "create pods/portforward" {
            expected["container"] = json!("main");
        }
        assert_eq!(told_in_log(&log, what), [expected], "{what}");
    }
    drop(runtime);
}
