//! The task that owns a SPDY connection, and the ends of its streams.
//!
//! Every stream has a buffer of [`BUFFER_BYTES`] between its end and the task. A reader that does not read stops
//! the task from reading, and so the peer from writing: the peer knows no flow control per stream, so one stream
//! that nobody reads holds up the others.

use std::collections::HashMap;
use std::io;

use bytes::{Buf, Bytes};
use futures_util::stream::{BoxStream, select_all};
use futures_util::{FutureExt, StreamExt, stream};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
    DuplexStream,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::io::ReaderStream;

use super::frame::{HEADER_BYTES, Header, Kind, StreamOpener, data_header, ping};

/// How many bytes of one stream wait before its writer has to wait.
const BUFFER_BYTES: usize = 64 * 1024;
/// The most bytes that go into one DATA frame, and that are read from the connection at once.
const CHUNK_BYTES: usize = 32 * 1024;
/// How much of a short stream is kept, in bytes; what is longer is cut.
const MAX_SHORT_BYTES: usize = 64 * 1024;
/// How many of the peer's pings wait for their answer while the connection does not take it; the next are lost.
const MAX_PINGS: usize = 8;

/// The streams of one connection, prepared before it starts.
#[derive(Default)]
pub(crate) struct Streams {
    opener: StreamOpener,
    /// The frames that open them.
    opening: Vec<Bytes>,
    /// What becomes of the bytes that come, by the stream's id.
    incoming: HashMap<u32, Incoming>,
    /// The bytes to be sent.
    outgoing: Vec<BoxStream<'static, DataFrame>>,
}

/// The bytes of one frame and the stream they are for; `None` is the stream's end.
type DataFrame = (u32, Option<Bytes>);

/// Where the bytes of a stream go, as long as it is open.
enum Incoming {
    /// To its reader.
    Read(DuplexStream),
    /// Kept until the stream ends.
    Short(Vec<u8>, oneshot::Sender<Vec<u8>>),
    /// Nothing comes; the value tells whether the peer has taken the stream, and dropping it that it has reset it.
    Write(watch::Sender<bool>),
    /// Both: to its reader until the peer says nothing more.
    Both(Option<DuplexStream>, watch::Sender<bool>),
}

impl Streams {
    /// A stream to the peer. Shutting it down (or dropping it) tells the peer that nothing more comes; writing
    /// to it fails once the peer does not want more.
    pub(crate) fn write_stream(&mut self, headers: &[(&str, &str)]) -> DuplexStream {
        let (taken, state) = watch::channel(false);
        let id = self.add(headers, Incoming::Write(taken));
        self.sending(id, state)
    }

    /// A stream both ways: its reader, as [`Streams::read_stream`] gives it, and its writer, as
    /// [`Streams::write_stream`] does. Either end may be closed before the other.
    pub(crate) fn both_ways(&mut self, headers: &[(&str, &str)]) -> (DuplexStream, DuplexStream) {
        let (reader, far) = tokio::io::duplex(BUFFER_BYTES);
        let (taken, state) = watch::channel(false);
        let id = self.add(headers, Incoming::Both(Some(far), taken));
        (reader, self.sending(id, state))
    }

    /// The writer of the stream `id`, whose `state` is that of [`Incoming::Write`].
    fn sending(&mut self, id: u32, mut state: watch::Receiver<bool>) -> DuplexStream {
        let (near, far) = tokio::io::duplex(BUFFER_BYTES);
        let mut until_reset = state.clone();
        let chunks = async move {
            // The peer drops what comes for a stream before it has taken it.
            let _ = state.wait_for(|taken| *taken).await;
            ReaderStream::with_capacity(far, CHUNK_BYTES)
        };
        let frames = chunks
            .flatten_stream()
            .map(move |chunk| (id, chunk.ok()))
            .chain(stream::once(std::future::ready((id, None))))
            .take_until(async move { while until_reset.changed().await.is_ok() {} });
        self.outgoing.push(frames.boxed());
        near
    }

    /// A stream from the peer, which ends where the peer ends it, or with the connection.
    pub(crate) fn read_stream(&mut self, headers: &[(&str, &str)]) -> DuplexStream {
        let (near, far) = tokio::io::duplex(BUFFER_BYTES);
        self.add(headers, Incoming::Read(far));
        near
    }

    /// A stream from the peer that carries few bytes, which are handed over all at once when it ends. They are
    /// lost where the connection ends before the stream has carried anything.
    pub(crate) fn short_stream(&mut self, headers: &[(&str, &str)]) -> oneshot::Receiver<Vec<u8>> {
        let (done, whole) = oneshot::channel();
        self.add(headers, Incoming::Short(Vec::new(), done));
        whole
    }

    fn add(&mut self, headers: &[(&str, &str)], incoming: Incoming) -> u32 {
        // A client's streams have odd numbers.
        let id = 2 * self.opening.len() as u32 + 1;
        self.opening.push(self.opener.open(id, headers));
        self.incoming.insert(id, incoming);
        id
    }

    /// Opens the streams on `connection` and serves them until the peer ends it, or this is dropped.
    pub(crate) async fn run(self, connection: impl AsyncRead + AsyncWrite + Send) -> io::Result<()> {
        let (from_peer, to_peer) = tokio::io::split(connection);
        let (pings, unanswered) = mpsc::channel(MAX_PINGS);
        let from_peer = BufReader::with_capacity(CHUNK_BYTES, from_peer);
        let send = async {
            // Where the peer takes nothing more, what it has sent is still read: the Status is in it.
            let _ = send(to_peer, self.opening, self.outgoing, unanswered).await;
            std::future::pending().await
        };
        tokio::select! {
            ended = receive(from_peer, self.incoming, pings) => ended,
            ended = send => ended,
        }
    }
}

/// Sends the frames that open the streams, then the streams' bytes and the answers to the peer's pings.
async fn send(
    mut to_peer: impl AsyncWrite + Unpin,
    opening: Vec<Bytes>,
    outgoing: Vec<BoxStream<'static, DataFrame>>,
    mut pings: mpsc::Receiver<u32>,
) -> io::Result<()> {
    for frame in opening {
        to_peer.write_all(&frame).await?;
    }
    let mut outgoing = select_all(outgoing);
    loop {
        to_peer.flush().await?;
        tokio::select! {
            Some((id, chunk)) = outgoing.next() => {
                let fin = chunk.is_none();
                let chunk = chunk.unwrap_or_default();
                let header = data_header(id, fin, chunk.len());
                to_peer.write_all_buf(&mut Buf::chain(&header[..], chunk)).await?;
            }
            Some(payload) = pings.recv() => to_peer.write_all(&ping(payload)).await?,
            else => return Ok(()),
        }
    }
}

/// Hands over what comes from the peer until it closes the connection.
async fn receive(
    mut from_peer: impl AsyncBufRead + Unpin,
    mut incoming: HashMap<u32, Incoming>,
    pings: mpsc::Sender<u32>,
) -> io::Result<()> {
    let ended = loop {
        match receive_frame(&mut from_peer, &mut incoming, &pings).await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    for stream in incoming.into_values() {
        // A short stream that has carried nothing may have been cut off.
        if !matches!(&stream, Incoming::Short(bytes, _) if bytes.is_empty()) {
            stream.finish();
        }
    }
    ended
}

/// Reads one frame, whole, and does what it says.
async fn receive_frame(
    from_peer: &mut (impl AsyncBufRead + Unpin),
    incoming: &mut HashMap<u32, Incoming>,
    pings: &mpsc::Sender<u32>,
) -> io::Result<()> {
    let mut header = [0; HEADER_BYTES];
    from_peer.read_exact(&mut header).await?;
    let Header { kind, fin, length } = Header::parse(header);
    if let Kind::Data(id) = kind {
        let stream = incoming.get_mut(&id);
        receive_data(from_peer, length, stream).await?;
        if fin {
            finish_incoming(incoming, id);
        }
        return Ok(());
    }
    // The first word of a control frame is the stream's id, or the ping's payload; the rest does not matter.
    let first = if length >= 4 {
        from_peer.read_u32().await?
    } else {
        0
    };
    receive_data(from_peer, length.saturating_sub(4), None).await?;
    match kind {
        Kind::SynReply => {
            if let Some(Incoming::Write(taken) | Incoming::Both(_, taken)) = incoming.get(&first) {
                taken.send_replace(true);
            }
        }
        Kind::Reset => {
            if let Some(stream) = incoming.remove(&first) {
                stream.finish();
            }
        }
        // The numbers of a client's own pings are odd; it sends none.
        Kind::Ping if first % 2 == 0 => drop(pings.try_send(first)),
        // After GOAWAY the streams that are open go on until they end, or the connection does.
        Kind::Ping | Kind::GoAway | Kind::Headers | Kind::Data(_) | Kind::Other => {}
    }
    if fin && matches!(kind, Kind::SynReply | Kind::Headers) {
        finish_incoming(incoming, first);
    }
    Ok(())
}

/// Hands the next `length` bytes to `stream`, piece by piece; drops them where it is gone, or its reader is.
async fn receive_data(
    from_peer: &mut (impl AsyncBufRead + Unpin),
    mut length: usize,
    mut stream: Option<&mut Incoming>,
) -> io::Result<()> {
    while length > 0 {
        let piece = from_peer.fill_buf().await?;
        if piece.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let piece = &piece[..piece.len().min(length)];
        let taken = piece.len();
        match &mut stream {
            Some(Incoming::Read(reader) | Incoming::Both(Some(reader), _)) => {
                drop(reader.write_all(piece).await);
            }
            Some(Incoming::Short(bytes, _)) => {
                let room = MAX_SHORT_BYTES - bytes.len();
                bytes.extend_from_slice(&piece[..taken.min(room)]);
            }
            Some(Incoming::Write(_) | Incoming::Both(None, _)) | None => {}
        }
        from_peer.consume(taken);
        length -= taken;
    }
    Ok(())
}

/// The peer sends nothing more on the stream. It may still read from it, if it is one that we write to.
fn finish_incoming(incoming: &mut HashMap<u32, Incoming>, id: u32) {
    match incoming.get_mut(&id) {
        Some(Incoming::Write(_)) => return,
        Some(Incoming::Both(reader, _)) => return drop(reader.take()),
        _ => {}
    }
    if let Some(stream) = incoming.remove(&id) {
        stream.finish();
    }
}

impl Incoming {
    /// Ends the stream: its reader comes to the end, its writer fails, its short content is handed over.
    fn finish(self) {
        if let Incoming::Short(bytes, done) = self {
            // Whoever waited may be gone.
            let _ = done.send(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinHandle;

    use super::super::peer::{Frame, Peer};
    use super::*;

    /// Starts `streams` against a scripted server.
    fn start(streams: Streams) -> (Peer<DuplexStream>, JoinHandle<io::Result<()>>) {
        let (client, server) = tokio::io::duplex(1024);
        (Peer(server), tokio::spawn(streams.run(client)))
    }

    async fn text(mut stream: DuplexStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn bytes_wait_until_the_server_has_taken_their_stream() {
        let mut streams = Streams::default();
        let mut stdin = streams.write_stream(&[("streamtype", "stdin")]);
        let (mut server, _task) = start(streams);
        stdin.write_all(b"early").await.unwrap();
        assert_eq!(server.next().await.unwrap(), Frame::Open(1, "stdin".to_owned()));
        server.ping(2).await;
        assert_eq!(
            server.next().await.unwrap(),
            Frame::Ping(2),
            "and no bytes before it"
        );
        server.control(2, &1_u32.to_be_bytes()).await;
        assert_eq!(
            server.next().await.unwrap(),
            Frame::Data(1, b"early".to_vec(), false)
        );
    }

    #[tokio::test]
    async fn shutting_a_stream_down_half_closes_it() {
        let mut streams = Streams::default();
        let mut stdin = streams.write_stream(&[("streamtype", "stdin")]);
        let stdout = streams.read_stream(&[("streamtype", "stdout")]);
        let (mut server, _task) = start(streams);
        let (stdin_id, stdout_id) = (server.accept("stdin").await, server.accept("stdout").await);
        stdin.write_all(b"x").await.unwrap();
        stdin.shutdown().await.unwrap();
        assert_eq!(
            server.next().await.unwrap(),
            Frame::Data(stdin_id, b"x".to_vec(), false)
        );
        assert_eq!(
            server.next().await.unwrap(),
            Frame::Data(stdin_id, Vec::new(), true)
        );
        server.data(stdout_id, false, b"still ").await;
        server.data(stdout_id, true, b"here").await;
        assert_eq!(text(stdout).await, "still here");
    }

    #[tokio::test]
    async fn a_reset_ends_readers_and_fails_writers() {
        let mut streams = Streams::default();
        let mut stdin = streams.write_stream(&[("streamtype", "stdin")]);
        let stdout = streams.read_stream(&[("streamtype", "stdout")]);
        let error = streams.short_stream(&[("streamtype", "error")]);
        let (mut server, task) = start(streams);
        let (stdin_id, stdout_id) = (server.accept("stdin").await, server.accept("stdout").await);
        let error_id = server.accept("error").await;
        server.data(error_id, false, b"why").await;
        for id in [stdin_id, stdout_id, error_id] {
            server.reset(id).await;
        }
        server.control(7, &[0; 8]).await; // GOAWAY
        assert_eq!(text(stdout).await, "");
        assert_eq!(error.await.unwrap(), b"why");
        drop(server);
        task.await.unwrap().unwrap();
        assert_eq!(
            stdin.write_all(b"x").await.unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }

    #[tokio::test]
    async fn frames_of_no_interest_are_passed_over_and_pings_answered() {
        let mut streams = Streams::default();
        let stdout = streams.read_stream(&[("streamtype", "stdout")]);
        let (mut server, _task) = start(streams);
        let id = server.accept("stdout").await;
        server.control(4, &[0; 4096]).await; // SETTINGS
        server.control(9, &[0; 8]).await; // WINDOW_UPDATE
        server.control(99, b"").await;
        server.data(77, false, b"of a stream that is not open").await;
        server.ping(4).await;
        server.data(id, true, b"out").await;
        assert_eq!(text(stdout).await, "out");
        assert_eq!(server.next().await.unwrap(), Frame::Ping(4));
    }

    #[tokio::test]
    async fn a_status_that_never_came_is_told_apart_from_an_empty_one() {
        let mut streams = Streams::default();
        let error = streams.short_stream(&[("streamtype", "error")]);
        let (mut server, _task) = start(streams);
        server.accept("error").await;
        drop(server);
        assert!(error.await.is_err());

        let mut streams = Streams::default();
        let error = streams.short_stream(&[("streamtype", "error")]);
        let (mut server, _task) = start(streams);
        let id = server.accept("error").await;
        server.data(id, true, b"").await;
        assert_eq!(error.await.unwrap(), b"");
    }

    #[tokio::test]
    async fn a_reader_that_does_not_read_stops_the_server() {
        let mut streams = Streams::default();
        let mut stdout = streams.read_stream(&[("streamtype", "stdout")]);
        let (mut server, _task) = start(streams);
        let id = server.accept("stdout").await;
        // What is on the way at most: the stream's buffer, the read buffer, and the pipe's 1024 bytes.
        let bound = BUFFER_BYTES + CHUNK_BYTES + 1024;
        let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = sent.clone();
        let writer = tokio::spawn(async move {
            for _ in 0..10 * bound / 1000 {
                server.data(id, false, &[b'x'; 1000]).await;
                count.fetch_add(1000, std::sync::atomic::Ordering::SeqCst);
            }
            server.data(id, true, b"").await;
        });
        // Nothing but these two tasks runs: once all have yielded without progress, the writer is stuck.
        let mut before = usize::MAX;
        while before != sent.load(std::sync::atomic::Ordering::SeqCst) {
            before = sent.load(std::sync::atomic::Ordering::SeqCst);
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
        }
        assert!(before <= bound, "{before} bytes were taken from the server");
        let mut whole = Vec::new();
        stdout.read_to_end(&mut whole).await.unwrap();
        writer.await.unwrap();
        assert_eq!(whole.len(), 10 * bound / 1000 * 1000);
    }
}
