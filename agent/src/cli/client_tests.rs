use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::routing::{get, patch, post};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use nix::unistd::Uid;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// A server on a socket of its own; it goes with the runtime of the test.
fn serve(router: Router) -> (Client, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("debuglet.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (Client::new(socket), folder)
}

fn chunks(parts: Vec<Vec<u8>>) -> Body {
    Body::from_stream(futures_util::stream::iter(
        parts.into_iter().map(Ok::<_, io::Error>),
    ))
}

#[tokio::test]
async fn an_object_is_read_and_a_patch_is_sent_as_a_strategic_one() {
    let router = Router::new()
        .route("/object", get(|| async { axum::Json(json!({"a": 1})) }))
        .route("/do", post(|| async { axum::Json(json!("done")) }))
        .route(
            "/patched",
            patch(|headers: axum::http::HeaderMap, body: String| async move {
                axum::Json(json!([headers["content-type"].to_str().unwrap(), body]))
            }),
        );
    let (client, _folder) = serve(router);
    assert_eq!(client.get::<Value>("/object").await.unwrap(), json!({"a": 1}));
    assert_eq!(client.post::<Value>("/do").await.unwrap().0, json!("done"));
    assert_eq!(
        client
            .patch::<Value>("/patched", &json!({"x": [1]}))
            .await
            .unwrap(),
        (json!([STRATEGIC_MERGE_PATCH, "{\"x\":[1]}"]), Vec::new())
    );
}

#[tokio::test]
async fn a_refusal_keeps_the_words_of_its_status() {
    let router = Router::new().route(
        "/no",
        get(|| async {
            let status = json!({"kind": "Status", "status": "Failure", "code": 422, "reason": "Invalid",
                                "message": "shop/cart has no container \"carts\" to target."});
            (StatusCode::UNPROCESSABLE_ENTITY, axum::Json(status))
        }),
    );
    let (client, _folder) = serve(router);
    let error = client.get::<Value>("/no").await.unwrap_err();
    assert_eq!(error.code(), Some(422));
    assert_eq!(
        error.to_string(),
        "shop/cart has no container \"carts\" to target"
    );
}

#[tokio::test]
async fn a_watch_is_read_line_by_line_however_its_bytes_come() {
    let router = Router::new().route(
        "/watch",
        get(|| async {
            chunks(vec![
                b"{\"n\":1}\n{\"n\"".to_vec(),
                b":2}\n".to_vec(),
                b"{\"n\":3}".to_vec(),
            ])
        }),
    );
    let (client, _folder) = serve(router);
    let mut lines = client.lines("/watch").await.unwrap();
    for number in 1..=3 {
        assert_eq!(lines.next::<Value>().await.unwrap(), Some(json!({"n": number})));
    }
    assert_eq!(lines.next::<Value>().await.unwrap(), None);
}

#[tokio::test]
async fn a_line_without_end_is_refused() {
    let part = Arc::new(vec![b'x'; 1024 * 1024]);
    let router = Router::new().route(
        "/watch",
        get(move || async move { chunks((0..10).map(|_| part.to_vec()).collect()) }),
    );
    let (client, _folder) = serve(router);
    let error = client
        .lines("/watch")
        .await
        .unwrap()
        .next::<Value>()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_a_lost_agent() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("debuglet.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{\"n\":1}\n\r\n";
        let mut request = [0; 1024];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        stream.write_all(answer).await.unwrap();
    });
    let mut lines = Client::new(socket).lines("/watch").await.unwrap();
    assert_eq!(lines.next::<Value>().await.unwrap(), Some(json!({"n": 1})));
    let error = lines.next::<Value>().await.unwrap_err();
    assert!(error.is_lost_agent(), "{error}");
}

#[tokio::test]
async fn no_agent_is_said_so_with_how_to_start_it() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("debuglet.sock");
    for _ in 0..2 {
        let error = Client::new(socket.clone()).get::<Value>("/x").await.unwrap_err();
        assert!(error.is_lost_agent());
        assert!(
            error.to_string().starts_with("the agent is not running"),
            "{error}"
        );
        assert!(error.hint().contains("systemctl start debuglet"));
        // The second time: a socket that an agent has left behind.
        drop(std::os::unix::net::UnixListener::bind(&socket));
    }
}

#[tokio::test]
async fn an_agent_of_another_version_is_blamed_for_what_it_does_not_know() {
    let router = Router::new().route(
        NODE_REPORT,
        get(|| async { axum::Json(json!({"version": "9.9.9"})) }),
    );
    let (client, _folder) = serve(router);
    let error = client.get::<Value>("/newer").await.unwrap_err();
    assert!(
        error.to_string().starts_with("the agent is version 9.9.9"),
        "{error}"
    );
    assert!(error.hint().contains("restart debuglet"));
}

#[test]
fn what_is_typed_is_escaped_in_paths_and_queries() {
    assert_eq!(
        pod_path("a b", "../x", "log"),
        "/api/v1/namespaces/a%20b/pods/..%2Fx/log"
    );
    assert_eq!(
        launch_path("ns", "pod", "c", "stop"),
        "/apis/debuglet.io/v1alpha1/namespaces/ns/pods/pod/launches/c/stop"
    );
    assert_eq!(
        with_query("/p", [("command", "a&b=c".into()), ("none", String::new())]),
        "/p?command=a%26b%3Dc"
    );
    assert_eq!(with_query("/p", [("none", String::new())]), "/p");
}

#[test]
fn what_may_not_be_opened_needs_root() {
    let error = ClientError::NotRoot {
        socket: "/run/debuglet/debuglet.sock".into(),
        group: None,
    };
    assert_eq!(
        error.to_string(),
        "may not open the agent's socket /run/debuglet/debuglet.sock: it is for root only"
    );
    let (root, other) = (Uid::from_raw(0), Uid::from_raw(1000));
    assert!(error.hint_for(other).contains("sudo"));
    assert_eq!(error.hint_for(root), "");
    let error = ClientError::NotRoot {
        socket: "/run/debuglet/debuglet.sock".into(),
        group: Some("debuggers".to_owned()),
    };
    assert!(
        error
            .to_string()
            .ends_with("it is for root and the group debuggers"),
        "{error}"
    );
    assert!(error.hint_for(other).contains("a member of the group debuggers"));
    assert_eq!(error.hint_for(root), "");
}

#[test]
fn who_is_root_and_was_refused_is_not_told_to_be_root() {
    let error = ClientError::Refused(Box::new(Status {
        code: Some(403),
        message: Some("pods \"web\" is forbidden: violates PodSecurity \"restricted:latest\"".to_owned()),
        ..Status::default()
    }));
    assert_eq!(error.hint_for(Uid::from_raw(0)), "");
    assert!(error.hint_for(Uid::from_raw(1000)).contains("as root"));
}

#[test]
fn a_warning_is_told_without_its_quotes() {
    for (header, expected) in [
        (
            r#"299 - "kept here: \"no\" \\ yes""#,
            Some(r#"kept here: "no" \ yes"#),
        ),
        ("299 - unquoted", None),
        ("", None),
    ] {
        assert_eq!(warning(header).as_deref(), expected, "{header}");
    }
}
