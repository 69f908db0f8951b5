//! Lists, watches and discovery.

use super::*;
use crate::store::problems::ProblemKind;

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
    for (path, message) in [
        ("namespaces/default/pods/none", "pods \"none\" not found"),
        ("namespaces/default/pods/none/log", "pods \"none\" not found"),
        ("namespaces/default/events/none", "events \"none\" not found"),
        ("namespaces/none", "namespaces \"none\" not found"),
        ("nodes/none", "nodes \"none\" not found"),
    ] {
        let answer = node.get(&format!("/api/v1/{path}")).await;
        assert_eq!(outcome(&answer), (404, "NotFound", vec![]), "{path}");
        assert_eq!(answer.1["message"], message, "{path}");
    }
    let answer = node.get("/api/v1/secrets").await;
    assert_eq!(outcome(&answer), (404, "NotFound", vec![]));
    let answer = node
        .request("PUT", "/api/v1/namespaces/default/pods", "", &Value::Null)
        .await;
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

#[tokio::test]
async fn a_problem_that_keeps_the_agent_from_its_work_is_in_the_node_report_and_readyz_fails_until_it_is_solved()
 {
    let node = Node::start().await;
    let kind = ProblemKind::RuntimeNotReady;
    node.store
        .problem(kind, "/run/c.sock", "", "The runtime is away.");
    let (_, report) = node.get("/apis/debuglet.io/v1alpha1/node").await;
    assert_eq!(report["problems"][0]["message"], "The runtime is away.");
    assert_eq!(node.get("/readyz").await.0, 500);
    assert_eq!(node.get("/livez").await.0, 200);
    node.store.solved(kind, "/run/c.sock");
    assert_eq!(node.get("/readyz").await.0, 200);
}

#[tokio::test]
async fn the_openapi_v2_document_is_there_in_the_form_that_older_clients_read() {
    let node = Node::start().await;
    let (code, document) = node.get("/openapi/v2").await;
    assert_eq!((code, &document["swagger"]), (200, &json!("2.0")));
    let form = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let answered = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    let request = Request::builder()
        .uri("/openapi/v2")
        .header("host", "node")
        .header("accept", form);
    let request = request.body(Full::from(String::new())).expect("a request");
    let response = node
        .connect()
        .await
        .send_request(request)
        .await
        .expect("an answer");
    assert_eq!(response.headers()["content-type"], answered);
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    // Field 1, a text of three bytes: `swagger`.
    assert_eq!(&body[..5], b"\x0a\x032.0");
}
