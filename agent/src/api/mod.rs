//! The node-local Kubernetes API, on `debuglet.sock` in the run folder, for root.
//!
//! | path | verbs | file |
//! |---|---|---|
//! | `/api/v1/pods`, `/api/v1/namespaces/NS/pods` | list, watch | [`pods`], [`watch`] |
//! | `/api/v1/namespaces/NS/pods/NAME` | get | [`pods`] |
//! | `.../ephemeralcontainers` | get, update, patch | [`ephemeral_containers`] |
//! | `.../log` | get | [`log`] |
//! | `.../attach`, `.../exec` | get, as a WebSocket | [`streams`] |
//! | `/api/v1/events`, `/api/v1/namespaces/NS/events` | list | [`events`] |
//! | `/apis/debuglet.io/v1alpha1/node` | get | [`extension`] |
//! | `.../namespaces/NS/pods/NAME/launches/CONTAINER` | get, watch; stop and flushlog | [`extension`] |
//! | `/version`, `/livez`, `/readyz`, `/api...`, `/apis...` | get | [`version`] |
//!
//! Whatever goes wrong is answered with a `Status`: [`status`] is the one place that says how.

mod connection;
mod ephemeral_containers;
mod events;
mod extension;
mod log;
mod pods;
mod request;
mod selectors;
mod server;
mod status;
mod streams;
#[cfg(test)]
mod tests;
mod version;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::OriginalUri;
use axum::http::Method;
use axum::routing::{get, post};
use nix::unistd::ROOT;
use tokio_util::sync::CancellationToken;

use crate::runtime::client::Runtime;
use crate::runtime::images::Images;
use crate::store::Store;
pub(crate) use server::BindError;
use server::Listener;
use status::Failure;

/// What the handlers work with.
#[derive(Debug)]
pub(crate) struct Context {
    /// The pods.
    pub(crate) store: Arc<Store>,
    /// The runtime, for what is not kept in the store: logs and streams.
    pub(crate) runtime: Runtime,
    /// Its images, for the progress of pulls.
    pub(crate) images: Arc<Images>,
    /// Where the logs of pods lie.
    pub(crate) log_dir: PathBuf,
    /// Ends watches and sessions, so that a shutdown does not wait for them.
    pub(crate) shutdown: CancellationToken,
}

/// The API, listening and not serving yet.
#[derive(Debug)]
pub(crate) struct Api {
    listener: Listener,
}

impl Api {
    /// Listens on the socket in `run_dir`.
    pub(crate) fn bind(run_dir: &Path) -> Result<Api, BindError> {
        Ok(Api {
            listener: Listener::bind(run_dir, ROOT.as_raw())?,
        })
    }

    /// Serves until the shutdown of the context, and a moment longer for what is under way.
    pub(crate) async fn serve(self, context: Context) {
        let shutdown = context.shutdown.clone();
        self.listener.serve(router(Arc::new(context)), shutdown).await;
    }
}

fn router(context: Arc<Context>) -> Router {
    let pod = Router::new().route("/", get(pods::get)).route(
        "/ephemeralcontainers",
        get(ephemeral_containers::get)
            .put(ephemeral_containers::put)
            .patch(ephemeral_containers::patch),
    );
    let core = Router::new()
        .route("/", get(version::core_resources))
        .route("/pods", get(pods::list_all))
        .route("/namespaces/{namespace}/pods", get(pods::list))
        .nest("/namespaces/{namespace}/pods/{name}", pod)
        .route("/events", get(events::list_all))
        .route("/namespaces/{namespace}/events", get(events::list))
        .route("/namespaces/{namespace}/events/{name}", get(events::get));
    let launch = Router::new()
        .route("/", get(extension::launch))
        .route("/stop", post(extension::stop))
        .route("/flushlog", post(extension::flush_log));
    let extension = Router::new()
        .route("/", get(version::extension_resources))
        .route("/node", get(extension::node))
        .nest("/namespaces/{namespace}/pods/{name}/launches/{container}", launch);
    Router::new()
        .route("/version", get(version::version))
        .route("/livez", get(version::healthy))
        .route("/readyz", get(version::healthy))
        .route("/api", get(version::core_versions))
        .nest("/api/v1", core)
        .route("/apis", get(version::groups))
        .route("/apis/debuglet.io", get(version::group))
        .nest("/apis/debuglet.io/v1alpha1", extension)
        .fallback(async |OriginalUri(path): OriginalUri| Failure::no_such_path(path.path()))
        .method_not_allowed_fallback(async |method: Method, OriginalUri(path): OriginalUri| {
            Failure::method_not_allowed(format!("{method} is not served at {}", path.path()))
        })
        .with_state(context)
}
