//! The group `debuglet.io`: what Kubernetes' API has no form for. The node's report, how far the launch of a
//! debug container has come, stopping one, and having its log written out.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use debuglet_proto::v1::ReopenContainerLogRequest;
use futures_util::stream;
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

use super::Context;
use super::connection::{ReadDuty, Watching};
use super::identity::Identity;
use super::pods::find;
use super::request::{Parameters, flag};
use super::status::Failure;
use super::watch::{line, lines};
use super::writes::{answer, unwritten_warning};
use crate::pod::launch::{Launch, PullProgress, Stage};
use crate::pod::visibility::Audience;
use crate::runtime::error::message;

/// The group's name.
pub(crate) const GROUP: &str = "debuglet.io";
/// Its version.
pub(crate) const VERSION: &str = "v1alpha1";

/// How often the runtime is asked how much of an image has arrived, while somebody watches.
const PULL_INTERVAL: Duration = Duration::from_millis(200);
/// How long it may take to say so: the launch itself is told without it then.
const PULL_ANSWER: Duration = Duration::from_secs(1);

/// An object of the group.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Object<T> {
    kind: &'static str,
    api_version: String,
    #[serde(flatten)]
    content: T,
}

impl<T: Serialize> Object<T> {
    pub(crate) fn new(kind: &'static str, content: T) -> Object<T> {
        Object {
            kind,
            api_version: format!("{GROUP}/{VERSION}"),
            content,
        }
    }
}

/// The namespace, the pod and the container in the path.
type Place = Path<(String, String, String)>;

/// The query parameters of a launch.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct LaunchParameters {
    #[serde(deserialize_with = "flag")]
    watch: bool,
}

/// What the node has and lacks.
pub(crate) async fn node(
    State(context): State<Arc<Context>>,
    Extension(identity): Extension<Identity>,
) -> Response {
    let report = context.store.node_report().shown_to(identity.audience());
    Json(Object::new("NodeReport", report)).into_response()
}

/// How far the launch of an ephemeral container has come; watched, one object a line until it has ended.
pub(crate) async fn launch(
    State(context): State<Arc<Context>>,
    Path((namespace, pod, container)): Place,
    Parameters(parameters): Parameters<LaunchParameters>,
    Extension(duty): Extension<ReadDuty>,
    Extension(identity): Extension<Identity>,
) -> Result<Response, Failure> {
    let audience = identity.audience();
    let launch = find_launch(&context, audience, &namespace, &pod, &container)?;
    if !parameters.watch {
        return Ok(Json(Object::new("Launch", launch)).into_response());
    }
    let watch = LaunchWatch {
        versions: context.store.versions(),
        image: image(&*find(&context.store, audience, &namespace, &pod)?, &container),
        context,
        audience,
        namespace,
        pod,
        container,
        told: None,
        _watching: duty.watching(),
    };
    Ok(lines(stream::unfold(watch, LaunchWatch::next)))
}

/// Stops a debug container. That it is to stop is durable when this is answered, or the answer warns that it is not.
pub(crate) async fn stop(
    State(context): State<Arc<Context>>,
    Path((namespace, pod, container)): Place,
    Extension(identity): Extension<Identity>,
) -> Result<Response, Failure> {
    let asked_by = identity.asked_by();
    match context.store.stop(&asked_by, &namespace, &pod, &container).await {
        Ok(stopped) => {
            let warning = unwritten_warning("the stop", stopped.unwritten.as_ref());
            let launch = Object::new("Launch", stopped.object);
            Ok(answer(StatusCode::OK, &launch, warning.as_slice()))
        }
        Err(error) => Err(Failure::not_stopped(&namespace, &pod, &container, error)),
    }
}

/// Has the runtime write out what it holds of an unfinished line of a debug container's log, and answers the
/// launch.
pub(crate) async fn flush_log(
    State(context): State<Arc<Context>>,
    Path((namespace, pod, container)): Place,
    Extension(identity): Extension<Identity>,
) -> Result<Response, Failure> {
    let audience = identity.audience();
    let launch = find_launch(&context, audience, &namespace, &pod, &container)?;
    let served = find(&context.store, audience, &namespace, &pod)?;
    let Some(container_id) = running_container(&served, &container) else {
        let message = format!("{container:?} in {namespace}/{pod} does not run: its log is complete");
        return Err(Failure::conflict("containers", &container, message));
    };
    let request = ReopenContainerLogRequest {
        container_id: container_id.to_owned(),
    };
    context
        .runtime
        .runtime()
        .reopen_container_log(request)
        .await
        .map_err(|status| {
            let reason = message(&status);
            Failure::internal(format!(
                "the log of {container:?} in {namespace}/{pod} was not written out: {reason}"
            ))
        })?;
    Ok(Json(Object::new("Launch", launch)).into_response())
}

fn find_launch(
    context: &Context,
    audience: Audience,
    namespace: &str,
    pod: &str,
    container: &str,
) -> Result<Launch, Failure> {
    if let Some(launch) = context.store.launch(audience, namespace, pod, container) {
        return Ok(launch);
    }
    find(&context.store, audience, namespace, pod)?;
    let message = format!("{namespace}/{pod} has no debug container {container:?}");
    Err(Failure::not_found("launches", container, message))
}

fn image(pod: &Pod, container: &str) -> String {
    let containers = pod
        .spec
        .iter()
        .flat_map(|spec| spec.ephemeral_containers.iter().flatten());
    let mut images = containers
        .filter(|one| one.name == container)
        .filter_map(|one| one.image.clone());
    images.next().unwrap_or_default()
}

/// The runtime's id of the ephemeral container, if it runs.
fn running_container<'a>(pod: &'a Pod, container: &str) -> Option<&'a str> {
    let statuses = pod.status.as_ref()?.ephemeral_container_statuses.as_ref()?;
    let status = statuses.iter().find(|status| status.name == container)?;
    status.state.as_ref()?.running.as_ref()?;
    let (_, id) = status.container_id.as_ref()?.split_once("://")?;
    Some(id)
}

/// A watch on one launch.
struct LaunchWatch {
    context: Arc<Context>,
    audience: Audience,
    namespace: String,
    pod: String,
    container: String,
    image: String,
    versions: tokio::sync::watch::Receiver<u64>,
    /// What the client was told last.
    told: Option<Launch>,
    _watching: Watching,
}

impl LaunchWatch {
    /// The next line: the launch when it is not as it was told last; none after its end.
    async fn next(mut self) -> Option<(axum::body::Bytes, LaunchWatch)> {
        if self
            .told
            .as_ref()
            .is_some_and(|told| told.stage == Stage::Terminated)
        {
            return None;
        }
        loop {
            // Seen before the launch is read, so that a change that comes in between wakes us again.
            self.versions.borrow_and_update();
            let mut launch =
                self.context
                    .store
                    .launch(self.audience, &self.namespace, &self.pod, &self.container)?;
            let pulling = launch.stage == Stage::Pulling;
            if pulling && launch.pull.is_none() {
                launch.pull = pull_progress(&self.context, &self.image).await;
            }
            if self.told.as_ref() != Some(&launch) {
                let line = line(&Object::new("Launch", &launch));
                self.told = Some(launch);
                return Some((line, self));
            }
            tokio::select! {
                changed = self.versions.changed() => changed.ok()?,
                () = sleep(PULL_INTERVAL), if pulling => {}
                () = self.context.shutdown.cancelled() => return None,
            }
        }
    }
}

/// How much of the image has arrived, where that can be told.
async fn pull_progress(context: &Context, image: &str) -> Option<PullProgress> {
    timeout(PULL_ANSWER, context.images.progress(image))
        .await
        .ok()
        .flatten()
}
