//! A container in CRI's terms, as a kubelet asks for it: ordinary, init and ephemeral containers alike.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use debuglet_proto::v1::{
    ContainerConfig, ContainerMetadata, ImageSpec, KeyValue, LinuxContainerConfig, Mount, MountPropagation,
};
use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};

use super::environment::{EnvironmentError, environment, expand};
use super::etc_hosts;
use super::labels;
use super::node::Node;
use super::objects::{ObjectError, Objects};
use super::quantity::QuantityError;
use super::resources::container_resources;
use super::security_context::{ImageUser, SecurityContextError, security_context};

/// Why a container cannot be made: the message of a `CreateContainerConfigError`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The object is no whole pod.
    #[error("the pod has no spec")]
    NoSpec,
    /// A variable has no value.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// It may not run as asked.
    #[error(transparent)]
    SecurityContext(#[from] SecurityContextError),
    /// Its requests and limits cannot be read.
    #[error(transparent)]
    Quantity(#[from] QuantityError),
    /// It mounts a volume that the pod does not have.
    #[error("container {container} mounts the volume {volume:?}, which the pod does not have")]
    NoVolume {
        /// The container's name.
        container: String,
        /// The volume's name.
        volume: String,
    },
    /// It mounts a part of a volume.
    #[error("container {container} mounts a part of the volume {volume:?} (subPath), which is not supported")]
    SubPath {
        /// The container's name.
        container: String,
        /// The volume's name.
        volume: String,
    },
    /// `recursiveReadOnly: Enabled` and a runtime that cannot.
    #[error(
        "container {container} mounts the volume {volume:?} with recursiveReadOnly, which this node's runtime does not support"
    )]
    RecursiveReadOnly {
        /// The container's name.
        container: String,
        /// The volume's name.
        volume: String,
    },
}

impl ConfigError {
    /// Whether it may pass without a change of the pod: an object of the API server may come, or get its key.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(
            self,
            ConfigError::Environment(EnvironmentError::Object(
                ObjectError::NotFound { .. } | ObjectError::NoKey { .. }
            ))
        )
    }
}

/// An image on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Image {
    /// The runtime's id, `sha256:...`: what a container is made from, so that a name that moves makes no
    /// difference between the pull and the start.
    pub(crate) id: String,
    /// Who it runs as.
    pub(crate) user: ImageUser,
}

/// What the configuration of one container follows from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ContainerContext<'a> {
    /// The pod.
    pub(crate) pod: &'a Pod,
    /// The container; an ephemeral one in the form of an ordinary one.
    pub(crate) container: &'a Container,
    /// How many containers of this name the pod had before.
    pub(crate) attempt: u32,
    /// The image it is made from.
    pub(crate) image: &'a Image,
    /// The addresses of the pod's sandbox, the primary one first; none on the host's network.
    pub(crate) pod_ips: &'a [String],
    /// The node it runs on.
    pub(crate) node: &'a Node,
    /// The id of the container that it targets (`targetContainerName`).
    pub(crate) target: Option<&'a str>,
    /// What its variables come from.
    pub(crate) objects: &'a Objects,
    /// Where each of the pod's volumes is on the host.
    pub(crate) volumes: &'a BTreeMap<String, PathBuf>,
    /// The pod's `/etc/hosts` on the host, see [`etc_hosts::etc_hosts`].
    pub(crate) etc_hosts: &'a Path,
    /// The file on the host for this container's termination message: empty, and writable for everyone.
    pub(crate) termination_log: &'a Path,
}

/// A container's log file, relative to its pod's log folder.
pub(crate) fn log_path(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

/// The configuration to create the container with.
pub(crate) fn container_config(context: &ContainerContext<'_>) -> Result<ContainerConfig, ConfigError> {
    let ContainerContext {
        pod,
        container,
        attempt,
        image,
        node,
        ..
    } = *context;
    let spec = pod.spec.as_ref().ok_or(ConfigError::NoSpec)?;
    let on_host_network = spec.host_network == Some(true);
    // On the host's network the node's addresses are the pod's.
    let pod_ips = match context.pod_ips {
        [] if on_host_network => &node.ips,
        pod_ips => pod_ips,
    };

    let variables = environment(pod, container, pod_ips, node, context.objects)?;
    let expanded = |words: Option<&Vec<String>>| {
        let words = words.into_iter().flatten();
        words.map(|word| expand(word, &variables)).collect()
    };
    let mut all_labels = labels::of_pod(pod);
    all_labels.insert(labels::CONTAINER_NAME.to_owned(), container.name.clone());

    Ok(ContainerConfig {
        metadata: Some(ContainerMetadata {
            name: container.name.clone(),
            attempt,
        }),
        image: Some(ImageSpec {
            image: image.id.clone(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..Default::default()
        }),
        command: expanded(container.command.as_ref()),
        args: expanded(container.args.as_ref()),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        mounts: mounts(context, on_host_network || !pod_ips.is_empty())?,
        labels: all_labels,
        annotations: annotations(pod, container, attempt),
        log_path: log_path(&container.name, attempt),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(LinuxContainerConfig {
            resources: Some(container_resources(spec, container, node)?),
            security_context: Some(security_context(
                pod,
                container,
                &image.user,
                node,
                context.target,
            )?),
        }),
        envs: variables
            .into_iter()
            .map(|(key, value)| KeyValue {
                key,
                value: value.into_bytes(),
            })
            .collect(),
        ..Default::default()
    })
}

/// What a later start of debuglet, or a kubelet, must know of a container when it finds it.
fn annotations(pod: &Pod, container: &Container, attempt: u32) -> HashMap<String, String> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let mut annotations: HashMap<_, _> = [
        (labels::CONTAINER_HASH, hash(container)),
        (labels::CONTAINER_RESTART_COUNT, attempt.to_string()),
        (
            labels::TERMINATION_MESSAGE_PATH,
            text(&container.termination_message_path),
        ),
        (
            labels::TERMINATION_MESSAGE_POLICY,
            text(&container.termination_message_policy),
        ),
    ]
    .map(|(annotation, value)| (annotation.to_owned(), value))
    .into();
    let spec = pod.spec.as_ref();
    if let Some(seconds) = spec.and_then(|spec| spec.termination_grace_period_seconds) {
        annotations.insert(labels::TERMINATION_GRACE_PERIOD.to_owned(), seconds.to_string());
    }
    if let Some(ports) = container.ports.as_ref().filter(|ports| !ports.is_empty())
        && let Ok(ports) = serde_json::to_string(ports)
    {
        annotations.insert(labels::CONTAINER_PORTS.to_owned(), ports);
    }
    annotations
}

/// A number that changes with what a container cannot be given anew while it runs, its name and its image: the very
/// number of a kubelet, which compares it when it finds a container. That hashes (FNV-1a, 32 bits) not the JSON but how
/// Go prints its bytes.
fn hash(container: &Container) -> String {
    const OFFSET_BASIS: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x0100_0193;
    let image = container.image.as_deref().unwrap_or_default();
    let json = serde_json::json!({"image": image, "name": container.name}).to_string();
    let bytes: Vec<String> = json.bytes().map(|byte| byte.to_string()).collect();
    let printed = format!("([]uint8)[{}]", bytes.join(" "));
    let hash = printed.bytes().fold(OFFSET_BASIS, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(PRIME)
    });
    format!("{hash:x}")
}

/// The volumes in the order of the spec, then `/etc/hosts` (only where the pod has addresses to put in it, and
/// the container mounts nothing there itself), then the file for the termination message.
fn mounts(context: &ContainerContext<'_>, has_addresses: bool) -> Result<Vec<Mount>, ConfigError> {
    let ContainerContext { container, node, .. } = *context;
    let volume_mounts = container.volume_mounts.as_deref().unwrap_or_default();
    let mut mounts = volume_mounts
        .iter()
        .map(|mount| volume_mount(context, mount))
        .collect::<Result<Vec<_>, _>>()?;

    let file = |container_path: &str, host_path: &Path| Mount {
        container_path: container_path.to_owned(),
        host_path: host_path.to_string_lossy().into_owned(),
        selinux_relabel: node.selinux,
        ..Default::default()
    };
    if has_addresses
        && volume_mounts
            .iter()
            .all(|mount| mount.mount_path != etc_hosts::PATH)
    {
        mounts.push(file(etc_hosts::PATH, context.etc_hosts));
    }
    match container.termination_message_path.as_deref() {
        None | Some("") => {}
        Some(path) => mounts.push(file(path, context.termination_log)),
    }
    Ok(mounts)
}

/// One volume in one place.
fn volume_mount(context: &ContainerContext<'_>, mount: &VolumeMount) -> Result<Mount, ConfigError> {
    let ContainerContext {
        pod, container, node, ..
    } = *context;
    let container_name = container.name.clone();
    let volume = mount.name.clone();
    if [&mount.sub_path, &mount.sub_path_expr]
        .into_iter()
        .flatten()
        .any(|path| !path.is_empty())
    {
        return Err(ConfigError::SubPath {
            container: container_name,
            volume,
        });
    }
    let recursive_read_only = recursive_read_only(mount, node);
    if mount.recursive_read_only.as_deref() == Some("Enabled") && !recursive_read_only {
        return Err(ConfigError::RecursiveReadOnly {
            container: container_name,
            volume,
        });
    }
    let Some(host_path) = context.volumes.get(&volume) else {
        return Err(ConfigError::NoVolume {
            container: container_name,
            volume,
        });
    };
    // What belongs to the pod alone may be relabelled for it; a folder of the host may not.
    let of_pod_alone = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten())
        .any(|known| known.name == volume && known.empty_dir.is_some());
    Ok(Mount {
        container_path: match mount.mount_path.starts_with('/') {
            true => mount.mount_path.clone(),
            false => format!("/{}", mount.mount_path),
        },
        host_path: host_path.to_string_lossy().into_owned(),
        readonly: mount.read_only == Some(true),
        selinux_relabel: node.selinux && of_pod_alone,
        propagation: match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
            Some("Bidirectional") => MountPropagation::PropagationBidirectional,
            _ => MountPropagation::PropagationPrivate,
        }
        .into(),
        recursive_read_only,
        ..Default::default()
    })
}

/// Whether a mount is read-only with everything that is mounted below it (`recursiveReadOnly`).
pub(crate) fn recursive_read_only(mount: &VolumeMount, node: &Node) -> bool {
    let asked = matches!(
        mount.recursive_read_only.as_deref(),
        Some("Enabled" | "IfPossible")
    );
    asked && mount.read_only == Some(true) && node.recursive_read_only
}

#[cfg(test)]
mod tests;
