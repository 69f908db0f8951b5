//! How long the runtime takes for each of its calls, and which it refuses: a layer around the connection, so that no
//! caller has to think of it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use prometheus::core::Collector;
use prometheus::{HistogramVec, IntCounterVec};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::{Code, Status};

use super::bounded_channel::BoundedChannel;
use crate::metrics::{counters, seconds_by};

/// From a list to the pull of a large image.
const BOUNDS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0,
];

/// A stream for as long as the agent lives: it has a beginning, but takes no time.
const STREAMS: [&str; 1] = ["GetContainerEvents"];

/// The calls to the runtime.
#[derive(Clone, Debug)]
pub(crate) struct CallMetrics {
    durations: HistogramVec,
    errors: IntCounterVec,
}

impl Default for CallMetrics {
    fn default() -> CallMetrics {
        CallMetrics {
            durations: seconds_by(
                "debuglet_runtime_call_duration_seconds",
                "How long the runtime took to answer, by CRI method.",
                &BOUNDS,
                &["method"],
            ),
            errors: counters(
                "debuglet_runtime_call_errors_total",
                "Calls that the runtime did not do, by CRI method and gRPC code.",
                &["method", "code"],
            ),
        }
    }
}

impl CallMetrics {
    /// The families.
    pub(crate) fn families(&self) -> Vec<Box<dyn Collector>> {
        vec![Box::new(self.durations.clone()), Box::new(self.errors.clone())]
    }

    fn note(&self, method: &str, since: Instant, outcome: Code) {
        if !STREAMS.contains(&method) {
            self.durations
                .with_label_values(&[method])
                .observe(since.elapsed().as_secs_f64());
        }
        if outcome != Code::Ok {
            self.errors
                .with_label_values(&[method, &format!("{outcome:?}")])
                .inc();
        }
    }
}

/// A connection whose calls are measured.
#[derive(Clone, Debug)]
pub(crate) struct MeasuredChannel {
    channel: BoundedChannel,
    metrics: CallMetrics,
}

impl MeasuredChannel {
    /// Measures the calls over `channel`.
    pub(crate) fn new(channel: BoundedChannel, metrics: CallMetrics) -> MeasuredChannel {
        MeasuredChannel { channel, metrics }
    }
}

impl Service<Request<Body>> for MeasuredChannel {
    type Response = Response<Body>;
    type Error = <BoundedChannel as Service<Request<Body>>>::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let metrics = self.metrics.clone();
        let method = method(request.uri().path()).to_owned();
        let since = Instant::now();
        let answer = self.channel.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let outcome = match &answer {
                // containerd refuses before it begins an answer, so that the reason stands in the head.
                Ok(response) => {
                    Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code())
                }
                Err(error) => error
                    .downcast_ref::<Status>()
                    .map_or(Code::Unavailable, Status::code),
            };
            metrics.note(&method, since, outcome);
            answer
        })
    }
}

/// `CreateContainer` of `/runtime.v1.RuntimeService/CreateContainer`. There are as many as this program calls.
fn method(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}
