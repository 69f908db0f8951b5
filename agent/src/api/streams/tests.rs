//! The relay between the command line's client and a scripted streaming server.

use std::path::Path;

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::SEC_WEBSOCKET_PROTOCOL;
use axum::routing::get;
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message as ClientMessage;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};
use tokio_util::sync::CancellationToken;
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
    shutdown: CancellationToken,
    _task: AbortOnDropHandle<()>,
}

/// A WebSocket client of its own, which names `protocol` unless that is empty.
async fn web_socket(folder: &Path, protocol: &'static str) -> WebSocketStream<UnixStream> {
    let mut request = "ws://localhost/exec".into_client_request().unwrap();
    if !protocol.is_empty() {
        let protocol = HeaderValue::from_static(protocol);
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    let stream = UnixStream::connect(folder.join("socket")).await.unwrap();
    client_async(request, stream).await.unwrap().0
}

async fn messages(mut client: WebSocketStream<UnixStream>) -> Vec<ClientMessage> {
    let mut messages = Vec::new();
    while let Some(Ok(message)) = client.next().await {
        messages.push(message);
    }
    messages
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
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    let handler = move |client: Upgrade| {
        let (waiting, shutdown) = (waiting.clone(), token.clone());
        let session = async move { waiting.lock().await.recv().await.ok_or(StreamError::Lost) };
        async move {
            let Upgrade::WebSocket(client) = client else {
                panic!("a WebSocket was to be asked for");
            };
            let answer = serve_web_socket(client, session, StreamEnd::new(&shutdown)).await;
            answer.map_err(Failure::from)
        }
    };
    let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
    let router = Router::new().route("/exec", get(handler));
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    Relay {
        folder,
        server: Peer(far),
        shutdown,
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

#[tokio::test]
async fn the_agent_s_end_is_no_end_of_the_process() {
    let mut relay = relay_on_a_socket(EVERYTHING);
    let client = connect(relay.folder.path()).await;
    relay.server.accept("error").await;
    relay.shutdown.cancel();
    let error = client.outcome.wait().await.unwrap_err();
    assert!(matches!(error, stream_client::StreamError::Lost), "{error}");
    let mut rest = Vec::new();
    relay.server.0.read_to_end(&mut rest).await.unwrap();
}

#[tokio::test]
async fn text_in_and_a_status_at_the_end_as_the_python_client_has_it() {
    let mut relay = relay_on_a_socket(EVERYTHING);
    let mut client = web_socket(relay.folder.path(), V4_CHANNEL).await;
    let server = &mut relay.server;
    let error = server.accept("error").await;
    let stdin = server.accept("stdin").await;
    let stdout = server.accept("stdout").await;
    let stderr = server.accept("stderr").await;
    server.accept("resize").await;
    client.send(ClientMessage::Text("\0typed".into())).await.unwrap();
    assert_eq!(
        server.next().await.unwrap(),
        Frame::Data(stdin, b"typed".to_vec(), false)
    );
    server.data(stdout, true, b"out").await;
    server.data(stderr, true, b"").await;
    server.data(error, true, br#"{"status":"Success"}"#).await;
    let told: Vec<_> = messages(client)
        .await
        .into_iter()
        .map(ClientMessage::into_data)
        .collect();
    assert_eq!(told[..2], [&b"\x01"[..], b"\x01out"]);
    assert_eq!(told[2][0], CHANNEL_ERROR);
    let status: Status = serde_json::from_slice(&told[2][1..]).unwrap();
    assert_eq!(status.status.as_deref(), Some("Success"));
}

#[tokio::test]
async fn the_first_subprotocol_tells_a_failure_as_text_and_success_not_at_all() {
    let failure = br#"{"status":"Failure","message":"exit code 3"}"#;
    let cases: [(&str, &[u8], &[&str]); 3] = [
        ("", br#"{"status":"Success"}"#, &["\u{1}"]),
        ("", failure, &["\u{1}", "\u{3}exit code 3"]),
        (V1_BASE64_CHANNEL, failure, &["1", "3ZXhpdCBjb2RlIDM="]),
    ];
    for (protocol, status, expected) in cases {
        let mut relay = relay_on_a_socket(EVERYTHING);
        let client = web_socket(relay.folder.path(), protocol).await;
        let server = &mut relay.server;
        let error = server.accept("error").await;
        server.accept("stdin").await;
        for stream in ["stdout", "stderr"] {
            let id = server.accept(stream).await;
            server.data(id, true, b"").await;
        }
        server.data(error, true, status).await;
        let mut told: Vec<_> = messages(client).await;
        assert!(told.pop().unwrap().is_close());
        let told: Vec<_> = told
            .into_iter()
            .map(|message| message.into_text().unwrap())
            .collect();
        assert_eq!(told, expected, "{protocol:?}");
    }
}

#[tokio::test]
async fn output_goes_on_while_nobody_reads_the_input() {
    let mut relay = relay_on_a_socket(StreamOptions {
        tty: false,
        ..EVERYTHING
    });
    let mut client = connect(relay.folder.path()).await;
    let server = &mut relay.server;
    let error = server.accept("error").await;
    server.accept("stdin").await;
    let stdout = server.accept("stdout").await;
    let stderr = server.accept("stderr").await;
    // The server reads no more from here on: everything on the way fills up.
    let typing = tokio::spawn(async move { while client.stdin.write_all(&[b'y'; 4096]).await.is_ok() {} });
    let reading = tokio::spawn(async move {
        let mut whole = Vec::new();
        client.stdout.read_to_end(&mut whole).await.unwrap();
        whole.len()
    });
    server.data(stderr, true, b"").await;
    for _ in 0..100 {
        server.data(stdout, false, &[0; 50_000]).await;
    }
    server.data(stdout, true, b"").await;
    server.data(error, true, br#"{"status":"Success"}"#).await;
    assert_eq!(reading.await.unwrap(), 5_000_000);
    assert_eq!(client.outcome.wait().await.unwrap(), 0);
    typing.await.unwrap();
}
