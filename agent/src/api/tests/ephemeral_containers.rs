//! Writes of `pods/ephemeralcontainers`.

use super::*;

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
    assert_eq!((code, names(&pod)), (200, vec!["two", "one"]));
    let add = json!([{"op": "add", "path": "/spec/ephemeralContainers/-", "value": debugger("three")}]);
    let (code, pod) = node.patch("application/json-patch+json", &add).await;
    assert_eq!((code, names(&pod)), (200, vec!["two", "one", "three"]));
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
    let elsewhere = json!({"metadata": {"uid": "other"}});
    let answer = node.patch(STRATEGIC, &elsewhere).await;
    assert_eq!(
        outcome(&answer),
        (422, "Invalid", vec![("FieldValueInvalid", "metadata.uid")])
    );
}

#[tokio::test]
async fn a_write_that_is_only_tried_is_judged_answered_and_not_kept() {
    let node = Node::start().await;
    let path = format!("{EPHEMERAL}?dryRun=All");
    let patch = json!({"spec": {"ephemeralContainers": [debugger("dbg")]}});
    let (code, pod) = node.request("PATCH", &path, STRATEGIC, &patch).await;
    assert_eq!((code, names(&pod)), (200, vec!["dbg"]));
    assert_eq!(
        pod["spec"]["ephemeralContainers"][0]["terminationMessagePolicy"],
        "File"
    );
    let invalid = json!({"spec": {"ephemeralContainers": [{"name": "dbg"}]}});
    let answer = node.request("PATCH", &path, STRATEGIC, &invalid).await;
    assert_eq!(outcome(&answer).0, 422);
    assert!(names(&node.get(POD).await.1).is_empty());
    let answer = node
        .request("PATCH", &format!("{EPHEMERAL}?dryRun=Some"), STRATEGIC, &patch)
        .await;
    assert_eq!(
        outcome(&answer),
        (422, "Invalid", vec![("FieldValueNotSupported", "dryRun")])
    );
    assert_eq!(answer.1["details"]["kind"], "PatchOptions");
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
    let large = json!({"x": "x".repeat(crate::api::request::MAX_BODY_BYTES)});
    let answer = node.patch(STRATEGIC, &large).await;
    assert_eq!(outcome(&answer), (413, "RequestEntityTooLarge", vec![]));
}

/// As Kubernetes 1.20 and 1.36 answer, each in its form.
#[tokio::test]
async fn a_list_of_a_pod_with_another_uid_is_refused_in_the_words_of_its_form() {
    let node = Node::start().await;
    let mut newer = node.with(&json!([debugger("dbg")])).await;
    let older = json!({
        "apiVersion": "v1", "kind": "EphemeralContainers",
        "metadata": {"name": "web", "uid": "11111111-2222-3333-4444-555555555555"},
        "ephemeralContainers": [debugger("dbg")],
    });
    newer["metadata"]["uid"] = older["metadata"]["uid"].clone();
    assert_eq!(outcome(&node.put(&newer).await), (409, "Conflict", vec![]));
    let cause = ("FieldValueInvalid", "metadata.uid");
    assert_eq!(outcome(&node.put(&older).await), (422, "Invalid", vec![cause]));
    assert!(names(&node.get(POD).await.1).is_empty());
}
