//! The kernel's events of a folder that may come and go: they wake, and say which files are being written.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// What happened to files since the last look.
#[derive(Clone, Debug, Default)]
pub(super) struct Activity {
    /// Somebody writes to them and has not closed them yet.
    pub(super) written_to: BTreeSet<PathBuf>,
    /// Something was done to them.
    pub(super) touched: BTreeSet<PathBuf>,
}

/// How a watcher is made, which fills what is shared with it.
type Start = fn(&Arc<Shared>, &Path) -> Result<RecommendedWatcher, notify::Error>;

/// Watches a folder, or while it is missing the nearest folder above it that is there.
pub(super) struct FolderWatch {
    folder: PathBuf,
    start: Start,
    /// None where the kernel had no inotify instance left to give; it is asked again at the next look.
    watcher: Option<RecommendedWatcher>,
    /// What is watched, by path and identity: another folder may come under the same path.
    watched: Option<Watched>,
    shared: Arc<Shared>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Watched {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// What the watcher's thread fills and the folder's task empties.
#[derive(Default)]
pub(super) struct Shared {
    wake: Notify,
    activity: Mutex<Activity>,
}

impl FolderWatch {
    /// Watches nothing yet.
    pub(super) fn new(folder: PathBuf) -> FolderWatch {
        FolderWatch::started_by(start, folder)
    }

    /// The same with another way to make a watcher.
    pub(super) fn started_by(start: Start, folder: PathBuf) -> FolderWatch {
        FolderWatch {
            folder,
            start,
            watcher: None,
            watched: None,
            shared: Arc::default(),
        }
    }

    /// Watches what is there now. To be called before each look. Blocks.
    pub(super) fn renew(&mut self) -> Result<(), notify::Error> {
        let watcher = match &mut self.watcher {
            Some(watcher) => watcher,
            None => self.watcher.insert((self.start)(&self.shared, &self.folder)?),
        };
        // Once more after a change: the folder may have come while the one above it was not yet watched.
        loop {
            let nearest = self.folder.ancestors().find_map(identify);
            if nearest == self.watched {
                return Ok(());
            }
            if let Some(old) = self.watched.take() {
                // The kernel has dropped the watch by itself where the folder is gone.
                let _ = watcher.unwatch(&old.path);
            }
            if let Some(nearest) = nearest {
                watcher.watch(&nearest.path, RecursiveMode::NonRecursive)?;
                self.watched = Some(nearest);
            }
        }
    }

    /// Waits until something happened.
    pub(super) async fn woken(&self) {
        self.shared.wake.notified().await;
    }

    /// What happened since this was asked last.
    pub(super) fn activity(&self) -> Activity {
        let mut activity = self
            .shared
            .activity
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let touched = std::mem::take(&mut activity.touched);
        Activity {
            written_to: activity.written_to.clone(),
            touched,
        }
    }
}

/// Makes a watcher that fills `shared` with what happens to `folder` and in it.
pub(super) fn start(shared: &Arc<Shared>, folder: &Path) -> Result<RecommendedWatcher, notify::Error> {
    let (noted, of_interest) = (Arc::clone(shared), folder.to_path_buf());
    notify::recommended_watcher(move |event: Result<Event, notify::Error>| match event {
        Ok(event) => noted.note(&event, &of_interest),
        Err(_) => noted.wake.notify_one(),
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "the manifests folder is the node owner's; on a thread that may block"
)]
fn identify(path: &Path) -> Option<Watched> {
    let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_dir)?;
    Some(Watched {
        path: path.to_path_buf(),
        device: metadata.dev(),
        inode: metadata.ino(),
    })
}

impl Shared {
    fn note(&self, event: &Event, folder: &Path) {
        let is_closed_by_writer = event.kind == EventKind::Access(AccessKind::Close(AccessMode::Write));
        if event.kind.is_access() && !is_closed_by_writer {
            return; // ours too, when we read
        }
        let in_folder = |path: &Path| path.parent() == Some(folder);
        let on_the_way = |path: &Path| folder.starts_with(path);
        if !event.need_rescan() && !event.paths.iter().any(|path| in_folder(path) || on_the_way(path)) {
            return; // a neighbour of a folder that is still missing
        }
        let mut activity = self.activity.lock().unwrap_or_else(PoisonError::into_inner);
        if event.need_rescan() {
            // Events were lost, and with them perhaps the end of a write.
            activity.written_to.clear();
        }
        for path in event.paths.iter().filter(|path| in_folder(path)) {
            activity.touched.insert(path.clone());
            match event.kind {
                EventKind::Create(_) | EventKind::Modify(ModifyKind::Data(_)) => {
                    activity.written_to.insert(path.clone());
                }
                EventKind::Modify(ModifyKind::Metadata(_)) => {}
                _ => {
                    activity.written_to.remove(path);
                }
            }
        }
        drop(activity);
        self.wake.notify_one();
    }
}
