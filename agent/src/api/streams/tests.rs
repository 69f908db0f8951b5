//! The relay between the command line's client and a scripted streaming server.

use std::path::Path;

use axum::Router;
use axum::routing::get;
use sha2::{Digest, Sha256};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::cli::stream_client::{self, StreamSession};
use crate::pod::streaming::TerminalSize;
use crate::runtime::spdy::peer::{Frame, Peer};

const EVERYTHING: StreamOptions = StreamOptions {
    stdin: true,
    stdout: true,
    stderr: true,
    tty: true,
};

/// The relay on a socket, one session, and the server's end of it.
struct Relay {
    folder: tempfile::TempDir,
    server: Peer<DuplexStream>,
    _task: AbortOnDropHandle<()>,
}

fn relay_on_a_socket(options: StreamOptions) -> Relay {
    let folder = tempfile::tempdir().unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (sessions, waiting) = mpsc::channel(1);
    sessions
        .try_send(Session::start(near, V4_CHANNEL.as_bytes(), options))
        .ok()
        .unwrap();
    let waiting = Arc::new(tokio::sync::Mutex::new(waiting));
    let handler = move |client: WebSocketUpgrade| {
        let waiting = waiting.clone();
        let session = async move { waiting.lock().await.recv().await.ok_or(StreamError::Lost) };
        async move {
            serve(client, session)
                .await
                .map_err(|refusal| refusal.to_string())
        }
    };
    let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
    let router = Router::new().route("/exec", get(handler));
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    Relay {
        folder,
        server: Peer(far),
        _task: AbortOnDropHandle::new(task),
    }
}

async fn connect(folder: &Path) -> StreamSession {
    stream_client::open(&folder.join("socket"), "/exec")
        .await
        .unwrap()
}

async fn read(mut stream: DuplexStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[test]
fn the_query_names_the_container_the_command_and_the_streams() {
    let uri =
        "/exec?container=web&command=sh&command=-c&command=echo%20a%26b&stdin=1&stdout=true&stderr=false&tty";
    let expected = StreamParameters {
        container: "web".to_owned(),
        command: vec!["sh".to_owned(), "-c".to_owned(), "echo a&b".to_owned()],
        options: StreamOptions {
            stdin: true,
            stdout: true,
            stderr: false,
            tty: true,
        },
    };
    assert_eq!(StreamParameters::read(&uri.parse().unwrap()).unwrap(), expected);
    let none = StreamParameters::read(&"/attach?container=web".parse().unwrap());
    assert!(matches!(none, Err(Refusal::NoStream)));
}

#[tokio::test]
async fn every_channel_reaches_its_stream_and_the_status_comes_last() {
    let mut relay = relay_on_a_socket(EVERYTHING);
    let mut client = connect(relay.folder.path()).await;
    let server = &mut relay.server;
    let error = server.accept("error").await;
    let stdin = server.accept("stdin").await;
    let stdout = server.accept("stdout").await;
    let stderr = server.accept("stderr").await;
    let resize = server.accept("resize").await;

    client.resize.set(TerminalSize {
        width: 132,
        height: 43,
    });
    let size = Frame::Data(resize, br#"{"Width":132,"Height":43}"#.to_vec(), false);
    assert_eq!(server.next().await.unwrap(), size);
    client.stdin.write_all(b"typed").await.unwrap();
    assert_eq!(
        server.next().await.unwrap(),
        Frame::Data(stdin, b"typed".to_vec(), false)
    );
    client.stdin.shutdown().await.unwrap();
    assert_eq!(
        server.next().await.unwrap(),
        Frame::Data(stdin, Vec::new(), true),
        "half-closed"
    );

    server.data(stderr, true, b"err").await;
    server.data(stdout, true, b"out").await;
    let status = br#"{"status":"Failure","reason":"NonZeroExitCode",
        "details":{"causes":[{"reason":"ExitCode","message":"42"}]}}"#;
    server.data(error, true, status).await;
    assert_eq!(read(client.stdout).await, "out");
    assert_eq!(read(client.stderr).await, "err");
    assert_eq!(client.outcome.wait().await.unwrap(), 42);
}

#[tokio::test]
async fn a_hundred_megabytes_arrive_whole_both_ways() {
    const TOTAL: usize = 100_000_000;
    let mut relay = relay_on_a_socket(StreamOptions {
        tty: false,
        ..EVERYTHING
    });
    let mut client = connect(relay.folder.path()).await;
    let server = tokio::spawn(async move {
        let server = &mut relay.server;
        let error = server.accept("error").await;
        let stdin = server.accept("stdin").await;
        let stdout = server.accept("stdout").await;
        let stderr = server.accept("stderr").await;
        server.data(stderr, true, b"").await;
        while let Frame::Data(id, bytes, fin) = server.next().await.unwrap() {
            assert_eq!(id, stdin);
            server.data(stdout, fin, &bytes).await;
            if fin {
                break;
            }
        }
        server.data(error, true, br#"{"status":"Success"}"#).await;
        relay
    });
    let writer = tokio::spawn(async move {
        let mut sent = Sha256::new();
        let mut piece = vec![0; 1_000_000];
        for number in 0..TOTAL / piece.len() {
            piece
                .iter_mut()
                .enumerate()
                .for_each(|(at, byte)| *byte = (at * 31 + number) as u8);
            sent.update(&piece);
            client.stdin.write_all(&piece).await.unwrap();
        }
        client.stdin.shutdown().await.unwrap();
        sent.finalize()
    });
    let mut received = Sha256::new();
    let (mut total, mut buffer) = (0, vec![0; 64 * 1024]);
    loop {
        let count = client.stdout.read(&mut buffer).await.unwrap();
        if count == 0 {
            break;
        }
        total += count;
        received.update(&buffer[..count]);
    }
    assert_eq!(total, TOTAL);
    assert_eq!(received.finalize(), writer.await.unwrap());
    drop(server.await.unwrap());
    assert_eq!(client.outcome.wait().await.unwrap(), 0);
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_session() {
    let mut relay = relay_on_a_socket(EVERYTHING);
    let client = connect(relay.folder.path()).await;
    for stream in ["error", "stdin", "stdout", "stderr", "resize"] {
        relay.server.accept(stream).await;
    }
    drop(client);
    let mut rest = Vec::new();
    relay.server.0.read_to_end(&mut rest).await.unwrap();
}

#[tokio::test]
async fn a_session_that_breaks_is_told_as_a_failure() {
    let mut relay = relay_on_a_socket(EVERYTHING);
    let client = connect(relay.folder.path()).await;
    relay.server.accept("error").await;
    drop(relay.server);
    let error = client.outcome.wait().await.unwrap_err();
    assert_eq!(error.to_string(), "the connection to the runtime was lost");
}

#[tokio::test]
async fn a_session_that_cannot_be_opened_is_refused_before_the_upgrade() {
    let relay = relay_on_a_socket(EVERYTHING);
    let _first = connect(relay.folder.path()).await;
    let second = stream_client::open(&relay.folder.path().join("socket"), "/nothing/here").await;
    assert!(matches!(second, Err(stream_client::StreamError::Upgrade(_))));
}
