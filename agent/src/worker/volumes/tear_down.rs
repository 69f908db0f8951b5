//! Removes a pod's volumes. Their contents were made by containers and are not to be trusted: they may hold links to
//! anywhere, mounts, and folders nested deeper than any stack.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, SFlag, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::{VOLUMES, VolumeError, open_folder};

/// The folder that removed folders are moved to first, in the pod's folder.
const HEAP: &str = "volumes.removing";

/// How often the mounts are listed again: while one is taken away the list may be read incompletely.
const UNMOUNT_ROUNDS: usize = 8;

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
    remove_volumes(&pod_dir).map_err(removing)
}

/// Unmounts whatever is mounted at `folder` or below it, the last mounted first. What is busy stays, and with it all
/// the rest.
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

/// Removes the folder of the volumes. Every folder is moved to the heap before it is opened: that refuses what
/// something is mounted on (EBUSY), follows no link, and keeps the depth at one however deep containers nested.
fn remove_volumes(pod_dir: &Path) -> io::Result<()> {
    let pod_dir = OwnedFd::from(open_folder(pod_dir)?);
    match mkdirat(&pod_dir, HEAP, Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let heap = Heap::open(&pod_dir)?;
    match heap.take(&pod_dir, VOLUMES) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(error) => return Err(error.into()),
    }
    while heap.remove_once()? {}
    unlinkat(&pod_dir, HEAP, UnlinkatFlags::RemoveDir)?;
    Ok(())
}

/// The folder of folders to be removed.
struct Heap {
    folder: OwnedFd,
    /// Names are numbers; this is the next one that was never used.
    next: std::cell::Cell<u64>,
}

impl Heap {
    fn open(pod_dir: &OwnedFd) -> io::Result<Heap> {
        let folder = open_below(pod_dir, HEAP)?;
        let mut next = 0;
        // An attempt that was cut short may have left some.
        for_each_entry(&folder, |name, _| {
            let number = name.to_str().ok().and_then(|name| name.parse::<u64>().ok());
            next = next.max(number.map_or(0, |number| number + 1));
            Ok(())
        })?;
        Ok(Heap {
            folder,
            next: next.into(),
        })
    }

    /// Moves a folder here.
    fn take<P: ?Sized + nix::NixPath>(&self, from: &OwnedFd, name: &P) -> Result<(), Errno> {
        let number = self.next.replace(self.next.get() + 1);
        renameat(from, name, &self.folder, number.to_string().as_str())
    }

    /// Removes every folder that is here now, which may bring new ones; says whether there was any.
    fn remove_once(&self) -> io::Result<bool> {
        let mut found = false;
        for_each_entry(&self.folder, |name, _| {
            found = true;
            let folder = open_below(&self.folder, name)?;
            for_each_entry(&folder, |name, is_folder| match is_folder {
                true => self.take(&folder, name),
                false => unlinkat(&folder, name, UnlinkatFlags::NoRemoveDir),
            })?;
            match unlinkat(&self.folder, name, UnlinkatFlags::RemoveDir) {
                // The system may leave out entries while others are removed: once more, in the next round.
                Err(Errno::ENOTEMPTY) => Ok(()),
                done => done,
            }
        })?;
        Ok(found)
    }
}

fn open_below<P: ?Sized + nix::NixPath>(folder: &OwnedFd, name: &P) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(folder, name, flags, Mode::empty())
}

/// Calls `act` with the name of each entry and whether it is a folder itself. Entries may come and go meanwhile.
fn for_each_entry(
    folder: &OwnedFd,
    mut act: impl FnMut(&std::ffi::CStr, bool) -> Result<(), Errno>,
) -> Result<(), Errno> {
    // A description of its own, so that each listing begins at the beginning.
    let mut listing = Dir::from_fd(open_below(folder, ".")?)?;
    for entry in listing.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let is_folder = match entry.file_type() {
            Some(kind) => kind == Type::Directory,
            // Some file systems do not say.
            None => {
                let mode = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)?.st_mode;
                SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFDIR
            }
        };
        act(name, is_folder)?;
    }
    Ok(())
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
