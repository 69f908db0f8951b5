//! A folder of manifests, followed: editors' renames, half-written files, a folder that comes later or goes.
//!
//! The kernel's events (inotify) say when to look, and a slow re-list is the safety net behind them; where the kernel gives
//! no events, the folder is read every two seconds. What is seen
//! is one snapshot of the whole folder; of several that nobody has taken yet, only the newest is kept.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::folder_files::FolderFiles;
use super::folder_watch::FolderWatch;
use super::manifest_file::ManifestFile;

/// How long nothing may have happened before the folder is looked at all the same: events can be lost, and the
/// target of a link changes without one.
const RE_LIST: Duration = Duration::from_secs(30);

/// How often the folder is looked at where the kernel gives no events.
const POLL: Duration = Duration::from_secs(2);

/// Every file of the folder by its path, as it was last good or bad for longer than a moment. A folder that is
/// there and cannot be read is an entry of its own, beside the files as they were.
pub(crate) type Snapshot = BTreeMap<PathBuf, ManifestFile>;

/// The folder as it is followed; it is left alone when this is dropped.
pub(crate) struct ManifestFolder {
    snapshots: watch::Receiver<Snapshot>,
    task: JoinHandle<()>,
}

impl ManifestFolder {
    /// Begins to follow the folder, which need not exist.
    pub(crate) fn follow(folder: PathBuf) -> ManifestFolder {
        let folder = std::path::absolute(&folder).unwrap_or(folder);
        ManifestFolder::watched_by(FolderWatch::new(folder.clone()), folder)
    }

    fn watched_by(watch: FolderWatch, folder: PathBuf) -> ManifestFolder {
        let (sender, snapshots) = watch::channel(Snapshot::new());
        let task = tokio::spawn(follow(watch, FolderFiles::new(folder), sender));
        ManifestFolder { snapshots, task }
    }

    /// The next snapshot that differs from the last one taken; the first comes when the folder was read, also when
    /// it is empty or missing. `None` when there will be no more. Safe to drop and call again.
    pub(crate) async fn next(&mut self) -> Option<Snapshot> {
        self.snapshots.changed().await.ok()?;
        Some(self.snapshots.borrow_and_update().clone())
    }

    /// The newest snapshot there is.
    pub(crate) fn newest(&self) -> Snapshot {
        self.snapshots.borrow().clone()
    }
}

impl Drop for ManifestFolder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(mut watch: FolderWatch, mut files: FolderFiles, snapshots: watch::Sender<Snapshot>) {
    let mut is_watched = true;
    loop {
        let looked = tokio::task::spawn_blocking(move || {
            // The watch is in place before the look, so that nothing falls between them.
            let renewed = watch.renew();
            let look = files.look(&watch.activity(), Instant::now());
            (watch, files, renewed, look)
        });
        let Ok((watch_again, files_again, renewed, look)) = looked.await else {
            return; // the process ends
        };
        (watch, files) = (watch_again, files_again);
        if let Err(error) = &renewed
            && is_watched
        {
            let seconds = POLL.as_secs();
            tracing::warn!(%error, "the manifests folder cannot be watched; it is read every {seconds} s");
        }
        is_watched = renewed.is_ok();
        if let Some(snapshot) = look.snapshot {
            snapshots.send_replace(snapshot);
        }
        tokio::select! {
            () = watch.woken() => {}
            () = tokio::time::sleep(look.again.unwrap_or(if is_watched { RE_LIST } else { POLL })) => {}
            () = snapshots.closed() => return,
        }
    }
}

#[cfg(test)]
#[path = "manifests_tests.rs"]
mod tests;
