//! What is cleaned up behind pods that are gone: their logs. Only ever what debuglet itself made. (Images: [`super::image_garbage`].)

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use crate::runtime::log_links::LogLinks;
use crate::runtime::logs::LogFile;
use crate::untrusted_file::{Folder, REMOVALS};

/// The folder in that of all pods' logs which holds what is being removed. A kubelet takes it for a pod's that is gone.
const HEAP: &str = "debuglet_removing_0";

/// Removes the log folder of this name, of a pod that debuglet ran, and the links into it.
///
/// # Errors
/// Also when it takes longer than a minute: then it goes on.
pub(crate) async fn remove_logs(log_dir: &Path, folder: &str) -> io::Result<()> {
    let (log_dir, name) = (log_dir.to_path_buf(), folder.to_owned());
    let path = log_dir.join(folder);
    let remove = move || {
        // What is no name of one folder is refused by this, before any link goes.
        match Folder::open(&log_dir) {
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => return Ok(()),
            folder => folder?.remove_tree(OsStr::new(&name), OsStr::new(HEAP))?,
        }
        LogLinks::beside(&log_dir).remove_into(&[log_dir.join(&name)])
    };
    REMOVALS.run_io(&path, remove).await
}

/// Removes one log of a container in a pod that debuglet runs, and the link of this name to it.
pub(crate) async fn remove_log(log_dir: &Path, log: &Path, link: String) -> io::Result<()> {
    let (links, file) = (LogLinks::beside(log_dir), LogFile::new(log_dir, log));
    let remove = move || {
        links.remove(&link)?;
        file.remove()
    };
    match REMOVALS.run_io(log, remove).await {
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Removes these logs of debuglet's containers in pods that somebody else ran, with what was rotated away of them and
/// the links to them, and their folders where nothing else is left in those.
pub(crate) async fn remove_own_logs(log_dir: &Path, logs: impl Iterator<Item = PathBuf>) -> io::Result<()> {
    for log in logs {
        let (log_dir, path) = (log_dir.to_path_buf(), log.clone());
        REMOVALS
            .run_io(&log, move || remove_own_log(&log_dir, &path))
            .await?;
    }
    Ok(())
}

fn remove_own_log(log_dir: &Path, log: &Path) -> io::Result<()> {
    let file = LogFile::new(log_dir, log);
    match file.remove_with_rotated() {
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => {}
        removed => removed?,
    }
    LogLinks::beside(log_dir).remove_into(&[log.to_path_buf()])?;
    file.remove_empty_folders();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_somebody_elses_pod_only_our_own_log_files_go() {
        let root = tempfile::tempdir().unwrap();
        let logs = root.path().join("pods");
        let folder = logs.join("shop_till_uid");
        for file in ["dbg/debuglet.log", "dbg/0.log", "ours/debuglet.log", "main/0.log"] {
            let path = folder.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "a line").unwrap();
        }
        let elsewhere = root.path().join("till-logs/dbg");
        std::fs::create_dir_all(&elsewhere).unwrap();
        for file in ["0.log", "0.log.20261121-031241", "main.log"] {
            std::fs::write(elsewhere.join(file), "a line").unwrap();
        }
        let own = [
            folder.join("dbg/debuglet.log"),
            folder.join("ours/debuglet.log"),
            folder.join("never-made/debuglet.log"),
            elsewhere.join("0.log"),
        ];
        remove_own_logs(&logs, own.into_iter()).await.unwrap();
        assert!(folder.join("dbg/0.log").is_file(), "the kubelet's own");
        assert!(!folder.join("dbg/debuglet.log").exists());
        assert!(!folder.join("ours").exists());
        assert!(folder.join("main/0.log").is_file());
        let left = std::fs::read_dir(&elsewhere).unwrap();
        let left: Vec<_> = left.map(|file| file.unwrap().file_name()).collect();
        assert_eq!(left, ["main.log"], "in a folder that the sandbox named");
    }

    #[tokio::test]
    async fn the_logs_of_a_gone_pod_go_and_no_others() {
        let root = tempfile::tempdir().unwrap();
        let logs = root.path().join("pods");
        let links = LogLinks::beside(&logs);
        for pod in ["gone", "here"] {
            let folder = logs.join(format!("shop_{pod}_uid/app"));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("0.log"), "a line").unwrap();
            links
                .create(&format!("{pod}_shop_app-1.log"), &folder.join("0.log"))
                .unwrap();
        }
        for folder in ["shop_gone_uid", "shop_never-ran_uid"] {
            for _ in 0..2 {
                remove_logs(&logs, folder).await.unwrap();
            }
        }
        for folder in ["", ".", "..", "../pods/shop_here_uid", "shop_here_uid/app"] {
            assert!(remove_logs(&logs, folder).await.is_err(), "{folder:?}");
        }
        let names = |folder: PathBuf| -> Vec<_> {
            std::fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect()
        };
        assert_eq!(names(logs), ["shop_here_uid"]);
        assert_eq!(names(root.path().join("containers")), ["here_shop_app-1.log"]);
    }

    #[tokio::test]
    async fn no_link_that_others_put_beside_a_log_leads_the_removal_elsewhere() {
        let root = tempfile::tempdir().unwrap();
        let logs = root.path().join("pods");
        let elsewhere = root.path().join("elsewhere");
        for folder in [
            &logs.join("shop_web_1/app"),
            &logs.join("shop_till_2"),
            &elsewhere,
        ] {
            std::fs::create_dir_all(folder).unwrap();
        }
        std::fs::write(elsewhere.join("0.log"), "of somebody else").unwrap();
        let link = |from: &Path| std::os::unix::fs::symlink(&elsewhere, from).unwrap();
        link(&logs.join("shop_web_1/app/0.log"));
        link(&logs.join("shop_web_1/db"));
        link(&logs.join("shop_till_2/dbg"));
        link(&logs.join("shop_link_3"));
        let own = logs.join("shop_till_2/dbg/0.log");
        remove_own_logs(&logs, [own].into_iter()).await.unwrap_err();
        for folder in ["shop_web_1", "shop_link_3"] {
            remove_logs(&logs, folder).await.unwrap();
        }
        assert_eq!(
            std::fs::read_dir(&logs).unwrap().count(),
            1,
            "the pod's of somebody else"
        );
        assert!(elsewhere.join("0.log").is_file());
    }
}
