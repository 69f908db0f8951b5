//! The agent's API, over its socket.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use crate::eventually::eventually;

/// How long an answer, or the next line of a watch, may take before a test fails. A watch tells something every minute.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the API answered.
#[derive(Clone, PartialEq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; a string where it is not JSON.
    pub body: Value,
}

impl fmt::Debug for Answer {
    /// The body as JSON, which is shorter.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {:#}", self.status, self.body)
    }
}

/// A client of the agent's API. Makes one connection per request.
#[derive(Clone, Debug)]
pub struct Api {
    socket: PathBuf,
}

/// A stream of JSON objects, one per line.
#[derive(Debug)]
pub struct Watch {
    path: String,
    body: Incoming,
    pending: Vec<u8>,
    /// What was read last, for a wait that is in vain.
    last: Value,
}

impl Api {
    pub(crate) fn new(socket: &Path) -> Api {
        Api {
            socket: socket.to_path_buf(),
        }
    }

    /// The API's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// GET, where the agent answers.
    pub async fn get(&self, path: &str) -> Answer {
        self.try_get(path).await.unwrap()
    }

    /// GET, or why there was no answer.
    pub async fn try_get(&self, path: &str) -> std::io::Result<Answer> {
        self.exchange("GET", path, "", Bytes::new()).await
    }

    /// A request with a body of the given type.
    pub async fn send(&self, method: &str, path: &str, content_type: &str, body: &Value) -> Answer {
        self.try_send(method, path, content_type, body).await.unwrap()
    }

    /// [`Api::send`], or why there was no answer.
    pub async fn try_send(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: &Value,
    ) -> std::io::Result<Answer> {
        self.exchange(method, path, content_type, Bytes::from(body.to_string()))
            .await
    }

    /// Adds ephemeral containers to a pod, as `kubectl debug` does.
    pub async fn debug(&self, namespace: &str, pod: &str, containers: &[Value]) -> Answer {
        self.try_debug(namespace, pod, containers).await.unwrap()
    }

    /// [`Api::debug`], or why there was no answer.
    pub async fn try_debug(
        &self,
        namespace: &str,
        pod: &str,
        containers: &[Value],
    ) -> std::io::Result<Answer> {
        let path = format!("{}/ephemeralcontainers", pod_path(namespace, pod));
        let patch = json!({ "spec": { "ephemeralContainers": containers } });
        self.try_send("PATCH", &path, "application/strategic-merge-patch+json", &patch)
            .await
    }

    /// Asks for the stop of a debug container.
    pub async fn stop(&self, namespace: &str, pod: &str, container: &str) -> Answer {
        self.send(
            "POST",
            &format!("{}/stop", launch_path(namespace, pod, container)),
            "application/json",
            &json!({}),
        )
        .await
    }

    /// How far the launch of a debug container has come.
    pub async fn launch(&self, namespace: &str, pod: &str, container: &str) -> Answer {
        self.get(&launch_path(namespace, pod, container)).await
    }

    /// A pod, or the Status that says why not.
    pub async fn pod(&self, namespace: &str, name: &str) -> Answer {
        self.get(&pod_path(namespace, name)).await
    }

    /// Every pod.
    pub async fn pods(&self) -> Vec<Value> {
        self.get("/api/v1/pods").await.body["items"]
            .as_array()
            .expect("a PodList")
            .clone()
    }

    /// Waits until a pod is as told, and gives it back.
    pub async fn pod_until(&self, namespace: &str, name: &str, told: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("pod {namespace}/{name} is as told"), async || match self
            .try_get(&pod_path(namespace, name))
            .await
        {
            Ok(answer) if answer.status == 200 && told(&answer.body) => Ok(answer.body),
            other => Err(other),
        })
        .await
    }

    /// The events about a pod, oldest first.
    pub async fn events(&self, namespace: &str, pod: &str) -> Vec<Value> {
        let path = format!("/api/v1/namespaces/{namespace}/events?fieldSelector=involvedObject.name%3D{pod}");
        self.get(&path).await.body["items"]
            .as_array()
            .expect("an EventList")
            .clone()
    }

    /// Follows a path that answers with one JSON object per line.
    pub async fn watch(&self, path: &str) -> Watch {
        let response = self.request("GET", path, "", Bytes::new()).await.unwrap();
        assert!(response.status() == 200, "{path}: {}", response.status());
        Watch {
            path: path.to_owned(),
            body: response.into_body(),
            pending: Vec::new(),
            last: Value::Null,
        }
    }

    async fn exchange(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> std::io::Result<Answer> {
        let exchange = async {
            let response = self.request(method, path, content_type, body).await?;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await;
            Ok((status, body.map_err(std::io::Error::other)?.to_bytes()))
        };
        let (status, bytes) = tokio::time::timeout(PATIENCE, exchange)
            .await
            .unwrap_or_else(|_| {
                let silence = format!("{method} {path} was not answered within {PATIENCE:?}");
                Err(std::io::Error::new(std::io::ErrorKind::TimedOut, silence))
            })?;
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        Ok(Answer {
            status,
            body: serde_json::from_slice(&bytes).unwrap_or_else(|_| text()),
        })
    }

    async fn request(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> std::io::Result<Response<Incoming>> {
        let stream = UnixStream::connect(&self.socket).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "debuglet");
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        sender
            .send_request(request.body(Full::new(body)).unwrap())
            .await
            .map_err(std::io::Error::other)
    }
}

impl Watch {
    /// The next object; `None` at the stream's end.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.pending.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                self.last = serde_json::from_slice(&line).unwrap();
                return Some(self.last.clone());
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await;
            let frame = frame.unwrap_or_else(|_| {
                panic!(
                    "waited in vain for {PATIENCE:?} for the next line of {}; the last one: {:#}",
                    self.path, self.last
                )
            });
            let frame = frame?.ok()?;
            self.pending
                .extend_from_slice(&frame.into_data().unwrap_or_default());
        }
    }
}

fn pod_path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods/{name}")
}

fn launch_path(namespace: &str, pod: &str, container: &str) -> String {
    format!("/apis/debuglet.io/v1alpha1/namespaces/{namespace}/pods/{pod}/launches/{container}")
}
