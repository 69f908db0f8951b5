//! `pods/ephemeralcontainers`. Every way of writing it ends in the whole list that is wanted, which the store judges
//! and makes durable before the answer. It is read and written in two forms: see [`form`].

mod form;
pub(super) mod launch_request;
mod write_through;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use k8s_openapi::api::core::v1::{EphemeralContainer, Pod};
use serde_json::Value;

use super::Context;
use super::audit::Touched;
use super::identity::Identity;
use super::pods::find;
use super::request::Body;
use super::status::Failure;
use super::writes::{
    ATTEMPTS, Document, WriteParameters, answer, patch_form, read, read_json, require_kind, require_place,
    said,
};
use crate::pod::asked_by::AskedBy;
use crate::pod::field_error::{Cause, FieldError};
use crate::pod::patch::{self as patches, PatchForm};
use crate::store::DryRun;
use crate::store::accept::{AcceptError, WantedList};
use form::{Form, Wish};
use write_through::{Local, Refusal, Through, write_through};

/// The list, in the form that the client reads.
pub(crate) async fn get(
    State(context): State<Arc<Context>>,
    Path((namespace, name)): Path<(String, String)>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let pod = find(&context.store, identity.audience(), &namespace, &name)?;
    let object = Form::of_client(&headers).present(&pod).map_err(unwritable)?;
    Ok(Json(object).into_response())
}

/// Replaces the list by the body's, which must hold all that was there.
pub(crate) async fn put(
    State(context): State<Arc<Context>>,
    Path((namespace, name)): Path<(String, String)>,
    Extension(identity): Extension<Identity>,
    parameters: WriteParameters,
    body: Body,
) -> Result<Response, Failure> {
    let write = Arc::new(Write {
        context,
        asked_by: identity.asked_by(),
        namespace,
        name,
        parameters,
    });
    let read = Arc::clone(&write);
    let asked = body.work(move |body| read.replacement(body)).await?;
    let base = write.base()?;
    if said(&asked.wish.metadata.uid).is_some_and(|uid| Some(uid) != base.metadata.uid) {
        return Err(match asked.form {
            Form::Pod => write.changed(),
            // Kubernetes 1.20 compared the whole metadata of the two, and today's takes a UID as a precondition.
            Form::EphemeralContainers => {
                let error = FieldError::new("metadata.uid", Cause::Invalid, "cannot be changed");
                Failure::invalid("Pod", &write.name, &[error])
            }
        });
    }
    let written = write
        .accept(&base, asked.wish, asked.version)
        .await
        .map_err(|refused| refused.failure)?;
    written.answer(asked.form, asked.warnings)
}

/// Applies a patch and takes the list that comes out.
pub(crate) async fn patch(
    State(context): State<Arc<Context>>,
    Path((namespace, name)): Path<(String, String)>,
    Extension(identity): Extension<Identity>,
    parameters: WriteParameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let patch_form = patch_form(&body.media_type)?;
    let client = Form::of_client(&headers);
    let write = Arc::new(Write {
        context,
        asked_by: identity.asked_by(),
        namespace,
        name,
        parameters,
    });
    let mut attempts = 1..;
    loop {
        let base = write.base()?;
        let (read, old) = (Arc::clone(&write), Arc::clone(&base));
        let asked = body
            .work(move |body| read.change(&old, patch_form, client, body))
            .await?;
        match write.accept(&base, asked.wish, asked.version).await {
            Ok(written) => return written.answer(asked.form, asked.warnings),
            Err(refused) if refused.overtaken && attempts.next() < Some(ATTEMPTS) => {}
            Err(refused) => return Err(refused.failure),
        }
    }
}

fn unwritable(error: serde_json::Error) -> Failure {
    Failure::internal(format!("the pod cannot be written as JSON: {error}"))
}

/// A write to one pod.
struct Write {
    context: Arc<Context>,
    asked_by: AskedBy,
    namespace: String,
    name: String,
    parameters: WriteParameters,
}

/// What a body asks for.
struct Asked {
    /// The form in which it asks, and is answered.
    form: Form,
    wish: Wish,
    /// The version that the client means, where it names one.
    version: Option<String>,
    /// What it says beside.
    warnings: Vec<String>,
}

/// A list that was accepted.
struct Written {
    /// The pod as it is served then.
    pod: Arc<Pod>,
    /// What the log says of the write.
    touched: Touched,
    /// What its client is to be warned of.
    warnings: Vec<String>,
}

impl Written {
    fn answer(self, form: Form, mut warnings: Vec<String>) -> Result<Response, Failure> {
        warnings.extend(self.warnings);
        let object = form.present(&self.pod).map_err(unwritable)?;
        Ok(self.touched.on(answer(StatusCode::OK, &object, &warnings)))
    }
}

/// Why a list was not accepted.
struct Refused {
    failure: Failure,
    /// Somebody else wrote since the pod was read, and the client did not say which version it means.
    overtaken: bool,
}

impl Write {
    fn base(&self) -> Result<Arc<Pod>, Failure> {
        let audience = self.asked_by.audience();
        find(&self.context.store, audience, &self.namespace, &self.name)
    }

    /// What an object that was sent whole asks for.
    fn replacement(&self, body: &Body) -> Result<Asked, Failure> {
        let Document { object, duplicates } = read(body)?;
        let form = Form::of_object(&object);
        require_kind(&object, &["v1"], form.kind())?;
        let wish = form
            .decode(object)
            .map_err(|error| Failure::bad_request(error.to_string()))?;
        let warnings = self
            .parameters
            .judge(&wish.unknown, &duplicates)
            .map_err(|unknown| Failure::bad_request(unknown.message()))?;
        require_place(&wish.metadata, &self.namespace, &self.name)?;
        let version = said(&wish.metadata.resource_version);
        Ok(Asked {
            form,
            wish,
            version,
            warnings,
        })
    }

    /// What a patch of `base` asks for; `client` is the form of clients like the one that sent it.
    fn change(&self, base: &Pod, patch: PatchForm, client: Form, body: &Body) -> Result<Asked, Failure> {
        let Document { object, duplicates } = read_json(body)?;
        let form = Form::of_patch(&object, client);
        let old = form.present(base).map_err(unwritable)?;
        let patched = patches::apply(patch, &old, &object)?;
        let wish = form
            .decode(patched)
            .map_err(|error| Failure::invalid_patch(&self.name, error.to_string()))?;
        for (field, changed) in [
            ("metadata.name", wish.metadata.name != base.metadata.name),
            (
                "metadata.namespace",
                wish.metadata.namespace != base.metadata.namespace,
            ),
            (
                "metadata.uid",
                said(&wish.metadata.uid).is_some_and(|uid| Some(uid) != base.metadata.uid),
            ),
        ] {
            if changed {
                let error = FieldError::new(field, Cause::Invalid, "cannot be changed");
                return Err(Failure::invalid("Pod", &self.name, &[error]));
            }
        }
        let warnings = self
            .parameters
            .judge(&wish.unknown, &duplicates)
            .map_err(|unknown| Failure::invalid_patch(&self.name, unknown.message()))?;
        let version = said(&wish.metadata.resource_version);
        if version.is_some() && version != base.metadata.resource_version {
            return Err(self.changed());
        }
        // Every list carries the version of its base; only what the patch itself says binds the store.
        let version = version.filter(|_| names_version(patch, &object));
        Ok(Asked {
            form,
            wish,
            version,
            warnings,
        })
    }

    /// Accepts the list of `wish`, which was made from `base`, for a client that means this pod, and its `version`
    /// where it named one. Whatever else differs between them is ignored.
    async fn accept(&self, base: &Pod, wish: Wish, version: Option<String>) -> Result<Written, Refused> {
        let named = version.is_some();
        let wanted = WantedList {
            uid: base.metadata.uid.clone(),
            resource_version: version,
            containers: wish.list,
            copy_mounts: wish.copy_mounts,
        };
        let (namespace, name, dry_run) = (&self.namespace, &self.name, self.parameters.dry_run);
        let asked_by = &self.asked_by;
        let is_new = |wanted: &&EphemeralContainer| !list(base).iter().any(|known| known.name == wanted.name);
        let new = wanted.containers.iter().filter(is_new);
        let touched = Touched {
            containers: new.map(|new| new.name.clone()).collect(),
            dry_run: dry_run == DryRun::All,
            ..Touched::default()
        };
        let through = write_through(&self.context, asked_by, namespace, name, &wanted, dry_run).await;
        let local = match through {
            Ok(Through::Taken(warnings)) => {
                let pod = self.base().map_err(|failure| Refused {
                    failure,
                    overtaken: false,
                })?;
                return Ok(Written {
                    pod,
                    touched,
                    warnings,
                });
            }
            Ok(Through::Local(local)) => local,
            Err(Refusal::Judged(error)) => return Err(self.refused(base, named, error)),
            Err(Refusal::Passed(failure)) => {
                return Err(Refused {
                    failure,
                    overtaken: false,
                });
            }
        };
        let store = &self.context.store;
        let accepted = store.accept(asked_by, namespace, name, wanted, dry_run).await;
        let pod = accepted.map_err(|error| self.refused(base, named, error))?;
        if let (Some(local), DryRun::No) = (&local, dry_run) {
            local.record(&self.context);
        }
        let warnings = local.iter().map(Local::warning).collect();
        Ok(Written {
            pod,
            touched,
            warnings,
        })
    }

    /// Why a list was not accepted that was made from `base`; `named`: its client named a version.
    fn refused(&self, base: &Pod, named: bool, error: AcceptError) -> Refused {
        match error {
            // Without a version it is another pod that has the name now: that one is to be read.
            AcceptError::Conflict => Refused {
                failure: self.changed(),
                overtaken: !named,
            },
            // A list that was right for `base` is refused because it lacks what somebody added since.
            AcceptError::Invalid(_) if self.was_overtaken(base) => Refused {
                failure: self.changed(),
                overtaken: true,
            },
            error => Refused {
                failure: Failure::not_accepted(&self.namespace, &self.name, error),
                overtaken: false,
            },
        }
    }

    fn was_overtaken(&self, base: &Pod) -> bool {
        let now = self.base();
        now.is_ok_and(|now| now.metadata.uid != base.metadata.uid || list(&now) != list(base))
    }

    fn changed(&self) -> Failure {
        let (namespace, name) = (&self.namespace, &self.name);
        let message =
            format!("{namespace}/{name} has changed since it was read: read it again and add to that");
        Failure::conflict("pods", name, message)
    }
}

/// Whether a patch itself says which version of the pod it is for.
fn names_version(form: PatchForm, patch: &Value) -> bool {
    if form != PatchForm::Json {
        return !patch["metadata"]["resourceVersion"].is_null();
    }
    let mut operations = patch.as_array().into_iter().flatten();
    // Whoever writes the whole metadata, or the whole object, writes the version too.
    operations.any(|operation| {
        let path = operation["path"].as_str();
        path.is_some_and(|path| matches!(path, "" | "/metadata" | "/metadata/resourceVersion"))
    })
}

fn list(pod: &Pod) -> &[EphemeralContainer] {
    let list = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.ephemeral_containers.as_deref());
    list.unwrap_or_default()
}
