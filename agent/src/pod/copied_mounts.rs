//! Mounts that an ephemeral container has from another container of its pod (`debuglet debug --copy-mounts`), for
//! which Kubernetes has no form: there a debug container mounts volumes by name, and never a part of one (`subPath`).
//! What is copied is what the other container really has, whoever asked for it.

use std::collections::{BTreeMap, BTreeSet};

use debuglet_proto::v1::Mount;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use super::container_names::it_has;
use super::discovered::volumes::{Place, place};
use super::etc_hosts;
use super::field_error::{Cause, FieldError};
use super::record::Record;

/// Says on a served pod which of its ephemeral containers have mounts of others: a JSON object of [`CopyMounts`] by name.
pub(crate) const ANNOTATION: &str = "debuglet.io/copied-mounts";

/// Where an API server's admission mounts a service account's token in every container.
const TOKEN_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Whose mounts an ephemeral container is to have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CopyMounts {
    /// An ordinary or init container of the pod; of several of the name the newest counts.
    pub(crate) from: String,
    /// Which of them.
    #[serde(default)]
    pub(crate) include: Include,
}

/// Which mounts are copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Include {
    /// The volumes, but for service account tokens: who looks at a pod's data need not become the pod.
    #[default]
    Volumes,
    /// Everything: tokens, the hosts file and the file for the termination message, too.
    All,
}

/// The container that copies must be one that the pod has, as [`CopyMounts::from`] says.
pub(crate) fn check(pod: &Pod, copy: &CopyMounts) -> Option<FieldError> {
    let spec = pod.spec.iter();
    let containers = spec.flat_map(|spec| {
        spec.containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
    });
    let names: Vec<&str> = containers.map(|container| container.name.as_str()).collect();
    if names.contains(&copy.from.as_str()) {
        return None;
    }
    let message = format!(
        "the pod has no container {:?} to copy mounts from; {}",
        copy.from,
        it_has(&names)
    );
    Some(FieldError::new("copyMounts.from", Cause::NotFound, message))
}

/// Writes into the annotations of a pod that is served which of its ephemeral containers have mounts of others.
pub(crate) fn annotate<'a>(metadata: &mut ObjectMeta, records: impl Iterator<Item = &'a Record>) {
    let copying: BTreeMap<&str, &CopyMounts> = records
        .filter_map(|record| Some((record.spec.name.as_str(), record.copy_mounts.as_ref()?)))
        .collect();
    if copying.is_empty() {
        return;
    }
    let annotations = metadata.annotations.get_or_insert_default();
    // Names and texts: nothing that JSON could refuse.
    let text = serde_json::to_string(&copying).unwrap_or_default();
    annotations.insert(ANNOTATION.to_owned(), text);
}

/// What [`annotate`] wrote, by ephemeral container.
pub(crate) fn annotated(pod: &Pod) -> BTreeMap<String, CopyMounts> {
    let annotations = pod.metadata.annotations.as_ref();
    let text = annotations.and_then(|annotations| annotations.get(ANNOTATION));
    text.and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

/// What is copied of the mounts `of` a container of `pod`, for one that has the mounts `own`: those win where both are in
/// one place. Labels of SELinux stay as they are on the files: they are the other container's.
pub(crate) fn copied(pod: &Pod, of: &[Mount], own: &[Mount], include: Include) -> Vec<Mount> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let tokens = token_volumes(pod);
    let is_token = |mount: &Mount| {
        let volume = match place(uid, &mount.host_path) {
            Place::Volume { name, .. } => tokens.contains(name),
            Place::Part { name } => tokens.contains(name),
            Place::OwnFile | Place::Host => false,
        };
        volume || in_place(mount).starts_with(TOKEN_FOLDER)
    };
    let is_own_file = |mount: &Mount| {
        matches!(place(uid, &mount.host_path), Place::OwnFile) || in_place(mount) == etc_hosts::PATH
    };
    let taken: BTreeSet<&str> = own.iter().map(in_place).collect();
    of.iter()
        .filter(|mount| !taken.contains(in_place(mount)))
        .filter(|mount| include == Include::All || !is_token(mount) && !is_own_file(mount))
        .map(|mount| Mount {
            selinux_relabel: false,
            ..mount.clone()
        })
        .collect()
}

/// Where it is mounted in the container, as others write it, too.
fn in_place(mount: &Mount) -> &str {
    match mount.container_path.trim_end_matches('/') {
        "" => "/",
        path => path,
    }
}

/// The volumes that hold a token, where the pod's spec is known.
fn token_volumes(pod: &Pod) -> BTreeSet<&str> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .filter(|volume| {
            let projected = volume.projected.iter();
            let mut sources = projected.flat_map(|projected| projected.sources.iter().flatten());
            sources.any(|source| source.service_account_token.is_some())
        })
        .map(|volume| volume.name.as_str())
        .collect()
}

#[cfg(test)]
#[path = "copied_mounts/tests.rs"]
mod tests;
