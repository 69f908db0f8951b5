//! The environment of a container: `env` and `envFrom`.
//!
//! A ConfigMap or Secret that is named here need not exist: that shows when the container is made.

use k8s_openapi::api::core::v1::{
    Container, EnvVar, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector,
};

use super::findings::Findings;
use super::names;

/// What a `fieldRef` of an environment variable can name.
const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// The older name of `spec.nodeName`.
const LEGACY_NODE_NAME: &str = "spec.host";
/// Fields that other parts of Kubernetes know, but no environment variable.
const FIELDS_ELSEWHERE: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "spec.restartPolicy",
    "spec.schedulerName",
    "status.phase",
];
/// What a `resourceFieldRef` can name, besides huge pages.
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
];
const HUGE_PAGES: [&str; 2] = ["requests.hugepages-", "limits.hugepages-"];
/// The units that a `divisor` can be, for processor time and for bytes.
const CPU_DIVISORS: [&str; 2] = ["1m", "1"];
const BYTE_DIVISORS: [&str; 13] = [
    "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
];

pub(super) fn check(container: &Container, path: &str, findings: &mut Findings) {
    for (index, variable) in container.env.iter().flatten().enumerate() {
        self::variable(variable, &format!("{path}.env[{index}]"), findings);
    }
    for (index, source) in container.env_from.iter().flatten().enumerate() {
        let path = format!("{path}.envFrom[{index}]");
        if let Some(prefix) = source.prefix.as_deref().filter(|prefix| !prefix.is_empty()) {
            findings.well_formed(format!("{path}.prefix"), prefix, names::environment_name);
        }
        match (&source.config_map_ref, &source.secret_ref) {
            (Some(config_map), None) => {
                object_name(&config_map.name, &format!("{path}.configMapRef.name"), findings);
            }
            (None, Some(secret)) => object_name(&secret.name, &format!("{path}.secretRef.name"), findings),
            _ => findings.invalid(path, "must have one of configMapRef and secretRef"),
        }
    }
}

fn variable(variable: &EnvVar, path: &str, findings: &mut Findings) {
    if variable.name.is_empty() {
        findings.required(format!("{path}.name"));
    } else {
        findings.well_formed(format!("{path}.name"), &variable.name, names::environment_name);
    }
    let Some(source) = &variable.value_from else {
        return;
    };
    let path = format!("{path}.valueFrom");
    let sources = self::source(source, &path, findings);
    if sources == 0 {
        findings.invalid(
            path,
            "must have one of fieldRef, resourceFieldRef, configMapKeyRef, secretKeyRef and fileKeyRef",
        );
    } else if variable.value.as_deref().is_some_and(|value| !value.is_empty()) {
        findings.invalid(path, "cannot stand beside a value");
    } else if sources > 1 {
        findings.invalid(path, "can have one source only");
    }
}

/// Checks each source and counts them.
fn source(source: &EnvVarSource, path: &str, findings: &mut Findings) -> usize {
    let mut sources = 0;
    if let Some(field) = &source.field_ref {
        sources += 1;
        self::field(field, &format!("{path}.fieldRef"), findings);
    }
    if let Some(resource) = &source.resource_field_ref {
        sources += 1;
        self::resource(resource, &format!("{path}.resourceFieldRef"), findings);
    }
    if let Some(selector) = &source.config_map_key_ref {
        sources += 1;
        key_of_object(
            &selector.name,
            &selector.key,
            &format!("{path}.configMapKeyRef"),
            findings,
        );
    }
    if let Some(selector) = &source.secret_key_ref {
        sources += 1;
        key_of_object(
            &selector.name,
            &selector.key,
            &format!("{path}.secretKeyRef"),
            findings,
        );
    }
    if let Some(selector) = &source.file_key_ref {
        sources += 1;
        let path = format!("{path}.fileKeyRef");
        for (field, value, rule) in [
            (
                "key",
                &selector.key,
                names::environment_name as fn(&str) -> names::Rule,
            ),
            ("volumeName", &selector.volume_name, names::dns_label),
            ("path", &selector.path, names::path_without_steps_back),
        ] {
            if value.is_empty() {
                findings.required(format!("{path}.{field}"));
            } else {
                findings.well_formed(format!("{path}.{field}"), value, rule);
            }
        }
    }
    sources
}

fn field(selector: &ObjectFieldSelector, path: &str, findings: &mut Findings) {
    let version = selector.api_version.as_deref().unwrap_or_default();
    let field_path = format!("{path}.fieldPath");
    if version.is_empty() {
        return findings.required(format!("{path}.apiVersion"));
    }
    if selector.field_path.is_empty() {
        return findings.required(field_path);
    }
    if version != "v1" {
        return findings.invalid(
            field_path,
            format!("{version:?} is not a version of Pod; it can be v1"),
        );
    }
    match subscript(&selector.field_path) {
        Some(("metadata.annotations", key)) => {
            findings.well_formed(path, &key.to_lowercase(), names::qualified_name);
        }
        Some(("metadata.labels", key)) => findings.well_formed(path, key, names::qualified_name),
        Some((field, _)) => findings.invalid(field_path, format!("{field:?} has no entries")),
        None if selector.field_path == LEGACY_NODE_NAME => {}
        None if FIELDS.contains(&selector.field_path.as_str())
            || FIELDS_ELSEWHERE.contains(&selector.field_path.as_str()) =>
        {
            findings.known(&field_path, &selector.field_path, &FIELDS);
        }
        None => findings.invalid(
            field_path,
            format!("a pod has no field {:?}", selector.field_path),
        ),
    }
}

/// The two parts of `metadata.labels['key']`.
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?
        .split_once("['")
        .filter(|(field, _)| !field.is_empty())
}

fn resource(selector: &ResourceFieldSelector, path: &str, findings: &mut Findings) {
    let resource = selector.resource.as_str();
    let is_huge_pages = HUGE_PAGES.iter().any(|prefix| resource.starts_with(prefix));
    if resource.is_empty() {
        findings.required(format!("{path}.resource"));
    } else if !is_huge_pages {
        findings.known(&format!("{path}.resource"), resource, &RESOURCES);
    }
    let divisors: &[&str] = if resource.ends_with(".cpu") {
        &CPU_DIVISORS
    } else {
        &BYTE_DIVISORS
    };
    if let Some(divisor) = selector.divisor.as_ref().map(|divisor| divisor.0.as_str())
        && !matches!(divisor, "" | "0")
        && !divisors.contains(&divisor)
    {
        let message = format!("{divisor:?} is not one of {}", divisors.join(", "));
        findings.invalid(format!("{path}.divisor"), message);
    }
}

fn key_of_object(name: &str, key: &str, path: &str, findings: &mut Findings) {
    findings.well_formed(format!("{path}.name"), name, names::dns_subdomain);
    if key.is_empty() {
        findings.required(format!("{path}.key"));
    } else {
        findings.well_formed(format!("{path}.key"), key, names::config_key);
    }
}

fn object_name(name: &str, path: &str, findings: &mut Findings) {
    if name.is_empty() {
        findings.required(path);
    } else {
        findings.well_formed(path, name, names::dns_subdomain);
    }
}
