//! For tests: a file system whose server is down.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// A file system whose server never answers: `/dev/fuse` is open, and nobody reads from it. It ends when dropped.
pub(crate) struct DeadServer {
    folder: PathBuf,
    /// Removed with it.
    own_folder: Option<tempfile::TempDir>,
    _connection: std::fs::File,
}

impl DeadServer {
    /// Mounts one at a folder of its own.
    pub(crate) fn mount() -> DeadServer {
        let folder = tempfile::tempdir().expect("a folder");
        let mut server = DeadServer::mount_at(folder.path());
        server.own_folder = Some(folder);
        server
    }

    /// Mounts one at this folder.
    pub(crate) fn mount_at(folder: &Path) -> DeadServer {
        let connection = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .expect("FUSE, as root");
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0",
            connection.as_raw_fd()
        );
        nix::mount::mount(
            Some("dead"),
            folder,
            Some("fuse"),
            nix::mount::MsFlags::empty(),
            Some(options.as_str()),
        )
        .expect("mounted");
        DeadServer {
            folder: folder.to_path_buf(),
            own_folder: None,
            _connection: connection,
        }
    }

    /// Where it is mounted.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for DeadServer {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.folder, nix::mount::MntFlags::MNT_DETACH);
    }
}
