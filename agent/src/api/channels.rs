//! Kubernetes' channels over a WebSocket: each message begins with the number of the channel that it is for. How
//! that is written is a matter of the subprotocol ([`Framing`]); behind it, a message is a *frame* of bytes, the
//! channel first.

use std::future::{Future, pending};
use std::pin::pin;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, close_code};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Sink, SinkExt};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::stream_end::StreamEnd;

/// The most bytes of a stream that go into one message.
const CHUNK_BYTES: usize = 32 * 1024;
/// The largest message that is accepted, in bytes: clients send in messages of their own choice.
pub(super) const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// How often a client is pinged, so that one that is gone is noticed while nothing else is sent.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(30);
/// How long a client that was told the end may take to close the connection.
pub(super) const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// How frames are written into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// As they are.
    Binary,
    /// The channel as a digit, the rest as Base64.
    Base64,
}

impl Framing {
    /// The message of a frame, which is not empty.
    pub(super) fn message(self, frame: Bytes) -> Message {
        match self {
            Framing::Binary => Message::Binary(frame),
            Framing::Base64 => {
                let digit = char::from(frame[0].wrapping_add(b'0'));
                Message::Text(format!("{digit}{}", STANDARD.encode(&frame[1..])).into())
            }
        }
    }

    /// The frame of a message; `None` where it holds none. Binary frames may come in a message that calls itself
    /// text, as the Python client sends what it is given as text.
    pub(super) fn frame(self, message: Message) -> Option<Bytes> {
        let bytes: Bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => return None,
        };
        match self {
            Framing::Binary => (!bytes.is_empty()).then_some(bytes),
            Framing::Base64 => {
                let (digit, text) = bytes.split_first()?;
                let mut frame = vec![digit.wrapping_sub(b'0')];
                STANDARD.decode_vec(text, &mut frame).ok()?;
                Some(frame.into())
            }
        }
    }
}

/// A frame of a few bytes.
pub(super) fn frame(channel: u8, bytes: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(1 + bytes.len());
    frame.put_u8(channel);
    frame.put_slice(bytes);
    frame.freeze()
}

/// Reads a stream as the frames of one channel.
pub(super) struct FrameReader<S> {
    channel: u8,
    stream: Option<S>,
    buffer: BytesMut,
}

impl<S: AsyncRead + Unpin> FrameReader<S> {
    /// Reads `stream`, which may not be there: then it never has anything.
    pub(super) fn new(channel: u8, stream: Option<S>) -> FrameReader<S> {
        FrameReader {
            channel,
            stream,
            buffer: BytesMut::new(),
        }
    }

    /// The channel of its frames.
    pub(super) fn channel(&self) -> u8 {
        self.channel
    }

    /// Whether there is no stream, or it came to its end.
    pub(super) fn has_ended(&self) -> bool {
        self.stream.is_none()
    }

    /// What the stream has next; `None` at its end, once. Waits for ever after that. Can be dropped and called again
    /// without losing bytes.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        let Some(stream) = &mut self.stream else {
            return pending().await;
        };
        if self.buffer.is_empty() {
            self.buffer.reserve(1 + CHUNK_BYTES);
            self.buffer.put_u8(self.channel);
        }
        match stream.read_buf(&mut self.buffer).await {
            Ok(count) if count > 0 => Some(self.buffer.split().freeze()),
            _ => {
                self.stream = None;
                None
            }
        }
    }
}

/// Carries bytes both ways until the output has ended, the client does, or the `end` of the stream has come. `input` ends
/// when the client is gone.
pub(super) async fn relay<S: Sink<Message, Error = axum::Error> + Unpin>(
    mut to_client: S,
    input: impl Future<Output = ()>,
    output: impl AsyncFnOnce(&mut S) -> Result<(), axum::Error>,
    end: &StreamEnd,
) {
    let mut input = pin!(input);
    let close_frame = tokio::select! {
        () = &mut input => return,
        sent = output(&mut to_client) => match sent {
            Ok(()) => normal_end(),
            Err(_) => return,
        },
        () = end.reached() => going_away(end.reason()),
    };
    close(&mut to_client, close_frame).await;
    // Closing while the client still sends would discard what it has not read yet.
    let _ = tokio::time::timeout(CLOSE_DEADLINE, input).await;
}

/// Tells the client that nothing more comes. Not for ever: it may have stopped reading.
pub(super) async fn close(
    to_client: &mut (impl Sink<Message, Error = axum::Error> + Unpin),
    end: Option<CloseFrame>,
) {
    let _ = tokio::time::timeout(CLOSE_DEADLINE, to_client.send(Message::Close(end))).await;
}

/// The end of a session that its own end has not brought about.
pub(super) fn going_away(reason: &'static str) -> Option<CloseFrame> {
    Some(CloseFrame {
        code: close_code::AWAY,
        reason: reason.into(),
    })
}

/// The end of a session that came to its end.
pub(super) fn normal_end() -> Option<CloseFrame> {
    Some(CloseFrame {
        code: close_code::NORMAL,
        reason: "".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_frame_is_its_message_whatever_the_message_calls_itself() {
        let bytes = frame(1, b"out");
        assert_eq!(bytes[..], *b"\x01out");
        assert_eq!(
            Framing::Binary.message(bytes.clone()),
            Message::Binary(bytes.clone())
        );
        assert_eq!(
            Framing::Binary.frame(Message::Binary(bytes.clone())),
            Some(bytes.clone())
        );
        assert_eq!(
            Framing::Binary.frame(Message::Text("\u{1}out".into())),
            Some(bytes)
        );
    }

    #[test]
    fn a_base64_frame_has_a_digit_for_its_channel() {
        let bytes = frame(3, b"\xff\x00");
        let message = Framing::Base64.message(bytes.clone());
        assert_eq!(message, Message::Text("3/wA=".into()));
        assert_eq!(Framing::Base64.frame(message), Some(bytes));
        assert_eq!(Framing::Base64.frame(Message::Text("0not base64!".into())), None);
    }

    #[test]
    fn a_message_without_a_channel_is_no_frame() {
        for framing in [Framing::Binary, Framing::Base64] {
            for empty in [
                Message::Text("".into()),
                Message::Binary(Bytes::new()),
                Message::Ping(Bytes::new()),
            ] {
                assert_eq!(framing.frame(empty), None);
            }
        }
    }

    #[tokio::test]
    async fn a_stream_is_read_as_frames_up_to_its_end() {
        let mut reader = FrameReader::new(2, Some(&b"bytes"[..]));
        assert_eq!(reader.next().await, Some(frame(2, b"bytes")));
        assert!(!reader.has_ended());
        assert_eq!(reader.next().await, None);
        assert!(reader.has_ended());
    }
}
