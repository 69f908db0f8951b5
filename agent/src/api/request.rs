//! What handlers take out of a request. Each part that cannot be read is refused with a `Status`.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use tokio::time::timeout;

use super::status::Failure;

/// The largest body that is read: as much as kube-apiserver takes.
pub(crate) const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The query parameters; unknown ones are ignored, as Kubernetes does.
#[derive(Debug)]
pub(crate) struct Parameters<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Parameters<T>, Failure> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(parameters)) => Ok(Parameters(parameters)),
            Err(error) => Err(Failure::bad_request(error.body_text())),
        }
    }
}

/// Reads a query parameter that is a flag: on unless it says `false` or `0`, as in Kubernetes.
pub(crate) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let value = String::deserialize(deserializer)?;
    Ok(value != "0" && !value.eq_ignore_ascii_case("false"))
}

/// A body, whole, with its media type in lower case and without parameters; empty where none is given.
#[derive(Debug)]
pub(crate) struct Body {
    /// `application/json`, ...
    pub(crate) media_type: String,
    /// What was sent.
    pub(crate) bytes: Bytes,
}

impl<S: Sync> FromRequest<S> for Body {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Body, Failure> {
        let (head, body) = request.into_parts();
        let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        let media_type = header(CONTENT_TYPE).and_then(|value: &str| value.split(';').next());
        let media_type = media_type.unwrap_or_default().trim().to_ascii_lowercase();
        let announced = header(CONTENT_LENGTH).and_then(|value| value.parse::<u64>().ok());
        if announced.is_some_and(|length| length > MAX_BODY_BYTES as u64) {
            return Err(too_large());
        }
        let body = Limited::new(body, MAX_BODY_BYTES).collect();
        let bytes = match timeout(BODY_TIMEOUT, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                return Err(too_large());
            }
            Ok(Err(error)) => {
                return Err(Failure::bad_request(format!(
                    "the body did not arrive whole: {error}"
                )));
            }
            Err(_) => {
                let seconds = BODY_TIMEOUT.as_secs();
                return Err(Failure::request_timeout(format!(
                    "the body did not arrive within {seconds} s"
                )));
            }
        };
        Ok(Body { media_type, bytes })
    }
}

fn too_large() -> Failure {
    Failure::too_large(format!("the body is larger than {MAX_BODY_BYTES} bytes"))
}
