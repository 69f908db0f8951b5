//! DELETE of a pod, with grace or without.

use std::sync::Arc;

use axum::extract::{Extension, Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::{Value, json};

use super::{answer, parameters, read, require_kind, said, unwritten_warning};
use crate::api::Context;
use crate::api::audit::Touched;
use crate::api::identity::Identity;
use crate::api::request::Body;
use crate::api::status::Failure;
use crate::pod::decode::decode;
use crate::pod::field_error::{Cause, FieldError};
use crate::store::DryRun;
use crate::store::delete::Deletion;

/// Deletes a pod and answers it: on its way out, or as it was last where it is served no more.
pub(crate) async fn delete(
    State(context): State<Arc<Context>>,
    Path((namespace, name)): Path<(String, String)>,
    Extension(identity): Extension<Identity>,
    uri: Uri,
    body: Body,
) -> Result<Response, Failure> {
    let options = body.work(move |body| options(&uri, body)).await?;
    let mut errors = Vec::new();
    let dry_run = parameters::dry_run(options.dry_run.iter().flatten().map(String::as_str));
    let policy = options.propagation_policy.as_deref().unwrap_or_default();
    // A pod has nothing that would have to go with it, so all of them come to the same.
    if !matches!(policy, "" | "Background" | "Foreground" | "Orphan") {
        let message = format!("{policy:?} is not known; it can be Background, Foreground, Orphan");
        errors.push(FieldError::new("propagationPolicy", Cause::NotSupported, message));
    }
    let dry_run = match dry_run {
        Ok(dry_run) if errors.is_empty() => dry_run,
        outcome => {
            errors.extend(outcome.err());
            return Err(Failure::invalid("DeleteOptions", "", &errors));
        }
    };
    let preconditions = options.preconditions.unwrap_or_default();
    let deletion = Deletion {
        grace_seconds: options.grace_period_seconds,
        uid: said(&preconditions.uid),
        resource_version: said(&preconditions.resource_version),
    };
    let (store, audience) = (&context.store, identity.audience());
    let touched = Touched {
        dry_run: dry_run == DryRun::All,
        ..Touched::default()
    };
    match store.delete(audience, &namespace, &name, deletion, dry_run).await {
        Ok(deleted) => {
            let warning = unwritten_warning("the deletion", deleted.unwritten.as_ref());
            Ok(touched.on(answer(StatusCode::OK, &*deleted.object, warning.as_slice())))
        }
        Err(error) => Err(Failure::not_deleted(&namespace, &name, error)),
    }
}

/// The options in the body; where there is none, in the query.
fn options(uri: &Uri, body: &Body) -> Result<DeleteOptions, Failure> {
    let document = if body.bytes.is_empty() {
        from_query(uri)?
    } else {
        let mut document = read(body)?.object;
        require_kind(&document, &["v1", "meta.k8s.io/v1"], "DeleteOptions")?;
        if let Some(fields) = document.as_object_mut() {
            fields.shift_remove("apiVersion");
            fields.shift_remove("kind");
        }
        document
    };
    decode::<DeleteOptions>(document)
        .map(|(options, _)| options)
        .map_err(|error| Failure::bad_request(error.to_string()))
}

fn from_query(uri: &Uri) -> Result<Value, Failure> {
    let mut options = json!({});
    let mut dry_run = Vec::new();
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        match &*name {
            _ if value.is_empty() => {}
            "gracePeriodSeconds" => {
                let seconds: i64 = value.parse().map_err(|_| {
                    Failure::bad_request(format!("gracePeriodSeconds: {value:?} is not a number"))
                })?;
                options["gracePeriodSeconds"] = json!(seconds);
            }
            "propagationPolicy" => options["propagationPolicy"] = json!(value),
            "dryRun" => dry_run.push(value.into_owned()),
            _ => {}
        }
    }
    options["dryRun"] = json!(dry_run);
    Ok(options)
}
