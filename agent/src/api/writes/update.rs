//! PUT and PATCH of a pod: its labels and annotations.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use k8s_openapi::api::core::v1::Pod;

use super::{
    ATTEMPTS, WriteParameters, answer, decode_pod, patch_form, read, read_json, require_kind, require_place,
    said,
};
use crate::api::Context;
use crate::api::pods::find;
use crate::api::request::Body;
use crate::api::status::Failure;
use crate::pod::patch;
use crate::pod::update::{Changeable, judge};
use crate::store::update::{Update, UpdateError};

/// Replaces the pod by the body's, which may differ in labels and annotations.
pub(crate) async fn put(
    State(context): State<Arc<Context>>,
    Path((namespace, name)): Path<(String, String)>,
    parameters: WriteParameters,
    body: Body,
) -> Result<Response, Failure> {
    let document = read(&body)?;
    require_kind(&document.object, "Pod")?;
    let (pod, unknown) =
        decode_pod(document.object).map_err(|error| Failure::bad_request(error.to_string()))?;
    let warnings = parameters
        .judge(&unknown, &document.duplicates)
        .map_err(|unknown| Failure::bad_request(unknown.message()))?;
    require_place(&pod.metadata, &namespace, &name)?;
    let old = find(&context.store, &namespace, &name)?;
    let (version, uid) = (said(&pod.metadata.resource_version), said(&pod.metadata.uid));
    let differs = |said: &Option<String>, is: &Option<String>| said.is_some() && said != is;
    if differs(&version, &old.metadata.resource_version) || differs(&uid, &old.metadata.uid) {
        return Err(Failure::not_updated(&namespace, &name, UpdateError::Conflict));
    }
    let update = Update {
        uid: old.metadata.uid.clone(),
        resource_version: version,
        base: None,
        wanted: wanted(&old, pod, &namespace, &name)?,
    };
    match context
        .store
        .update(&namespace, &name, update, parameters.dry_run)
        .await
    {
        Ok(written) => Ok(answer(StatusCode::OK, &*written, &warnings)),
        Err(error) => Err(Failure::not_updated(&namespace, &name, error)),
    }
}

/// Applies a patch to the pod, and takes its labels and annotations.
pub(crate) async fn patch(
    State(context): State<Arc<Context>>,
    Path((namespace, name)): Path<(String, String)>,
    parameters: WriteParameters,
    body: Body,
) -> Result<Response, Failure> {
    let form = patch_form(&body.media_type)?;
    let patch = read_json(&body)?;
    let mut attempts = 1..;
    loop {
        let old = find(&context.store, &namespace, &name)?;
        let value = serde_json::to_value(&*old).map_err(|error| Failure::internal(error.to_string()))?;
        let mut patched = patch::apply(form, &value, &patch)?;
        if let Some(fields) = patched.as_object_mut() {
            // What a client says of the status counts for nothing, whatever it is.
            fields.insert("status".to_owned(), value["status"].clone());
        }
        let (pod, unknown) =
            decode_pod(patched).map_err(|error| Failure::invalid_patch(error.to_string()))?;
        let warnings = parameters
            .judge(&unknown, &[])
            .map_err(|unknown| Failure::invalid_patch(unknown.message()))?;
        let version = said(&pod.metadata.resource_version);
        if version.is_some() && version != old.metadata.resource_version {
            return Err(Failure::not_updated(&namespace, &name, UpdateError::Conflict));
        }
        let update = Update {
            uid: old.metadata.uid.clone(),
            resource_version: None,
            base: Some(Changeable::of(&old)),
            wanted: wanted(&old, pod, &namespace, &name)?,
        };
        match context
            .store
            .update(&namespace, &name, update, parameters.dry_run)
            .await
        {
            Ok(written) => return Ok(answer(StatusCode::OK, &*written, &warnings)),
            Err(UpdateError::Overtaken) if attempts.next() < Some(ATTEMPTS) => {}
            Err(error) => return Err(Failure::not_updated(&namespace, &name, error)),
        }
    }
}

fn wanted(old: &Pod, mut new: Pod, namespace: &str, name: &str) -> Result<Changeable, Failure> {
    if said(&new.metadata.namespace).is_none() {
        new.metadata.namespace = Some(namespace.to_owned());
    }
    judge(old, new).map_err(|errors| Failure::invalid("Pod", name, &errors))
}
