//! What users of the cluster are answered about what only this node has: as if it were not there.

use axum::Router;
use axum::extract::Extension;
use hyper::upgrade::OnUpgrade;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateRunning, ContainerStatus, PodStatus};
use tower::ServiceExt;

use super::super::connection::{ReadDuty, Watchers};
use super::super::discovery::RESOURCES;
use super::super::identity::Identity;
use super::super::reached::Reached;
use super::super::router;
use super::super::stream_end::StreamEnd;
use super::lists::{happened, names_of, uid};
use super::verbs::{Names, VERBS, request};
use super::*;
use crate::kubernetes::cluster_users::User;
use crate::pod::container_path::ContainerPath;
use crate::pod::visibility::Audience;
use crate::store::events::Happening;
use crate::store::node_report::ManifestProblem;
use crate::store::problems::ProblemKind;
use crate::store::progress::Report;

/// A pod that was created over the API.
const OPEN: &str = "/api/v1/namespaces/default/pods/open";
const OPEN_EPHEMERAL: &str = "/api/v1/namespaces/default/pods/open/ephemeralcontainers";

/// What must not come out: names and words of what is hidden.
const HIDDEN: [&str; 4] = ["cart", "shop", "of-root", "secret-word"];

/// The API as a user of the cluster meets it who has all rights there.
struct ClusterUser(Router);

impl ClusterUser {
    fn of(node: &Node) -> ClusterUser {
        let context = context(node.folder.path(), &node.store, &node.shutdown);
        let user = User {
            name: "jane".to_owned(),
            ..User::default()
        };
        let watchers = Watchers::new("watchers", "Clients").expect("a gauge");
        let router = router(Arc::new(context))
            .layer(Extension(Identity::of_user(Arc::new(user))))
            .layer(Extension(StreamEnd::new(&node.shutdown)))
            .layer(Extension(ReadDuty::counted_by(watchers)));
        ClusterUser(router)
    }

    async fn text(&self, method: &str, path: &str, media_type: &str, body: &Value) -> (u16, String) {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", media_type)
            .body(axum::body::Body::from(body))
            .expect("a request");
        self.answer(request).await
    }

    /// Asks for a stream in this protocol, over a connection that could be upgraded to it.
    async fn stream(&self, method: &str, path: &str, protocol: &str) -> (u16, String) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("connection", "upgrade")
            .header("upgrade", protocol)
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .extension::<OnUpgrade>(hyper::upgrade::on(Request::new(())))
            .body(axum::body::Body::empty())
            .expect("a request");
        self.answer(request).await
    }

    async fn answer(&self, request: Request<axum::body::Body>) -> (u16, String) {
        let response = self.0.clone().oneshot(request).await.expect("an answer");
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (code, String::from_utf8_lossy(&body).into_owned())
    }

    async fn ask(&self, method: &str, path: &str, media_type: &str, body: &Value) -> (u16, Value) {
        let (code, text) = self.text(method, path, media_type, body).await;
        (code, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.ask("GET", path, "", &Value::Null).await
    }
}

/// The node with a pod that was created over the API, in which root has asked for a container over the socket, and a user
/// of the cluster for another; both run. The pod `shop/cart` of a manifest is hidden, and so is its namespace.
async fn node() -> (Node, ClusterUser) {
    let node = Node::start().await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "open", "namespace": "default"},
        "spec": {"containers": [{"name": "main", "image": "docker.io/library/busybox:latest"}]},
    });
    let (code, created) = node
        .request("POST", "/api/v1/namespaces/default/pods", JSON, &pod)
        .await;
    assert_eq!(code, 201, "{created}");
    let mut secret = debugger("of-root");
    secret["command"] = json!(["secret-word"]);
    secret["targetContainerName"] = json!("main");
    let launch = "/apis/debuglet.io/v1alpha1/namespaces/default/pods/open/launches/of-root";
    let body = json!({"container": secret, "copyMounts": {"from": "main"}});
    assert_eq!(node.request("POST", launch, JSON, &body).await.0, 201);
    let user = ClusterUser::of(&node);
    let patch = json!({"spec": {"ephemeralContainers": [debugger("of-user")]}});
    let (code, patched) = user.ask("PATCH", OPEN_EPHEMERAL, STRATEGIC, &patch).await;
    assert_eq!((code, names(&patched)), (200, vec!["of-user"]));
    report(&node, "running").await;
    let uids = [
        uid(&node, "/api/v1/namespaces/shop/pods/cart").await,
        uid(&node, OPEN).await,
    ];
    for (uid, container) in uids.iter().zip(["main", "of-root"]) {
        let container = match container {
            "main" => ContainerPath::Ordinary("main".to_owned()),
            name => ContainerPath::Ephemeral(name.to_owned()),
        };
        let happening = Happening {
            message: "secret-word".to_owned(),
            container: Some(container),
            ..happened("Failed")
        };
        node.store.record_event(uid, happening);
    }
    node.store.report_node(|report| {
        report.manifests.problems.push(ManifestProblem {
            file: "shop.yaml".to_owned(),
            pod: "shop/cart".to_owned(),
            message: "secret-word".to_owned(),
        });
    });
    let kind = ProblemKind::RuntimeNotReady;
    node.store.problem(kind, "of-root", "shop/cart", "secret-word");
    (node, user)
}

/// Reports, as the worker of the open pod does, that both debug containers run.
async fn report(node: &Node, message: &str) {
    let running = |name: &str| ContainerStatus {
        name: name.to_owned(),
        container_id: Some(format!("containerd://{name}")),
        state: Some(ContainerState {
            running: Some(ContainerStateRunning::default()),
            ..ContainerState::default()
        }),
        image: if name == "of-root" {
            message.to_owned()
        } else {
            String::new()
        },
        ..ContainerStatus::default()
    };
    let report = Report {
        status: PodStatus {
            phase: Some("Running".to_owned()),
            ephemeral_container_statuses: Some(vec![running("of-root"), running("of-user")]),
            ..PodStatus::default()
        },
        launches: BTreeMap::new(),
        foreign: Default::default(),
    };
    node.store.report(&uid(node, OPEN).await, report);
}

/// Whether a resource is served over an upgraded connection.
fn is_stream(resource: &str) -> bool {
    matches!(resource, "pods/attach" | "pods/exec" | "pods/portforward")
}

/// The answer to each verb of each resource, for these names; to a stream in each protocol that it is served in.
async fn answers(user: &ClusterUser, names: &Names<'_>) -> Vec<(String, u16, String)> {
    let mut answers = Vec::new();
    for resource in RESOURCES {
        for verb in VERBS.into_iter().filter(|verb| resource.verbs.contains(verb)) {
            let Some((method, mut path)) = request(resource, verb, names) else {
                continue;
            };
            if is_stream(resource.name) {
                continue;
            }
            if resource.name == "pods/log" {
                path = format!("{path}?container={}", names.container);
            }
            let media_type = if method == "PATCH" { MERGE } else { JSON };
            let body = if matches!(method, "PATCH" | "PUT") {
                json!({"metadata": {"name": names.object, "namespace": names.namespace}})
            } else {
                Value::Null
            };
            let (code, text) = user.text(method, &path, media_type, &body).await;
            answers.push((format!("{verb} {}", resource.name), code, text));
        }
    }
    answers.extend(answers_to_streams(user, names).await);
    answers
}

/// The answer to each verb of each stream, in each protocol that it is served in.
async fn answers_to_streams(user: &ClusterUser, names: &Names<'_>) -> Vec<(String, u16, String)> {
    let mut answers = Vec::new();
    for resource in RESOURCES.iter().filter(|resource| is_stream(resource.name)) {
        for (verb, protocol) in [("get", "websocket"), ("get", "SPDY/3.1"), ("create", "SPDY/3.1")] {
            let (method, path) = request(resource, verb, names).expect("it is served so");
            let path = format!(
                "{path}?container={}&command=id&stdout=1&ports=80",
                names.container
            );
            let (code, text) = user.stream(method, &path, protocol).await;
            answers.push((format!("{verb} {} {protocol}", resource.name), code, text));
        }
    }
    answers
}

#[tokio::test]
async fn no_answer_of_any_resource_tells_a_user_of_the_cluster_of_a_hidden_pod() {
    let (node, user) = node().await;
    let (_, events) = node.get("/api/v1/namespaces/shop/events").await;
    let event = names_of(&events)[0].to_owned();
    let hidden = |object| Names {
        namespace: "shop",
        object,
        container: "main",
    };
    let nothing = |object| Names {
        namespace: "nowhere",
        object,
        container: "main",
    };
    for (object, other) in [("cart", "gone"), (event.as_str(), "no-event")] {
        let (told, expected) = (
            answers(&user, &hidden(object)).await,
            answers(&user, &nothing(other)).await,
        );
        assert!(told.len() > 20);
        for ((what, code, text), (_, expected_code, expected)) in told.into_iter().zip(expected) {
            // Versions count on, whatever is seen of their changes.
            let plain = |text: &str, object: &str, namespace: &str| {
                let text = text.replace(object, "OBJECT").replace(namespace, "NAMESPACE");
                match serde_json::from_str::<Value>(&text) {
                    Ok(mut value) => {
                        value["metadata"]["resourceVersion"] = Value::Null;
                        value.to_string()
                    }
                    Err(_) => text,
                }
            };
            assert_eq!(
                (code, plain(&text, object, "shop")),
                (expected_code, plain(&expected, other, "nowhere")),
                "{what}"
            );
            assert!(!text.contains("secret-word"), "{what}: {text}");
        }
    }
}

#[tokio::test]
async fn no_answer_of_any_resource_tells_a_user_of_the_cluster_of_a_hidden_container() {
    let (_node, user) = node().await;
    let of = |container| Names {
        namespace: "default",
        object: "open",
        container,
    };
    // What is deleted is another pod: the answers are of one that stays.
    let told = answers(&user, &of("of-root")).await;
    for (what, _, text) in &told {
        // Where the path names the container, the answer may say that there is none.
        let names_it = ["exec", "attach", "log", "launches"]
            .iter()
            .any(|part| what.contains(part));
        for word in HIDDEN.into_iter().filter(|word| *word != "of-root" || !names_it) {
            assert!(!text.contains(word), "{what}: {text}");
        }
    }
    // As of a container that is not there; the lists and the pod itself are compared by their words above.
    let (_other, user) = node().await;
    let expected = answers(&user, &of("nothing")).await;
    for ((what, code, text), (_, expected_code, expected)) in told.into_iter().zip(expected) {
        assert_eq!(code, expected_code, "{what}: {text}");
        if ["/log", "launches", "/exec", "/attach"]
            .iter()
            .any(|part| what.contains(part))
        {
            assert_eq!(
                text.replace("of-root", "X"),
                expected.replace("nothing", "X"),
                "{what}"
            );
        }
    }
}

#[tokio::test]
async fn a_user_of_the_cluster_opens_a_stream_in_each_protocol_to_what_he_sees() {
    let (_node, user) = node().await;
    let of_user = Names {
        namespace: "default",
        object: "open",
        container: "of-user",
    };
    let streams = answers_to_streams(&user, &of_user).await;
    assert_eq!(streams.len(), 9, "exec, attach and port-forward: {streams:?}");
    for (what, code, text) in streams {
        // There is no runtime here: that one is missed shows how far the request came.
        let missed = ["no-runtime.sock", "the runtime does not answer"];
        assert!(
            code == 500 && missed.iter().any(|words| text.contains(words)),
            "{what}: {code} {text}"
        );
    }
}

#[tokio::test]
async fn a_session_is_with_a_pod_and_a_container_that_its_user_still_sees() {
    let (node, user) = node().await;
    let open = node.store.pod("default", "open").expect("the open pod");
    let cart = node.store.pod("shop", "cart").expect("the hidden pod");
    let mut namesake = Pod::clone(&open);
    namesake.metadata.uid = Some("another".to_owned());
    for (audience, pod, container, expected) in [
        (Audience::Cluster, &*open, None, true),
        (Audience::Cluster, &open, Some("main"), true),
        (Audience::Cluster, &open, Some("of-user"), true),
        (Audience::Cluster, &open, Some("of-root"), false),
        (Audience::Node, &open, Some("of-root"), true),
        (Audience::Cluster, &cart, None, false),
        (Audience::Cluster, &cart, Some("main"), false),
        (Audience::Node, &cart, Some("main"), true),
        (Audience::Cluster, &namesake, None, false),
    ] {
        let reached = Reached::new(audience, pod, container);
        assert_eq!(reached.is_seen(&node.store), expected, "{reached:?}");
    }
    let reached = Reached::new(Audience::Cluster, &open, Some("main"));
    let delete = format!("{OPEN}?gracePeriodSeconds=0");
    assert_eq!(user.ask("DELETE", &delete, "", &Value::Null).await.0, 200);
    assert!(!reached.is_seen(&node.store));
}

#[tokio::test]
async fn in_every_list_and_watch_a_user_of_the_cluster_sees_the_open_pod_and_what_he_asked_for() {
    let (node, user) = node().await;
    for (path, expected) in [
        ("/api/v1/pods", vec!["open"]),
        ("/api/v1/namespaces/shop/pods", vec![]),
        ("/api/v1/pods?fieldSelector=metadata.name%3Dcart", vec![]),
        ("/api/v1/namespaces", vec!["default"]),
        ("/api/v1/nodes", vec!["node1"]),
    ] {
        let (code, list) = user.get(path).await;
        assert_eq!((code, names_of(&list)), (200, expected), "{path}");
    }
    assert_eq!(
        node.get("/api/v1/pods").await.1["items"].as_array().map(Vec::len),
        Some(3)
    );
    let (_, events) = user.get("/api/v1/events").await;
    let messages: Vec<_> = events["items"].as_array().into_iter().flatten().collect();
    assert_eq!(messages.len(), 1, "{events}");
    assert_eq!(messages[0]["reason"], "EphemeralContainerRequested");
    assert_eq!(
        messages[0]["message"],
        "Ephemeral container of-user was asked for by jane, as a user of the cluster"
    );
    let (_, pod) = user.get(OPEN).await;
    assert_eq!(names(&pod), ["of-user"]);
    let statuses = pod["status"]["ephemeralContainerStatuses"]
        .as_array()
        .expect("statuses");
    assert_eq!((statuses.len(), &statuses[0]["name"]), (1, &json!("of-user")));
    assert_eq!(
        pod["metadata"]["annotations"],
        json!({"debuglet.io/source": "api", "debuglet.io/asked-by": r#"{"of-user":{"user":"jane","wayIn":"cluster"}}"#})
    );

    // root sees all of it, and who asked.
    let (_, pod) = node.get(OPEN).await;
    assert_eq!(names(&pod), ["of-root", "of-user"]);
    let asked: Value = serde_json::from_str(
        pod["metadata"]["annotations"]["debuglet.io/asked-by"]
            .as_str()
            .expect("who asked"),
    )
    .expect("JSON");
    assert_eq!(
        asked["of-root"],
        json!({"user": "debuglet:root", "wayIn": "socket"}),
        "{asked}"
    );
}

#[tokio::test]
async fn a_user_of_the_cluster_neither_removes_nor_replaces_the_containers_that_are_hidden_from_him() {
    let (node, user) = node().await;
    let (_, mut pod) = user.get(OPEN_EPHEMERAL).await;
    assert_eq!(names(&pod), ["of-user"]);
    let list = |containers: &[&str]| json!(containers.iter().map(|name| debugger(name)).collect::<Vec<_>>());
    // The whole list that he sees, with a new one: what he does not see stays.
    pod["spec"]["ephemeralContainers"] = list(&["of-user", "second"]);
    let (code, written) = user.ask("PUT", OPEN_EPHEMERAL, JSON, &pod).await;
    assert_eq!(
        (code, names(&written)),
        (200, vec!["of-user", "second"]),
        "{written}"
    );
    let (_, whole) = node.get(OPEN).await;
    assert_eq!(names(&whole), ["of-root", "of-user", "second"]);
    // What he does see he cannot leave out.
    pod["spec"]["ephemeralContainers"] = list(&["third"]);
    pod["metadata"]["resourceVersion"] = Value::Null;
    let refused = user.ask("PUT", OPEN_EPHEMERAL, JSON, &pod).await;
    assert_eq!(outcome(&refused).0, 422, "{refused:?}");
    // Nor does he stop what he does not see.
    let launch =
        |name: &str| format!("/apis/debuglet.io/v1alpha1/namespaces/default/pods/open/launches/{name}");
    for (name, expected) in [("of-root", 404), ("of-user", 200)] {
        let stopped = user
            .ask("POST", &format!("{}/stop", launch(name)), "", &Value::Null)
            .await;
        assert_eq!(stopped.0, expected, "{stopped:?}");
    }
}

#[tokio::test]
async fn of_a_hidden_name_a_user_of_the_cluster_who_wants_it_learns_that_it_is_in_use_and_nothing_else() {
    let (_node, user) = node().await;
    for dry_run in ["", "?dryRun=All"] {
        let patch = json!({"spec": {"ephemeralContainers": [debugger("of-root")]}});
        let path = format!("{OPEN_EPHEMERAL}{dry_run}");
        let (code, refused) = user.ask("PATCH", &path, STRATEGIC, &patch).await;
        let message = r#""of-root" is the name of another container on this node"#;
        let expected = json!({
            "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": 422,
            "reason": "Invalid",
            "message": format!(r#"Pod "open" is invalid: spec.ephemeralContainers[0].name: {message}"#),
            "details": {"kind": "Pod", "name": "open", "causes": [{
                "field": "spec.ephemeralContainers[0].name", "message": message, "reason": "FieldValueDuplicate",
            }]},
        });
        assert_eq!((code, refused), (422, expected), "{dry_run}");

        // The pod of a manifest, which a user sees nothing of.
        let cart = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "cart", "namespace": "shop"},
            "spec": {"containers": [{"name": "main", "image": "busybox:1"}]},
        });
        let path = format!("/api/v1/namespaces/shop/pods{dry_run}");
        let (code, refused) = user.ask("POST", &path, JSON, &cart).await;
        let expected = json!({
            "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": 409,
            "reason": "AlreadyExists",
            "message": r#"there is a pod "cart" in namespace "shop" already"#,
            "details": {"kind": "pods", "name": "cart"},
        });
        assert_eq!((code, refused), (409, expected), "{dry_run}");
    }
}

#[tokio::test]
async fn a_user_of_the_cluster_writes_at_the_version_that_he_sees_while_hidden_containers_change() {
    let (node, user) = node().await;
    let (_, seen) = user.get(OPEN).await;
    report(&node, "changed").await;
    let (_, again) = user.get(OPEN).await;
    assert_eq!(seen, again, "only the hidden container has changed");
    let (_, whole) = node.get(OPEN).await;
    assert_ne!(
        whole["metadata"]["resourceVersion"],
        seen["metadata"]["resourceVersion"]
    );
    let mut pod = seen;
    pod["metadata"]["labels"] = json!({"seen": "by-jane"});
    let (code, written) = user.ask("PUT", OPEN, JSON, &pod).await;
    assert_eq!(
        (code, &written["metadata"]["labels"]["seen"]),
        (200, &json!("by-jane")),
        "{written}"
    );
    let conflict = user.ask("PUT", OPEN, JSON, &pod).await;
    assert_eq!(outcome(&conflict).0, 409, "the version is an old one now");
}

#[tokio::test]
async fn nobody_acts_for_another_root_on_the_socket_neither() {
    let (node, _user) = node().await;
    for header in [
        "Impersonate-User",
        "Impersonate-Group",
        "Impersonate-Uid",
        "Impersonate-Extra-Scopes",
    ] {
        let request = Request::builder()
            .method("DELETE")
            .uri(OPEN)
            .header("host", "node")
            .header(header, "jane")
            .body(Full::default())
            .expect("a request");
        let response = node
            .connect()
            .await
            .send_request(request)
            .await
            .expect("an answer");
        let refused = answer_of(response).await;
        assert_eq!(outcome(&refused), (403, "Forbidden", vec![]), "{header}");
        let message = refused.1["message"].as_str().expect("a message");
        assert!(message.contains("impersonation is not served here"), "{message}");
    }
    assert_eq!(
        node.get(OPEN).await.1["metadata"]["deletionTimestamp"],
        Value::Null
    );
}
