//! `pods/ephemeralcontainers`: the one thing of a pod that is written here. Every form of writing ends in the
//! whole list that is wanted, which the store judges and makes durable before the answer. Reading it is reading
//! the pod: see `pods`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderValue;
use axum::http::header::WARNING;
use axum::response::{IntoResponse, Response};
use k8s_openapi::api::core::v1::{EphemeralContainer, Pod};
use serde::Deserialize;
use serde_json::Value;

use super::Context;
use super::pods::find;
use super::request::{Body, Parameters};
use super::status::Failure;
use crate::pod::decode::decode;
use crate::pod::ephemeral_patch::{self, PatchForm};
use crate::pod::field_error::{Cause, FieldError};
use crate::store::accept::AcceptError;

/// How often a patch that names no version is applied anew when somebody else wrote in between.
const ATTEMPTS: usize = 5;

/// The query parameters of a write; `fieldManager` and others that change nothing here are ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct WriteParameters {
    /// What to do about fields that a pod does not have.
    field_validation: FieldValidation,
    dry_run: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
enum FieldValidation {
    /// Take no notice.
    Ignore,
    /// Say so in a header.
    #[default]
    #[serde(alias = "")]
    Warn,
    /// Refuse.
    Strict,
}

/// Replaces the list by the body's, which must hold all that was there.
pub(crate) async fn put(
    State(context): State<Arc<Context>>,
    Path((namespace, name)): Path<(String, String)>,
    Parameters(parameters): Parameters<WriteParameters>,
    body: Body,
) -> Result<Response, Failure> {
    parameters.check()?;
    if !matches!(body.media_type.as_str(), "" | "application/json") {
        return Err(Failure::unsupported_media_type(format!(
            "a body of type {:?} is not read here: send application/json",
            body.media_type
        )));
    }
    let write = Write {
        context: &context,
        namespace: &namespace,
        name: &name,
    };
    let value = write.parse(&body)?;
    require_pod(&value)?;
    let (pod, unknown) = decode::<Pod>(value).map_err(|error| Failure::bad_request(error.to_string()))?;
    let metadata = &pod.metadata;
    if metadata.name.as_deref() != Some(&name) {
        return Err(Failure::bad_request(format!(
            "the body is of pod {:?}, the path of {name:?}",
            metadata.name.as_deref().unwrap_or_default()
        )));
    }
    if metadata
        .namespace
        .as_ref()
        .is_some_and(|other| !other.is_empty() && *other != namespace)
    {
        return Err(Failure::bad_request(format!(
            "the body is of namespace {:?}, the path of {namespace:?}",
            metadata.namespace.as_deref().unwrap_or_default()
        )));
    }
    let warnings = parameters.judge(unknown, Failure::bad_request)?;
    let base = find(&context.store, &namespace, &name)?;
    let written = write
        .accept(&base, pod)
        .await
        .map_err(|refused| refused.failure)?;
    Ok(with_warnings(&written, &warnings))
}

/// Applies a patch to the pod and takes the list that comes out.
pub(crate) async fn patch(
    State(context): State<Arc<Context>>,
    Path((namespace, name)): Path<(String, String)>,
    Parameters(parameters): Parameters<WriteParameters>,
    body: Body,
) -> Result<Response, Failure> {
    parameters.check()?;
    let form = patch_form(&body.media_type)?;
    let write = Write {
        context: &context,
        namespace: &namespace,
        name: &name,
    };
    let patch = write.parse(&body)?;
    let mut attempts = 1..;
    loop {
        let base = find(&context.store, &namespace, &name)?;
        let value = serde_json::to_value(&*base).map_err(|error| Failure::internal(error.to_string()))?;
        let patched = ephemeral_patch::apply(form, &value, &patch)?;
        let (pod, unknown) =
            decode::<Pod>(patched).map_err(|error| Failure::invalid_patch(error.to_string()))?;
        if pod.metadata.name != base.metadata.name {
            let error = FieldError::new("metadata.name", Cause::Invalid, "cannot be changed");
            return Err(Failure::invalid("Pod", &name, &[error]));
        }
        let warnings = parameters.judge(unknown, Failure::invalid_patch)?;
        match write.accept(&base, pod).await {
            Ok(written) => return Ok(with_warnings(&written, &warnings)),
            Err(refused) if refused.overtaken && attempts.next() < Some(ATTEMPTS) => {}
            Err(refused) => return Err(refused.failure),
        }
    }
}

fn patch_form(media_type: &str) -> Result<PatchForm, Failure> {
    match media_type {
        "application/strategic-merge-patch+json" => Ok(PatchForm::Strategic),
        "application/merge-patch+json" => Ok(PatchForm::Merge),
        "application/json-patch+json" => Ok(PatchForm::Json),
        "application/apply-patch+yaml" | "application/apply-patch+cbor" => {
            Err(Failure::unsupported_media_type(
                "server-side apply is not supported: ephemeral containers can only be added, so nobody owns their fields",
            ))
        }
        other => Err(Failure::unsupported_media_type(format!(
            "a patch of type {other:?} is not read here: send application/strategic-merge-patch+json, \
             application/merge-patch+json or application/json-patch+json"
        ))),
    }
}

fn require_pod(value: &Value) -> Result<(), Failure> {
    match (value["apiVersion"].as_str(), value["kind"].as_str()) {
        (Some("v1"), Some("Pod")) => Ok(()),
        (None, _) | (_, None) => Err(Failure::bad_request("the body has no apiVersion or no kind")),
        (Some(version), Some(kind)) => Err(Failure::bad_request(format!(
            "the body is a {kind} of {version}: send a Pod of v1"
        ))),
    }
}

impl WriteParameters {
    fn check(&self) -> Result<(), Failure> {
        if self.dry_run.is_empty() {
            return Ok(());
        }
        // Never done for real when it was to be tried only.
        Err(Failure::bad_request("dryRun is not supported"))
    }

    /// The warnings about fields that a pod does not have, or the refusal.
    fn judge(
        &self,
        unknown: Vec<String>,
        refuse: impl Fn(String) -> Failure,
    ) -> Result<Vec<String>, Failure> {
        let unknown = unknown
            .into_iter()
            .map(|field| format!("unknown field {field:?}"));
        match self.field_validation {
            FieldValidation::Ignore => Ok(Vec::new()),
            FieldValidation::Warn => Ok(unknown.collect()),
            FieldValidation::Strict => {
                let unknown: Vec<String> = unknown.collect();
                if unknown.is_empty() {
                    Ok(unknown)
                } else {
                    Err(refuse(unknown.join(", ")))
                }
            }
        }
    }
}

fn with_warnings(pod: &Pod, warnings: &[String]) -> Response {
    let mut response = Json(pod).into_response();
    for warning in warnings {
        // 299 is a lasting warning; the dash stands for an agent without a name (RFC 7234, 5.5).
        let text = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
    response
}

/// A write to one pod.
struct Write<'a> {
    context: &'a Context,
    namespace: &'a str,
    name: &'a str,
}

/// Why a list was not accepted.
struct Refused {
    failure: Failure,
    /// Somebody else wrote since the pod was read, and the client did not say which version it means.
    overtaken: bool,
}

impl Write<'_> {
    fn parse(&self, body: &Body) -> Result<Value, Failure> {
        serde_json::from_slice(&body.bytes)
            .map_err(|error| Failure::bad_request(format!("the body is not JSON: {error}")))
    }

    /// Accepts the list of `pod`, which was made from `base`. Whatever else differs between them is ignored.
    async fn accept(&self, base: &Pod, pod: Pod) -> Result<Arc<Pod>, Refused> {
        let wanted_version = pod
            .metadata
            .resource_version
            .filter(|version| !version.is_empty());
        let same_version = wanted_version.is_none() || wanted_version == base.metadata.resource_version;
        let same_uid = pod.metadata.uid.is_none() || pod.metadata.uid == base.metadata.uid;
        if !same_version || !same_uid {
            return Err(Refused {
                failure: self.changed(),
                overtaken: false,
            });
        }
        let wanted = pod
            .spec
            .and_then(|spec| spec.ephemeral_containers)
            .unwrap_or_default();
        match self.context.store.accept(self.namespace, self.name, wanted).await {
            Ok(written) => Ok(written),
            // A list that was right for `base` is refused because it lacks what somebody added since.
            Err(AcceptError::Invalid(_)) if self.was_overtaken(base) => Err(Refused {
                failure: self.changed(),
                overtaken: true,
            }),
            Err(error) => Err(Refused {
                failure: Failure::not_accepted(self.namespace, self.name, error),
                overtaken: false,
            }),
        }
    }

    fn was_overtaken(&self, base: &Pod) -> bool {
        let now = self.context.store.pod(self.namespace, self.name);
        now.is_some_and(|now| now.metadata.uid != base.metadata.uid || list(&now) != list(base))
    }

    fn changed(&self) -> Failure {
        let (namespace, name) = (self.namespace, self.name);
        let message =
            format!("{namespace}/{name} has changed since it was read: read it again and add to that");
        Failure::conflict("pods", name, message)
    }
}

fn list(pod: &Pod) -> &[EphemeralContainer] {
    let list = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.ephemeral_containers.as_deref());
    list.unwrap_or_default()
}
