//! CRI log files: what the container wrote, read from the file that the runtime keeps of it.
//!
//! The files lie where others may write: what is opened, and how, is [`crate::untrusted_file`]'s.
//!
//! - [`log_file`]: where a log is.
//! - [`attempts`]: the logs that a container's folder holds.
//! - [`entry`]: the format.
//! - [`followers`]: who is woken when a log's folder changes, and how many may follow.
//! - [`start`]: in which of the log's files the reading begins.
//! - [`tail`]: where the last lines begin.
//! - [`rotation`]: which file comes next.

mod attempts;
mod entry;
mod followers;
mod log_file;
mod rotation;
mod start;
mod tail;

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::pod::termination_message::{MAX_LOG_BYTES, MAX_LOG_LINES};
use crate::untrusted_file::{LOGS, read_range};
pub(crate) use attempts::attempts;
pub(crate) use entry::LogStream;
use entry::{Decoder, Selection};
use followers::Changes;
pub(crate) use followers::{LogFollowers, MAX_FOLLOWERS, Place};
pub(crate) use log_file::{LogFile, make_pod_folder};
use rotation::Identity;
use start::{Search, Searched, Start};

/// How much of a file is read at once, in bytes.
const CHUNK_BYTES: usize = 64 * 1024;

/// How many bytes may come in which no entry begins, also where they are an entry's own: a runtime writes 16 KiB into one, and
/// a sparse file has no end.
const MAX_WITHOUT_ENTRY: u64 = 64 * 1024 * 1024;

/// How much of a log is looked through for a termination message, in bytes: more than 80 lines and 2048 bytes of them have.
const MESSAGE_SEARCH_BYTES: u64 = 1024 * 1024;

/// How many logs are looked through at once for their last lines, for clients: that may take long. The next ones wait.
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

/// Reads a log and what was rotated away from it, oldest first, in pieces.
pub(crate) struct LogReader {
    log: LogFile,
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
    /// Opens the log, to read what is in it now.
    pub(crate) async fn open(log: &LogFile, options: &LogOptions) -> Result<LogReader, LogError> {
        let _place = scanning(options).await;
        let start = find(log, options, None).await;
        LogReader::new(log, options, start, None)
    }

    /// Opens the log, to read on as the container writes, also across rotation, until `container_ended`
    /// and then to the last byte: the runtime says that a container has ended while its log is still being written.
    pub(crate) async fn follow(
        log: &LogFile,
        options: &LogOptions,
        place: Place,
        container_ended: impl Future<Output = ()> + Send + 'static,
    ) -> Result<LogReader, LogError> {
        let start = {
            let _place = scanning(options).await;
            find(log, options, None).await
        };
        // What comes before the folder is watched is there at the first look.
        let follow = Follow {
            changes: place.watch(log).await,
            container_ended: Box::pin(container_ended),
            ended: false,
            settled: false,
        };
        LogReader::new(log, options, start, Some(follow))
    }

    fn new(
        log: &LogFile,
        options: &LogOptions,
        start: io::Result<Start>,
        follow: Option<Follow>,
    ) -> Result<LogReader, LogError> {
        let selection = Selection {
            since: options.since,
            stream: options.stream,
            timestamps: options.timestamps,
        };
        let failed = |source| LogError {
            path: log.path().to_path_buf(),
            source,
        };
        let start = start.map_err(failed)?;
        Ok(LogReader {
            log: log.clone(),
            selection,
            current: OpenLog::new(start.file, start.identity, start.position, selection),
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
            path: self.log.path().to_path_buf(),
            source,
        })
    }

    async fn read_on(&mut self) -> io::Result<Option<Bytes>> {
        let mut output = BytesMut::new();
        while self.bytes_left > 0 {
            let mut at_end = true;
            if let Some(rotated) = &mut self.rotated {
                at_end = !rotated.read(&self.log, &mut output).await?;
            }
            if at_end {
                at_end = !self.current.read(&self.log, &mut output).await?;
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
            if let Some((next, identity)) = self.current.next_file(&self.log).await? {
                let next = OpenLog::new(next, identity, 0, self.selection);
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

/// A log file and how far it has been read. While nothing comes it holds no buffer.
struct OpenLog {
    file: Arc<File>,
    identity: Identity,
    position: u64,
    input: BytesMut,
    decoder: Decoder,
}

impl OpenLog {
    /// Reads `file` from `position` on.
    fn new(file: File, identity: Identity, position: u64, selection: Selection) -> OpenLog {
        OpenLog {
            file: Arc::new(file),
            identity,
            position,
            input: BytesMut::new(),
            decoder: Decoder::new(selection),
        }
    }

    /// Reads a piece and adds what it shows to `output`; false at the end of the file.
    async fn read(&mut self, log: &LogFile, output: &mut BytesMut) -> io::Result<bool> {
        let (file, position) = (Arc::clone(&self.file), self.position);
        let read = move || read_range(&file, position, CHUNK_BYTES);
        let piece = LOGS.run_io(log.path(), read).await?;
        if piece.is_empty() {
            return Ok(false);
        }
        self.position += piece.len() as u64;
        self.input.extend_from_slice(&piece);
        self.decoder.decode(&mut self.input, output);
        if self.decoder.since_begin() > MAX_WITHOUT_ENTRY {
            return Err(not_a_log());
        }
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        Ok(true)
    }

    /// The file that goes on after this one, which has been read to its end. Where this one was cut instead, it
    /// is read from its start again.
    async fn next_file(&mut self, log: &LogFile) -> io::Result<Option<(File, Identity)>> {
        let (file, position, identity) = (Arc::clone(&self.file), self.position, self.identity);
        let of = log.clone();
        let look = move || {
            let was_cut = file.metadata()?.size() < position;
            let next = match rotation::next_after(identity, &of)? {
                Some(next) => {
                    let identity = Identity::of(&next.metadata()?);
                    Some((next, identity))
                }
                None => None,
            };
            Ok((was_cut, next))
        };
        let (was_cut, next) = LOGS.run_io(log.path(), look).await?;
        if was_cut {
            self.position = 0;
        }
        Ok(next)
    }
}

/// That a file holds no entries.
fn not_a_log() -> io::Error {
    let mib = MAX_WITHOUT_ENTRY / (1024 * 1024);
    io::Error::other(format!("it is not a log: no line begins in {mib} MiB of it"))
}

/// Looks for the place where to begin, in no more than the last `most` bytes of a file. Dropped, it ends at its next step.
async fn find(log: &LogFile, options: &LogOptions, most: Option<u64>) -> io::Result<Start> {
    let (begin, options) = (log.clone(), *options);
    let begin = move || Search::begin(begin, &options, most);
    let mut search = LOGS.run_io(log.path(), begin).await?;
    loop {
        match LOGS.run_io(log.path(), move || search.step()).await? {
            Searched::Found(start) => return Ok(start),
            Searched::GoOn(on) => search = *on,
        }
    }
}

/// A place among those who look through a log, where that is to be done. A container's last words are not held up by
/// clients: they are few, and need none.
async fn scanning(options: &LogOptions) -> Option<SemaphorePermit<'static>> {
    options.tail_lines?;
    SCANNING.acquire().await.ok()
}

/// The end of a log as a termination message shows it where the container left none
/// (FallbackToLogsOnError): the last 80 lines, and of those the last 2048 bytes.
pub(crate) async fn termination_message(log: &LogFile) -> Result<String, LogError> {
    let options = LogOptions {
        tail_lines: Some(MAX_LOG_LINES),
        ..LogOptions::default()
    };
    let start = find(log, &options, Some(MESSAGE_SEARCH_BYTES)).await;
    let mut log = LogReader::new(log, &options, start, None)?;
    let (mut end, mut read) = (BytesMut::new(), 0);
    // Somebody else than the container may go on writing to it.
    while read < 2 * MESSAGE_SEARCH_BYTES
        && let Some(piece) = log.next().await?
    {
        read += piece.len() as u64;
        end.extend_from_slice(&piece);
        let _ = end.split_to(end.len().saturating_sub(MAX_LOG_BYTES));
    }
    Ok(String::from_utf8_lossy(&end).into_owned())
}

#[cfg(test)]
mod tests;
