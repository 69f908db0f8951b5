//! What holds for a pod as a whole, besides its ephemeral containers.
//!
//! Fields that only a scheduler reads (affinity, tolerations, priorities, topology) are not looked at: a pod that is
//! here has its node.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::container::{self, Surroundings};
use super::findings::Findings;
use super::{names, network, security, volumes};
use crate::pod::field_error::{Cause, FieldError};
use crate::pod::image_reference::ImageReference;

/// The most bytes of all annotations together.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// Checks a pod, except for its ephemeral containers.
pub(crate) fn pod(pod: &Pod) -> Vec<FieldError> {
    let mut findings = Findings::default();
    metadata(pod, &mut findings);
    match &pod.spec {
        Some(spec) => pod_spec(spec, &mut findings),
        None => findings.required("spec"),
    }
    findings.into_errors()
}

fn metadata(pod: &Pod, findings: &mut Findings) {
    let metadata = &pod.metadata;
    match metadata.name.as_deref().unwrap_or_default() {
        "" => findings.required("metadata.name"),
        name => findings.well_formed("metadata.name", name, names::dns_subdomain),
    }
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    container::name(namespace, "metadata.namespace", findings);
    for (key, value) in metadata.labels.iter().flatten() {
        findings.well_formed("metadata.labels", key, names::qualified_name);
        findings.well_formed("metadata.labels", value, names::label_value);
    }
    let mut annotations = 0;
    for (key, value) in metadata.annotations.iter().flatten() {
        findings.well_formed("metadata.annotations", &key.to_lowercase(), names::qualified_name);
        annotations += key.len() + value.len();
    }
    if annotations > MAX_ANNOTATIONS {
        let message = format!("all annotations together are longer than {MAX_ANNOTATIONS} bytes");
        findings.add("metadata.annotations", Cause::TooLong, message);
    }
}

fn pod_spec(spec: &PodSpec, findings: &mut Findings) {
    volumes::check(spec.volumes.as_deref().unwrap_or_default(), findings);
    containers(spec, findings);
    network::check(spec, findings);
    if let Some(context) = &spec.security_context {
        security::pod(context, spec, "spec.securityContext", findings);
    }
    let policies = ["Always", "OnFailure", "Never"];
    findings.one_of("spec.restartPolicy", spec.restart_policy.as_deref(), &policies);
    if let Some(seconds) = spec.termination_grace_period_seconds {
        findings.within("spec.terminationGracePeriodSeconds", seconds, 0, i64::MAX);
    }
    if let Some(seconds) = spec.active_deadline_seconds {
        findings.within("spec.activeDeadlineSeconds", seconds, 1, i64::from(i32::MAX));
    }
    for (field, name) in [
        ("spec.nodeName", &spec.node_name),
        ("spec.serviceAccountName", &spec.service_account_name),
        ("spec.priorityClassName", &spec.priority_class_name),
        ("spec.runtimeClassName", &spec.runtime_class_name),
    ] {
        if let Some(name) = name.as_deref().filter(|name| !name.is_empty()) {
            findings.well_formed(field, name, names::dns_subdomain);
        }
    }
    if let Some(system) = &spec.os {
        findings.one_of("spec.os.name", Some(&system.name), &["linux", "windows"]);
    }
}

fn containers(spec: &PodSpec, findings: &mut Findings) {
    let volumes: BTreeMap<_, _> = spec
        .volumes
        .iter()
        .flatten()
        .map(|volume| (volume.name.as_str(), volume))
        .collect();
    let surroundings = Surroundings {
        volumes,
        host_users: spec.host_users.unwrap_or(true),
    };
    let mut names = BTreeSet::new();
    if spec.containers.is_empty() {
        findings.required("spec.containers");
    }
    for (index, container) in spec.containers.iter().enumerate() {
        let path = format!("spec.containers[{index}]");
        container::check(container, &path, &surroundings, findings);
        unique(container, &path, &mut names, findings);
        image(container, &path, findings);
    }
    for (index, container) in spec.init_containers.iter().flatten().enumerate() {
        let path = format!("spec.initContainers[{index}]");
        container::check(container, &path, &surroundings, findings);
        unique(container, &path, &mut names, findings);
        image(container, &path, findings);
    }
}

/// An API server takes any name, and the kubelet waits with it for ever (`InvalidImageName`). Nobody waits for what a
/// file says to become right by itself.
fn image(container: &Container, path: &str, findings: &mut Findings) {
    let image = container.image.as_deref().unwrap_or_default();
    if let (false, Err(invalid)) = (image.trim().is_empty(), ImageReference::parse(image.trim())) {
        findings.invalid(format!("{path}.image"), invalid.to_string());
    }
}

fn unique<'a>(container: &'a Container, path: &str, names: &mut BTreeSet<&'a str>, findings: &mut Findings) {
    if !container.name.is_empty() && !names.insert(&container.name) {
        findings.duplicate(format!("{path}.name"), &container.name, "container of the pod");
    }
}

#[cfg(test)]
#[path = "pod_tests.rs"]
mod tests;
