//! The files on the host that the containers of a pod need before they are made.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A file that could not be prepared.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {path}: {source}")]
pub(crate) struct FileError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_path_buf();
    move |source| FileError { step, path, source }
}

/// The files of one container, as paths on the host.
#[derive(Clone, Debug)]
pub(crate) struct ContainerFiles {
    /// The pod's `/etc/hosts`.
    pub(crate) etc_hosts: PathBuf,
    /// Where the container leaves its termination message.
    pub(crate) termination_log: PathBuf,
}

/// Where the termination message of a container's attempt is on the host.
pub(crate) fn termination_log(pod_dir: &Path, container: &str, attempt: u32) -> PathBuf {
    pod_dir
        .join("containers")
        .join(container)
        .join(attempt.to_string())
}

/// Prepares everything for one attempt of a container: its log folder, an empty file for its termination
/// message, the pod's `/etc/hosts`. Blocks.
pub(crate) fn prepare(
    pod_dir: &Path,
    log_folder: &Path,
    container: &str,
    attempt: u32,
    etc_hosts: &str,
) -> Result<ContainerFiles, FileError> {
    let logs = log_folder.join(container);
    fs::create_dir_all(&logs).map_err(failed("create the log folder", &logs))?;
    let termination_log = termination_log(pod_dir, container, attempt);
    let folder = termination_log.parent().unwrap_or(pod_dir);
    fs::create_dir_all(folder).map_err(failed("create", folder))?;
    fs::write(&termination_log, "").map_err(failed("write", &termination_log))?;
    // The container may run as anybody.
    fs::set_permissions(&termination_log, fs::Permissions::from_mode(0o666))
        .map_err(failed("open up", &termination_log))?;
    let hosts = pod_dir.join("etc-hosts");
    // Running containers have this very file mounted: it is changed in place, and only if it must be.
    if fs::read(&hosts).ok().as_deref() != Some(etc_hosts.as_bytes()) {
        fs::write(&hosts, etc_hosts).map_err(failed("write", &hosts))?;
    }
    Ok(ContainerFiles {
        etc_hosts: hosts,
        termination_log,
    })
}
