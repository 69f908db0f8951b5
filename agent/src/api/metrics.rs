//! `/metrics`, in Prometheus' text format 0.0.4: what the store, the runtime's side and the API itself have counted,
//! and what the process uses.

mod process;
mod request_kind;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::core::Collector;
use prometheus::{IntCounterVec, Registry, TextEncoder};

use super::Context;
use super::connection::Watchers;
use super::status::Failure;
use crate::metrics::{counters, gauge};
use process::ProcessMetrics;
use request_kind::RequestKind;

/// The text format's media type.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything that is counted.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    watchers: Watchers,
    /// Held while it is looked at: two at once would count the same seconds twice.
    process: Mutex<ProcessMetrics>,
}

impl Metrics {
    /// Gathers what the parts of `context` count.
    pub(super) fn of(context: &Context) -> Arc<Metrics> {
        let build = counters_of_build();
        let requests = counters(
            "debuglet_api_requests_total",
            "Requests to the API by verb, resource and HTTP code.",
            &["verb", "resource", "code"],
        );
        let watchers = gauge("debuglet_watchers", "Clients that watch at this moment.");
        let process = ProcessMetrics::new();
        let registry = Registry::new();
        let own: [Box<dyn Collector>; 3] = [
            Box::new(build),
            Box::new(requests.clone()),
            Box::new(watchers.clone()),
        ];
        let families = own
            .into_iter()
            .chain(process.families())
            .chain(context.store.launch_metrics().families())
            .chain(context.store.problem_families())
            .chain(context.runtime.call_metrics().families())
            .chain(context.images.pull_metrics().families());
        for family in families {
            if let Err(error) = registry.register(family) {
                tracing::error!("/metrics is not whole: {error}");
            }
        }
        Arc::new(Metrics {
            registry,
            requests,
            watchers,
            process: Mutex::new(process),
        })
    }

    /// Where watches are counted.
    pub(super) fn watchers(&self) -> Watchers {
        self.watchers.clone()
    }

    /// `router` with `/metrics`.
    pub(super) fn show(self: &Arc<Self>, router: Router) -> Router {
        let shown = Arc::clone(self);
        let refused = async || Failure::method_not_allowed("/metrics can only be read");
        router.route(
            "/metrics",
            get(async move || shown.text().map(|text| ([(CONTENT_TYPE, TEXT)], text))).fallback(refused),
        )
    }

    /// `router`, and every request to it counted.
    pub(super) fn measure(self: Arc<Self>, router: Router) -> Router {
        router.layer(from_fn(move |request: Request, next: Next| {
            let metrics = Arc::clone(&self);
            async move { metrics.count(request, next).await }
        }))
    }

    async fn count(&self, request: Request, next: Next) -> Response {
        let kind = RequestKind::of(request.method(), request.uri());
        let response = next.run(request).await.into_response();
        let code = response.status();
        self.requests
            .with_label_values(&[kind.verb, kind.resource, code.as_str()])
            .inc();
        response
    }

    fn text(&self) -> Result<String, Failure> {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.look();
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .map_err(|error| Failure::internal(format!("the metrics cannot be written: {error}")))
    }
}

/// A gauge that is always 1: its labels are what it says.
fn counters_of_build() -> prometheus::IntGaugeVec {
    let options = prometheus::Opts::new("debuglet_build_info", "What this agent was built from; always 1.");
    let build = prometheus::IntGaugeVec::new(options, &["version"]).expect("a name that Prometheus takes");
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    build
}
