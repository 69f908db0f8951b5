//! What the files of the manifests folder hold, and when to believe it: a file that is being written, or is gone
//! while an editor renames, counts as it was until it has settled.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::folder_watch::Activity;
use super::manifest_file::{self, ManifestFile};
use super::manifests::Snapshot;

/// How long a file must have stayed as it is before it is believed to be bad, empty or gone.
const SETTLE: Duration = Duration::from_millis(400);
/// How long a file that never settles is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// The folder's files as they were seen last.
pub(super) struct FolderFiles {
    folder: PathBuf,
    files: BTreeMap<PathBuf, Seen>,
    /// Why the folder cannot be read.
    trouble: Option<String>,
    /// Whether there was a snapshot yet.
    reported: bool,
}

/// What came of one look.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// The folder, if it differs from the snapshot before. The first one waits until every file has settled: a
    /// file that is missing in it is missing for good.
    pub(super) snapshot: Option<Snapshot>,
    /// When to look again without being woken.
    pub(super) again: Option<Duration>,
}

/// One file.
struct Seen {
    /// The file as the last look found it; `None` when it is gone.
    signature: Option<Signature>,
    /// Since when it has been so.
    since: Instant,
    /// Since when there is something to be found out about it.
    open_since: Option<Instant>,
    /// What it holds, once that was believed.
    holds: Option<ManifestFile>,
}

/// Changes whenever the file is replaced or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Signature {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    is_file: bool,
}

impl FolderFiles {
    pub(super) fn new(folder: PathBuf) -> FolderFiles {
        FolderFiles {
            folder,
            files: BTreeMap::new(),
            trouble: None,
            reported: false,
        }
    }

    /// Looks at the folder and reads what has changed.
    pub(super) fn look(&mut self, activity: &Activity, now: Instant) -> Look {
        let trouble = self.list(activity, now).err();
        let mut changed = trouble != self.trouble;
        self.trouble = trouble;
        let mut again: Option<Duration> = None;
        self.files.retain(|path, seen| {
            match seen.find_out(path, activity.written_to.contains(path), now) {
                Finding::Nothing => {}
                Finding::Changed => changed = true,
                Finding::Open(wait) => again = Some(again.map_or(wait, |other| other.min(wait))),
                Finding::Gone => {
                    changed = true;
                    return false;
                }
            }
            true
        });
        let first = !self.reported && again.is_none();
        self.reported |= first;
        let snapshot = (first || self.reported && changed).then(|| self.snapshot());
        Look { snapshot, again }
    }

    fn snapshot(&self) -> Snapshot {
        let held = |(path, seen): (&PathBuf, &Seen)| Some((path.clone(), seen.holds.clone()?));
        let files = self.files.iter().filter_map(held);
        files
            .chain(
                self.trouble
                    .iter()
                    .map(|reason| (self.folder.clone(), Err(reason.clone()))),
            )
            .collect()
    }

    /// Compares the folder with what was seen. An error leaves everything as it was.
    #[expect(
        clippy::disallowed_methods,
        reason = "the manifests folder is the node owner's; on a thread that may block"
    )]
    fn list(&mut self, activity: &Activity, now: Instant) -> Result<(), String> {
        let mut present = BTreeMap::new();
        match std::fs::read_dir(&self.folder) {
            Ok(entries) => {
                for entry in entries {
                    let path = entry
                        .map_err(|error| format!("the folder cannot be read: {error}"))?
                        .path();
                    if is_manifest(&path)
                        && let Some(metadata) = metadata(&path)
                    {
                        present.insert(path, metadata);
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("the folder cannot be read: {error}")),
        }
        for (path, seen) in &mut self.files {
            let signature = present.remove(path).map(|metadata| Signature::of(&metadata));
            if signature != seen.signature || activity.touched.contains(path) {
                seen.signature = signature;
                seen.since = now;
                seen.open_since.get_or_insert(now);
            }
        }
        for (path, metadata) in present {
            // An old file has settled long ago: no need to wait for it.
            let age = metadata
                .modified()
                .ok()
                .and_then(|time| SystemTime::now().duration_since(time).ok());
            let since = now
                .checked_sub(age.unwrap_or_default().min(SETTLE))
                .unwrap_or(now);
            let signature = Some(Signature::of(&metadata));
            self.files.insert(
                path,
                Seen {
                    signature,
                    since,
                    open_since: Some(now),
                    holds: None,
                },
            );
        }
        Ok(())
    }
}

enum Finding {
    Nothing,
    Changed,
    /// To be looked at again after this time.
    Open(Duration),
    Gone,
}

impl Seen {
    fn find_out(&mut self, path: &Path, is_written_to: bool, now: Instant) -> Finding {
        let Some(open_since) = self.open_since else {
            return Finding::Nothing;
        };
        let left = |from: Instant, wait: Duration| wait.saturating_sub(now.saturating_duration_since(from));
        let wait = left(self.since, SETTLE).min(left(open_since, PATIENCE));
        let has_settled = wait.is_zero();
        if is_written_to && !has_settled {
            return Finding::Open(wait);
        }
        let holds = match self.signature {
            None if has_settled => return Finding::Gone,
            None => return Finding::Open(wait),
            Some(signature) if signature.is_file => manifest_file::read(path),
            Some(_) => Err("is not a regular file".to_owned()),
        };
        let is_certain = holds.as_ref().is_ok_and(|pods| !pods.is_empty());
        if !is_certain && !has_settled {
            return Finding::Open(wait);
        }
        self.open_since = None;
        if self.holds.as_ref() == Some(&holds) {
            return Finding::Nothing;
        }
        self.holds = Some(holds);
        Finding::Changed
    }
}

impl Signature {
    fn of(metadata: &Metadata) -> Signature {
        Signature {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            is_file: metadata.is_file(),
        }
    }
}

/// What the path leads to, or the path itself where it leads to nothing; no folders, and not what is gone by now.
#[expect(
    clippy::disallowed_methods,
    reason = "the manifests folder is the node owner's; on a thread that may block"
)]
fn metadata(path: &Path) -> Option<Metadata> {
    let metadata = std::fs::metadata(path)
        .or_else(|_| std::fs::symlink_metadata(path))
        .ok()?;
    (!metadata.is_dir()).then_some(metadata)
}

/// Whether the file is meant: hidden files and what editors put beside the files that they edit are not.
fn is_manifest(path: &Path) -> bool {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    let is_hidden = name.starts_with('.');
    let is_of_an_editor = name.ends_with('~')
        || name.ends_with(".swp")
        || name.ends_with(".tmp")
        || name.starts_with('#') && name.ends_with('#');
    !is_hidden && !is_of_an_editor
}

#[cfg(test)]
#[path = "folder_files_tests.rs"]
mod tests;
