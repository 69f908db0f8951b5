//! Removes a pod's volumes. Their contents were made by containers and are not to be trusted: they may hold links to
//! anywhere, mounts, and folders nested deeper than any stack.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use super::{VOLUMES, VolumeError};
use crate::untrusted_file::Folder;

/// The folder that removed folders are moved to first, in the pod's folder.
const HEAP: &str = "volumes.removing";

/// How often the mounts are listed again: while one is taken away the list may be read incompletely.
const UNMOUNT_ROUNDS: usize = 8;

#[expect(
    clippy::disallowed_methods,
    reason = "the state folder is root's, and paths of the host are touched on a thread of VOLUMES"
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
    reason = "the state folder is root's, and paths of the host are touched on a thread of VOLUMES"
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

/// The mount points in a mountinfo (proc(5)), in the order of mounting.
fn mount_points(table: &[u8]) -> Vec<PathBuf> {
    let lines = table.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|path| PathBuf::from(std::ffi::OsString::from_vec(unescaped(path))))
        .collect()
}

/// Blanks and backslashes are written as a backslash and three octal digits.
fn unescaped(path: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        let code = after
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_blanks() {
        let table = b"22 1 8:1 / / rw - ext4 /dev/a rw\n\
                      30 22 0:40 / /a\\040b\\134c/d rw,relatime shared:3 - tmpfs tmpfs rw\n";
        let expected: Vec<PathBuf> = vec!["/".into(), "/a b\\c/d".into()];
        assert_eq!(mount_points(table), expected);
    }
}
