//! CRI log files: what the container wrote, read from the file that the runtime keeps of it.
//!
//! - [`attempts`]: the logs that a container's folder holds.
//! - [`entry`]: the format.
//! - [`start`]: in which of the log's files the reading begins.
//! - [`tail`]: where the last lines begin.
//! - [`rotation`]: which file comes next, and when to look.

mod attempts;
mod entry;
mod rotation;
mod start;
mod tail;

use std::future::Future;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use crate::pod::termination_message::{MAX_LOG_BYTES, MAX_LOG_LINES};
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

pub(crate) use attempts::attempts;
pub(crate) use entry::LogStream;
use entry::{Decoder, Selection};
use rotation::{Changes, Identity};

/// How much of a file is read at once, in bytes.
const CHUNK_BYTES: usize = 64 * 1024;

/// How many logs are looked through at once for their last lines, for clients: that may take long, and holds a thread of
/// those that write to the disk. The next ones wait.
const SCANS: usize = 4;

static SCANNING: Semaphore = Semaphore::const_new(SCANS);

/// What is read of a log: the options of Kubernetes' PodLogOptions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LogOptions {
    /// Only the last lines.
    pub(crate) tail_lines: Option<u64>,
    /// Only what was written at this time or later.
    pub(crate) since: Option<Timestamp>,
    /// The time stands before each line.
    pub(crate) timestamps: bool,
    /// No more bytes than this.
    pub(crate) limit_bytes: Option<u64>,
    /// Only what was written to this stream; both by default.
    pub(crate) stream: Option<LogStream>,
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the log {}: {source}", path.display())]
pub(crate) struct LogError {
    /// The log file.
    pub(crate) path: PathBuf,
    /// What the system says.
    pub(crate) source: io::Error,
}

/// Reads the log at one path and what was rotated away from it, oldest first, in pieces.
pub(crate) struct LogReader {
    path: PathBuf,
    selection: Selection,
    current: OpenLog,
    /// The newest file when the reading began: the last one, unless the log is followed.
    newest: Identity,
    left_out: bool,
    /// The file before `current`. The runtime may write to it for a moment after it has made the new one.
    rotated: Option<OpenLog>,
    follow: Option<Follow>,
    bytes_left: u64,
}

/// How long nothing may have come after the container's end before the log is taken to be whole.
const SETTLES: std::time::Duration = std::time::Duration::from_millis(250);

/// What following needs.
struct Follow {
    changes: Changes,
    container_ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    ended: bool,
    /// Whether nothing has come for a moment since then.
    settled: bool,
}

impl LogReader {
    /// Opens the log at `path`, to read what is in it now. Dropped, it looks for nothing any more.
    pub(crate) async fn open(path: &Path, options: &LogOptions) -> Result<LogReader, LogError> {
        let place = scanning(options).await;
        LogReader::new(path, options, place, None).await
    }

    /// Opens the log at `path`, to read on as the container writes, also across rotation, until `container_ended`
    /// and then to the last byte: the runtime says that a container has ended while its log is still being written.
    pub(crate) async fn follow(
        path: &Path,
        options: &LogOptions,
        container_ended: impl Future<Output = ()> + Send + 'static,
    ) -> Result<LogReader, LogError> {
        let place = scanning(options).await;
        let follow = Follow {
            changes: Changes::watch(path),
            container_ended: Box::pin(container_ended),
            ended: false,
            settled: false,
        };
        LogReader::new(path, options, place, Some(follow)).await
    }

    async fn new(
        path: &Path,
        options: &LogOptions,
        place: Option<SemaphorePermit<'static>>,
        follow: Option<Follow>,
    ) -> Result<LogReader, LogError> {
        let selection = Selection {
            since: options.since,
            stream: options.stream,
            timestamps: options.timestamps,
        };
        let (begin, options) = (path.to_path_buf(), *options);
        let cancelled = CancellationToken::new();
        let _waits = cancelled.clone().drop_guard();
        let start = off_the_runtime(move || {
            let _place = place;
            start::find(&begin, &options, &cancelled)
        });
        let start = start.await;
        let failed = |source| LogError {
            path: path.to_path_buf(),
            source,
        };
        let start = start.map_err(failed)?;
        let current = OpenLog::new(start.file, start.position, selection).await;
        Ok(LogReader {
            path: path.to_path_buf(),
            selection,
            current: current.map_err(failed)?,
            newest: start.newest,
            left_out: start.left_out,
            rotated: None,
            follow,
            bytes_left: options.limit_bytes.unwrap_or(u64::MAX),
        })
    }

    /// Whether older lines that were asked for are not read, because their files were compressed.
    pub(crate) fn left_out(&self) -> bool {
        self.left_out
    }

    /// The next piece, never empty; `None` at the end. A call that is dropped loses nothing that follows only if
    /// it had to wait for the container.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, LogError> {
        self.read_on().await.map_err(|source| LogError {
            path: self.path.clone(),
            source,
        })
    }

    async fn read_on(&mut self) -> io::Result<Option<Bytes>> {
        let mut output = BytesMut::new();
        while self.bytes_left > 0 {
            let mut at_end = true;
            if let Some(rotated) = &mut self.rotated {
                at_end = !rotated.read(&mut output).await?;
            }
            if at_end {
                at_end = !self.current.read(&mut output).await?;
            }
            if !output.is_empty() {
                output.truncate(usize::try_from(self.bytes_left).unwrap_or(usize::MAX));
                self.bytes_left -= output.len() as u64;
                if let Some(follow) = &mut self.follow {
                    follow.settled = false;
                }
                return Ok(Some(output.freeze()));
            }
            if !at_end {
                continue;
            }
            if self.follow.is_none() && self.current.identity == self.newest {
                return Ok(None);
            }
            if let Some(next) = self.current.next_file(&self.path).await? {
                let next = OpenLog::open(next, self.selection).await?;
                self.rotated = Some(std::mem::replace(&mut self.current, next));
                continue;
            }
            let Some(follow) = &mut self.follow else {
                return Ok(None);
            };
            if follow.settled {
                return Ok(None);
            }
            if follow.ended {
                tokio::select! {
                    () = tokio::time::sleep(SETTLES) => follow.settled = true,
                    () = follow.changes.changed() => {}
                }
                continue;
            }
            tokio::select! {
                () = &mut follow.container_ended => follow.ended = true,
                () = follow.changes.changed() => {}
            }
        }
        Ok(None)
    }
}

/// A log file and how far it has been read.
struct OpenLog {
    file: File,
    identity: Identity,
    position: u64,
    input: BytesMut,
    decoder: Decoder,
}

impl OpenLog {
    /// Opens the whole file at `path`.
    async fn open(path: PathBuf, selection: Selection) -> io::Result<OpenLog> {
        let file = off_the_runtime(move || std::fs::File::open(path)).await?;
        OpenLog::new(file, 0, selection).await
    }

    /// Reads `file` from `position` on.
    async fn new(file: std::fs::File, position: u64, selection: Selection) -> io::Result<OpenLog> {
        let mut file = File::from_std(file);
        let identity = Identity::of(&file.metadata().await?);
        file.seek(io::SeekFrom::Start(position)).await?;
        Ok(OpenLog {
            file,
            identity,
            position,
            input: BytesMut::new(),
            decoder: Decoder::new(selection),
        })
    }

    /// Reads a piece and adds what it shows to `output`; false at the end of the file.
    async fn read(&mut self, output: &mut BytesMut) -> io::Result<bool> {
        self.input.reserve(CHUNK_BYTES);
        let count = self.file.read_buf(&mut self.input).await?;
        self.position += count as u64;
        self.decoder.decode(&mut self.input, output);
        Ok(count > 0)
    }

    /// The file that goes on after this one, which has been read to its end. Where this one was cut instead, it
    /// is read from its start again.
    async fn next_file(&mut self, path: &Path) -> io::Result<Option<PathBuf>> {
        if self.file.metadata().await?.size() < self.position {
            self.position = 0;
            self.file.rewind().await?;
        }
        let (identity, path) = (self.identity, path.to_path_buf());
        off_the_runtime(move || rotation::next_after(identity, &path)).await
    }
}

/// A place among those who look through a log, where that is to be done. A container's last words are not held up by
/// clients: they are few, and need none.
async fn scanning(options: &LogOptions) -> Option<SemaphorePermit<'static>> {
    options.tail_lines?;
    SCANNING.acquire().await.ok()
}

/// Runs `work`, which reads from the disk, where it holds up no other task.
async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|panic| Err(io::Error::other(panic)))
}

/// The end of the log at `path` as a termination message shows it where the container left none
/// (FallbackToLogsOnError): the last 80 lines, and of those the last 2048 bytes.
pub(crate) async fn termination_message(path: &Path) -> Result<String, LogError> {
    let options = LogOptions {
        tail_lines: Some(MAX_LOG_LINES),
        ..LogOptions::default()
    };
    let mut log = LogReader::new(path, &options, None, None).await?;
    let mut end = BytesMut::new();
    while let Some(piece) = log.next().await? {
        end.extend_from_slice(&piece);
        let _ = end.split_to(end.len().saturating_sub(MAX_LOG_BYTES));
    }
    Ok(String::from_utf8_lossy(&end).into_owned())
}

#[cfg(test)]
mod tests;
