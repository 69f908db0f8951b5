//! Lists and watches: what every client reads, by the same rules for every resource.

use super::tables::watch_as;
use super::*;
use crate::pod::container_path::ContainerPath;
use crate::store::events::{Happening, Severity};

pub(super) fn names_of(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().into_iter().flatten();
    items
        .filter_map(|item| item["metadata"]["name"].as_str())
        .collect()
}

pub(super) fn happened(reason: &'static str) -> Happening {
    Happening {
        severity: Severity::Normal,
        reason,
        message: format!("it is {reason}"),
        container: Some(ContainerPath::Ordinary("main".to_owned())),
    }
}

pub(super) async fn uid(node: &Node, path: &str) -> String {
    let (_, pod) = node.get(path).await;
    pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}

/// Pods `shop/p0`, `shop/p1`, ... and no others.
async fn pods(node: &Node, count: usize) {
    node.manifests((0..count).map(|index| manifest("shop", &format!("p{index}"))))
        .await;
    for path in [POD, "/api/v1/namespaces/shop/pods/cart"] {
        node.store.forget(&uid(node, path).await).await.expect("gone");
    }
}

#[tokio::test]
async fn a_list_in_pieces_is_of_one_version_whatever_changes_between_them() {
    let node = Node::start().await;
    pods(&node, 5).await;
    let (_, first) = node.get("/api/v1/pods?limit=2").await;
    assert_eq!(names_of(&first), ["p0", "p1"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);

    // One goes that has not been listed yet, one comes.
    let gone = uid(&node, "/api/v1/namespaces/shop/pods/p3").await;
    let others = ["p0", "p1", "p2", "p4", "p2b"];
    node.manifests(others.map(|name| manifest("shop", name))).await;
    node.store.forget(&gone).await.expect("gone");

    let mut listed = Vec::new();
    let mut token = first["metadata"]["continue"].clone();
    while let Some(text) = token.as_str() {
        let (code, piece) = node.get(&format!("/api/v1/pods?limit=2&continue={text}")).await;
        assert_eq!(code, 200, "{piece}");
        assert_eq!(
            piece["metadata"]["resourceVersion"],
            first["metadata"]["resourceVersion"]
        );
        listed.extend(names_of(&piece).into_iter().map(str::to_owned));
        token = piece["metadata"]["continue"].clone();
    }
    assert_eq!(listed, ["p2", "p3", "p4"]);
    let (_, now) = node.get("/api/v1/pods").await;
    assert_eq!(names_of(&now), ["p0", "p1", "p2", "p2b", "p4"]);
    let version = first["metadata"]["resourceVersion"].as_str().expect("a version");
    let exact = format!("/api/v1/pods?resourceVersionMatch=Exact&resourceVersion={version}");
    assert_eq!(
        names_of(&node.get(&exact).await.1),
        ["p0", "p1", "p2", "p3", "p4"]
    );
}

#[tokio::test]
async fn a_list_that_cannot_go_on_as_it_was_says_so_and_how_to_go_on_all_the_same() {
    let node = Node::start().await;
    let uid = uid(&node, POD).await;
    for reason in ["Pulled", "Created", "Started"] {
        node.store.record_event(&uid, happened(reason));
    }
    let (_, whole) = node.get("/api/v1/events").await;
    let (_, first) = node.get("/api/v1/events?limit=1").await;
    assert_eq!(names_of(&first), names_of(&whole)[..1]);
    let token = first["metadata"]["continue"].as_str().expect("a token");
    for _ in 0..500 {
        node.store.record_event(&uid, happened("Started"));
    }
    let answer = node
        .get(&format!("/api/v1/events?limit=1&continue={token}"))
        .await;
    assert_eq!(outcome(&answer), (410, "Expired", vec![]));
    let fresh = answer.1["metadata"]["continue"].as_str().expect("a fresh token");
    let (code, rest) = node
        .get(&format!("/api/v1/events?limit=5&continue={fresh}"))
        .await;
    assert_eq!((code, names_of(&rest)), (200, names_of(&whole)[1..].to_vec()));
}

#[tokio::test]
async fn how_many_are_left_is_told_only_where_all_are_asked_for() {
    let node = Node::start().await;
    let (_, list) = node.get("/api/v1/pods?limit=1&labelSelector=app").await;
    assert!(list["metadata"]["continue"].is_string());
    assert!(list["metadata"].get("remainingItemCount").is_none());
    let (_, list) = node.get("/api/v1/pods?limit=2").await;
    assert!(list["metadata"].get("continue").is_none());
    let (_, list) = node.get("/api/v1/pods?limit=1&resourceVersion=0").await;
    assert_eq!(names_of(&list).len(), 2, "who takes any version gets all of them");
}

#[tokio::test]
async fn options_that_cannot_be_met_are_refused_as_by_kubernetes() {
    let node = Node::start().await;
    let invalid = |cause| (422, "Invalid", vec![cause]);
    let not_allowed = ("FieldValueForbidden", "resourceVersionMatch");
    for (query, expected) in [
        ("resourceVersionMatch=Exact", invalid(not_allowed)),
        ("watch=1&sendInitialEvents=true", invalid(not_allowed)),
        (
            "sendInitialEvents=true",
            invalid(("FieldValueForbidden", "sendInitialEvents")),
        ),
        (
            "resourceVersion=1&resourceVersionMatch=Newer",
            invalid(("FieldValueNotSupported", "resourceVersionMatch")),
        ),
        ("continue=nonsense", (400, "BadRequest", vec![])),
        ("limit=many", (400, "BadRequest", vec![])),
        ("limit=", (400, "BadRequest", vec![])),
        ("fieldSelector=status.podIPs%3Dx", (400, "BadRequest", vec![])),
        (
            "resourceVersion=1&resourceVersionMatch=Exact",
            (410, "Expired", vec![]),
        ),
    ] {
        let answer = node.get(&format!("/api/v1/pods?{query}")).await;
        assert_eq!(outcome(&answer), expected, "{query}");
    }
    let future = u64::MAX;
    for path in [
        format!("/api/v1/pods?resourceVersion={future}"),
        format!("/api/v1/events?resourceVersion={future}&resourceVersionMatch=NotOlderThan"),
        format!("{POD}?resourceVersion={future}"),
    ] {
        let answer = node.get(&path).await;
        let cause = ("ResourceVersionTooLarge", "");
        assert_eq!(outcome(&answer), (504, "Timeout", vec![cause]), "{path}");
        assert_eq!(answer.1["details"]["retryAfterSeconds"], 1, "{path}");
    }
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
    let path = format!("/api/v1/pods?{query}&resourceVersion={future}");
    let (code, line) = node.get(&path).await;
    assert_eq!((code, &line["type"]), (200, &json!("ERROR")));
    assert_eq!(line["object"]["code"], 504);
}

#[tokio::test]
async fn a_watch_that_wants_no_initial_events_begins_now() {
    let node = Node::start().await;
    let mut watch = node
        .watch("sendInitialEvents=false&resourceVersionMatch=NotOlderThan")
        .await;
    node.manifests([
        manifest("default", "web"),
        manifest("shop", "cart"),
        manifest("shop", "new"),
    ])
    .await;
    assert_eq!(watch.next_pod().await, told("ADDED", "new"));
}

#[tokio::test]
async fn pods_are_selected_by_every_field_that_kubernetes_knows() {
    let node = Node::start().await;
    for (field, found) in [
        ("spec.restartPolicy=Always", 2),
        ("spec.schedulerName=default-scheduler", 2),
        ("spec.serviceAccountName!=x", 2),
        ("spec.hostNetwork=false", 2),
        ("spec.hostNetwork=true", 0),
        ("status.phase=Pending", 2),
        ("status.podIP=", 2),
        ("status.nominatedNodeName=", 2),
        ("metadata.namespace=shop", 1),
    ] {
        let selector = field.replace('=', "%3D").replace('!', "%21");
        let (code, list) = node.get(&format!("/api/v1/pods?fieldSelector={selector}")).await;
        assert_eq!((code, names_of(&list).len()), (200, found), "{field}");
    }
}

#[tokio::test]
async fn events_are_selected_and_watched_without_waking_those_who_watch_pods() {
    let node = Node::start().await;
    let pods = node.store.versions();
    let before = *pods.borrow();
    let uid = uid(&node, POD).await;
    node.store.record_event(&uid, happened("Pulled"));
    assert_eq!(*pods.borrow(), before, "nobody who watches pods is woken");

    let selector =
        format!("involvedObject.name%3Dweb,involvedObject.namespace%3Ddefault,involvedObject.uid%3D{uid}");
    let (_, list) = node
        .get(&format!(
            "/api/v1/namespaces/default/events?fieldSelector={selector}"
        ))
        .await;
    assert_eq!(list["items"][0]["reason"], "Pulled");
    let version = list["metadata"]["resourceVersion"].as_str().expect("a version");
    assert_eq!(list["items"][0]["metadata"]["resourceVersion"], version);
    let other = "/api/v1/events?fieldSelector=involvedObject.kind%3DNode";
    assert!(names_of(&node.get(other).await.1).is_empty());

    let path = format!("/api/v1/events?watch=true&resourceVersion={version}&fieldSelector={selector}");
    let mut watch = watch_as(&node, &path, "application/json").await;
    node.store.record_event(&uid, happened("Started"));
    node.store.record_event(&uid, happened("Pulled"));
    for (kind, reason, count) in [("ADDED", "Started", 1), ("MODIFIED", "Pulled", 2)] {
        let line = watch.next().await.expect("a line");
        assert_eq!(
            (&line["type"], &line["object"]["reason"], &line["object"]["count"]),
            (&json!(kind), &json!(reason), &json!(count))
        );
    }
    let name = list["items"][0]["metadata"]["name"].as_str().expect("a name");
    let (code, event) = node
        .get(&format!("/api/v1/namespaces/default/events/{name}"))
        .await;
    assert_eq!((code, &event["count"]), (200, &json!(2)));
}

#[tokio::test]
async fn a_namespace_comes_with_its_first_pod_and_goes_with_its_last() {
    let node = Node::start().await;
    assert_eq!(
        names_of(&node.get("/api/v1/namespaces").await.1),
        ["default", "shop"]
    );
    let mut watch = watch_as(
        &node,
        "/api/v1/namespaces?watch=true&fieldSelector=metadata.name%3Dshop",
        "application/json",
    )
    .await;
    assert_eq!(watch.next_pod().await, told("ADDED", "shop"));
    let cart = uid(&node, "/api/v1/namespaces/shop/pods/cart").await;
    node.manifests([]).await;
    node.store.forget(&cart).await.expect("gone");
    assert_eq!(watch.next_pod().await, told("DELETED", "shop"));
    assert_eq!(names_of(&node.get("/api/v1/namespaces").await.1), ["default"]);
    let answer = node.get("/api/v1/namespaces/shop").await;
    assert_eq!(outcome(&answer), (404, "NotFound", vec![]));
    node.manifests([manifest("shop", "cart")]).await;
    assert_eq!(watch.next_pod().await, told("ADDED", "shop"));
}

#[tokio::test]
async fn the_node_is_ready_once_its_runtime_answers_and_watchers_see_it() {
    let node = Node::start().await;
    let (_, object) = node.get("/api/v1/nodes/node1").await;
    assert_eq!(object["status"]["conditions"][0]["status"], "False");
    let version = object["metadata"]["resourceVersion"].as_str().expect("a version");
    let path = format!("/api/v1/nodes?watch=true&resourceVersion={version}");
    let mut watch = watch_as(&node, &path, "application/json").await;
    node.store.report_node(|report| report.runtime.ready = true);
    let line = watch.next().await.expect("a line");
    assert_eq!(
        (
            &line["type"],
            &line["object"]["status"]["conditions"][0]["status"]
        ),
        (&json!("MODIFIED"), &json!("True"))
    );
}

#[tokio::test]
async fn a_client_that_keeps_pods_by_name_has_the_new_one_when_the_old_one_goes() {
    let node = Node::start().await;
    let (path, mut changed) = manifest("default", "web");
    changed.document["spec"]["restartPolicy"] = json!("Never");
    changed.pod = serde_json::from_value(changed.document.clone()).expect("a pod");
    let old = uid(&node, POD).await;
    let mut watch = node.watch("fieldSelector=metadata.name%3Dweb").await;
    node.manifests([(path, changed), manifest("shop", "cart")]).await;
    node.store.forget(&old).await.expect("gone");
    let mut kept = None;
    for _ in 0..5 {
        let line = watch.next().await.expect("a line");
        kept = (line["type"] != "DELETED").then(|| line["object"]["metadata"]["uid"].clone());
    }
    assert_eq!(kept, Some(json!(uid(&node, POD).await)));
}

#[tokio::test]
async fn hundreds_of_watchers_see_every_change_once_and_in_order() {
    const WATCHERS: usize = 300;
    const CHANGES: usize = 20;
    let node = Arc::new(Node::start().await);
    let (_, list) = node.get("/api/v1/pods").await;
    let version = list["metadata"]["resourceVersion"].as_str().expect("a version");
    let mut watches = Vec::new();
    for _ in 0..WATCHERS {
        watches.push(node.watch(&format!("resourceVersion={version}")).await);
    }
    let changing = Arc::clone(&node);
    let changes = tokio::spawn(async move {
        for index in 0..CHANGES {
            let patch = json!({"spec": {"ephemeralContainers": [debugger(&format!("d{index}"))]}});
            assert_eq!(changing.patch(STRATEGIC, &patch).await.0, 200);
        }
    });
    for mut watch in watches {
        let mut last = 0;
        for count in 1..=CHANGES {
            let line = watch.next().await.expect("a line");
            assert_eq!(names(&line["object"]).len(), count);
            let version = line["object"]["metadata"]["resourceVersion"]
                .as_str()
                .expect("a version");
            let version: u64 = version.parse().expect("a number");
            assert!(version > last);
            last = version;
        }
    }
    changes.await.expect("done");
}
