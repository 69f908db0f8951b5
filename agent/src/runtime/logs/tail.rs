//! Finds where the last lines of a log begin, reading its files from the newest to the oldest, each from its end.

use std::fs::File;
use std::io;

use super::MAX_WITHOUT_ENTRY;
use super::entry::{Header, LogStream, MAX_HEADER_BYTES};
use crate::untrusted_file::read_range;

/// How much is read at once, in bytes.
const BLOCK_BYTES: u64 = 64 * 1024;

/// Counts the container's lines from the last one on. A line that has not ended yet counts as one.
pub(super) struct Tail {
    lines: u64,
    stream: Option<LogStream>,
    counted: u64,
    /// Whether no entry has been seen yet.
    last_entry: bool,
    /// Where it stands in the file that it is at.
    place: Option<Place>,
}

/// How far a file was looked through, from its end.
struct Place {
    /// The file's size when the look began.
    size: u64,
    /// Where what is left of it to look at ends.
    block_end: u64,
    /// Where the oldest entry begins that belongs to the lines.
    start_of_kept: u64,
    /// Where the oldest entry of either stream begins.
    oldest_entry: u64,
}

/// What came of one step through a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The lines begin at this offset of the file, at its end where it has none of them.
    Found(u64),
    /// All of the file belongs to the lines, and some before it may.
    WholeFile,
    /// There is more of the file to look at, up to this offset.
    GoOn(u64),
}

impl Tail {
    /// Looks for the last `lines` lines of one stream or of both.
    pub(super) fn new(lines: u64, stream: Option<LogStream>) -> Tail {
        Tail {
            lines,
            stream,
            counted: 0,
            last_entry: true,
            place: None,
        }
    }

    /// Looks at `bytes` more of a file, or at what is left of it: the last it was called with, or, after
    /// [`Step::WholeFile`], the next older one. Blocks.
    ///
    /// # Errors
    /// Also where no entry begins in 64 MiB: then it is no log.
    pub(super) fn step(&mut self, file: &File, bytes: u64) -> io::Result<Step> {
        let mut place = match self.place.take() {
            Some(place) => place,
            None => {
                let size = file.metadata()?.len();
                Place {
                    size,
                    block_end: size,
                    start_of_kept: size,
                    oldest_entry: size,
                }
            }
        };
        let until = place.block_end.saturating_sub(bytes);
        while place.block_end > until {
            let block_start = place.block_end.saturating_sub(BLOCK_BYTES);
            // An entry that begins at the very end of the block has its header behind it.
            let read_end = place.size.min(place.block_end + MAX_HEADER_BYTES as u64);
            let bytes = read_range(file, block_start, (read_end - block_start) as usize)?;

            // Somebody may have cut the file meanwhile.
            let in_block = bytes.len().min((place.block_end - block_start) as usize);
            let after_newlines = (0..in_block)
                .rev()
                .filter(|at| bytes[*at] == b'\n')
                .map(|at| at + 1);
            let first_of_file = (block_start == 0).then_some(0);
            for start in after_newlines.chain(first_of_file) {
                let Some(header) = Header::parse(&bytes[start..]) else {
                    continue;
                };
                place.oldest_entry = block_start + start as u64;
                if self.stream.is_some_and(|stream| header.stream != stream) {
                    continue;
                }
                if !header.partial || self.last_entry {
                    if self.counted == self.lines {
                        return Ok(Step::Found(place.start_of_kept));
                    }
                    self.counted += 1;
                }
                self.last_entry = false;
                place.start_of_kept = block_start + start as u64;
            }
            place.block_end = block_start;
            if place.oldest_entry - block_start > MAX_WITHOUT_ENTRY {
                return Err(super::not_a_log());
            }
        }
        if place.block_end > 0 {
            let left = place.block_end;
            self.place = Some(place);
            return Ok(Step::GoOn(left));
        }
        // Without lines to look for, nothing of older files is wanted either.
        Ok(if self.lines == 0 {
            Step::Found(place.size)
        } else {
            Step::WholeFile
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn last(log: &str, lines: u64, stream: Option<LogStream>) -> String {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(log.as_bytes()).unwrap();
        // In steps of any size it comes to the same.
        let starts = [1, BLOCK_BYTES + 1, u64::MAX].map(|bytes| {
            let mut tail = Tail::new(lines, stream);
            loop {
                match tail.step(&file, bytes).unwrap() {
                    Step::Found(start) => return start,
                    Step::WholeFile => return 0,
                    Step::GoOn(_) => {}
                }
            }
        });
        assert!(starts.iter().all(|start| *start == starts[0]), "{starts:?}");
        log[starts[0] as usize..].to_owned()
    }

    fn entry(stream: &str, tag: &str, content: &str) -> String {
        format!("2026-11-21T03:12:40.123456789Z {stream} {tag} {content}\n")
    }

    #[test]
    fn parts_of_a_line_count_as_one_line() {
        let first = entry("stdout", "F", "one");
        let second = entry("stdout", "P", "tw") + &entry("stdout", "F", "o");
        let open = entry("stdout", "P", "$ ");
        let log = format!("{first}{second}{open}");
        assert_eq!(last(&log, 0, None), "");
        assert_eq!(last(&log, 1, None), open);
        assert_eq!(last(&log, 2, None), format!("{second}{open}"));
        assert_eq!(last(&log, 3, None), log);
        assert_eq!(last(&log, 4, None), log);
        assert_eq!(last("", 4, None), "");
    }

    #[test]
    fn lines_of_the_other_stream_are_not_counted() {
        let (out, err) = (entry("stdout", "F", "out"), entry("stderr", "F", "err"));
        let log = format!("{out}{err}{err}");
        assert_eq!(last(&log, 1, Some(LogStream::Stdout)), log);
    }

    #[test]
    fn lines_are_counted_on_into_older_files() {
        let mut tail = Tail::new(2, None);
        let mut start_in = |log: String| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(log.as_bytes()).unwrap();
            tail.step(&file, u64::MAX).unwrap()
        };
        assert_eq!(start_in(entry("stdout", "F", "last")), Step::WholeFile);
        let (ended, open) = (entry("stdout", "F", "x"), entry("stdout", "P", "y"));
        // The open line goes on in the newer file, so it is one with its last line.
        let older = format!("{ended}{ended}{open}");
        assert_eq!(start_in(older), Step::Found(ended.len() as u64));
        assert_eq!(
            start_in(ended.clone()),
            Step::Found(ended.len() as u64),
            "nothing of it"
        );
    }

    #[test]
    fn a_sparse_file_is_no_log_and_is_not_looked_through() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 43).unwrap();
        let mut tail = Tail::new(5, None);
        let error = loop {
            match tail.step(&file, MAX_WITHOUT_ENTRY / 2) {
                Ok(step) => assert!(matches!(step, Step::GoOn(_)), "{step:?}"),
                Err(error) => break error,
            }
        };
        assert_eq!(
            error.to_string(),
            "it is not a log: no line begins in 64 MiB of it"
        );
    }

    #[test]
    fn entries_are_found_wherever_the_blocks_are_cut() {
        for content in [1, 1000, 2 * BLOCK_BYTES as usize] {
            let line = entry("stdout", "F", &"x".repeat(content));
            let count = 3 * BLOCK_BYTES as usize / line.len() + 3;
            let log = line.repeat(count);
            for lines in [1, count / 2, count - 1] {
                assert_eq!(last(&log, lines as u64, None).len(), lines * line.len());
            }
        }
    }
}
