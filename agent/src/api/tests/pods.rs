//! Creating, changing and deleting pods.

use super::*;

const PODS: &str = "/api/v1/namespaces/default/pods";
const MINE: &str = "/api/v1/namespaces/default/pods/mine";

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "docker.io/library/busybox:latest"}]},
    })
}

impl Node {
    async fn create(&self, pod: &Value) -> (u16, Value) {
        self.request("POST", PODS, JSON, pod).await
    }

    async fn change(&self, media_type: &str, patch: &Value) -> (u16, Value) {
        self.request("PATCH", MINE, media_type, patch).await
    }

    async fn delete(&self, path: &str, options: &Value) -> (u16, Value) {
        self.request("DELETE", path, JSON, options).await
    }
}

#[tokio::test]
async fn a_pod_that_is_created_is_served_with_its_defaults() {
    let node = Node::start().await;
    let (code, created) = node.create(&pod("mine")).await;
    assert_eq!(code, 201, "{created}");
    let metadata = &created["metadata"];
    assert_eq!(
        (&metadata["namespace"], &metadata["annotations"]),
        (&json!("default"), &json!({"debuglet.io/source": "api"}))
    );
    assert!(
        metadata["uid"].as_str().is_some_and(|uid| uid.len() == 36),
        "{metadata}"
    );
    assert!(metadata["creationTimestamp"].is_string(), "{metadata}");
    assert_eq!(created["spec"]["nodeName"], "node1");
    assert_eq!(created["spec"]["restartPolicy"], "Always");
    assert_eq!(created["status"]["phase"], "Pending");
    assert_eq!(node.get(MINE).await, (200, created));
}

#[tokio::test]
async fn a_pod_can_be_created_from_yaml() {
    let node = Node::start().await;
    let yaml = "apiVersion: v1\nkind: Pod\nmetadata: {name: mine}\nspec:\n  containers:\n  - name: main\n    image: busybox\n";
    let mut client = node.connect().await;
    let response = send(&mut client, "POST", PODS, "application/yaml", yaml.to_owned()).await;
    assert_eq!(response.status(), 201);
    let response = send(&mut client, "POST", PODS, "application/yaml", "a: [".to_owned()).await;
    assert_eq!(response.status(), 400);
    let response = send(
        &mut client,
        "POST",
        PODS,
        "application/vnd.kubernetes.protobuf",
        String::new(),
    )
    .await;
    assert_eq!(response.status(), 415);
}

#[tokio::test]
async fn a_pod_that_cannot_be_created_is_refused_with_its_reason() {
    let node = Node::start().await;
    let with = |pointer: &str, value: Value| {
        let mut pod = pod("mine");
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        pod.pointer_mut(parent).expect("a parent")[key] = value;
        pod
    };
    for (pod, expected) in [
        (
            with("/metadata/name", json!("Mine")),
            (422, "Invalid", vec![("FieldValueInvalid", "metadata.name")]),
        ),
        (
            with("/metadata/name", Value::Null),
            (422, "Invalid", vec![("FieldValueRequired", "metadata.name")]),
        ),
        (
            with("/metadata/namespace", json!("other")),
            (400, "BadRequest", vec![]),
        ),
        (
            with("/metadata/resourceVersion", json!("1")),
            (400, "BadRequest", vec![]),
        ),
        (with("/kind", json!("Node")), (400, "BadRequest", vec![])),
        (with("/spec/containers", json!("x")), (400, "BadRequest", vec![])),
        (
            with("/spec/nodeName", json!("node2")),
            (422, "Invalid", vec![("FieldValueInvalid", "spec.nodeName")]),
        ),
        (
            with("/spec/activeDeadlineSeconds", json!(9)),
            (
                422,
                "Invalid",
                vec![("FieldValueNotSupported", "spec.activeDeadlineSeconds")],
            ),
        ),
        (
            with("/spec/ephemeralContainers", json!([debugger("dbg")])),
            (
                422,
                "Invalid",
                vec![("FieldValueForbidden", "spec.ephemeralContainers")],
            ),
        ),
        (
            with("/metadata/name", json!("web")),
            (409, "AlreadyExists", vec![]),
        ),
    ] {
        assert_eq!(outcome(&node.create(&pod).await), expected, "{pod}");
    }
    let (_, status) = node.create(&pod("web")).await;
    let message = status["message"].as_str().expect("a message");
    assert!(message.contains("default-web.yaml"), "{message}");
    assert_eq!(node.get(MINE).await.0, 404);
}

#[tokio::test]
async fn until_it_is_known_whether_a_kubelet_runs_a_pod_is_to_be_created_later() {
    let node = Node::start().await;
    node.store.report_node(|report| report.kubelet.looked = false);
    let answer = node.create(&pod("mine")).await;
    assert_eq!(outcome(&answer), (503, "ServiceUnavailable", vec![]));
    assert_eq!(answer.1["details"]["retryAfterSeconds"], 1);
    let mut client = node.connect().await;
    let response = send(&mut client, "POST", PODS, JSON, pod("mine").to_string()).await;
    assert_eq!(response.headers().get("retry-after").expect("a header"), "1");
    node.store.report_node(|report| report.kubelet.looked = true);
    assert_eq!(node.create(&pod("mine")).await.0, 201);
}

#[tokio::test]
async fn a_pod_that_would_be_too_large_is_refused_however_it_would_come_to_be() {
    let node = Node::start().await;
    let large = |bytes| "x".repeat(bytes);
    let too_large = (413, "RequestEntityTooLarge", vec![]);
    let mut pod = pod("mine");
    pod["spec"]["containers"][0]["args"] = json!([large(1_500_000)]);
    for query in ["", "?dryRun=All"] {
        let created = node.request("POST", &format!("{PODS}{query}"), JSON, &pod).await;
        assert_eq!(outcome(&created), too_large);
    }
    assert_eq!(node.get(MINE).await.0, 404);
    pod["spec"]["containers"][0]["args"] = json!([large(1_440_000)]);
    assert_eq!(node.create(&pod).await.0, 201);

    let mut debug = debugger("dbg");
    debug["args"] = json!([large(100_000)]);
    let list = json!({"spec": {"ephemeralContainers": [debug]}});
    let note = |bytes| json!({"metadata": {"annotations": {"note": large(bytes)}}});
    for query in ["?dryRun=All", ""] {
        let path = format!("{MINE}/ephemeralcontainers{query}");
        let refused = node.request("PATCH", &path, STRATEGIC, &list).await;
        assert_eq!(outcome(&refused), too_large);
        let path = format!("{MINE}{query}");
        let refused = node.request("PATCH", &path, MERGE, &note(100_000)).await;
        assert_eq!(outcome(&refused), too_large);
    }
    assert_eq!(node.change(MERGE, &note(10_000)).await.0, 200);
    assert!(names(&node.get(MINE).await.1).is_empty());
}

#[tokio::test]
async fn where_a_kubelet_runs_no_pod_is_created() {
    let node = Node::start().await;
    node.store.report_node(|report| {
        report.kubelet.running = true;
        report.kubelet.evidence = "process 7".to_owned();
    });
    let answer = node.create(&pod("mine")).await;
    assert_eq!(outcome(&answer), (403, "Forbidden", vec![]));
    assert!(
        answer.1["message"]
            .as_str()
            .is_some_and(|message| message.contains("process 7"))
    );
}

#[tokio::test]
async fn a_name_is_made_for_a_pod_that_has_only_its_beginning() {
    let node = Node::start().await;
    let mut nameless = pod("x");
    nameless["metadata"] = json!({"generateName": "job-"});
    let mut made = Vec::new();
    for _ in 0..2 {
        let (code, created) = node.create(&nameless).await;
        let name = created["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert_eq!((code, name.len()), (201, 9), "{created}");
        assert!(name.starts_with("job-"), "{name}");
        made.push(name);
    }
    assert_ne!(made[0], made[1]);
}

#[tokio::test]
async fn unknown_fields_of_a_pod_are_refused_warned_of_or_ignored() {
    let node = Node::start().await;
    let mut misspelt = pod("mine");
    misspelt["spec"]["containrs"] = json!([]);
    let path = |validation: &str| format!("{PODS}?fieldValidation={validation}&dryRun=All");
    let answer = node.request("POST", &path("Strict"), JSON, &misspelt).await;
    assert_eq!(outcome(&answer), (400, "BadRequest", vec![]));
    let answer = node.request("POST", &path("Some"), JSON, &misspelt).await;
    let cause = ("FieldValueNotSupported", "fieldValidation");
    assert_eq!(outcome(&answer), (422, "Invalid", vec![cause]));
    let twice = misspelt.to_string().replacen("{", r#"{"kind": "Pod", "#, 1);
    let mut client = node.connect().await;
    let response = send(&mut client, "POST", &path("Warn"), JSON, twice).await;
    let warnings: Vec<_> = response.headers().get_all("warning").iter().collect();
    assert_eq!(
        warnings,
        [
            r#"299 - "unknown field \"spec.containrs\"""#,
            r#"299 - "duplicate field \"kind\"""#
        ]
    );
    for (validation, warnings) in [("", 1), ("Warn", 1), ("Ignore", 0)] {
        let mut client = node.connect().await;
        let response = send(&mut client, "POST", &path(validation), JSON, misspelt.to_string()).await;
        assert_eq!(response.status(), 201, "{validation}");
        assert_eq!(
            response.headers().get_all("warning").iter().count(),
            warnings,
            "{validation}"
        );
    }
}

#[tokio::test]
async fn what_is_only_tried_changes_nothing() {
    let node = Node::start().await;
    let (code, tried) = node
        .request("POST", &format!("{PODS}?dryRun=All"), JSON, &pod("mine"))
        .await;
    assert_eq!((code, &tried["spec"]["nodeName"]), (201, &json!("node1")));
    assert_eq!(node.get(MINE).await.0, 404);

    let (_, created) = node.create(&pod("mine")).await;
    let answer = node
        .request("POST", &format!("{PODS}?dryRun=All"), JSON, &pod("mine"))
        .await;
    assert_eq!(outcome(&answer), (409, "AlreadyExists", vec![]));
    let patch = json!({"metadata": {"labels": {"a": "b"}}});
    let (code, tried) = node
        .request("PATCH", &format!("{MINE}?dryRun=All"), MERGE, &patch)
        .await;
    assert_eq!((code, &tried["metadata"]["labels"]["a"]), (200, &json!("b")));
    let (code, tried) = node.delete(&format!("{MINE}?dryRun=All"), &Value::Null).await;
    assert_eq!(
        (code, tried["metadata"]["deletionTimestamp"].is_string()),
        (200, true)
    );
    let (code, _) = node
        .delete(MINE, &json!({"dryRun": ["All"], "gracePeriodSeconds": 0}))
        .await;
    assert_eq!(code, 200);
    assert_eq!(node.get(MINE).await, (200, created));
}

#[tokio::test]
async fn labels_and_annotations_are_changed_by_patches_and_puts() {
    let node = Node::start().await;
    node.create(&pod("mine")).await;
    let (code, _) = node
        .change(MERGE, &json!({"metadata": {"labels": {"a": "1", "app": null}}}))
        .await;
    assert_eq!(code, 200);
    let (code, _) = node
        .change(STRATEGIC, &json!({"metadata": {"annotations": {"note": "x"}}}))
        .await;
    assert_eq!(code, 200);
    let add = json!([{"op": "add", "path": "/metadata/labels/b", "value": "2"}]);
    let (code, changed) = node.change("application/json-patch+json", &add).await;
    assert_eq!(
        (code, &changed["metadata"]["labels"]),
        (200, &json!({"a": "1", "b": "2"}))
    );
    assert_eq!(
        changed["metadata"]["annotations"],
        json!({"note": "x", "debuglet.io/source": "api"})
    );

    let mut whole = pod("mine");
    whole["metadata"]["labels"] = json!({"c": "3"});
    let (code, changed) = node.request("PUT", MINE, JSON, &whole).await;
    assert_eq!((code, &changed["metadata"]["labels"]), (200, &json!({"c": "3"})));
    assert_eq!(
        changed["metadata"]["annotations"],
        json!({"debuglet.io/source": "api"})
    );
    assert_eq!(node.get(MINE).await, (200, changed));
}

#[tokio::test]
async fn a_change_that_changes_nothing_makes_no_new_version() {
    let node = Node::start().await;
    let (_, created) = node.create(&pod("mine")).await;
    for (media_type, patch) in [
        (MERGE, json!({})),
        (
            STRATEGIC,
            json!({"metadata": {"labels": {"app": "mine"}}, "spec": pod("mine")["spec"]}),
        ),
        (
            MERGE,
            json!({"status": {"phase": "Failed"}, "metadata": {"labels": {"app": "mine"}}}),
        ),
    ] {
        assert_eq!(
            node.change(media_type, &patch).await,
            (200, created.clone()),
            "{patch}"
        );
    }
    assert_eq!(
        node.request("PUT", MINE, JSON, &created).await,
        (200, created.clone())
    );
    assert_eq!(
        node.request("PUT", MINE, JSON, &pod("mine")).await,
        (200, created)
    );
}

#[tokio::test]
async fn any_other_change_is_refused_with_its_field() {
    let node = Node::start().await;
    node.create(&pod("mine")).await;
    let image = json!({"spec": {"containers": [{"name": "main", "image": "other"}]}});
    let forbidden = |field| (422, "Invalid", vec![("FieldValueForbidden", field)]);
    assert_eq!(
        outcome(&node.change(STRATEGIC, &image).await),
        forbidden("spec.containers[0].image")
    );
    let ephemeral = json!({"spec": {"ephemeralContainers": [debugger("dbg")]}});
    assert_eq!(
        outcome(&node.change(STRATEGIC, &ephemeral).await),
        forbidden("spec")
    );
    let renamed = json!({"metadata": {"name": "other"}});
    let invalid = |field| (422, "Invalid", vec![("FieldValueInvalid", field)]);
    assert_eq!(
        outcome(&node.change(MERGE, &renamed).await),
        invalid("metadata.name")
    );
    let other = json!({"metadata": {"uid": "other"}});
    assert_eq!(
        outcome(&node.change(MERGE, &other).await),
        invalid("metadata.uid")
    );
    let stale = json!({"metadata": {"resourceVersion": "1", "labels": {"a": "b"}}});
    assert_eq!(
        outcome(&node.change(MERGE, &stale).await),
        (409, "Conflict", vec![])
    );
    let answer = node.change("application/apply-patch+yaml", &json!({})).await;
    assert_eq!(outcome(&answer), (415, "UnsupportedMediaType", vec![]));
    for (field, value, expected) in [
        ("uid", "other", (409, "Conflict")),
        ("resourceVersion", "1", (409, "Conflict")),
        ("name", "other", (400, "BadRequest")),
        ("namespace", "other", (400, "BadRequest")),
    ] {
        let mut whole = pod("mine");
        whole["metadata"][field] = json!(value);
        let answer = node.request("PUT", MINE, JSON, &whole).await;
        assert_eq!((outcome(&answer).0, outcome(&answer).1), expected, "{field}");
    }
    let answer = node
        .request("PUT", &format!("{PODS}/none"), JSON, &pod("none"))
        .await;
    assert_eq!(outcome(&answer), (404, "NotFound", vec![]));
}

#[tokio::test]
async fn patches_of_labels_at_once_all_arrive() {
    let node = Arc::new(Node::start().await);
    node.create(&pod("mine")).await;
    let patches = (0..4).map(|index| {
        let node = Arc::clone(&node);
        tokio::spawn(async move {
            let patch = json!({"metadata": {"labels": {format!("l{index}"): "x"}}});
            node.change(MERGE, &patch).await.0
        })
    });
    for patch in patches.collect::<Vec<_>>() {
        assert_eq!(patch.await.expect("done"), 200);
    }
    let (_, pod) = node.get(MINE).await;
    assert_eq!(
        pod["metadata"]["labels"].as_object().map(serde_json::Map::len),
        Some(5)
    );
}

#[tokio::test]
async fn a_pod_of_the_folder_is_neither_changed_nor_deleted_and_the_answer_names_its_file() {
    let node = Node::start().await;
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    for answer in [
        node.request("PATCH", POD, MERGE, &label).await,
        node.delete(POD, &Value::Null).await,
        node.delete(POD, &json!({"gracePeriodSeconds": 0})).await,
    ] {
        assert_eq!(outcome(&answer), (403, "Forbidden", vec![]));
        let message = answer.1["message"].as_str().expect("a message");
        assert!(message.contains("default-web.yaml"), "{message}");
    }
    let (code, same) = node.request("PATCH", POD, MERGE, &json!({})).await;
    assert_eq!((code, same), node.get(POD).await);
    let ephemeral = json!({"spec": {"ephemeralContainers": [debugger("dbg")]}});
    let answer = node.request("PATCH", POD, STRATEGIC, &ephemeral).await;
    assert_eq!(
        outcome(&answer),
        (422, "Invalid", vec![("FieldValueForbidden", "spec")])
    );
}

#[tokio::test]
async fn a_deleted_pod_is_on_its_way_out_for_its_grace_which_can_only_be_shortened() {
    let node = Node::start().await;
    node.create(&pod("mine")).await;
    let grace = |pod: &Value| pod["metadata"]["deletionGracePeriodSeconds"].as_i64();
    let (code, leaving) = node
        .delete(MINE, &json!({"propagationPolicy": "Background"}))
        .await;
    assert_eq!((code, grace(&leaving)), (200, Some(30)));
    assert_eq!(node.get(MINE).await, (200, leaving.clone()));
    let (code, same) = node.delete(MINE, &json!({"gracePeriodSeconds": 60})).await;
    assert_eq!((code, same), (200, leaving));
    let (code, sooner) = node
        .delete(&format!("{MINE}?gracePeriodSeconds=5"), &Value::Null)
        .await;
    assert_eq!((code, grace(&sooner)), (200, Some(5)));
    let answer = node.create(&pod("mine")).await;
    assert_eq!(outcome(&answer), (409, "AlreadyExists", vec![]));
    let (code, changed) = node
        .change(MERGE, &json!({"metadata": {"labels": {"a": "b"}}}))
        .await;
    assert_eq!((code, grace(&changed)), (200, Some(5)));
    let add = json!({"spec": {"ephemeralContainers": [debugger("dbg")]}});
    let answer = node
        .request("PATCH", &format!("{MINE}/ephemeralcontainers"), STRATEGIC, &add)
        .await;
    assert_eq!(outcome(&answer), (409, "Conflict", vec![]));
}

#[tokio::test]
async fn a_pod_that_is_deleted_without_grace_is_gone_at_once_and_its_name_is_free() {
    let node = Node::start().await;
    let (_, first) = node.create(&pod("mine")).await;
    let mut watch = node.watch("fieldSelector=metadata.name%3Dmine").await;
    assert_eq!(watch.next_pod().await, told("ADDED", "mine"));
    let (code, last) = node.delete(MINE, &json!({"gracePeriodSeconds": 0})).await;
    assert_eq!((code, &last["metadata"]["uid"]), (200, &first["metadata"]["uid"]));
    assert_eq!(node.get(MINE).await.0, 404);
    assert_eq!(
        outcome(&node.delete(MINE, &Value::Null).await),
        (404, "NotFound", vec![])
    );
    assert_eq!(watch.next_pod().await, told("DELETED", "mine"));

    let (code, second) = node.create(&pod("mine")).await;
    assert_eq!(code, 201);
    assert_ne!(first["metadata"]["uid"], second["metadata"]["uid"]);
    assert_eq!(watch.next_pod().await, told("ADDED", "mine"));
    // What is left of the first one in the runtime goes before the second one starts; nobody is told again.
    let uid = first["metadata"]["uid"].as_str().expect("a UID");
    assert_eq!(
        node.store.workable().iter().filter(|(one, _)| one == uid).count(),
        1
    );
    node.store.forget(uid).await.expect("forgotten");
    node.change(MERGE, &json!({"metadata": {"labels": {"a": "b"}}}))
        .await;
    assert_eq!(watch.next_pod().await, told("MODIFIED", "mine"));
}

#[tokio::test]
async fn a_delete_holds_for_the_pod_and_the_version_that_it_names() {
    let node = Node::start().await;
    let (_, created) = node.create(&pod("mine")).await;
    for preconditions in [json!({"uid": "other"}), json!({"resourceVersion": "1"})] {
        let answer = node.delete(MINE, &json!({"preconditions": preconditions})).await;
        assert_eq!(outcome(&answer), (409, "Conflict", vec![]));
    }
    for options in [
        json!({"kind": "Pod"}),
        json!({"gracePeriodSeconds": "x"}),
        json!([]),
    ] {
        let answer = node.delete(MINE, &options).await;
        assert_eq!(outcome(&answer), (400, "BadRequest", vec![]), "{options}");
    }
    for options in [json!({"dryRun": ["Some"]}), json!({"propagationPolicy": "Some"})] {
        let answer = node.delete(MINE, &options).await;
        assert_eq!(
            (outcome(&answer).0, outcome(&answer).1),
            (422, "Invalid"),
            "{options}"
        );
    }
    let metadata = &created["metadata"];
    let preconditions = json!({"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]});
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions});
    assert_eq!(node.delete(MINE, &options).await.0, 200);
}

/// The codes are those of kube-apiserver v1.36, but for a merge patch or JSON patch that empties a field: that one
/// answers then that the object has no name.
#[tokio::test]
async fn what_says_nothing_of_its_kind_means_the_paths_and_another_kind_is_named() {
    let node = Node::start().await;
    node.create(&pod("mine")).await;
    let (_, served) = node.get(MINE).await;
    for (field, said, code) in [
        ("apiVersion", json!(""), 200),
        ("apiVersion", Value::Null, 200),
        ("apiVersion", json!("v2"), 400),
        ("apiVersion", json!(1), 400),
        ("kind", json!(""), 200),
        ("kind", Value::Null, 200),
        ("kind", json!("Node"), 400),
        ("kind", json!({}), 400),
    ] {
        let refused = |(given, answer): (u16, Value), expected: u16| {
            let message = answer["message"].as_str().unwrap_or_default();
            assert_eq!(given, expected, "{field} {said}: {answer}");
            assert!(
                given < 300 || message.contains(field),
                "{field} {said}: {message}"
            );
        };
        let mut created = pod("new");
        created[field] = said.clone();
        let created = node
            .request("POST", &format!("{PODS}?dryRun=All"), JSON, &created)
            .await;
        refused(created, if code == 200 { 201 } else { code });
        let mut put = served.clone();
        put[field] = said.clone();
        refused(node.request("PUT", MINE, JSON, &put).await, code);
        let ephemeral = format!("{MINE}/ephemeralcontainers");
        refused(node.request("PUT", &ephemeral, JSON, &put).await, code);

        let merged = if code == 200 { 200 } else { 422 };
        let strategic = if said.is_string() { 200 } else { merged };
        let patch = json!({ field: said });
        for path in [MINE, ephemeral.as_str()] {
            refused(node.request("PATCH", path, MERGE, &patch).await, merged);
            refused(node.request("PATCH", path, STRATEGIC, &patch).await, strategic);
        }
    }
}

#[tokio::test]
async fn a_name_that_is_too_long_for_the_folder_of_logs_is_refused_with_its_field() {
    let node = Node::start().await;
    let named = |length: usize| {
        let mut pod = pod("mine");
        pod["metadata"]["name"] = json!("p".repeat(length));
        pod
    };
    let answer = node.create(&named(211)).await;
    let cause = ("FieldValueTooLong", "metadata.name");
    assert_eq!(outcome(&answer), (422, "Invalid", vec![cause]));
    assert_eq!(node.create(&named(210)).await.0, 201);
}
