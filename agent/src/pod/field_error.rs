//! What is wrong with one field of an object: the causes of a `Status` with reason `Invalid`.

use std::fmt;

/// Why a field was refused. The names on the wire are those of Kubernetes' `metav1.CauseType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A value is needed and none was given.
    Required,
    /// The value breaks a rule of its field.
    Invalid,
    /// The value must be unique and is not.
    Duplicate,
    /// The value names something that does not exist.
    NotFound,
    /// The value is not one of the known ones.
    NotSupported,
    /// The field may not be set, or may not be changed.
    Forbidden,
    /// The value is longer than its field allows.
    TooLong,
}

impl Cause {
    /// The `reason` of a `StatusCause`.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Cause::Required => "FieldValueRequired",
            Cause::Invalid => "FieldValueInvalid",
            Cause::Duplicate => "FieldValueDuplicate",
            Cause::NotFound => "FieldValueNotFound",
            Cause::NotSupported => "FieldValueNotSupported",
            Cause::Forbidden => "FieldValueForbidden",
            Cause::TooLong => "FieldValueTooLong",
        }
    }
}

/// One refused field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldError {
    /// The path from the object's root, as Kubernetes writes it: `spec.ephemeralContainers[0].ports`.
    pub(crate) field: String,
    /// The kind of fault.
    pub(crate) cause: Cause,
    /// A sentence without the field's name, in the user's terms.
    pub(crate) message: String,
}

impl FieldError {
    /// Puts the three parts together.
    pub(crate) fn new(field: impl Into<String>, cause: Cause, message: impl Into<String>) -> FieldError {
        FieldError {
            field: field.into(),
            cause,
            message: message.into(),
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.field, self.message)
    }
}
