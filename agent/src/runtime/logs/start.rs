//! Where the reading of a log begins: in which of its files, and where in that one.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use tokio_util::sync::CancellationToken;

use super::LogOptions;
use super::rotation::{Identity, RotatedAway};
use super::tail::Tail;

/// Where to begin.
pub(super) struct Start {
    /// The oldest file that is read.
    pub(super) file: File,
    /// Where in it, in bytes.
    pub(super) position: u64,
    /// The file that is the log's newest now.
    pub(super) newest: Identity,
    /// Older lines that are asked for lie in compressed files, which are not read.
    pub(super) left_out: bool,
}

/// Looks through the log at `path`, whose older files were rotated away; gives up where `cancelled` says that nobody waits
/// any more.
pub(super) fn find(path: &Path, options: &LogOptions, cancelled: &CancellationToken) -> io::Result<Start> {
    // Opened before looking around: what is rotated away in between is found both ways, not missed.
    let current = match File::open(path) {
        // Renamed, and not made anew yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        opened => Some(opened?),
    };
    let rotated = match RotatedAway::from(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => RotatedAway::default(),
        rotated => rotated?,
    };
    let mut older = rotated.files.into_iter().rev();
    let first = match current {
        Some(file) => file,
        None => File::open(older.next().map_or_else(|| path.to_path_buf(), |file| file.path))?,
    };
    let newest = Identity::of(&first.metadata()?);
    let since = options.since.map(SystemTime::from);
    let wanted = |written: SystemTime| since.is_none_or(|since| written >= since);

    let mut tail = options.tail_lines.map(|lines| Tail::new(lines, options.stream));
    let mut file = first;
    loop {
        let found = match &mut tail {
            Some(tail) => tail.start_in(&file, cancelled)?,
            None => None,
        };
        let next = older.find(|older| older.identity != newest);
        match (found, next) {
            (Some(position), _) => {
                return Ok(Start {
                    file,
                    position,
                    newest,
                    left_out: false,
                });
            }
            // It may be compressed while we look: then it cannot be read any more.
            (None, Some(next)) if wanted(next.written) => match File::open(&next.path) {
                Ok(older) => file = older,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Ok(Start {
                        file,
                        position: 0,
                        newest,
                        left_out: true,
                    });
                }
                Err(error) => return Err(error),
            },
            (None, next) => {
                return Ok(Start {
                    file,
                    position: 0,
                    newest,
                    left_out: next.is_none() && rotated.compressed.is_some_and(wanted),
                });
            }
        }
    }
}
