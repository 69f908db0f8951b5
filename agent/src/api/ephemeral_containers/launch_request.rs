//! Asking for an ephemeral container with more than Kubernetes has a form for: `create` of a launch in the group
//! `debuglet.io`. What it comes to is the list of `pods/ephemeralcontainers` and one more, judged and kept like any
//! other: who may not write that may not do this (`api/attributes.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use k8s_openapi::api::core::v1::{EphemeralContainer, Pod};
use serde::Deserialize;

use super::form::Wish;
use super::{ATTEMPTS, Context, Failure, Write, list};
use crate::api::extension::{GROUP, Object, VERSION};
use crate::api::identity::Identity;
use crate::api::request::Body;
use crate::api::writes::{Document, WriteParameters, read, require_kind};
use crate::pod::copied_mounts::CopyMounts;
use crate::pod::decode::decode;
use crate::pod::field_error::{Cause, FieldError};
use crate::pod::launch::Launch;

/// The kind of the body.
const KIND: &str = "LaunchRequest";

/// What a body asks for.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LaunchRequest {
    /// The container; its name is the path's where it says none.
    container: EphemeralContainer,
    /// Whose mounts it is to have beside its own.
    copy_mounts: Option<CopyMounts>,
}

/// Accepts one more ephemeral container. It is durable when this is answered.
pub(crate) async fn post(
    State(context): State<Arc<Context>>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    Extension(identity): Extension<Identity>,
    parameters: WriteParameters,
    body: Body,
) -> Result<Response, Failure> {
    let write = Write {
        context,
        asked_by: identity.asked_by(),
        namespace,
        name,
        parameters,
    };
    let request = body
        .work(move |body| requested(body, &container, parameters))
        .await?;
    let mut attempts = 1..;
    let touched = loop {
        let base = write.base()?;
        match write.accept(&base, wish(&base, &request)?, None).await {
            Ok(written) => break written.touched,
            Err(refused) if refused.overtaken && attempts.next() < Some(ATTEMPTS) => {}
            Err(refused) => return Err(refused.failure),
        }
    };
    let container = &request.container.name;
    let launch = write
        .context
        .store
        .launch(
            write.asked_by.audience(),
            &write.namespace,
            &write.name,
            container,
        )
        // A dry run leaves none.
        .unwrap_or_else(|| Launch::accepted(container));
    let answer = (StatusCode::CREATED, Json(Object::new("Launch", launch)));
    Ok(touched.on(answer.into_response()))
}

/// What the body asks for, of the container in the path.
fn requested(body: &Body, container: &str, parameters: WriteParameters) -> Result<LaunchRequest, Failure> {
    let Document {
        mut object,
        duplicates,
    } = read(body)?;
    require_kind(&object, &[&format!("{GROUP}/{VERSION}")], KIND)?;
    if let Some(fields) = object.as_object_mut() {
        fields.shift_remove("apiVersion");
        fields.shift_remove("kind");
    }
    let (mut request, unknown) =
        decode::<LaunchRequest>(object).map_err(|error| Failure::bad_request(error.to_string()))?;
    parameters
        .judge(&unknown, &duplicates)
        .map_err(|unknown| Failure::bad_request(unknown.message()))?;
    let named = &mut request.container.name;
    if named.is_empty() {
        container.clone_into(named);
    } else if named != container {
        return Err(Failure::bad_request(format!(
            "the body is of container {named:?}, the path of {container:?}"
        )));
    }
    Ok(request)
}

/// The list of `base`, and the container that is asked for.
fn wish(base: &Pod, request: &LaunchRequest) -> Result<Wish, Failure> {
    let name = &request.container.name;
    if list(base).iter().any(|known| known.name == *name) {
        let message = format!("{name:?} is the name of another container of the pod");
        let error = FieldError::new("container.name", Cause::Duplicate, message);
        return Err(Failure::invalid(KIND, name, &[error]));
    }
    let copy_mounts = request.copy_mounts.clone();
    Ok(Wish {
        metadata: base.metadata.clone(),
        list: list(base).iter().chain([&request.container]).cloned().collect(),
        copy_mounts: copy_mounts
            .map(|copy| (name.clone(), copy))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
        unknown: Vec::new(),
    })
}
