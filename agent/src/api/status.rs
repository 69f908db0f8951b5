//! What went wrong, as a `metav1.Status`: the one place where errors get their code, reason and words.

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};

use crate::kubernetes::cluster_users::Wanted;
use crate::pod::field_error::{Cause, FieldError};
use crate::pod::patch::PatchError;
use crate::pod::size::TooLarge;
use crate::store::accept::{AcceptError, StopError};
use crate::store::changes::Gone;
use crate::store::claim::Holder;
use crate::store::create::CreateError;
use crate::store::delete::DeleteError;
use crate::store::node_report::NoPods;
use crate::store::update::UpdateError;
use crate::write_threads::NotRun;

/// The answer to a request that was not done. Boxed, because it is far larger than most answers beside it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Failure(Box<Status>);

impl Failure {
    fn new(code: StatusCode, reason: &str, message: impl Into<String>) -> Failure {
        Failure(Box::new(Status {
            code: Some(i32::from(code.as_u16())),
            message: Some(message.into()),
            reason: Some(reason.to_owned()),
            status: Some("Failure".to_owned()),
            ..Status::default()
        }))
    }

    /// Says which object it is about; `kind` is a kind, or a resource where Kubernetes says that.
    fn about(mut self, kind: &str, name: &str) -> Failure {
        let details = self.0.details.get_or_insert_default();
        details.kind = Some(kind.to_owned());
        details.name = Some(name.to_owned());
        self
    }

    /// Says that it may be tried again in `seconds`.
    fn again_in(mut self, seconds: i32) -> Failure {
        self.0.details.get_or_insert_default().retry_after_seconds = Some(seconds);
        self
    }

    /// The answer to a client that asked for discovery. kubectl's client library shows the words of a refusal there only
    /// where they are text (client-go `rest.Request`, whose `Raw` reads no `Status`): of a `Status` it says "unknown".
    pub(crate) fn for_discovery(self) -> Response {
        let code = StatusCode::FORBIDDEN;
        match (self.0.code, &self.0.message) {
            (Some(403), Some(message)) => (code, message.clone()).into_response(),
            _ => self.into_response(),
        }
    }

    /// 400: the request makes no sense.
    pub(crate) fn bad_request(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 401: nobody knows who asks.
    pub(crate) fn unauthorized(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::UNAUTHORIZED, "Unauthorized", message)
    }

    /// 403: this peer may do nothing here.
    pub(crate) fn forbidden(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    /// 403: the cluster's rights do not reach, in Kubernetes' words, as clients and people look for them.
    pub(crate) fn denied(user: &str, wanted: &Wanted, reason: &str) -> Failure {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let because = if reason.is_empty() {
            String::new()
        } else {
            format!(": {reason}")
        };
        let attributes = match wanted {
            Wanted::Path(path) => {
                let (verb, path) = (text(&path.verb), text(&path.path));
                return Failure::forbidden(format!(
                    "forbidden: User {user:?} cannot {verb} path {path:?}{because}"
                ));
            }
            Wanted::Resource(attributes) => attributes,
        };
        let (verb, group, name) = (
            text(&attributes.verb),
            text(&attributes.group),
            text(&attributes.name),
        );
        let resource = text(&attributes.resource);
        let whole = match text(&attributes.subresource).as_str() {
            "" => resource.clone(),
            subresource => format!("{resource}/{subresource}"),
        };
        let place = match text(&attributes.namespace).as_str() {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        let subject = match group.as_str() {
            "" => resource.clone(),
            group => format!("{resource}.{group}"),
        };
        let subject = match name.as_str() {
            "" => subject,
            name => format!("{subject} {name:?}"),
        };
        let message = format!(
            "{subject} is forbidden: User {user:?} cannot {verb} resource {whole:?} in API group {group:?} {place}{because}"
        );
        let mut failure = Failure::forbidden(message).about(&resource, &name);
        failure.0.details.get_or_insert_default().group = Some(group).filter(|group| !group.is_empty());
        failure
    }

    /// 404: nothing is served under this path.
    pub(crate) fn no_such_path(path: &str) -> Failure {
        Failure::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            format!("nothing is served at {path}"),
        )
    }

    /// 404: there is no such object; `resource` is `pods`, `events`, ... In Kubernetes' words: kubectl adds where it
    /// looked.
    pub(crate) fn no_such(resource: &str, name: &str) -> Failure {
        Failure::not_found(resource, name, format!("{resource} {name:?} not found"))
    }

    /// 404, for a reason of its own; `resource` is `containers`, `launches`.
    pub(crate) fn not_found(resource: &str, name: &str, message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::NOT_FOUND, "NotFound", message).about(resource, name)
    }

    /// 404: the pod has no container of this name.
    pub(crate) fn no_such_container(namespace: &str, pod: &str, container: &str) -> Failure {
        Failure::not_found(
            "containers",
            container,
            format!("{namespace}/{pod} has no container {container:?}"),
        )
    }

    /// 405: the object is there, but this cannot be done with it.
    pub(crate) fn method_not_allowed(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    /// 406: the client takes no form that there is.
    pub(crate) fn not_acceptable(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    /// 408: the body did not arrive in time.
    pub(crate) fn request_timeout(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::REQUEST_TIMEOUT, "Timeout", message)
    }

    /// 409: the object is not what the client thinks, or not in a state for this; `resource` is `pods`, ...
    pub(crate) fn conflict(resource: &str, name: &str, message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::CONFLICT, "Conflict", message).about(resource, name)
    }

    /// 410: the version asked for is not known any more; list again.
    pub(crate) fn expired(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::GONE, "Expired", message)
    }

    /// 410: the version of the list that is to go on is not known any more; `continuation` goes on with what is newest.
    pub(crate) fn expired_list(continuation: String) -> Failure {
        let mut failure = Failure::expired(
            "the list has changed too much to go on with it as it was: list again, or go on from here with metadata.continue, \
             and miss or see twice what has moved",
        );
        failure.0.metadata.continue_ = Some(continuation);
        failure
    }

    /// 413: the request is larger than it may be, or makes something that is.
    pub(crate) fn too_large(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    /// 413: the pod that would come of the request has too many bytes.
    fn too_large_a_pod(name: &str, error: TooLarge) -> Failure {
        let code = StatusCode::PAYLOAD_TOO_LARGE;
        Failure::new(code, "RequestEntityTooLarge", error.to_string()).about("pods", name)
    }

    /// 415: the body is in a form that is not read here.
    pub(crate) fn unsupported_media_type(message: impl Into<String>) -> Failure {
        Failure::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            message,
        )
    }

    /// 422: fields of the object are wrong.
    pub(crate) fn invalid(kind: &str, name: &str, errors: &[FieldError]) -> Failure {
        let sentences: Vec<String> = errors.iter().map(FieldError::to_string).collect();
        let message = format!("{kind} {name:?} is invalid: {}", sentences.join("; "));
        let mut failure =
            Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).about(kind, name);
        failure.0.details.get_or_insert_default().causes = Some(
            errors
                .iter()
                .map(|error| StatusCause {
                    field: Some(error.field.clone()),
                    message: Some(error.message.clone()),
                    reason: Some(error.cause.reason().to_owned()),
                })
                .collect(),
        );
        failure
    }

    /// 422: a patch that can be applied, but leaves an object that cannot be read.
    pub(crate) fn invalid_patch(name: &str, message: impl Into<String>) -> Failure {
        Failure::invalid("Pod", name, &[FieldError::new("patch", Cause::Invalid, message)])
    }

    /// 429: too much is asked at once; come again in `seconds`.
    pub(crate) fn too_many_requests(message: impl Into<String>, seconds: i32) -> Failure {
        Failure::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message).again_in(seconds)
    }

    /// 500: it is our fault, or the node's.
    pub(crate) fn internal(message: impl Into<String>) -> Failure {
        let failure = Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message);
        tracing::error!(message = failure.0.message.as_deref(), "a request failed");
        failure
    }

    /// 503: not now; try again in `seconds`.
    pub(crate) fn unavailable(message: impl Into<String>, seconds: i32) -> Failure {
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message).again_in(seconds)
    }

    /// 504: the version asked for is yet to come. Clients of kube-apiserver know it by its cause, and list anew.
    pub(crate) fn version_too_large(version: u64, newest: u64) -> Failure {
        let message = format!("version {version} has not been reached: the newest is {newest}");
        let mut failure = Failure::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message.clone());
        failure.0.details = Some(StatusDetails {
            causes: Some(vec![StatusCause {
                reason: Some("ResourceVersionTooLarge".to_owned()),
                message: Some(message),
                field: None,
            }]),
            retry_after_seconds: Some(1),
            ..StatusDetails::default()
        });
        failure
    }

    /// What the cluster's API server has refused, in its own words.
    pub(crate) fn passed_on(status: &kube::core::Status) -> Failure {
        let whole = serde_json::to_value(status).and_then(serde_json::from_value::<Status>);
        match whole {
            Ok(status) => Failure(Box::new(status)),
            Err(_) => {
                let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                Failure::new(code, &status.reason, status.message.clone())
            }
        }
    }

    /// Why ephemeral containers of a pod were not accepted.
    pub(crate) fn not_accepted(namespace: &str, name: &str, error: AcceptError) -> Failure {
        match error {
            AcceptError::NoSuchPod => Failure::no_such("pods", name),
            AcceptError::Conflict => Failure::conflict(
                "pods",
                name,
                format!("{namespace}/{name} has changed since it was read: read it again and add to that"),
            ),
            AcceptError::TooLarge(error) => Failure::too_large_a_pod(name, error),
            AcceptError::Terminating => Failure::conflict(
                "pods",
                name,
                format!("{namespace}/{name} is being removed: nothing can be added to it"),
            ),
            AcceptError::Refused { message } => Failure::conflict(
                "pods",
                name,
                format!("{namespace}/{name} does not run, so nothing can be added to it: {message}"),
            ),
            AcceptError::Invalid(errors) => Failure::invalid("Pod", name, &errors),
            AcceptError::Disk(error) => Failure::internal(format!(
                "the ephemeral containers of {namespace}/{name} were not kept: {error}"
            )),
            AcceptError::NotRun(error) => Failure::not_run(&error),
        }
    }

    /// Why a pod was not created.
    pub(crate) fn not_created(namespace: &str, name: &str, error: CreateError) -> Failure {
        match error {
            CreateError::AlreadyExists(holder) => {
                let message = match holder {
                    Holder::Api => format!("there is a pod {name:?} in namespace {namespace:?} already"),
                    Holder::Manifest(path) => format!(
                        "there is a pod {name:?} in namespace {namespace:?} already: it stands in {}",
                        path.display()
                    ),
                    Holder::Foreign => {
                        format!(
                            "there is a pod {name:?} in namespace {namespace:?} already: somebody else runs it"
                        )
                    }
                    Holder::Leaving => {
                        format!(
                            "a pod {name:?} is still being removed from namespace {namespace:?}: try again"
                        )
                    }
                };
                Failure::new(StatusCode::CONFLICT, "AlreadyExists", message).about("pods", name)
            }
            CreateError::TooMany(_) => {
                Failure::forbidden(format!("{namespace}/{name} is not created: {error}")).about("pods", name)
            }
            CreateError::TooLarge(error) => Failure::too_large_a_pod(name, error),
            CreateError::Disk(error) => {
                Failure::internal(format!("the pod {namespace}/{name} was not kept: {error}"))
            }
            CreateError::NotRun(error) => Failure::not_run(&error),
        }
    }

    /// Why a pod was not deleted.
    pub(crate) fn not_deleted(namespace: &str, name: &str, error: DeleteError) -> Failure {
        match error {
            DeleteError::NoSuchPod => Failure::no_such("pods", name),
            DeleteError::Precondition { .. } => Failure::conflict(
                "pods",
                name,
                format!("{namespace}/{name} is not deleted: {error}"),
            ),
            DeleteError::OfManifest(path) => {
                let file = path.display();
                Failure::forbidden(format!("{namespace}/{name} stands in {file}: remove it there"))
                    .about("pods", name)
            }
            DeleteError::Foreign => Failure::forbidden(format!(
                "{namespace}/{name} is not deleted: debuglet does not run it, it was found in the runtime"
            ))
            .about("pods", name),
            DeleteError::NotRun(error) => Failure::not_run(&error),
        }
    }

    /// Why a pod was not changed.
    pub(crate) fn not_updated(namespace: &str, name: &str, error: UpdateError) -> Failure {
        match error {
            UpdateError::NoSuchPod => Failure::no_such("pods", name),
            UpdateError::Conflict | UpdateError::Overtaken => {
                let message = format!(
                    "{namespace}/{name} has changed since it was read: read it again and change that"
                );
                Failure::conflict("pods", name, message)
            }
            UpdateError::OfManifest(path) => {
                let file = path.display();
                Failure::forbidden(format!("{namespace}/{name} stands in {file}: change it there"))
                    .about("pods", name)
            }
            UpdateError::TooLarge(error) => Failure::too_large_a_pod(name, error),
            UpdateError::Foreign => Failure::forbidden(format!(
                "{namespace}/{name} is not changed: debuglet does not run it, it was found in the runtime; only \
                 ephemeral containers can be added"
            ))
            .about("pods", name),
            UpdateError::Disk(error) => {
                Failure::internal(format!("the change of {namespace}/{name} was not kept: {error}"))
            }
            UpdateError::NotRun(error) => Failure::not_run(&error),
        }
    }

    /// Why a debug container was not stopped.
    pub(crate) fn not_stopped(namespace: &str, pod: &str, container: &str, error: StopError) -> Failure {
        match error {
            StopError::NoSuchPod => Failure::no_such("pods", pod),
            StopError::NoSuchContainer => Failure::no_such_container(namespace, pod, container),
            StopError::NotEphemeral => Failure::conflict(
                "containers",
                container,
                format!(
                    "{container:?} in {namespace}/{pod} is not a debug container: its pod's manifest rules over it"
                ),
            ),
            StopError::NotOurs => Failure::conflict(
                "containers",
                container,
                format!(
                    "{container:?} in {namespace}/{pod} was not started by debuglet, which does not touch it"
                ),
            ),
            StopError::Disk(error) => Failure::internal(format!(
                "that {container:?} in {namespace}/{pod} is to stop was not kept: {error}"
            )),
            StopError::NotRun(error) => Failure::not_run(&error),
        }
    }

    /// Why a write did not come to its end.
    fn not_run(error: &NotRun) -> Failure {
        match error {
            NotRun::ShuttingDown => Failure::unavailable(error.to_string(), 1),
            NotRun::Panicked { .. } => Failure::internal(error.to_string()),
        }
    }

    /// The object, for the `ERROR` line of a watch.
    pub(crate) fn status(&self) -> &Status {
        &self.0
    }
}

impl From<Gone> for Failure {
    fn from(gone: Gone) -> Failure {
        Failure::expired(gone.to_string())
    }
}

impl From<NoPods> for Failure {
    fn from(reason: NoPods) -> Failure {
        match reason {
            NoPods::NotLookedYet => Failure::unavailable(reason.to_string(), 1),
            NoPods::Kubelet(_) => Failure::forbidden(reason.to_string()),
        }
    }
}

impl From<PatchError> for Failure {
    fn from(error: PatchError) -> Failure {
        match error {
            PatchError::Malformed { .. } => Failure::bad_request(error.to_string()),
            PatchError::DoesNotApply { .. } => {
                Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", error.to_string())
            }
            PatchError::TooManyOperations { .. }
            | PatchError::CopiesTooMuch { .. }
            | PatchError::TooLaborious => Failure::too_large(error.to_string()),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let code = self.0.code.and_then(|code| u16::try_from(code).ok());
        let code = code.and_then(|code| StatusCode::from_u16(code).ok());
        let details = self.0.details.as_ref();
        let retry_after = details.and_then(|details| details.retry_after_seconds);
        let code = code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (code, Json(self.0)).into_response();
        if let Some(seconds) = retry_after {
            // Clients look for it here.
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authorization::v1::{NonResourceAttributes, ResourceAttributes};

    use super::*;

    #[test]
    fn an_invalid_object_names_every_field_in_its_causes_and_in_its_message() {
        let errors = [
            FieldError::new("spec.a", Cause::Forbidden, "may not be set"),
            FieldError::new("spec.b", Cause::Required, "is needed"),
        ];
        let status = serde_json::to_value(Failure::invalid("Pod", "web", &errors).status()).expect("JSON");
        assert_eq!(
            status,
            serde_json::json!({
                "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": 422,
                "reason": "Invalid",
                "message": "Pod \"web\" is invalid: spec.a: may not be set; spec.b: is needed",
                "details": {"kind": "Pod", "name": "web", "causes": [
                    {"field": "spec.a", "message": "may not be set", "reason": "FieldValueForbidden"},
                    {"field": "spec.b", "message": "is needed", "reason": "FieldValueRequired"},
                ]},
            })
        );
    }

    #[test]
    fn who_is_denied_is_told_so_in_kubernetes_words() {
        let some = |text: &str| Some(text.to_owned());
        let wanted = |group, subresource, namespace, name| {
            Wanted::Resource(Box::new(ResourceAttributes {
                verb: some("patch"),
                group: some(group),
                resource: some("pods"),
                subresource: some(subresource),
                namespace: some(namespace),
                name: some(name),
                ..ResourceAttributes::default()
            }))
        };
        let path = Wanted::Path(NonResourceAttributes {
            path: some("/metrics"),
            verb: some("get"),
        });
        for (wanted, reason, message) in [
            (
                wanted("", "ephemeralcontainers", "shop", "web"),
                "",
                r#"pods "web" is forbidden: User "ada" cannot patch resource "pods/ephemeralcontainers" in API group "" in the namespace "shop""#,
            ),
            (
                wanted("debuglet.io", "", "", ""),
                "no",
                r#"pods.debuglet.io is forbidden: User "ada" cannot patch resource "pods" in API group "debuglet.io" at the cluster scope: no"#,
            ),
            (path, "", r#"forbidden: User "ada" cannot get path "/metrics""#),
        ] {
            let failure = Failure::denied("ada", &wanted, reason);
            assert_eq!(failure.status().message.as_deref(), Some(message));
            assert_eq!(failure.status().code, Some(403));
        }
    }

    #[test]
    fn whoever_is_to_come_again_is_told_when_in_the_header_too() {
        for failure in [
            Failure::too_many_requests("too much", 2),
            Failure::unavailable("not now", 2),
        ] {
            let response = failure.into_response();
            assert_eq!(response.headers()[RETRY_AFTER], "2");
        }
        assert!(
            !Failure::bad_request("no")
                .into_response()
                .headers()
                .contains_key(RETRY_AFTER)
        );
    }
}
