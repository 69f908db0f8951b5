//! What kubectl 1.36 was recorded to ask of an API server, asked of this one: the same codes.

use super::*;

/// A request as it was recorded.
struct Recorded {
    /// Of the `kubectl` that made it.
    command: &'static str,
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, &'static str)>,
    body: &'static str,
    code: u16,
}

/// What each line says. The recording shows a body on the same line, or leaves it out, or cuts it.
fn recorded() -> Vec<Recorded> {
    let mut requests = Vec::new();
    let mut command = "";
    for line in include_str!("../reference/kubectl-requests.txt").lines() {
        if let Some(words) = line.strip_prefix("$ ") {
            command = words;
        }
        let asked = line.strip_prefix("   ").filter(|line| !line.starts_with(' '));
        let Some((method, rest)) = asked.and_then(|asked| asked.split_once(' ')) else {
            continue;
        };
        let (path, rest) = rest.split_once("  [").expect("headers");
        let (headers, rest) = rest.split_once(']').expect("the end of the headers");
        let code = rest
            .rsplit_once("-> ")
            .map(|(_, told)| told[..3].parse().expect("a code"));
        let body = rest
            .strip_prefix(" body \"")
            .and_then(|body| body.rsplit_once("\" -> "));
        requests.push(Recorded {
            command,
            method,
            path: path.to_owned(),
            headers: headers
                .split("; ")
                .filter_map(|header| header.split_once(": "))
                .collect(),
            body: body.map_or("", |(body, _)| body),
            code: code.unwrap_or(if method == "POST" { 201 } else { 200 }),
        });
    }
    requests
}

/// Whether it is one of those that need a container that runs: real ones are in the end-to-end tests.
fn streams(request: &Recorded) -> bool {
    ["/attach?", "/exec?", "/portforward"]
        .iter()
        .any(|subresource| request.path.contains(subresource))
}

#[tokio::test]
async fn what_kubectl_asks_is_answered_as_it_was_recorded() {
    let node = Node::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    let app = json!({
        "metadata": {"name": "app"},
        "spec": {"containers": [{"name": "main", "image": "docker.io/library/busybox:latest"}]},
    });
    let (code, created) = node.request("POST", pods, JSON, &app).await;
    assert_eq!(code, 201, "{created}");
    let requests = recorded();
    assert_eq!(requests.len(), 80);
    for request in requests.iter().filter(|request| !streams(request)) {
        let (_, newest) = node.get(pods).await;
        let version = newest["metadata"]["resourceVersion"].as_str().expect("a version");
        let mut path = request
            .path
            .replace("resourceVersion=RV", &format!("resourceVersion={version}"))
            .replace("timeoutSeconds=N", "timeoutSeconds=1")
            .replace("timeout=T", "timeout=5s")
            // All is on the first page here.
            .replace("continue=TOKEN&", "");
        let mut body = request.body.to_owned();
        let mut code = request.code;
        match (request.method, code) {
            // What was recorded of another moment: the pod is not there, yet or any more.
            ("GET", 404) => path = path.replace("/app", "/none"),
            ("POST", _) => body = app.to_string().replace("app", "applied"),
            // No container runs here whose log there could be.
            _ if path.contains("/log?") => code = 400,
            _ => {}
        }
        let mut asked = Request::builder()
            .method(request.method)
            .uri(&path)
            .header("host", "node");
        for (name, value) in &request.headers {
            asked = asked.header(*name, *value);
        }
        let asked = asked.body(Full::from(body)).expect("a request");
        let answer = node.connect().await.send_request(asked).await.expect("an answer");
        let status = answer.status().as_u16();
        let Recorded { command, method, .. } = request;
        if status != code {
            let (_, answer) = answer_of(answer).await;
            panic!("$ {command}\n{method} {path}: {status}, not {code}: {answer}");
        }
    }
}
