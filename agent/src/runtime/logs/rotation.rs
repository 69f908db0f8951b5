//! A log file that is rotated: renamed to `NAME.SUFFIX`, where later suffixes sort behind earlier ones, and made
//! anew by the runtime. A kubelet does so with the logs of every container on its node, foreign ones too.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// How often a followed file is looked at where inotify has no watch left to give.
const POLL_PERIOD: Duration = Duration::from_millis(250);
/// How often a followed file is looked at beside inotify, which drops events under load.
const SAFETY_PERIOD: Duration = Duration::from_secs(10);

/// Which file it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity(u64, u64);

impl Identity {
    /// Of the file that `metadata` is about.
    pub(super) fn of(metadata: &Metadata) -> Identity {
        Identity(metadata.dev(), metadata.ino())
    }
}

/// The file that goes on where `read` ended, once there is one: the file that was rotated away after it, or else
/// the one at `path`. `None` while `read` is the newest.
pub(super) fn next_after(read: Identity, path: &Path) -> io::Result<Option<PathBuf>> {
    match std::fs::metadata(path) {
        Ok(metadata) if Identity::of(&metadata) == read => return Ok(None),
        Ok(_) => {}
        // Renamed, and not made anew yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    let rotated = rotated_away(path)?;
    let place = rotated.iter().position(|(identity, _)| *identity == read);
    let next = place.and_then(|place| rotated.into_iter().nth(place + 1));
    Ok(Some(next.map_or_else(|| path.to_path_buf(), |(_, path)| path)))
}

/// The files that were rotated away from `path`, oldest first, without those that were compressed since.
fn rotated_away(path: &Path) -> io::Result<Vec<(Identity, PathBuf)>> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let mut rotated = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let file_name = entry.file_name();
        let suffix = file_name
            .to_str()
            .and_then(|file| file.strip_prefix(name)?.strip_prefix('.'));
        if suffix.is_none_or(|suffix| suffix.ends_with("gz") || suffix.ends_with("tmp")) {
            continue;
        }
        // It may be compressed while we look.
        if let Ok(metadata) = entry.metadata() {
            rotated.push((Identity::of(&metadata), entry.path()));
        }
    }
    rotated.sort_by(|(_, one), (_, other)| one.cmp(other));
    Ok(rotated)
}

/// Wakes whoever follows a log file when something happened in its folder.
pub(super) struct Changes {
    watcher: Option<RecommendedWatcher>,
    happened: Arc<Notify>,
}

impl Changes {
    /// Watches the folder of `path`; where that cannot be, looks again now and then.
    pub(super) fn watch(path: &Path) -> Changes {
        let happened = Arc::new(Notify::new());
        let wake = happened.clone();
        let watcher = notify::recommended_watcher(move |_| wake.notify_one());
        let watcher = watcher.and_then(|mut watcher: RecommendedWatcher| {
            let folder = path.parent().unwrap_or(Path::new("/"));
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        if let Err(error) = &watcher {
            tracing::warn!(path = %path.display(), %error, "cannot watch a log, looking at it now and then instead");
        }
        Changes {
            watcher: watcher.ok(),
            happened,
        }
    }

    /// Waits for a change since the last call, or until it is time to look anyway.
    pub(super) async fn changed(&self) {
        let period = if self.watcher.is_some() {
            SAFETY_PERIOD
        } else {
            POLL_PERIOD
        };
        // Too late is as good as a change.
        let _ = tokio::time::timeout(period, self.happened.notified()).await;
    }
}
