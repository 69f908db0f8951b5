//! `pods`: get, list and watch.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Response};
use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;

use super::Context;
use super::connection::ReadDuty;
use super::request::{ListParameters, Parameters};
use super::selectors::{POD_FIELDS, Selector};
use super::status::Failure;
use super::watch;
use crate::store::Store;

/// Which pods are asked for.
pub(crate) struct PodSelector {
    namespace: Option<String>,
    selector: Selector<Pod>,
}

impl PodSelector {
    /// The pods of `namespace`, or of all, that the parameters select.
    pub(crate) fn parse(
        namespace: Option<String>,
        parameters: &ListParameters,
    ) -> Result<PodSelector, Failure> {
        let ListParameters {
            field_selector,
            label_selector,
            ..
        } = parameters;
        Ok(PodSelector {
            namespace,
            selector: Selector::parse(POD_FIELDS, field_selector, label_selector)?,
        })
    }

    /// Whether this pod is asked for.
    pub(crate) fn selects(&self, pod: &Pod) -> bool {
        let namespace = self.namespace.is_none() || self.namespace == pod.metadata.namespace;
        namespace && self.selector.selects(pod, pod.metadata.labels.as_ref())
    }
}

/// A list of objects as Kubernetes answers it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct List<T> {
    kind: &'static str,
    api_version: &'static str,
    metadata: ListMetadata,
    items: Vec<T>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListMetadata {
    resource_version: String,
}

impl<T: Serialize> List<T> {
    /// A list of the core group, as it is at `version`.
    pub(crate) fn new(kind: &'static str, version: u64, items: Vec<T>) -> List<T> {
        List {
            kind,
            api_version: "v1",
            metadata: ListMetadata {
                resource_version: version.to_string(),
            },
            items,
        }
    }
}

/// The pods of all namespaces.
pub(crate) async fn list_all(
    State(context): State<Arc<Context>>,
    Parameters(parameters): Parameters<ListParameters>,
    Extension(duty): Extension<ReadDuty>,
) -> Result<Response, Failure> {
    answer(&context, None, &parameters, duty)
}

/// The pods of one namespace.
pub(crate) async fn list(
    State(context): State<Arc<Context>>,
    Path(namespace): Path<String>,
    Parameters(parameters): Parameters<ListParameters>,
    Extension(duty): Extension<ReadDuty>,
) -> Result<Response, Failure> {
    answer(&context, Some(namespace), &parameters, duty)
}

fn answer(
    context: &Context,
    namespace: Option<String>,
    parameters: &ListParameters,
    duty: ReadDuty,
) -> Result<Response, Failure> {
    let selector = PodSelector::parse(namespace, parameters)?;
    if parameters.watch {
        return watch::start(
            &context.store,
            selector,
            parameters,
            duty,
            context.shutdown.clone(),
        );
    }
    parameters.version()?;
    let (version, pods) = context.store.pods();
    let selected: Vec<&Pod> = pods
        .iter()
        .map(AsRef::as_ref)
        .filter(|pod| selector.selects(pod))
        .collect();
    Ok(Json(List::new("PodList", version, selected)).into_response())
}

/// One pod.
pub(crate) async fn get(
    State(context): State<Arc<Context>>,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let pod = find(&context.store, &namespace, &name)?;
    Ok(Json(&*pod).into_response())
}

/// The pod, or the answer that there is none: it says where one of that name is.
pub(crate) fn find(store: &Store, namespace: &str, name: &str) -> Result<Arc<Pod>, Failure> {
    store
        .pod(namespace, name)
        .ok_or_else(|| Failure::no_such_pod(namespace, name))
}
