//! What all writes have in common: their parameters, their bodies, and what is said of fields that nobody knows.

pub(crate) mod create;
pub(crate) mod delete;
mod parameters;
pub(crate) mod update;

use axum::Json;
use axum::http::header::WARNING;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::Value;

use super::request::Body;
use super::status::Failure;
use crate::pod::decode::{DecodeError, decode, quantities_as_text};
use crate::pod::duplicate_fields::duplicate_fields;
use crate::pod::patch::PatchForm;
use crate::store::disk::DiskError;
pub(crate) use parameters::WriteParameters;

/// The media type of a JSON patch.
pub(crate) const JSON_PATCH: &str = "application/json-patch+json";

/// How many warnings are sent: each is a header, and common clients refuse an answer with more than a hundred.
const WARNINGS: usize = 50;

/// How many characters of one warning are sent, and how many of all of them: as many as kube-apiserver sends.
const WARNING_CHARACTERS: usize = 256;
const ALL_WARNINGS_CHARACTERS: usize = 4 * 1024;

/// How often a patch that names no version is applied anew when somebody else wrote in between.
pub(crate) const ATTEMPTS: usize = 5;

/// The object in a body, and the fields that stand in it twice.
pub(crate) struct Document {
    /// The object.
    pub(crate) object: Value,
    /// The paths of fields that stand twice. YAML with such fields is not read at all.
    pub(crate) duplicates: Vec<String>,
}

/// The object in a body, as JSON or YAML.
pub(crate) fn read(body: &Body) -> Result<Document, Failure> {
    let (object, duplicates) = match body.media_type.as_str() {
        "" | "application/json" => return read_json(body),
        "application/yaml" => {
            let text = std::str::from_utf8(&body.bytes)
                .map_err(|error| Failure::bad_request(format!("the body is not UTF-8: {error}")))?;
            let options = serde_saphyr::options! { with_snippet: false };
            let object = serde_saphyr::from_str_with_options(text, options)
                .map_err(|error| Failure::bad_request(format!("the body is not YAML: {error}")))?;
            (object, Vec::new())
        }
        other => {
            return Err(Failure::unsupported_media_type(format!(
                "a body of type {other:?} is not read here: send it as application/json, or application/yaml"
            )));
        }
    };
    Ok(Document { object, duplicates })
}

/// The JSON in a body, such as a patch.
pub(crate) fn read_json(body: &Body) -> Result<Document, Failure> {
    let object = serde_json::from_slice(&body.bytes)
        .map_err(|error| Failure::bad_request(format!("the body is not JSON: {error}")))?;
    let duplicates = duplicate_fields(&body.bytes);
    Ok(Document { object, duplicates })
}

/// The form of a patch with this `Content-Type`.
pub(crate) fn patch_form(media_type: &str) -> Result<PatchForm, Failure> {
    match media_type {
        "application/strategic-merge-patch+json" => Ok(PatchForm::Strategic),
        "application/merge-patch+json" => Ok(PatchForm::Merge),
        JSON_PATCH => Ok(PatchForm::Json),
        "application/apply-patch+yaml" | "application/apply-patch+cbor" => {
            Err(Failure::unsupported_media_type(
                "server-side apply is not supported, as nobody is kept as the owner of a field: apply without --server-side",
            ))
        }
        other => Err(Failure::unsupported_media_type(format!(
            "a patch of type {other:?} is not read here: send application/strategic-merge-patch+json, \
             application/merge-patch+json or application/json-patch+json"
        ))),
    }
}

/// The pod in a document, and the fields that a pod does not have. A document that does not say what it is counts as
/// what belongs here; one that says something else is refused by the field that says so.
pub(crate) fn decode_pod(mut document: Value) -> Result<(Pod, Vec<String>), DecodeError> {
    quantities_as_text(&mut document);
    for (field, expected) in [("apiVersion", "v1"), ("kind", "Pod")] {
        match document.get(field) {
            None => {}
            Some(said) if said == expected => {}
            // As an API server reads it, who says nothing means what the path says.
            Some(said) if said.is_null() || said == "" => {
                document.as_object_mut().map(|fields| fields.shift_remove(field));
            }
            Some(said) => {
                return Err(DecodeError {
                    field: field.to_owned(),
                    problem: format!("expected {expected:?}, found {said}"),
                });
            }
        }
    }
    decode::<Pod>(document)
}

/// Refuses a document that says it is something else than `kind` of the first of these versions, by the fields that say so.
/// One that does not say counts as that, and so does one whose `apiVersion` or `kind` is empty.
pub(crate) fn require_kind(document: &Value, versions: &[&str], kind: &str) -> Result<(), Failure> {
    let is = |field: &str, expected: &[&str]| match &document[field] {
        Value::Null => true,
        value => value
            .as_str()
            .is_some_and(|said| said.is_empty() || expected.contains(&said)),
    };
    if is("apiVersion", versions) && is("kind", &[kind]) {
        return Ok(());
    }
    let said: Vec<String> = ["apiVersion", "kind"]
        .into_iter()
        .filter(|field| !document[*field].is_null())
        .map(|field| format!("{field} {}", document[field]))
        .collect();
    let version = versions.first().copied().unwrap_or_default();
    Err(Failure::bad_request(format!(
        "the body says {}: send a {kind} of {version}",
        said.join(" and ")
    )))
}

/// Refuses an object that is not the one in the path.
pub(crate) fn require_place(metadata: &ObjectMeta, namespace: &str, name: &str) -> Result<(), Failure> {
    let said = metadata.name.as_deref().unwrap_or_default();
    if said != name {
        return Err(Failure::bad_request(format!(
            "the body is of pod {said:?}, the path of {name:?}"
        )));
    }
    require_namespace(metadata, namespace)
}

/// Refuses an object of another namespace than the one in the path.
pub(crate) fn require_namespace(metadata: &ObjectMeta, namespace: &str) -> Result<(), Failure> {
    match metadata.namespace.as_deref().unwrap_or_default() {
        "" => Ok(()),
        said if said == namespace => Ok(()),
        said => Err(Failure::bad_request(format!(
            "the body is of namespace {said:?}, the path of {namespace:?}"
        ))),
    }
}

/// What an optional text of the metadata says, where it says anything.
pub(crate) fn said(text: &Option<String>) -> Option<String> {
    text.clone().filter(|text| !text.is_empty())
}

/// The object as it was written, with warnings about what was not taken.
pub(crate) fn answer(code: StatusCode, object: &impl Serialize, warnings: &[String]) -> Response {
    let mut response = (code, Json(object)).into_response();
    for warning in bounded(warnings) {
        // 299 is a lasting warning; the dash stands for an agent without a name (RFC 7234, 5.5).
        let text = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
    response
}

/// The warning that `what` (the stop, the deletion) is in force and not written down yet.
pub(crate) fn unwritten_warning(what: &str, unwritten: Option<&DiskError>) -> Option<String> {
    unwritten.map(|error| {
        format!(
            "{what} is in force and not yet on the disk; an agent restarted before it is would not know of it ({error})"
        )
    })
}

/// The warnings that are sent, cut where they are long; those beyond the bound are left out.
fn bounded(warnings: &[String]) -> impl Iterator<Item = String> {
    let cut = |warning: &String| -> String { warning.chars().take(WARNING_CHARACTERS).collect() };
    let mut all = 0;
    warnings
        .iter()
        .take(WARNINGS)
        .map(cut)
        .take_while(move |warning| {
            all += warning.chars().count();
            all <= ALL_WARNINGS_CHARACTERS
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_warnings_are_cut_and_of_many_the_first_are_sent() {
        let long = vec!["\u{e4}".repeat(1000); 50_000];
        let sent: Vec<String> = bounded(&long).collect();
        assert_eq!(sent, vec!["\u{e4}".repeat(WARNING_CHARACTERS); 16]);
        let few = ["a".to_owned(), "b".to_owned()];
        assert!(bounded(&few).eq(few.iter().cloned()));
    }

    #[test]
    fn an_object_of_another_kind_is_refused_with_what_it_says() {
        let said = |document: Value| {
            let failure = require_kind(&document, &["v1"], "Pod").expect_err("refused");
            failure.status().message.clone().unwrap_or_default()
        };
        assert_eq!(
            said(serde_json::json!({"kind": "EphemeralContainers"})),
            r#"the body says kind "EphemeralContainers": send a Pod of v1"#
        );
        assert_eq!(
            said(serde_json::json!({"apiVersion": "apps/v1", "kind": "Deployment"})),
            r#"the body says apiVersion "apps/v1" and kind "Deployment": send a Pod of v1"#
        );
        assert_eq!(
            said(serde_json::json!({"apiVersion": 1})),
            "the body says apiVersion 1: send a Pod of v1"
        );
    }
}
