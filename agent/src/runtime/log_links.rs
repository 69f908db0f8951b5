//! The links through which log shippers find containers' logs: `/var/log/containers`, as the kubelet keeps it.

use std::io;
use std::path::{Path, PathBuf};

/// The longest file name of the file systems that Linux has.
const MAX_NAME_BYTES: usize = 255;
const SUFFIX: &str = ".log";
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

    /// Links a container's log file. The file may be missing still; a link that is there already is made anew.
    pub(crate) fn create(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        container_id: &str,
        log_file: &Path,
    ) -> io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let link = self.folder.join(name(namespace, pod, container, container_id));
        match std::os::unix::fs::symlink(log_file, &link) {
            Err(there) if there.kind() == io::ErrorKind::AlreadyExists => {
                if std::fs::read_link(&link).is_ok_and(|target| target == log_file) {
                    return Ok(());
                }
                std::fs::remove_file(&link)?;
                std::os::unix::fs::symlink(log_file, &link)
            }
            made => made,
        }
    }

    /// Removes a container's link, if there is one.
    pub(crate) fn remove(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        container_id: &str,
    ) -> io::Result<()> {
        let link = self.folder.join(name(namespace, pod, container, container_id));
        match std::fs::remove_file(link) {
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Removes every link to a file in one of these folders: those of pods that are gone.
    pub(crate) fn remove_into(&self, folders: &[PathBuf]) -> io::Result<()> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(failed) => return Err(failed),
        };
        for entry in entries {
            let link = entry?.path();
            let Ok(target) = std::fs::read_link(&link) else {
                continue;
            };
            if folders.iter().any(|folder| target.starts_with(folder)) {
                std::fs::remove_file(&link)?;
            }
        }
        Ok(())
    }
}

/// `POD_NAMESPACE_CONTAINER-ID.log`, cut where a file system would not take it.
fn name(namespace: &str, pod: &str, container: &str, container_id: &str) -> String {
    let mut name = format!("{pod}_{namespace}_{container}-{container_id}");
    // All four parts are ASCII by Kubernetes' and the runtime's rules; a cut inside of something else keeps it whole.
    name.truncate(name.floor_char_boundary(MAX_NAME_BYTES - SUFFIX.len()));
    name + SUFFIX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_called_as_the_kubelet_calls_it() {
        assert_eq!(name("shop", "cart", "app", "0a1b"), "cart_shop_app-0a1b.log");
        let long = name("n", &"p".repeat(253), "c", "0a1b");
        assert_eq!(long.len(), MAX_NAME_BYTES);
        assert!(long.ends_with("p.log"));
    }

    #[test]
    fn links_stand_beside_the_logs_and_go_with_their_pod() {
        let root = tempfile::tempdir().unwrap();
        let logs = root.path().join("pods");
        let links = LogLinks::beside(&logs);
        let file = |pod: &str| logs.join(format!("shop_{pod}_uid/app/0.log"));
        let link = |pod: &str| root.path().join(format!("containers/{pod}_shop_app-1.log"));
        for pod in ["a", "b", "c"] {
            links
                .create("shop", pod, "app", "1", Path::new("/elsewhere"))
                .unwrap();
            for _ in 0..2 {
                links.create("shop", pod, "app", "1", &file(pod)).unwrap();
            }
            assert_eq!(std::fs::read_link(link(pod)).unwrap(), file(pod));
        }
        std::fs::write(root.path().join("containers/notes"), "a file").unwrap();
        for _ in 0..2 {
            links.remove("shop", "a", "app", "1").unwrap();
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
