//! Removes a pod's volumes. Their contents were made by containers and are not to be trusted: they may hold links to
//! anywhere, mounts, and folders nested deeper than any stack.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use super::{VOLUMES, VolumeError};
use crate::untrusted_file::{Folder, mount_points};

/// The folder that removed folders are moved to first, in the pod's folder.
const HEAP: &str = "volumes.removing";

/// How often the mounts are listed again: while one is taken away the list may be read incompletely.
const UNMOUNT_ROUNDS: usize = 8;

#[expect(
    clippy::disallowed_methods,
    reason = "the state folder is root's, and this is a thread of REMOVALS"
)]
pub(super) fn tear_down_now(pod_dir: &Path) -> Result<(), VolumeError> {
    let removing = |source| VolumeError::Remove {
        folder: pod_dir.to_path_buf(),
        source,
    };
    // The mounts are listed by their real paths.
    let pod_dir = match fs::canonicalize(pod_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        real => real.map_err(removing)?,
    };
    unmount_in(&pod_dir.join(VOLUMES))?;
    unmount_in(&pod_dir.join(HEAP))?;
    // These volumes may be what fills the disk: it needs no room.
    Folder::open(&pod_dir)
        .and_then(|folder| folder.remove_tree(OsStr::new(VOLUMES), OsStr::new(HEAP)))
        .map_err(removing)
}

/// Unmounts whatever is mounted at `folder` or below it, the last mounted first. What is busy stays, and with it all
/// the rest.
#[expect(
    clippy::disallowed_methods,
    reason = "the state folder is root's, and this is a thread of REMOVALS"
)]
fn unmount_in(folder: &Path) -> Result<(), VolumeError> {
    let failed = |path: &Path, source| VolumeError::Unmount {
        path: path.to_path_buf(),
        source,
    };
    for _ in 0..UNMOUNT_ROUNDS {
        // Of this thread: a thread may have a mount namespace of its own.
        let table = fs::read("/proc/thread-self/mountinfo").map_err(|error| failed(folder, error))?;
        let mounts = mount_points(&table)
            .into_iter()
            .filter(|path| path.starts_with(folder));
        let mounts: Vec<PathBuf> = mounts.collect();
        if mounts.is_empty() {
            return Ok(());
        }
        for path in mounts.iter().rev() {
            match umount2(path, MntFlags::UMOUNT_NOFOLLOW) {
                // Somebody was faster.
                Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
                Err(error) => return Err(failed(path, error.into())),
            }
        }
    }
    Err(failed(folder, Errno::EBUSY.into()))
}
