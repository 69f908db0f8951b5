//! Strategic patches of ephemeral containers come to the same list here and on a real kube-apiserver: which containers
//! are in it, in which order, or with which code the patch is refused. What kube-apiserver answered is recorded beside the
//! crate's own tests, which compare with the record.

use integration::kubernetes::{ControlPlane, client};
use integration::{ContainerdVersion, Node, sleeping_pod};
use kube::Client;
use serde_json::{Value, json};

const RECORD: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../agent/src/api/reference/patches.json"
);

/// `DEBUGLET_RECORD=1` writes the record anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strategic_patch_comes_to_the_list_that_kube_apiserver_makes_of_it() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let plane = ControlPlane::start(&node).await;
    let kubernetes = client(&node, &plane.kubeconfig()).await;
    let agent = node.start_agent().await;
    let debuglet = client(&node, &agent.kubeconfig().await).await;
    let mut record: Value = serde_json::from_str(&std::fs::read_to_string(RECORD).unwrap()).unwrap();
    for before in ["", "a", "ab", "abc"] {
        for server in [&kubernetes, &debuglet] {
            create(server, before).await;
        }
    }
    let mut differences = Vec::new();
    for case in record["cases"].as_array_mut().unwrap() {
        let theirs = patched(&kubernetes, case).await;
        let ours = patched(&debuglet, case).await;
        let (code, after) = match &theirs {
            Ok(names) => (200, json!(names)),
            Err(code) => (*code, Value::Null),
        };
        if std::env::var_os("DEBUGLET_RECORD").is_some() {
            case["code"] = Value::from(code);
            case["after"] = after;
        } else if (&case["code"], &case["after"]) != (&Value::from(code), &after) {
            differences.push(format!("{}: not as recorded: {theirs:?}", case["case"]));
        }
        if !is_as_wanted(case, &theirs, &ours) {
            differences.push(format!(
                "{}: kube-apiserver: {theirs:?}, debuglet: {ours:?}",
                case["case"]
            ));
        }
    }
    if std::env::var_os("DEBUGLET_RECORD").is_some() {
        std::fs::write(RECORD, serde_json::to_string_pretty(&record).unwrap() + "\n").unwrap();
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Whether debuglet answers as kube-apiserver does, but for a failure of the server: what that one cannot read and calls
/// its own fault is the client's here.
fn is_as_wanted(case: &Value, theirs: &Result<Vec<String>, u16>, ours: &Result<Vec<String>, u16>) -> bool {
    let ours_is = |code: u16| case["ours"].as_u64() == Some(code.into());
    match (theirs, ours) {
        (Err(_), Err(ours)) if case.get("ours").is_some() => ours_is(*ours),
        _ => theirs == ours,
    }
}

/// The pod `p-BEFORE` with one ephemeral container for each letter.
async fn create(server: &Client, before: &str) {
    let name = name_of(before);
    let mut pod = sleeping_pod(&name);
    pod["spec"]["nodeName"] = "node1".into();
    send(
        server,
        "POST",
        "/api/v1/namespaces/default/pods",
        "application/json",
        &pod,
    )
    .await
    .unwrap();
    for letter in before.chars() {
        let path = format!("/api/v1/namespaces/default/pods/{name}/ephemeralcontainers");
        let container = json!({"name": letter.to_string(), "image": "busybox"});
        let list: Vec<Value> = before
            .chars()
            .take_while(|known| *known <= letter)
            .map(|known| json!({"name": known.to_string()}))
            .collect();
        let patch = json!({"spec": {"ephemeralContainers": [container], "$setElementOrder/ephemeralContainers": list}});
        send(server, "PATCH", &path, STRATEGIC, &patch).await.unwrap();
    }
}

const STRATEGIC: &str = "application/strategic-merge-patch+json";

fn name_of(before: &str) -> String {
    format!("p-{before}").trim_end_matches('-').to_owned()
}

/// The names of the list that comes of the case's patch, which is only tried; or the code of the refusal.
async fn patched(server: &Client, case: &Value) -> Result<Vec<String>, u16> {
    let before: String = case["before"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let path = format!(
        "/api/v1/namespaces/default/pods/{}/ephemeralcontainers?dryRun=All",
        name_of(&before)
    );
    let pod = send(server, "PATCH", &path, STRATEGIC, &case["patch"]).await?;
    let list = pod["spec"]["ephemeralContainers"]
        .as_array()
        .into_iter()
        .flatten();
    Ok(list
        .filter_map(|container| container["name"].as_str())
        .map(str::to_owned)
        .collect())
}

async fn send(
    server: &Client,
    method: &str,
    path: &str,
    media_type: &str,
    body: &Value,
) -> Result<Value, u16> {
    let request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header("Content-Type", media_type)
        .body(body.to_string().into_bytes())
        .unwrap();
    match server.request::<Value>(request).await {
        Ok(answer) => Ok(answer),
        Err(kube::Error::Api(status)) => {
            println!("{method} {path}: {} {}", status.code, status.message);
            Err(status.code)
        }
        Err(error) => panic!("{method} {path}: {error}"),
    }
}
