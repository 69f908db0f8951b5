//! `events` of the core group: get and list.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use k8s_openapi::api::core::v1::Event;

use super::Context;
use super::pods::List;
use super::request::{ListParameters, Parameters};
use super::selectors::{EVENT_FIELDS, Selector};
use super::status::Failure;

/// The events of all namespaces.
pub(crate) async fn list_all(
    State(context): State<Arc<Context>>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Response, Failure> {
    answer(&context, None, &parameters)
}

/// The events of one namespace.
pub(crate) async fn list(
    State(context): State<Arc<Context>>,
    Path(namespace): Path<String>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Response, Failure> {
    answer(&context, Some(&namespace), &parameters)
}

fn answer(
    context: &Context,
    namespace: Option<&String>,
    parameters: &ListParameters,
) -> Result<Response, Failure> {
    if parameters.watch {
        return Err(Failure::method_not_allowed(
            "events cannot be watched: list them again",
        ));
    }
    let ListParameters {
        field_selector,
        label_selector,
        ..
    } = parameters;
    let selector = Selector::parse(EVENT_FIELDS, field_selector, label_selector)?;
    let (version, events) = context.store.events();
    let selected: Vec<&Event> = events
        .iter()
        .map(AsRef::as_ref)
        .filter(|event| namespace.is_none() || namespace == event.metadata.namespace.as_ref())
        .filter(|event| selector.selects(event, event.metadata.labels.as_ref()))
        .collect();
    Ok(Json(List::new("EventList", version, selected)).into_response())
}

/// One event.
pub(crate) async fn get(
    State(context): State<Arc<Context>>,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let (_, events) = context.store.events();
    let event = events.iter().find(|event| {
        let metadata = &event.metadata;
        metadata.namespace.as_ref() == Some(&namespace) && metadata.name.as_ref() == Some(&name)
    });
    match event {
        Some(event) => Ok(Json(&**event).into_response()),
        None => {
            let message = format!("there is no event {name:?} in namespace {namespace:?}");
            Err(Failure::not_found("events", &name, message))
        }
    }
}
