//! The files that a client was made from, as they were then: by them it is known when it is to be made anew. They may lie
//! on any file system, so they are looked at on threads that may block.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file as it was: another inode, size or time of change means that somebody has written it. A link is followed, since
/// a kubelet renews its certificate by pointing one (`kubelet-client-current.pem`) elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Signature {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

/// Files, each as it was when it was looked at; none where it was not there.
#[derive(Clone, Debug, Default)]
pub(super) struct CredentialFiles(Vec<(PathBuf, Option<Signature>)>);

impl CredentialFiles {
    /// Looks at one more file, on a thread that may block. To be done before it is read, so that a change in between counts
    /// as one.
    pub(super) fn look_at(&mut self, file: &Path) {
        self.0.push((file.to_path_buf(), signature(file)));
    }

    /// Whether all are as they were. Looks on a thread that may block.
    pub(super) async fn are_unchanged(&self) -> bool {
        let files = self.0.clone();
        let look = move || files.iter().all(|(file, before)| signature(file) == *before);
        // Who ends before it has looked has seen nothing.
        tokio::task::spawn_blocking(look).await.unwrap_or(false)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the configuration names these files of the node's owner; on a thread that may block"
)]
fn signature(file: &Path) -> Option<Signature> {
    let metadata = std::fs::metadata(file).ok()?;
    Some(Signature {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_written_replaced_pointed_elsewhere_or_gone_has_changed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("one"), "1").expect("written");
        std::fs::write(path("two"), "2").expect("written");
        let current = path("current");
        let point_at = |name: &str| {
            let link = path("link");
            std::os::unix::fs::symlink(path(name), &link).expect("a link");
            std::fs::rename(link, &current).expect("in its place");
        };
        point_at("one");
        let look = || {
            let mut files = CredentialFiles::default();
            files.look_at(&current);
            files.look_at(&path("later"));
            files
        };
        let files = look();
        assert!(files.are_unchanged().await);
        point_at("two");
        assert!(!files.are_unchanged().await, "the link points elsewhere");
        let files = look();
        std::fs::write(path("two"), "22").expect("written");
        assert!(!files.are_unchanged().await, "it was written");
        let files = look();
        std::fs::write(path("later"), "").expect("written");
        assert!(!files.are_unchanged().await, "it has come");
        let files = look();
        std::fs::remove_file(path("later")).expect("removed");
        assert!(!files.are_unchanged().await, "it has gone");
    }
}
