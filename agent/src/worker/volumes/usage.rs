//! How much of the disk a volume uses. Its contents were made by containers and are not to be trusted: they may hold links
//! to anywhere, mounts, more files than anybody can count, and folders nested without end; and all of it may change while
//! it is read.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::NixPath;
use nix::dir::{Dir, OwningIter};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::Mode;

use crate::untrusted_file::MEASUREMENTS;

/// How far a volume is measured.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// How many files and folders are looked at, and what is said of more.
    entries: (u64, &'static str),
    /// How deep the folders are followed, each level of which costs two open files, and what is said of deeper ones.
    depth: (usize, &'static str),
}

const BOUNDS: Bounds = Bounds {
    entries: (10_000_000, "it has more than 10000000 files"),
    depth: (100, "its folders are nested more than 100 deep"),
};
/// How many files and folders are looked at in one piece: others have their turn in between.
const PIECE: u64 = 20_000;
/// The unit of `st_blocks`, in bytes.
const BLOCK: u64 = 512;

/// How something is looked at: it is not opened, and no link is followed.
const HANDLE: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// How a folder is listed.
const LISTING: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// What a look at a volume has found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    /// It uses no more than it may.
    Within,
    /// It uses more.
    Exceeds,
    /// What was looked at is within the limit, but not all was: here is why. A container that has made that could have any
    /// number of bytes in the rest.
    TooMuch(&'static str),
}

/// Compares what a volume uses of its disk with a number of bytes. Looks no further than is needed for that, and at nothing
/// that is mounted in it, which lies elsewhere and may not answer.
///
/// # Errors
///
/// Where the volume cannot be read, or does not answer. One that is not there uses nothing.
pub(crate) async fn measure(volume: &Path, limit: u64) -> io::Result<Usage> {
    let path = volume.to_path_buf();
    let begin = move || Walk::begin(&path, limit, BOUNDS);
    let Some(mut walk) = MEASUREMENTS.run_io(volume, begin).await? else {
        return Ok(Usage::Within);
    };
    loop {
        let step = move || walk.step(PIECE);
        walk = match MEASUREMENTS.run_io(volume, step).await? {
            Step::GoOn(on) => on,
            Step::Done(usage) => return Ok(usage),
        };
    }
}

/// A volume that is being measured. All of it blocks.
struct Walk {
    limit: u64,
    bounds: Bounds,
    /// The volume's own file system.
    device: u64,
    bytes: u64,
    entries: u64,
    levels: Vec<Level>,
    left_out: Option<&'static str>,
}

/// What came of one piece of it.
enum Step {
    /// There is more.
    GoOn(Box<Walk>),
    Done(Usage),
}

/// A folder that is being read.
struct Level {
    folder: File,
    /// Its entries that are still to be looked at.
    listing: OwningIter,
}

impl Level {
    fn of(folder: File) -> Result<Level, Errno> {
        let listing = Dir::from_fd(openat(&folder, c".", LISTING, Mode::empty())?)?.into_iter();
        Ok(Level { folder, listing })
    }
}

impl Walk {
    /// Opens the volume; nothing where it is not there, or where something is mounted over it, which hides it.
    #[expect(
        clippy::disallowed_methods,
        reason = "the folder of the volumes is in the state folder, which is root's alone; on a thread of MEASUREMENTS"
    )]
    fn begin(volume: &Path, limit: u64, bounds: Bounds) -> io::Result<Option<Box<Walk>>> {
        let (Some(parent), Some(name)) = (volume.parent(), volume.file_name()) else {
            return Err(Errno::EINVAL.into());
        };
        let parent = match open(parent, HANDLE | OFlag::O_DIRECTORY, Mode::empty()) {
            Err(Errno::ENOENT) => return Ok(None),
            opened => opened?,
        };
        let Some(root) = look_at(&parent, name)? else {
            return Ok(None);
        };
        let device = root.metadata()?.dev();
        Ok(Some(Box::new(Walk {
            limit,
            bounds,
            device,
            bytes: 0,
            entries: 0,
            levels: vec![Level::of(root)?],
            left_out: None,
        })))
    }

    /// Looks at `most` entries more, or as far as it has to.
    fn step(mut self: Box<Self>, most: u64) -> io::Result<Step> {
        for _ in 0..most {
            if let Some(usage) = self.next()? {
                return Ok(Step::Done(usage));
            }
        }
        Ok(Step::GoOn(self))
    }

    /// Looks at one entry; answers what has come of the whole once that is clear.
    fn next(&mut self) -> io::Result<Option<Usage>> {
        let depth = self.levels.len();
        let Some(level) = self.levels.last_mut() else {
            return Ok(Some(self.left_out.map_or(Usage::Within, Usage::TooMuch)));
        };
        let Some(entry) = level.listing.next() else {
            self.levels.pop();
            return Ok(None);
        };
        let entry = match entry {
            // The folder was removed meanwhile.
            Err(Errno::ENOENT) => {
                self.levels.pop();
                return Ok(None);
            }
            entry => entry?,
        };
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            return Ok(None);
        }
        self.entries += 1;
        let (most, why) = self.bounds.entries;
        if self.entries > most {
            return Ok(Some(Usage::TooMuch(why)));
        }
        let Some(handle) = look_at(&level.folder, name)? else {
            return Ok(None);
        };
        let found = handle.metadata()?;
        if found.dev() != self.device {
            return Ok(None);
        }
        let is_folder = found.is_dir();
        self.bytes = self.bytes.saturating_add(bytes_of(&found));
        if self.bytes > self.limit {
            return Ok(Some(Usage::Exceeds));
        }
        let (deepest, why) = self.bounds.depth;
        if is_folder && depth > deepest {
            self.left_out = Some(why);
        } else if is_folder {
            self.levels.push(Level::of(handle)?);
        }
        Ok(None)
    }
}

/// What one name of a file stands for: of a file with several names an equal share each, so that all of them together come
/// to what it uses, and none has to be remembered.
fn bytes_of(found: &Metadata) -> u64 {
    let bytes = found.blocks().saturating_mul(BLOCK);
    let names = if found.is_dir() { 1 } else { found.nlink() };
    bytes.div_ceil(names.max(1))
}

/// A handle of what has this name in the folder. Nothing where it was removed meanwhile, and where something is mounted: that
/// is not touched, as it may not answer.
fn look_at<P: ?Sized + NixPath>(folder: impl AsFd, name: &P) -> Result<Option<File>, Errno> {
    let within = OpenHow::new().flags(HANDLE).resolve(ResolveFlag::RESOLVE_NO_XDEV);
    let handle = match openat2(&folder, name, within) {
        // Not known before Linux 5.6, or not allowed. Another device shows a mount then, once it has answered.
        Err(Errno::ENOSYS | Errno::EPERM) => openat(&folder, name, HANDLE, Mode::empty()),
        handle => handle,
    };
    match handle {
        Err(Errno::ENOENT | Errno::EXDEV) => Ok(None),
        handle => Ok(Some(File::from(handle?))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::private_mounts::{in_private_mounts, mount_memory};
    use crate::untrusted_file::dead_server::DeadServer;

    const KIB: u64 = 1024;

    /// Measures in pieces of any size, which come to the same.
    fn usage_within(volume: &Path, limit: u64, bounds: Bounds) -> io::Result<Usage> {
        let mut found = [1, 7, u64::MAX].map(|piece| -> io::Result<Usage> {
            let Some(mut walk) = Walk::begin(volume, limit, bounds)? else {
                return Ok(Usage::Within);
            };
            loop {
                match walk.step(piece)? {
                    Step::GoOn(on) => walk = on,
                    Step::Done(usage) => return Ok(usage),
                }
            }
        });
        if let [Ok(one), Ok(seven), Ok(all)] = &found {
            assert!(one == seven && seven == all, "{found:?}");
        }
        std::mem::replace(&mut found[0], Ok(Usage::Within))
    }

    fn usage(volume: &Path, limit: u64) -> io::Result<Usage> {
        usage_within(volume, limit, BOUNDS)
    }

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
            File::create(volume.join("sparse"))
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
    fn more_folders_or_files_than_can_be_followed_are_told_and_what_was_seen_counts() {
        let root = tempfile::tempdir().unwrap();
        let mut deep = root.path().to_path_buf();
        for _ in 0..BOUNDS.depth.0 + 10 {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("hidden"), kib(256)).unwrap();
        let too_deep = Usage::TooMuch("its folders are nested more than 100 deep");
        assert_eq!(usage(root.path(), 64 * 1024 * KIB).unwrap(), too_deep);
        fs::write(root.path().join("seen"), kib(256)).unwrap();
        assert_eq!(usage(root.path(), 128 * KIB).unwrap(), Usage::Exceeds);

        let (volume, few) = (root.path().join("volume"), (3, "it has more than 3 files"));
        fs::create_dir(&volume).unwrap();
        let bounds = Bounds {
            entries: few,
            ..BOUNDS
        };
        for name in ["a", "b", "c"] {
            fs::write(volume.join(name), "x").unwrap();
            let found = usage_within(&volume, 1024 * KIB, bounds).unwrap();
            assert_eq!(found, Usage::Within);
        }
        fs::write(volume.join("d"), "x").unwrap();
        let found = usage_within(&volume, 1024 * KIB, bounds).unwrap();
        assert_eq!(found, Usage::TooMuch("it has more than 3 files"));
    }

    #[test]
    fn a_file_of_any_number_of_names_counts_once_and_one_of_them_hides_no_other_file() {
        in_private_mounts(|root| {
            mount_memory(root, "8m");
            let volume = root.join("volume");
            fs::create_dir(&volume).unwrap();
            let page = vec![1; 4096];
            for file in 0..32 {
                let first = volume.join(format!("{file}-0"));
                fs::write(&first, &page).unwrap();
                for name in 1..100 {
                    fs::hard_link(&first, volume.join(format!("{file}-{name}"))).unwrap();
                }
            }
            assert_eq!(usage(&volume, 127 * KIB).unwrap(), Usage::Exceeds);
            // Each name's share is rounded up, to a byte.
            assert_eq!(usage(&volume, 132 * KIB).unwrap(), Usage::Within);
        });
    }

    #[test]
    fn a_file_system_in_a_volume_whose_server_is_dead_is_not_touched() {
        in_private_mounts(|root| {
            mount_memory(root, "8m");
            let volume = root.join("volume");
            fs::create_dir_all(volume.join("a/mounted")).unwrap();
            fs::write(volume.join("a/file"), kib(256)).unwrap();
            let _dead = DeadServer::mount_at(&volume.join("a/mounted"));
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let measured = |limit: u64| runtime.block_on(measure(&volume, limit)).unwrap();
            assert_eq!(measured(256 * KIB), Usage::Within);
            assert_eq!(measured(255 * KIB), Usage::Exceeds);

            // Nor is one that was mounted over the volume, which hides what is in it.
            let _dead = DeadServer::mount_at(&volume);
            assert_eq!(measured(0), Usage::Within);
        });
    }

    #[test]
    fn a_volume_that_was_replaced_by_a_link_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        symlink("/usr", root.path().join("volume")).unwrap();
        assert!(usage(&root.path().join("volume"), 0).is_err());
    }
}
