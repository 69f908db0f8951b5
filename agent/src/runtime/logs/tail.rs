//! Finds where the last lines of a log begin, reading its files from the newest to the oldest, each from its end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use tokio_util::sync::CancellationToken;

use super::entry::{Header, LogStream, MAX_HEADER_BYTES};

/// How much is read at once, in bytes.
const BLOCK_BYTES: u64 = 64 * 1024;

/// Counts the container's lines from the last one on. A line that has not ended yet counts as one.
pub(super) struct Tail {
    lines: u64,
    stream: Option<LogStream>,
    counted: u64,
    /// Whether no entry has been seen yet.
    last_entry: bool,
}

impl Tail {
    /// Looks for the last `lines` lines of one stream or of both.
    pub(super) fn new(lines: u64, stream: Option<LogStream>) -> Tail {
        Tail {
            lines,
            stream,
            counted: 0,
            last_entry: true,
        }
    }

    /// The offset of the first entry of `file` that belongs to the lines, at its end where none does; `None` where
    /// all do, and some before it may. The files come newest first. A log may be of any size, so `cancelled` is looked at
    /// before each block.
    pub(super) fn start_in(&mut self, file: &File, cancelled: &CancellationToken) -> io::Result<Option<u64>> {
        let size = file.metadata()?.len();
        let mut start_of_kept = size;
        let mut block_end = size;
        while block_end > 0 {
            if cancelled.is_cancelled() {
                return Err(io::Error::new(io::ErrorKind::Interrupted, "nobody waits for it"));
            }
            let block_start = block_end.saturating_sub(BLOCK_BYTES);
            // An entry that begins at the very end of the block has its header behind it.
            let read_end = size.min(block_end + MAX_HEADER_BYTES as u64);
            let mut bytes = vec![0; (read_end - block_start) as usize];
            file.read_exact_at(&mut bytes, block_start)?;

            let in_block = (block_end - block_start) as usize;
            let after_newlines = (0..in_block)
                .rev()
                .filter(|at| bytes[*at] == b'\n')
                .map(|at| at + 1);
            let first_of_file = (block_start == 0).then_some(0);
            for start in after_newlines.chain(first_of_file) {
                let Some(header) = Header::parse(&bytes[start..]) else {
                    continue;
                };
                if self.stream.is_some_and(|stream| header.stream != stream) {
                    continue;
                }
                if !header.partial || self.last_entry {
                    if self.counted == self.lines {
                        return Ok(Some(start_of_kept));
                    }
                    self.counted += 1;
                }
                self.last_entry = false;
                start_of_kept = block_start + start as u64;
            }
            block_end = block_start;
        }
        // Without lines to look for, nothing of older files is wanted either.
        Ok((self.lines == 0).then_some(size))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn last(log: &str, lines: u64, stream: Option<LogStream>) -> String {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(log.as_bytes()).unwrap();
        let start = Tail::new(lines, stream).start_in(&file, &CancellationToken::new());
        let start = start.unwrap();
        log[start.unwrap_or(0) as usize..].to_owned()
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
            tail.start_in(&file, &CancellationToken::new()).unwrap()
        };
        assert_eq!(start_in(entry("stdout", "F", "last")), None);
        let (ended, open) = (entry("stdout", "F", "x"), entry("stdout", "P", "y"));
        // The open line goes on in the newer file, so it is one with its last line.
        let older = format!("{ended}{ended}{open}");
        assert_eq!(start_in(older), Some(ended.len() as u64));
        assert_eq!(start_in(ended.clone()), Some(ended.len() as u64), "nothing of it");
    }

    #[test]
    fn a_look_that_nobody_waits_for_ends_at_its_next_block() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(entry("stdout", "F", "one").as_bytes()).unwrap();
        let cancelled = CancellationToken::new();
        cancelled.cancel();
        let ended = Tail::new(5, None).start_in(&file, &cancelled);
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::Interrupted);
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
