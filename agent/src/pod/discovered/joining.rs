//! What is different about a container that joins a pod which somebody else runs: the runtime takes its cgroup, log
//! folder, host name and user namespace from the request, so the request says what that pod's own sandbox says.

use std::path::Path;

use debuglet_proto::v1::{ContainerConfig, Mount, PodSandboxConfig, UserNamespace};

use super::{ForeignSandbox, Owner};

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
/// missing there. `log_folder` is where logs go of a pod that has no place for them, `privileged` what the container
/// asks for: containerd refuses a privileged container in a sandbox that does not say the same.
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
    if config.log_directory.is_empty() {
        config.log_directory = log_folder.to_string_lossy().into_owned();
    }
    if privileged {
        let linux = config.linux.get_or_insert_default();
        linux.security_context.get_or_insert_default().privileged = true;
    }
    config
}

/// Which file on the host is a container's `/etc/hosts`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hosts<'a> {
    /// The one that is made for pods of ours.
    pub(crate) ours: &'a Path,
    /// The one that the pod's own containers have; without one the runtime makes its own.
    pub(crate) theirs: Option<&'a str>,
}

/// Makes `config`, which is as for a pod of ours, fit into the sandbox.
pub(crate) fn fit(config: &mut ContainerConfig, sandbox: &ForeignSandbox, hosts: Hosts<'_>) {
    if let Some((folder, _)) = config.log_path.rsplit_once('/') {
        config.log_path = format!("{folder}/{}", log_file(Owner::of(&sandbox.annotations)));
    }
    let is_ours = |mount: &Mount| Path::new(&mount.host_path) == hosts.ours;
    match hosts.theirs {
        Some(theirs) => config
            .mounts
            .iter_mut()
            .filter(|mount| is_ours(mount))
            .for_each(|mount| theirs.clone_into(&mut mount.host_path)),
        None => config.mounts.retain(|mount| !is_ours(mount)),
    }
    let security = config
        .linux
        .as_mut()
        .and_then(|linux| linux.security_context.as_mut());
    if let (Some(of_sandbox), Some(security)) = (&sandbox.config, security) {
        // The runtime compares the two, also where the sandbox says nothing.
        security.namespace_options.get_or_insert_default().userns_options = users_of(of_sandbox);
    }
}

fn users_of(sandbox: &PodSandboxConfig) -> Option<UserNamespace> {
    let security = sandbox.linux.as_ref()?.security_context.as_ref()?;
    security.namespace_options.as_ref()?.userns_options.clone()
}

#[cfg(test)]
mod tests;
