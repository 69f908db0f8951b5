//! What of a container's terminal has been printed, so that nothing is printed twice or left out when the same
//! output comes in two ways: from the log, and from an attach.
//!
//! A terminal ends lines with "\r\n" where the log has "\n", and a runtime may keep the "\r" in its log or not; so
//! carriage returns do not count when the two are compared.

use std::collections::VecDeque;

/// How much of what was printed is kept to find the place again, in bytes.
const TAIL_BYTES: usize = 4096;
/// How much of a log's end is kept to find the place in, in bytes: where the log was rotated, or is another. What came
/// after the place is not much more than this where an agent was away for a moment.
const KEPT_BYTES: usize = 4 * 1024 * 1024;

/// What has been printed.
#[derive(Debug, Default)]
pub(crate) struct Printed {
    /// How many bytes, carriage returns left out.
    count: usize,
    /// The last of them, up to twice [`TAIL_BYTES`].
    tail: Vec<u8>,
}

impl Printed {
    /// Adds what is printed now.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        let before = self.tail.len();
        self.tail.extend(bytes.iter().filter(|byte| **byte != b'\r'));
        self.count += self.tail.len() - before;
        if self.tail.len() > 2 * TAIL_BYTES {
            self.tail.drain(..self.tail.len() - TAIL_BYTES);
        }
    }

    /// Goes through a log to what comes in it after everything that has been printed.
    pub(crate) fn rest(&self) -> Rest {
        Rest {
            count: self.count,
            tail: self.tail.clone(),
            seen: 0,
            kept: VecDeque::new(),
            found: self.count == 0,
        }
    }
}

/// A log that is read piece by piece, up to the place where what was printed ends.
pub(crate) struct Rest {
    count: usize,
    tail: Vec<u8>,
    /// How many bytes have come, carriage returns left out.
    seen: usize,
    /// The last of what has come, while the place is not found.
    kept: VecDeque<u8>,
    found: bool,
}

impl Rest {
    /// What of the next piece is to be printed.
    pub(crate) fn next<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        if self.found {
            return piece;
        }
        // Where the whole log is there, counting is exact.
        let left = self.count - self.seen.min(self.count);
        let (before, after) = piece.split_at(raw_length(piece, left));
        self.keep(before);
        if self.seen == self.count && self.ends_with_tail() {
            self.found = true;
            return after;
        }
        self.keep(after);
        &[]
    }

    /// What is to be printed at the end of the log: after a rotation the place is where what was printed last occurs.
    /// Nothing where it does not.
    pub(crate) fn end(self) -> Vec<u8> {
        if self.found {
            return Vec::new();
        }
        let log = Vec::from(self.kept);
        let plain = without_returns(&log);
        match last_occurrence(&plain, &self.tail) {
            Some(start) => log[raw_length(&log, start + self.tail.len())..].to_vec(),
            None => Vec::new(),
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.seen += bytes.iter().filter(|byte| **byte != b'\r').count();
        self.kept.extend(bytes);
        let excess = self.kept.len().saturating_sub(KEPT_BYTES);
        self.kept.drain(..excess);
    }

    fn ends_with_tail(&self) -> bool {
        let last = self.kept.iter().rev().filter(|byte| **byte != b'\r');
        let mut tail = self.tail.iter().rev();
        last.take(self.tail.len()).eq(tail.by_ref())
    }
}

/// How many of the first bytes of `attached` are the end of `log`: what came in both ways.
pub(crate) fn overlap(log: &[u8], attached: &[u8]) -> usize {
    let (plain_log, plain) = (without_returns(log), without_returns(attached));
    let longest = plain_log.len().min(plain.len());
    // The beginning of what is attached is looked for in the log's end; the longest match counts.
    let found = (1..=longest)
        .rev()
        .find(|length| plain_log.ends_with(&plain[..*length]));
    raw_length(attached, found.unwrap_or(0))
}

/// The bytes without the carriage returns.
fn without_returns(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().filter(|byte| *byte != b'\r').collect()
}

/// How many bytes at the beginning of `bytes` hold `plain` bytes that are no carriage return.
fn raw_length(bytes: &[u8], plain: usize) -> usize {
    let mut left = plain;
    for (index, byte) in bytes.iter().enumerate() {
        if left == 0 {
            return index;
        }
        left -= usize::from(*byte != b'\r');
    }
    bytes.len()
}

/// Where `needle` stands last in `bytes`.
fn last_occurrence(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).rposition(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_in_the_log_and_in_the_attach_is_counted_once() {
        for (log, attached, overlapping) in [
            ("/ # ", "", ""),
            ("/ # ", "/ # ", "/ # "),
            ("hello\n/ # ", "/ # ls\r\n", "/ # "),
            ("hello\n/ # ", "\r\n/ # ", "\r\n/ # "),
            ("a\nb\nc\n", "b\r\nc\r\nd\r\n", "b\r\nc\r\n"),
            ("a\r\nb\r\n", "b\r\nc", "b\r\n"),
            ("aaa", "aaaa", "aaa"),
            ("x", "yx", ""),
            ("", "abc", ""),
        ] {
            let length = overlap(log.as_bytes(), attached.as_bytes());
            assert_eq!(&attached[..length], overlapping, "{log:?} and {attached:?}");
        }
    }

    /// However the log is cut into pieces.
    fn rest(printed: &Printed, log: &[u8]) -> String {
        let mut found = [1, 7, usize::MAX].map(|length| {
            let (mut rest, mut shown) = (printed.rest(), Vec::new());
            for piece in log.chunks(length) {
                shown.extend_from_slice(rest.next(piece));
            }
            shown.extend(rest.end());
            String::from_utf8(shown).unwrap()
        });
        assert!(found.iter().all(|one| *one == found[0]), "{found:?}");
        std::mem::take(&mut found[0])
    }

    #[test]
    fn the_rest_of_the_log_is_what_was_not_printed() {
        let mut printed = Printed::default();
        assert_eq!(rest(&printed, b"/ # "), "/ # ");
        printed.add(b"hello\r\n/ # ls\r\n");
        for (log, expected) in [
            ("hello\n/ # ls\n", ""),
            ("hello\n/ # ls\na\nb\n", "a\nb\n"),
            ("hello\r\n/ # ls\r\na\r\n", "a\r\n"),
            ("rotated hello\n/ # ls\nnew\n", "new\n"),
            ("something else\n", ""),
            ("", ""),
        ] {
            assert_eq!(rest(&printed, log.as_bytes()), expected, "{log:?}");
        }
    }

    #[test]
    fn periodic_output_is_counted_exactly() {
        let mut printed = Printed::default();
        printed.add("y\r\n".repeat(10_000).as_bytes());
        let log = "y\n".repeat(10_003);
        assert_eq!(rest(&printed, log.as_bytes()), "y\ny\ny\n");
    }

    #[test]
    fn a_long_session_is_found_by_its_end_after_a_rotation() {
        let mut printed = Printed::default();
        let line = |number: u32| format!("line {number}\r\n");
        for number in 0..10_000 {
            printed.add(line(number).as_bytes());
        }
        assert!(printed.tail.len() <= 2 * TAIL_BYTES);
        let log: String = (8_000..10_002).map(line).collect();
        assert_eq!(rest(&printed, log.as_bytes()), "line 10000\r\nline 10001\r\n");
    }

    #[test]
    fn of_a_long_log_no_more_than_its_end_is_kept() {
        let mut printed = Printed::default();
        printed.add(b"never to be found");
        let mut rest = printed.rest();
        let piece = vec![b'x'; 1024 * 1024];
        for _ in 0..20 {
            assert_eq!(rest.next(&piece), b"");
            assert!(rest.kept.len() <= KEPT_BYTES);
        }
        assert_eq!(rest.end(), b"");
    }
}
