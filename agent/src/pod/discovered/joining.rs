//! What is different about a container that joins a pod which somebody else runs: the runtime takes its cgroup, log
//! folder, host name and user namespace from the request, so the request says what that pod's own sandbox says.

use std::path::{Path, PathBuf};

use debuglet_proto::v1::security_profile::ProfileType;
use debuglet_proto::v1::{
    ContainerConfig, LinuxContainerSecurityContext, Mount, PodSandboxConfig, UserNamespace,
};

use super::volumes::is_filled_by_kubelet;
use super::{DiscoveredPod, ForeignContainer, ForeignSandbox, Owner};
use crate::pod::resources::{QosClass, oom_score_of};
use crate::pod::security_context::SECCOMP_PROFILES;

/// A debug container's log file in the pod of a kubelet, which takes the files `N.log` of a container's folder for
/// attempts of its own and counts them.
const LOG_FILE: &str = "debuglet.log";
/// The same in any other pod, where it is the first attempt's, as in pods of ours.
const FIRST_ATTEMPT: &str = "0.log";

/// What the name of a debug container's log file begins with in a pod of this owner's.
pub(crate) fn log_file(owner: Owner) -> &'static str {
    match owner {
        Owner::StaticPod | Owner::Kubelet => LOG_FILE,
        Owner::Cri => FIRST_ATTEMPT,
    }
}

/// The sandbox configuration to send along with a container that joins the sandbox: the sandbox's own, and what is
/// missing there. `log_folder` is where its log goes: the sandbox's own folder, or ours where that has none or is not
/// safe to write into. `privileged` is what the container asks for: containerd refuses a privileged container in a sandbox that does not say the same.
pub(crate) fn sandbox_of_request(
    sandbox: &ForeignSandbox,
    log_folder: &Path,
    privileged: bool,
) -> PodSandboxConfig {
    let mut config = sandbox.config.clone().unwrap_or_else(|| PodSandboxConfig {
        // All that a runtime tells which does not tell the configuration.
        metadata: Some(sandbox.metadata.clone()),
        labels: sandbox.labels.clone().into_iter().collect(),
        annotations: sandbox.annotations.clone().into_iter().collect(),
        ..PodSandboxConfig::default()
    });
    config.log_directory = log_folder.to_string_lossy().into_owned();
    if privileged {
        let linux = config.linux.get_or_insert_default();
        linux.security_context.get_or_insert_default().privileged = true;
    }
    config
}

/// Where a kubelet with this root folder has the system call filters that `localhostProfile` names.
pub(crate) fn seccomp_folder(kubelet_root: &Path) -> PathBuf {
    kubelet_root.join("seccomp")
}

/// A pod that somebody else runs, as a container that joins it needs to know it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host<'a> {
    /// Its sandbox.
    pub(crate) sandbox: &'a ForeignSandbox,
    /// The containers in it.
    pub(crate) containers: &'a [ForeignContainer],
    /// What the two show of the pod.
    pub(crate) pod: &'a DiscoveredPod,
    /// The file for `/etc/hosts` that is made for pods of ours.
    pub(crate) our_hosts: &'a Path,
}

/// Makes `config`, which is as for a pod of ours, fit into the pod.
pub(crate) fn fit(config: &mut ContainerConfig, host: &Host<'_>) {
    let Host { sandbox, pod, .. } = host;
    if let Some((folder, _)) = config.log_path.rsplit_once('/') {
        config.log_path = format!("{folder}/{}", log_file(Owner::of(&sandbox.annotations)));
    }
    // Without a hosts file of the pod's the runtime makes one.
    let is_ours = |mount: &Mount| Path::new(&mount.host_path) == host.our_hosts;
    match &pod.etc_hosts {
        Some(theirs) => config
            .mounts
            .iter_mut()
            .filter(|mount| is_ours(mount))
            .for_each(|mount| theirs.clone_into(&mut mount.host_path)),
        None => config.mounts.retain(|mount| !is_ours(mount)),
    }
    let uid = pod.pod.metadata.uid.as_deref().unwrap_or_default();
    for mount in &mut config.mounts {
        mount.readonly |= is_filled_by_kubelet(uid, &mount.host_path);
    }
    let Some(linux) = &mut config.linux else { return };
    if let (Some(resources), Some(score)) = (&mut linux.resources, oom_score(host)) {
        resources.oom_score_adj = score;
    }
    let Some(security) = &mut linux.security_context else {
        return;
    };
    if let Some(of_sandbox) = &sandbox.config {
        // The runtime compares the two, also where the sandbox says nothing.
        security.namespace_options.get_or_insert_default().userns_options = users_of(of_sandbox);
    }
    if let Some(root) = &pod.kubelet_root {
        filter_of(security, root);
    }
}

/// Has the container's system call filter be read from the folder of the kubelet that runs the pod.
fn filter_of(security: &mut LinuxContainerSecurityContext, kubelet_root: &Path) {
    let Some(seccomp) = &mut security.seccomp else {
        return;
    };
    if seccomp.profile_type() == ProfileType::Localhost
        && let Ok(name) = Path::new(&seccomp.localhost_ref).strip_prefix(SECCOMP_PROFILES)
    {
        let file = seccomp_folder(kubelet_root).join(name);
        seccomp.localhost_ref = file.to_string_lossy().into_owned();
    }
}

/// The OOM score of a container that requests nothing, in the pod of a kubelet: that of the pod's QoS class, which the
/// pod's cgroup tells, or of all containers where the pod is critical for the node.
fn oom_score(host: &Host<'_>) -> Option<i64> {
    let class = qos_class_of(&host.sandbox.config.as_ref()?.linux.as_ref()?.cgroup_parent)?;
    let spared = oom_score_of(QosClass::Guaranteed);
    let of_container = |container: &ForeignContainer| {
        let linux = container.config.as_ref()?.linux.as_ref()?;
        Some(linux.resources.as_ref()?.oom_score_adj)
    };
    let critical = host
        .containers
        .iter()
        .all(|container| of_container(container) == Some(spared));
    Some(if critical && !host.containers.is_empty() {
        spared
    } else {
        oom_score_of(class)
    })
}

/// The QoS class of the pods in this cgroup of a kubelet's, in the form of either driver: `/kubepods/burstable/podUID`,
/// `kubepods-burstable-podUID.slice`.
fn qos_class_of(cgroup_parent: &str) -> Option<QosClass> {
    let (_, below) = cgroup_parent.rsplit_once("kubepods")?;
    let class = below.trim_start_matches(['/', '-']);
    Some(match class {
        class if class.starts_with("besteffort") => QosClass::BestEffort,
        class if class.starts_with("burstable") => QosClass::Burstable,
        _ => QosClass::Guaranteed,
    })
}

fn users_of(sandbox: &PodSandboxConfig) -> Option<UserNamespace> {
    let security = sandbox.linux.as_ref()?.security_context.as_ref()?;
    security.namespace_options.as_ref()?.userns_options.clone()
}

#[cfg(test)]
mod tests;
