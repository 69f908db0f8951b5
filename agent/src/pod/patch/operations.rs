//! JSON patches, RFC 6902, within bounds: what they make is never larger or deeper than what can be sent whole.

use json_patch::jsonptr::Pointer;
use json_patch::{Patch, PatchOperation};
use serde_json::Value;

use super::effort::Effort;
use super::{PatchError, malformed};

/// How many bytes the `copy` operations of one patch may add: without a bound, thirty of them that copy the pod into
/// itself fill any memory.
pub(super) const COPIED_BYTES: usize = 3 * 1024 * 1024;

/// How many operations one patch may have: as many as kube-apiserver allows.
pub(super) const OPERATIONS: usize = 10_000;

/// How deep lists and objects may stand in each other: as deep as in a document that is read. Whatever goes through
/// a value goes down on its stack, which a deeper one would overflow.
const DEPTH: usize = 128;

/// How many bytes of an operation's path are shown.
const SHOWN_BYTES: usize = 256;

/// The object with the operations of `patch` applied.
pub(super) fn apply(object: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Patch(operations) = serde::Deserialize::deserialize(patch)
        .map_err(|error: serde_json::Error| malformed(error.to_string()))?;
    if operations.len() > OPERATIONS {
        return Err(PatchError::TooManyOperations {
            found: operations.len(),
            limit: OPERATIONS,
        });
    }
    let mut object = object.clone();
    let mut effort = Effort::default();
    let mut copied = 0;
    for (index, operation) in operations.iter().enumerate() {
        let refused = |problem: &dyn std::fmt::Display| {
            let path = operation.path().as_str();
            let shown = &path[..path.floor_char_boundary(SHOWN_BYTES)];
            PatchError::DoesNotApply {
                problem: format!("operation {index} at {shown:?}: {problem}"),
            }
        };
        if depth_after(&object, operation, &mut effort)? > DEPTH {
            return Err(refused(&format!("nothing may stand deeper than {DEPTH} levels")));
        }
        if let PatchOperation::Copy(copy) = operation {
            copied += object
                .pointer(copy.from.as_str())
                .map_or(0, |value| value.to_string().len());
            if copied > COPIED_BYTES {
                return Err(PatchError::CopiesTooMuch { limit: COPIED_BYTES });
            }
        }
        if let PatchOperation::Move(change) = operation {
            effort.spend(beside(&object, &change.from))?;
        }
        json_patch::patch(&mut object, std::slice::from_ref(operation))
            .map_err(|error| refused(&error.kind))?;
        // Afterwards: only then is it certain which list a moved value came into.
        effort.spend(beside(&object, operation.path()))?;
    }
    Ok(object)
}

/// How deep the object is where the operation puts something.
fn depth_after(object: &Value, operation: &PatchOperation, effort: &mut Effort) -> Result<usize, PatchError> {
    let value = match operation {
        PatchOperation::Add(add) => Some(&add.value),
        PatchOperation::Replace(replace) => Some(&replace.value),
        PatchOperation::Copy(copy) => object.pointer(copy.from.as_str()),
        PatchOperation::Move(change) => object.pointer(change.from.as_str()),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => None,
    };
    match value {
        Some(value) => Ok(operation.path().count() + effort.depth(value)?),
        None => Ok(0),
    }
}

/// How many entries there are in the list that `path` leads into: they make room for one more, or close up where one
/// went.
fn beside(object: &Value, path: &Pointer) -> usize {
    let around = path.parent().and_then(|parent| object.pointer(parent.as_str()));
    around.and_then(Value::as_array).map_or(0, Vec::len)
}
