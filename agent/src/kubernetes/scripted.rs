//! An API server for tests that answers what the test says. Where a claim is about Kubernetes, the tests of `integration/`
//! ask the real one.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::api_server::ApiServer;
use crate::config::KubeconfigSetting;

/// A server on a port of loopback. It ends when it is dropped.
pub(crate) struct Scripted {
    /// The API server, as the agent knows it.
    pub(crate) api_server: Arc<ApiServer>,
    asked: Arc<Mutex<Vec<(Method, String)>>>,
    /// Whether answers wait.
    held: watch::Sender<bool>,
    serving: AbortHandle,
    _folder: tempfile::TempDir,
}

impl Scripted {
    /// A server that answers each request, by method and path, with a code and an object.
    pub(crate) async fn start(
        answer: impl Fn(&Method, &str) -> (u16, Value) + Send + Sync + 'static,
    ) -> Scripted {
        let asked: Arc<Mutex<Vec<(Method, String)>>> = Arc::default();
        let (held, waits) = watch::channel(false);
        let (answer, log) = (Arc::new(answer), Arc::clone(&asked));
        let serve = move |request: Request| {
            let (answer, log, mut waits) = (Arc::clone(&answer), Arc::clone(&log), waits.clone());
            async move {
                let (method, path) = (request.method().clone(), request.uri().path().to_owned());
                log.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push((method.clone(), path.clone()));
                // Where the sender is gone the test is over.
                let _ = waits.wait_for(|held| !held).await;
                let (code, object) = answer(&method, &path);
                let code = StatusCode::from_u16(code).expect("a code");
                (code, axum::Json(object)).into_response() as Response
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("its address");
        let router = Router::new().fallback(serve);
        let serving = tokio::spawn(async move {
            // It ends with the test.
            let _ = axum::serve(listener, router).await;
        });
        let folder = tempfile::tempdir().expect("a folder");
        let kubeconfig = folder.path().join("kubeconfig");
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        std::fs::write(&kubeconfig, text.to_string()).expect("written");
        let setting = KubeconfigSetting::File(kubeconfig);
        Scripted {
            api_server: Arc::new(ApiServer::configured(&setting).expect("a server")),
            asked,
            held,
            serving: serving.abort_handle(),
            _folder: folder,
        }
    }

    /// Has answers wait from now on, or go out: those that have waited, too.
    pub(crate) fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// How many requests of this method it has had for paths with this end.
    pub(crate) fn count(&self, method: &Method, end: &str) -> usize {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |(asked, path): &&(Method, String)| asked == method && path.ends_with(end);
        asked.iter().filter(is_it).count()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A `Status` that refuses something.
pub(crate) fn refusal(code: u16, reason: &str, message: &str) -> (u16, Value) {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason,
        "message": message,
    });
    (code, status)
}
