//! Patches of a pod, or of its list of ephemeral containers, in the three forms of the Kubernetes API. They work
//! on JSON, as the API defines them; what comes out is decoded and judged like an object that was sent whole.

mod effort;
mod operations;
mod strategic;

use serde_json::{Map, Value};

use effort::Effort;

/// The form of a patch: its `Content-Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatchForm {
    /// `application/strategic-merge-patch+json`: objects are merged, lists of named things by their names.
    Strategic,
    /// `application/merge-patch+json`, RFC 7396: objects are merged, lists replaced.
    Merge,
    /// `application/json-patch+json`, RFC 6902: a list of operations.
    Json,
}

/// Why a patch leaves no pod.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum PatchError {
    /// It is not a patch of its form.
    #[error("the patch cannot be read: {problem}")]
    Malformed {
        /// What is wrong with it.
        problem: String,
    },
    /// It does not fit this pod.
    #[error("the patch does not apply: {problem}")]
    DoesNotApply {
        /// Which operation does not, and why.
        problem: String,
    },
    /// It has more operations than are taken.
    #[error("the patch has {found} operations: it may have {limit}")]
    TooManyOperations {
        /// How many it has.
        found: usize,
        /// How many it may have.
        limit: usize,
    },
    /// Its `copy` operations grow beyond all bounds.
    #[error("the patch copies more than {limit} bytes")]
    CopiesTooMuch {
        /// The bound.
        limit: usize,
    },
    /// It makes more work than one request may.
    #[error("the patch goes through long lists too often: send it in parts")]
    TooLaborious,
}

fn malformed(problem: impl Into<String>) -> PatchError {
    PatchError::Malformed {
        problem: problem.into(),
    }
}

/// The object with the patch applied.
pub(crate) fn apply(form: PatchForm, object: &Value, patch: &Value) -> Result<Value, PatchError> {
    match form {
        PatchForm::Strategic => {
            let patch = as_object("the patch", patch)?;
            let mut patched = object.clone();
            strategic::merge_object(&mut patched, patch, &mut Effort::default())?;
            // What the object is does not change, whatever the patch says of that in words.
            for field in ["apiVersion", "kind"] {
                let said = patched.get(field).is_none_or(Value::is_string);
                if let (true, Some(is), Some(fields)) = (said, object.get(field), patched.as_object_mut()) {
                    fields.insert(field.to_owned(), is.clone());
                }
            }
            Ok(patched)
        }
        PatchForm::Merge if patch.is_object() => {
            let mut object = object.clone();
            json_patch::merge(&mut object, patch);
            Ok(object)
        }
        PatchForm::Merge => Err(malformed("it is not an object")),
        PatchForm::Json => operations::apply(object, patch),
    }
}

fn as_object<'a>(what: &str, value: &'a Value) -> Result<&'a Map<String, Value>, PatchError> {
    value
        .as_object()
        .ok_or_else(|| malformed(format!("{what} is not an object")))
}

#[cfg(test)]
mod tests;
