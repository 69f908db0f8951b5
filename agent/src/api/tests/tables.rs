//! The forms of an answer: objects, tables and metadata, for every resource.

use super::lists::{happened, names_of, uid};
use super::*;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const METADATA: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";

async fn open(node: &Node, path: &str, accept: &str) -> Response<Incoming> {
    let request = Request::builder()
        .uri(path)
        .header("host", "node")
        .header("accept", accept)
        .body(Full::default())
        .expect("a request");
    let mut client = node.connect().await;
    client.send_request(request).await.expect("an answer")
}

async fn get_as(node: &Node, path: &str, accept: &str) -> (u16, Value) {
    let response = open(node, path, accept).await;
    let code = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/json");
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (code, serde_json::from_slice(&body).expect("JSON"))
}

pub(super) async fn watch_as(node: &Node, path: &str, accept: &str) -> Watch {
    let response = open(node, path, accept).await;
    assert_eq!(response.status(), 200, "{path}");
    Watch {
        body: response.into_body(),
        rest: Vec::new(),
    }
}

#[tokio::test]
async fn a_table_has_kubectls_columns_and_a_row_for_each_pod() {
    let node = Node::start().await;
    let (code, table) = get_as(&node, "/api/v1/pods", TABLE).await;
    assert_eq!(
        (code, &table["kind"], &table["apiVersion"]),
        (200, &json!("Table"), &json!("meta.k8s.io/v1"))
    );
    let columns = table["columnDefinitions"].as_array().expect("columns");
    let columns: Vec<(&str, u64)> = columns
        .iter()
        .map(|column| {
            (
                column["name"].as_str().expect("a name"),
                column["priority"].as_u64().expect("a priority"),
            )
        })
        .collect();
    assert_eq!(
        columns,
        [
            ("Name", 0),
            ("Ready", 0),
            ("Status", 0),
            ("Restarts", 0),
            ("Age", 0),
            ("IP", 1),
            ("Node", 1),
            ("Nominated Node", 1),
            ("Readiness Gates", 1)
        ]
    );
    let rows = table["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["cells"].as_array().expect("cells").len(), columns.len());
    assert_eq!(
        (&rows[0]["cells"][0], &rows[0]["cells"][1], &rows[0]["cells"][2]),
        (&json!("web"), &json!("0/1"), &json!("Pending"))
    );
    assert_eq!(rows[0]["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(rows[0]["object"]["metadata"]["name"], "web");
    assert!(rows[0]["object"].get("spec").is_none());
}

#[tokio::test]
async fn every_resource_is_given_as_a_table_with_as_many_cells_as_columns() {
    let node = Node::start().await;
    node.store
        .record_event(&uid(&node, POD).await, happened("Pulled"));
    for (path, kind, first) in [
        ("/api/v1/pods", "PodList", "Name"),
        ("/api/v1/namespaces/default/pods/web", "Pod", "Name"),
        ("/api/v1/namespaces/default/pods/web/status", "Pod", "Name"),
        ("/api/v1/events", "EventList", "Last Seen"),
        ("/api/v1/namespaces", "NamespaceList", "Name"),
        ("/api/v1/namespaces/shop", "Namespace", "Name"),
        ("/api/v1/nodes", "NodeList", "Name"),
        ("/api/v1/nodes/node1", "Node", "Name"),
    ] {
        let (code, object) = node.get(path).await;
        assert_eq!((code, &object["kind"]), (200, &json!(kind)), "{path}");
        let (_, table) = get_as(&node, path, TABLE).await;
        assert_eq!(table["columnDefinitions"][0]["name"], first, "{path}");
        let columns = table["columnDefinitions"].as_array().expect("columns").len();
        let rows = table["rows"].as_array().expect("rows");
        assert!(!rows.is_empty(), "{path}");
        for row in rows {
            assert_eq!(row["cells"].as_array().expect("cells").len(), columns, "{path}");
        }
        assert!(table["metadata"]["resourceVersion"].is_string(), "{path}");
    }
}

#[tokio::test]
async fn the_rows_of_a_table_carry_as_much_of_the_object_as_is_asked_for() {
    let node = Node::start().await;
    let (_, table) = get_as(&node, "/api/v1/pods?includeObject=Object", TABLE).await;
    assert_eq!(table["rows"][0]["object"]["kind"], "Pod");
    let (_, table) = get_as(&node, "/api/v1/pods?includeObject=None", TABLE).await;
    assert_eq!(table["rows"][0]["object"], Value::Null);
    let answer = get_as(&node, "/api/v1/pods?includeObject=Some", TABLE).await;
    assert_eq!(outcome(&answer), (400, "BadRequest", vec![]));
}

#[tokio::test]
async fn metadata_alone_is_given_for_one_and_for_many() {
    let node = Node::start().await;
    let (_, one) = get_as(&node, POD, METADATA).await;
    assert_eq!(
        (&one["kind"], &one["metadata"]["name"], one.get("spec")),
        (&json!("PartialObjectMetadata"), &json!("web"), None)
    );
    let (_, many) = get_as(&node, "/api/v1/pods", METADATA_LIST).await;
    assert_eq!(many["kind"], "PartialObjectMetadataList");
    assert_eq!(many["items"][1]["kind"], "PartialObjectMetadata");
    assert_eq!(names_of(&many), ["web", "cart"]);
    let mut watch = watch_as(&node, "/api/v1/pods?watch=true", METADATA).await;
    let line = watch.next().await.expect("a line");
    assert_eq!(
        (&line["type"], &line["object"]["kind"]),
        (&json!("ADDED"), &json!("PartialObjectMetadata"))
    );
}

#[tokio::test]
async fn a_form_that_there_is_not_is_not_acceptable() {
    let node = Node::start().await;
    let protobuf = "application/vnd.kubernetes.protobuf";
    for (path, accept) in [
        (POD, protobuf),
        ("/api/v1/pods", protobuf),
        ("/api/v1/pods?watch=true", protobuf),
        ("/api/v1/pods", METADATA),
        (POD, METADATA_LIST),
        ("/api/v1/pods?watch=true", METADATA_LIST),
    ] {
        let answer = get_as(&node, path, accept).await;
        assert_eq!(
            outcome(&answer),
            (406, "NotAcceptable", vec![]),
            "{path} {accept}"
        );
    }
    let (code, list) = get_as(&node, "/api/v1/pods", &format!("{protobuf},application/json")).await;
    assert_eq!((code, &list["kind"]), (200, &json!("PodList")));
}

#[tokio::test]
async fn a_watch_of_tables_tells_the_columns_once() {
    let node = Node::start().await;
    let query =
        "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = watch_as(&node, &format!("/api/v1/pods?{query}"), TABLE).await;
    let first = watch.next().await.expect("a line");
    assert_eq!(
        (&first["type"], &first["object"]["kind"]),
        (&json!("ADDED"), &json!("Table"))
    );
    assert!(first["object"]["columnDefinitions"].is_array());
    let second = watch.next().await.expect("a line");
    assert_eq!(second["object"]["columnDefinitions"], Value::Null);
    assert_eq!(second["object"]["rows"][0]["cells"][0], "cart");
    let bookmark = watch.next().await.expect("a line");
    assert_eq!(
        (&bookmark["type"], &bookmark["object"]["kind"]),
        (&json!("BOOKMARK"), &json!("Table"))
    );
    let metadata = &bookmark["object"]["rows"][0]["object"]["metadata"];
    assert_eq!(metadata["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(
        metadata["resourceVersion"],
        bookmark["object"]["metadata"]["resourceVersion"]
    );
}
