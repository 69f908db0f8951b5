//! Ports of a pod, forwarded over one connection with the runtime: per port a stream of data and one for what went
//! wrong, which carry the port and a number that tells the pairs apart.

use std::io;

use hyper::header::HeaderValue;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::spdy::connection::Streams;
use super::streaming_server::{StreamError, StreamingUrl};
use crate::pod::streaming::PORT_FORWARD;

/// Open connections to ports of a pod. Read all of them at the same time: they share one connection, where one that
/// is not read holds up the others.
pub(crate) struct PortForward {
    /// In the order in which they were asked for.
    pub(crate) ports: Vec<ForwardedPort>,
    /// Dropping it ends them all.
    pub(crate) connection: AbortOnDropHandle<io::Result<()>>,
}

/// A connection to one port.
pub(crate) struct ForwardedPort {
    /// From the process that listens, up to its end.
    pub(crate) from_pod: DuplexStream,
    /// To the process. Shutting it down (or dropping it) half-closes it.
    pub(crate) to_pod: DuplexStream,
    /// How it ended: empty where all went well; an error where the connection to the runtime was lost.
    pub(crate) error: oneshot::Receiver<Vec<u8>>,
}

impl PortForward {
    /// Connects to `ports` at `url`, which was asked for with the same ports.
    pub(crate) async fn open(url: &StreamingUrl, ports: &[u16]) -> Result<PortForward, StreamError> {
        let (_, connection) = url.open([HeaderValue::from_static(PORT_FORWARD)]).await?;
        Ok(PortForward::start(connection, ports))
    }

    /// Connects to `ports` over `connection`, which speaks SPDY and [`PORT_FORWARD`].
    pub(crate) fn start(
        connection: impl AsyncRead + AsyncWrite + Send + 'static,
        ports: &[u16],
    ) -> PortForward {
        let mut streams = Streams::default();
        let mut open = |(number, port): (usize, &u16)| {
            let (port, number) = (port.to_string(), number.to_string());
            let headers = |kind| {
                [
                    ("streamtype", kind),
                    ("port", port.as_str()),
                    ("requestid", number.as_str()),
                ]
            };
            let error = streams.short_stream(&headers("error"));
            let (from_pod, to_pod) = streams.both_ways(&headers("data"));
            ForwardedPort {
                from_pod,
                to_pod,
                error,
            }
        };
        let ports = ports.iter().enumerate().map(&mut open).collect();
        PortForward {
            ports,
            connection: AbortOnDropHandle::new(tokio::spawn(streams.run(connection))),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::spdy::peer::{Frame, Peer};
    use super::*;

    async fn rest(stream: &mut DuplexStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn each_direction_of_a_port_ends_by_itself() {
        let (near, far) = tokio::io::duplex(1024);
        let mut forward = PortForward::start(near, &[80]);
        let mut server = Peer(far);
        let error = server.accept("error").await;
        let data = server.accept("data").await;
        let port = &mut forward.ports[0];

        server.data(data, true, b"hello").await;
        assert_eq!(rest(&mut port.from_pod).await, "hello");
        port.to_pod.write_all(b"still").await.unwrap();
        assert_eq!(
            server.next().await.unwrap(),
            Frame::Data(data, b"still".to_vec(), false)
        );
        port.to_pod.shutdown().await.unwrap();
        assert_eq!(server.next().await.unwrap(), Frame::Data(data, Vec::new(), true));
        server.data(error, true, b"").await;
        assert_eq!((&mut port.error).await.unwrap(), b"");
    }

    #[tokio::test]
    async fn a_port_that_fails_leaves_the_others() {
        let (near, far) = tokio::io::duplex(1024);
        let mut forward = PortForward::start(near, &[80, 81]);
        let mut server = Peer(far);
        let (error, data) = (server.accept("error").await, server.accept("data").await);
        let (_, other) = (server.accept("error").await, server.accept("data").await);
        server.data(error, true, b"nobody listens").await;
        server.reset(data).await;
        server.data(other, true, b"here").await;
        assert_eq!((&mut forward.ports[0].error).await.unwrap(), b"nobody listens");
        assert_eq!(rest(&mut forward.ports[0].from_pod).await, "");
        assert_eq!(rest(&mut forward.ports[1].from_pod).await, "here");
    }

    #[tokio::test]
    async fn a_runtime_that_is_lost_ends_every_port() {
        let (near, far) = tokio::io::duplex(1024);
        let mut forward = PortForward::start(near, &[80]);
        let mut server = Peer(far);
        server.accept("error").await;
        server.accept("data").await;
        drop(server);
        assert!((&mut forward.ports[0].error).await.is_err());
        assert_eq!(rest(&mut forward.ports[0].from_pod).await, "");
    }
}
