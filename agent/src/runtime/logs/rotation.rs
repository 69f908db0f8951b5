//! A log file that is rotated: renamed to `NAME.SUFFIX`, where later suffixes sort behind earlier ones, and made
//! anew by the runtime. A kubelet does so with the logs of every container on its node, foreign ones too.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::log_file::LogFile;
use crate::untrusted_file::Folder;

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
/// the one at the log's own path. `None` while `read` is the newest. Blocks.
pub(super) fn next_after(read: Identity, log: &LogFile) -> io::Result<Option<File>> {
    let folder = log.folder()?;
    let name = Path::new(log.name());
    let newest = match folder.metadata(name) {
        Ok(metadata) if Identity::of(&metadata) == read => return Ok(None),
        Ok(_) => Some(name.to_path_buf()),
        // Renamed, and not made anew yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let mut rotated = RotatedAway::beside(&folder, log)?.files.into_iter();
    // Where `read` is not among them it was compressed since: what came right after it is not known.
    let _ = rotated.find(|file| file.identity == read);
    let next = rotated.next().map(|file| PathBuf::from(file.name)).or(newest);
    next.map(|next| folder.file(&next)).transpose()
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
    /// What it is called now.
    pub(super) name: OsString,
    /// When it was last written to: not before its last line.
    pub(super) written: SystemTime,
}

impl RotatedAway {
    /// Looks beside the log, in its folder.
    pub(super) fn beside(folder: &Folder, log: &LogFile) -> io::Result<RotatedAway> {
        let mut rotated = RotatedAway::default();
        let Some(own_name) = log.name().to_str() else {
            return Ok(rotated);
        };
        for name in folder.names()? {
            let suffix = name
                .to_str()
                .and_then(|name| name.strip_prefix(own_name)?.strip_prefix('.'));
            // It may be compressed while we look.
            let (Some(suffix), Ok(metadata)) = (suffix, folder.metadata(Path::new(&name))) else {
                continue;
            };
            if !metadata.is_file() {
                continue;
            }
            let written = metadata.modified()?;
            if suffix.ends_with("gz") {
                rotated.compressed = rotated.compressed.max(Some(written));
            } else if !suffix.ends_with("tmp") {
                rotated.files.push(RotatedFile {
                    identity: Identity::of(&metadata),
                    name,
                    written,
                });
            }
        }
        rotated.files.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(rotated)
    }
}
