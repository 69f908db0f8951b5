//! The node-local Kubernetes API, on `debuglet.sock` in the run folder, for root.
//!
//! | path | verbs | file |
//! |---|---|---|
//! | `/api/v1/pods`, `/api/v1/namespaces/NS/pods` | list, watch | [`pods`], [`watch`] |
//! | `/api/v1/namespaces/NS/pods/NAME` | get | [`pods`] |
//! | `.../ephemeralcontainers` | get, update, patch | [`ephemeral_containers`] |
//! | `.../log` | get | [`log`] |
//! | `.../attach`, `.../exec` | get and create, upgraded to a WebSocket or SPDY | [`streams`] |
//! | `.../portforward` | get and create, upgraded likewise | [`port_forward`] |
//! | `/api/v1/events`, `/api/v1/namespaces/NS/events` | list | [`events`] |
//! | `/apis/debuglet.io/v1alpha1/node` | get | [`extension`] |
//! | `.../namespaces/NS/pods/NAME/launches/CONTAINER` | get, watch; stop and flushlog | [`extension`] |
//! | `/api`, `/api/v1`, `/apis`, `/apis/GROUP/VERSION`, ... | get | [`discovery`] |
//! | `/openapi/v3`, ... | get | [`openapi`] |
//! | `/version`, `/livez`, `/readyz` | get | [`version`] |
//!
//! Whatever goes wrong is answered with a `Status`: [`status`] is the one place that says how.

mod channels;
mod connection;
mod container;
mod discovery;
mod ephemeral_containers;
mod events;
mod extension;
mod log;
mod openapi;
mod pods;
mod port_forward;
mod request;
mod selectors;
mod server;
mod status;
mod streams;
#[cfg(test)]
mod tests;
mod upgrade;
mod version;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::http::{Method, Uri};
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
    /// Where the pods' logs are, for those of which the runtime knows nothing more.
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
    // Whole paths, not nested routers: what is served can be searched for, and errors name the whole path.
    let core = Router::new()
        .route("/api/v1/pods", get(pods::list_all))
        .route("/api/v1/namespaces/{namespace}/pods", get(pods::list))
        .route("/api/v1/namespaces/{namespace}/pods/{name}", get(pods::get))
        .route(
            "/api/v1/namespaces/{namespace}/pods/{name}/ephemeralcontainers",
            get(pods::get)
                .put(ephemeral_containers::put)
                .patch(ephemeral_containers::patch),
        )
        .route("/api/v1/namespaces/{namespace}/pods/{name}/log", get(log::get))
        .route(
            "/api/v1/namespaces/{namespace}/pods/{name}/attach",
            get(streams::attach_to).post(streams::attach_to),
        )
        .route(
            "/api/v1/namespaces/{namespace}/pods/{name}/exec",
            get(streams::exec_in).post(streams::exec_in),
        )
        .route(
            "/api/v1/namespaces/{namespace}/pods/{name}/portforward",
            get(port_forward::forward).post(port_forward::forward),
        )
        .route("/api/v1/events", get(events::list_all))
        .route("/api/v1/namespaces/{namespace}/events", get(events::list))
        .route("/api/v1/namespaces/{namespace}/events/{name}", get(events::get));
    let launch = "/apis/debuglet.io/v1alpha1/namespaces/{namespace}/pods/{name}/launches/{container}";
    let extension = Router::new()
        .route("/apis/debuglet.io/v1alpha1/node", get(extension::node))
        .route(launch, get(extension::launch))
        .route(&format!("{launch}/stop"), post(extension::stop))
        .route(&format!("{launch}/flushlog"), post(extension::flush_log));
    let discovery = Router::new()
        .route("/api", get(discovery::core))
        .route("/api/v1", get(discovery::core_resources))
        .route("/apis", get(discovery::groups))
        .route("/apis/{group}", get(discovery::group))
        .route("/apis/{group}/{version}", get(discovery::group_resources))
        .route("/openapi/v3", get(openapi::documents))
        .route("/openapi/v3/api/v1", get(openapi::core_document))
        .route("/openapi/v3/apis/{group}/{version}", get(openapi::group_document));
    Router::new()
        .merge(discovery)
        .route("/version", get(version::version))
        .route("/livez", get(version::healthy))
        .route("/readyz", get(version::healthy))
        .merge(core)
        .merge(extension)
        .fallback(async |uri: Uri| Failure::no_such_path(uri.path()))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            Failure::method_not_allowed(format!("{method} is not served at {}", uri.path()))
        })
        .with_state(context)
}
