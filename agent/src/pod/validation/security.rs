//! Security contexts, of a container and of a pod.

use k8s_openapi::api::core::v1::{AppArmorProfile, SeccompProfile, SecurityContext};

use super::findings::Findings;
use super::names;
use crate::pod::field_error::Cause;

/// The highest user or group id.
pub(super) const MAX_ID: i64 = i32::MAX as i64;
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

/// What a pod's and a container's context have alike.
pub(super) fn profiles(
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
            (true, None) => findings.add(local, Cause::Required, "must be set for the type Localhost"),
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
                findings.add(local, Cause::Required, "must be set for the type Localhost")
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
