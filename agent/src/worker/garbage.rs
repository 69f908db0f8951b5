//! What is cleaned up behind pods: containers that are dead, and logs of pods that are gone. Only ever what
//! debuglet itself made. (Images: [`super::image_garbage`].)

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::pod::observed::{ContainerState, ObservedContainer, ObservedPod};
use crate::runtime::log_links::LogLinks;

/// The ids of a pod's dead containers to remove: ours, all but the newest of each name, and of those the ones that
/// `may_go` lets go because what is to be known of them is on disk.
pub(crate) fn dead_containers(pod: &ObservedPod, may_go: impl Fn(&ObservedContainer) -> bool) -> Vec<&str> {
    let mut newest: HashMap<&str, &ObservedContainer> = HashMap::new();
    for container in &pod.containers {
        let kept = newest.entry(&container.name).or_insert(container);
        if (container.attempt, container.created_at) > (kept.attempt, kept.created_at) {
            *kept = container;
        }
    }
    let is_newest = |container: &ObservedContainer| {
        newest
            .get(container.name.as_str())
            .is_some_and(|newest| newest.id == container.id)
    };
    pod.containers
        .iter()
        .filter(|container| {
            container.ours
                && matches!(container.state, ContainerState::Created | ContainerState::Exited)
                && !is_newest(container)
                && may_go(container)
        })
        .map(|container| container.id.as_str())
        .collect()
}

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

/// `NAMESPACE_NAME_UID`; `None` where a part could lead out of the folder or to more than one pod.
fn log_folder(log_dir: &Path, pod: &GonePod) -> Option<PathBuf> {
    let parts = [&pod.namespace, &pod.name, &pod.uid];
    let sound = parts.iter().all(|part| !part.is_empty() && !part.contains('/'));
    sound.then(|| log_dir.join(format!("{}_{}_{}", pod.namespace, pod.name, pod.uid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(id: &str, name: &str, attempt: u32, state: ContainerState) -> ObservedContainer {
        ObservedContainer {
            id: id.to_owned(),
            name: name.to_owned(),
            attempt,
            sandbox_id: "s".to_owned(),
            ours: true,
            state,
            created_at: i64::from(attempt) + 1,
            started_at: 0,
            finished_at: 0,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: String::new(),
            image_id: String::new(),
        }
    }

    #[test]
    fn all_but_the_newest_dead_container_of_a_name_go() {
        let theirs = ObservedContainer {
            ours: false,
            ..container("theirs", "app", 0, ContainerState::Exited)
        };
        let pod = ObservedPod {
            sandboxes: Vec::new(),
            containers: vec![
                container("app-3", "app", 3, ContainerState::Exited),
                container("app-2", "app", 2, ContainerState::Exited),
                container("app-1", "app", 1, ContainerState::Created),
                container("app-runs", "app", 0, ContainerState::Running),
                container("app-lost", "app", 0, ContainerState::Unknown),
                theirs,
                container("init-0", "init", 0, ContainerState::Exited),
                container("debug-1", "debug", 1, ContainerState::Running),
                container("debug-0", "debug", 0, ContainerState::Exited),
            ],
        };
        assert_eq!(dead_containers(&pod, |_| true), ["app-2", "app-1", "debug-0"]);
        assert_eq!(
            dead_containers(&pod, |container| container.name == "debug"),
            ["debug-0"]
        );
    }

    #[test]
    fn a_name_that_was_started_over_keeps_the_container_that_was_made_last() {
        // A new sandbox counts attempts from 0 again.
        let mut old = container("old", "app", 0, ContainerState::Exited);
        old.created_at = 1;
        let mut new = container("new", "app", 0, ContainerState::Exited);
        new.created_at = 2;
        let pod = ObservedPod {
            sandboxes: Vec::new(),
            containers: vec![old, new],
        };
        assert_eq!(dead_containers(&pod, |_| true), ["old"]);
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
