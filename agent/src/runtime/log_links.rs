//! The links through which log shippers find containers' logs: `/var/log/containers`, as the kubelet keeps it.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use crate::untrusted_file::Folder;

/// The folder's name beside the folder of the pods' logs.
const FOLDER: &str = "containers";

/// The folder of links.
#[derive(Clone, Debug)]
pub(crate) struct LogLinks {
    folder: PathBuf,
}

impl LogLinks {
    /// The folder that belongs to a folder of pods' logs: `/var/log/containers` to `/var/log/pods`.
    pub(crate) fn beside(log_dir: &Path) -> LogLinks {
        LogLinks {
            folder: log_dir.parent().unwrap_or(log_dir).join(FOLDER),
        }
    }

    /// Links a container's log file. The file may be missing still; a link that is there already is made anew. Blocks.
    #[expect(
        clippy::disallowed_methods,
        reason = "the folder of links is root's; callers are on threads of their own"
    )]
    pub(crate) fn create(&self, name: &str, log_file: &Path) -> io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let folder = Folder::open(&self.folder)?;
        let name = OsStr::new(name);
        match folder.make_link(name, log_file) {
            Err(there) if there.kind() == io::ErrorKind::AlreadyExists => {
                if folder.target_of(name).is_ok_and(|target| target == log_file) {
                    return Ok(());
                }
                folder.remove_file(name)?;
                folder.make_link(name, log_file)
            }
            made => made,
        }
    }

    /// Removes a container's link, if there is one. Blocks.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        let removed = Folder::open(&self.folder).and_then(|folder| folder.remove_file(OsStr::new(name)));
        match removed {
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Removes every link to a file in one of these folders: those of pods that are gone. Blocks.
    pub(crate) fn remove_into(&self, folders: &[PathBuf]) -> io::Result<()> {
        let links = match Folder::open(&self.folder) {
            Ok(links) => links,
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(failed) => return Err(failed),
        };
        for name in links.names()? {
            let Ok(target) = links.target_of(&name) else {
                continue;
            };
            if folders.iter().any(|folder| target.starts_with(folder)) {
                links.remove_file(&name)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stand_beside_the_logs_and_go_with_their_pod() {
        let root = tempfile::tempdir().unwrap();
        let logs = root.path().join("pods");
        let links = LogLinks::beside(&logs);
        let file = |pod: &str| logs.join(format!("shop_{pod}_uid/app/0.log"));
        let link = |pod: &str| root.path().join(format!("containers/{pod}_shop_app-1.log"));
        for pod in ["a", "b", "c"] {
            let name = format!("{pod}_shop_app-1.log");
            links.create(&name, Path::new("/elsewhere")).unwrap();
            for _ in 0..2 {
                links.create(&name, &file(pod)).unwrap();
            }
            assert_eq!(std::fs::read_link(link(pod)).unwrap(), file(pod));
        }
        std::fs::write(root.path().join("containers/notes"), "a file").unwrap();
        for _ in 0..2 {
            links.remove("a_shop_app-1.log").unwrap();
            links.remove_into(&[logs.join("shop_b_uid")]).unwrap();
        }
        let mut left: Vec<_> = std::fs::read_dir(root.path().join("containers"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        left.sort();
        assert_eq!(left, [link("c"), root.path().join("containers/notes")]);
    }
}
