//! The OpenAPI v2 document, for clients that know no v3. kubectl 1.20 reads it before it sends a manifest, and gives
//! up without it; what it does not find there it leaves to the server to check. So the document names no type.

use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use prost::Message;
use serde_json::json;

/// The form that kubectl asks for.
const ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// The same form as it is answered: what is asked for is no media type, and kubectl cannot read it in an answer.
const ANSWERED: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The beginning of `openapi.v2.Document`, with the numbers of gnostic's `openapi_v2.proto`.
#[derive(Clone, PartialEq, Message)]
struct Document {
    #[prost(string, tag = "1")]
    swagger: String,
    #[prost(message, optional, tag = "2")]
    info: Option<Info>,
}

#[derive(Clone, PartialEq, Message)]
struct Info {
    #[prost(string, tag = "1")]
    title: String,
    #[prost(string, tag = "2")]
    version: String,
}

/// `/openapi/v2`.
pub(crate) async fn document(headers: HeaderMap) -> Response {
    let document = Document {
        swagger: "2.0".to_owned(),
        info: Some(Info {
            title: "debuglet".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }),
    };
    let accepted = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    if accepted
        .into_iter()
        .any(|accepted| accepted.contains(ASKED) || accepted.contains(ANSWERED))
    {
        let media_type = HeaderValue::from_static(ANSWERED);
        return ([(CONTENT_TYPE, media_type)], document.encode_to_vec()).into_response();
    }
    let info = document.info.unwrap_or_default();
    axum::Json(json!({
        "swagger": document.swagger,
        "info": {"title": info.title, "version": info.version},
        "paths": {},
    }))
    .into_response()
}
