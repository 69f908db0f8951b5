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

/// Removes the logs of these containers of debuglet's from the folder of a pod that somebody else ran, and the folder
/// where nothing else is left in it.
/// `log_file` is what the names of such logs begin with.
pub(crate) fn remove_own_logs(
    log_dir: &Path,
    pod: &GonePod,
    containers: &[String],
    log_file: &str,
) -> io::Result<()> {
    let Some(folder) = log_folder(log_dir, pod) else {
        return Ok(());
    };
    for name in containers {
        let own = folder.join(name);
        let files = match std::fs::read_dir(&own) {
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => continue,
            files => files?,
        };
        // Somebody else's container may have had the name, before or since: its logs are called otherwise.
        for file in files {
            let file = file?;
            if file.file_name().to_string_lossy().starts_with(log_file) {
                std::fs::remove_file(file.path())?;
            }
        }
        LogLinks::beside(log_dir).remove_into(&[own.join(log_file)])?;
        let _ = std::fs::remove_dir(own);
    }
    // Not empty: it is not ours.
    let _ = std::fs::remove_dir(folder);
    Ok(())
}

/// `NAMESPACE_NAME_UID`; `None` where a part could lead out of the folder or to more than one pod.
fn log_folder(log_dir: &Path, pod: &GonePod) -> Option<PathBuf> {
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
        let pod = GonePod {
            namespace: "shop".to_owned(),
            name: "till".to_owned(),
            uid: "uid".to_owned(),
        };
        let containers = ["dbg".to_owned(), "ours".to_owned(), "never-made".to_owned()];
        remove_own_logs(&logs, &pod, &containers, "debuglet.log").unwrap();
        assert!(folder.join("dbg/0.log").is_file(), "the kubelet's own");
        assert!(!folder.join("dbg/debuglet.log").exists());
        assert!(!folder.join("ours").exists());
        assert!(folder.join("main/0.log").is_file());
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
