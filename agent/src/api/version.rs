//! What this server is: its version, that it lives, and what it serves.

use axum::Json;
use serde_json::{Value, json};

use super::extension::{GROUP, VERSION};

/// The Kubernetes release whose API this is a part of.
const KUBERNETES: (&str, &str) = ("1", "36");

/// `/version`: Kubernetes' release, with debuglet's own in the build metadata.
pub(crate) async fn version() -> Json<Value> {
    let (major, minor) = KUBERNETES;
    Json(json!({
        "major": major,
        "minor": minor,
        "gitVersion": format!("v{major}.{minor}.0+debuglet.{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, architecture()),
    }))
}

/// The processor's name as Go and container images write it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `/livez` and `/readyz`: whoever answers is both. Whether the runtime answers is in the node report.
pub(crate) async fn healthy() -> &'static str {
    "ok"
}

/// `/api`: the versions of the core group.
pub(crate) async fn core_versions() -> Json<Value> {
    Json(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}))
}

/// `/apis`: the groups beside the core one.
pub(crate) async fn groups() -> Json<Value> {
    Json(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group_of_ours()]}))
}

/// `/apis/debuglet.io`.
pub(crate) async fn group() -> Json<Value> {
    let mut group = group_of_ours();
    group["kind"] = json!("APIGroup");
    group["apiVersion"] = json!("v1");
    Json(group)
}

fn group_of_ours() -> Value {
    let version = json!({"groupVersion": format!("{GROUP}/{VERSION}"), "version": VERSION});
    json!({"name": GROUP, "versions": [version], "preferredVersion": version})
}

/// `/api/v1`.
pub(crate) async fn core_resources() -> Json<Value> {
    let subresource = |name: &str, kind: &str, verbs: &[&str]| json!({"name": name, "singularName": "", "namespaced": true, "kind": kind, "verbs": verbs});
    Json(json!({
        "kind": "APIResourceList",
        "groupVersion": "v1",
        "resources": [
            {
                "name": "events", "singularName": "event", "namespaced": true, "kind": "Event",
                "verbs": ["get", "list"], "shortNames": ["ev"],
            },
            {
                "name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod",
                "verbs": ["get", "list", "watch"], "shortNames": ["po"], "categories": ["all"],
            },
            subresource("pods/attach", "PodAttachOptions", &["get"]),
            subresource("pods/ephemeralcontainers", "Pod", &["get", "patch", "update"]),
            subresource("pods/exec", "PodExecOptions", &["get"]),
            subresource("pods/log", "Pod", &["get"]),
        ],
    }))
}

/// `/apis/debuglet.io/v1alpha1`.
pub(crate) async fn extension_resources() -> Json<Value> {
    Json(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": format!("{GROUP}/{VERSION}"),
        "resources": [
            {
                "name": "node", "singularName": "node", "namespaced": false, "kind": "NodeReport",
                "verbs": ["get"],
            },
            {
                "name": "pods/launches", "singularName": "", "namespaced": true, "kind": "Launch",
                "verbs": ["get", "watch"],
            },
            {
                "name": "pods/launches/stop", "singularName": "", "namespaced": true, "kind": "Launch",
                "verbs": ["create"],
            },
            {
                "name": "pods/launches/flushlog", "singularName": "", "namespaced": true, "kind": "Launch",
                "verbs": ["create"],
            },
        ],
    }))
}
