//! From a document to an object, with the name of every field that does not fit.

use serde::de::DeserializeOwned;
use serde_ignored::Path;
use serde_json::Value;

/// How many values a document may have. A pod of two hundred containers has a tenth of it; an object that is decoded
/// takes kilobytes for each `{}` in a list of containers, so that a short document could fill any memory.
const MAX_VALUES: usize = 50_000;

/// A field holds what it cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub(crate) struct DecodeError {
    /// The path from the object's root: `spec.ephemeralContainers[0].command`; `.` for the object itself.
    pub(crate) field: String,
    /// What is wrong with it.
    pub(crate) problem: String,
}

/// The object, and the paths of the fields that its kind does not have.
pub(crate) fn decode<T: DeserializeOwned>(value: Value) -> Result<(T, Vec<String>), DecodeError> {
    if values(&value) > MAX_VALUES {
        return Err(DecodeError {
            field: ".".to_owned(),
            problem: format!("has more than {MAX_VALUES} values"),
        });
    }
    let mut unknown = Vec::new();
    let mut note = |path: Path<'_>| unknown.push(written(&path));
    match serde_path_to_error::deserialize(serde_ignored::Deserializer::new(value, &mut note)) {
        Ok(object) => Ok((object, unknown)),
        Err(error) => Err(DecodeError {
            field: error.path().to_string(),
            problem: in_plain_order(&error.into_inner().to_string()),
        }),
    }
}

/// How many values there are in a value, itself counted.
fn values(value: &Value) -> usize {
    1 + match value {
        Value::Array(entries) => entries.iter().map(values).sum(),
        Value::Object(fields) => fields.values().map(values).sum(),
        _ => 0,
    }
}

/// `invalid type: integer 1, expected a string` in the order in which a reader needs it.
fn in_plain_order(problem: &str) -> String {
    match problem
        .strip_prefix("invalid type: ")
        .and_then(|rest| rest.rsplit_once(", expected "))
    {
        Some((found, expected)) => format!("expected {expected}, found {found}"),
        None => problem.to_owned(),
    }
}

/// The path as Kubernetes writes it: `spec.containers[0].name`.
fn written(path: &Path<'_>) -> String {
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", written(parent)),
        Path::Map { parent, key } => match written(parent).as_str() {
            "" => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            written(parent)
        }
    }
}

/// In a pod's document a quantity may be written as a number (`cpu: 1`); it is a text from here on.
pub(crate) fn quantities_as_text(document: &mut Value) {
    let Some(spec) = document.get_mut("spec") else {
        return;
    };
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in entries(spec, list) {
            if let Some(resources) = container.get_mut("resources") {
                resource_lists(resources);
            }
            for variable in entries(container, "env") {
                let divisor = variable.pointer_mut("/valueFrom/resourceFieldRef/divisor");
                divisor.into_iter().for_each(number_as_text);
            }
        }
    }
    for volume in entries(spec, "volumes") {
        volume
            .pointer_mut("/emptyDir/sizeLimit")
            .into_iter()
            .for_each(number_as_text);
    }
    if let Some(resources) = spec.get_mut("resources") {
        resource_lists(resources);
    }
    if let Some(overhead) = spec.get_mut("overhead").and_then(Value::as_object_mut) {
        overhead.values_mut().for_each(number_as_text);
    }
}

fn resource_lists(resources: &mut Value) {
    for list in ["limits", "requests"] {
        if let Some(list) = resources.get_mut(list).and_then(Value::as_object_mut) {
            list.values_mut().for_each(number_as_text);
        }
    }
}

fn entries<'a>(object: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Value> {
    object
        .get_mut(list)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

fn number_as_text(value: &mut Value) {
    if let Value::Number(number) = value {
        *value = Value::String(number.to_string());
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_that_a_pod_does_not_have_are_listed() {
        let document = json!({"kind": "Pod", "metdata": {}, "spec": {"containers": [
            {"name": "a", "imagge": "x", "env": [{"name": "A", "valuFrom": {}}]}]}});
        let (_, unknown) = decode::<Pod>(document).unwrap();
        assert_eq!(
            unknown,
            [
                "metdata",
                "spec.containers[0].imagge",
                "spec.containers[0].env[0].valuFrom"
            ]
        );
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_by_its_path() {
        for (document, expected) in [
            (
                json!({"spec": {"containers": [{"name": "a", "command": "sleep"}]}}),
                r#"spec.containers[0].command: expected a sequence, found string "sleep""#,
            ),
            (
                json!({"spec": {"containers": [{"name": "a", "env": [{"name": "A", "value": 1}]}]}}),
                "spec.containers[0].env[0].value: expected a string, found integer `1`",
            ),
            (json!("pod"), r#".: expected Pod, found string "pod""#),
        ] {
            assert_eq!(decode::<Pod>(document).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_document_of_more_values_than_a_pod_can_have_is_not_decoded() {
        let containers = |count: usize| json!({"spec": {"containers": vec![json!({}); count]}});
        assert!(decode::<Pod>(containers(MAX_VALUES - 3)).is_ok());
        assert_eq!(
            decode::<Pod>(containers(MAX_VALUES - 2)).unwrap_err().to_string(),
            ".: has more than 50000 values"
        );
    }

    #[test]
    fn a_quantity_may_be_a_number() {
        let mut document = json!({"spec": {
            "containers": [{"name": "a", "resources": {"limits": {"cpu": 1, "memory": 1e9}, "requests": {"cpu": 0.5}}}],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": 1024}}]}});
        quantities_as_text(&mut document);
        let resources = json!({"limits": {"cpu": "1", "memory": "1000000000.0"}, "requests": {"cpu": "0.5"}});
        assert_eq!(document["spec"]["containers"][0]["resources"], resources);
        assert_eq!(document["spec"]["volumes"][0]["emptyDir"]["sizeLimit"], "1024");
    }

    #[test]
    fn null_says_nothing() {
        let document = json!({"metadata": {"name": "a", "creationTimestamp": null},
            "spec": {"containers": null, "volumes": null}, "status": {}});
        let (pod, unknown) = decode::<Pod>(document).unwrap();
        assert_eq!(
            (pod.spec.unwrap_or_default().containers.len(), unknown.len()),
            (0, 0)
        );
    }
}
