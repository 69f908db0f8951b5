//! Logs of a container's earlier life: state that is lost does not tell that a container ran, but its log does.

use std::path::{Path, PathBuf};

use crate::untrusted_file::{Folder, LOGS, NoAnswer};

/// Whether there is anything in `folder`, the folder of one container's logs. One that cannot be read counts as a log.
///
/// The folder may be on a disk that does not answer, and a container may have written to it: it is looked at on the threads
/// for logs, and never under a lock.
///
/// # Errors
///
/// When the disk does not answer in time.
pub(crate) async fn are_in(folder: &Path) -> Result<bool, NoAnswer> {
    let of_container: PathBuf = folder.to_path_buf();
    let look = move || match Folder::open(&of_container).and_then(|folder| folder.is_empty()) {
        Ok(empty) => !empty,
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    };
    LOGS.run(folder, look).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_there_or_cannot_be_read_counts_as_a_log() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("container");
        assert_eq!(are_in(&folder).await, Ok(false), "it is not there");
        std::fs::create_dir(&folder).unwrap();
        assert_eq!(are_in(&folder).await, Ok(false), "it is empty");
        std::fs::write(folder.join("0.log"), "").unwrap();
        assert_eq!(are_in(&folder).await, Ok(true));
        assert_eq!(are_in(&folder.join("0.log")).await, Ok(true), "it is no folder");
    }
}
