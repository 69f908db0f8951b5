//! `--custom FILE`: a partial container that is merged onto the debug container, strategically: objects by their
//! fields, lists that have a key by it, other lists as a whole.

use k8s_openapi::api::core::v1::{Container, EphemeralContainer};
use serde_json::{Map, Value};

/// Fields that a custom profile may not set: the debug container's own flags do, or it cannot have them.
const FORBIDDEN: [&str; 5] = ["name", "command", "image", "lifecycle", "volumeDevices"];

/// The lists of a container that are merged by a key, and that key (`patchMergeKey` in Kubernetes' types).
const KEYED_LISTS: [(&str, &str); 5] = [
    ("env", "name"),
    ("volumeMounts", "mountPath"),
    ("volumeDevices", "devicePath"),
    ("ports", "containerPort"),
    ("claims", "name"),
];

/// Why a custom profile was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum CustomError {
    /// Neither JSON nor YAML.
    #[error("it is neither JSON nor YAML: {0}")]
    Syntax(String),
    /// Something else than the fields of a container.
    #[error("it is not a partial container: {0}")]
    NotAContainer(String),
    /// A field that it may not set.
    #[error("it may not set {0}: the flags of the command do that")]
    Forbidden(&'static str),
    /// A field that a debug container may not have.
    #[error("it may not set {0}: debug containers have none")]
    Impossible(&'static str),
}

/// A partial container.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CustomProfile(Map<String, Value>);

impl CustomProfile {
    /// Reads JSON or YAML, and refuses what no container has and what kubectl lets no profile set.
    pub(crate) fn parse(text: &str) -> Result<CustomProfile, CustomError> {
        let value: Value = match serde_json::from_str(text) {
            Ok(value) => value,
            Err(_) => {
                serde_saphyr::from_str(text).map_err(|error| CustomError::Syntax(first_line(&error)))?
            }
        };
        let Value::Object(mut fields) = value else {
            return Err(CustomError::NotAContainer("it holds no fields".into()));
        };
        // A null says nothing, here as in Kubernetes' own reading of the file.
        without_nulls(&mut fields);
        // The one field that the type itself insists on; a profile need not have it.
        let mut whole = fields.clone();
        whole.entry("name").or_insert_with(|| "".into());
        let container: Container = serde_json::from_value(Value::Object(whole))
            .map_err(|error| CustomError::NotAContainer(error.to_string()))?;
        let known = serde_json::to_value(&container)
            .map_err(|error| CustomError::NotAContainer(error.to_string()))?;
        if let Some(field) = unknown_field(&Value::Object(fields.clone()), &known, "") {
            return Err(CustomError::NotAContainer(format!(
                "containers have no field {field}"
            )));
        }
        for field in FORBIDDEN {
            let set = match fields.get(field) {
                None => false,
                Some(Value::String(text)) => !text.is_empty(),
                Some(Value::Array(items)) => !items.is_empty(),
                Some(_) => true,
            };
            match field {
                _ if !set => {}
                "lifecycle" | "volumeDevices" => return Err(CustomError::Impossible(field)),
                _ => return Err(CustomError::Forbidden(field)),
            }
        }
        fields.retain(|field, _| !FORBIDDEN.contains(&field.as_str()));
        Ok(CustomProfile(fields))
    }

    /// The container with this profile on top.
    pub(super) fn merge_onto(
        &self,
        container: &EphemeralContainer,
    ) -> Result<EphemeralContainer, CustomError> {
        let not_a_container = |error: serde_json::Error| CustomError::NotAContainer(error.to_string());
        let mut merged = serde_json::to_value(container).map_err(not_a_container)?;
        merge(&mut merged, &Value::Object(self.0.clone()));
        serde_json::from_value(merged).map_err(not_a_container)
    }
}

/// Merges `patch` onto `onto`.
fn merge(onto: &mut Value, patch: &Value) {
    match (onto, patch) {
        (Value::Object(onto), Value::Object(patch)) => {
            for (field, value) in patch {
                match (
                    KEYED_LISTS.iter().find(|(list, _)| list == field),
                    onto.get_mut(field),
                ) {
                    (Some((_, key)), Some(Value::Array(items))) => merge_by_key(items, value, key),
                    (_, Some(existing)) => merge(existing, value),
                    (_, None) => {
                        onto.insert(field.clone(), value.clone());
                    }
                }
            }
        }
        (onto, patch) => *onto = patch.clone(),
    }
}

/// Merges each item of `patch` onto the one of its key, and puts the others at the end.
fn merge_by_key(items: &mut Vec<Value>, patch: &Value, key: &str) {
    for item in patch.as_array().into_iter().flatten() {
        match items.iter_mut().find(|existing| existing[key] == item[key]) {
            Some(existing) => merge(existing, item),
            None => items.push(item.clone()),
        }
    }
}

/// Leaves out the fields that are null, at any depth.
fn without_nulls(fields: &mut Map<String, Value>) {
    fields.retain(|_, value| !value.is_null());
    for value in fields.values_mut() {
        match value {
            Value::Object(inner) => without_nulls(inner),
            Value::Array(items) => items.iter_mut().for_each(|item| {
                if let Value::Object(inner) = item {
                    without_nulls(inner);
                }
            }),
            _ => {}
        }
    }
}

/// The path of the first field that is in `given` and was not understood.
fn unknown_field(given: &Value, known: &Value, path: &str) -> Option<String> {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => given.iter().find_map(|(field, value)| {
            let path = match path {
                "" => field.clone(),
                _ => format!("{path}.{field}"),
            };
            match known.get(field) {
                Some(known) => unknown_field(value, known, &path),
                None => Some(path),
            }
        }),
        (Value::Array(given), Value::Array(known)) => given
            .iter()
            .zip(known)
            .enumerate()
            .find_map(|(index, (given, known))| unknown_field(given, known, &format!("{path}[{index}]"))),
        _ => None,
    }
}

/// A parser's first line: what follows it is a drawing of the place.
fn first_line(error: &impl ToString) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
