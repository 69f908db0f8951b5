//! The daemon: puts the parts together; start and shutdown order, readable top to bottom.

mod cluster;
mod kubelet_watch;
mod memory;
mod node_facts;
mod runtime_watch;
mod sign_of_life;
mod silence_watch;
mod state_watch;
mod tasks;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Api};
use crate::config::{CgroupDriverSetting, Config};
use crate::kubernetes::api_server::ApiServer;
use crate::kubernetes::cluster_users::ClusterUsers;
use crate::kubernetes::kubelet::Kubelet;
use crate::pod::cgroup::CgroupDriver;
use crate::runtime::call_limits::CallLimits;
use crate::runtime::client::Runtime;
use crate::runtime::events;
use crate::runtime::images::Images;
use crate::runtime::logs::LogFollowers;
use crate::runtime::news::News;
use crate::runtime::pulled_images::PulledImages;
use crate::source::discovery;
use crate::source::manifests::{ManifestFolder, Snapshot};
use crate::source::static_manifests::StaticManifests;
use crate::store::Store;
use crate::store::disk::{Disk, DiskError};
use crate::store::manifests::LogDir;
use crate::worker::{self, Workers};
use crate::{logging, systemd_notify};
use cluster::Cluster;
use node_facts::FactsWatch;
use tasks::Tasks;

/// How many threads run the tasks: the work is waiting, not computing.
const THREADS: usize = 2;
/// How many more may wait at the same time for what blocks a thread, such as a log; durable writes have threads of their
/// own.
const BLOCKING_THREADS: usize = 16;
/// How long what still blocks a thread is waited for at the end.
const LAST_READS: Duration = Duration::from_secs(1);
/// How long clients wait after a start for the first look at the pods.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// How long a change of the folder that the disk refused waits before it is tried again.
const APPLY_RETRY: Duration = Duration::from_secs(10);

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
enum AgentError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Bind(#[from] api::BindError),
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
    #[error("cannot start its threads: {0}")]
    Threads(std::io::Error),
}

/// Runs the agent until it is told to stop. The exit code is 0 after an orderly stop, else 1.
pub(crate) fn run(config: Config) -> ExitCode {
    memory::share_between_threads();
    logging::set_up();
    let threads = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build();
    let outcome = match threads {
        Ok(threads) => {
            let outcome = threads.block_on(serve(config));
            // All that has to come to its end was waited for. What is left reads, perhaps from a disk that never answers.
            threads.shutdown_timeout(LAST_READS);
            outcome
        }
        Err(error) => Err(AgentError::Threads(error)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("debuglet cannot run: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: Config) -> Result<(), AgentError> {
    let shutdown = shutdown_on_signal()?;

    // What is known from before; nobody else may work on it meanwhile.
    let disk = Disk::open(&config.state_dir)?;
    let (store, problems) = Store::load(&config.node_name, disk)?;
    for problem in problems {
        tracing::error!("{problem}");
    }
    let limits = CallLimits::new(config.runtime_request_timeout);
    let runtime = Runtime::connect_lazy(&config.runtime_endpoint, limits, shutdown.clone());
    store.report_node(|report| {
        report.runtime.endpoint = format!("unix://{}", config.runtime_endpoint.display());
        report.manifests.path = config.manifests.path.display().to_string();
    });

    // Whoever connects from now on is answered, also while the runtime is away.
    let pulled = Arc::new(PulledImages::load(
        &config.state_dir,
        Arc::clone(store.write_threads()),
    ));
    let images = Images::new(
        runtime.clone(),
        config.registry.auth_file.clone(),
        Arc::clone(&pulled),
        shutdown.clone(),
    );
    let api = Api::bind(api::Settings {
        run_dir: config.run_dir.clone(),
        group: config.api.group,
        listen: config.api.listen,
        state_dir: config.state_dir.clone(),
        node_name: config.node_name.clone(),
    });
    let api_server = ApiServer::configured(&config.kubernetes.kubeconfig).map(Arc::new);
    let cluster = Cluster::new(&config, api_server.clone());
    let mut tasks = Tasks::new(Arc::clone(&store));
    let api = tokio::spawn(serve_api(
        api.await?,
        api::Context {
            store: Arc::clone(&store),
            api_server: api_server.clone(),
            cluster_users: cluster_users(&config, api_server.as_ref()),
            runtime: runtime.for_clients(),
            images: Arc::clone(&images),
            log_dir: config.log_dir.clone(),
            log_followers: LogFollowers::default(),
            large_bodies: api::LargeBodies::default(),
            shutdown: shutdown.clone(),
        },
        Arc::clone(&cluster.kubelet),
    ));
    tasks.own("the API", api);
    // Root's kubeconfig is there by now, and who follows it to its port is answered in a moment.
    systemd_notify::ready("waiting for the runtime");
    let alive = Arc::clone(&store);
    let _watchdog = systemd_notify::watchdog(move || {
        let store = Arc::clone(&alive);
        async move { sign_of_life::sign_of_life(&store).await }
    });
    let state = state_watch::run(Arc::clone(&store), shutdown.clone());
    tasks.own("the watch of the state folder", tokio::spawn(state));
    let silences = silence_watch::run(runtime.clone(), Arc::clone(&store), shutdown.clone());
    tasks.own("the watch of unanswered calls", tokio::spawn(silences));
    if runtime_watch::wait(&runtime, &store, &shutdown).await {
        let parts = Parts {
            store: Arc::clone(&store),
            runtime: runtime.clone(),
            images,
            pulled,
            api_server,
            cluster,
        };
        work(&config, parts, &mut tasks, &shutdown).await?;
    }

    systemd_notify::stopping();
    // Workers finish the create or start they are at; everyone else just ends.
    tasks.ended().await;
    tracing::info!("stopped; pods and debug containers go on");
    Ok(())
}

/// Answers as soon as it is known how the pods of before stand, so that none is reported as it is not, and whether a
/// kubelet is here, so that no pod is created beside it. Where that takes too long, because the runtime is away, all but
/// the creation of pods is answered meanwhile.
async fn serve_api(api: Api, context: api::Context, kubelet: Arc<Kubelet>) {
    let (store, runtime, shutdown) = (
        Arc::clone(&context.store),
        context.runtime.clone(),
        context.shutdown.clone(),
    );
    let kubelet = async {
        let look = kubelet.look().await;
        drop(kubelet_watch::report(&runtime, &store, look).await);
    }
    .shared();
    let looks = async { tokio::join!(store.first_look(), kubelet.clone()) };
    let known = tokio::time::timeout(FIRST_LOOK, looks);
    let _ = shutdown.run_until_cancelled(known).await;
    tokio::join!(api.serve(context), shutdown.run_until_cancelled(kubelet));
}

/// What is there before the runtime answers.
struct Parts {
    store: Arc<Store>,
    runtime: Runtime,
    images: Arc<Images>,
    pulled: Arc<PulledImages>,
    api_server: Option<Arc<ApiServer>>,
    cluster: Cluster,
}

/// Everything between a runtime that answers and the shutdown.
async fn work(
    config: &Config,
    parts: Parts,
    tasks: &mut Tasks,
    shutdown: &CancellationToken,
) -> Result<(), AgentError> {
    let Parts {
        store,
        runtime,
        images,
        pulled,
        api_server,
        cluster,
    } = parts;
    let (store, runtime) = (&store, &runtime);
    let cgroup_driver = match config.cgroup_driver {
        CgroupDriverSetting::Systemd => Some(CgroupDriver::Systemd),
        CgroupDriverSetting::Cgroupfs => Some(CgroupDriver::Cgroupfs),
        CgroupDriverSetting::Auto => None,
    };
    let (forbid, forbidden) = watch::channel(None);
    let first_looks = async {
        let facts = FactsWatch::start(runtime.clone(), Arc::clone(store), cgroup_driver).await;
        kubelet_watch::look(runtime, store, &cluster.kubelet, &forbid).await;
        facts
    };
    let Some((facts_watch, facts)) = shutdown.run_until_cancelled(first_looks).await else {
        return Ok(());
    };

    // The folder is read once before any worker acts: what is gone from it must not be started.
    let mut folder = ManifestFolder::follow(config.manifests.path.clone(), Arc::clone(store));
    // What the disk refused is tried again, unless a newer state of the folder comes first.
    let mut refused = None;
    if let Some(Some(first)) = shutdown.run_until_cancelled(folder.next()).await {
        refused = apply(store, first, &config.log_dir, shutdown).await;
    }

    let context = Arc::new(worker::context::Context {
        store: Arc::clone(store),
        api_server,
        runtime: runtime.clone(),
        images,
        facts,
        log_dir: config.log_dir.clone(),
        forbidden,
        kubelet: cluster.taken_over(),
    });
    let (events, follower) = events::follow(runtime.clone(), shutdown.clone());
    let news = Arc::new(News::default());
    tasks.own("the watch of the runtime's events", follower);
    let discovering = discovery::run(
        runtime.clone(),
        Arc::clone(store),
        Arc::clone(&news),
        config.discovery.enabled,
        StaticManifests::new(config.discovery.static_manifests.clone()),
        shutdown.clone(),
    );
    tasks.own("the discovery of pods", tokio::spawn(discovering));
    let workers = Workers::new(context, news, shutdown).run(events, shutdown.clone());
    tasks.own("the owner of the pods' workers", tokio::spawn(workers));
    for (part, task) in cluster.start(store, runtime, &config.log_dir, shutdown) {
        tasks.own(part, task);
    }
    let kubelets = kubelet_watch::run(
        runtime.clone(),
        Arc::clone(store),
        cluster.kubelet,
        forbid,
        shutdown.clone(),
    );
    tasks.own("the watch of the kubelet", tokio::spawn(kubelets));
    let runtimes = runtime_watch::run(runtime.clone(), Arc::clone(store), facts_watch, shutdown.clone());
    tasks.own("the watch of the runtime", tokio::spawn(runtimes));
    let measuring = worker::eviction::run(Arc::clone(store), shutdown.clone());
    tasks.own("the measuring of volumes", tokio::spawn(measuring));
    let cleaning = worker::image_garbage::run(runtime.clone(), pulled, shutdown.clone());
    tasks.own("the clean-up of images", tokio::spawn(cleaning));
    systemd_notify::status("running");
    tracing::info!(node = config.node_name, "running");

    let mut is_followed = true;
    loop {
        let files = tokio::select! {
            () = shutdown.cancelled() => break,
            next = folder.next(), if is_followed => match next {
                Some(files) => files,
                None => {
                    is_followed = false;
                    continue;
                }
            },
            () = store.name_freed() => folder.newest(),
            () = tokio::time::sleep(APPLY_RETRY), if refused.is_some() => refused.take().unwrap_or_default(),
        };
        refused = apply(store, files, &config.log_dir, shutdown).await;
    }
    Ok(())
}

/// Cancelled by SIGTERM or SIGINT; a second one ends the process at once.
fn shutdown_on_signal() -> Result<CancellationToken, AgentError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(AgentError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AgentError::Signals)?;
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        next().await;
        token.cancel();
        next().await;
        tracing::warn!("told to stop twice: ending at once");
        std::process::exit(1);
    });
    Ok(shutdown)
}

/// The cluster's own users, where the configuration lets them in.
fn cluster_users(config: &Config, api_server: Option<&Arc<ApiServer>>) -> Option<ClusterUsers> {
    if !config.api.cluster_users {
        return None;
    }
    if api_server.is_none() {
        tracing::warn!(
            "api.cluster_users lets in nobody: no API server is configured ([kubernetes] kubeconfig)"
        );
    }
    api_server.map(|api_server| ClusterUsers::new(Arc::clone(api_server)))
}

/// Has the folder be in force, unless `shutdown` comes first; gives back what is to be tried again.
async fn apply(
    store: &Arc<Store>,
    files: Snapshot,
    log_dir: &Path,
    shutdown: &CancellationToken,
) -> Option<Snapshot> {
    let applying = store.apply_manifests(files.clone(), LogDir(log_dir.to_path_buf()));
    match shutdown.run_until_cancelled(applying).await? {
        Ok(()) => None,
        Err(error) => {
            tracing::error!("not all of the manifests folder is in force: {error}");
            Some(files)
        }
    }
}
