//! A file of its owner's alone that is there whole or not at all, also after a power cut: written beside its place,
//! synced, renamed over it, and the folder synced. Blocks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Its owner may read and write it, and nobody else.
const PRIVATE: u32 = 0o600;

/// Puts `bytes` into the file `name` of `folder`. On an error the file is as it was.
pub(crate) fn write(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let beside = folder.join(format!("{name}.new"));
    // One that a crash left behind may have another mode, or be a link.
    remove_if_there(&beside)?;
    let written = write_new(&beside, bytes).and_then(|()| fs::rename(&beside, folder.join(name)));
    if let Err(error) = written {
        // A full disk must not be filled further by what nobody will read.
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    File::open(folder)?.sync_all()
}

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
}
