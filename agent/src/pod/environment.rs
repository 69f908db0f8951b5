//! The environment of a container: its variables with their values, references to other variables, and what
//! they say of the pod (the downward API).

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod, ResourceFieldSelector};

use super::node::Node;
use super::objects::{ObjectError, ObjectKind, Objects};
use super::quantity::{Amount, QuantityError};
use super::resources::amount;

/// Why a variable has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnvironmentError {
    /// The value is in an object of the API server that is not there for it.
    #[error(transparent)]
    Object(#[from] ObjectError),
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

/// Name and value of each variable of a container: those of whole objects (`envFrom`) first, then those of `env` in the
/// order of its spec; of several with one name the last one counts.
///
/// `pod_ips` are the pod's addresses, the primary one first; `objects` are those of its namespace.
pub(crate) fn environment(
    pod: &Pod,
    container: &Container,
    pod_ips: &[String],
    node: &Node,
    objects: &Objects,
) -> Result<Vec<(String, String)>, EnvironmentError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut variables: Vec<(String, String)> = Vec::new();
    for source in container.env_from.iter().flatten() {
        let config_map = source.config_map_ref.as_ref();
        let config_map = config_map.map(|one| (ObjectKind::ConfigMap, &one.name, one.optional));
        let secret = source.secret_ref.as_ref();
        let secret = secret.map(|one| (ObjectKind::Secret, &one.name, one.optional));
        let prefix = source.prefix.as_deref().unwrap_or_default();
        for (kind, name, optional) in config_map.into_iter().chain(secret) {
            let data = objects.object(namespace, kind, name, optional)?;
            for (key, value) in data.into_iter().flatten() {
                set(&mut variables, format!("{prefix}{key}"), value.clone());
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let name = &variable.name;
        let value = match (
            variable.value.as_deref().unwrap_or_default(),
            &variable.value_from,
        ) {
            ("", Some(source)) => {
                let key_of =
                    |kind, name, key, optional| objects.value(namespace, kind, (name, key), optional);
                let found = if let Some(one) = &source.config_map_key_ref {
                    key_of(ObjectKind::ConfigMap, &one.name, &one.key, one.optional)?.map(str::to_owned)
                } else if let Some(one) = &source.secret_key_ref {
                    key_of(ObjectKind::Secret, &one.name, &one.key, one.optional)?.map(str::to_owned)
                } else {
                    Some(downward(pod, container, pod_ips, node, name, source)?)
                };
                let Some(value) = found else { continue };
                value
            }
            (value, _) => expand(value, &variables),
        };
        set(&mut variables, name.clone(), value);
    }
    Ok(variables)
}

fn set(variables: &mut Vec<(String, String)>, name: String, value: String) {
    match variables.iter_mut().find(|(known, _)| *known == name) {
        Some((_, known)) => *known = value,
        None => variables.push((name, value)),
    }
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
mod tests;
