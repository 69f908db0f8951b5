//! What a request is about, in Kubernetes' words: a verb and a resource. There are few of either, whatever is asked.

use axum::http::{Method, Uri};

use super::super::discovery::RESOURCES;
use super::super::request::watches;

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestKind {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, `connect`, or `other`.
    pub(super) verb: &'static str,
    /// As discovery names it: `pods`, `pods/log`, ...; `other` where it is not served, and empty where the path is no
    /// resource's.
    pub(super) resource: &'static str,
}

impl RequestKind {
    /// Reads it from the request's first line.
    pub(super) fn of(method: &Method, uri: &Uri) -> RequestKind {
        let Some((resource, named)) = resource(uri.path()) else {
            return RequestKind {
                verb: verb(method, true, false),
                resource: "",
            };
        };
        let watches = || watches(uri.query().unwrap_or_default());
        let verb = match resource {
            "pods/attach" | "pods/exec" | "pods/portforward" => "connect",
            _ => verb(method, named, *method == Method::GET && watches()),
        };
        RequestKind { verb, resource }
    }
}

fn verb(method: &Method, named: bool, watches: bool) -> &'static str {
    match *method {
        Method::GET | Method::HEAD if watches => "watch",
        Method::GET | Method::HEAD if named => "get",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if named => "delete",
        Method::DELETE => "deletecollection",
        _ => "other",
    }
}

/// The resource of a path, and whether one object of it is named.
fn resource(path: &str) -> Option<(&'static str, bool)> {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let group_and_version = match parts.next()? {
        "api" => 1,
        "apis" => 2,
        _ => return None,
    };
    let mut parts = parts.skip(group_and_version).peekable();
    let mut resource = parts.next()?;
    let mut name = parts.next();
    // What follows a namespace is in it; what follows nothing is the namespace itself.
    if resource == "namespaces"
        && let Some(namespaced) = parts.next()
    {
        (resource, name) = (namespaced, parts.next());
    }
    let known = |wanted: &str| {
        let mut names = RESOURCES.iter().map(|resource| resource.name);
        names.find(|name| *name == wanted)
    };
    let found = match parts.next() {
        Some(subresource) => known(&format!("{resource}/{subresource}")),
        None => known(resource),
    };
    // `node` of the extension group is one object without a name.
    Some((found.unwrap_or("other"), name.is_some() || resource == "node"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_named_as_kubernetes_names_it() {
        for (method, path, verb, resource) in [
            ("GET", "/api/v1/pods", "list", "pods"),
            ("GET", "/api/v1/pods?watch=1", "watch", "pods"),
            ("GET", "/api/v1/namespaces/a/pods?watch=False", "list", "pods"),
            ("GET", "/api/v1/namespaces/a/pods/b", "get", "pods"),
            ("POST", "/api/v1/namespaces/a/pods", "create", "pods"),
            ("DELETE", "/api/v1/namespaces/a/pods/b", "delete", "pods"),
            ("DELETE", "/api/v1/namespaces/a/pods", "deletecollection", "pods"),
            (
                "PATCH",
                "/api/v1/namespaces/a/pods/b/ephemeralcontainers",
                "patch",
                "pods/ephemeralcontainers",
            ),
            (
                "POST",
                "/api/v1/namespaces/a/pods/b/exec?command=sh",
                "connect",
                "pods/exec",
            ),
            ("GET", "/api/v1/namespaces/a", "get", "namespaces"),
            ("GET", "/api/v1/namespaces", "list", "namespaces"),
            ("GET", "/apis/debuglet.io/v1alpha1/node", "get", "node"),
            (
                "GET",
                "/apis/debuglet.io/v1alpha1/namespaces/a/pods/b/launches/c?watch=true",
                "watch",
                "pods/launches",
            ),
            (
                "POST",
                "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
                "create",
                "selfsubjectaccessreviews",
            ),
            ("GET", "/api/v1/namespaces/a/secrets/b", "get", "other"),
            ("GET", "/api/v1/namespaces/a/pods/b/no/such", "get", "other"),
            ("BREW", "/api/v1/pods", "other", "pods"),
            ("GET", "/version", "get", ""),
            ("GET", "/api", "get", ""),
            ("GET", "/../../etc", "get", ""),
        ] {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            let kind = RequestKind::of(&method, &path.parse().expect("a path"));
            assert_eq!((kind.verb, kind.resource), (verb, resource), "{method} {path}");
        }
    }
}
