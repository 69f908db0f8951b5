//! PUT and PATCH of a pod: its labels and annotations.

use std::sync::Arc;

use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use k8s_openapi::api::core::v1::Pod;

use super::{
    ATTEMPTS, WriteParameters, answer, decode_pod, patch_form, read, read_json, require_kind, require_place,
    said,
};
use crate::api::Context;
use crate::api::audit::Touched;
use crate::api::identity::Identity;
use crate::api::pods::find;
use crate::api::request::Body;
use crate::api::status::Failure;
use crate::pod::patch::{self, PatchForm};
use crate::pod::update::{Changeable, judge};
use crate::pod::visibility::Audience;
use crate::store::DryRun;
use crate::store::update::{Update, UpdateError};

/// Replaces the pod by the body's, which may differ in labels and annotations.
pub(crate) async fn put(
    State(context): State<Arc<Context>>,
    Path((namespace, name)): Path<(String, String)>,
    Extension(identity): Extension<Identity>,
    parameters: WriteParameters,
    body: Body,
) -> Result<Response, Failure> {
    let write = Arc::new(Write {
        context,
        audience: identity.audience(),
        namespace,
        name,
        parameters,
    });
    let read = Arc::clone(&write);
    let (update, warnings) = body.work(move |body| read.replacement(body)).await?;
    match write.apply(update).await {
        Ok(written) => Ok(write.answer(&written, &warnings)),
        Err(error) => Err(write.failure(error)),
    }
}

/// Applies a patch to the pod, and takes its labels and annotations.
pub(crate) async fn patch(
    State(context): State<Arc<Context>>,
    Path((namespace, name)): Path<(String, String)>,
    Extension(identity): Extension<Identity>,
    parameters: WriteParameters,
    body: Body,
) -> Result<Response, Failure> {
    let form = patch_form(&body.media_type)?;
    let write = Arc::new(Write {
        context,
        audience: identity.audience(),
        namespace,
        name,
        parameters,
    });
    let mut attempts = 1..;
    loop {
        let read = Arc::clone(&write);
        let (update, warnings) = body.work(move |body| read.change(form, body)).await?;
        match write.apply(update).await {
            Ok(written) => return Ok(write.answer(&written, &warnings)),
            Err(UpdateError::Overtaken) if attempts.next() < Some(ATTEMPTS) => {}
            Err(error) => return Err(write.failure(error)),
        }
    }
}

/// A write to one pod.
struct Write {
    context: Arc<Context>,
    audience: Audience,
    namespace: String,
    name: String,
    parameters: WriteParameters,
}

impl Write {
    fn answer(&self, written: &Pod, warnings: &[String]) -> Response {
        let touched = Touched {
            dry_run: self.parameters.dry_run == DryRun::All,
            ..Touched::default()
        };
        touched.on(answer(StatusCode::OK, written, warnings))
    }

    /// What the whole pod in the body comes to, and warnings about what it says beside.
    fn replacement(&self, body: &Body) -> Result<(Update, Vec<String>), Failure> {
        let document = read(body)?;
        require_kind(&document.object, &["v1"], "Pod")?;
        let (pod, unknown) =
            decode_pod(document.object).map_err(|error| Failure::bad_request(error.to_string()))?;
        let warnings = self
            .parameters
            .judge(&unknown, &document.duplicates)
            .map_err(|unknown| Failure::bad_request(unknown.message()))?;
        require_place(&pod.metadata, &self.namespace, &self.name)?;
        let old = find(&self.context.store, self.audience, &self.namespace, &self.name)?;
        let (version, uid) = (said(&pod.metadata.resource_version), said(&pod.metadata.uid));
        let differs = |said: &Option<String>, is: &Option<String>| said.is_some() && said != is;
        if differs(&version, &old.metadata.resource_version) || differs(&uid, &old.metadata.uid) {
            return Err(self.failure(UpdateError::Conflict));
        }
        let update = Update {
            uid: old.metadata.uid.clone(),
            resource_version: version,
            base: None,
            wanted: self.wanted(&old, pod)?,
        };
        Ok((update, warnings))
    }

    /// What the patch in the body comes to for the pod as it is now, and warnings about what it says beside.
    fn change(&self, form: PatchForm, body: &Body) -> Result<(Update, Vec<String>), Failure> {
        let patch = read_json(body)?;
        let old = find(&self.context.store, self.audience, &self.namespace, &self.name)?;
        let value = serde_json::to_value(&*old).map_err(|error| Failure::internal(error.to_string()))?;
        let mut patched = patch::apply(form, &value, &patch.object)?;
        if let Some(fields) = patched.as_object_mut() {
            // What a client says of the status counts for nothing, whatever it is.
            fields.insert("status".to_owned(), value["status"].clone());
        }
        let (pod, unknown) =
            decode_pod(patched).map_err(|error| Failure::invalid_patch(&self.name, error.to_string()))?;
        let warnings = self
            .parameters
            .judge(&unknown, &patch.duplicates)
            .map_err(|unknown| Failure::invalid_patch(&self.name, unknown.message()))?;
        let version = said(&pod.metadata.resource_version);
        if version.is_some() && version != old.metadata.resource_version {
            return Err(self.failure(UpdateError::Conflict));
        }
        let update = Update {
            uid: old.metadata.uid.clone(),
            resource_version: None,
            base: Some(Changeable::of(&old)),
            wanted: self.wanted(&old, pod)?,
        };
        Ok((update, warnings))
    }

    fn wanted(&self, old: &Pod, mut new: Pod) -> Result<Changeable, Failure> {
        if said(&new.metadata.namespace).is_none() {
            new.metadata.namespace = Some(self.namespace.clone());
        }
        judge(old, new).map_err(|errors| Failure::invalid("Pod", &self.name, &errors))
    }

    async fn apply(&self, update: Update) -> Result<Arc<Pod>, UpdateError> {
        let (store, dry_run) = (&self.context.store, self.parameters.dry_run);
        store
            .update(self.audience, &self.namespace, &self.name, update, dry_run)
            .await
    }

    fn failure(&self, error: UpdateError) -> Failure {
        Failure::not_updated(&self.namespace, &self.name, error)
    }
}
