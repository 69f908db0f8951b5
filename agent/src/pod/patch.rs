//! Patches of a pod, or of its list of ephemeral containers, in the three forms of the Kubernetes API. They work
//! on JSON, as the API defines them; what comes out is decoded and judged like an object that was sent whole.

use json_patch::{Patch, PatchOperation};
use serde_json::{Map, Value};

/// How many bytes the `copy` operations of one JSON patch may add: without a bound, thirty of them that copy
/// the pod into itself fill any memory.
const COPIED_BYTES: usize = 3 * 1024 * 1024;

/// How many operations one JSON patch may have: as many as kube-apiserver allows.
const OPERATIONS: usize = 10_000;

/// The key that tells a strategic merge patch what to do with an object of a list.
const DIRECTIVE: &str = "$patch";
/// The key that names the fields of an object which stay; all others go.
const RETAIN: &str = "$retainKeys";
/// What a key begins with that gives the order of the list it goes on with.
const ORDER: &str = "$setElementOrder/";

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
    /// It grows beyond all bounds.
    #[error("the patch adds more than {limit} bytes or operations")]
    TooLarge {
        /// The bound.
        limit: usize,
    },
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
            let mut object = object.clone();
            merge_object(&mut object, patch)?;
            Ok(object)
        }
        PatchForm::Merge if patch.is_object() => {
            let mut object = object.clone();
            json_patch::merge(&mut object, patch);
            Ok(object)
        }
        PatchForm::Merge => Err(malformed("it is not an object")),
        PatchForm::Json => apply_operations(object, patch),
    }
}

fn apply_operations(pod: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Patch(operations) = serde::Deserialize::deserialize(patch)
        .map_err(|error: serde_json::Error| malformed(error.to_string()))?;
    if operations.len() > OPERATIONS {
        return Err(PatchError::TooLarge { limit: OPERATIONS });
    }
    let mut pod = pod.clone();
    let mut copied = 0;
    for (index, operation) in operations.iter().enumerate() {
        if let PatchOperation::Copy(copy) = operation {
            copied += copy.from.resolve(&pod).map_or(0, |value| value.to_string().len());
            if copied > COPIED_BYTES {
                return Err(PatchError::TooLarge { limit: COPIED_BYTES });
            }
        }
        json_patch::patch(&mut pod, std::slice::from_ref(operation)).map_err(|error| {
            PatchError::DoesNotApply {
                problem: format!("operation {index} at {:?}: {}", error.path.as_str(), error.kind),
            }
        })?;
    }
    Ok(pod)
}

/// What names the entries of a pod's list, where Kubernetes merges it (`patchMergeKey` of its Go types). All other
/// lists are replaced.
fn merge_key(list: &str) -> Option<&'static str> {
    match list {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "env"
        | "imagePullSecrets"
        | "resourceClaims"
        | "schedulingGates" => Some("name"),
        "ports" => Some("containerPort"),
        "volumeMounts" => Some("mountPath"),
        "volumeDevices" => Some("devicePath"),
        "hostAliases" => Some("ip"),
        "topologySpreadConstraints" => Some("topologyKey"),
        "ownerReferences" => Some("uid"),
        _ => None,
    }
}

/// Merges `patch` into the field `name` of `object`.
fn merge_field(object: &mut Value, name: &str, patch: &Value) -> Result<(), PatchError> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Some(fields) = object.as_object_mut() else {
        return Ok(());
    };
    if patch.is_null() {
        fields.shift_remove(name);
        return Ok(());
    }
    let field = fields.entry(name).or_insert(Value::Null);
    match (patch, merge_key(name)) {
        (Value::Object(patch), _) => merge_object(field, patch),
        (Value::Array(patch), Some(key)) => merge_list(field, name, key, patch),
        _ => {
            *field = patch.clone();
            Ok(())
        }
    }
}

fn merge_object(object: &mut Value, patch: &Map<String, Value>) -> Result<(), PatchError> {
    match patch.get(DIRECTIVE).and_then(Value::as_str) {
        None | Some("merge") => {}
        Some("replace") => *object = Value::Null,
        Some("delete") => {
            *object = Value::Object(Map::new());
            return Ok(());
        }
        Some(other) => return Err(malformed(format!("there is no {DIRECTIVE}: {other:?}"))),
    }
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    for (name, value) in patch {
        if name == DIRECTIVE || name == RETAIN || name.starts_with(ORDER) {
            continue;
        }
        if name.starts_with('$') {
            return Err(malformed(format!("{name:?} has no meaning here")));
        }
        merge_field(object, name, value)?;
    }
    if let (Some(retained), Some(fields)) = (patch.get(RETAIN), object.as_object_mut()) {
        let Some(retained) = retained.as_array() else {
            return Err(malformed(format!("{RETAIN} is not a list")));
        };
        fields.retain(|name, _| retained.iter().any(|retained| retained == name));
    }
    for (name, order) in patch {
        if let Some(list) = name.strip_prefix(ORDER) {
            set_order(object, list, order)?;
        }
    }
    Ok(())
}

/// Puts the entries of a list that `order` names into its order; the others keep their places.
fn set_order(object: &mut Value, list: &str, order: &Value) -> Result<(), PatchError> {
    let Some(order) = order.as_array() else {
        return Err(malformed(format!("{ORDER}{list} is not a list")));
    };
    let (Some(key), Some(entries)) = (
        merge_key(list),
        object.get_mut(list).and_then(Value::as_array_mut),
    ) else {
        return Ok(());
    };
    let rank = |entry: &Value| {
        let named = entry.get(key);
        named.and_then(|_| order.iter().position(|one| one.get(key) == named))
    };
    let (places, ranks): (Vec<usize>, Vec<usize>) = entries
        .iter()
        .enumerate()
        .filter_map(|(place, entry)| Some((place, rank(entry)?)))
        .unzip();
    let mut ordered: Vec<(usize, Value)> = ranks
        .into_iter()
        .zip(places.iter().map(|place| entries[*place].take()))
        .collect();
    ordered.sort_by_key(|(rank, _)| *rank);
    for (place, (_, entry)) in places.into_iter().zip(ordered) {
        entries[place] = entry;
    }
    Ok(())
}

fn merge_list(list: &mut Value, name: &str, key: &str, patch: &[Value]) -> Result<(), PatchError> {
    let mut merged = match list.take() {
        Value::Array(entries) => entries,
        _ => Vec::new(),
    };
    if patch
        .iter()
        .any(|entry| entry[DIRECTIVE] == "replace" && entry.get(key).is_none())
    {
        merged.clear();
    }
    for entry in patch {
        let fields = as_object(&format!("an entry of {name}"), entry)?;
        let Some(named) = fields.get(key) else {
            if fields
                .get(DIRECTIVE)
                .is_some_and(|directive| directive == "replace")
            {
                continue;
            }
            return Err(malformed(format!("an entry of {name} has no {key}")));
        };
        let position = merged.iter().position(|entry| entry.get(key) == Some(named));
        if fields
            .get(DIRECTIVE)
            .is_some_and(|directive| directive == "delete")
        {
            if let Some(position) = position {
                merged.remove(position);
            }
            continue;
        }
        let mut entry = position.map_or(Value::Null, |position| merged[position].take());
        merge_object(&mut entry, fields)?;
        match position {
            Some(position) => merged[position] = entry,
            None => merged.push(entry),
        }
    }
    *list = Value::Array(merged);
    Ok(())
}

fn as_object<'a>(what: &str, value: &'a Value) -> Result<&'a Map<String, Value>, PatchError> {
    value
        .as_object()
        .ok_or_else(|| malformed(format!("{what} is not an object")))
}

#[cfg(test)]
mod tests;
