//! Whether two specs ask for the same ephemeral container. API servers, clients and records differ in how they write
//! down that a field is not set, so specs are not compared field by field.

use k8s_openapi::api::core::v1::EphemeralContainer;
use serde_json::Value;

use super::defaults;

/// Whether two specs ask for the same container, once their defaults are filled in. What is empty is as good as left
/// out: API servers differ in which of the two they keep.
pub(crate) fn same(one: &EphemeralContainer, other: &EphemeralContainer) -> bool {
    let whole = |container: &EphemeralContainer| {
        let mut container = container.clone();
        defaults::ephemeral_container(&mut container);
        serde_json::to_value(container).map(bare).ok()
    };
    one == other || whole(one) == whole(other)
}

/// Without nulls and empty objects and lists. Elements of lists stay: an empty argument is an argument.
fn bare(value: Value) -> Value {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    match value {
        Value::Array(list) => Value::Array(list.into_iter().map(bare).collect()),
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name, bare(value)));
            Value::Object(fields.filter(|(_, value)| !empty(value)).collect())
        }
        other => other,
    }
}

/// The one table of the rule. Everything that compares two specs of a container has a test that runs through it.
#[cfg(test)]
pub(crate) mod table {
    use serde_json::{Value, json};

    use super::*;

    /// Specs beside `{"name": "debugger", "image": "busybox:1", "command": ["sh"]}`: what is added to that, and
    /// whether it asks for the same container.
    pub(crate) fn rows() -> Vec<(Value, bool)> {
        vec![
            (json!({}), true),
            (json!({"resources": {}}), true),
            (json!({"securityContext": {}}), true),
            (json!({"securityContext": {"capabilities": {}}}), true),
            (json!({"env": [], "args": [], "volumeMounts": []}), true),
            (json!({"imagePullPolicy": "IfNotPresent"}), true),
            (
                json!({"stdin": false, "tty": false, "workingDir": "", "targetContainerName": ""}),
                true,
            ),
            (json!({"stdin": true}), false),
            (json!({"command": ["id"]}), false),
            (json!({"command": []}), false),
            (json!({"args": [""]}), false),
            (json!({"image": "busybox:2"}), false),
            (json!({"targetContainerName": "main"}), false),
            (json!({"securityContext": {"privileged": true}}), false),
            (
                json!({"securityContext": {"allowPrivilegeEscalation": false}}),
                false,
            ),
            (json!({"securityContext": {"runAsUser": 0}}), false),
            (json!({"env": [{"name": "A"}]}), false),
        ]
    }

    /// The container that all rows are compared with.
    pub(crate) fn base() -> EphemeralContainer {
        container(&json!({}))
    }

    /// The container of a row, as a client or an API server sends it: without defaults.
    pub(crate) fn container(more: &Value) -> EphemeralContainer {
        let mut spec = json!({"name": "debugger", "image": "busybox:1", "command": ["sh"]});
        for (name, value) in more.as_object().expect("fields") {
            spec[name] = value.clone();
        }
        serde_json::from_value(spec).expect("a container")
    }

    #[test]
    fn two_specs_are_the_same_container_however_they_write_down_what_is_not_set() {
        for (more, expected) in rows() {
            let (one, other) = (base(), container(&more));
            assert_eq!(same(&one, &other), expected, "{more}");
            assert_eq!(same(&other, &one), expected, "the other way round: {more}");
        }
        let one = json!({"env": [{"name": "A", "value": ""}]});
        let other = json!({"env": [{"name": "A"}]});
        assert!(same(&container(&one), &container(&other)), "an empty value");
    }
}
