// `json!` literals read better without a `&`.
#![allow(clippy::needless_pass_by_value)]

use super::*;
use crate::pod::objects::{NoObjects, ObjectReference};
use serde_json::{Value, json};

fn pod() -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "u-1",
            "labels": {"app.kubernetes.io/name": "web"}, "annotations": {"note": "a 'b' [c]"},
        },
        "spec": {
            "serviceAccountName": "cart",
            "initContainers": [{"name": "first"}],
            "containers": [{"name": "main", "resources": {
                "requests": {"cpu": "250m", "memory": "64Mi"},
                "limits": {"cpu": "1500m", "hugepages-2Mi": "4Mi"},
            }}],
        },
    }))
    .expect("a pod")
}

fn node() -> Node {
    Node {
        name: "node1".into(),
        ips: vec!["192.0.2.7".into(), "2001:db8::7".into()],
        cpu_milli: 4000,
        memory_bytes: 8 << 30,
        ephemeral_storage_bytes: 100 << 30,
        ..Node::default()
    }
}

fn of(container: Value) -> Result<Vec<(String, String)>, EnvironmentError> {
    of_with(container, &Objects::none(NoObjects::NoApiServer))
}

fn of_with(container: Value, objects: &Objects) -> Result<Vec<(String, String)>, EnvironmentError> {
    let mut container = container;
    container["name"] = json!("dbg");
    let container: Container = serde_json::from_value(container).expect("a container");
    environment(
        &pod(),
        &container,
        &["10.0.0.2".into(), "fd00::2".into()],
        &node(),
        objects,
    )
}

/// The value of a single variable with this source.
fn from(source: Value) -> Result<String, EnvironmentError> {
    of(json!({"env": [{"name": "V", "valueFrom": source}]})).map(|variables| variables[0].1.clone())
}

#[test]
fn references_are_expanded_as_kubernetes_does() {
    let variables = [("A", "1"), ("B", "$(A)"), ("E", "")].map(|(name, value)| (name.into(), value.into()));
    for (text, expanded) in [
        ("", ""),
        ("plain", "plain"),
        ("$(A)", "1"),
        ("x$(A)y$(A)", "x1y1"),
        ("$(B)", "$(A)"),
        ("$(E)", ""),
        ("$(NOPE)", "$(NOPE)"),
        ("$()", "$()"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$$$$(A)", "$$(A)"),
        ("$$", "$"),
        ("$", "$"),
        ("A$", "A$"),
        ("$A", "$A"),
        ("$(A", "$(A"),
        ("$(A$(A)", "$(A$(A)"),
        ("$((A))", "$((A))"),
        ("${A}$(A)", "${A}1"),
        ("$(A)$", "1$"),
        ("$é$(A)", "$é1"),
    ] {
        assert_eq!(expand(text, &variables), expanded, "{text}");
    }
}

#[test]
fn a_variable_sees_those_before_it() {
    let variables = of(json!({"env": [
        {"name": "EARLY", "value": "$(LATE)"},
        {"name": "LATE", "value": "x"},
        {"name": "AFTER", "value": "$(LATE)$(LATE)"},
        {"name": "EMPTY"},
    ]}));
    let expected = [
        ("EARLY", "$(LATE)"),
        ("LATE", "x"),
        ("AFTER", "xx"),
        ("EMPTY", ""),
    ];
    assert_eq!(
        variables,
        Ok(expected.map(|(name, value)| (name.into(), value.into())).into())
    );
}

#[test]
fn of_two_variables_with_one_name_the_last_counts_and_may_use_the_first() {
    let variables = of(json!({"env": [
        {"name": "PATH", "value": "/bin"},
        {"name": "PATH", "value": "/sbin:$(PATH)"},
    ]}));
    assert_eq!(variables, Ok(vec![("PATH".into(), "/sbin:/bin".into())]));
}

#[test]
fn fields_of_the_pod_are_available() {
    for (path, value) in [
        ("metadata.name", "web"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['app.kubernetes.io/name']", "web"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['note']", "a 'b' [c]"),
        ("spec.nodeName", "node1"),
        ("spec.serviceAccountName", "cart"),
        ("status.hostIP", "192.0.2.7"),
        ("status.hostIPs", "192.0.2.7,2001:db8::7"),
        ("status.podIP", "10.0.0.2"),
        ("status.podIPs", "10.0.0.2,fd00::2"),
    ] {
        assert_eq!(
            from(json!({"fieldRef": {"fieldPath": path}})),
            Ok(value.into()),
            "{path}"
        );
    }
}

#[test]
fn other_fields_are_refused_by_name() {
    for path in [
        "status.phase",
        "spec.containers",
        "metadata.labels",
        "spec['x']",
        "",
    ] {
        let error = EnvironmentError::Field {
            variable: "V".into(),
            path: path.into(),
        };
        assert_eq!(
            from(json!({"fieldRef": {"fieldPath": path}})),
            Err(error),
            "{path}"
        );
    }
}

#[test]
fn resources_are_rounded_up_to_the_divisor_and_default_to_the_nodes() {
    for (container, resource, divisor, value) in [
        ("main", "requests.cpu", "0", "1"),
        ("main", "requests.cpu", "1m", "250"),
        ("main", "limits.cpu", "1", "2"),
        ("main", "limits.cpu", "1m", "1500"),
        ("main", "requests.memory", "1Mi", "64"),
        ("main", "limits.memory", "1Gi", "8"),
        ("main", "limits.hugepages-2Mi", "1Mi", "4"),
        ("main", "requests.ephemeral-storage", "1", "0"),
        ("first", "limits.cpu", "1", "4"),
        ("", "limits.memory", "1", "8589934592"),
        ("", "limits.ephemeral-storage", "1Gi", "100"),
        ("", "requests.memory", "1", "0"),
    ] {
        let source = json!({"resourceFieldRef": {"containerName": container, "resource": resource, "divisor": divisor}});
        assert_eq!(from(source), Ok(value.into()), "{container} {resource} {divisor}");
    }
    let error = EnvironmentError::Container {
        variable: "V".into(),
        container: "gone".into(),
    };
    assert_eq!(
        from(json!({"resourceFieldRef": {"containerName": "gone", "resource": "limits.cpu"}})),
        Err(error)
    );
    let error = EnvironmentError::Resource {
        variable: "V".into(),
        resource: "limits.gpu".into(),
    };
    assert_eq!(
        from(json!({"resourceFieldRef": {"resource": "limits.gpu"}})),
        Err(error)
    );
}

#[test]
fn an_object_of_the_api_server_is_named_in_the_error() {
    for (container, message) in [
        (
            json!({"envFrom": [{"configMapRef": {"name": "none"}}]}),
            "configmap shop/none",
        ),
        (
            json!({"envFrom": [{"secretRef": {"name": "keys"}}]}),
            "secret shop/keys",
        ),
        (
            json!({"env": [{"name": "V", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k"}}}]}),
            "configmap shop/none",
        ),
        (
            json!({"env": [{"name": "V", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "k"}}}]}),
            "secret shop/keys",
        ),
    ] {
        let error = of(container.clone()).expect_err("an error").to_string();
        assert!(error.starts_with(message), "{container}: {error}");
    }
}

#[test]
fn variables_of_objects_come_first_later_ones_win_and_all_can_be_referred_to() {
    let data = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().map(|(key, value)| ((*key).into(), (*value).into()));
        Some(pairs.collect())
    };
    let reference = |kind, name: &str| ObjectReference {
        kind,
        name: name.into(),
    };
    let objects = Objects::read(
        [
            (
                reference(ObjectKind::ConfigMap, "settings"),
                data(&[("COLOR", "blue"), ("log.level", "$(COLOR)")]),
            ),
            (
                reference(ObjectKind::Secret, "keys"),
                data(&[("COLOR", "red"), ("door", "s")]),
            ),
        ]
        .into(),
    );
    let variables = of_with(
        json!({
            "envFrom": [
                {"configMapRef": {"name": "settings"}},
                {"prefix": "K_", "secretRef": {"name": "keys"}},
                {"secretRef": {"name": "keys"}},
                {"secretRef": {"name": "none", "optional": true}},
            ],
            "env": [
                {"name": "door", "value": "mine"},
                {"name": "OPEN", "value": "$(K_door)$(COLOR)"},
                {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "door"}}},
                {"name": "LEVEL", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "log.level"}}},
                {"name": "NOT", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "no", "optional": true}}},
            ],
        }),
        &objects,
    );
    let expected = [
        ("COLOR", "red"),
        // What an object says is not expanded.
        ("log.level", "$(COLOR)"),
        ("K_COLOR", "red"),
        ("K_door", "s"),
        ("door", "mine"),
        ("OPEN", "sred"),
        ("KEY", "s"),
        ("LEVEL", "$(COLOR)"),
    ];
    assert_eq!(
        variables,
        Ok(expected.map(|(name, value)| (name.into(), value.into())).into())
    );
}

#[test]
fn optional_objects_of_the_api_server_are_left_out() {
    let variables = of(json!({
        "envFrom": [{"configMapRef": {"name": "none", "optional": true}}, {"secretRef": {"name": "keys", "optional": true}}],
        "env": [
            {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k", "optional": true}}},
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "k", "optional": true}}},
            {"name": "V", "value": "$(C)"},
        ],
    }));
    assert_eq!(variables, Ok(vec![("V".into(), "$(C)".into())]));
}
