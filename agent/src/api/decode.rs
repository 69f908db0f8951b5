//! From JSON to an object, with the name of the field where it does not fit.

use serde::de::DeserializeOwned;
use serde_ignored::Path;
use serde_json::Value;

/// A field holds what it cannot hold.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{field}: {problem}")]
pub(crate) struct DecodeError {
    /// The path from the object's root: `spec.ephemeralContainers[0].command`.
    pub(crate) field: String,
    /// What is wrong with it.
    pub(crate) problem: String,
}

/// The object, and the paths of the fields that its kind does not have.
pub(crate) fn decode<T: DeserializeOwned>(value: Value) -> Result<(T, Vec<String>), DecodeError> {
    let mut unknown = Vec::new();
    let mut note = |path: Path<'_>| unknown.push(field_path(&path));
    let decoded = serde_path_to_error::deserialize(serde_ignored::Deserializer::new(value, &mut note));
    match decoded {
        Ok(object) => Ok((object, unknown)),
        Err(error) => Err(DecodeError {
            field: error.path().to_string(),
            problem: error.into_inner().to_string(),
        }),
    }
}

/// The path as Kubernetes writes it: `spec.containers[0].name`.
fn field_path(path: &Path<'_>) -> String {
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", field_path(parent)),
        Path::Map { parent, key } => match field_path(parent) {
            parent if parent.is_empty() => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            field_path(parent)
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_of_the_wrong_type_is_named_by_its_path() {
        let pod =
            json!({"spec": {"ephemeralContainers": [{"name": "x"}, {"name": "y", "command": "sleep"}]}});
        let error = decode::<Pod>(pod).expect_err("refused");
        assert_eq!(error.field, "spec.ephemeralContainers[1].command");
    }

    #[test]
    fn fields_that_a_pod_does_not_have_are_listed() {
        let pod =
            json!({"spec": {"ephemeralContainers": [{"name": "x", "imag": "y"}]}, "extra": {"deep": 1}});
        let (_, unknown) = decode::<Pod>(pod).expect("decoded");
        assert_eq!(unknown, ["spec.ephemeralContainers[0].imag", "extra"]);
    }
}
