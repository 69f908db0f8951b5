//! `pods/log`: what a container wrote, as text, in chunks.

use std::future::Future;
use std::path::Path;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use futures_util::stream;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer};

use crate::pod::field_error::{Cause, FieldError};
use crate::runtime::logs::{LogError, LogOptions, LogReader, LogStream};

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

/// A flag of a query: on unless it says `false` or `0`.
fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let value = String::deserialize(deserializer)?;
    Ok(value != "0" && !value.eq_ignore_ascii_case("false"))
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
            errors.push(FieldError::new("sinceTime", Cause::Forbidden, message));
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

/// Answers with the log at `path`. Where it is followed, `container_ended` is ready once the runtime has said that
/// the container ended, or when the answer is to end anyway.
pub(crate) async fn log_response(
    path: &Path,
    options: &LogOptions,
    follow: bool,
    container_ended: impl Future<Output = ()> + Send + 'static,
) -> Result<Response, LogError> {
    let reader = if follow {
        LogReader::follow(path, options, container_ended).await?
    } else {
        LogReader::open(path, options).await?
    };
    // An error ends the answer without its last chunk, so that the client knows that something is missing.
    let pieces = stream::try_unfold(reader, |mut reader| async move {
        let piece = reader.next().await?;
        Ok::<_, LogError>(piece.map(|piece| (piece, reader)))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use axum::extract::Query;
    use http_body_util::BodyExt;

    use super::*;

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
            "container=etcd&follow=true&previous=0&timestamps&tailLines=5&sinceSeconds=60&limitBytes=9&stream=Stderr",
        );
        assert_eq!(
            (query.container.as_str(), query.follow, query.previous),
            ("etcd", true, false)
        );
        let options = query.options(now()).unwrap();
        assert_eq!(options.tail_lines, Some(5));
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
        assert_eq!(
            fields,
            ["tailLines", "limitBytes", "sinceSeconds", "sinceTime", "stream"]
        );
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
        let response = log_response(&path, &LogOptions::default(), true, ended)
            .await
            .unwrap();
        assert_eq!(
            response.into_body().collect().await.unwrap().to_bytes(),
            "one\ntwo"
        );
    }
}
