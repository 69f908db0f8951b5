//! A file of its owner's alone that is there whole or not at all, also after a power cut: written beside its place,
//! synced, renamed over it, and the folder synced. Blocks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Its owner may read and write it, and nobody else.
const PRIVATE: u32 = 0o600;

/// Why a file was not written so that it would survive a power cut.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The file is as it was.
    #[error(transparent)]
    NotWritten(io::Error),
    /// Whoever reads the file finds the new content, and after a power cut either the new or the old one: the folder
    /// could not be synced after the rename.
    #[error("it is written, but may not survive a power cut: its folder cannot be synced: {0}")]
    NotSynced(io::Error),
}

impl WriteError {
    /// Whether the disk, or the share of it that is ours, is full.
    pub(crate) fn is_full(&self) -> bool {
        let (WriteError::NotWritten(error) | WriteError::NotSynced(error)) = self;
        is_full(error)
    }
}

impl From<WriteError> for io::Error {
    fn from(error: WriteError) -> io::Error {
        match error {
            WriteError::NotWritten(source) => source,
            WriteError::NotSynced(ref source) => io::Error::new(source.kind(), error.to_string()),
        }
    }
}

/// Whether a file operation failed because the disk, or the share of it that is ours, is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Puts `bytes` into the file `name` of `folder`.
///
/// # Errors
///
/// [`WriteError`] says which content the file has.
pub(crate) fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), WriteError> {
    write_with(folder, name, bytes, &sync_folder)
}

/// [`write`] with another way to sync the folder, which a test can have fail.
#[expect(
    clippy::disallowed_methods,
    reason = "the state folder is root's alone; callers are on threads that may block"
)]
pub(crate) fn write_with(
    folder: &Path,
    name: &str,
    bytes: &[u8],
    sync_folder: &dyn Fn(&Path) -> io::Result<()>,
) -> Result<(), WriteError> {
    let beside = folder.join(format!("{name}.new"));
    // One that a crash left behind may have another mode, or be a link.
    remove_if_there(&beside).map_err(WriteError::NotWritten)?;
    let written = write_new(&beside, bytes).and_then(|()| fs::rename(&beside, folder.join(name)));
    if let Err(error) = written {
        // A full disk must not be filled further by what nobody will read.
        let _ = fs::remove_file(&beside);
        return Err(WriteError::NotWritten(error));
    }
    sync_folder(folder).map_err(WriteError::NotSynced)
}

/// Makes durable which files are in the folder, and under which names.
#[expect(
    clippy::disallowed_methods,
    reason = "the state folder is root's alone; callers are on threads that may block"
)]
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the state folder is root's alone; callers are on threads that may block"
)]
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Removes a file; one that is not there is as good as removed.
#[expect(
    clippy::disallowed_methods,
    reason = "the state folder is root's alone; callers are on threads that may block"
)]
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_for_its_owner_alone_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("key.new"), "left by a crash").expect("written");
        fs::write(folder.path().join("key"), "old").expect("written");
        write(folder.path(), "key", b"new").expect("written");
        let path = folder.path().join("key");
        assert_eq!(fs::read(&path).expect("read"), b"new");
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn an_error_says_whether_the_file_has_the_old_content_or_the_new() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("record");
        write(folder.path(), "record", b"old").expect("written");
        let failing = |_: &Path| Err(io::Error::from(io::ErrorKind::StorageFull));
        let error = write_with(folder.path(), "record", b"new", &failing).expect_err("not synced");
        assert!(matches!(error, WriteError::NotSynced(_)), "{error}");
        assert!(error.is_full());
        assert_eq!(fs::read(&path).expect("read"), b"new");

        fs::create_dir(folder.path().join("record.new")).expect("in the way");
        let error = write(folder.path(), "record", b"newer").expect_err("not written");
        assert!(matches!(error, WriteError::NotWritten(_)), "{error}");
        assert!(!error.is_full());
        assert_eq!(fs::read(&path).expect("read"), b"new");
    }
}
