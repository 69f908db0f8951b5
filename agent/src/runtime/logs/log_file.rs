//! Where a log is: a file and what was rotated away from it, in a folder that others may write into.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::untrusted_file::{Folder, LOG_FOLDERS, LOGS, NoAnswer};

/// The mode of the folders that are made for logs, as a kubelet makes them.
const FOLDER_MODE: u32 = 0o755;

/// The file of a log. No link is followed below the folder of all pods' logs; where the log lies elsewhere, none below
/// its own folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogFile {
    /// The folder whose own path is trusted.
    base: PathBuf,
    /// The log's folder below it, if it is another.
    below: Option<PathBuf>,
    path: PathBuf,
}

impl LogFile {
    /// The log at `path`, as the runtime or a record tells it; `log_dir` is the folder of all pods' logs.
    pub(crate) fn new(log_dir: &Path, path: &Path) -> LogFile {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let (base, below) = match folder.strip_prefix(log_dir) {
            Ok(below) if !below.as_os_str().is_empty() => (log_dir, Some(below.to_path_buf())),
            _ => (folder, None),
        };
        LogFile {
            base: base.to_path_buf(),
            below,
            path: path.to_path_buf(),
        }
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its folder's path.
    pub(super) fn folder_path(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// Its name in the folder; empty where the path names none, which no file is called.
    pub(super) fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }

    /// Its folder, open. Blocks.
    pub(super) fn folder(&self) -> io::Result<Folder> {
        let base = Folder::open(&self.base)?;
        match &self.below {
            Some(below) => base.folder(below),
            None => Ok(base),
        }
    }

    /// Makes its folder where that is missing, so that the runtime can write it.
    ///
    /// # Errors
    /// Also where something that is no regular file has its name: the runtime would write into that.
    #[expect(
        clippy::disallowed_methods,
        reason = "the path of the folder is trusted, and this is a thread for logs"
    )]
    pub(crate) async fn prepare(&self) -> io::Result<()> {
        let log = self.clone();
        let prepare = move || {
            std::fs::create_dir_all(&log.base)?;
            let mut folder = Folder::open(&log.base)?;
            for name in log.below.iter().flatten() {
                folder = folder.make_folder(name, FOLDER_MODE)?;
            }
            match folder.metadata(Path::new(log.name())) {
                Ok(found) if !found.is_file() => {
                    Err(io::Error::other("there is something that is not a regular file"))
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Ok(_) | Err(_) => Ok(()),
            }
        };
        let threads = match self.below {
            Some(_) => &LOG_FOLDERS,
            None => &LOGS,
        };
        threads.run_io(&self.path, prepare).await
    }

    /// Removes it. Blocks.
    pub(crate) fn remove(&self) -> io::Result<()> {
        self.folder()?.remove_file(self.name())
    }

    /// Removes it and what was rotated away from it: every file whose name begins with its own. Blocks.
    pub(crate) fn remove_with_rotated(&self) -> io::Result<()> {
        let folder = self.folder()?;
        // Somebody else's container may have had the name, before or since: its logs are called otherwise.
        let own_name = self.name().as_bytes();
        if own_name.is_empty() {
            return Ok(());
        }
        for name in folder.names()? {
            if name.as_bytes().starts_with(own_name) {
                folder.remove_file(&name)?;
            }
        }
        Ok(())
    }

    /// Removes its folder and, below the folder of all pods' logs, the pod's, where nothing is in them. Blocks.
    pub(crate) fn remove_empty_folders(&self) {
        let below = match &self.below {
            Some(below) => below.as_path(),
            None => Path::new(self.base.file_name().unwrap_or_default()),
        };
        let base = match &self.below {
            Some(_) => &self.base,
            None => self.base.parent().unwrap_or(&self.base),
        };
        // Not empty: there is something that is not ours. So is a folder elsewhere that the sandbox named.
        let remove = |folder: &Path| -> io::Result<()> {
            let base = Folder::open(base)?;
            let name = folder.file_name().unwrap_or_default();
            match folder.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => base.folder(parent)?.remove_folder(name),
                _ => base.remove_folder(name),
            }
        };
        let removed = remove(below);
        if removed.is_ok()
            && self.below.is_some()
            && let Some(of_pod) = below.parent().filter(|of_pod| !of_pod.as_os_str().is_empty())
        {
            let _ = remove(of_pod);
        }
    }

    /// Whether there is anything at its path.
    ///
    /// # Errors
    /// When nobody can say, as its disk does not answer. A path that leads over a link, or is none, has nothing at it.
    pub(crate) async fn is_there(&self) -> Result<bool, NoAnswer> {
        let log = self.clone();
        let look = move || log.folder()?.metadata(Path::new(log.name())).map(|_| ());
        LOGS.run(&self.path, move || look().is_ok()).await
    }
}

/// Makes the folder of this name for a pod's logs below that of all pods' logs.
#[expect(
    clippy::disallowed_methods,
    reason = "the path of the folder is trusted, and this is a thread of LOG_FOLDERS"
)]
pub(crate) async fn make_pod_folder(log_dir: &Path, name: &str) -> io::Result<()> {
    let (path, name) = (log_dir.to_path_buf(), OsString::from(name));
    let make = move || {
        std::fs::create_dir_all(&path)?;
        Folder::open(&path)?.make_folder(&name, FOLDER_MODE).map(drop)
    };
    LOG_FOLDERS.run_io(log_dir, make).await
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_link_below_the_folder_of_all_logs_leads_to_a_log_and_none_to_a_file_elsewhere() {
        let root = tempfile::tempdir().unwrap();
        let dir = |name: &str| root.path().join(name);
        for folder in ["pods/shop_web_1/app", "pods/shop_db_2/db", "other/app"] {
            std::fs::create_dir_all(dir(folder)).unwrap();
            std::fs::write(dir(folder).join("0.log"), folder).unwrap();
        }
        symlink("../../shop_db_2/db/0.log", dir("pods/shop_web_1/app/1.log")).unwrap();
        symlink("../shop_db_2/db", dir("pods/shop_web_1/db")).unwrap();
        symlink("/etc/passwd", dir("other/app/1.log")).unwrap();
        // The node's owner may have put the folder of all logs elsewhere.
        symlink("pods", dir("moved")).unwrap();
        for (log_dir, path, opens) in [
            ("pods", "pods/shop_web_1/app/0.log", true),
            ("moved", "moved/shop_web_1/app/0.log", true),
            ("moved", "other/app/0.log", true),
            ("pods", "pods/shop_web_1/app/1.log", false),
            ("pods", "pods/shop_web_1/db/0.log", false),
            ("pods", "pods/shop_web_1/../shop_db_2/db/0.log", false),
            ("pods", "other/app/1.log", false),
            ("pods", "pods", false),
        ] {
            let log = LogFile::new(&dir(log_dir), &dir(path));
            let opened = log.folder().and_then(|folder| folder.file(Path::new(log.name())));
            assert_eq!(opened.is_ok(), opens, "{path}: {opened:?}");
        }
    }

    #[tokio::test]
    async fn a_log_has_its_folder_made_and_is_refused_where_the_runtime_would_write_elsewhere() {
        let root = tempfile::tempdir().unwrap();
        let (pods, elsewhere) = (root.path().join("pods"), root.path().join("elsewhere"));
        let log = |path: &str| LogFile::new(&pods, &pods.join(path));
        log("shop_web_1/app/0.log").prepare().await.unwrap();
        std::fs::write(pods.join("shop_web_1/app/0.log"), "a line").unwrap();
        log("shop_web_1/app/0.log").prepare().await.unwrap();
        std::fs::create_dir(&elsewhere).unwrap();
        symlink(&elsewhere, pods.join("shop_web_1/link")).unwrap();
        symlink(elsewhere.join("file"), pods.join("shop_web_1/app/1.log")).unwrap();
        for path in [
            "shop_web_1/link/0.log",
            "shop_web_1/app/1.log",
            "shop_web_1/../../elsewhere/x/0.log",
        ] {
            assert!(log(path).prepare().await.is_err(), "{path}");
        }
        assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
    }
}
