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
