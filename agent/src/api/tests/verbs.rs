//! That discovery and the router tell the same.

use super::super::discovery::{RESOURCES, Resource, group_version};
use super::*;

pub(super) const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// What the paths of requests name.
pub(super) struct Names<'a> {
    pub(super) namespace: &'a str,
    /// A pod, or another object of the namespace.
    pub(super) object: &'a str,
    pub(super) container: &'a str,
}

/// The request that asks for `verb` of a resource; `None` where Kubernetes' verb does not fit it.
pub(super) fn request(resource: &Resource, verb: &str, names: &Names<'_>) -> Option<(&'static str, String)> {
    let Names {
        namespace,
        object,
        container,
    } = names;
    let root = if resource.group.is_empty() {
        "/api"
    } else {
        "/apis"
    };
    let place = if resource.namespaced {
        format!("/namespaces/{namespace}")
    } else {
        String::new()
    };
    let version = group_version(resource.group, resource.version);
    let (plural, rest) = resource.name.split_once('/').unwrap_or((resource.name, ""));
    let all = format!("{root}/{version}{place}/{plural}");
    // A launch has a name of its own, below that of its pod.
    let one = match (plural, rest.split_once('/')) {
        ("node", _) => all.clone(),
        ("pods", None) if rest == "launches" => format!("{all}/{object}/launches/{container}"),
        ("pods", Some(("launches", rest))) => format!("{all}/{object}/launches/{container}/{rest}"),
        ("pods", _) if !rest.is_empty() => format!("{all}/{object}/{rest}"),
        ("nodes", _) => format!("{all}/node1"),
        ("namespaces", _) => format!("{all}/{namespace}"),
        _ => format!("{all}/{object}"),
    };
    let watched = |path: &str| format!("{path}?watch=true&timeoutSeconds=1");
    // Which path there is for many, and which for one, is not the same for all of them.
    let whole = rest.is_empty() && plural != "node";
    match verb {
        "create" if whole => Some(("POST", all)),
        "create" => Some(("POST", one)),
        "list" if whole => Some(("GET", all)),
        "watch" if whole => Some(("GET", watched(&all))),
        "watch" if rest == "launches" => Some(("GET", watched(&one))),
        "deletecollection" if whole => Some(("DELETE", all)),
        "get" => Some(("GET", one)),
        "update" => Some(("PUT", one)),
        "patch" => Some(("PATCH", one)),
        "delete" => Some(("DELETE", one)),
        _ => None,
    }
}

#[tokio::test]
async fn each_verb_that_discovery_lists_is_served_and_no_other() {
    let node = Node::start().await;
    let patch = json!({"spec": {"ephemeralContainers": [debugger("dbg")]}});
    assert_eq!(node.patch(STRATEGIC, &patch).await.0, 200);
    let names = Names {
        namespace: "default",
        object: "web",
        container: "dbg",
    };
    for resource in RESOURCES {
        for verb in VERBS {
            let listed = resource.verbs.contains(&verb);
            let Some((method, path)) = request(resource, verb, &names) else {
                assert!(!listed, "{} has no {verb}", resource.name);
                continue;
            };
            let response = send(&mut node.connect().await, method, &path, "", String::new()).await;
            let code = response.status().as_u16();
            let what = format!("{verb} of {}: {method} {path}: {code}", resource.name);
            if !listed {
                // Of a resource that has no name below it, there is no path either.
                assert!(code == 405 || code == 404, "{what}");
            } else if code == 404 {
                let (_, status) = answer_of(response).await;
                assert_eq!(status["details"]["name"], "web", "{what}: {status}");
            } else {
                assert_ne!(code, 405, "{what}");
            }
        }
    }
    let (code, _) = node
        .request("DELETE", "/api/v1/namespaces/default/pods", "", &Value::Null)
        .await;
    assert_eq!(code, 405, "deletecollection");
}
