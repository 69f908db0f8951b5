//! Finds where the last lines of a log file begin, reading from its end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::entry::{Header, LogStream, MAX_HEADER_BYTES};

/// How much is read at once, in bytes.
const BLOCK_BYTES: u64 = 64 * 1024;

/// The offset of the first entry of the last `lines` lines of the container, of one stream or of both. A line that
/// has not ended yet counts as one.
pub(super) fn start_of_last(file: &File, lines: u64, stream: Option<LogStream>) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let mut start_of_kept = size;
    let (mut counted, mut last_entry) = (0, true);
    let mut block_end = size;
    while block_end > 0 {
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
            if stream.is_some_and(|stream| header.stream != stream) {
                continue;
            }
            if !header.partial || last_entry {
                if counted == lines {
                    return Ok(start_of_kept);
                }
                counted += 1;
            }
            last_entry = false;
            start_of_kept = block_start + start as u64;
        }
        block_end = block_start;
    }
    Ok(start_of_kept)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn last(log: &str, lines: u64, stream: Option<LogStream>) -> String {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(log.as_bytes()).unwrap();
        log[start_of_last(&file, lines, stream).unwrap() as usize..].to_owned()
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
