//! Patches of a pod's ephemeral containers, in the three forms of the Kubernetes API. They work on JSON, as the
//! API defines them; the pod that comes out is decoded and judged like one that was sent whole.

use json_patch::{Patch, PatchOperation};
use serde_json::{Map, Value};

/// How many bytes the `copy` operations of one JSON patch may add: without a bound, thirty of them that copy
/// the pod into itself fill any memory.
const COPIED_BYTES: usize = 3 * 1024 * 1024;

/// How many operations one JSON patch may have: as many as kube-apiserver allows.
const OPERATIONS: usize = 10_000;

/// The key that tells a strategic merge patch what to do with an object of a list.
const DIRECTIVE: &str = "$patch";

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

/// The pod with the patch applied. Of a strategic merge patch only `metadata` and `spec.ephemeralContainers`
/// are looked at: nothing else of the pod can be changed on this subresource, and it is ignored there.
pub(crate) fn apply(form: PatchForm, pod: &Value, patch: &Value) -> Result<Value, PatchError> {
    match form {
        PatchForm::Strategic => merge_strategically(pod, patch),
        PatchForm::Merge if patch.is_object() => {
            let mut pod = pod.clone();
            json_patch::merge(&mut pod, patch);
            Ok(pod)
        }
        PatchForm::Merge => Err(malformed("it is not an object")),
        PatchForm::Json => apply_operations(pod, patch),
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

fn merge_strategically(pod: &Value, patch: &Value) -> Result<Value, PatchError> {
    let patch = as_object("the patch", patch)?;
    let mut pod = pod.clone();
    if let Some(metadata) = patch.get("metadata") {
        merge_field(&mut pod, "metadata", metadata)?;
    }
    let Some(spec) = patch.get("spec") else {
        return Ok(pod);
    };
    let containers = as_object("spec", spec)?.get("ephemeralContainers");
    if let Some(containers) = containers {
        merge_field(&mut pod["spec"], "ephemeralContainers", containers)?;
    }
    Ok(pod)
}

/// What names the entries of a list of a container, where Kubernetes merges it (`patchMergeKey` of its Go
/// types). All other lists are replaced.
fn merge_key(list: &str) -> Option<&'static str> {
    match list {
        "ephemeralContainers" | "env" => Some("name"),
        "ports" => Some("containerPort"),
        "volumeMounts" => Some("mountPath"),
        "volumeDevices" => Some("devicePath"),
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
        // The order that a client would like to see is not kept: new entries come last.
        if name == DIRECTIVE || name == "$retainKeys" || name.starts_with("$setElementOrder/") {
            continue;
        }
        if name.starts_with('$') {
            return Err(malformed(format!("{name:?} has no meaning here")));
        }
        merge_field(object, name, value)?;
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
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Value {
        json!({
            "metadata": {"name": "web", "resourceVersion": "7"},
            "spec": {
                "containers": [{"name": "main", "image": "busybox"}],
                "ephemeralContainers": [
                    {"name": "one", "image": "busybox", "env": [{"name": "A", "value": "1"}], "command": ["sh"]},
                ],
            },
        })
    }

    /// The ephemeral containers after the patch.
    fn after(form: PatchForm, patch: &Value) -> Result<Value, PatchError> {
        apply(form, &pod(), patch).map(|mut pod| pod["spec"]["ephemeralContainers"].take())
    }

    fn strategic(containers: &Value) -> Result<Value, PatchError> {
        after(
            PatchForm::Strategic,
            &json!({"spec": {"ephemeralContainers": containers}}),
        )
    }

    fn one() -> Value {
        pod()["spec"]["ephemeralContainers"][0].take()
    }

    #[test]
    fn a_strategic_patch_adds_an_entry_and_keeps_the_others() {
        let two = json!({"name": "two", "image": "busybox"});
        assert_eq!(strategic(&json!([two])), Ok(json!([one(), two])));
    }

    #[test]
    fn a_strategic_patch_of_the_same_name_merges_field_by_field() {
        let mut expected = one();
        expected["image"] = json!("other");
        expected["command"] = json!(["sleep", "1"]);
        expected["env"] = json!([{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]);
        let patch = json!([{
            "name": "one", "image": "other", "command": ["sleep", "1"],
            "env": [{"name": "B", "value": "3"}, {"name": "A", "value": "2"}],
            "$setElementOrder/env": [{"name": "A"}, {"name": "B"}],
        }]);
        let mut merged = strategic(&patch).expect("merged");
        merged[0]["env"]
            .as_array_mut()
            .expect("list")
            .sort_by_key(|entry| entry["name"].to_string());
        assert_eq!(merged, json!([expected]));
    }

    #[test]
    fn an_equal_entry_changes_nothing() {
        assert_eq!(strategic(&json!([one()])), Ok(json!([one()])));
    }

    #[test]
    fn the_element_order_that_kubectl_sends_is_no_change() {
        let patch = json!({"spec": {
            "$setElementOrder/ephemeralContainers": [{"name": "one"}, {"name": "two"}],
            "ephemeralContainers": [{"name": "two"}],
        }});
        assert_eq!(
            after(PatchForm::Strategic, &patch),
            Ok(json!([one(), {"name": "two"}]))
        );
    }

    #[test]
    fn directives_of_a_strategic_patch_delete_and_replace() {
        assert_eq!(
            strategic(&json!([{"name": "one", "$patch": "delete"}])),
            Ok(json!([]))
        );
        assert_eq!(
            strategic(&json!([{"name": "none", "$patch": "delete"}])),
            Ok(json!([one()]))
        );
        assert_eq!(
            strategic(&json!([{"name": "one", "image": "new", "$patch": "replace"}])),
            Ok(json!([{"name": "one", "image": "new"}]))
        );
        assert_eq!(
            strategic(&json!([{"$patch": "replace"}, {"name": "two"}])),
            Ok(json!([{"name": "two"}]))
        );
    }

    #[test]
    fn null_removes_a_field() {
        let mut expected = one();
        expected.as_object_mut().expect("object").shift_remove("env");
        assert_eq!(
            strategic(&json!([{"name": "one", "env": null}])),
            Ok(json!([expected]))
        );
        assert_eq!(strategic(&Value::Null), Ok(Value::Null));
    }

    #[test]
    fn a_strategic_patch_takes_metadata_and_nothing_else_of_the_spec() {
        let patch = json!({"metadata": {"resourceVersion": "1"}, "spec": {"containers": [{"name": "x"}]}});
        let patched = apply(PatchForm::Strategic, &pod(), &patch).expect("applied");
        let mut expected = pod();
        expected["metadata"]["resourceVersion"] = json!("1");
        assert_eq!(patched, expected);
    }

    #[test]
    fn a_strategic_patch_that_cannot_be_read_is_malformed() {
        for containers in [
            json!([{"image": "busybox"}]),
            json!(["one"]),
            json!([{"name": "one", "$patch": "explode"}]),
            json!([{"name": "one", "$deleteFromPrimitiveList/command": ["sh"]}]),
        ] {
            let result = strategic(&containers);
            assert!(
                matches!(result, Err(PatchError::Malformed { .. })),
                "{containers}: {result:?}"
            );
        }
        for patch in [json!([]), json!("x"), json!({"spec": 1})] {
            assert!(after(PatchForm::Strategic, &patch).is_err(), "{patch}");
        }
    }

    #[test]
    fn a_merge_patch_replaces_the_whole_list() {
        let two = json!([{"name": "two", "image": "busybox"}]);
        let patch = json!({"spec": {"ephemeralContainers": two}});
        assert_eq!(after(PatchForm::Merge, &patch), Ok(two));
        assert!(after(PatchForm::Merge, &json!([])).is_err());
    }

    #[test]
    fn a_json_patch_sets_the_list_or_appends_to_it() {
        let two = json!({"name": "two"});
        let set = json!([{"op": "add", "path": "/spec/ephemeralContainers", "value": [two]}]);
        assert_eq!(after(PatchForm::Json, &set), Ok(json!([two])));
        let append = json!([{"op": "add", "path": "/spec/ephemeralContainers/-", "value": two}]);
        assert_eq!(after(PatchForm::Json, &append), Ok(json!([one(), two])));
    }

    #[test]
    fn a_json_patch_that_does_not_fit_says_which_operation() {
        let patch = json!([
            {"op": "test", "path": "/metadata/name", "value": "web"},
            {"op": "test", "path": "/metadata/name", "value": "other"},
        ]);
        let error = after(PatchForm::Json, &patch).expect_err("refused").to_string();
        assert!(error.contains("operation 1 at \"/metadata/name\""), "{error}");
        let nonsense = after(PatchForm::Json, &json!([{"op": "explode"}]));
        assert!(
            matches!(nonsense, Err(PatchError::Malformed { .. })),
            "{nonsense:?}"
        );
    }

    #[test]
    fn a_json_patch_that_copies_the_pod_into_itself_is_bounded() {
        let copies = (0..30).map(|index| json!({"op": "copy", "from": "", "path": format!("/x{index}")}));
        let patch = Value::Array(copies.collect());
        assert_eq!(
            after(PatchForm::Json, &patch),
            Err(PatchError::TooLarge { limit: COPIED_BYTES })
        );
    }
}
