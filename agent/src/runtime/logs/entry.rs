//! One entry of a CRI log file: `TIME STREAM TAG CONTENT\n`, where the tag `P` says that the container's line goes
//! on in the stream's next entry, and `F` that it ends here.

use bytes::{Buf, BufMut, BytesMut};
use jiff::Timestamp;

/// The longest start of an entry that is looked at for its time, stream and tag, in bytes.
pub(super) const MAX_HEADER_BYTES: usize = 128;

/// Which of the container's streams a line was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What stands before an entry's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// When the runtime read the content.
    pub(super) time: Timestamp,
    /// The stream it came from.
    pub(super) stream: LogStream,
    /// The container's line goes on in the stream's next entry.
    pub(super) partial: bool,
    /// How long the header is, up to the content, in bytes.
    length: usize,
}

impl Header {
    /// Reads the header at the start of `bytes`, which may end anywhere behind it.
    pub(super) fn parse(bytes: &[u8]) -> Option<Header> {
        let start = &bytes[..bytes.len().min(MAX_HEADER_BYTES)];
        let line = start.split(|byte| *byte == b'\n').next()?;
        let mut words = line.splitn(4, |byte| *byte == b' ');
        let (time, stream, tag) = (words.next()?, words.next()?, words.next()?);
        words.next()?;
        Some(Header {
            time: str::from_utf8(time).ok()?.parse().ok()?,
            stream: match stream {
                b"stdout" => LogStream::Stdout,
                b"stderr" => LogStream::Stderr,
                _ => return None,
            },
            // More tags may follow behind a colon.
            partial: match tag.split(|byte| *byte == b':').next()? {
                b"P" => true,
                b"F" => false,
                _ => return None,
            },
            length: time.len() + stream.len() + tag.len() + 3,
        })
    }
}

/// Which entries are shown, and how.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Selection {
    /// Only what was written at this time or later.
    pub(super) since: Option<Timestamp>,
    /// Only what was written to this stream.
    pub(super) stream: Option<LogStream>,
    /// The time stands before each line.
    pub(super) timestamps: bool,
}

/// Turns entries, as they come in pieces of any size, into what the container wrote. It holds no line as a whole:
/// a runtime may be set up to write lines of any length.
pub(super) struct Decoder {
    selection: Selection,
    within: Option<Within>,
    /// Whether the next entry of stdout, stderr starts a line of the container.
    at_line_start: [bool; 2],
    /// How many bytes have come since the last entry began, be they its own or of none.
    since_begin: u64,
}

/// The entry whose content is being read.
#[derive(Clone, Copy)]
struct Within {
    shown: bool,
    partial: bool,
}

impl Decoder {
    /// A decoder that stands before an entry.
    pub(super) fn new(selection: Selection) -> Decoder {
        Decoder {
            selection,
            within: None,
            at_line_start: [true; 2],
            since_begin: 0,
        }
    }

    /// How many bytes have come since the last entry began.
    pub(super) fn since_begin(&self) -> u64 {
        self.since_begin
    }

    /// Takes from `input` what can be told so far and adds to `output` what is to be shown of it. Less than
    /// [`MAX_HEADER_BYTES`] stay in `input`.
    pub(super) fn decode(&mut self, input: &mut BytesMut, output: &mut BytesMut) {
        while !input.is_empty() {
            let Some(within) = self.within else {
                if !self.begin_entry(input, output) {
                    return;
                }
                continue;
            };
            let end = input.iter().position(|byte| *byte == b'\n');
            let content = input.split_to(end.unwrap_or(input.len()));
            if within.shown {
                output.extend_from_slice(&content);
            }
            self.since_begin += content.len() as u64;
            if end.is_some() {
                input.advance(1);
                if within.shown && !within.partial {
                    output.put_u8(b'\n');
                }
                self.within = None;
            }
        }
    }

    /// Takes an entry's header off `input`; false if it is not all there yet.
    fn begin_entry(&mut self, input: &mut BytesMut, output: &mut BytesMut) -> bool {
        let Some(header) = Header::parse(input) else {
            let start = &input[..input.len().min(MAX_HEADER_BYTES)];
            if start.len() < MAX_HEADER_BYTES && !start.contains(&b'\n') {
                return false;
            }
            // Not an entry, as a full disk or a power cut leaves behind: the container did not write this line.
            self.within = Some(Within {
                shown: false,
                partial: true,
            });
            return true;
        };
        input.advance(header.length);
        let Selection {
            since,
            stream,
            timestamps,
        } = self.selection;
        let shown = since.is_none_or(|since| header.time >= since)
            && stream.is_none_or(|stream| header.stream == stream);
        let at_line_start = &mut self.at_line_start[header.stream as usize];
        if shown && timestamps && *at_line_start {
            // Nine digits, so that lines stand below each other.
            output.put_slice(
                header
                    .time
                    .strftime("%Y-%m-%dT%H:%M:%S.%9fZ ")
                    .to_string()
                    .as_bytes(),
            );
        }
        *at_line_start = !header.partial;
        self.since_begin = 0;
        self.within = Some(Within {
            shown,
            partial: header.partial,
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &[u8] = b"2026-11-21T03:12:40.1Z stdout F one\n\
        2026-11-21T04:12:41.25+01:00 stdout P tw\n\
        2026-11-21T03:12:41.3Z stderr F err\n\
        2026-11-21T03:12:42Z stdout F o\n\
        \0\0\0 not an entry\n\
        2026-11-21T03:12:43Z stdout F \n\
        2026-11-21T03:12:44Z stdout P $ ";

    fn decode(selection: Selection, piece: usize) -> String {
        let mut decoder = Decoder::new(selection);
        let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
        for piece in LOG.chunks(piece) {
            input.extend_from_slice(piece);
            decoder.decode(&mut input, &mut output);
            assert!(input.len() < MAX_HEADER_BYTES);
        }
        String::from_utf8(output.to_vec()).unwrap()
    }

    #[test]
    fn parts_of_a_line_are_joined_however_the_file_is_read() {
        for piece in [1, 7, 64, LOG.len()] {
            let stdout = Selection {
                stream: Some(LogStream::Stdout),
                ..Selection::default()
            };
            assert_eq!(decode(stdout, piece), "one\ntwo\n\n$ ");
        }
    }

    #[test]
    fn both_streams_come_in_the_order_of_the_file() {
        assert_eq!(decode(Selection::default(), LOG.len()), "one\ntwerr\no\n\n$ ");
    }

    #[test]
    fn the_time_stands_once_before_each_line_in_utc_with_nine_digits() {
        let selection = Selection {
            timestamps: true,
            stream: Some(LogStream::Stdout),
            since: None,
        };
        let expected = "2026-11-21T03:12:40.100000000Z one\n2026-11-21T03:12:41.250000000Z two\n\
            2026-11-21T03:12:43.000000000Z \n2026-11-21T03:12:44.000000000Z $ ";
        assert_eq!(decode(selection, 10), expected);
    }

    #[test]
    fn entries_before_since_are_left_out() {
        let since = Some("2026-11-21T03:12:42Z".parse().unwrap());
        assert_eq!(
            decode(
                Selection {
                    since,
                    ..Selection::default()
                },
                LOG.len()
            ),
            "o\n\n$ "
        );
    }

    #[test]
    fn a_line_longer_than_any_buffer_goes_through_without_being_held() {
        let mut decoder = Decoder::new(Selection::default());
        let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
        input.extend_from_slice(b"2026-11-21T03:12:40Z stdout F ");
        for _ in 0..1000 {
            input.extend_from_slice(&[b'x'; 1000]);
            decoder.decode(&mut input, &mut output);
            assert_eq!((input.len(), output.split().len()), (0, 1000));
        }
    }

    #[test]
    fn later_tags_are_no_reason_to_leave_an_entry_out() {
        let header = Header::parse(b"2026-11-21T03:12:40Z stderr P:1:2 x").unwrap();
        assert_eq!(
            (header.stream, header.partial, header.length),
            (LogStream::Stderr, true, 34)
        );
    }
}
