//! The launch of one container: its image, its configuration, create, start.
//!
//! For an ephemeral container the disk goes along, step by step: *accepted* before anything is done,
//! *created* between create and start. CreateContainer and StartContainer are never cut short.

mod mounts;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use debuglet_proto::v1::{CreateContainerRequest, PodSandboxConfig, StartContainerRequest};
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::ending;
use super::files::{self, ContainerFiles};
use super::objects;
use super::step::{Outcome, RETRY_AFTER, RETRY_SLOWLY, now};
use crate::pod::container_config::{ContainerContext, Image, container_config};
use crate::pod::copied_mounts::CopyMounts;
use crate::pod::discovered::identity::sound_uid;
use crate::pod::discovered::joining::{Host, fit, sandbox_of_request};
use crate::pod::discovered::known_volumes::known_volumes;
use crate::pod::discovered::{DiscoveredPod, ForeignContainer, ForeignSandbox, Owner, discover};
use crate::pod::etc_hosts::etc_hosts;
use crate::pod::log_names::{log_folder, log_link};
use crate::pod::objects::Objects;
use crate::pod::observed::{ContainerState, ObservedContainer, ObservedSandbox};
use crate::pod::plan::ephemeral::start_refused;
use crate::pod::plan::{Held, RefusedEnd};
use crate::pod::record::{CreatedContainer, Origin, Phase};
use crate::pod::sandbox_config::{SandboxContext, sandbox_config};
use crate::pod::security_context::ImageUser;
use crate::pod::status::Waiting;
use crate::runtime::error::RuntimeError;
use crate::runtime::hung_shim;
use crate::runtime::images::{ImageEvent, ImageRequest, PullPolicy, ResolvedImage};
use crate::runtime::log_links::LogLinks;
use crate::runtime::logs::LogFile;
use crate::runtime::pull_error::ImageError;
use crate::store::events::Severity;
use crate::store::progress::AdvanceError;
use crate::test_panic;
use crate::untrusted_file::{LOG_FOLDERS, VOLUMES, only_root_can_change};
use crate::write_threads::NotRun;

/// One launch: which container, of which pod, into which sandbox.
#[derive(Debug)]
pub(crate) struct Launch {
    /// What the node offers.
    pub(crate) context: Arc<Context>,
    /// The pod with all its containers, the ephemeral ones included.
    pub(crate) pod: Pod,
    /// The container; an ephemeral one in the form of an ordinary one.
    pub(crate) container: Container,
    /// Who asked for it, where it is an ephemeral one.
    pub(crate) ephemeral: Option<Origin>,
    /// Whose mounts it is to have beside its own.
    pub(crate) copy_mounts: Option<CopyMounts>,
    /// `metadata.attempt`.
    pub(crate) attempt: u32,
    /// The pod's ready sandbox.
    pub(crate) sandbox: ObservedSandbox,
    /// The container whose PID namespace it joins.
    pub(crate) target_id: Option<String>,
    /// Where the pod's volumes are on the host.
    pub(crate) volumes: BTreeMap<String, PathBuf>,
    /// Ends every wait before CreateContainer: the pod goes, or the agent stops.
    pub(crate) cancel: CancellationToken,
    /// Called when a pull begins.
    pub(crate) pulling: Arc<PullingFlag>,
    /// How many launches of it have failed in a row.
    pub(crate) tries: u32,
}

/// A container that was created.
struct Made {
    container_id: String,
    log_path: PathBuf,
}

/// A sandbox that somebody else runs, and the pod as it shows there.
struct Joined {
    sandbox: ForeignSandbox,
    containers: Vec<ForeignContainer>,
    pod: DiscoveredPod,
    /// Where its volumes lie on the host, under the names of its spec where that is known.
    volumes: BTreeMap<String, PathBuf>,
}

/// Whether a pull is under way for a container, for its pod's worker to show.
#[derive(Debug)]
pub(crate) struct PullingFlag {
    pulling: AtomicBool,
    wake: Arc<tokio::sync::Notify>,
}

impl PullingFlag {
    /// No pull yet; `wake` wakes the worker when one begins.
    pub(crate) fn new(wake: Arc<tokio::sync::Notify>) -> Arc<PullingFlag> {
        Arc::new(PullingFlag {
            pulling: AtomicBool::new(false),
            wake,
        })
    }

    /// Whether a pull is under way.
    pub(crate) fn is_up(&self) -> bool {
        self.pulling.load(Ordering::Relaxed)
    }

    fn set(&self, pulling: bool) {
        if self.pulling.swap(pulling, Ordering::Relaxed) != pulling {
            self.wake.notify_one();
        }
    }
}

impl Launch {
    /// Gets the image and nothing else.
    pub(crate) async fn pull(self) -> Outcome {
        match self.image().await {
            Ok(_) => Outcome::Pulled,
            Err(outcome) => outcome,
        }
    }

    /// Gets the image, creates the container, starts it: an ephemeral one at most once.
    pub(crate) async fn run(self) -> Outcome {
        let image = match self.image().await {
            Ok(image) => image,
            Err(outcome) => return outcome,
        };
        if self.cancel.is_cancelled() {
            return Outcome::Done;
        }
        let Made {
            container_id,
            log_path,
        } = match Box::pin(self.create(&image)).await {
            Ok(made) => made,
            Err(outcome) => return outcome,
        };
        let made = CreatedContainer {
            container_id,
            sandbox_id: self.sandbox.id.clone(),
            log_path: Some(log_path),
        };
        let (context, name) = (&self.context, &self.container.name);
        if self.ephemeral.is_some() {
            return match record_created(context, self.uid(), name, made).await {
                Ok(Some(permit)) => start_once(context, &self.pod, permit).await,
                // It was stopped meanwhile: the container is not started, and the next plan removes it.
                Ok(None) => Outcome::Done,
                Err(error) => disk_failed(&error),
            };
        }
        match start(context, &self.pod, name, &made).await {
            Ok(Started::Seen(Some(container))) => Outcome::Seen(container),
            Ok(Started::Seen(None)) => Outcome::Done,
            // An ordinary container is made anew.
            Ok(Started::Refused(error)) => {
                Outcome::failed("RunContainerError", error.to_string(), RETRY_AFTER)
            }
            Err(outcome) => outcome,
        }
    }

    fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    async fn image(&self) -> Result<ResolvedImage, Outcome> {
        let mut request = ImageRequest {
            image: self.container.image.clone().unwrap_or_default(),
            policy: PullPolicy::parse(self.container.image_pull_policy.as_deref().unwrap_or_default()),
            runtime_handler: self.sandbox.runtime_handler.clone(),
            secrets: None,
        };
        // Only the pods of an API server have secrets, and only a pull needs them.
        if !self.sandbox.ours
            && !objects::names_of_pull_secrets(&self.pod).is_empty()
            && self.context.images.must_pull(&request).await
        {
            let secrets = objects::pull_secrets(&self.context, &self.pod, &self.container.name);
            let read = self.cancel.run_until_cancelled(secrets).await;
            request.secrets = read.ok_or(Outcome::Done)?;
        }
        let tell = |event: ImageEvent| {
            if event.reason == "Pulling" {
                self.pulling.set(true);
            }
            let severity = if event.warning {
                Severity::Warning
            } else {
                Severity::Normal
            };
            self.context.tell(
                &self.pod,
                Some(&self.container.name),
                severity,
                event.reason,
                event.message,
            );
        };
        let ensured = self
            .cancel
            .run_until_cancelled(self.context.images.ensure(&request, &tell))
            .await;
        self.pulling.set(false);
        match ensured {
            Some(Ok(image)) => Ok(image),
            Some(Err(error)) => Err(self.image_failed(&error)),
            None => Err(Outcome::Done),
        }
    }

    fn image_failed(&self, error: &ImageError) -> Outcome {
        let reason = error.reason.as_str();
        if reason != "ImagePullBackOff" {
            let message = format!("Error: {reason}");
            self.context.tell(
                &self.pod,
                Some(&self.container.name),
                Severity::Warning,
                "Failed",
                message,
            );
        }
        let waiting = Waiting {
            reason: reason.to_owned(),
            message: error.message.clone(),
        };
        Outcome::Failed(Held {
            waiting,
            retry_at: error.retry_at,
            permanent: error.permanent,
            of_launch: true,
        })
    }

    /// What the runtime is asked to create, when everything is there that this needs; and where its log will be.
    async fn request(&self, image: &ResolvedImage) -> Result<(CreateContainerRequest, PathBuf), Outcome> {
        let context = &self.context;
        let joined = self.joined().await?;
        let sandbox_config = self.sandbox_config(joined.as_ref()).await?;
        let files = self.prepare_files().await?;
        let theirs = match &joined {
            Some(joined) => Some(self.their_volumes(joined).await?),
            None => None,
        };
        let objects = self.objects(joined.as_ref()).await?;
        let facts = context.facts();
        let image_of_config = Image {
            id: image.id.clone(),
            user: ImageUser {
                uid: image.uid,
                name: image.username.clone(),
            },
        };
        let mut config = container_config(&ContainerContext {
            pod: &self.pod,
            container: &self.container,
            attempt: self.attempt,
            image: &image_of_config,
            pod_ips: &self.sandbox.ips,
            node: &facts.node,
            target: self.target_id.as_deref(),
            objects: &objects,
            volumes: theirs.as_ref().unwrap_or(&self.volumes),
            etc_hosts: &files.etc_hosts,
            termination_log: &files.termination_log,
        })
        .map_err(|error| {
            self.warn(format!("Error: {error}"));
            if error.may_pass() {
                objects::not_configured(error.to_string(), self.tries)
            } else {
                Outcome::failed_for_good("CreateContainerConfigError", error.to_string())
            }
        })?;
        if let Some(joined) = &joined {
            let host = Host {
                sandbox: &joined.sandbox,
                containers: &joined.containers,
                pod: &joined.pod,
                our_hosts: &files.etc_hosts,
            };
            fit(&mut config, &host);
        }
        self.copy_mounts(&mut config).await?;
        let log_path = Path::new(&sandbox_config.log_directory).join(&config.log_path);
        self.prepare_log(&log_path).await?;
        let request = CreateContainerRequest {
            pod_sandbox_id: self.sandbox.id.clone(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        Ok((request, log_path))
    }

    async fn create(&self, image: &ResolvedImage) -> Result<Made, Outcome> {
        let context = &self.context;
        // Files on a server that is down, and a runtime that is silent, hold up no shutdown.
        let request = self
            .cancel
            .run_until_cancelled(Box::pin(self.request(image)))
            .await;
        let (request, log_path) = request.unwrap_or(Err(Outcome::Done))?;
        // The last moment at which it can still be the kubelet's: from here on nothing takes it back.
        if let Some(origin) = self.ephemeral {
            let kubelet_down = origin == Origin::KubeApiserver && context.kubelet_still_down().await;
            let name = &self.container.name;
            if self.cancel.is_cancelled() || !context.store.is_to_launch(self.uid(), name, kubelet_down) {
                return Err(Outcome::Done);
            }
        }
        let asked = Instant::now();
        match context.runtime.runtime().create_container(request).await {
            Ok(answer) => {
                let container_id = answer.into_inner().container_id;
                if asked.elapsed() >= hung_shim::SUSPICIOUS {
                    self.remove_unless_it_can_start(&container_id).await?;
                }
                let message = format!("Created container {}", self.container.name);
                context.tell(
                    &self.pod,
                    Some(&self.container.name),
                    Severity::Normal,
                    "Created",
                    message,
                );
                test_panic::point("after-create");
                // It is begun in any case, and then made whoever waits for it.
                tokio::select! {
                    biased;
                    () = self.link_log(&container_id, &log_path) => {}
                    () = self.cancel.cancelled() => {}
                }
                Ok(Made {
                    container_id,
                    log_path,
                })
            }
            Err(status) => {
                let error = RuntimeError::new("create container", &self.container.name, &status);
                self.warn(format!("Error: {error}"));
                Err(Outcome::failed(
                    "CreateContainerError",
                    error.to_string(),
                    RETRY_AFTER,
                ))
            }
        }
    }

    /// Removes a container that containerd created while the shim of the sandbox did not answer: it is to be created again.
    async fn remove_unless_it_can_start(&self, container_id: &str) -> Result<(), Outcome> {
        let context = &self.context;
        // Where the runtime does not tell, the container is started: the runtime then tells why it cannot be.
        if !context.runtime.joins_process_zero(container_id).await {
            return Ok(());
        }
        if let failed @ Outcome::Failed(_) = ending::remove(context, container_id).await {
            return Err(failed);
        }
        let message = "the runtime did not reach the pod's sandbox in time, so the container could not have been \
                       started; it is created again";
        self.warn(format!("Error: {message}"));
        Err(Outcome::failed("CreateContainerError", message, RETRY_AFTER))
    }

    /// The objects of the API server that its variables come from, read now: who may see them may change any time.
    async fn objects(&self, joined: Option<&Joined>) -> Result<Objects, Outcome> {
        let owner = joined.map(|joined| joined.pod.owner);
        let read = objects::objects(&self.context, &self.pod, &self.container, owner);
        match self.cancel.run_until_cancelled(read).await {
            Some(Ok(objects)) => Ok(objects),
            Some(Err(error)) => {
                self.warn(format!("Error: {error}"));
                Err(objects::not_configured(error.to_string(), self.tries))
            }
            None => Err(Outcome::Done),
        }
    }

    /// The sandbox it joins and the pod as that shows it, where somebody else runs it: read now, because what is
    /// mounted where follows from the containers that are there now.
    async fn joined(&self) -> Result<Option<Joined>, Outcome> {
        if self.sandbox.ours {
            return Ok(None);
        }
        let id = &self.sandbox.id;
        let (runtime, node_name) = (&self.context.runtime, self.context.store.node_name());
        let failed =
            |error: RuntimeError| Outcome::failed("CreateContainerError", error.to_string(), RETRY_AFTER);
        let Some(sandbox) = runtime.foreign_sandbox(id).await.map_err(failed)? else {
            let message = format!("the pod's sandbox {id} is gone");
            return Err(Outcome::failed("CreateContainerError", message, RETRY_AFTER));
        };
        // What one that cannot be read does not tell is as if it were not set there.
        let (containers, _) = runtime.foreign_containers(id).await.map_err(failed)?;
        let pod = discover(&sandbox, &containers, node_name);
        let mut volumes = pod.volumes.paths();
        if let Some(spec) = &self.pod.spec {
            volumes.extend(known_volumes(
                spec,
                &sound_uid(&sandbox.metadata.uid, id),
                &containers,
            ));
        }
        Ok(Some(Joined {
            sandbox,
            containers,
            pod,
            volumes,
        }))
    }

    async fn prepare_files(&self) -> Result<ContainerFiles, Outcome> {
        let context = &self.context;
        let hosts = etc_hosts(&self.pod, &self.sandbox.ips, &context.facts().node.hosts)
            .map_err(|error| Outcome::failed_for_good("CreateContainerConfigError", error.to_string()))?;
        let pod_dir = context.store.pod_dir(self.uid());
        let (name, attempt) = (self.container.name.clone(), self.attempt);
        let prepare = move || files::prepare(&pod_dir, &name, attempt, &hosts);
        match tokio::task::spawn_blocking(prepare).await {
            Ok(Ok(files)) => Ok(files),
            Ok(Err(error)) => Err(self.not_prepared(&error.to_string())),
            Err(_) => Err(Outcome::Done),
        }
    }

    /// Makes the folder that the runtime writes the log into.
    async fn prepare_log(&self, path: &Path) -> Result<(), Outcome> {
        let prepared = LogFile::new(&self.context.log_dir, path).prepare().await;
        prepared.map_err(|error| {
            self.not_prepared(&format!(
                "cannot make room for the log {}: {error}",
                path.display()
            ))
        })
    }

    fn not_prepared(&self, message: &str) -> Outcome {
        self.warn(format!("Error: {message}"));
        Outcome::failed("CreateContainerConfigError", message, RETRY_SLOWLY)
    }

    async fn sandbox_config(&self, joined: Option<&Joined>) -> Result<PodSandboxConfig, Outcome> {
        if let Some(joined) = joined {
            let security = self.container.security_context.as_ref();
            let privileged = security.and_then(|security| security.privileged) == Some(true);
            let own_folder = self.context.log_dir.join(log_folder(&self.pod));
            let log_folder = match self.their_log_folder(joined).await {
                Some(folder) => folder,
                None => own_folder,
            };
            return Ok(sandbox_of_request(&joined.sandbox, &log_folder, privileged));
        }
        let facts = self.context.facts();
        sandbox_config(&SandboxContext {
            pod: &self.pod,
            attempt: self.sandbox.attempt,
            node: &facts.node,
            cgroup_driver: facts.cgroup_driver,
            log_dir: &self.context.log_dir,
        })
        .map_err(|error| Outcome::failed_for_good("CreateContainerConfigError", error.to_string()))
    }

    /// The log folder of the sandbox that it joins, where the runtime may write into it as root: a kubelet's always, any
    /// other only where nobody but root could put a link in the log's way.
    async fn their_log_folder(&self, joined: &Joined) -> Option<PathBuf> {
        let config = joined.sandbox.config.as_ref()?;
        let folder = PathBuf::from(&config.log_directory);
        if folder.as_os_str().is_empty() || joined.pod.owner != Owner::Cri {
            return Some(folder).filter(|folder| !folder.as_os_str().is_empty());
        }
        let of_container = folder.join(&self.container.name);
        let look = move || only_root_can_change(&of_container);
        match VOLUMES.run_io(&folder, look).await {
            Ok(true) => Some(folder),
            Ok(false) => {
                tracing::info!(
                    container = self.container.name,
                    "others than root may write to the sandbox's log folder {}: it logs to that of debuglet's",
                    folder.display()
                );
                None
            }
            Err(error) => {
                tracing::warn!(
                    "cannot use the sandbox's log folder {}: {error}",
                    folder.display()
                );
                None
            }
        }
    }

    /// Log shippers follow this link; a container runs as well without it.
    async fn link_log(&self, container_id: &str, log: &Path) {
        let link = log_link(&self.pod, &self.container.name, container_id);
        let (links, target) = (LogLinks::beside(&self.context.log_dir), log.to_path_buf());
        let linked = LOG_FOLDERS
            .run_io(log, move || links.create(&link, &target))
            .await;
        if let Err(error) = linked {
            tracing::warn!(
                container = self.container.name,
                "cannot link the log for log shippers: {error}"
            );
        }
    }

    fn warn(&self, message: String) {
        self.context.tell(
            &self.pod,
            Some(&self.container.name),
            Severity::Warning,
            "Failed",
            message,
        );
    }
}

/// The right to call StartContainer once for an ephemeral container. Only [`record_created`] gives it out, when it has
/// made the record *created* durable, and [`start_once`] uses it up: so no record leads to a second call, in this process
/// or in a later one.
pub(crate) struct StartPermit {
    uid: String,
    name: String,
    created: CreatedContainer,
}

/// Makes the record *created* durable. `None` where it was not *accepted* any more, because a stop came first: then the
/// container must not be started.
pub(crate) async fn record_created(
    context: &Context,
    uid: &str,
    name: &str,
    created: CreatedContainer,
) -> Result<Option<StartPermit>, AdvanceError> {
    let written = Arc::new(AtomicBool::new(false));
    let (phase, by_us) = (Phase::Created(created.clone()), Arc::clone(&written));
    let next = move |before: &Phase| {
        let accepted = matches!(before, Phase::Accepted);
        by_us.store(accepted, Ordering::Relaxed);
        accepted.then_some(phase)
    };
    context.store.advance(uid, name, next).await?;
    Ok(written.load(Ordering::Relaxed).then(|| StartPermit {
        uid: uid.to_owned(),
        name: name.to_owned(),
        created,
    }))
}

/// Calls StartContainer for an ephemeral container, for the only time. An error with the container still in state CREATED
/// ends it: see [`start_refused`].
pub(crate) async fn start_once(context: &Context, pod: &Pod, permit: StartPermit) -> Outcome {
    let StartPermit { uid, name, created } = permit;
    match start(context, pod, &name, &created).await {
        Ok(Started::Seen(Some(container))) => Outcome::Seen(container),
        Ok(Started::Seen(None)) => Outcome::Done,
        Ok(Started::Refused(error)) => {
            let terminated = start_refused(&created.container_id, &error.to_string(), now());
            ending::end(context, &uid, &name, terminated, RefusedEnd::Waits).await
        }
        Err(outcome) => outcome,
    }
}

/// What one call of StartContainer came to.
enum Started {
    /// The container stands as this; `None` if it is gone.
    Seen(Option<Box<ObservedContainer>>),
    /// The runtime answered an error and shows the container as CREATED.
    Refused(RuntimeError),
}

/// Calls StartContainer, and looks at what came of it.
async fn start(
    context: &Context,
    pod: &Pod,
    name: &str,
    made: &CreatedContainer,
) -> Result<Started, Outcome> {
    let request = StartContainerRequest {
        container_id: made.container_id.clone(),
    };
    test_panic::point("before-start");
    let started = context.runtime.runtime().start_container(request).await;
    test_panic::point("after-start");
    let seen = context
        .runtime
        .observe_container(&made.container_id, &made.sandbox_id)
        .await;
    let failed = |error: &RuntimeError| Outcome::failed("RunContainerError", error.to_string(), RETRY_AFTER);
    match started {
        Ok(_) => {
            let message = format!("Started container {name}");
            context.tell(pod, Some(name), Severity::Normal, "Started", message);
            let seen = seen.map_err(|error| failed(&error))?;
            Ok(Started::Seen(seen.map(Box::new)))
        }
        Err(status) => {
            let error = RuntimeError::new("start container", name, &status);
            let message = format!("Error: {error}");
            context.tell(pod, Some(name), Severity::Warning, "Failed", message);
            match seen {
                Ok(Some(container)) if container.state == ContainerState::Created => {
                    Ok(Started::Refused(error))
                }
                // The runtime has settled it: what it says is what is reported.
                Ok(Some(container)) => Ok(Started::Seen(Some(Box::new(container)))),
                Ok(None) | Err(_) => Err(failed(&error)),
            }
        }
    }
}

/// A record that could not be written: nothing goes on until it can be.
pub(crate) fn disk_failed(error: &AdvanceError) -> Outcome {
    match error {
        AdvanceError::Disk(error) => {
            tracing::error!("{error}");
            Outcome::failed("CreateContainerError", error.to_string(), RETRY_SLOWLY)
        }
        AdvanceError::NotRun(NotRun::Panicked { .. }) => {
            Outcome::failed("InternalError", error.to_string(), RETRY_SLOWLY)
        }
        AdvanceError::Gone
        | AdvanceError::NotEnded
        | AdvanceError::Stays
        | AdvanceError::NotRun(NotRun::ShuttingDown) => Outcome::Done,
    }
}
