//! `pods/log`: what a container wrote, as text, in chunks.

use std::future::Future;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Path as UrlPath, State};
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_TYPE, WARNING};
use axum::response::Response;
use debuglet_proto::v1::ContainerStatusRequest;
use futures_util::stream;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;

use super::Context;
use super::audit::Touched;
use super::connection::ReadDuty;
use super::container::{ServedContainer, running_id, status_of};
use super::identity::Identity;
use super::pods::find;
use super::request::{Parameters, flag};
use super::status::Failure;
use crate::pod::field_error::{Cause, FieldError};
use crate::pod::log_names::{is_container_name, log_folder};
use crate::pod::visibility::Audience;
use crate::runtime::error::RuntimeError;
use crate::runtime::logs::{
    LogError, LogFile, LogOptions, LogReader, LogStream, MAX_FOLLOWERS, Place, attempts,
};

/// What a client is warned of, as kubectl prints it, where lines that it asked for are not in the answer.
const COMPRESSED: &str = "299 - \"older lines of this log are in compressed files, which are not read here\"";

/// The seconds after which a client is told to come again that found no place to follow a log.
const COME_AGAIN: i32 = 5;

/// The query of `pods/log`: Kubernetes' PodLogOptions.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct LogParameters {
    /// The container's name; empty for the pod's default.
    pub(crate) container: String,
    /// Go on as the container writes.
    #[serde(deserialize_with = "flag")]
    pub(crate) follow: bool,
    /// The log of the container's instance before this one.
    #[serde(deserialize_with = "flag")]
    pub(crate) previous: bool,
    #[serde(deserialize_with = "flag")]
    timestamps: bool,
    tail_lines: Option<i64>,
    since_seconds: Option<i64>,
    since_time: Option<Timestamp>,
    limit_bytes: Option<i64>,
    stream: Option<String>,
}

impl LogParameters {
    /// What is to be read, at the time `now`; every rule that is broken, as Kubernetes states them.
    pub(crate) fn options(&self, now: Timestamp) -> Result<LogOptions, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut at_least = |field: &str, least: i64, value: Option<i64>| {
            if value.is_some_and(|value| value < least) {
                let message = format!("must be {least} or more");
                errors.push(FieldError::new(field, Cause::Invalid, message));
            }
            value.map(i64::unsigned_abs)
        };
        let tail_lines = at_least("tailLines", 0, self.tail_lines);
        let limit_bytes = at_least("limitBytes", 1, self.limit_bytes);
        let since_seconds = at_least("sinceSeconds", 1, self.since_seconds);
        if since_seconds.is_some() && self.since_time.is_some() {
            let message = "at most one of sinceTime and sinceSeconds may be given";
            errors.push(FieldError::new("", Cause::Forbidden, message));
        }
        let since_seconds = self.since_seconds.map(|seconds| {
            // What lies before all time is everything.
            now.checked_sub(SignedDuration::from_secs(seconds))
                .unwrap_or(Timestamp::MIN)
        });
        let stream = match self.stream.as_deref() {
            None | Some("All") => None,
            Some("Stdout") => Some(LogStream::Stdout),
            Some("Stderr") => Some(LogStream::Stderr),
            Some(_) => {
                let message = "must be one of All, Stdout, Stderr";
                errors.push(FieldError::new("stream", Cause::NotSupported, message));
                None
            }
        };
        if stream.is_some() && tail_lines.is_some() {
            let message = "tailLines may not be given together with one of the two streams";
            errors.push(FieldError::new("", Cause::Forbidden, message));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(LogOptions {
            tail_lines,
            since: self.since_time.or(since_seconds),
            timestamps: self.timestamps,
            limit_bytes,
            stream,
        })
    }
}

/// A container's log.
pub(crate) async fn get(
    State(context): State<Arc<Context>>,
    UrlPath((namespace, name)): UrlPath<(String, String)>,
    Parameters(parameters): Parameters<LogParameters>,
    Extension(duty): Extension<ReadDuty>,
    Extension(identity): Extension<Identity>,
) -> Result<Response, Failure> {
    let audience = identity.audience();
    let pod = find(&context.store, audience, &namespace, &name)?;
    let options = parameters.options(Timestamp::now());
    let options = options.map_err(|errors| Failure::invalid("PodLogOptions", &name, &errors))?;
    let container = ServedContainer::find(&pod, &parameters.container)?;
    let (log, id) = log_of(&context, &pod, &container, parameters.previous).await?;
    let place = match parameters.follow {
        true => Some(context.log_followers.place().ok_or_else(too_many_follow)?),
        false => None,
    };
    // The previous instance, and one that has ended, write nothing more.
    let ended = ended(
        context,
        audience,
        namespace,
        name,
        container.spec.name.clone(),
        id,
    );
    let response = log_response(&log, &options, place, ended).await;
    let response = response.map_err(|error| match error.source.kind() {
        ErrorKind::NotFound => Failure::not_found("containers", &container.spec.name, error.to_string()),
        _ => Failure::internal(error.to_string()),
    })?;
    // Read piece by piece, when its client wants more: however long it pauses, no more than a piece is kept.
    duty.lift();
    Ok(Touched::container(&container.spec.name).on(response))
}

/// The container's log file and, where it is known, the runtime's id of the container that wrote it. The runtime says
/// where it is; where it knows the container no more, or is away, the record of a debug container does, or the log
/// folder.
async fn log_of(
    context: &Context,
    pod: &Pod,
    container: &ServedContainer,
    previous: bool,
) -> Result<(LogFile, Option<String>), Failure> {
    let id = match container.logged_id(previous) {
        Ok(id) => Some(id),
        Err(_) if container.has_ended() && !previous => None,
        Err(refusal) => return Err(refusal),
    };
    let mut why = "nothing is known of the container that ran".to_owned();
    if let Some(id) = id {
        match told_path(context, id).await {
            Ok(path) => return Ok((LogFile::new(&context.log_dir, &path), Some(id.to_owned()))),
            Err(error) => why = error,
        }
    }
    let name = &container.spec.name;
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    if let Some(path) = context.store.log_path(uid, name) {
        let log = LogFile::new(&context.log_dir, &path);
        if log.is_there().await.map_err(|error| unreadable(&path, &error))? {
            return Ok((log, id.map(str::to_owned)));
        }
    }
    let folder = context.log_dir.join(log_folder(pod)).join(name);
    let place = usize::from(id.is_some_and(|id| !container.is_newest(id)));
    let kept = match is_container_name(name) {
        true => {
            let kept = attempts(&context.log_dir, &folder).await;
            kept.map_err(|error| unreadable(&folder, &error))?
        }
        false => Vec::new(),
    };
    match kept.into_iter().nth(place) {
        Some(log) => Ok((log, id.map(str::to_owned))),
        None => Err(Failure::not_found(
            "containers",
            name,
            format!("there is no log of {name:?} any more: {why}"),
        )),
    }
}

/// Nobody can say whether there is a log: its disk does not answer, or refuses.
fn unreadable(path: &Path, error: &impl std::fmt::Display) -> Failure {
    Failure::internal(format!("cannot look for the log at {}: {error}", path.display()))
}

/// Where the runtime keeps the log of the container, or why that is not known.
async fn told_path(context: &Context, container_id: &str) -> Result<PathBuf, String> {
    let request = ContainerStatusRequest {
        container_id: container_id.to_owned(),
        ..ContainerStatusRequest::default()
    };
    let path = match context.runtime.runtime().container_status(request).await {
        Ok(answer) => answer.into_inner().status.unwrap_or_default().log_path,
        Err(status) => {
            return Err(
                RuntimeError::new("ask the runtime about container", container_id, &status).to_string(),
            );
        }
    };
    if path.is_empty() {
        return Err(format!("the runtime keeps no log of {container_id}"));
    }
    Ok(PathBuf::from(path))
}

/// Ready once the pod that `audience` sees does not say any more that this container runs, or the agent shuts down.
async fn ended(
    context: Arc<Context>,
    audience: Audience,
    namespace: String,
    name: String,
    container: String,
    id: Option<String>,
) {
    let Some(id) = id else { return };
    let mut versions = context.store.versions();
    let runs = || {
        let pod = context.store.pod_for(audience, &namespace, &name);
        pod.is_some_and(|pod| status_of(&pod, &container).and_then(running_id) == Some(&id))
    };
    while runs() {
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            changed = versions.changed() => if changed.is_err() { return },
        }
    }
}

/// What a client is told for which there is no place.
fn too_many_follow() -> Failure {
    let message =
        format!("{MAX_FOLLOWERS} logs are followed already, and no more are on this node: come again");
    Failure::too_many_requests(message, COME_AGAIN)
}

/// Answers with a log. With a place it is followed, and `container_ended` is ready once the runtime has said that
/// the container ended, or when the answer is to end anyway.
async fn log_response(
    log: &LogFile,
    options: &LogOptions,
    place: Option<Place>,
    container_ended: impl Future<Output = ()> + Send + 'static,
) -> Result<Response, LogError> {
    let reader = match place {
        Some(place) => LogReader::follow(log, options, place, container_ended).await?,
        None => LogReader::open(log, options).await?,
    };
    let left_out = reader.left_out();
    // An error ends the answer without its last chunk, so that the client knows that something is missing.
    let pieces = stream::try_unfold(reader, |mut reader| async move {
        let piece = reader.next().await?;
        Ok::<_, LogError>(piece.map(|piece| (piece, reader)))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    if left_out {
        headers.insert(WARNING, HeaderValue::from_static(COMPRESSED));
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use axum::extract::Query;
    use http_body_util::BodyExt;

    use super::*;
    use crate::runtime::logs::LogFollowers;

    fn parameters(query: &str) -> LogParameters {
        Query::try_from_uri(&format!("/log?{query}").parse().unwrap())
            .unwrap()
            .0
    }

    fn now() -> Timestamp {
        "2026-11-21T03:00:00Z".parse().unwrap()
    }

    #[test]
    fn the_parameters_of_pod_log_options_are_read() {
        let query = parameters(
            "container=etcd&follow=true&previous=0&timestamps&sinceSeconds=60&limitBytes=9&stream=Stderr\
             &insecureSkipTLSVerifyBackend=true",
        );
        assert_eq!(
            (query.container.as_str(), query.follow, query.previous),
            ("etcd", true, false)
        );
        let options = query.options(now()).unwrap();
        let tail = parameters("tailLines=5&stream=All").options(now()).unwrap();
        assert_eq!((tail.tail_lines, tail.stream), (Some(5), None));
        assert_eq!(options.since, Some("2026-11-21T02:59:00Z".parse().unwrap()));
        assert_eq!(options.limit_bytes, Some(9));
        assert_eq!(options.stream, Some(LogStream::Stderr));
        assert!(options.timestamps);
    }

    #[test]
    fn parameters_out_of_range_are_named() {
        let broken = "tailLines=-1&limitBytes=0&sinceSeconds=0&sinceTime=2026-11-21T03:00:00Z&stream=x";
        let errors = parameters(broken).options(now()).unwrap_err();
        let fields: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["tailLines", "limitBytes", "sinceSeconds", "", "stream"]);
        let both = parameters("tailLines=1&stream=Stdout")
            .options(now())
            .unwrap_err();
        assert_eq!((both[0].field.as_str(), both[0].cause), ("", Cause::Forbidden));
    }

    #[tokio::test]
    async fn a_followed_log_is_answered_to_its_last_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        std::fs::write(
            &path,
            "2026-11-21T03:12:40.5Z stdout F one\n2026-11-21T03:12:40.5Z stderr P two",
        )
        .unwrap();
        let ended = std::future::ready(());
        let log = LogFile::new(folder.path(), &path);
        let place = LogFollowers::default().place();
        let response = log_response(&log, &LogOptions::default(), place, ended)
            .await
            .unwrap();
        assert_eq!(
            response.into_body().collect().await.unwrap().to_bytes(),
            "one\ntwo"
        );
    }
}
