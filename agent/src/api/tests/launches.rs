//! The extension group.

use super::*;

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
async fn a_launch_is_created_with_the_mounts_of_another_container() {
    let node = Node::start().await;
    let launch = "/apis/debuglet.io/v1alpha1/namespaces/default/pods/web/launches/dbg";
    let request = |container: Value, from: &str| {
        json!({
            "apiVersion": "debuglet.io/v1alpha1", "kind": "LaunchRequest",
            "container": container, "copyMounts": {"from": from},
        })
    };
    let post = async |path: &str, body: &Value| node.request("POST", path, "application/json", body).await;
    let refused = post(launch, &request(debugger("dbg"), "mian")).await;
    let expected = vec![("FieldValueNotFound", "copyMounts.from")];
    assert_eq!(outcome(&refused), (422, "Invalid", expected));
    for wrong in [
        request(debugger("other"), "main"),
        json!({"kind": "Pod", "container": debugger("dbg")}),
        json!({"container": debugger("dbg"), "copyMounts": {"from": "main", "only": "data"}}),
    ] {
        assert_eq!(post(launch, &wrong).await.0, 400, "{wrong}");
    }
    // What is said of the kind is judged as of pods: nothing said is what the path says.
    for (field, said, expected) in [
        ("apiVersion", "", 201),
        ("kind", "", 201),
        ("apiVersion", "v1", 400),
        ("kind", "Pod", 400),
    ] {
        let mut body = request(debugger("dbg"), "main");
        body[field] = json!(said);
        let answer = post(&format!("{launch}?dryRun=All"), &body).await;
        assert_eq!(answer.0, expected, "{field} {said:?}: {}", answer.1);
        if expected == 400 {
            let message = answer.1["message"].as_str().expect("a message");
            assert!(message.contains(&format!("{field} {said:?}")), "{message}");
        }
    }
    let tried = post(&format!("{launch}?dryRun=All"), &request(debugger("dbg"), "main")).await;
    assert_eq!((tried.0, &tried.1["stage"]), (201, &json!("Accepted")));
    assert_eq!(node.get(launch).await.0, 404, "it was only tried");

    let (code, created) = post(launch, &request(debugger("dbg"), "main")).await;
    assert_eq!(
        (code, &created["kind"], &created["container"]),
        (201, &json!("Launch"), &json!("dbg"))
    );
    let (_, pod) = node.get("/api/v1/namespaces/default/pods/web").await;
    assert_eq!(pod["spec"]["ephemeralContainers"][0]["name"], "dbg");
    assert_eq!(
        pod["metadata"]["annotations"]["debuglet.io/copied-mounts"],
        r#"{"dbg":{"from":"main","include":"Volumes"}}"#
    );
    let again = post(launch, &request(debugger("dbg"), "main")).await;
    let expected = vec![("FieldValueDuplicate", "container.name")];
    assert_eq!(outcome(&again), (422, "Invalid", expected));
}
