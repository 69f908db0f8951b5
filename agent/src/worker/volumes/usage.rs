//! How much of the disk a volume uses. Its contents were made by containers and are not to be trusted: they may hold links
//! to anywhere, mounts, more files than anybody can count, and folders nested without end; and all of it may change while
//! it is read.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::NixPath;
use nix::dir::{Dir, OwningIter};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};

/// How many files and folders of a volume are looked at.
const MAX_ENTRIES: usize = 1_000_000;
/// How deep the folders are followed; each level costs an open file.
const MAX_DEPTH: usize = 100;
/// How many files with several names are remembered, so that each counts once.
const MAX_LINKED: usize = 100_000;
/// The unit of `st_blocks`, in bytes.
const BLOCK: u64 = 512;

/// How a folder is opened: not where a link leads.
const FOLDER: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// What a look at a volume has found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    /// It uses no more than it may.
    Within,
    /// It uses more.
    Exceeds,
    /// What was looked at is within the limit, but not all was: here is why.
    TooMuch(&'static str),
}

/// Compares what a volume uses of its disk with a number of bytes. Looks no further than is needed for that. Blocks.
///
/// # Errors
///
/// Where the volume cannot be read. One that is not there uses nothing.
#[expect(
    clippy::disallowed_methods,
    reason = "the volume's own path is in the state folder, which is root's alone; on a thread that may block"
)]
pub(crate) fn usage(volume: &Path, limit: u64) -> io::Result<Usage> {
    let root = match open(volume, FOLDER, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(Usage::Within),
        opened => opened?,
    };
    let mut walk = Walk {
        limit,
        device: fstat(&root)?.st_dev,
        bytes: 0,
        entries: 0,
        linked: HashSet::new(),
        left_out: None,
    };
    if walk.run(root)? {
        return Ok(Usage::Exceeds);
    }
    Ok(walk.left_out.map_or(Usage::Within, Usage::TooMuch))
}

struct Walk {
    limit: u64,
    /// The volume's own file system: what is mounted in it counts elsewhere.
    device: u64,
    bytes: u64,
    entries: usize,
    /// The inodes with several names that were counted.
    linked: HashSet<u64>,
    left_out: Option<&'static str>,
}

/// A folder that is being read.
struct Level {
    folder: OwnedFd,
    /// Its entries that are still to be looked at.
    listing: OwningIter,
}

impl Level {
    fn of(folder: OwnedFd) -> Result<Level, Errno> {
        // A description of its own, so that both can be read.
        let listing = Dir::from_fd(open_below(&folder, c".")?)?.into_iter();
        Ok(Level { folder, listing })
    }
}

impl Walk {
    /// Looks at everything below the folder; true as soon as it has more than it may.
    fn run(&mut self, root: OwnedFd) -> Result<bool, Errno> {
        let mut levels = vec![Level::of(root)?];
        loop {
            let depth = levels.len();
            let Some(level) = levels.last_mut() else {
                return Ok(false);
            };
            let Some(entry) = level.listing.next() else {
                levels.pop();
                continue;
            };
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                self.left_out = Some("it has more than 1000000 files");
                return Ok(false);
            }
            let found = match fstatat(&level.folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                // It was removed meanwhile.
                Err(Errno::ENOENT) => continue,
                found => found?,
            };
            if found.st_dev != self.device {
                continue;
            }
            let is_folder = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
            if self.count(&found, is_folder) {
                return Ok(true);
            }
            if !is_folder {
                continue;
            }
            if depth > MAX_DEPTH {
                self.left_out = Some("its folders are nested more than 100 deep");
                continue;
            }
            match open_below(&level.folder, name) {
                // It was removed, or replaced, meanwhile.
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
                folder => levels.push(Level::of(folder?)?),
            }
        }
    }

    /// Adds what the entry uses; true where that is more than there may be.
    fn count(&mut self, found: &FileStat, is_folder: bool) -> bool {
        if !is_folder && found.st_nlink > 1 {
            if self.linked.len() >= MAX_LINKED {
                self.left_out = Some("it has more than 100000 files with several names");
                return false;
            }
            if !self.linked.insert(found.st_ino) {
                return false;
            }
        }
        let blocks = u64::try_from(found.st_blocks).unwrap_or(0);
        self.bytes = self.bytes.saturating_add(blocks.saturating_mul(BLOCK));
        self.bytes > self.limit
    }
}

fn open_below<P: ?Sized + NixPath>(folder: &OwnedFd, name: &P) -> Result<OwnedFd, Errno> {
    openat(folder, name, FOLDER, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::private_mounts::{in_private_mounts, mount_memory};

    const KIB: u64 = 1024;

    fn kib(count: usize) -> Vec<u8> {
        vec![1; count * 1024]
    }

    #[test]
    fn a_volume_exceeds_its_limit_by_the_blocks_that_its_own_files_take() {
        in_private_mounts(|root| {
            mount_memory(root, "8m");
            let volume = root.join("volume");
            assert_eq!(usage(&volume, 0).unwrap(), Usage::Within, "it is not there yet");
            fs::create_dir_all(volume.join("a/b")).unwrap();
            fs::write(volume.join("a/b/file"), kib(256)).unwrap();
            assert_eq!(usage(&volume, 255 * KIB).unwrap(), Usage::Exceeds);
            assert_eq!(usage(&volume, 256 * KIB).unwrap(), Usage::Within);

            // None of these takes blocks of this volume.
            fs::hard_link(volume.join("a/b/file"), volume.join("again")).unwrap();
            fs::write(root.join("outside"), kib(256)).unwrap();
            symlink(root.join("outside"), volume.join("link")).unwrap();
            symlink(root, volume.join("a/up")).unwrap();
            fs::File::create(volume.join("sparse"))
                .unwrap()
                .set_len(1 << 40)
                .unwrap();
            fs::create_dir(volume.join("mounted")).unwrap();
            mount_memory(&volume.join("mounted"), "1m");
            fs::write(volume.join("mounted/file"), kib(256)).unwrap();
            assert_eq!(usage(&volume, 256 * KIB).unwrap(), Usage::Within);

            fs::write(volume.join("one more"), "x").unwrap();
            assert_eq!(usage(&volume, 256 * KIB).unwrap(), Usage::Exceeds);
        });
    }

    #[test]
    fn folders_without_end_are_left_out_and_what_was_seen_counts() {
        let root = tempfile::tempdir().unwrap();
        let mut deep = root.path().to_path_buf();
        for _ in 0..MAX_DEPTH + 10 {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("hidden"), kib(256)).unwrap();
        let left_out = usage(root.path(), 64 * 1024 * KIB).unwrap();
        assert!(matches!(left_out, Usage::TooMuch(_)), "{left_out:?}");
        fs::write(root.path().join("seen"), kib(256)).unwrap();
        assert_eq!(usage(root.path(), 128 * KIB).unwrap(), Usage::Exceeds);
    }

    #[test]
    fn a_volume_that_was_replaced_by_a_link_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        symlink("/usr", root.path().join("volume")).unwrap();
        assert!(usage(&root.path().join("volume"), 0).is_err());
    }
}
