//! A log whose lines begin with the time they were written at, so that one that breaks off can be taken up again
//! where it was, also across a rotation. The times are taken off again.

use jiff::{SignedDuration, Timestamp};

/// The longest time stamp of a line, in bytes: RFC 3339 with nanoseconds and a zone.
const MAX_STAMP_BYTES: usize = 40;

/// How far apart two lines of one container can be in the log and still be the wrong way round: its two outputs are
/// written by two hands.
const DISORDER: SignedDuration = SignedDuration::from_secs(1);

/// What has been read of a log.
#[derive(Debug, Default)]
pub(crate) struct StampedLog {
    /// The beginning of a line, while its stamp is not complete.
    head: Vec<u8>,
    /// Whether the stamp of the line has been read.
    in_line: bool,
    /// The newest line: its stamp, and how much of it was handed on, its end included.
    place: Place,
    /// The place to find again before anything is handed on; what comes before it has been already.
    resume: Option<Place>,
    /// How much of the line has been read this time, in bytes.
    position: usize,
}

/// A place in a log.
#[derive(Clone, Debug, Default)]
struct Place {
    stamp: String,
    bytes: usize,
}

impl StampedLog {
    /// Hands on what is new in `bytes`, without its stamps.
    pub(crate) fn read(&mut self, mut bytes: &[u8], mut out: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            if !self.in_line {
                let taken = self.read_stamp(bytes);
                bytes = &bytes[taken..];
                continue;
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let (part, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
            bytes = rest;
            self.in_line = end.is_none();
            if self.resume.is_some() {
                continue;
            }
            let known = self.place.bytes.saturating_sub(self.position).min(part.len());
            self.position += part.len();
            self.place.bytes = self.place.bytes.max(self.position);
            if known < part.len() {
                out(&part[known..]);
            }
        }
    }

    /// Reads on in the stamp of a line; answers how many bytes that took.
    fn read_stamp(&mut self, bytes: &[u8]) -> usize {
        let space = bytes.iter().position(|byte| *byte == b' ');
        let taken = space.map_or(bytes.len(), |space| space + 1).min(MAX_STAMP_BYTES);
        self.head.extend_from_slice(&bytes[..taken]);
        if space.is_some() || self.head.len() >= MAX_STAMP_BYTES {
            let stamp = String::from_utf8_lossy(&self.head).trim_end().to_owned();
            self.head.clear();
            self.in_line = true;
            self.begin_line(stamp);
        }
        taken
    }

    fn begin_line(&mut self, stamp: String) {
        self.position = 0;
        match self.resume.take() {
            // The place again: as much of this line as was handed on is left out.
            Some(place) if stamp == place.stamp => self.place = place,
            Some(place) if !is_well_after(&stamp, &place.stamp) => self.resume = Some(place),
            _ => self.place = Place { stamp, bytes: 0 },
        }
    }

    /// The log has broken off; the next bytes are those of a new reading that begins at or before [`Self::since`].
    pub(crate) fn broke_off(&mut self) {
        self.head.clear();
        self.in_line = false;
        if self.resume.is_none() && !self.place.stamp.is_empty() {
            self.resume = Some(self.place.clone());
        }
    }

    /// From when on the log is to be read again (`sinceTime`); empty: from its beginning.
    pub(crate) fn since(&self) -> String {
        let place = self.resume.as_ref().unwrap_or(&self.place);
        let stamp = place.stamp.parse::<Timestamp>();
        stamp
            .ok()
            .and_then(|stamp| stamp.checked_sub(DISORDER).ok())
            .map(|since| since.to_string())
            .unwrap_or_default()
    }
}

/// Whether a line came so long after another that the other cannot come any more.
fn is_well_after(stamp: &str, other: &str) -> bool {
    match (stamp.parse::<Timestamp>(), other.parse::<Timestamp>()) {
        (Ok(stamp), Ok(other)) => stamp.duration_since(other) > DISORDER,
        // Lines without stamps cannot be told apart: rather twice than never.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-11-21T03:00:00.000000001Z one\n\
                       2026-11-21T03:00:00.000000003Z three\n\
                       2026-11-21T03:00:00.000000002Z two\n\
                       2026-11-21T03:00:05.000000000Z \n\
                       2026-11-21T03:00:06.000000000Z no end";
    const PLAIN: &str = "one\nthree\ntwo\n\nno end";

    fn read(log: &mut StampedLog, text: &str) -> String {
        let mut out = Vec::new();
        log.read(text.as_bytes(), |part| out.extend_from_slice(part));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn stamps_are_taken_off_however_the_bytes_come() {
        for size in 1..=LOG.len() {
            let mut log = StampedLog::default();
            let mut text = String::new();
            for part in LOG.as_bytes().chunks(size) {
                text.push_str(&read(&mut log, std::str::from_utf8(part).unwrap()));
            }
            assert_eq!(text, PLAIN, "{size}");
        }
    }

    #[test]
    fn a_log_that_breaks_off_anywhere_is_taken_up_where_it_was() {
        for first in 0..=LOG.len() {
            for second in 0..=LOG.len() {
                let mut log = StampedLog::default();
                let mut text = read(&mut log, &LOG[..first]);
                log.broke_off();
                text.push_str(&read(&mut log, &LOG[..second]));
                log.broke_off();
                text.push_str(&read(&mut log, LOG));
                assert_eq!(text, PLAIN, "broke off after {first} and {second} bytes");
            }
        }
    }

    #[test]
    fn a_log_that_was_rotated_meanwhile_goes_on_with_what_is_left() {
        let mut log = StampedLog::default();
        assert_eq!(read(&mut log, LOG.split_inclusive('\n').next().unwrap()), "one\n");
        log.broke_off();
        assert_eq!(log.since(), "2026-11-21T02:59:59.000000001Z");
        assert_eq!(read(&mut log, "2026-11-21T03:10:00Z later\n"), "later\n");
    }

    #[test]
    fn a_log_without_anything_read_begins_at_its_beginning() {
        let mut log = StampedLog::default();
        log.broke_off();
        assert_eq!(log.since(), "");
        assert_eq!(read(&mut log, LOG), PLAIN);
    }
}
