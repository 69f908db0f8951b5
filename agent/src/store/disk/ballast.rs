//! Room on the disk that is kept for what ends something. A full disk must be able to be left: to stop a container or to
//! delete a pod a few blocks are needed, so they are taken in advance, as a file, and given up when there are no others.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::statvfs;

use crate::durable_file::WriteError;

/// The file in the state folder.
const FILE: &str = "ballast";
/// How many bytes it has: enough for some dozens of records on any file system.
pub(super) const BALLAST_BYTES: u64 = 256 * 1024;
/// How many of them are given up at a time: what fills the disk may take them before the write does, which then gives up
/// the next ones.
const PIECE_BYTES: u64 = 32 * 1024;
/// How much must be free beside the ballast before it is made again, so that it is not the ballast that fills the disk.
const MARGIN_BYTES: u64 = BALLAST_BYTES;

/// Which room a write may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// What is free: the write begins something.
    Free,
    /// The ballast too: the write ends something, and what ends may be what fills the disk.
    Kept,
}

/// The file that keeps the room. The state folder owns it; its lock is held while the file changes its size.
#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
    resizing: Mutex<()>,
}

impl Ballast {
    /// The ballast of this state folder. Nothing is written yet.
    pub(super) fn of(state_dir: &Path) -> Ballast {
        Ballast {
            path: state_dir.join(FILE),
            resizing: Mutex::default(),
        }
    }

    /// Tries a write. Where the room that is kept is for it, it is tried again with more room as long as the disk is full
    /// and there is ballast.
    pub(super) fn make_room(
        &self,
        room: Room,
        mut write: impl FnMut() -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        loop {
            match write() {
                Err(error) if room == Room::Kept && error.is_full() && self.give_up_a_piece() => {}
                outcome => return outcome,
            }
        }
    }

    /// Gives up a piece of it; false where there is none left, or it cannot be given up.
    #[expect(
        clippy::disallowed_methods,
        reason = "the state folder is root's alone; callers are on threads that may block"
    )]
    fn give_up_a_piece(&self) -> bool {
        let _resizing = self.resizing.lock().unwrap_or_else(PoisonError::into_inner);
        let given_up = || -> io::Result<bool> {
            let file = OpenOptions::new().write(true).open(&self.path)?;
            let bytes = file.metadata()?.len();
            if bytes == 0 {
                return Ok(false);
            }
            file.set_len(bytes.saturating_sub(PIECE_BYTES))?;
            // Some file systems free the blocks only with the next commit of their journal.
            file.sync_all()?;
            Ok(true)
        };
        given_up().unwrap_or(false)
    }

    /// How many bytes of it are there.
    #[expect(
        clippy::disallowed_methods,
        reason = "the state folder is root's alone; callers are on threads that may block"
    )]
    pub(super) fn bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |file| file.len())
    }

    /// Makes the whole ballast where it is missing or was given up.
    ///
    /// # Errors
    ///
    /// Where there is not enough room for it, and as much beside it, or the file cannot be made.
    #[expect(
        clippy::disallowed_methods,
        reason = "the state folder is root's alone; callers are on threads that may block"
    )]
    pub(super) fn restore(&self) -> io::Result<()> {
        let _resizing = self.resizing.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = self.bytes();
        if bytes >= BALLAST_BYTES {
            return Ok(());
        }
        let folder = self.path.parent().unwrap_or(&self.path);
        if free_bytes(folder)? < BALLAST_BYTES - bytes + MARGIN_BYTES {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&self.path)?;
        let made = allocate(&file).and_then(|()| file.sync_all());
        if made.is_err() {
            let _ = file.set_len(bytes);
        }
        made
    }
}

/// How many bytes are free on the file system of a folder, those that it keeps for root included: the agent is root.
#[expect(
    clippy::disallowed_methods,
    reason = "the state folder is root's alone; callers are on threads that may block"
)]
fn free_bytes(folder: &Path) -> io::Result<u64> {
    let space = statvfs(folder)?;
    // The widths of these fields differ between machines.
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
    let (block, free) = (space.fragment_size() as u64, u64::from(space.blocks_free()));
    Ok(free.saturating_mul(block))
}

/// Has the file system set the blocks aside; they are written where it cannot.
fn allocate(file: &File) -> io::Result<()> {
    let length = i64::try_from(BALLAST_BYTES).unwrap_or(i64::MAX);
    match fallocate(file, FallocateFlags::empty(), 0, length) {
        Ok(()) => Ok(()),
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => fill(file),
        Err(error) => Err(error.into()),
    }
}

/// Fills the file with bytes that no file system compresses to nothing.
fn fill(file: &File) -> io::Result<()> {
    let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
    let words = std::iter::repeat_with(|| {
        // Xorshift: what it gives need not be secret, only not regular.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let count = usize::try_from(BALLAST_BYTES / 8).unwrap_or(usize::MAX);
    let bytes: Vec<u8> = words.take(count).flatten().collect();
    file.write_all_at(&bytes, 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_ballast_takes_its_blocks_however_they_are_taken() {
        for by_hand in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let ballast = Ballast::of(folder.path());
            if by_hand {
                let file = File::create(&ballast.path).unwrap();
                fill(&file).unwrap();
                file.sync_all().unwrap();
            } else {
                ballast.restore().unwrap();
            }
            let file = std::fs::metadata(&ballast.path).unwrap();
            assert_eq!(file.len(), BALLAST_BYTES);
            assert!(file.blocks() * 512 >= BALLAST_BYTES, "{}", file.blocks());
        }
    }

    #[test]
    fn only_a_write_that_ends_something_gets_the_room_that_is_kept_piece_by_piece() {
        let folder = tempfile::tempdir().unwrap();
        let ballast = Ballast::of(folder.path());
        let full = || Err(WriteError::NotWritten(io::ErrorKind::StorageFull.into()));
        ballast.restore().unwrap();
        ballast.make_room(Room::Free, full).unwrap_err();
        assert_eq!(ballast.bytes(), BALLAST_BYTES);

        let mut tries = 0;
        let third_time = || {
            tries += 1;
            if tries < 3 { full() } else { Ok(()) }
        };
        ballast.make_room(Room::Kept, third_time).unwrap();
        assert_eq!(ballast.bytes(), BALLAST_BYTES - 2 * PIECE_BYTES);

        // A share of the disk that is used up is a full disk; another error is none.
        let broken = || Err(WriteError::NotWritten(Errno::EIO.into()));
        ballast.make_room(Room::Kept, broken).unwrap_err();
        assert_eq!(ballast.bytes(), BALLAST_BYTES - 2 * PIECE_BYTES);
        let quota = || Err(WriteError::NotWritten(Errno::EDQUOT.into()));
        ballast.make_room(Room::Kept, quota).unwrap_err();
        assert_eq!(ballast.bytes(), 0);
        ballast.restore().unwrap();
        assert_eq!(ballast.bytes(), BALLAST_BYTES);
    }
}
