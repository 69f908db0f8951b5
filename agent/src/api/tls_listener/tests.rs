//! Real TLS over loopback: who gets in, what the others get, and for how long.

use std::os::unix::fs::PermissionsExt;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::super::unix_listener::SOCKET;
use super::super::{Api, Context, Settings};
use super::*;
use crate::api::tests::context;
use crate::config::KubeconfigSetting;
use crate::kubernetes::api_server::ApiServer;
use crate::kubernetes::cluster_users::ClusterUsers;
use crate::store::disk::Disk;

/// The API over TLS on a port of its own.
struct Node {
    folder: TempDir,
    store: Arc<Store>,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

/// A client's certificate and key.
type Credentials = (String, String);

impl Node {
    async fn start() -> Node {
        let node = Node::start_on("127.0.0.1:0", tempfile::tempdir().expect("a folder")).await;
        node.ready().await;
        node
    }

    async fn start_on(listen: &str, folder: TempDir) -> Node {
        Node::start_late(listen, folder, Duration::ZERO).await
    }

    /// Serves so long after it was bound.
    async fn start_late(listen: &str, folder: TempDir, later: Duration) -> Node {
        Node::start_with(listen, folder, later, None).await
    }

    /// One that takes tokens, of an API server that cannot be reached.
    async fn start_with_tokens() -> Node {
        let folder = tempfile::tempdir().expect("a folder");
        let kubeconfig = KubeconfigSetting::File(folder.path().join("no-such-kubeconfig"));
        let api_server = ApiServer::configured(&kubeconfig).expect("one is configured");
        let users = ClusterUsers::new(Arc::new(api_server));
        let node = Node::start_with("127.0.0.1:0", folder, Duration::ZERO, Some(users)).await;
        node.ready().await;
        node
    }

    async fn start_with(
        listen: &str,
        folder: TempDir,
        later: Duration,
        cluster_users: Option<ClusterUsers>,
    ) -> Node {
        let state_dir = folder.path().join("state");
        let disk = Disk::open(&state_dir).expect("a state folder");
        let (store, _) = Store::load("node1", disk).expect("a store");
        let api = Api::bind(settings(listen, folder.path()))
            .await
            .expect("a socket");
        if !later.is_zero() {
            tokio::time::pause();
            tokio::time::advance(later).await;
            tokio::time::resume();
        }
        let shutdown = CancellationToken::new();
        let context = Context {
            cluster_users,
            ..context(folder.path(), &store, &shutdown)
        };
        Node {
            serving: tokio::spawn(api.serve(context)),
            folder,
            store,
            shutdown,
        }
    }

    async fn ready(&self) {
        while !self.store.node_report().api.ready {
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn address(&self) -> SocketAddr {
        let url = self.store.node_report().api.listen;
        url.strip_prefix("https://")
            .expect("a URL")
            .parse()
            .expect("an address")
    }

    fn pki(&self) -> PathBuf {
        self.folder.path().join("state/pki")
    }

    fn root(&self) -> Credentials {
        credentials(&self.pki())
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(self.pki().join("ca.crt")).expect("a certificate");
        roots.add(authority).expect("an authority");
        roots
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.expect("connected")
    }

    async fn tls(&self, client: Option<&Credentials>) -> io::Result<TlsStream<TcpStream>> {
        self.tls_of(&TLS13, client).await
    }

    async fn tls_of(
        &self,
        version: &'static SupportedProtocolVersion,
        client: Option<&Credentials>,
    ) -> io::Result<TlsStream<TcpStream>> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(self.roots());
        let mut config = match client {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM");
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
                config
                    .with_client_auth_cert(vec![certificate], key)
                    .expect("a pair")
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let name = ServerName::from(self.address().ip());
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, self.tcp().await).await
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.serving.await.expect("it ends");
    }
}

fn settings(listen: &str, folder: &std::path::Path) -> Settings {
    Settings {
        run_dir: folder.to_path_buf(),
        group: None,
        listen: Some(listen.parse().expect("an address")),
        state_dir: folder.join("state"),
        node_name: "node1".to_owned(),
    }
}

fn credentials(pki: &std::path::Path) -> Credentials {
    let read = |name| std::fs::read_to_string(pki.join(name)).expect("a file");
    (read("client.crt"), read("client.key"))
}

/// One request on a connection of its own.
async fn ask(
    stream: TlsStream<TcpStream>,
    method: &str,
    path: &str,
    body: &str,
) -> Result<(u16, Bytes), hyper::Error> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "node1")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.to_owned())))
        .expect("a request");
    let response = sender.send_request(request).await?;
    let code = response.status().as_u16();
    Ok((code, response.into_body().collect().await?.to_bytes()))
}

/// Reads until the other side has ended the connection.
async fn ended(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // Whether it says goodbye does not matter.
    let _ = stream.read_to_end(&mut rest).await;
}

#[tokio::test]
async fn without_a_certificate_nothing_is_answered_but_401() {
    let node = Node::start().await;
    for path in [
        "/livez",
        "/readyz",
        "/version",
        "/metrics",
        "/api/v1/pods",
        "/no/such",
        "/",
    ] {
        let stream = node.tls(None).await.expect("a handshake");
        let (code, body) = ask(stream, "GET", path, "").await.expect("an answer");
        let status: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(
            (code, &status["kind"], &status["reason"]),
            (401, &json!("Status"), &json!("Unauthorized")),
            "{path}"
        );
    }
    // One answer, and the connection is closed.
    let mut stream = node.tls(None).await.expect("a handshake");
    let request = b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n";
    stream
        .write_all(&[&request[..], &request[..]].concat())
        .await
        .expect("sent");
    let mut answers = Vec::new();
    let _ = stream.read_to_end(&mut answers).await;
    let answers = String::from_utf8_lossy(&answers).into_owned();
    assert_eq!(answers.matches("HTTP/1.1 401").count(), 1, "{answers}");
    node.stop().await;
}

/// Everything that is answered on one connection without a certificate.
async fn answers(node: &Node, requests: &str) -> String {
    let mut stream = node.tls(None).await.expect("a handshake");
    stream.write_all(requests.as_bytes()).await.expect("sent");
    let mut answers = Vec::new();
    let _ = stream.read_to_end(&mut answers).await;
    String::from_utf8_lossy(&answers).into_owned()
}

#[tokio::test]
async fn where_tokens_are_taken_who_brings_none_has_one_answer_and_root_gets_in_while_nobody_can_be_asked() {
    let node = Node::start_with_tokens().await;
    let request = "GET /livez HTTP/1.1\r\nhost: a\r\n";
    for header in [
        "",
        "authorization: Basic abc\r\n",
        "authorization: Bearer \r\n",
        "impersonate-user: root\r\n",
    ] {
        let answers = answers(&node, &format!("{request}{header}\r\n").repeat(2)).await;
        assert_eq!(
            answers.matches("HTTP/1.1 ").count(),
            1,
            "{header:?}: one, and the connection is closed: {answers}"
        );
        assert!(answers.starts_with("HTTP/1.1 401"), "{header:?}: {answers}");
    }
    let close = "connection: close\r\n";
    let asked = answers(
        &node,
        &format!("{request}{close}authorization: Bearer abc\r\n\r\n"),
    )
    .await;
    assert!(
        asked.starts_with("HTTP/1.1 503") && asked.contains("cannot be asked") && !asked.contains("abc"),
        "{asked}"
    );
    let stream = node.tls(Some(&node.root())).await.expect("a handshake");
    let (code, body) = ask(stream, "GET", "/livez", "").await.expect("an answer");
    assert_eq!((code, &body[..]), (200, &b"ok"[..]));
    node.stop().await;
}

#[tokio::test]
async fn whoever_has_not_said_in_time_who_it_is_is_dropped_where_tokens_are_taken_too() {
    let node = Node::start_with_tokens().await;
    let mut mute = node.tls(None).await.expect("a handshake");
    tokio::time::pause();
    let mut rest = Vec::new();
    let _ = mute.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
    node.stop().await;
}

#[tokio::test]
async fn roots_certificate_opens_everything_in_both_versions_of_tls() {
    let node = Node::start().await;
    for version in [&TLS12, &TLS13] {
        let stream = node
            .tls_of(version, Some(&node.root()))
            .await
            .expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let (code, body) = ask(stream, "GET", "/livez", "").await.expect("an answer");
        assert_eq!((code, &body[..]), (200, &b"ok"[..]));
    }
    let review = r#"{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1"}"#;
    let stream = node.tls(Some(&node.root())).await.expect("a handshake");
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let (code, body) = ask(stream, "POST", path, review).await.expect("an answer");
    let review: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(
        (code, &review["status"]["userInfo"]),
        (
            201,
            &json!({"username": "debuglet:root", "groups": ["system:masters", "system:authenticated"]})
        )
    );
    node.stop().await;
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_turned_away() {
    let node = Node::start().await;
    let elsewhere = tempfile::tempdir().expect("a folder");
    certificates::ensure(elsewhere.path(), &[], OffsetDateTime::now_utc()).expect("made");
    let stranger = credentials(elsewhere.path());
    let refused = node.tls_of(&TLS12, Some(&stranger)).await;
    assert!(refused.is_err(), "TLS 1.2: in the handshake");
    // In TLS 1.3 the client's part of the handshake is over before its certificate is judged.
    if let Ok(stream) = node.tls(Some(&stranger)).await {
        assert!(ask(stream, "GET", "/livez", "").await.is_err());
    }
    node.stop().await;
}

#[tokio::test]
async fn a_certificate_that_has_ended_is_turned_away_and_the_nodes_own_are_made_anew_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let pki = folder.path().join("state/pki");
    let before = OffsetDateTime::now_utc() - time::Duration::days(400);
    certificates::ensure(&pki, &["127.0.0.1".to_owned()], before).expect("made");
    let ended = credentials(&pki);
    let node = Node::start_on("127.0.0.1:0", folder).await;
    node.ready().await;
    assert!(node.tls_of(&TLS12, Some(&ended)).await.is_err());
    let stream = node.tls(Some(&node.root())).await.expect("a handshake");
    assert_eq!(ask(stream, "GET", "/livez", "").await.expect("an answer").0, 200);
    node.stop().await;
}

#[tokio::test]
async fn certificates_that_near_their_end_are_made_anew_while_it_runs() {
    made_anew_after(Node::start().await, RENEWAL + Duration::from_secs(1)).await;
}

#[tokio::test]
async fn certificates_that_end_by_a_clock_that_was_set_are_made_anew_at_the_next_look_at_the_clock() {
    // Time passes, and the clock does not show it.
    made_anew_after(Node::start().await, CLOCK_LOOK * 3).await;
}

#[tokio::test]
async fn certificates_that_end_by_a_clock_that_was_set_before_anybody_was_served_are_made_anew_soon() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start_late("127.0.0.1:0", folder, CLOCK_LOOK * 3).await;
    node.ready().await;
    // Less than a clock may be off: what was set was set before.
    made_anew_after(node, CLOCK_LOOK - Duration::from_secs(1)).await;
}

async fn made_anew_after(node: Node, later: Duration) {
    let kubeconfig = node.folder.path().join(KUBECONFIG);
    let first = std::fs::read_to_string(&kubeconfig).expect("a kubeconfig");
    let served = |stream: &TlsStream<TcpStream>| {
        let certificates = stream.get_ref().1.peer_certificates().expect("a certificate");
        certificates[0].clone().into_owned()
    };
    let root = node.root();
    let old = served(&node.tls(Some(&root)).await.expect("a handshake"));

    // As they would be after 300 days.
    let past = OffsetDateTime::now_utc() - time::Duration::days(300);
    for file in ["server.crt", "client.crt"] {
        std::fs::remove_file(node.pki().join(file)).expect("removed");
    }
    let aged = certificates::ensure(&node.pki(), &["127.0.0.1".to_owned()], past);
    assert!(aged.is_ok());
    let aged = credentials(&node.pki());
    tokio::time::pause();
    tokio::time::advance(later).await;
    tokio::time::resume();
    while node.root() == aged || std::fs::read_to_string(&kubeconfig).expect("a kubeconfig") == first {
        sleep(Duration::from_millis(10)).await;
    }
    let mut stream = node.tls(Some(&node.root())).await.expect("a handshake");
    while served(&stream) == old {
        stream = node.tls(Some(&node.root())).await.expect("a handshake");
    }
    assert_eq!(ask(stream, "GET", "/livez", "").await.expect("an answer").0, 200);
    node.stop().await;
}

#[tokio::test]
async fn the_kubeconfig_is_roots_alone_and_opens_the_api() {
    let node = Node::start().await;
    let path = node.folder.path().join(KUBECONFIG);
    let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let text = std::fs::read_to_string(&path).expect("a text");
    let kubeconfig: Value = serde_saphyr::from_str(&text).expect("YAML");
    assert_eq!(
        kubeconfig["clusters"][0]["cluster"]["server"],
        json!(format!("https://{}", node.address()))
    );
    let data = |value: &Value| {
        use base64::Engine;
        let text = value.as_str().expect("a text");
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(text)
            .expect("base64");
        String::from_utf8(bytes).expect("PEM")
    };
    let user = &kubeconfig["users"][0]["user"];
    let credentials = (
        data(&user["client-certificate-data"]),
        data(&user["client-key-data"]),
    );
    let stream = node.tls(Some(&credentials)).await.expect("a handshake");
    assert_eq!(
        ask(stream, "GET", "/version", "").await.expect("an answer").0,
        200
    );
    let report = node.store.node_report().api;
    assert_eq!(report.kubeconfig, path.display().to_string());
    node.stop().await;
}

#[tokio::test]
async fn what_is_bound_can_be_connected_to_with_the_kubeconfig_before_anybody_is_answered() {
    let folder = tempfile::tempdir().expect("a folder");
    let _api = Api::bind(settings("127.0.0.1:0", folder.path()))
        .await
        .expect("a socket");
    let text = std::fs::read_to_string(folder.path().join(KUBECONFIG)).expect("a kubeconfig");
    let kubeconfig: Value = serde_saphyr::from_str(&text).expect("YAML");
    let server = kubeconfig["clusters"][0]["cluster"]["server"]
        .as_str()
        .expect("a URL");
    let address = server.strip_prefix("https://").expect("a URL");
    assert!(TcpStream::connect(address).await.is_ok(), "{address}");
}

#[tokio::test]
async fn nobody_connects_to_a_port_whose_kubeconfig_is_not_written_and_why_is_known_to_the_first_who_asks() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = port.local_addr().expect("its address").to_string();
    drop(port);
    let folder = tempfile::tempdir().expect("a folder");
    let in_the_way = folder.path().join(KUBECONFIG);
    std::fs::create_dir(&in_the_way).expect("a folder in its place");
    let node = Node::start_on(&address, folder).await;
    let mut socket = tokio::net::UnixStream::connect(node.folder.path().join(SOCKET))
        .await
        .expect("connected");
    socket
        .write_all(b"GET /readyz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await
        .expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let report = node.store.node_report().api;
    assert!(!report.ready && report.message.contains(KUBECONFIG), "{report:?}");
    assert!(TcpStream::connect(&address).await.is_err());
    std::fs::remove_dir(&in_the_way).expect("removed");
    node.ready().await;
    assert!(TcpStream::connect(&address).await.is_ok());
    node.stop().await;
}

#[tokio::test]
async fn with_tls_turned_off_the_kubeconfig_of_before_goes() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(KUBECONFIG);
    std::fs::write(&path, "of before").expect("written");
    let settings = Settings {
        listen: None,
        ..settings("127.0.0.1:0", folder.path())
    };
    let _api = Api::bind(settings).await.expect("a socket");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_port_that_is_taken_costs_only_tls_and_is_tried_again() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let node = Node::start_on(&address, tempfile::tempdir().expect("a folder")).await;
    while node.store.node_report().api.message.is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    let report = node.store.node_report().api;
    assert!(!report.ready && report.message.contains(&address), "{report:?}");
    let socket = node.folder.path().join(SOCKET);
    let mut stream = tokio::net::UnixStream::connect(socket)
        .await
        .expect("the socket goes on");
    stream
        .write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await
        .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(taken);
    node.ready().await;
    assert_eq!(node.store.node_report().api.message, "");
    node.stop().await;
}

#[tokio::test]
async fn a_handshake_that_is_not_finished_is_dropped() {
    let node = Node::start().await;
    let mut silent = node.tcp().await;
    let mut torn = node.tcp().await;
    torn.write_all(&[0x16, 0x03, 0x01]).await.expect("sent");
    // Somebody without a certificate who asks nothing is not kept either.
    let mut mute = node.tls(None).await.expect("a handshake");
    tokio::time::pause();
    ended(&mut silent).await;
    ended(&mut torn).await;
    let mut rest = Vec::new();
    let _ = mute.read_to_end(&mut rest).await;
    node.stop().await;
}

#[tokio::test]
async fn what_is_not_tls_is_dropped() {
    let node = Node::start().await;
    let mut plain = node.tcp().await;
    plain
        .write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .expect("sent");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "nothing is said in the clear");
    node.stop().await;
}

#[tokio::test]
async fn whoever_opens_many_connections_and_says_nothing_keeps_nobody_out() {
    let node = Node::start().await;
    let mut silent = Vec::new();
    for _ in 0..MAX_STRANGERS {
        silent.push(node.tcp().await);
    }
    let stream = node.tls(Some(&node.root())).await.expect("a handshake");
    assert_eq!(ask(stream, "GET", "/livez", "").await.expect("an answer").0, 200);
    // The oldest made room.
    ended(&mut silent[0]).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_that_come_back_at_once_all_get_in() {
    // On a machine that is slow one may have to make room for the next; it comes again, as clients do.
    const TRIES: usize = 20;
    let node = Arc::new(Node::start().await);
    let root = node.root();
    let clients: Vec<_> = (0..1000)
        .map(|_| {
            let (node, root) = (Arc::clone(&node), root.clone());
            tokio::spawn(async move {
                for _ in 0..TRIES {
                    if let Ok(stream) = node.tls(Some(&root)).await {
                        return stream;
                    }
                }
                panic!("not let in at {TRIES} tries");
            })
        })
        .collect();
    // Each stays connected, as one that watches does.
    let mut connected = Vec::new();
    for client in clients {
        connected.push(client.await.expect("a client that was let in"));
    }
    for stream in connected {
        assert_eq!(ask(stream, "GET", "/livez", "").await.expect("an answer").0, 200);
    }
    Arc::into_inner(node).expect("nobody else").stop().await;
}

#[tokio::test]
async fn a_flood_of_headers_is_refused() {
    let node = Node::start().await;
    let many = "x-flood: 1\r\n".repeat(200);
    let large = format!("x-flood: {}\r\n", "1".repeat(256 * 1024));
    for headers in [many, large] {
        let mut stream = node.tls(Some(&node.root())).await.expect("a handshake");
        let request = format!("GET /livez HTTP/1.1\r\nhost: a\r\n{headers}\r\n");
        // It may be refused before all of it was sent.
        let _ = stream.write_all(request.as_bytes()).await;
        let _ = stream.flush().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
            "{answer}"
        );
    }
    node.stop().await;
}
