//! SPDY in the binary messages of a WebSocket, as kubectl sends it: where one message ends means nothing.

use axum::extract::ws::{Message, WebSocket};
use bytes::{Bytes, BytesMut};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};

use super::super::channels::{self, HEARTBEAT};
use super::super::stream_end::StreamEnd;

/// The most bytes that go into one message.
const CHUNK_BYTES: usize = 32 * 1024;

/// Carries bytes between the client and the runtime until one of them ends, or the stream is to end.
pub(super) async fn relay(socket: WebSocket, runtime: impl AsyncRead + AsyncWrite, end: StreamEnd) {
    let (to_client, from_client) = socket.split();
    let (from_runtime, to_runtime) = split(runtime);
    let input = relay_input(from_client, to_runtime);
    let output = async |to_client: &mut _| relay_output(to_client, from_runtime).await;
    channels::relay(to_client, input, output, &end).await;
}

/// Ends when the client does. A runtime that takes no more is told by the end of what it sends.
async fn relay_input(
    mut from_client: impl Stream<Item = Result<Message, axum::Error>> + Unpin,
    mut to_runtime: impl AsyncWrite + Unpin,
) {
    while let Some(Ok(message)) = from_client.next().await {
        match message {
            Message::Binary(bytes) => drop(to_runtime.write_all(&bytes).await),
            Message::Close(_) => return,
            Message::Text(_) | Message::Ping(_) | Message::Pong(_) => {}
        }
    }
}

async fn relay_output(
    to_client: &mut (impl Sink<Message, Error = axum::Error> + Unpin),
    mut from_runtime: impl AsyncRead + Unpin,
) -> Result<(), axum::Error> {
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    heartbeat.reset();
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK_BYTES);
        let message = tokio::select! {
            read = from_runtime.read_buf(&mut buffer) => match read {
                Ok(count) if count > 0 => Message::Binary(buffer.split().freeze()),
                _ => return Ok(()),
            },
            _ = heartbeat.tick() => Message::Ping(Bytes::new()),
        };
        to_client.send(message).await?;
    }
}
