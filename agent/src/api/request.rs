//! What handlers take out of a request. Each part that cannot be read is refused with a `Status`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use tokio::time::timeout;

use super::Context;
use super::large_bodies::{LargeBodies, Place, SMALL_BODY_BYTES};
use super::status::Failure;
use super::writes::JSON_PATCH;

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

/// Whether a query parameter that is a flag is on: unless it says `false` or `0`, as in Kubernetes. Whoever reads a flag
/// reads it with this, so that none is judged in one way and served in another.
pub(crate) fn is_on(value: &str) -> bool {
    value != "0" && !value.eq_ignore_ascii_case("false")
}

/// Whether a query asks for a watch. Where it says so more than once no handler takes it.
pub(crate) fn watches(query: &str) -> bool {
    form_urlencoded::parse(query.as_bytes()).any(|(key, value)| key == "watch" && is_on(&value))
}

/// Reads a query parameter that is a flag.
pub(crate) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(is_on(&String::deserialize(deserializer)?))
}

/// A body, whole, with its media type in lower case and without parameters; empty where none is given.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    /// `application/json`, ...
    pub(crate) media_type: String,
    /// What was sent.
    pub(crate) bytes: Bytes,
    /// Its place among the large ones, where it is one; kept until the request is answered.
    place: Option<Arc<Place>>,
    large_bodies: LargeBodies,
}

impl Body {
    #[cfg(test)]
    pub(super) fn small(media_type: &str, bytes: &'static [u8]) -> Body {
        Body {
            media_type: media_type.to_owned(),
            bytes: Bytes::from_static(bytes),
            place: None,
            large_bodies: LargeBodies::default(),
        }
    }

    /// Does `work` with the body: what reads, decodes and judges it. Where that can be much, it is done in its turn,
    /// on a thread where nobody waits for it.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Body) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        // A short JSON patch can copy the object into itself again and again.
        if self.place.is_none() && self.media_type != JSON_PATCH {
            return work(self);
        }
        let body = self.clone();
        self.large_bodies.work(move || work(&body)).await
    }
}

impl FromRequest<Arc<Context>> for Body {
    type Rejection = Failure;

    async fn from_request(request: Request, context: &Arc<Context>) -> Result<Body, Failure> {
        let (head, body) = request.into_parts();
        let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        let media_type = header(CONTENT_TYPE).and_then(|value: &str| value.split(';').next());
        let media_type = media_type.unwrap_or_default().trim().to_ascii_lowercase();
        let announced = header(CONTENT_LENGTH).and_then(|value| value.parse::<u64>().ok());
        if announced.is_some_and(|length| length > MAX_BODY_BYTES as u64) {
            return Err(too_large());
        }
        let large_bodies = context.large_bodies.clone();
        match timeout(BODY_TIMEOUT, arrival(body, &large_bodies)).await {
            Ok(arrived) => arrived.map(|(bytes, place)| Body {
                media_type,
                bytes,
                place: place.map(Arc::new),
                large_bodies,
            }),
            Err(_) => {
                let seconds = BODY_TIMEOUT.as_secs();
                Err(Failure::request_timeout(format!(
                    "the body did not arrive within {seconds} s"
                )))
            }
        }
    }
}

/// What arrives of a body, and its place as soon as it is a large one. Where there is no place, the rest is let by:
/// a client that is cut off while it sends does not read the answer.
async fn arrival(
    body: axum::body::Body,
    large_bodies: &LargeBodies,
) -> Result<(Bytes, Option<Place>), Failure> {
    let mut body = Limited::new(body, MAX_BODY_BYTES);
    let (mut bytes, mut place, mut refused) = (BytesMut::new(), None, None);
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) if error.is::<LengthLimitError>() => return Err(too_large()),
            Err(error) => {
                return Err(Failure::bad_request(format!(
                    "the body did not arrive whole: {error}"
                )));
            }
        };
        let Ok(data) = frame.into_data() else { continue };
        if refused.is_some() {
            continue;
        }
        if place.is_none() && bytes.len() + data.len() > SMALL_BODY_BYTES {
            match large_bodies.place().await {
                Ok(found) => place = Some(found),
                Err(failure) => {
                    refused = Some(failure);
                    bytes = BytesMut::new();
                    continue;
                }
            }
        }
        bytes.extend_from_slice(&data);
    }
    match refused {
        Some(failure) => Err(failure),
        None => Ok((bytes.freeze(), place)),
    }
}

fn too_large() -> Failure {
    Failure::too_large(format!("the body is larger than {MAX_BODY_BYTES} bytes"))
}
