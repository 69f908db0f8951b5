//! Who did what: one line in the log for each write, exec, attach, port-forward and log, also where it was refused. Nothing
//! that a client sends but names is in it.

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

/// The line of one request, until its outcome is known.
#[derive(Debug)]
pub(super) struct Line {
    asked_by: AskedBy,
    /// `create pods/exec`.
    what: String,
    namespace: String,
    touched: Touched,
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
        let reads =
            ["get", "list", "watch"].contains(&verb.as_str()) && !TOLD.contains(&subresource.as_str());
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
            namespace: text(&attributes.namespace),
            touched: Touched {
                pod: attributes.name.clone(),
                containers: container.into_iter().filter(|name| !name.is_empty()).collect(),
                dry_run: false,
            },
        })
    }

    /// Writes it, with what came of the request.
    pub(super) fn write(self, response: &Response) {
        let Line {
            asked_by,
            what,
            namespace,
            touched,
        } = self;
        let mut told = response
            .extensions()
            .get::<Touched>()
            .cloned()
            .unwrap_or_default();
        if told.containers.is_empty() {
            told.containers = touched.containers;
        }
        let pod = told.pod.or(touched.pod).unwrap_or_default();
        let containers = told.containers.join(",");
        let way_in = match asked_by.way_in {
            WayIn::Socket => "socket",
            WayIn::Certificate => "certificate",
            WayIn::Cluster => "cluster",
            WayIn::Manifest => "manifest",
            WayIn::ApiServer => "API server",
        };
        tracing::info!(
            user = asked_by.user,
            way_in,
            pod = shown(&format!("{namespace}/{pod}")),
            container = (!containers.is_empty()).then(|| shown(&containers)),
            dry_run = told.dry_run.then_some(true),
            outcome = %response.status(),
            "{what}"
        );
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authorization::v1::ResourceAttributes;

    use super::*;

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
        }
    }
}
