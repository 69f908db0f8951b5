//! A folder of manifests, followed: editors' renames, half-written files, a folder that comes later or goes.
//!
//! The kernel's events (inotify) say when to look, and a slow re-list is the safety net behind them; where the kernel gives
//! no events, the folder is read every two seconds, and that is a problem of the node (`FolderNotWatched`). What is seen
//! is one snapshot of the whole folder; of several that nobody has taken yet, only the newest is kept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};

use super::folder_files::FolderFiles;
use super::folder_watch::FolderWatch;
use super::manifest_file::ManifestFile;
use crate::panic_message;
use crate::store::Store;
use crate::store::problems::{PanicOf, ProblemKind};

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
    /// Begins to follow the folder, which need not exist. Reports to `store` while it cannot be watched.
    pub(crate) fn follow(folder: PathBuf, store: Arc<Store>) -> ManifestFolder {
        let folder = std::path::absolute(&folder).unwrap_or(folder);
        ManifestFolder::watched_by(FolderWatch::new(folder.clone()), folder, store)
    }

    fn watched_by(watch: FolderWatch, folder: PathBuf, store: Arc<Store>) -> ManifestFolder {
        let (sender, snapshots) = watch::channel(Snapshot::new());
        let watching = Watching::new(&folder, store);
        let task = tokio::spawn(follow(watch, watching, FolderFiles::new(folder), sender));
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

/// Whether the kernel tells of the folder, for the log and the node's problems.
struct Watching {
    folder: String,
    store: Arc<Store>,
    works: bool,
}

impl Watching {
    fn new(folder: &Path, store: Arc<Store>) -> Watching {
        Watching {
            folder: folder.display().to_string(),
            store,
            works: true,
        }
    }

    /// Shows that nobody follows the folder any more: a look at it panicked, or the process ends.
    fn ended(&self, error: JoinError) {
        if error.is_panic() {
            let message = panic_message::of_task(error);
            let message = format!(
                "the look at the manifests folder panicked, and the folder is not followed until debuglet is restarted: \
                 {message}"
            );
            tracing::error!("{message}");
            self.store
                .panicked(PanicOf::Part, "the manifests folder", "", message);
        }
    }

    /// Takes in whether the folder could be watched.
    fn take(&mut self, renewed: Result<(), notify::Error>) {
        match renewed {
            Ok(()) if self.works => {}
            Ok(()) => {
                tracing::info!("the manifests folder is watched again");
                self.store.solved(ProblemKind::FolderNotWatched, &self.folder);
                self.works = true;
            }
            Err(error) => {
                let seconds = POLL.as_secs();
                let message = format!(
                    "the manifests folder cannot be watched, so it is read every {seconds} s ({error}): where the \
                     kernel's limits are the reason, raise fs.inotify.max_user_instances and fs.inotify.max_user_watches"
                );
                if self.works {
                    tracing::warn!("{message}");
                }
                self.store
                    .problem(ProblemKind::FolderNotWatched, self.folder.as_str(), "", message);
                self.works = false;
            }
        }
    }
}

async fn follow(
    mut watch: FolderWatch,
    mut watching: Watching,
    mut files: FolderFiles,
    snapshots: watch::Sender<Snapshot>,
) {
    loop {
        let looked = tokio::task::spawn_blocking(move || {
            // The watch is in place before the look, so that nothing falls between them.
            let renewed = watch.renew();
            let look = files.look(&watch.activity(), Instant::now());
            (watch, files, renewed, look)
        });
        let renewed;
        let look;
        (watch, files, renewed, look) = match looked.await {
            Ok(looked) => looked,
            Err(error) => return watching.ended(error),
        };
        watching.take(renewed);
        if let Some(snapshot) = look.snapshot {
            snapshots.send_replace(snapshot);
        }
        tokio::select! {
            () = watch.woken() => {}
            () = tokio::time::sleep(look.again.unwrap_or(if watching.works { RE_LIST } else { POLL })) => {}
            () = snapshots.closed() => return,
        }
    }
}

#[cfg(test)]
#[path = "manifests_tests.rs"]
mod tests;
