//! What holds for ephemeral containers alone (KEP-277): they come into a pod that runs, take nothing that belongs
//! to its work, and stay as they were accepted.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{EphemeralContainer, Pod};

use super::container::{self, Surroundings};
use super::findings::Findings;
use crate::pod::container_names::it_has;
use crate::pod::defaults;
use crate::pod::field_error::{Cause, FieldError};
use crate::pod::same_container::same;

/// Where ephemeral containers stand in a pod.
const PATH: &str = "spec.ephemeralContainers";

/// Checks the whole list of ephemeral containers that `pod` is to have. What the pod itself has in
/// `spec.ephemeralContainers` does not count. Of those in `theirs` only the names count: an API server has judged them.
pub(crate) fn ephemeral_containers(
    pod: &Pod,
    wanted: &[EphemeralContainer],
    theirs: &[EphemeralContainer],
) -> Vec<FieldError> {
    let mut findings = Findings::default();
    let spec = pod.spec.clone().unwrap_or_default();
    let ordinary: Vec<&str> = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .map(|container| container.name.as_str())
        .collect();
    let surroundings = Surroundings {
        volumes: spec
            .volumes
            .iter()
            .flatten()
            .map(|volume| (volume.name.as_str(), volume))
            .collect(),
        host_users: spec.host_users.unwrap_or(true),
    };
    let mut names: BTreeSet<&str> = ordinary.iter().copied().collect();
    for (index, ephemeral) in wanted.iter().enumerate() {
        let path = format!("{PATH}[{index}]");
        if !names.insert(&ephemeral.name) {
            findings.duplicate(format!("{path}.name"), &ephemeral.name, "container of the pod");
        }
        if theirs.iter().any(|theirs| theirs.name == ephemeral.name) {
            continue;
        }
        let container = defaults::as_container(ephemeral);
        container::check(&container, &path, &surroundings, &mut findings);
        target(ephemeral, &path, &ordinary, &mut findings);
        for field in fields_of_ordinary_containers(ephemeral) {
            findings.forbidden(
                format!("{path}.{field}"),
                "cannot be set for an ephemeral container",
            );
        }
        sub_paths(ephemeral, &path, &mut findings);
    }
    findings.into_errors()
}

/// Checks that what was accepted before is still there and still the same: an ephemeral container is never changed
/// or removed. Both lists have their defaults filled in.
pub(crate) fn ephemeral_change(old: &[EphemeralContainer], new: &[EphemeralContainer]) -> Vec<FieldError> {
    let by_name: BTreeMap<&str, &EphemeralContainer> = new
        .iter()
        .map(|container| (container.name.as_str(), container))
        .collect();
    let mut findings = Findings::default();
    for accepted in old {
        let name = &accepted.name;
        match by_name.get(name.as_str()) {
            None => findings.forbidden(
                PATH,
                format!("{name:?} was accepted before and cannot be removed"),
            ),
            Some(wanted) if !same(wanted, accepted) => {
                findings.forbidden(
                    PATH,
                    format!("{name:?} was accepted before and cannot be changed"),
                );
            }
            Some(_) => {}
        }
    }
    findings.into_errors()
}

fn target(ephemeral: &EphemeralContainer, path: &str, ordinary: &[&str], findings: &mut Findings) {
    let target = ephemeral.target_container_name.as_deref().unwrap_or_default();
    if !target.is_empty() && !ordinary.contains(&target) {
        let message = format!(
            "the pod has no container {target:?} to target; {}",
            it_has(ordinary)
        );
        findings.add(format!("{path}.targetContainerName"), Cause::NotFound, message);
    }
}

/// The fields that are set and that only a container of the pod's own work can have.
fn fields_of_ordinary_containers(ephemeral: &EphemeralContainer) -> Vec<&'static str> {
    let has_resources = ephemeral
        .resources
        .as_ref()
        .is_some_and(|resources| *resources != Default::default());
    [
        ("ports", ephemeral.ports.is_some()),
        ("resources", has_resources),
        ("resizePolicy", ephemeral.resize_policy.is_some()),
        ("restartPolicy", ephemeral.restart_policy.is_some()),
        ("restartPolicyRules", ephemeral.restart_policy_rules.is_some()),
        ("livenessProbe", ephemeral.liveness_probe.is_some()),
        ("readinessProbe", ephemeral.readiness_probe.is_some()),
        ("startupProbe", ephemeral.startup_probe.is_some()),
        ("lifecycle", ephemeral.lifecycle.is_some()),
    ]
    .into_iter()
    .filter_map(|(field, is_set)| is_set.then_some(field))
    .collect()
}

fn sub_paths(ephemeral: &EphemeralContainer, path: &str, findings: &mut Findings) {
    for (index, mount) in ephemeral.volume_mounts.iter().flatten().enumerate() {
        for (field, value) in [
            ("subPath", &mount.sub_path),
            ("subPathExpr", &mount.sub_path_expr),
        ] {
            if value.as_deref().is_some_and(|value| !value.is_empty()) {
                let field = format!("{path}.volumeMounts[{index}].{field}");
                findings.forbidden(field, "cannot be set for an ephemeral container");
            }
        }
    }
}

#[cfg(test)]
#[path = "ephemeral_tests.rs"]
mod tests;
