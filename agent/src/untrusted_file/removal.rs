//! The removal of a folder whose content others made: it may hold links to anywhere, mounts, and folders nested deeper
//! than any stack.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::OwnedFd;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::folder::{Folder, one_name};

impl Folder {
    /// Removes what has this name in the folder, with all that is in it; nothing where there is nothing. Each folder is
    /// moved to `heap`, a folder in this one, before it is opened: that refuses what something is mounted on (EBUSY),
    /// follows no link, and keeps the depth at one however deep others nested. What was left in the heap by a try that
    /// was cut short goes, too. Blocks, as long as there are files.
    pub(crate) fn remove_tree(&self, name: &OsStr, heap: &OsStr) -> io::Result<()> {
        let (name, heap) = (one_name(name)?, one_name(heap)?);
        let folders = match mkdirat(self.handle(), heap, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {
                let folders = Heap::open(self.handle(), heap)?;
                match folders.take(self.handle(), name) {
                    Ok(()) | Err(Errno::ENOENT) => folders,
                    Err(error) => return Err(error.into()),
                }
            }
            // What is to be removed may be what fills the disk: then its folder becomes the heap.
            Err(Errno::ENOSPC | Errno::EDQUOT) => match self.become_heap(name, heap)? {
                Some(folders) => folders,
                None => return Ok(()),
            },
            Err(error) => return Err(error.into()),
        };
        while folders.remove_once()? {}
        unlinkat(self.handle(), heap, UnlinkatFlags::RemoveDir)?;
        Ok(())
    }

    /// Renames a folder to the heap; none where there is no folder, or no more.
    fn become_heap(&self, name: &OsStr, heap: &OsStr) -> io::Result<Option<Heap>> {
        match fstatat(self.handle(), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) if is_folder(found.st_mode) => {}
            Ok(_) => {
                unlinkat(self.handle(), name, UnlinkatFlags::NoRemoveDir)?;
                return Ok(None);
            }
            Err(Errno::ENOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        renameat(self.handle(), name, self.handle(), heap)?;
        let folders = Heap::open(self.handle(), heap)?;
        // As if each had been moved here: what something is mounted on refuses that.
        let mut inner = Vec::new();
        for_each_entry(&folders.folder, |name, is_folder| {
            inner.extend(is_folder.then(|| name.to_owned()));
            Ok(())
        })?;
        for name in inner {
            folders.take(&folders.folder, name.as_c_str())?;
        }
        Ok(Some(folders))
    }
}

fn is_folder(mode: u32) -> bool {
    SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFDIR
}

/// The folder of folders to be removed.
struct Heap {
    folder: OwnedFd,
    /// Names are numbers; this is the next one that was never used.
    next: std::cell::Cell<u64>,
}

impl Heap {
    fn open(parent: &OwnedFd, name: &OsStr) -> io::Result<Heap> {
        let folder = open_below(parent, name)?;
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
        for_each_entry(&self.folder, |name, is_folder| {
            found = true;
            if !is_folder {
                return unlinkat(&self.folder, name, UnlinkatFlags::NoRemoveDir);
            }
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
    mut act: impl FnMut(&CStr, bool) -> Result<(), Errno>,
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
                let found = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
                is_folder(found.st_mode)
            }
        };
        act(name, is_folder)?;
    }
    Ok(())
}
