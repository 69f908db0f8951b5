//! What a client may change of a pod that is there: its labels and annotations, and nothing else.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value};

use super::field_error::{Cause, FieldError};
use super::{defaults, source, validation};

/// What can be changed of a pod. Nothing is one thing with an empty map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changeable {
    /// `metadata.labels`.
    pub(crate) labels: Option<BTreeMap<String, String>>,
    /// `metadata.annotations`, without those that say where the pod came from.
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

impl Changeable {
    /// What can be changed of `pod`, as it is.
    pub(crate) fn of(pod: &Pod) -> Changeable {
        let mut metadata = pod.metadata.clone();
        source::strip(&mut metadata);
        Changeable {
            labels: metadata.labels.filter(|labels| !labels.is_empty()),
            annotations: metadata.annotations,
        }
    }

    /// Writes it into a pod.
    pub(crate) fn write_to(self, pod: &mut Pod) {
        pod.metadata.labels = self.labels;
        pod.metadata.annotations = self.annotations;
    }
}

/// What a client that sends `new` in place of the pod that it was served as `old` wants to have of it; or every
/// field that it may not change. Of metadata that only a server writes, and of the status, nothing is taken.
pub(crate) fn judge(old: &Pod, mut new: Pod) -> Result<Changeable, Vec<FieldError>> {
    defaults::pod(&mut new);
    let spec = new.spec.get_or_insert_default();
    if spec.node_name.as_deref().unwrap_or_default().is_empty() {
        // Whoever wrote the pod need not know where it is.
        spec.node_name = old.spec.as_ref().and_then(|spec| spec.node_name.clone());
    }
    let mut errors = changed_metadata(old, &new);
    errors.extend(changed_spec(old, &new));
    if errors.is_empty() {
        errors = validation::pod(&new);
    }
    if errors.is_empty() {
        Ok(Changeable::of(&new))
    } else {
        Err(errors)
    }
}

fn changed_metadata(old: &Pod, new: &Pod) -> Vec<FieldError> {
    let (old, new) = (&old.metadata, &new.metadata);
    let mut errors = Vec::new();
    let mut immutable = |field: &str, changed: bool| {
        if changed {
            errors.push(FieldError::new(field, Cause::Invalid, "cannot be changed"));
        }
    };
    let differs = |old: &Option<String>, new: &Option<String>| {
        let new = new.as_deref().unwrap_or_default();
        !new.is_empty() && old.as_deref() != Some(new)
    };
    immutable("metadata.name", old.name != new.name);
    immutable("metadata.namespace", old.namespace != new.namespace);
    immutable("metadata.uid", differs(&old.uid, &new.uid));
    let moved =
        new.creation_timestamp.is_some() && !same_second(&old.creation_timestamp, &new.creation_timestamp);
    immutable("metadata.creationTimestamp", moved);
    let moved =
        new.deletion_timestamp.is_some() && !same_second(&old.deletion_timestamp, &new.deletion_timestamp);
    immutable("metadata.deletionTimestamp", moved);

    let mut forbidden = |field: String, changed: bool, message: &str| {
        if changed {
            errors.push(FieldError::new(field, Cause::Forbidden, message));
        }
    };
    let only = "cannot be changed: of a pod's metadata, labels and annotations can";
    let finalizers = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    forbidden(
        "metadata.finalizers".to_owned(),
        finalizers(&old.finalizers) != finalizers(&new.finalizers),
        only,
    );
    forbidden(
        "metadata.ownerReferences".to_owned(),
        old.owner_references.clone().unwrap_or_default() != new.owner_references.clone().unwrap_or_default(),
        only,
    );
    for (key, value) in new.annotations.iter().flatten() {
        let before = old
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(key));
        let changed = source::is_own_annotation(key) && before != Some(value);
        let message = "is debuglet's own, and not the client's to change";
        forbidden(format!("metadata.annotations[{key}]"), changed, message);
    }
    errors
}

/// The API writes times in whole seconds, so that is all that comes back.
fn same_second<T: serde::Serialize>(old: &Option<T>, new: &Option<T>) -> bool {
    let written = |time: &Option<T>| serde_json::to_value(time).ok();
    written(old) == written(new)
}

fn changed_spec(old: &Pod, new: &Pod) -> Option<FieldError> {
    let (old, new) = (
        old.spec.clone().unwrap_or_default(),
        new.spec.clone().unwrap_or_default(),
    );
    if old.ephemeral_containers.clone().unwrap_or_default()
        != new.ephemeral_containers.clone().unwrap_or_default()
    {
        // An API server names no closer field here.
        let message = "ephemeral containers cannot be changed on the pod; add them on its ephemeralcontainers subresource";
        return Some(FieldError::new("spec", Cause::Forbidden, message));
    }
    let as_value = |spec| serde_json::to_value(spec).unwrap_or_default();
    let field = first_difference(&as_value(old), &as_value(new), "spec")?;
    let message =
        "cannot be changed: of a pod that is there, labels and annotations can; delete it and create another";
    Some(FieldError::new(field, Cause::Forbidden, message))
}

/// The path of the first field in which two objects differ; `path` is that of the objects. Nothing, an empty list
/// and an empty object are the same: where the difference counts, defaults have made one of them.
fn first_difference(old: &Value, new: &Value, path: &str) -> Option<String> {
    match (old, new) {
        _ if old == new || is_empty(old) && is_empty(new) => None,
        (Value::Object(old), Value::Object(new)) => {
            let added = new.keys().filter(|key| !old.contains_key(*key));
            let fields = old.keys().chain(added).map(|key| {
                let of = |object: &Map<String, Value>| object.get(key).cloned().unwrap_or_default();
                (format!("{path}.{key}"), of(old), of(new))
            });
            // What is plain comes first: a pod that is put on the host's network gets other ports, not the other way
            // round.
            let is_plain = |value: &Value| !value.is_array() && !value.is_object();
            let (plain, nested): (Vec<_>, Vec<_>) =
                fields.partition(|(_, old, new)| is_plain(old) && is_plain(new));
            let mut fields = plain.iter().chain(&nested);
            fields.find_map(|(path, old, new)| first_difference(old, new, path))
        }
        (Value::Array(old), Value::Array(new)) => old
            .iter()
            .zip(new)
            .enumerate()
            .find_map(|(index, (old, new))| first_difference(old, new, &format!("{path}[{index}]")))
            .or_else(|| (old.len() != new.len()).then(|| path.to_owned())),
        _ => Some(path.to_owned()),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn old() -> Value {
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {
                "name": "web", "namespace": "default", "uid": "u1", "resourceVersion": "7",
                "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": "web"},
                "annotations": {"debuglet.io/source": "api"},
            },
            "spec": {
                "nodeName": "node1",
                "containers": [{"name": "main", "image": "busybox", "env": [{"name": "A", "value": "1"}],
                    "ports": [{"containerPort": 80}]}],
                "volumes": [{"name": "scratch", "emptyDir": {}}],
                "ephemeralContainers": [{"name": "dbg", "image": "busybox"}],
            },
            "status": {"phase": "Running"},
        }))
        .unwrap();
        defaults::pod(&mut pod);
        serde_json::to_value(pod).unwrap()
    }

    fn judged(new: Value) -> Result<Changeable, Vec<(String, Cause)>> {
        let old = serde_json::from_value(old()).unwrap();
        judge(&old, serde_json::from_value(new).unwrap()).map_err(|errors| {
            errors
                .into_iter()
                .map(|error| (error.field, error.cause))
                .collect()
        })
    }

    #[test]
    fn labels_and_annotations_can_be_changed() {
        let mut new = old();
        new["metadata"]["labels"] = json!({"app": "other"});
        new["metadata"]["annotations"]["mine"] = json!("1");
        let expected = Changeable {
            labels: Some(BTreeMap::from([("app".to_owned(), "other".to_owned())])),
            annotations: Some(BTreeMap::from([("mine".to_owned(), "1".to_owned())])),
        };
        assert_eq!(judged(new), Ok(expected));
    }

    #[test]
    fn what_a_client_leaves_out_or_a_server_writes_is_no_change() {
        let mut bare = json!({
            "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}},
            "spec": {
                "containers": [{"name": "main", "image": "busybox", "args": [], "env": [{"name": "A", "value": "1"}],
                    "ports": [{"containerPort": 80}]}],
                "volumes": [{"name": "scratch", "emptyDir": {}}],
                "ephemeralContainers": [{"name": "dbg", "image": "busybox"}],
                "tolerations": [],
            },
        });
        let same = Changeable::of(&serde_json::from_value(old()).unwrap());
        assert_eq!(judged(bare.clone()), Ok(same.clone()));
        bare["status"] = json!({"phase": "Failed"});
        bare["metadata"]["generation"] = json!(9);
        assert_eq!(judged(bare), Ok(same.clone()));
        assert_eq!(judged(old()), Ok(same));
    }

    #[test]
    fn annotations_of_debuglets_own_are_refused_by_their_keys_also_those_that_are_yet_to_come() {
        for name in [
            "source",
            "manifest",
            "spec",
            "spec-from",
            "copied-mounts",
            "asked-by",
            "of-tomorrow",
        ] {
            let mut new = old();
            new["metadata"]["annotations"][format!("debuglet.io/{name}")] = json!("of-a-client");
            let field = format!("metadata.annotations[debuglet.io/{name}]");
            assert_eq!(judged(new), Err(vec![(field, Cause::Forbidden)]), "{name}");
        }
    }

    #[test]
    fn everything_else_is_refused_by_its_field() {
        for (pointer, value, field, cause) in [
            (
                "/spec/containers/0/image",
                json!("other"),
                "spec.containers[0].image",
                Cause::Forbidden,
            ),
            (
                "/spec/containers/0/env/0/value",
                json!("2"),
                "spec.containers[0].env[0].value",
                Cause::Forbidden,
            ),
            (
                "/spec/containers/0/stdin",
                json!(true),
                "spec.containers[0].stdin",
                Cause::Forbidden,
            ),
            ("/spec/volumes", json!([]), "spec.volumes", Cause::Forbidden),
            (
                "/spec/nodeName",
                json!("node2"),
                "spec.nodeName",
                Cause::Forbidden,
            ),
            (
                "/spec/hostNetwork",
                json!(true),
                "spec.hostNetwork",
                Cause::Forbidden,
            ),
            ("/spec/ephemeralContainers", json!([]), "spec", Cause::Forbidden),
            (
                "/spec/ephemeralContainers",
                json!([{"name": "dbg", "image": "busybox"}, {"name": "two", "image": "busybox"}]),
                "spec",
                Cause::Forbidden,
            ),
            ("/metadata/name", json!("other"), "metadata.name", Cause::Invalid),
            ("/metadata/uid", json!("u2"), "metadata.uid", Cause::Invalid),
            (
                "/metadata/finalizers",
                json!(["a/b"]),
                "metadata.finalizers",
                Cause::Forbidden,
            ),
            (
                "/metadata/creationTimestamp",
                json!("2026-01-02T00:00:00Z"),
                "metadata.creationTimestamp",
                Cause::Invalid,
            ),
            (
                "/metadata/annotations",
                json!({"debuglet.io/source": "manifest"}),
                "metadata.annotations[debuglet.io/source]",
                Cause::Forbidden,
            ),
            (
                "/metadata/annotations",
                json!({"debuglet.io/source": "api", "debuglet.io/spec-from": "API server"}),
                "metadata.annotations[debuglet.io/spec-from]",
                Cause::Forbidden,
            ),
            (
                "/metadata/labels",
                json!({"app": "not a label!"}),
                "metadata.labels",
                Cause::Invalid,
            ),
        ] {
            let mut new = old();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            match parent.strip_suffix("/0") {
                Some(list) => new.pointer_mut(list).unwrap()[0][key] = value,
                None => new.pointer_mut(parent).unwrap()[key] = value,
            }
            assert_eq!(judged(new), Err(vec![(field.to_owned(), cause)]), "{pointer}");
        }
    }
}
