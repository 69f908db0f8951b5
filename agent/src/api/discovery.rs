//! What is served, as clients discover it: one table, answered in the legacy form (`APIResourceList`, ...) and in the
//! aggregated one (`APIGroupDiscoveryList`, KEP-3352), which kubectl asks for since 1.26.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::Path;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::extension::{GROUP as OURS, VERSION as OUR_VERSION};
use super::status::Failure;

/// The group of `selfsubjectaccessreviews`.
pub(crate) const AUTHORIZATION: &str = "authorization.k8s.io";
/// The group of `selfsubjectreviews`.
pub(crate) const AUTHENTICATION: &str = "authentication.k8s.io";

/// One resource, or one subresource, of a group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resource {
    /// Empty for the core group.
    pub(crate) group: &'static str,
    /// Of the group.
    pub(crate) version: &'static str,
    /// The plural, as in the path; a subresource as `pods/log`.
    pub(crate) name: &'static str,
    /// Empty for a subresource.
    singular: &'static str,
    /// Whether the path names a namespace.
    pub(crate) namespaced: bool,
    /// What comes back.
    pub(crate) kind: &'static str,
    /// Kubernetes' verbs, in alphabetical order.
    pub(crate) verbs: &'static [&'static str],
    short_names: &'static [&'static str],
    categories: &'static [&'static str],
}

/// A resource of the core group; the others are made from it.
const CORE: Resource = Resource {
    group: "",
    version: "v1",
    name: "",
    singular: "",
    namespaced: true,
    kind: "",
    verbs: &[],
    short_names: &[],
    categories: &[],
};

/// A subresource of pods.
const fn pods(name: &'static str, kind: &'static str, verbs: &'static [&'static str]) -> Resource {
    Resource {
        name,
        kind,
        verbs,
        ..CORE
    }
}

/// A subresource of the launches of a pod's ephemeral containers.
const fn launches(name: &'static str, verbs: &'static [&'static str]) -> Resource {
    Resource {
        group: OURS,
        version: OUR_VERSION,
        ..pods(name, "Launch", verbs)
    }
}

/// A question about the asking user.
const fn review(
    group: &'static str,
    name: &'static str,
    singular: &'static str,
    kind: &'static str,
) -> Resource {
    Resource {
        group,
        name,
        singular,
        kind,
        namespaced: false,
        verbs: &["create"],
        ..CORE
    }
}

/// All that is served. A test asks the router for each verb of it.
pub(crate) const RESOURCES: &[Resource] = &[
    Resource {
        name: "events",
        singular: "event",
        kind: "Event",
        verbs: &["get", "list", "watch"],
        short_names: &["ev"],
        ..CORE
    },
    Resource {
        name: "namespaces",
        singular: "namespace",
        namespaced: false,
        kind: "Namespace",
        verbs: &["get", "list", "watch"],
        short_names: &["ns"],
        ..CORE
    },
    Resource {
        name: "nodes",
        singular: "node",
        namespaced: false,
        kind: "Node",
        verbs: &["get", "list", "watch"],
        short_names: &["no"],
        ..CORE
    },
    Resource {
        name: "pods",
        singular: "pod",
        kind: "Pod",
        verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
        short_names: &["po"],
        categories: &["all"],
        ..CORE
    },
    pods("pods/attach", "PodAttachOptions", &["create", "get"]),
    pods("pods/ephemeralcontainers", "Pod", &["get", "patch", "update"]),
    pods("pods/exec", "PodExecOptions", &["create", "get"]),
    pods("pods/log", "Pod", &["get"]),
    pods("pods/portforward", "PodPortForwardOptions", &["create", "get"]),
    pods("pods/status", "Pod", &["get"]),
    review(
        AUTHENTICATION,
        "selfsubjectreviews",
        "selfsubjectreview",
        "SelfSubjectReview",
    ),
    review(
        AUTHORIZATION,
        "selfsubjectaccessreviews",
        "selfsubjectaccessreview",
        "SelfSubjectAccessReview",
    ),
    review(
        AUTHORIZATION,
        "selfsubjectrulesreviews",
        "selfsubjectrulesreview",
        "SelfSubjectRulesReview",
    ),
    Resource {
        group: OURS,
        version: OUR_VERSION,
        name: "leftovers",
        singular: "leftover",
        namespaced: false,
        kind: "Leftover",
        verbs: &["delete"],
        ..CORE
    },
    Resource {
        group: OURS,
        version: OUR_VERSION,
        name: "node",
        singular: "node",
        namespaced: false,
        kind: "NodeReport",
        verbs: &["get"],
        ..CORE
    },
    launches("pods/launches", &["create", "get", "watch"]),
    launches("pods/launches/flushlog", &["create"]),
    launches("pods/launches/stop", &["create"]),
];

/// The groups beside the core one, each with its only version.
pub(crate) fn named_groups() -> BTreeSet<(&'static str, &'static str)> {
    RESOURCES
        .iter()
        .filter(|resource| !resource.group.is_empty())
        .map(|resource| (resource.group, resource.version))
        .collect()
}

/// The resources of one group and version; of none where it is not served.
pub(crate) fn resources_of(group: &str, version: &str) -> Vec<&'static Resource> {
    RESOURCES
        .iter()
        .filter(|resource| (resource.group, resource.version) == (group, version))
        .collect()
}

/// The two forms of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Legacy,
    /// Of this version of `apidiscovery.k8s.io`.
    Aggregated(&'static str),
}

impl Form {
    /// The first form that the client accepts and that we have; the legacy one for who names none.
    fn accepted(headers: &HeaderMap) -> Form {
        let accepted = headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok());
        accepted
            .flat_map(|value| value.split(','))
            .find_map(|media_type| {
                let mut parts = media_type.split(';').map(str::trim);
                let json = parts.next() == Some("application/json");
                let parameters: Vec<&str> = parts.filter(|part| !part.starts_with("q=")).collect();
                let has = |parameter| parameters.contains(&parameter);
                match () {
                    () if !json => None,
                    () if parameters.is_empty() => Some(Form::Legacy),
                    () if !has("g=apidiscovery.k8s.io") || !has("as=APIGroupDiscoveryList") => None,
                    () if has("v=v2") => Some(Form::Aggregated("v2")),
                    () if has("v=v2beta1") => Some(Form::Aggregated("v2beta1")),
                    () => None,
                }
            })
            .unwrap_or(Form::Legacy)
    }
}

/// `/api`: the core group.
pub(crate) async fn core(headers: HeaderMap) -> Response {
    match Form::accepted(&headers) {
        Form::Aggregated(version) => aggregated(version, &[("", "v1")]),
        Form::Legacy => Json(json!({
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [],
        }))
        .into_response(),
    }
}

/// `/apis`: the groups beside the core one.
pub(crate) async fn groups(headers: HeaderMap) -> Response {
    let groups: Vec<_> = named_groups().into_iter().collect();
    match Form::accepted(&headers) {
        Form::Aggregated(version) => aggregated(version, &groups),
        Form::Legacy => {
            let groups: Vec<Value> = groups.into_iter().map(legacy_group).collect();
            Json(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})).into_response()
        }
    }
}

/// `/apis/GROUP`.
pub(crate) async fn group(Path(name): Path<String>) -> Result<Json<Value>, Failure> {
    let found = named_groups().into_iter().find(|(group, _)| *group == name);
    let found = found.ok_or_else(|| Failure::no_such_path(&format!("/apis/{name}")))?;
    let mut group = legacy_group(found);
    group["kind"] = json!("APIGroup");
    group["apiVersion"] = json!("v1");
    Ok(Json(group))
}

/// `/api/v1`.
pub(crate) async fn core_resources() -> Json<Value> {
    Json(legacy_resources("", "v1"))
}

/// `/apis/GROUP/VERSION`.
pub(crate) async fn group_resources(
    Path((group, version)): Path<(String, String)>,
) -> Result<Json<Value>, Failure> {
    if resources_of(&group, &version).is_empty() {
        return Err(Failure::no_such_path(&format!("/apis/{group}/{version}")));
    }
    Ok(Json(legacy_resources(&group, &version)))
}

/// `GROUP/VERSION`, or the version alone for the core group.
pub(crate) fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

fn legacy_group((group, version): (&str, &str)) -> Value {
    let version = json!({"groupVersion": group_version(group, version), "version": version});
    json!({"name": group, "versions": [version], "preferredVersion": version})
}

fn legacy_resources(group: &str, version: &str) -> Value {
    let resources = resources_of(group, version).into_iter().map(|resource| {
        let mut listed = json!({
            "name": resource.name,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": resource.verbs,
        });
        if !resource.short_names.is_empty() {
            listed["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            listed["categories"] = json!(resource.categories);
        }
        listed
    });
    json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version(group, version),
        "resources": resources.collect::<Vec<_>>(),
    })
}

fn aggregated(form: &str, groups: &[(&str, &str)]) -> Response {
    let items: Vec<Value> = groups
        .iter()
        .map(|(group, version)| {
            let mut metadata = json!({"creationTimestamp": null});
            if !group.is_empty() {
                metadata["name"] = json!(group);
            }
            let version = json!({
                "version": version,
                "resources": aggregated_resources(group, version),
                "freshness": "Current",
            });
            json!({"metadata": metadata, "versions": [version]})
        })
        .collect();
    let body = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{form}"),
        "metadata": {},
        "items": items,
    });
    let media_type = format!("application/json;g=apidiscovery.k8s.io;v={form};as=APIGroupDiscoveryList");
    ([(CONTENT_TYPE, media_type)], Json(body)).into_response()
}

fn aggregated_resources(group: &str, version: &str) -> Vec<Value> {
    let all = resources_of(group, version);
    let (subresources, mut resources): (Vec<&Resource>, Vec<&Resource>) =
        all.into_iter().partition(|resource| resource.name.contains('/'));
    // Subresources of another group's resource hang under a resource that has no verbs of its own, as kube-apiserver
    // shows them.
    let missing: BTreeSet<&str> = subresources
        .iter()
        .filter_map(|subresource| Some(subresource.name.split_once('/')?.0))
        .filter(|parent| resources.iter().all(|resource| resource.name != *parent))
        .collect();
    let parents: Vec<Resource> = missing
        .into_iter()
        .map(|name| Resource { name, ..CORE })
        .collect();
    resources.extend(parents.iter());
    resources
        .into_iter()
        .map(|resource| {
            let kind = |kind: &str| json!({"group": group, "version": version, "kind": kind});
            let subresources: Vec<Value> = subresources
                .iter()
                .filter_map(|subresource| {
                    let (parent, name) = subresource.name.split_once('/')?;
                    (parent == resource.name).then(|| {
                        json!({
                            "subresource": name,
                            "responseKind": kind(subresource.kind),
                            "verbs": subresource.verbs,
                        })
                    })
                })
                .collect();
            let mut listed = json!({
                "resource": resource.name,
                "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
                "singularResource": resource.singular,
                "verbs": resource.verbs,
            });
            if !resource.kind.is_empty() {
                listed["responseKind"] = kind(resource.kind);
            }
            if !resource.short_names.is_empty() {
                listed["shortNames"] = json!(resource.short_names);
            }
            if !resource.categories.is_empty() {
                listed["categories"] = json!(resource.categories);
            }
            if !subresources.is_empty() {
                listed["subresources"] = json!(subresources);
            }
            listed
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_form_is_the_first_of_the_clients_that_is_known() {
        let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let beta = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
        for (accept, form) in [
            (String::new(), Form::Legacy),
            ("*/*".to_owned(), Form::Legacy),
            ("application/json, */*".to_owned(), Form::Legacy),
            (
                format!("{aggregated},{beta},application/json"),
                Form::Aggregated("v2"),
            ),
            (format!("{beta},application/json"), Form::Aggregated("v2beta1")),
            (format!("application/json,{aggregated}"), Form::Legacy),
            (
                format!("application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2,{beta};q=0.9"),
                Form::Aggregated("v2beta1"),
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_str(&accept).expect("a header"));
            assert_eq!(Form::accepted(&headers), form, "{accept}");
        }
    }

    #[test]
    fn both_forms_list_the_same() {
        let mut groups = vec![("", "v1")];
        groups.extend(named_groups());
        for (group, version) in groups {
            let legacy = legacy_resources(group, version);
            let named = |value: &Value, name: String| (name, value["verbs"].clone());
            let mut one: Vec<_> = legacy["resources"]
                .as_array()
                .expect("resources")
                .iter()
                .map(|resource| named(resource, resource["name"].as_str().expect("a name").to_owned()))
                .collect();
            let mut other = Vec::new();
            for resource in aggregated_resources(group, version) {
                let name = resource["resource"].as_str().expect("a name").to_owned();
                for subresource in resource["subresources"].as_array().into_iter().flatten() {
                    let below = subresource["subresource"].as_str().expect("a name");
                    other.push(named(subresource, format!("{name}/{below}")));
                }
                if resource.get("responseKind").is_some() {
                    other.push(named(&resource, name));
                }
            }
            one.sort_by(|one, other| one.0.cmp(&other.0));
            other.sort_by(|one, other| one.0.cmp(&other.0));
            assert_eq!(one, other, "{group}");
        }
    }
}
