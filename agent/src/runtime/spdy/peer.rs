//! The streaming server's side of a connection, as tests script it.

use std::io;

use bytes::BufMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::frame::{HEADER_BYTES, Header, Kind, data_header, ping};

/// What the client sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// It opens the stream with this id and this `streamtype`.
    Open(u32, String),
    /// Bytes of a stream, and whether they are the last.
    Data(u32, Vec<u8>, bool),
    /// The answer to a ping.
    Ping(u32),
}

/// The server's end of a connection.
pub(crate) struct Peer<S>(pub(crate) S);

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    /// The client's next frame.
    pub(crate) async fn next(&mut self) -> io::Result<Frame> {
        let mut header = [0; HEADER_BYTES];
        self.0.read_exact(&mut header).await?;
        let Header { kind, fin, length } = Header::parse(header);
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await?;
        let first = || u32::from_be_bytes(payload[..4].try_into().unwrap());
        Ok(match kind {
            Kind::Data(id) => Frame::Data(id, payload, fin),
            Kind::Ping => Frame::Ping(first()),
            kind => {
                assert_eq!((kind, header[3]), (Kind::Other, 1), "a SYN_STREAM");
                let name = b"streamtype";
                let at = payload.windows(name.len()).position(|text| text == name).unwrap() + name.len();
                let length = u32::from_be_bytes(payload[at..at + 4].try_into().unwrap()) as usize;
                let value = String::from_utf8(payload[at + 4..at + 4 + length].to_vec()).unwrap();
                Frame::Open(first(), value)
            }
        })
    }

    /// Takes the next stream and gives its id; it must be of this type.
    pub(crate) async fn accept(&mut self, stream_type: &str) -> u32 {
        let Frame::Open(id, opened) = self.next().await.unwrap() else {
            panic!("a stream was to be opened");
        };
        assert_eq!(opened, stream_type);
        self.control(2, &id.to_be_bytes()).await;
        id
    }

    /// Sends bytes.
    pub(crate) async fn data(&mut self, id: u32, fin: bool, bytes: &[u8]) {
        self.0
            .write_all(&data_header(id, fin, bytes.len()))
            .await
            .unwrap();
        self.0.write_all(bytes).await.unwrap();
    }

    /// Ends a stream both ways.
    pub(crate) async fn reset(&mut self, id: u32) {
        let payload = [id.to_be_bytes(), 5_u32.to_be_bytes()].concat();
        self.control(3, &payload).await;
    }

    /// Asks for a ping's answer.
    pub(crate) async fn ping(&mut self, payload: u32) {
        self.0.write_all(&ping(payload)).await.unwrap();
    }

    /// Sends a control frame of any type.
    pub(crate) async fn control(&mut self, kind: u16, payload: &[u8]) {
        let mut frame = Vec::new();
        frame.put_u16(0x8003);
        frame.put_u16(kind);
        frame.put_u32(payload.len() as u32);
        frame.put_slice(payload);
        self.0.write_all(&frame).await.unwrap();
    }
}
