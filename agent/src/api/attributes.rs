//! What a request wants to do, in the terms that rights are given in: a verb and a resource, or a path. It is read from
//! the route that serves the request, so that what is judged is what is done.

use axum::http::Method;
use k8s_openapi::api::authorization::v1::{
    FieldSelectorAttributes, LabelSelectorAttributes, NonResourceAttributes, ResourceAttributes,
};

use super::extension::GROUP as OURS;
use super::request::watches;
use super::selectors::Narrowed;
use crate::kubernetes::cluster_users::Wanted;

/// The subresources that are a shell, or as good as one. Whichever method opens the stream, the right is `create`: in
/// Kubernetes a right to read must not be one to execute either (KEP-5471, `AuthorizePodWebsocketUpgradeCreatePermission`).
pub(super) const STREAMS: [&str; 3] = ["attach", "exec", "portforward"];

/// A request as far as rights go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// The method.
    pub(super) method: &'a Method,
    /// The path as it came.
    pub(super) path: &'a str,
    /// The query as it came.
    pub(super) query: &'a str,
    /// The route that serves it, `/api/v1/namespaces/{namespace}/pods`.
    pub(super) route: &'a str,
}

/// What it wants to do. `parameter` gives the value of a part of the route in braces.
pub(super) fn wanted(asked: &Asked<'_>, parameter: impl Fn(&str) -> Option<String>) -> Wanted {
    let Some((group, version, parts)) = parts(asked.route) else {
        return Wanted::Path(NonResourceAttributes {
            path: Some(asked.path.to_owned()),
            verb: Some(asked.method.as_str().to_lowercase()),
        });
    };
    let value = |part: &str| in_braces(part).and_then(&parameter);
    let (namespace, rest) = match parts.as_slice() {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (value(namespace), rest),
        // A namespace is in itself: who may read it there may read it.
        ["namespaces", namespace] => (value(namespace), parts.as_slice()),
        all => (None, all),
    };
    let (resource, rest) = rest
        .split_first()
        .map_or(("", rest), |(first, rest)| (*first, rest));
    let (name, rest) = match rest.split_first() {
        Some((first, rest)) if in_braces(first).is_some() => (value(first), rest),
        _ => (None, rest),
    };
    let subresource: Vec<&str> = rest
        .iter()
        .copied()
        .filter(|part| in_braces(part).is_none())
        .collect();
    let subresource = subresource.join("/");
    // `node` of the extension group is one object without a name.
    let one = name.is_some() || (group == OURS && resource == "node");
    let verb = verb(asked, one, &subresource);
    // What narrows a list narrows what is asked about, as at kube-apiserver: a right to one name, or to what a selector
    // selects, is enough for a list of no more than that.
    let narrowed = match verb.as_str() {
        "list" | "watch" if !one => {
            let parameter = |key: &str| parameter_of(asked.query, key).unwrap_or_default();
            Narrowed::by(&parameter("fieldSelector"), &parameter("labelSelector"))
        }
        _ => Narrowed::default(),
    };
    Wanted::Resource(Box::new(ResourceAttributes {
        group: Some(group.to_owned()),
        version: Some(version.to_owned()),
        resource: Some(resource.to_owned()),
        verb: Some(verb),
        namespace: Some(namespace.unwrap_or_default()),
        name: Some(name.or(narrowed.name).unwrap_or_default()),
        subresource: Some(subresource),
        field_selector: (!narrowed.fields.is_empty()).then_some(FieldSelectorAttributes {
            requirements: Some(narrowed.fields),
            raw_selector: None,
        }),
        label_selector: (!narrowed.labels.is_empty()).then_some(LabelSelectorAttributes {
            requirements: Some(narrowed.labels),
            raw_selector: None,
        }),
    }))
}

/// A parameter of a query, as it is decoded. Of several of one name the first: no handler of a list takes two.
pub(super) fn parameter_of(query: &str, key: &str) -> Option<String> {
    let mut all = form_urlencoded::parse(query.as_bytes());
    all.find(|(name, _)| name == key)
        .map(|(_, value)| value.into_owned())
}

/// Everything that is needed for it: what Kubernetes asks for, and for what Kubernetes' admission control would have judged
/// (writes, deletions too, exec, attach and port-forward), the same in our own group. There is no admission control here: who is
/// to do without it is given that right by name. More than one where one request does what several would.
pub(super) fn needed(wanted: Wanted) -> Vec<Wanted> {
    let Wanted::Resource(mut attributes) = wanted else {
        return vec![wanted];
    };
    let is =
        |field: &Option<String>, among: &[&str]| field.as_deref().is_some_and(|value| among.contains(&value));
    let of_pods = is(&attributes.group, &[""]) && is(&attributes.resource, &["pods"]);
    if of_pods && is(&attributes.subresource, &STREAMS) {
        attributes.verb = Some("create".to_owned());
    }
    let admitted = of_pods && is(&attributes.verb, &["create", "update", "patch", "delete"]);
    let ours = admitted.then(|| {
        Wanted::Resource(Box::new(ResourceAttributes {
            group: Some(OURS.to_owned()),
            version: None,
            ..(*attributes).clone()
        }))
    });
    // To create a launch is to patch the pod's ephemeral containers, and to say more of one than a patch can.
    let launches = is(&attributes.group, &[OURS])
        && is(&attributes.subresource, &["launches"])
        && is(&attributes.verb, &["create"]);
    let as_patch = launches.then(|| {
        needed(Wanted::Resource(Box::new(ResourceAttributes {
            group: Some(String::new()),
            version: Some("v1".to_owned()),
            subresource: Some("ephemeralcontainers".to_owned()),
            verb: Some("patch".to_owned()),
            ..(*attributes).clone()
        })))
    });
    let mut needed = vec![Wanted::Resource(attributes)];
    needed.extend(ours);
    needed.extend(as_patch.into_iter().flatten());
    needed
}

/// Group, version and the rest of a route that serves a resource.
fn parts(route: &str) -> Option<(&str, &str, Vec<&str>)> {
    let mut parts = route.split('/').skip(1);
    let group = match parts.next()? {
        "api" => "",
        "apis" => parts.next()?,
        _ => return None,
    };
    let version = parts.next()?;
    let rest: Vec<&str> = parts.collect();
    // What discovery serves at a group's own path is no resource.
    (!rest.is_empty() && in_braces(group).is_none()).then_some((group, version, rest))
}

fn in_braces(part: &str) -> Option<&str> {
    part.strip_prefix('{')?.strip_suffix('}')
}

fn verb(asked: &Asked<'_>, one: bool, subresource: &str) -> String {
    let watches = || watches(asked.query);
    let verb = match *asked.method {
        Method::GET | Method::HEAD if (!one || subresource == "launches") && watches() => "watch",
        Method::GET | Method::HEAD if one => "get",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if one => "delete",
        Method::DELETE => "deletecollection",
        ref other => return other.as_str().to_lowercase(),
    };
    verb.to_owned()
}

#[cfg(test)]
mod tests {
    use axum::extract::Query;

    use super::super::list_options::ListOptions;
    use super::*;

    fn shown(wanted: &Wanted) -> String {
        match wanted {
            Wanted::Path(path) => format!(
                "{} {}",
                path.verb.as_deref().unwrap_or_default(),
                path.path.as_deref().unwrap_or_default()
            ),
            Wanted::Resource(attributes) => {
                let text = |field: &Option<String>| field.clone().unwrap_or_default();
                let fields = [
                    &attributes.verb,
                    &attributes.group,
                    &attributes.resource,
                    &attributes.subresource,
                    &attributes.namespace,
                    &attributes.name,
                ];
                fields.map(text).join(",")
            }
        }
    }

    #[test]
    fn what_is_wanted_follows_from_the_route_that_serves_it() {
        let pod = "/api/v1/namespaces/{namespace}/pods/{name}";
        let launch = "/apis/debuglet.io/v1alpha1/namespaces/{namespace}/pods/{name}/launches/{container}";
        for (method, route, query, expected) in [
            ("GET", "/api/v1/pods", "", "list,,pods,,,"),
            ("GET", "/api/v1/pods", "watch=true", "watch,,pods,,,"),
            ("GET", "/api/v1/pods", "watch=0", "list,,pods,,,"),
            (
                "GET",
                "/api/v1/namespaces/{namespace}/pods",
                "watch=1&fieldSelector=metadata.name%3Dweb",
                "watch,,pods,,<namespace>,web",
            ),
            (
                "GET",
                "/api/v1/namespaces/{namespace}/pods",
                "fieldSelector=metadata.name!%3Dweb",
                "list,,pods,,<namespace>,",
            ),
            (
                "GET",
                "/api/v1/namespaces",
                "fieldSelector=metadata.name%3Dshop",
                "list,,namespaces,,,shop",
            ),
            // One object is not selected.
            (
                "GET",
                pod,
                "fieldSelector=metadata.name%3Dweb",
                "get,,pods,,<namespace>,<name>",
            ),
            (
                "GET",
                launch,
                "watch=1&fieldSelector=metadata.name%3Dweb",
                "watch,debuglet.io,pods,launches,<namespace>,<name>",
            ),
            (
                "POST",
                "/api/v1/namespaces/{namespace}/pods",
                "",
                "create,,pods,,<namespace>,",
            ),
            ("GET", pod, "", "get,,pods,,<namespace>,<name>"),
            ("HEAD", pod, "", "get,,pods,,<namespace>,<name>"),
            ("GET", pod, "watch=true", "get,,pods,,<namespace>,<name>"),
            ("DELETE", pod, "", "delete,,pods,,<namespace>,<name>"),
            ("PUT", pod, "", "update,,pods,,<namespace>,<name>"),
            ("BREW", pod, "", "brew,,pods,,<namespace>,<name>"),
            (
                "PATCH",
                "/api/v1/namespaces/{namespace}/pods/{name}/ephemeralcontainers",
                "",
                "patch,,pods,ephemeralcontainers,<namespace>,<name>",
            ),
            ("GET", "/api/v1/namespaces", "", "list,,namespaces,,,"),
            (
                "GET",
                "/api/v1/namespaces/{name}",
                "",
                "get,,namespaces,,<name>,<name>",
            ),
            ("GET", "/api/v1/nodes/{name}", "", "get,,nodes,,,<name>"),
            (
                "GET",
                "/apis/debuglet.io/v1alpha1/node",
                "",
                "get,debuglet.io,node,,,",
            ),
            (
                "GET",
                launch,
                "",
                "get,debuglet.io,pods,launches,<namespace>,<name>",
            ),
            (
                "GET",
                launch,
                "watch=1",
                "watch,debuglet.io,pods,launches,<namespace>,<name>",
            ),
            (
                "POST",
                &format!("{launch}/stop"),
                "",
                "create,debuglet.io,pods,launches/stop,<namespace>,<name>",
            ),
            (
                "POST",
                "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
                "",
                "create,authorization.k8s.io,selfsubjectaccessreviews,,,",
            ),
            ("GET", "/api", "", "get /AS/IT/CAME"),
            ("GET", "/api/v1", "", "get /AS/IT/CAME"),
            ("GET", "/apis/{group}/{version}", "", "get /AS/IT/CAME"),
            ("GET", "/openapi/v3/apis/{group}/{version}", "", "get /AS/IT/CAME"),
            ("GET", "/metrics", "", "get /AS/IT/CAME"),
        ] {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            let asked = Asked {
                method: &method,
                path: "/AS/IT/CAME",
                query,
                route,
            };
            let wanted = wanted(&asked, |name| Some(format!("<{name}>")));
            assert_eq!(shown(&wanted), expected, "{method} {route}?{query}");
        }
    }

    #[test]
    fn a_watch_is_judged_as_one_however_the_query_spells_it() {
        for (value, expected) in [
            ("false", false),
            ("False", false),
            ("FALSE", false),
            ("0", false),
            ("true", true),
            ("1", true),
            ("no", true),
            ("", true),
        ] {
            let uri: axum::http::Uri = format!("/api/v1/pods?watch={value}").parse().expect("an address");
            let asked = Asked {
                method: &Method::GET,
                path: uri.path(),
                query: uri.query().unwrap_or_default(),
                route: "/api/v1/pods",
            };
            let judged = shown(&wanted(&asked, |_| None));
            assert_eq!(judged.starts_with("watch,"), expected, "{value}");
            let Query(served): Query<ListOptions> = Query::try_from_uri(&uri).expect("parameters");
            assert_eq!(served.watch, expected, "{value}");
            let twice: axum::http::Uri = format!("/?watch=false&watch={value}")
                .parse()
                .expect("an address");
            assert!(Query::<ListOptions>::try_from_uri(&twice).is_err(), "{value}");
        }
    }

    #[test]
    fn a_stream_needs_create_and_what_admission_control_would_judge_the_right_to_that_too() {
        for (verb, group, resource, subresource, expected) in [
            ("get", "", "pods", "", vec!["get,,pods,,n,p"]),
            (
                "get",
                "",
                "pods",
                "exec",
                vec!["create,,pods,exec,n,p", "create,debuglet.io,pods,exec,n,p"],
            ),
            (
                "create",
                "",
                "pods",
                "attach",
                vec!["create,,pods,attach,n,p", "create,debuglet.io,pods,attach,n,p"],
            ),
            (
                "create",
                "",
                "pods",
                "portforward",
                vec![
                    "create,,pods,portforward,n,p",
                    "create,debuglet.io,pods,portforward,n,p",
                ],
            ),
            ("get", "", "pods", "log", vec!["get,,pods,log,n,p"]),
            (
                "delete",
                "",
                "pods",
                "",
                vec!["delete,,pods,,n,p", "delete,debuglet.io,pods,,n,p"],
            ),
            (
                "patch",
                "",
                "pods",
                "ephemeralcontainers",
                vec![
                    "patch,,pods,ephemeralcontainers,n,p",
                    "patch,debuglet.io,pods,ephemeralcontainers,n,p",
                ],
            ),
            (
                "create",
                "",
                "pods",
                "",
                vec!["create,,pods,,n,p", "create,debuglet.io,pods,,n,p"],
            ),
            ("get", "", "nodes", "", vec!["get,,nodes,,n,p"]),
            (
                "create",
                OURS,
                "pods",
                "launches",
                vec![
                    "create,debuglet.io,pods,launches,n,p",
                    "patch,,pods,ephemeralcontainers,n,p",
                    "patch,debuglet.io,pods,ephemeralcontainers,n,p",
                ],
            ),
            (
                "watch",
                OURS,
                "pods",
                "launches",
                vec!["watch,debuglet.io,pods,launches,n,p"],
            ),
        ] {
            let some = |text: &str| Some(text.to_owned());
            let attributes = ResourceAttributes {
                group: some(group),
                verb: some(verb),
                resource: some(resource),
                subresource: some(subresource),
                namespace: some("n"),
                name: some("p"),
                ..ResourceAttributes::default()
            };
            let needed: Vec<String> = needed(Wanted::Resource(Box::new(attributes)))
                .iter()
                .map(shown)
                .collect();
            assert_eq!(needed, expected, "{verb} {group} {resource}/{subresource}");
        }
    }
}
