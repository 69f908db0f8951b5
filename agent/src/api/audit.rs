//! Who did what: one line in the log for each write, exec, attach, port-forward and log, also where it was refused, or its
//! client has hung up. Nothing that a client sends but names is in it.

use axum::http::StatusCode;
use axum::response::Response;

use super::attributes::STREAMS;
use super::discovery::{AUTHENTICATION, AUTHORIZATION};
use super::identity::Identity;
use crate::kubernetes::cluster_users::Wanted;
use crate::pod::asked_by::{AskedBy, WayIn, shown};

/// The subresources that are told of whatever the verb is.
const TOLD: [&str; 4] = ["attach", "exec", "log", "portforward"];

/// What a handler knows of its request that its path does not say; in the extensions of the answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Touched {
    /// The pod's name, where the path has none.
    pub(super) pod: Option<String>,
    /// The containers that it was about.
    pub(super) containers: Vec<String>,
    /// Whether nothing was done.
    pub(super) dry_run: bool,
}

impl Touched {
    /// One container.
    pub(super) fn container(name: &str) -> Touched {
        Touched {
            containers: vec![name.to_owned()],
            ..Touched::default()
        }
    }

    /// The answer, with this.
    pub(super) fn on(self, mut response: Response) -> Response {
        response.extensions_mut().insert(self);
        response
    }
}

/// The line of one request. It is written when this is dropped, so that none is lost with a handler that is.
#[derive(Debug)]
pub(super) struct Line {
    asked_by: AskedBy,
    /// `create pods/exec`.
    what: String,
    /// Whether the request changes something, and opens no stream.
    pub(super) is_write: bool,
    /// `pods`, `leftovers`.
    resource: String,
    namespace: String,
    /// The name in the path; a pod's, or that of the object of another resource.
    name: Option<String>,
    touched: Touched,
    /// None: the client hung up before its stream was open, or the handler did not come to its end.
    outcome: Option<StatusCode>,
}

impl Line {
    /// The line of a request that wants this; none where it only reads. `container` is what path or query say.
    pub(super) fn of(identity: &Identity, wanted: &Wanted, container: Option<String>) -> Option<Line> {
        let Wanted::Resource(attributes) = wanted else {
            return None;
        };
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let (group, verb) = (text(&attributes.group), text(&attributes.verb));
        let subresource = text(&attributes.subresource);
        let is_stream = TOLD.contains(&subresource.as_str());
        let reads = ["get", "list", "watch"].contains(&verb.as_str()) && !is_stream;
        // A review is a question.
        if reads || [AUTHENTICATION, AUTHORIZATION].contains(&group.as_str()) {
            return None;
        }
        // Whichever method opens a stream, it is judged and told as `create`.
        let verb = match STREAMS.contains(&subresource.as_str()) {
            true => "create",
            false => verb.as_str(),
        };
        let resource = text(&attributes.resource);
        let what = match subresource.as_str() {
            "" => format!("{verb} {resource}"),
            subresource => format!("{verb} {resource}/{subresource}"),
        };
        Some(Line {
            asked_by: identity.asked_by(),
            what,
            is_write: !is_stream,
            resource,
            namespace: text(&attributes.namespace),
            name: attributes.name.clone(),
            touched: Touched {
                containers: container.into_iter().filter(|name| !name.is_empty()).collect(),
                ..Touched::default()
            },
            outcome: None,
        })
    }

    /// Writes it, with what came of the request.
    pub(super) fn write(mut self, response: &Response) {
        if let Some(told) = response.extensions().get::<Touched>() {
            let asked = std::mem::replace(&mut self.touched, told.clone());
            if self.touched.containers.is_empty() {
                self.touched.containers = asked.containers;
            }
        }
        self.outcome = Some(response.status());
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let name = self.touched.pod.as_ref().or(self.name.as_ref());
        let name = name.map(String::as_str).unwrap_or_default();
        let (pod, object) = match self.resource.as_str() {
            "pods" => (Some(format!("{}/{name}", self.namespace)), None),
            resource => (None, Some(format!("{resource}/{name}"))),
        };
        let containers = self.touched.containers.join(",");
        let way_in = match self.asked_by.way_in {
            WayIn::Socket => "socket",
            WayIn::Certificate => "certificate",
            WayIn::Cluster => "cluster",
            WayIn::Manifest => "manifest",
            WayIn::ApiServer => "API server",
        };
        let outcome = self.outcome.map(|outcome| outcome.to_string());
        tracing::info!(
            user = self.asked_by.user,
            way_in,
            pod = pod.as_deref().map(shown),
            object = object.as_deref().map(shown),
            container = (!containers.is_empty()).then(|| shown(&containers)),
            dry_run = self.touched.dry_run.then_some(true),
            outcome = outcome.as_deref().unwrap_or("no answer"),
            "{}",
            self.what
        );
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authorization::v1::ResourceAttributes;
    use serde_json::Value;

    use super::*;
    use crate::logging::tests::kept_log;

    #[test]
    fn each_write_exec_attach_port_forward_and_log_has_a_line_and_no_other_read() {
        const OURS: &str = "debuglet.io";
        for (verb, group, resource, subresource, expected) in [
            ("get", "", "pods", "", None),
            ("list", "", "pods", "", None),
            ("watch", "", "events", "", None),
            ("get", "", "pods", "ephemeralcontainers", None),
            ("watch", OURS, "pods", "launches", None),
            ("get", OURS, "node", "", None),
            ("create", AUTHORIZATION, "selfsubjectaccessreviews", "", None),
            ("create", AUTHENTICATION, "selfsubjectreviews", "", None),
            ("create", "", "pods", "", Some("create pods")),
            ("delete", "", "pods", "", Some("delete pods")),
            ("update", "", "pods", "", Some("update pods")),
            (
                "patch",
                "",
                "pods",
                "ephemeralcontainers",
                Some("patch pods/ephemeralcontainers"),
            ),
            ("get", "", "pods", "log", Some("get pods/log")),
            ("get", "", "pods", "exec", Some("create pods/exec")),
            ("create", "", "pods", "attach", Some("create pods/attach")),
            (
                "create",
                "",
                "pods",
                "portforward",
                Some("create pods/portforward"),
            ),
            ("create", OURS, "pods", "launches", Some("create pods/launches")),
            (
                "create",
                OURS,
                "pods",
                "launches/stop",
                Some("create pods/launches/stop"),
            ),
        ] {
            let some = |text: &str| Some(text.to_owned());
            let attributes = ResourceAttributes {
                group: some(group),
                verb: some(verb),
                resource: some(resource),
                subresource: some(subresource),
                ..ResourceAttributes::default()
            };
            let wanted = Wanted::Resource(Box::new(attributes));
            let line = Line::of(&Identity::root(), &wanted, some("main"));
            assert_eq!(line.as_ref().map(|line| line.what.as_str()), expected);
            let streams = TOLD.contains(&subresource);
            assert!(line.is_none_or(|line| line.is_write != streams), "{expected:?}");
        }
    }

    #[test]
    fn a_line_names_the_pod_or_the_object_that_it_is_about() {
        for (resource, namespace, name, expected) in [
            ("pods", "shop", "cart", ("shop/cart", "null")),
            ("leftovers", "", "0a1b", ("null", "leftovers/0a1b")),
        ] {
            let some = |text: &str| Some(text.to_owned());
            let attributes = ResourceAttributes {
                verb: some("delete"),
                resource: some(resource),
                namespace: some(namespace),
                name: some(name),
                ..ResourceAttributes::default()
            };
            let wanted = Wanted::Resource(Box::new(attributes));
            let (log, guard) = kept_log();
            drop(Line::of(&Identity::root(), &wanted, None));
            drop(guard);
            let line: Value = serde_json::from_str(&log.text()).expect("one line of JSON");
            let told = |field: &str| match &line[field] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let (pod, object) = (told("pod"), told("object"));
            assert_eq!((pod.as_str(), object.as_str()), expected, "{line}");
            assert_eq!(line["outcome"], "no answer");
        }
    }
}
