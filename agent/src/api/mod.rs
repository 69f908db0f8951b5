//! The node-local Kubernetes API: on `debuglet.sock` in the run folder for root and a configured group
//! ([`unix_listener`]), and over TLS for holders of a client certificate ([`tls_listener`]). Whom this node lets in may do
//! everything ([`identity`]); whom its cluster lets in by a token, what the cluster says ([`access`]).
//!
//! | path | verbs | file |
//! |---|---|---|
//! | `/api/v1/pods`, `/api/v1/namespaces/NS/pods` | list, watch | [`resource`], [`page`], [`watch`], [`pods`] |
//! | `/api/v1/namespaces/NS/pods` | create | [`writes::create`] |
//! | `/api/v1/namespaces/NS/pods/NAME`, `.../status` | get | [`resource`], [`pods`] |
//! | `/api/v1/namespaces/NS/pods/NAME` | update, patch; delete | [`writes::update`], [`writes::delete`] |
//! | `.../ephemeralcontainers` | get, update, patch | [`ephemeral_containers`] |
//! | `.../log` | get | [`log`] |
//! | `.../attach`, `.../exec` | get and create, upgraded to a WebSocket or SPDY | [`streams`] |
//! | `.../portforward` | get and create, upgraded likewise | [`port_forward`] |
//! | the same of `events` | get, list, watch | [`resource`], [`events`] |
//! | `/api/v1/namespaces`, `/api/v1/nodes`, one of them | get, list, watch | [`resource`], [`namespaces`], [`nodes`] |
//! | `/apis/debuglet.io/v1alpha1/node` | get | [`extension`] |
//! | `.../namespaces/NS/pods/NAME/launches/CONTAINER` | create | [`ephemeral_containers::launch_request`] |
//! | the same | get, watch; stop and flushlog | [`extension`] |
//! | `/apis/authentication.k8s.io/v1/selfsubjectreviews` | create | [`reviews`] |
//! | `/apis/authorization.k8s.io/v1/selfsubject{access,rules}reviews` | create | [`reviews`] |
//! | `/metrics` | get | [`metrics`] |
//! | `/api`, `/api/v1`, `/apis`, `/apis/GROUP/VERSION`, ... | get | [`discovery`] |
//! | `/openapi/v3`, ... | get | [`openapi`] |
//! | `/openapi/v2` | get | [`openapi_v2`] |
//! | `/version`, `/livez`, `/readyz` | get | [`version`] |
//!
//! Whatever goes wrong is answered with a `Status`: [`status`] is the one place that says how.

mod access;
mod attributes;
mod audit;
mod certificates;
mod channels;
mod clock;
mod connection;
mod container;
mod discovery;
mod ephemeral_containers;
mod events;
mod extension;
mod identity;
mod kubeconfig;
mod large_bodies;
mod leftovers;
mod list_options;
mod log;
mod metrics;
mod namespaces;
mod nodes;
mod openapi;
mod openapi_v2;
mod page;
mod pods;
mod port_forward;
mod reached;
mod representation;
mod request;
mod resource;
mod reviews;
mod selectors;
mod server;
mod status;
mod stream_end;
mod streams;
mod table;
#[cfg(test)]
mod tests;
mod tls_listener;
mod unix_listener;
mod upgrade;
mod version;
mod watch;
mod writes;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::http::{Method, Uri};
use axum::routing::{delete, get, post};
use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod};
use nix::unistd::Gid;
use tokio_util::sync::CancellationToken;

use crate::kubernetes::api_server::ApiServer;
use crate::kubernetes::cluster_users::ClusterUsers;
use crate::runtime::client::Runtime;
use crate::runtime::images::Images;
use crate::runtime::logs::LogFollowers;
use crate::store::Store;
pub(crate) use large_bodies::LargeBodies;
use metrics::Metrics;
use server::Server;
use status::Failure;
use tls_listener::{BoundTls, TlsListener};
pub(crate) use unix_listener::BindError;
use unix_listener::UnixListener;

/// What the handlers work with.
#[derive(Debug)]
pub(crate) struct Context {
    /// The pods.
    pub(crate) store: Arc<Store>,
    /// The API server of this node's cluster, where one is configured.
    pub(crate) api_server: Option<Arc<ApiServer>>,
    /// The cluster's own users, where they are let in.
    pub(crate) cluster_users: Option<ClusterUsers>,
    /// The runtime, for what is not kept in the store: logs and streams.
    pub(crate) runtime: Runtime,
    /// Its images, for the progress of pulls.
    pub(crate) images: Arc<Images>,
    /// Where the pods' logs are, for those of which the runtime knows nothing more.
    pub(crate) log_dir: PathBuf,
    /// The places of those who follow logs.
    pub(crate) log_followers: LogFollowers,
    /// What large bodies may take.
    pub(crate) large_bodies: LargeBodies,
    /// Ends watches and sessions, so that a shutdown does not wait for them.
    pub(crate) shutdown: CancellationToken,
}

/// Where the API is served, and to whom.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The folder of the socket and of root's kubeconfig.
    pub(crate) run_dir: PathBuf,
    /// Whose members may use the socket beside root.
    pub(crate) group: Option<Gid>,
    /// Where to listen with TLS, if at all.
    pub(crate) listen: Option<SocketAddr>,
    /// The folder in which the certificates' folder is.
    pub(crate) state_dir: PathBuf,
    /// The node's name: one of the server's.
    pub(crate) node_name: String,
}

/// The API, listening on its socket and not serving yet.
pub(crate) struct Api {
    unix: UnixListener,
    tls: Option<BoundTls>,
}

impl Api {
    /// Listens on the socket and, where it can, with TLS; root's kubeconfig is written before. Trouble with TLS does not
    /// hold back the socket: it is reported, and tried again, while the API is served.
    pub(crate) async fn bind(settings: Settings) -> Result<Api, BindError> {
        let unix = UnixListener::bind(&settings.run_dir, settings.group)?;
        if settings.listen.is_none() {
            kubeconfig::remove(&settings.run_dir);
        }
        let tls = match settings.listen {
            None => None,
            Some(listen) => {
                let listener = TlsListener {
                    listen,
                    pki_dir: settings.state_dir.join("pki"),
                    run_dir: settings.run_dir,
                    node_name: settings.node_name,
                };
                Some(listener.bind().await)
            }
        };
        Ok(Api { unix, tls })
    }

    /// Serves until the shutdown of the context, and a moment longer for what is under way.
    pub(crate) async fn serve(self, context: Context) {
        let context = Arc::new(context);
        let metrics = Metrics::of(&context);
        let (watchers, shutdown) = (metrics.watchers(), context.shutdown.clone());
        let router = metrics.show(router(Arc::clone(&context)));
        let router = metrics.measure(access::guarded(Arc::clone(&context), router));
        let takes_tokens = context.cluster_users.is_some();
        let server = Server::new(router, watchers, takes_tokens, shutdown);
        // Before anybody is answered: who is told that the API is ready finds there why it is not, over TLS.
        if let Some(tls) = &self.tls {
            tls.report(&context.store);
        }
        let tls = async {
            if let Some(tls) = self.tls {
                tls.serve(Arc::clone(&server), &context.store).await;
            }
        };
        tokio::join!(self.unix.serve(Arc::clone(&server)), Box::pin(tls));
        server.drain().await;
    }
}

fn router(context: Arc<Context>) -> Router {
    // Whole paths, not nested routers: what is served can be searched for, and errors name the whole path.
    let core = Router::new()
        .route("/api/v1/pods", get(resource::list::<Pod>))
        .route(
            "/api/v1/namespaces/{namespace}/pods",
            get(resource::list::<Pod>).post(writes::create::post),
        )
        .route(
            "/api/v1/namespaces/{namespace}/pods/{name}",
            get(resource::get::<Pod>)
                .put(writes::update::put)
                .patch(writes::update::patch)
                .delete(writes::delete::delete),
        )
        .route(
            "/api/v1/namespaces/{namespace}/pods/{name}/status",
            get(resource::get::<Pod>),
        )
        .route(
            "/api/v1/namespaces/{namespace}/pods/{name}/ephemeralcontainers",
            get(ephemeral_containers::get)
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
        .route("/api/v1/events", get(resource::list::<Event>))
        .route(
            "/api/v1/namespaces/{namespace}/events",
            get(resource::list::<Event>),
        )
        .route(
            "/api/v1/namespaces/{namespace}/events/{name}",
            get(resource::get::<Event>),
        )
        .route("/api/v1/namespaces", get(resource::list::<Namespace>))
        .route("/api/v1/namespaces/{name}", get(resource::get::<Namespace>))
        .route("/api/v1/nodes", get(resource::list::<Node>))
        .route("/api/v1/nodes/{name}", get(resource::get::<Node>));
    let launch = "/apis/debuglet.io/v1alpha1/namespaces/{namespace}/pods/{name}/launches/{container}";
    let extension = Router::new()
        .route(
            "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            post(reviews::subject),
        )
        .route(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            post(reviews::access),
        )
        .route(
            "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
            post(reviews::rules),
        )
        .route("/apis/debuglet.io/v1alpha1/node", get(extension::node))
        .route(
            "/apis/debuglet.io/v1alpha1/leftovers/{id}",
            delete(leftovers::delete),
        )
        .route(
            launch,
            get(extension::launch).post(ephemeral_containers::launch_request::post),
        )
        .route(&format!("{launch}/stop"), post(extension::stop))
        .route(&format!("{launch}/flushlog"), post(extension::flush_log));
    let discovery = Router::new()
        .route("/api", get(discovery::core))
        .route("/api/v1", get(discovery::core_resources))
        .route("/apis", get(discovery::groups))
        .route("/apis/{group}", get(discovery::group))
        .route("/apis/{group}/{version}", get(discovery::group_resources))
        .route("/openapi/v2", get(openapi_v2::document))
        .route("/openapi/v3", get(openapi::documents))
        .route("/openapi/v3/api/v1", get(openapi::core_document))
        .route("/openapi/v3/apis/{group}/{version}", get(openapi::group_document));
    Router::new()
        .merge(discovery)
        .route("/version", get(version::version))
        .route("/livez", get(version::alive))
        .route("/readyz", get(version::ready))
        .merge(core)
        .merge(extension)
        .fallback(async |uri: Uri| Failure::no_such_path(uri.path()))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            Failure::method_not_allowed(format!("{method} is not served at {}", uri.path()))
        })
        .with_state(context)
}
