//! Where the reading of a log begins: in which of its files, and where in that one.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use nix::errno::Errno;

use super::LogOptions;
use super::log_file::LogFile;
use super::rotation::{Identity, RotatedAway, RotatedFile};
use super::tail::{Step, Tail};

/// How much of a log is looked through in one step, in bytes: a moment's work.
const STEP_BYTES: u64 = 16 * 1024 * 1024;

/// Where to begin.
pub(super) struct Start {
    /// The oldest file that is read.
    pub(super) file: File,
    /// Which one that is.
    pub(super) identity: Identity,
    /// Where in it, in bytes.
    pub(super) position: u64,
    /// The file that is the log's newest now.
    pub(super) newest: Identity,
    /// Older lines that are asked for lie in compressed files, which are not read.
    pub(super) left_out: bool,
}

/// Looks through a log for the place where to begin, in steps: a log may be of any size.
pub(super) struct Search {
    log: LogFile,
    tail: Option<Tail>,
    since: Option<SystemTime>,
    newest: Identity,
    /// The file that it is at.
    file: File,
    identity: Identity,
    /// The older ones, of which the last is the next.
    older: Vec<RotatedFile>,
    compressed: Option<SystemTime>,
    /// How much of a file is looked through at most; of a larger one, what is left is not looked at.
    most: Option<u64>,
}

/// What came of one step.
pub(super) enum Searched {
    /// The place.
    Found(Start),
    /// There is more to look through.
    GoOn(Box<Search>),
}

impl Search {
    /// Opens the newest file of the log. Blocks.
    pub(super) fn begin(log: LogFile, options: &LogOptions, most: Option<u64>) -> io::Result<Search> {
        let folder = log.folder()?;
        // Opened before looking around: what is rotated away in between is found both ways, not missed.
        let current = match folder.file(Path::new(log.name())) {
            // Renamed, and not made anew yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(opened?),
        };
        let rotated = RotatedAway::beside(&folder, &log)?;
        let mut older = rotated.files;
        let file = match current {
            Some(file) => file,
            None => match older.pop() {
                Some(newest) => folder.file(Path::new(&newest.name))?,
                None => return Err(Errno::ENOENT.into()),
            },
        };
        let newest = Identity::of(&file.metadata()?);
        Ok(Search {
            tail: options.tail_lines.map(|lines| Tail::new(lines, options.stream)),
            since: options.since.map(SystemTime::from),
            newest,
            file,
            identity: newest,
            older,
            compressed: rotated.compressed,
            most,
            log,
        })
    }

    /// Looks through a part of a file. Blocks for a moment.
    pub(super) fn step(mut self) -> io::Result<Searched> {
        let found = match &mut self.tail {
            Some(tail) => tail.step(&self.file, self.most.unwrap_or(STEP_BYTES))?,
            None => Step::WholeFile,
        };
        match found {
            Step::GoOn(reached) if self.most.is_some() => return Ok(self.found(reached, true)),
            Step::GoOn(_) => return Ok(Searched::GoOn(Box::new(self))),
            Step::Found(position) => return Ok(self.found(position, false)),
            Step::WholeFile => {}
        }
        let next = loop {
            match self.older.pop() {
                Some(file) if file.identity == self.newest => {}
                next => break next,
            }
        };
        let wanted = |written: SystemTime| self.since.is_none_or(|since| written >= since);
        let Some(next) = next else {
            let left_out = self.compressed.is_some_and(wanted);
            return Ok(self.found(0, left_out));
        };
        if !wanted(next.written) {
            return Ok(self.found(0, false));
        }
        match self.log.folder()?.file(Path::new(&next.name)) {
            Ok(older) => {
                self.identity = Identity::of(&older.metadata()?);
                self.file = older;
            }
            // It was compressed while we looked: then it cannot be read any more.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(self.found(0, true)),
            Err(error) => return Err(error),
        }
        Ok(Searched::GoOn(Box::new(self)))
    }

    fn found(self, position: u64, left_out: bool) -> Searched {
        Searched::Found(Start {
            file: self.file,
            identity: self.identity,
            position,
            newest: self.newest,
            left_out,
        })
    }
}
