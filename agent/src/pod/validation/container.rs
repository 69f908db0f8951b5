//! What holds for every container of a pod, whichever of its lists it stands in.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, ContainerPort, Volume};

use super::environment;
use super::findings::Findings;
use super::{mounts, names, resources, security};

/// The highest number of a port.
const MAX_PORT: i32 = 65535;

/// What a container is checked against besides itself.
pub(super) struct Surroundings<'a> {
    /// The pod's volumes, by name.
    pub(super) volumes: BTreeMap<&'a str, &'a Volume>,
    /// Whether the pod runs in the host's user namespace (`hostUsers`).
    pub(super) host_users: bool,
}

/// Checks one container; `path` is where it stands.
pub(super) fn check(container: &Container, path: &str, surroundings: &Surroundings, findings: &mut Findings) {
    name(&container.name, &format!("{path}.name"), findings);
    match container.image.as_deref().unwrap_or_default() {
        "" => findings.required(format!("{path}.image")),
        image if image.trim() != image => {
            findings.invalid(
                format!("{path}.image"),
                format!("{image:?} begins or ends with white space"),
            );
        }
        _ => {}
    }
    findings.one_of(
        &format!("{path}.terminationMessagePolicy"),
        container.termination_message_policy.as_deref(),
        &["File", "FallbackToLogsOnError"],
    );
    findings.one_of(
        &format!("{path}.imagePullPolicy"),
        container.image_pull_policy.as_deref(),
        &["Always", "IfNotPresent", "Never"],
    );
    ports(
        container.ports.as_deref().unwrap_or_default(),
        &format!("{path}.ports"),
        findings,
    );
    environment::check(container, path, findings);
    mounts::check(container, path, &surroundings.volumes, findings);
    if let Some(resources) = &container.resources {
        resources::check(resources, &format!("{path}.resources"), findings);
    }
    if let Some(context) = &container.security_context {
        security::container(
            context,
            &format!("{path}.securityContext"),
            surroundings.host_users,
            findings,
        );
    }
}

/// A name that must be set and a DNS label.
pub(super) fn name(name: &str, path: &str, findings: &mut Findings) {
    if name.is_empty() {
        findings.required(path);
    } else {
        findings.well_formed(path, name, names::dns_label);
    }
}

fn ports(ports: &[ContainerPort], path: &str, findings: &mut Findings) {
    let mut names_so_far = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = format!("{path}[{index}]");
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            findings.well_formed(format!("{path}.name"), name, names::port_name);
            if !names_so_far.insert(name) {
                findings.duplicate(format!("{path}.name"), name, "port");
            }
        }
        match port.container_port {
            0 => findings.required(format!("{path}.containerPort")),
            number => findings.within(format!("{path}.containerPort"), number, 1, MAX_PORT),
        }
        if let Some(number) = port.host_port.filter(|number| *number != 0) {
            findings.within(format!("{path}.hostPort"), number, 1, MAX_PORT);
        }
        findings.one_of(
            &format!("{path}.protocol"),
            port.protocol.as_deref(),
            &["TCP", "UDP", "SCTP"],
        );
    }
}
