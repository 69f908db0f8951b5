//! What of a container's terminal has been printed, so that nothing is printed twice or left out when the same
//! output comes in two ways: from the log, and from an attach.
//!
//! A terminal ends lines with "\r\n" where the log has "\n", and a runtime may keep the "\r" in its log or not; so
//! carriage returns do not count when the two are compared.

/// How much of what was printed is kept to find the place again, in bytes.
const TAIL_BYTES: usize = 4096;

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

    /// What comes in `log` after everything that has been printed; none where the place is not in it.
    pub(crate) fn rest<'a>(&self, log: &'a [u8]) -> Option<&'a [u8]> {
        let plain = without_returns(log);
        // Where the whole log is there, counting is exact; after a rotation the place has to be searched.
        let start = match plain.get(..self.count) {
            Some(printed) if printed.ends_with(&self.tail) => self.count,
            _ if self.tail.is_empty() => return None,
            _ => last_occurrence(&plain, &self.tail)? + self.tail.len(),
        };
        Some(&log[raw_length(log, start)..])
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

    #[test]
    fn the_rest_of_the_log_is_what_was_not_printed() {
        let mut printed = Printed::default();
        assert_eq!(printed.rest(b"/ # "), Some(&b"/ # "[..]));
        printed.add(b"hello\r\n/ # ls\r\n");
        for (log, rest) in [
            ("hello\n/ # ls\n", Some("")),
            ("hello\n/ # ls\na\nb\n", Some("a\nb\n")),
            ("hello\r\n/ # ls\r\na\r\n", Some("a\r\n")),
            ("rotated hello\n/ # ls\nnew\n", Some("new\n")),
            ("something else\n", None),
            ("", None),
        ] {
            assert_eq!(printed.rest(log.as_bytes()), rest.map(str::as_bytes), "{log:?}");
        }
    }

    #[test]
    fn periodic_output_is_counted_exactly() {
        let mut printed = Printed::default();
        printed.add("y\r\n".repeat(10_000).as_bytes());
        let log = "y\n".repeat(10_003);
        assert_eq!(printed.rest(log.as_bytes()), Some(&b"y\ny\ny\n"[..]));
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
        assert_eq!(
            printed.rest(log.as_bytes()),
            Some(&b"line 10000\r\nline 10001\r\n"[..])
        );
    }
}
