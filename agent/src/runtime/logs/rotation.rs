//! A log file that is rotated: renamed to `NAME.SUFFIX`, where later suffixes sort behind earlier ones, and made
//! anew by the runtime. A kubelet does so with the logs of every container on its node, foreign ones too.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

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
    let newest = match std::fs::metadata(path) {
        Ok(metadata) if Identity::of(&metadata) == read => return Ok(None),
        Ok(_) => Some(path.to_path_buf()),
        // Renamed, and not made anew yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let mut rotated = RotatedAway::from(path)?.files.into_iter();
    // Where `read` is not among them it was compressed since: what came right after it is not known.
    let _ = rotated.find(|file| file.identity == read);
    Ok(rotated.next().map(|file| file.path).or(newest))
}

/// What was rotated away from a log.
#[derive(Debug, Default)]
pub(super) struct RotatedAway {
    /// The files that can be read, oldest first.
    pub(super) files: Vec<RotatedFile>,
    /// When the newest of those that were compressed since was written; they are not read.
    pub(super) compressed: Option<SystemTime>,
}

/// A file that was rotated away.
#[derive(Debug)]
pub(super) struct RotatedFile {
    /// Which one it is.
    pub(super) identity: Identity,
    /// Where it is now.
    pub(super) path: PathBuf,
    /// When it was last written to: not before its last line.
    pub(super) written: SystemTime,
}

impl RotatedAway {
    /// Looks beside the log at `path`.
    pub(super) fn from(path: &Path) -> io::Result<RotatedAway> {
        let mut rotated = RotatedAway::default();
        let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
        else {
            return Ok(rotated);
        };
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let file_name = entry.file_name();
            let suffix = file_name
                .to_str()
                .and_then(|file| file.strip_prefix(name)?.strip_prefix('.'));
            // It may be compressed while we look.
            let (Some(suffix), Ok(metadata)) = (suffix, entry.metadata()) else {
                continue;
            };
            let written = metadata.modified()?;
            if suffix.ends_with("gz") {
                rotated.compressed = rotated.compressed.max(Some(written));
            } else if !suffix.ends_with("tmp") {
                rotated.files.push(RotatedFile {
                    identity: Identity::of(&metadata),
                    path: entry.path(),
                    written,
                });
            }
        }
        rotated.files.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(rotated)
    }
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
