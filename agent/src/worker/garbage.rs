//! What is cleaned up behind pods that are gone: their logs. Only ever what debuglet itself made. (Images: [`super::image_garbage`].)

use std::io;
use std::path::{Path, PathBuf};

use crate::runtime::log_links::LogLinks;

/// A pod whose logs may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GonePod {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// Its UID.
    pub(crate) uid: String,
}

/// Removes the log folders of these pods, which debuglet ran, and the links into them.
pub(crate) fn remove_logs(log_dir: &Path, pods: &[GonePod]) -> io::Result<()> {
    let folders: Vec<PathBuf> = pods.iter().filter_map(|pod| log_folder(log_dir, pod)).collect();
    LogLinks::beside(log_dir).remove_into(&folders)?;
    for folder in folders {
        match std::fs::remove_dir_all(&folder) {
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    Ok(())
}

/// Removes these logs of debuglet's containers in pods that somebody else ran, with what was rotated away of them and
/// the links to them, and their folders where nothing else is left in those.
pub(crate) fn remove_own_logs(log_dir: &Path, logs: impl Iterator<Item = PathBuf>) -> io::Result<()> {
    for log in logs {
        let (Some(folder), Some(log_file)) = (log.parent(), log.file_name()) else {
            continue;
        };
        let files = match std::fs::read_dir(folder) {
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => continue,
            files => files?,
        };
        // Somebody else's container may have had the name, before or since: its logs are called otherwise.
        let log_file = log_file.to_string_lossy();
        for file in files {
            let file = file?;
            if file.file_name().to_string_lossy().starts_with(&*log_file) {
                std::fs::remove_file(file.path())?;
            }
        }
        LogLinks::beside(log_dir).remove_into(std::slice::from_ref(&log))?;
        // Not empty: there is something that is not ours. So is a folder elsewhere that the sandbox named.
        let _ = std::fs::remove_dir(folder);
        if let Some(of_pod) = folder.parent().filter(|of_pod| of_pod.parent() == Some(log_dir)) {
            let _ = std::fs::remove_dir(of_pod);
        }
    }
    Ok(())
}

/// `NAMESPACE_NAME_UID`; `None` where a part could lead out of the folder or to more than one pod.
pub(crate) fn log_folder(log_dir: &Path, pod: &GonePod) -> Option<PathBuf> {
    let parts = [&pod.namespace, &pod.name, &pod.uid];
    let sound = parts.iter().all(|part| !part.is_empty() && !part.contains('/'));
    sound.then(|| log_dir.join(format!("{}_{}_{}", pod.namespace, pod.name, pod.uid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_somebody_elses_pod_only_our_own_log_files_go() {
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
        remove_own_logs(&logs, own.into_iter()).unwrap();
        assert!(folder.join("dbg/0.log").is_file(), "the kubelet's own");
        assert!(!folder.join("dbg/debuglet.log").exists());
        assert!(!folder.join("ours").exists());
        assert!(folder.join("main/0.log").is_file());
        let left = std::fs::read_dir(&elsewhere).unwrap();
        let left: Vec<_> = left.map(|file| file.unwrap().file_name()).collect();
        assert_eq!(left, ["main.log"], "in a folder that the sandbox named");
    }

    #[test]
    fn the_logs_of_a_gone_pod_go_and_no_others() {
        let root = tempfile::tempdir().unwrap();
        let logs = root.path().join("pods");
        let links = LogLinks::beside(&logs);
        for pod in ["gone", "here"] {
            let folder = logs.join(format!("shop_{pod}_uid/app"));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("0.log"), "a line").unwrap();
            links
                .create("shop", pod, "app", "1", &folder.join("0.log"))
                .unwrap();
        }
        let pod = |name: &str, uid: &str| GonePod {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
        };
        let gone = [
            pod("gone", "uid"),
            pod("never-ran", "uid"),
            pod("here", ""),
            pod("/../../pods/shop_here", "uid"),
        ];
        for _ in 0..2 {
            remove_logs(&logs, &gone).unwrap();
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
}
