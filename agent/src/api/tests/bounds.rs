//! What a request may not do to the agent, however it is made.

use super::*;

const JSON_PATCH: &str = "application/json-patch+json";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn message(answer: &(u16, Value)) -> &str {
    answer.1["message"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_patch_that_goes_ever_deeper_is_refused_and_the_agent_goes_on() {
    let node = Node::start().await;
    let nested = (0..100).fold(json!(0), |inner, _| json!({ "a": inner }));
    let mut operations = vec![json!({"op": "add", "path": "/spec/x", "value": nested})];
    operations.extend((0..10).map(|doubling| {
        let path = format!("/spec/x{}", "/a".repeat(100 << doubling));
        json!({"op": "copy", "from": "/spec/x", "path": path})
    }));
    for path in [POD, EPHEMERAL] {
        let answer = node.request("PATCH", path, JSON_PATCH, &json!(operations)).await;
        assert_eq!(outcome(&answer), (422, "Invalid", vec![]));
    }
    assert_eq!(node.get(POD).await.0, 200);
}

#[tokio::test]
async fn a_patch_of_too_many_operations_is_told_how_many_there_may_be() {
    let node = Node::start().await;
    let test = json!({"op": "test", "path": "/metadata/name", "value": "web"});
    let answer = node.patch(JSON_PATCH, &json!(vec![test; 10_001])).await;
    assert_eq!(outcome(&answer), (413, "RequestEntityTooLarge", vec![]));
    assert!(
        message(&answer).contains("may have 10000"),
        "{}",
        message(&answer)
    );
}

#[tokio::test]
async fn large_bodies_are_taken_like_small_ones() {
    let node = Node::start().await;
    let large = "x".repeat(crate::api::large_bodies::SMALL_BODY_BYTES);
    let mut debugger = debugger("dbg");
    debugger["args"] = json!([large]);
    let patch = json!({"spec": {"ephemeralContainers": [debugger]}});
    let (code, pod) = node.patch(STRATEGIC, &patch).await;
    assert_eq!((code, names(&pod)), (200, vec!["dbg"]));
    assert_eq!(node.put(&pod).await.0, 200);
    let pod = json!({"metadata": {"generateName": "big-"},
        "spec": {"containers": [{"name": "main", "image": "busybox", "args": [large]}]}});
    let (code, mut pod) = node.request("POST", PODS, JSON, &pod).await;
    assert_eq!(code, 201, "{pod}");
    pod["metadata"]["labels"] = json!({"a": "b"});
    let path = format!("{PODS}/{}", pod["metadata"]["name"].as_str().expect("a name"));
    assert_eq!(node.request("PUT", &path, JSON, &pod).await.0, 200);
    let options = json!({"gracePeriodSeconds": 0, "x": large});
    assert_eq!(node.request("DELETE", &path, JSON, &options).await.0, 200);
}

#[tokio::test]
async fn fields_that_stand_twice_in_a_patch_are_warned_of_or_refused() {
    let node = Node::start().await;
    let twice = r#"{"metadata": {"labels": {"a": "1"}, "labels": {"app": "web"}}}"#;
    let mut client = node.connect().await;
    for path in [POD, EPHEMERAL] {
        let response = send(&mut client, "PATCH", path, MERGE, twice.to_owned()).await;
        assert_eq!(response.status(), 200, "{path}");
        let warning = r#"299 - "duplicate field \"metadata.labels\"""#;
        assert_eq!(response.headers()["warning"], warning);
        response.into_body().collect().await.expect("an answer");
        let strict = format!("{path}?fieldValidation=Strict");
        let response = send(&mut client, "PATCH", &strict, MERGE, twice.to_owned()).await;
        let answer = answer_of(response).await;
        assert_eq!(
            outcome(&answer),
            (422, "Invalid", vec![("FieldValueInvalid", "patch")])
        );
        assert!(message(&answer).starts_with(r#"Pod "web" is invalid"#));
    }
}

#[tokio::test]
async fn a_patch_that_leaves_no_pod_is_refused_with_the_pods_name() {
    let node = Node::start().await;
    let mistyped = json!({"metadata": {"labels": "x"}});
    for path in [POD, EPHEMERAL] {
        let answer = node.request("PATCH", path, MERGE, &mistyped).await;
        assert_eq!(outcome(&answer).0, 422);
        assert_eq!(answer.1["details"]["name"], "web");
    }
}

#[tokio::test]
async fn of_many_warnings_the_first_are_sent() {
    let node = Node::start().await;
    let fields: serde_json::Map<String, Value> =
        (0..10_000).map(|index| (format!("u{index}"), json!(0))).collect();
    let patch = json!({ "spec": fields });
    let mut client = node.connect().await;
    let response = send(&mut client, "PATCH", POD, MERGE, patch.to_string()).await;
    assert_eq!(response.status(), 200);
    let mut warnings = response.headers().get_all("warning").iter();
    assert_eq!(
        warnings.next().expect("one"),
        r#"299 - "unknown field \"spec.u0\"""#
    );
    assert_eq!(warnings.count(), 49);
}
