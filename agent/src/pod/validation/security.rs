//! Security contexts, of a container and of a pod.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    AppArmorProfile, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext, Sysctl,
};

use super::findings::Findings;
use super::names;
use crate::pod::field_error::Cause;

/// The highest user or group id.
const MAX_ID: i64 = i32::MAX as i64;
/// The longest path to an AppArmor profile, in bytes (PATH_MAX without its end).
const MAX_PROFILE_PATH: usize = 4095;

pub(super) fn container(context: &SecurityContext, path: &str, host_users: bool, findings: &mut Findings) {
    for (field, id) in [
        ("runAsUser", context.run_as_user),
        ("runAsGroup", context.run_as_group),
    ] {
        if let Some(id) = id {
            findings.within(format!("{path}.{field}"), id, 0, MAX_ID);
        }
    }
    if let Some(mount) = &context.proc_mount {
        let path = format!("{path}.procMount");
        findings.known(&path, mount, &["Default", "Unmasked"]);
        if mount == "Unmasked" && host_users {
            findings.invalid(path, "Unmasked needs a pod with hostUsers: false");
        }
    }
    if context.allow_privilege_escalation == Some(false) {
        let added = context
            .capabilities
            .as_ref()
            .and_then(|capabilities| capabilities.add.as_deref());
        if context.privileged == Some(true) {
            findings.invalid(
                path,
                "allowPrivilegeEscalation: false contradicts privileged: true",
            );
        }
        if added
            .unwrap_or_default()
            .iter()
            .any(|capability| capability == "CAP_SYS_ADMIN")
        {
            findings.invalid(
                path,
                "allowPrivilegeEscalation: false contradicts the capability CAP_SYS_ADMIN",
            );
        }
    }
    profiles(
        context.seccomp_profile.as_ref(),
        context.app_armor_profile.as_ref(),
        path,
        findings,
    );
}

pub(super) fn pod(context: &PodSecurityContext, spec: &PodSpec, path: &str, findings: &mut Findings) {
    for (field, id) in [
        ("fsGroup", context.fs_group),
        ("runAsUser", context.run_as_user),
        ("runAsGroup", context.run_as_group),
    ] {
        if let Some(id) = id {
            findings.within(format!("{path}.{field}"), id, 0, MAX_ID);
        }
    }
    for (index, id) in context.supplemental_groups.iter().flatten().enumerate() {
        findings.within(format!("{path}.supplementalGroups[{index}]"), *id, 0, MAX_ID);
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        findings.invalid("spec.shareProcessNamespace", "cannot stand beside hostPID: true");
    }
    for (field, value, allowed) in [
        (
            "fsGroupChangePolicy",
            &context.fs_group_change_policy,
            ["Always", "OnRootMismatch"],
        ),
        (
            "supplementalGroupsPolicy",
            &context.supplemental_groups_policy,
            ["Merge", "Strict"],
        ),
        (
            "seLinuxChangePolicy",
            &context.se_linux_change_policy,
            ["MountOption", "Recursive"],
        ),
    ] {
        if let Some(value) = value {
            findings.known(&format!("{path}.{field}"), value, &allowed);
        }
    }
    sysctls(
        context.sysctls.as_deref().unwrap_or_default(),
        spec,
        &format!("{path}.sysctls"),
        findings,
    );
    profiles(
        context.seccomp_profile.as_ref(),
        context.app_armor_profile.as_ref(),
        path,
        findings,
    );
}

fn sysctls(sysctls: &[Sysctl], spec: &PodSpec, path: &str, findings: &mut Findings) {
    /// The kernel's parameters that belong to an IPC namespace.
    const IPC: [&str; 4] = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."];
    let mut names_so_far = BTreeSet::new();
    for (index, sysctl) in sysctls.iter().enumerate() {
        let path = format!("{path}[{index}].name");
        if sysctl.name.is_empty() {
            findings.required(path);
            continue;
        }
        findings.well_formed(&path, &sysctl.name, names::sysctl);
        let dotted = sysctl.name.replace('/', ".");
        if spec.host_network == Some(true) && dotted.starts_with("net.") {
            findings.invalid(
                &path,
                "is a parameter of the network, which is the host's here (hostNetwork)",
            );
        }
        if spec.host_ipc == Some(true) && IPC.iter().any(|prefix| dotted.starts_with(prefix)) {
            findings.invalid(&path, "is a parameter of IPC, which is the host's here (hostIPC)");
        }
        if !names_so_far.insert(dotted) {
            findings.duplicate(path, &sysctl.name, "sysctl");
        }
    }
}

/// What a pod's and a container's context have alike.
fn profiles(
    seccomp: Option<&SeccompProfile>,
    app_armor: Option<&AppArmorProfile>,
    path: &str,
    findings: &mut Findings,
) {
    const TYPES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
    if let Some(profile) = seccomp {
        let path = format!("{path}.seccompProfile");
        findings.one_of(&format!("{path}.type"), Some(&profile.type_), &TYPES);
        let local = format!("{path}.localhostProfile");
        match (profile.type_ == "Localhost", profile.localhost_profile.as_deref()) {
            (true, None) => {
                findings.add(local, Cause::Required, "must be set for the type Localhost");
            }
            (true, Some(profile)) => findings.well_formed(local, profile, names::descending_path),
            (false, Some(_)) => findings.invalid(local, "is for the type Localhost only"),
            (false, None) => {}
        }
    }
    if let Some(profile) = app_armor {
        let path = format!("{path}.appArmorProfile");
        findings.one_of(&format!("{path}.type"), Some(&profile.type_), &TYPES);
        let local = format!("{path}.localhostProfile");
        match (profile.type_ == "Localhost", profile.localhost_profile.as_deref()) {
            (true, None | Some("")) => {
                findings.add(local, Cause::Required, "must be set for the type Localhost");
            }
            (true, Some(name)) if name.trim() != name => {
                findings.invalid(local, format!("{name:?} begins or ends with white space"));
            }
            (true, Some(name)) if name.len() > MAX_PROFILE_PATH => {
                findings.add(
                    local,
                    Cause::TooLong,
                    format!("is longer than {MAX_PROFILE_PATH} bytes"),
                );
            }
            (false, Some(_)) => findings.invalid(local, "is for the type Localhost only"),
            (true, Some(_)) | (false, None) => {}
        }
    }
}
