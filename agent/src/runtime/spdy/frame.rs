//! The frames of SPDY/3.1 (draft-mbelshe-httpbis-spdy-00 with section 2.6 of version 3): eight bytes of header,
//! then the payload. A client that opens streams and reads their data needs the inside of few of them.

use bytes::{BufMut, Bytes, BytesMut};

/// The length of every frame's header, in bytes.
pub(super) const HEADER_BYTES: usize = 8;

/// The highest bit of a frame's first word: set for a control frame.
const CONTROL: u32 = 0x8000_0000;
const VERSION: u32 = 3;
const FLAG_FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// What a frame is about, and whether its sender says nothing more on that stream after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// What the frame is.
    pub(super) kind: Kind,
    /// The last one of its direction (FLAG_FIN).
    pub(super) fin: bool,
    /// How many bytes of payload follow.
    pub(super) length: usize,
}

/// The frames that are told apart. The stream's id of a control frame stands first in its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bytes of the stream with this id.
    Data(u32),
    /// The server has taken a stream.
    SynReply,
    /// A stream ends at once, both ways.
    Reset,
    /// To be answered with the same payload.
    Ping,
    /// The server takes no more streams; those that are open go on.
    GoAway,
    /// More headers of a stream; only whether it is the last frame matters.
    Headers,
    /// SETTINGS, WINDOW_UPDATE (the server has no flow control), and what is not known.
    Other,
}

impl Header {
    /// Reads a frame's header.
    pub(super) fn parse(bytes: [u8; HEADER_BYTES]) -> Header {
        let [a, b, c, d, flags, x, y, z] = bytes;
        let first = u32::from_be_bytes([a, b, c, d]);
        let kind = if first & CONTROL == 0 {
            Kind::Data(first)
        } else {
            match u16::from_be_bytes([c, d]) {
                SYN_REPLY => Kind::SynReply,
                RST_STREAM => Kind::Reset,
                PING => Kind::Ping,
                GOAWAY => Kind::GoAway,
                HEADERS => Kind::Headers,
                _ => Kind::Other,
            }
        };
        Header {
            kind,
            fin: flags & FLAG_FIN != 0,
            length: u32::from_be_bytes([0, x, y, z]) as usize,
        }
    }
}

/// The header of a DATA frame with `length` bytes (below 2^24) for `stream`.
pub(super) fn data_header(stream: u32, fin: bool, length: usize) -> [u8; HEADER_BYTES] {
    let [a, b, c, d] = stream.to_be_bytes();
    let [_, x, y, z] = (length as u32).to_be_bytes();
    [a, b, c, d, u8::from(fin) * FLAG_FIN, x, y, z]
}

/// A PING frame with `payload`.
pub(super) fn ping(payload: u32) -> Bytes {
    let mut frame = control(PING, 4);
    frame.put_u32(payload);
    frame.freeze()
}

/// The start of a control frame.
fn control(kind: u16, length: usize) -> BytesMut {
    let mut frame = BytesMut::with_capacity(HEADER_BYTES + length);
    frame.put_u32(CONTROL | VERSION << 16 | u32::from(kind));
    frame.put_u32(length as u32);
    frame
}

/// Writes the frames that open streams. One per connection: the header blocks of all frames are one zlib stream.
#[derive(Default)]
pub(super) struct StreamOpener {
    begun: bool,
}

impl StreamOpener {
    /// A SYN_STREAM frame for the stream `id` (odd, each higher than the one before) with `headers`, whose names
    /// are in lower case.
    pub(super) fn open(&mut self, id: u32, headers: &[(&str, &str)]) -> Bytes {
        let mut block = Vec::new();
        block.put_u32(headers.len() as u32);
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.put_u32(text.len() as u32);
            block.put_slice(text.as_bytes());
        }
        let block = self.zlib(&block);

        let mut frame = control(SYN_STREAM, 10 + block.len());
        frame.put_u32(id);
        frame.put_u32(0); // associated with no other stream
        frame.put_u16(0); // the highest priority, no credential slot
        frame.put_slice(&block);
        frame.freeze()
    }

    /// Packs `block` (shorter than 64 KiB) as zlib. There is nothing to gain from compressing the two short
    /// headers of a stream, so they go as one stored block, and an empty one behind it marks the end of the
    /// frame, as a flush does. What is left of SPDY's dictionary is its checksum, which the receiver compares.
    fn zlib(&mut self, block: &[u8]) -> Vec<u8> {
        /// Deflate with a window of 32 KiB, a preset dictionary, and the check bits that make it a multiple of 31.
        const ZLIB_HEADER: [u8; 2] = [0x78, 0xbb];
        /// The Adler-32 checksum of the dictionary of SPDY/3.
        const DICTIONARY: u32 = 0xe3c6_a7c2;
        /// Three bits say "not the last block, stored", and five fill up the byte.
        const STORED: u8 = 0;

        let mut packed = Vec::with_capacity(block.len() + 16);
        if !self.begun {
            self.begun = true;
            packed.put_slice(&ZLIB_HEADER);
            packed.put_u32(DICTIONARY);
        }
        for stored in [block, &[]] {
            packed.put_u8(STORED);
            packed.put_u16_le(stored.len() as u16);
            packed.put_u16_le(!(stored.len() as u16));
            packed.put_slice(stored);
        }
        packed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_frame_names_its_stream_length_and_end() {
        let bytes = data_header(7, true, 0x01_02_03);
        assert_eq!(bytes, [0, 0, 0, 7, 1, 1, 2, 3]);
        let header = Header {
            kind: Kind::Data(7),
            fin: true,
            length: 0x01_02_03,
        };
        assert_eq!(Header::parse(bytes), header);
    }

    #[test]
    fn control_frames_are_told_apart() {
        let parse = |kind, flags| Header::parse([0x80, 3, 0, kind, flags, 0, 0, 8]);
        assert_eq!(parse(2, 0).kind, Kind::SynReply);
        assert_eq!(
            parse(3, 0),
            Header {
                kind: Kind::Reset,
                fin: false,
                length: 8
            }
        );
        assert_eq!(parse(4, 0).kind, Kind::Other, "SETTINGS");
        assert_eq!(parse(6, 0).kind, Kind::Ping);
        assert_eq!(parse(7, 0).kind, Kind::GoAway);
        assert_eq!(
            parse(8, 1),
            Header {
                kind: Kind::Headers,
                fin: true,
                length: 8
            }
        );
        assert_eq!(parse(9, 0).kind, Kind::Other, "WINDOW_UPDATE");
    }

    #[test]
    fn a_ping_is_answered_with_its_own_number() {
        assert_eq!(ping(0x0102)[..], [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 1, 2]);
    }

    #[test]
    fn the_header_blocks_of_a_connection_are_one_zlib_stream_of_stored_blocks() {
        let mut opener = StreamOpener::default();
        let first = opener.open(1, &[("streamtype", "error")]);
        let second = opener.open(3, &[("streamtype", "stdin")]);

        assert_eq!(
            first[..HEADER_BYTES],
            [0x80, 3, 0, 1, 0, 0, 0, 10 + 6 + 5 + 27 + 5]
        );
        assert_eq!(first[HEADER_BYTES..18], [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        let text = b"\0\0\0\x01\0\0\0\x0astreamtype\0\0\0\x05error";
        let expected = [
            &[0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2][..],
            &[0, 27, 0, !27, 0xff],
            text,
            &[0, 0, 0, 0xff, 0xff],
        ];
        assert_eq!(first[18..], expected.concat());
        assert_eq!(second[HEADER_BYTES..18], [0, 0, 0, 3, 0, 0, 0, 0, 0, 0]);
        let text = b"\0\0\0\x01\0\0\0\x0astreamtype\0\0\0\x05stdin";
        let expected = [&[0, 27, 0, !27, 0xff][..], text, &[0, 0, 0, 0xff, 0xff]];
        assert_eq!(second[18..], expected.concat(), "no second zlib header");
    }
}
