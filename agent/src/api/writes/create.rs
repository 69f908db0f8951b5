//! POST of `pods`: a pod that runs like one of the manifests folder, and is as durable.

use std::sync::Arc;

use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use k8s_openapi::api::core::v1::Pod;

use super::{WriteParameters, answer, decode_pod, read, require_kind, require_namespace, said};
use crate::api::Context;
use crate::api::audit::Touched;
use crate::api::identity::Identity;
use crate::api::request::Body;
use crate::api::status::Failure;
use crate::pod::visibility::Audience;
use crate::pod::{creation, generated_name};
use crate::store::DryRun;
use crate::store::create::CreateError;

/// How many names are tried where the client leaves the name to us.
const GENERATED_NAMES: usize = 8;

/// Creates a pod.
pub(crate) async fn post(
    State(context): State<Arc<Context>>,
    Path(namespace): Path<String>,
    Extension(identity): Extension<Identity>,
    parameters: WriteParameters,
    body: Body,
) -> Result<Response, Failure> {
    let (pod, warnings) = body.work(move |body| wish(body, namespace, parameters)).await?;
    context.store.node_report().kubelet.allows_pods()?;
    let created = create(&context, identity.audience(), &body, pod, parameters.dry_run).await?;
    let touched = Touched {
        pod: created.metadata.name.clone(),
        dry_run: parameters.dry_run == DryRun::All,
        ..Touched::default()
    };
    Ok(touched.on(answer(StatusCode::CREATED, &*created, &warnings)))
}

/// The pod that the body asks for in `namespace`, and warnings about what it says beside.
fn wish(
    body: &Body,
    namespace: String,
    parameters: WriteParameters,
) -> Result<(Arc<Pod>, Vec<String>), Failure> {
    let document = read(body)?;
    require_kind(&document.object, &["v1"], "Pod")?;
    let (mut pod, unknown) =
        decode_pod(document.object).map_err(|error| Failure::bad_request(error.to_string()))?;
    let warnings = parameters
        .judge(&unknown, &document.duplicates)
        .map_err(|unknown| Failure::bad_request(unknown.message()))?;
    require_namespace(&pod.metadata, &namespace)?;
    if said(&pod.metadata.resource_version).is_some() {
        return Err(Failure::bad_request(
            "metadata.resourceVersion cannot be set for a pod that is to be created",
        ));
    }
    pod.metadata.namespace = Some(namespace);
    Ok((Arc::new(pod), warnings))
}

/// Creates a pod under the name that it says, or under one that is made for it.
async fn create(
    context: &Context,
    audience: Audience,
    body: &Body,
    pod: Arc<Pod>,
    dry_run: DryRun,
) -> Result<Arc<Pod>, Failure> {
    let base = said(&pod.metadata.generate_name).filter(|_| said(&pod.metadata.name).is_none());
    let mut attempts = 1..;
    loop {
        let name = match &base {
            Some(base) => generated_name::with_suffix(base, rand::random()),
            None => pod.metadata.name.clone().unwrap_or_default(),
        };
        let prepared = {
            let (pod, name) = (Arc::clone(&pod), name.clone());
            let store = Arc::clone(&context.store);
            body.work(move |_| prepare(&pod, name, store.node_name())).await?
        };
        match context.store.create(audience, prepared, dry_run).await {
            Ok(created) => return Ok(created),
            Err(CreateError::AlreadyExists(_))
                if base.is_some() && attempts.next() < Some(GENERATED_NAMES) => {}
            Err(error) => {
                let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                return Err(Failure::not_created(namespace, &name, error));
            }
        }
    }
}

/// The pod under this name, with its defaults.
fn prepare(pod: &Pod, name: String, node_name: &str) -> Result<Pod, Failure> {
    let mut pod = pod.clone();
    pod.metadata.name = Some(name.clone()).filter(|name| !name.is_empty());
    creation::prepare(pod, node_name).map_err(|errors| Failure::invalid("Pod", &name, &errors))
}
