//! The environment of a container: its variables with their values, references to other variables, and what
//! they say of the pod (the downward API).

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod, ResourceFieldSelector};

use super::node::Node;
use super::quantity::{Amount, QuantityError};
use super::resources::amount;

/// Why a variable has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnvironmentError {
    /// The value is in an object that only a kube-apiserver holds.
    #[error("{kind} {namespace}/{name} cannot be read: this node has no connection to a kube-apiserver")]
    NoObject {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// The pod's namespace.
        namespace: String,
        /// The object's name.
        name: String,
    },
    /// The value comes from where debuglet does not read.
    #[error("the environment variable {variable} takes its value from a source that is not supported")]
    Source {
        /// The variable's name.
        variable: String,
    },
    /// `fieldRef` names a field that containers cannot have.
    #[error(
        "the environment variable {variable} asks for the field {path:?}, which is not available to containers"
    )]
    Field {
        /// The variable's name.
        variable: String,
        /// The path as written.
        path: String,
    },
    /// `resourceFieldRef` names a resource that containers cannot have.
    #[error(
        "the environment variable {variable} asks for {resource:?}, which is not a resource of a container"
    )]
    Resource {
        /// The variable's name.
        variable: String,
        /// The resource as written.
        resource: String,
    },
    /// `resourceFieldRef` names a container that the pod does not have.
    #[error(
        "the environment variable {variable} asks for resources of the container {container:?}, which the pod does not have"
    )]
    Container {
        /// The variable's name.
        variable: String,
        /// The container's name as written.
        container: String,
    },
    /// A quantity that was asked for cannot be read.
    #[error(transparent)]
    Quantity(#[from] QuantityError),
}

/// Name and value of each variable of a container, in the order of its spec; of several with one name the last
/// one counts.
///
/// `pod_ips` are the pod's addresses, the primary one first.
pub(crate) fn environment(
    pod: &Pod,
    container: &Container,
    pod_ips: &[String],
    node: &Node,
) -> Result<Vec<(String, String)>, EnvironmentError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let no_object = |kind, name: &str| EnvironmentError::NoObject {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    for source in container.env_from.iter().flatten() {
        if let Some(reference) = &source.config_map_ref
            && reference.optional != Some(true)
        {
            return Err(no_object("configmap", &reference.name));
        }
        if let Some(reference) = &source.secret_ref
            && reference.optional != Some(true)
        {
            return Err(no_object("secret", &reference.name));
        }
    }

    let mut variables: Vec<(String, String)> = Vec::new();
    for variable in container.env.iter().flatten() {
        let name = &variable.name;
        let value = match (
            variable.value.as_deref().unwrap_or_default(),
            &variable.value_from,
        ) {
            ("", Some(source)) => {
                if let Some(key) = &source.config_map_key_ref {
                    match key.optional {
                        Some(true) => continue,
                        _ => return Err(no_object("configmap", &key.name)),
                    }
                }
                if let Some(key) = &source.secret_key_ref {
                    match key.optional {
                        Some(true) => continue,
                        _ => return Err(no_object("secret", &key.name)),
                    }
                }
                downward(pod, container, pod_ips, node, name, source)?
            }
            (value, _) => expand(value, &variables),
        };
        match variables.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => variables.push((name.clone(), value)),
        }
    }
    Ok(variables)
}

/// What a variable says of the pod or of a container's resources.
fn downward(
    pod: &Pod,
    container: &Container,
    pod_ips: &[String],
    node: &Node,
    variable: &str,
    source: &EnvVarSource,
) -> Result<String, EnvironmentError> {
    if let Some(reference) = &source.field_ref {
        field(pod, pod_ips, node, &reference.field_path).ok_or_else(|| EnvironmentError::Field {
            variable: variable.to_owned(),
            path: reference.field_path.clone(),
        })
    } else if let Some(selector) = &source.resource_field_ref {
        resource(pod, container, node, variable, selector)
    } else {
        Err(EnvironmentError::Source {
            variable: variable.to_owned(),
        })
    }
}

/// The value of a field that the downward API offers to variables (`ObjectFieldSelector.fieldPath`).
fn field(pod: &Pod, pod_ips: &[String], node: &Node, path: &str) -> Option<String> {
    let metadata = &pod.metadata;
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let map = match map {
            "metadata.labels" => metadata.labels.as_ref(),
            "metadata.annotations" => metadata.annotations.as_ref(),
            _ => return None,
        };
        return Some(map.and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    let spec = pod.spec.as_ref();
    let value = match path {
        "metadata.name" => metadata.name.clone(),
        "metadata.namespace" => metadata.namespace.clone(),
        "metadata.uid" => metadata.uid.clone(),
        "spec.nodeName" => Some(node.name.clone()),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()),
        "status.hostIP" => node.ips.first().cloned(),
        "status.hostIPs" => Some(node.ips.join(",")),
        "status.podIP" => pod_ips.first().cloned(),
        "status.podIPs" => Some(pod_ips.join(",")),
        _ => return None,
    };
    Some(value.unwrap_or_default())
}

/// A request or limit of a container (`ResourceFieldSelector`), rounded up to the selector's divisor. Where
/// there is no limit, what the node has is the limit.
fn resource(
    pod: &Pod,
    container: &Container,
    node: &Node,
    variable: &str,
    selector: &ResourceFieldSelector,
) -> Result<String, EnvironmentError> {
    let named = selector.container_name.as_deref().unwrap_or_default();
    let container = if named.is_empty() {
        container
    } else {
        pod.spec
            .iter()
            .flat_map(|spec| {
                spec.containers
                    .iter()
                    .chain(spec.init_containers.iter().flatten())
            })
            .find(|container| container.name == named)
            .ok_or_else(|| EnvironmentError::Container {
                variable: variable.to_owned(),
                container: named.to_owned(),
            })?
    };
    let (list, name) = selector
        .resource
        .split_once('.')
        .filter(|(list, name)| {
            matches!(*list, "limits" | "requests")
                && (matches!(*name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-"))
        })
        .ok_or_else(|| EnvironmentError::Resource {
            variable: variable.to_owned(),
            resource: selector.resource.clone(),
        })?;
    let resources = container.resources.as_ref();
    let value = if list == "requests" {
        amount(resources.and_then(|resources| resources.requests.as_ref()), name)?
    } else {
        let limit = amount(resources.and_then(|resources| resources.limits.as_ref()), name)?;
        if limit == Amount::ZERO {
            node_amount(node, name)
        } else {
            limit
        }
    };
    let divisor = selector
        .divisor
        .as_ref()
        .map_or(Ok(Amount::ONE), Amount::try_from)?;
    Ok(value.divided_by(divisor).to_string())
}

/// What the node has of a resource; huge pages are never lent out beyond a limit.
fn node_amount(node: &Node, resource: &str) -> Amount {
    match resource {
        "cpu" => Amount::from_milli(node.cpu_milli),
        "memory" => Amount::from_units(node.memory_bytes),
        "ephemeral-storage" => Amount::from_units(node.ephemeral_storage_bytes),
        _ => Amount::ZERO,
    }
}

/// Puts values in the place of `$(NAME)`. `$$` stands for one `$`, so `$$(NAME)` stays `$(NAME)`; a name that is
/// not among `variables`, and a `$` before anything else, are left as they are.
pub(crate) fn expand(text: &str, variables: &[(String, String)]) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = after.strip_prefix('(').and_then(|after| after.split_once(')')) {
            match variables.iter().find(|(known, _)| known == name) {
                Some((_, value)) => expanded.push_str(value),
                None => expanded.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value)] // `json!` literals read better without a `&`
mod tests {
    use super::*;
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
        let mut container = container;
        container["name"] = json!("dbg");
        let container: Container = serde_json::from_value(container).expect("a container");
        environment(
            &pod(),
            &container,
            &["10.0.0.2".into(), "fd00::2".into()],
            &node(),
        )
    }

    /// The value of a single variable with this source.
    fn from(source: Value) -> Result<String, EnvironmentError> {
        of(json!({"env": [{"name": "V", "valueFrom": source}]})).map(|variables| variables[0].1.clone())
    }

    #[test]
    fn references_are_expanded_as_kubernetes_does() {
        let variables =
            [("A", "1"), ("B", "$(A)"), ("E", "")].map(|(name, value)| (name.into(), value.into()));
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
}
