//! The client of the agent's API: HTTP/1.1 over its Unix socket, one connection per request.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, WARNING};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;

pub(crate) use super::client_error::ClientError;

/// The largest answer that is read: a node full of pods lists a few megabytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// The longest line of a watch: a pod is at most 1.5 MiB, etcd's limit.
const MAX_LINE_BYTES: usize = 8 * 1024 * 1024;

/// How long the agent may take to begin its answer. It answers at once, or is stuck.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The body of a PATCH that Kubernetes merges by the lists' keys.
const STRATEGIC_MERGE_PATCH: &str = "application/strategic-merge-patch+json";

/// The agent, as a command reaches it.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the agent that listens on `socket`. Nothing is opened yet.
    pub(crate) fn new(socket: PathBuf) -> Client {
        Client { socket }
    }

    /// The agent's socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The object at `path`, which carries its query.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.send(Method::GET, path, "", Bytes::new()).await?;
        self.read(path, response).await
    }

    /// Does what a POST to `path` does; the body is empty. Answers what the agent warns of, too.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<(T, Vec<String>), ClientError> {
        let response = self.send(Method::POST, path, "", Bytes::new()).await?;
        let warnings = warnings(&response);
        Ok((self.read(path, response).await?, warnings))
    }

    /// Creates what `object` describes at `path`.
    pub(crate) async fn create<T: DeserializeOwned>(
        &self,
        path: &str,
        object: &Value,
    ) -> Result<T, ClientError> {
        let body = Bytes::from(object.to_string());
        let response = self.send(Method::POST, path, "application/json", body).await?;
        self.read(path, response).await
    }

    /// Merges `patch` into the object at `path`, lists by their keys; answers what the agent warns of, too.
    pub(crate) async fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        patch: &Value,
    ) -> Result<(T, Vec<String>), ClientError> {
        let body = Bytes::from(patch.to_string());
        let response = self
            .send(Method::PATCH, path, STRATEGIC_MERGE_PATCH, body)
            .await?;
        let warnings = warnings(&response);
        Ok((self.read(path, response).await?, warnings))
    }

    /// The bytes at `path`, as they come: a log.
    pub(crate) async fn bytes(&self, path: &str) -> Result<ByteStream, ClientError> {
        let response = self.send(Method::GET, path, "", Bytes::new()).await?;
        Ok(ByteStream {
            path: path.to_owned(),
            body: response.into_body(),
        })
    }

    /// Deletes what is at `path`, which may take as long as a container's grace.
    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let answer = self.exchange(Method::DELETE, path, "", Bytes::new());
        let response = answer.await?;
        if response.status().is_success() {
            return self.read(path, response).await;
        }
        Err(self.refusal(path, response).await)
    }

    /// The objects at `path`, one a line, as they come: a watch.
    pub(crate) async fn lines(&self, path: &str) -> Result<Lines, ClientError> {
        Ok(Lines {
            bytes: self.bytes(path).await?,
            buffer: BytesMut::new(),
            searched: 0,
        })
    }

    /// Sends one request and waits for the head of its answer; a refusal is an error.
    async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let answer = self.exchange(method, path, content_type, body);
        let response =
            tokio::time::timeout(ANSWER_TIMEOUT, answer)
                .await
                .map_err(|_| ClientError::Silent {
                    path: path.to_owned(),
                })??;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refusal(path, response).await)
    }

    /// Opens a connection, sends the request on it, and reads the head of the answer.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let broken = |source| ClientError::Broken {
            path: path.to_owned(),
            source,
        };
        let stream = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // It ends with the answer's body; what goes wrong with it is seen there.
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "debuglet")
            .header(ACCEPT, "application/json, */*");
        if !content_type.is_empty() {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| ClientError::Unreadable {
                path: path.to_owned(),
                reason: error.to_string(),
            })?;
        sender.send_request(request).await.map_err(broken)
    }

    /// Opens the socket.
    async fn connect(&self) -> Result<UnixStream, ClientError> {
        UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::connecting(self.socket.clone(), source))
    }

    /// Reads a whole answer.
    async fn read<T: DeserializeOwned>(
        &self,
        path: &str,
        response: Response<Incoming>,
    ) -> Result<T, ClientError> {
        let bytes = collect(path, response).await?;
        match serde_json::from_slice(&bytes) {
            Ok(object) => Ok(object),
            Err(error) => {
                let unreadable = ClientError::Unreadable {
                    path: path.to_owned(),
                    reason: error.to_string(),
                };
                Err(self.blame_version(unreadable).await)
            }
        }
    }

    /// What a refusal means: a `Status`, or the answer of something that does not know the request at all.
    async fn refusal(&self, path: &str, response: Response<Incoming>) -> ClientError {
        let code = response.status();
        let bytes = match collect(path, response).await {
            Ok(bytes) => bytes,
            Err(error) => return error,
        };
        match serde_json::from_slice::<Status>(&bytes) {
            Ok(status) => ClientError::Refused(Box::new(status)),
            Err(_) => {
                let unreadable = ClientError::Unreadable {
                    path: path.to_owned(),
                    reason: format!("it answered {code}"),
                };
                self.blame_version(unreadable).await
            }
        }
    }

    /// Blames a misunderstanding on the agent's version where that is another than ours.
    async fn blame_version(&self, trouble: ClientError) -> ClientError {
        let Ok(response) = self.exchange(Method::GET, NODE_REPORT, "", Bytes::new()).await else {
            return trouble;
        };
        let Ok(bytes) = collect(NODE_REPORT, response).await else {
            return trouble;
        };
        let report: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        match report["version"].as_str() {
            Some(agent) if agent != env!("CARGO_PKG_VERSION") => ClientError::OtherVersion {
                agent: agent.to_owned(),
                trouble: trouble.to_string(),
            },
            _ => trouble,
        }
    }
}

/// What the agent warns of in an answer.
fn warnings(response: &Response<Incoming>) -> Vec<String> {
    let warnings = response.headers().get_all(WARNING).iter();
    warnings
        .filter_map(|value| warning(&String::from_utf8_lossy(value.as_bytes())))
        .collect()
}

/// The text of a `Warning` header, which is quoted there, after a number and a name (RFC 7234, 5.5).
fn warning(header: &str) -> Option<String> {
    let (_, quoted) = header.split_once('"')?;
    let text = quoted.strip_suffix('"')?;
    Some(text.replace("\\\"", "\"").replace("\\\\", "\\"))
}

/// Reads a whole body, up to [`MAX_ANSWER_BYTES`].
async fn collect(path: &str, response: Response<Incoming>) -> Result<Bytes, ClientError> {
    match Limited::new(response.into_body(), MAX_ANSWER_BYTES)
        .collect()
        .await
    {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(match error.downcast::<hyper::Error>() {
            Ok(source) => ClientError::Broken {
                path: path.to_owned(),
                source: *source,
            },
            Err(error) => ClientError::Unreadable {
                path: path.to_owned(),
                reason: error.to_string(),
            },
        }),
    }
}

/// An answer that comes bit by bit.
#[derive(Debug)]
pub(crate) struct ByteStream {
    path: String,
    body: Incoming,
}

impl ByteStream {
    /// The next bytes; none at the answer's regular end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|source| ClientError::Broken {
                path: self.path.clone(),
                source,
            })?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

/// An answer of one JSON object a line.
#[derive(Debug)]
pub(crate) struct Lines {
    bytes: ByteStream,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line end, in bytes.
    searched: usize,
}

impl Lines {
    /// The next object; none at the answer's regular end.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(found) = self.buffer[self.searched..]
                .iter()
                .position(|byte| *byte == b'\n')
            {
                let line = self.buffer.split_to(self.searched + found + 1);
                self.searched = 0;
                return self.parse(&line).map(Some);
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > MAX_LINE_BYTES {
                return Err(self.unreadable(format!("a line is longer than {MAX_LINE_BYTES} bytes")));
            }
            match self.bytes.next().await? {
                Some(data) => self.buffer.extend_from_slice(&data),
                None if self.buffer.is_empty() => return Ok(None),
                None => {
                    let line = self.buffer.split();
                    self.searched = 0;
                    return self.parse(&line).map(Some);
                }
            }
        }
    }

    fn parse<T: DeserializeOwned>(&self, line: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(line).map_err(|error| self.unreadable(error.to_string()))
    }

    fn unreadable(&self, reason: String) -> ClientError {
        ClientError::Unreadable {
            path: self.bytes.path.clone(),
            reason,
        }
    }
}

/// The extension group's report on the node.
pub(crate) const NODE_REPORT: &str = "/apis/debuglet.io/v1alpha1/node";

/// The path of the pods of a namespace, or of all.
pub(crate) fn pods_path(namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => format!("/api/v1/namespaces/{}/pods", segment(namespace)),
        None => "/api/v1/pods".into(),
    }
}

/// The path of one pod, or of its subresource.
pub(crate) fn pod_path(namespace: &str, pod: &str, subresource: &str) -> String {
    let mut path = format!("{}/{}", pods_path(Some(namespace)), segment(pod));
    if !subresource.is_empty() {
        path.push('/');
        path.push_str(subresource);
    }
    path
}

/// The path of the launch of one debug container, or of what can be done to it.
pub(crate) fn launch_path(namespace: &str, pod: &str, container: &str, verb: &str) -> String {
    let (namespace, pod, container) = (segment(namespace), segment(pod), segment(container));
    let mut path =
        format!("/apis/debuglet.io/v1alpha1/namespaces/{namespace}/pods/{pod}/launches/{container}");
    if !verb.is_empty() {
        path.push('/');
        path.push_str(verb);
    }
    path
}

/// The path of what debuglet made and has no record of.
pub(crate) fn leftover_path(id: &str) -> String {
    format!("/apis/debuglet.io/v1alpha1/leftovers/{}", segment(id))
}

/// `path` with a query; pairs without a value are left out.
pub(crate) fn with_query<'a>(path: &str, pairs: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (key, value) in pairs {
        if !value.is_empty() {
            query.append_pair(key, &value);
        }
    }
    let query = query.finish();
    if query.is_empty() {
        return path.to_owned();
    }
    format!("{path}?{query}")
}

/// One segment of a path, escaped: what a user types may hold anything (RFC 3986, section 3.3).
fn segment(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(byte as char);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
