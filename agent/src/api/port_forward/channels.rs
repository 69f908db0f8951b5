//! Ports over the channels of a WebSocket: of the port that was named as the n-th, 2n is the data and 2n+1 tells what
//! went wrong. Each channel begins with the port's number, two bytes, the lower one first. A client cannot say that it
//! sends no more on one port: that ends with the connection.

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures_util::stream::{BoxStream, select_all, unfold};
use futures_util::{Sink, SinkExt, Stream, StreamExt, stream};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::oneshot;

use super::super::channels::{self, FrameReader, Framing, HEARTBEAT, frame};
use super::super::stream_end::StreamEnd;
use crate::runtime::port_forward::{ForwardedPort, PortForward};
use crate::runtime::streaming_server::StreamError;

/// Carries bytes between the client and the ports until all of them have ended, the client has, or the stream is to end.
pub(super) async fn relay(
    socket: WebSocket,
    forward: PortForward,
    ports: Vec<u16>,
    framing: Framing,
    end: StreamEnd,
) {
    let (to_client, from_client) = socket.split();
    let PortForward {
        ports: forwarded,
        connection: _connection,
    } = forward;
    let mut to_pod = Vec::new();
    let mut frames = Vec::new();
    for (number, (forwarded, port)) in (0_u8..).zip(forwarded.into_iter().zip(ports)) {
        let ForwardedPort {
            from_pod,
            to_pod: writer,
            error,
        } = forwarded;
        to_pod.push(Some(writer));
        frames.push(data_frames(2 * number, port, from_pod));
        frames.push(error_frames(2 * number + 1, port, error));
    }
    let input = relay_input(from_client, to_pod, framing);
    let output = async |to_client: &mut _| relay_output(to_client, frames, framing).await;
    channels::relay(to_client, input, output, &end).await;
}

/// Carries what the client sends to the ports until the client is gone.
async fn relay_input(
    mut from_client: impl Stream<Item = Result<Message, axum::Error>> + Unpin,
    mut to_pod: Vec<Option<DuplexStream>>,
    framing: Framing,
) {
    while let Some(Ok(message)) = from_client.next().await {
        if matches!(message, Message::Close(_)) {
            return;
        }
        let Some(frame) = framing.frame(message) else {
            continue;
        };
        let (channel, data) = (frame[0], &frame[1..]);
        // Nothing is to be said on the error channels.
        if channel % 2 == 0
            && let Some(place) = to_pod.get_mut(usize::from(channel / 2))
            && let Some(writer) = place
            && writer.write_all(data).await.is_err()
        {
            // Nobody listens any more; the other ports go on.
            *place = None;
        }
    }
}

async fn relay_output(
    to_client: &mut (impl Sink<Message, Error = axum::Error> + Unpin),
    frames: Vec<BoxStream<'static, Bytes>>,
    framing: Framing,
) -> Result<(), axum::Error> {
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    heartbeat.reset();
    let mut frames = select_all(frames);
    loop {
        let message = tokio::select! {
            frame = frames.next() => match frame {
                Some(frame) => framing.message(frame),
                None => return Ok(()),
            },
            _ = heartbeat.tick() => Message::Ping(Bytes::new()),
        };
        to_client.send(message).await?;
    }
}

/// What a port sends, up to its end.
fn data_frames(channel: u8, port: u16, from_pod: DuplexStream) -> BoxStream<'static, Bytes> {
    let reader = FrameReader::new(channel, Some(from_pod));
    let data = unfold(reader, async |mut reader| Some((reader.next().await?, reader)));
    stream::once(std::future::ready(first_frame(channel, port)))
        .chain(data)
        .boxed()
}

/// How it ended, where that was not well.
fn error_frames(channel: u8, port: u16, error: oneshot::Receiver<Vec<u8>>) -> BoxStream<'static, Bytes> {
    let words = async {
        let words = error
            .await
            .unwrap_or_else(|_| StreamError::Lost.to_string().into_bytes());
        (!words.is_empty()).then_some(words)
    };
    let words = stream::once(words).filter_map(std::future::ready);
    stream::once(std::future::ready(first_frame(channel, port)))
        .chain(words.map(move |words| frame(channel, &words)))
        .boxed()
}

fn first_frame(channel: u8, port: u16) -> Bytes {
    frame(channel, &port.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(frames: BoxStream<'static, Bytes>) -> Vec<Bytes> {
        frames.collect().await
    }

    #[tokio::test]
    async fn every_channel_begins_with_its_port_the_lower_byte_first() {
        let (near, mut far) = tokio::io::duplex(64);
        far.write_all(b"data").await.unwrap();
        drop(far);
        assert_eq!(
            all(data_frames(2, 8080, near)).await,
            [frame(2, &[0x90, 0x1f]), frame(2, b"data")]
        );
        let (tell, error) = oneshot::channel();
        tell.send(Vec::new()).unwrap();
        assert_eq!(all(error_frames(3, 8080, error)).await, [frame(3, &[0x90, 0x1f])]);
    }

    #[tokio::test]
    async fn what_went_wrong_is_told_on_the_error_channel() {
        let (tell, error) = oneshot::channel();
        tell.send(b"nobody listens".to_vec()).unwrap();
        let told = all(error_frames(1, 80, error)).await;
        assert_eq!(told, [frame(1, &[80, 0]), frame(1, b"nobody listens")]);

        let (tell, error) = oneshot::channel();
        drop(tell);
        let told = all(error_frames(1, 80, error)).await;
        assert_eq!(told[1], frame(1, b"the connection to the runtime was lost"));
    }
}
