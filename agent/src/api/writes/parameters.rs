//! The query parameters of a write.

use axum::extract::FromRequestParts;
use axum::http::Method;
use axum::http::request::Parts;

use crate::api::status::Failure;
use crate::pod::field_error::{Cause, FieldError};
use crate::store::DryRun;

/// The query parameters of a write; `fieldManager` and others that change nothing here are ignored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteParameters {
    /// Whether the write is only tried.
    pub(crate) dry_run: DryRun,
    /// What to do about fields that the object's kind does not have.
    field_validation: FieldValidation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FieldValidation {
    /// Take no notice.
    Ignore,
    /// Say so in a header.
    Warn,
    /// Refuse.
    Strict,
}

/// Fields that the object's kind does not have, for a write that is refused because of them.
#[derive(Debug)]
pub(crate) struct Unknown(String);

impl Unknown {
    /// What is wrong, as an API server says it.
    pub(crate) fn message(&self) -> String {
        format!("strict decoding error: {}", self.0)
    }
}

impl WriteParameters {
    /// The warnings about fields that the object's kind does not have, or that stand twice, or that the write is to be
    /// refused.
    pub(crate) fn judge(self, unknown: &[String], duplicates: &[String]) -> Result<Vec<String>, Unknown> {
        let unknown = unknown.iter().map(|field| format!("unknown field {field:?}"));
        let duplicates = duplicates
            .iter()
            .map(|field| format!("duplicate field {field:?}"));
        let unknown: Vec<String> = unknown.chain(duplicates).collect();
        match self.field_validation {
            FieldValidation::Ignore => Ok(Vec::new()),
            FieldValidation::Warn => Ok(unknown),
            FieldValidation::Strict if unknown.is_empty() => Ok(unknown),
            FieldValidation::Strict => Err(Unknown(unknown.join(", "))),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for WriteParameters {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<WriteParameters, Failure> {
        let mut parameters = WriteParameters {
            dry_run: DryRun::No,
            field_validation: FieldValidation::Warn,
        };
        let mut errors = Vec::new();
        for (name, value) in form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()) {
            match (&*name, &*value) {
                ("dryRun" | "fieldValidation", "") => {}
                ("dryRun", value) => match dry_run([value]) {
                    Ok(dry_run) => parameters.dry_run = dry_run,
                    Err(error) => errors.push(error),
                },
                ("fieldValidation", "Ignore") => parameters.field_validation = FieldValidation::Ignore,
                ("fieldValidation", "Warn") => parameters.field_validation = FieldValidation::Warn,
                ("fieldValidation", "Strict") => parameters.field_validation = FieldValidation::Strict,
                ("fieldValidation", other) => {
                    let message = format!("{other:?} is not known; it can be Ignore, Warn, Strict");
                    errors.push(FieldError::new("fieldValidation", Cause::NotSupported, message));
                }
                _ => {}
            }
        }
        if errors.is_empty() {
            return Ok(parameters);
        }
        let kind = match parts.method {
            Method::POST => "CreateOptions",
            Method::PATCH => "PatchOptions",
            _ => "UpdateOptions",
        };
        Err(Failure::invalid(kind, "", &errors))
    }
}

/// What `dryRun` says: its only value is `All`.
pub(super) fn dry_run<'a>(values: impl IntoIterator<Item = &'a str>) -> Result<DryRun, FieldError> {
    let mut dry_run = DryRun::No;
    for value in values {
        if value != "All" {
            // Never done for real when it was to be tried only.
            let message = format!("{value:?} is not known; it can be All");
            return Err(FieldError::new("dryRun", Cause::NotSupported, message));
        }
        dry_run = DryRun::All;
    }
    Ok(dry_run)
}
