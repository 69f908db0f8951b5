//! What a container mounts: `volumeMounts` and `volumeDevices`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, Volume, VolumeMount};

use super::findings::Findings;
use super::names;
use crate::pod::field_error::Cause;

pub(super) fn check(
    container: &Container,
    path: &str,
    volumes: &BTreeMap<&str, &Volume>,
    findings: &mut Findings,
) {
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    let devices = container.volume_devices.as_deref().unwrap_or_default();
    let privileged = container
        .security_context
        .as_ref()
        .and_then(|context| context.privileged)
        == Some(true);

    let as_devices: BTreeSet<&str> = devices.iter().map(|device| device.name.as_str()).collect();
    let at_devices: BTreeSet<&str> = devices.iter().map(|device| device.device_path.as_str()).collect();
    let mut mount_paths = BTreeSet::new();
    for (index, mount) in mounts.iter().enumerate() {
        let path = format!("{path}.volumeMounts[{index}]");
        known_volume(&mount.name, &format!("{path}.name"), volumes, findings);
        if mount.mount_path.is_empty() {
            findings.required(format!("{path}.mountPath"));
        } else if !mount_paths.insert(&mount.mount_path) {
            let message = format!("something is mounted at {} already", mount.mount_path);
            findings.invalid(format!("{path}.mountPath"), message);
        }
        if as_devices.contains(mount.name.as_str()) {
            findings.invalid(format!("{path}.name"), "the volume is used as a device already");
        }
        if at_devices.contains(mount.mount_path.as_str()) {
            findings.invalid(format!("{path}.mountPath"), "a device has this path already");
        }
        sub_path(mount, &path, findings);
        propagation(mount, &path, privileged, findings);
        recursive_read_only(mount, &path, findings);
    }

    let mut device_paths = BTreeSet::new();
    let mut device_names = BTreeSet::new();
    for (index, device) in devices.iter().enumerate() {
        let path = format!("{path}.volumeDevices[{index}]");
        known_volume(&device.name, &format!("{path}.name"), volumes, findings);
        let is_block =
            |volume: &&Volume| volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some();
        if volumes
            .get(device.name.as_str())
            .is_some_and(|volume| !is_block(volume))
        {
            let message = "only a volume of type persistentVolumeClaim or ephemeral can be a device";
            findings.invalid(format!("{path}.name"), message);
        }
        if !device.name.is_empty() && !device_names.insert(&device.name) {
            findings.invalid(format!("{path}.name"), "the volume is used as a device already");
        }
        if device.device_path.is_empty() {
            findings.required(format!("{path}.devicePath"));
        } else {
            findings.well_formed(
                format!("{path}.devicePath"),
                &device.device_path,
                names::path_without_steps_back,
            );
            if !device_paths.insert(&device.device_path) {
                findings.invalid(format!("{path}.devicePath"), "a device has this path already");
            }
        }
    }
}

fn known_volume(name: &str, path: &str, volumes: &BTreeMap<&str, &Volume>, findings: &mut Findings) {
    if name.is_empty() {
        findings.required(path);
    } else if !volumes.contains_key(name) {
        let message = if volumes.is_empty() {
            format!("the pod has no volume {name:?}; it has none at all")
        } else {
            let known: Vec<&str> = volumes.keys().copied().collect();
            format!("the pod has no volume {name:?}; it has {}", known.join(", "))
        };
        findings.add(path, Cause::NotFound, message);
    }
}

fn sub_path(mount: &VolumeMount, path: &str, findings: &mut Findings) {
    let plain = mount.sub_path.as_deref().unwrap_or_default();
    let expression = mount.sub_path_expr.as_deref().unwrap_or_default();
    findings.well_formed(format!("{path}.subPath"), plain, names::descending_path);
    findings.well_formed(format!("{path}.subPathExpr"), expression, names::descending_path);
    if !plain.is_empty() && !expression.is_empty() {
        findings.invalid(format!("{path}.subPathExpr"), "cannot stand beside subPath");
    }
}

fn propagation(mount: &VolumeMount, path: &str, privileged: bool, findings: &mut Findings) {
    let Some(propagation) = &mount.mount_propagation else {
        return;
    };
    let path = format!("{path}.mountPropagation");
    findings.known(&path, propagation, &["None", "HostToContainer", "Bidirectional"]);
    if propagation == "Bidirectional" && !privileged {
        findings.forbidden(path, "Bidirectional is for privileged containers only");
    }
}

fn recursive_read_only(mount: &VolumeMount, path: &str, findings: &mut Findings) {
    let path = format!("{path}.recursiveReadOnly");
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if mount.read_only != Some(true) {
                findings.forbidden(&path, "needs readOnly: true");
            }
            if !matches!(mount.mount_propagation.as_deref(), None | Some("None")) {
                findings.forbidden(&path, "needs a mountPropagation of None");
            }
        }
        Some(other) => findings.known(&path, other, &["Disabled", "IfPossible", "Enabled"]),
    }
}
