//! The volumes of a pod. Of their kinds only emptyDir and hostPath are looked into: the others are not supported.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Volume;

use super::container;
use super::findings::Findings;
use super::{names, resources};

/// The kinds of things that a hostPath can ask to find; empty asks for nothing.
const HOST_PATH_TYPES: [&str; 8] = [
    "",
    "DirectoryOrCreate",
    "Directory",
    "FileOrCreate",
    "File",
    "Socket",
    "CharDevice",
    "BlockDevice",
];

pub(super) fn check(volumes: &[Volume], findings: &mut Findings) {
    let mut names_so_far = BTreeSet::new();
    for (index, volume) in volumes.iter().enumerate() {
        let path = format!("spec.volumes[{index}]");
        container::name(&volume.name, &format!("{path}.name"), findings);
        if !volume.name.is_empty() && !names_so_far.insert(&volume.name) {
            findings.duplicate(format!("{path}.name"), &volume.name, "volume of the pod");
        }
        let kinds = kinds(volume);
        if kinds.len() > 1 {
            findings.forbidden(
                &path,
                format!("can be of one kind only, not of {}", kinds.join(" and ")),
            );
        }
        if let Some(size) = volume
            .empty_dir
            .as_ref()
            .and_then(|source| source.size_limit.as_ref())
        {
            resources::amount(size, &format!("{path}.emptyDir.sizeLimit"), findings);
        }
        if let Some(source) = &volume.host_path {
            let path = format!("{path}.hostPath");
            if source.path.is_empty() {
                findings.required(format!("{path}.path"));
            } else {
                findings.well_formed(
                    format!("{path}.path"),
                    &source.path,
                    names::path_without_steps_back,
                );
            }
            let wanted = source.type_.as_deref().unwrap_or_default();
            findings.known(&format!("{path}.type"), wanted, &HOST_PATH_TYPES);
        }
    }
}

/// The kinds that the volume says it is of, by the name of their field.
pub(super) fn kinds(volume: &Volume) -> Vec<String> {
    // Every field but the name is a kind; the list of them grows with Kubernetes.
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(volume) else {
        return Vec::new();
    };
    fields
        .into_iter()
        .map(|(field, _)| field)
        .filter(|field| field != "name")
        .collect()
}
