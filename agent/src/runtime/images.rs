//! Images: is it there, and if not, have the runtime pull it. However many containers wait for an image, it is
//! pulled once at a time, and after a failure not before its back-off has passed.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use debuglet_proto::v1::{Image, ImageSpec, ImageStatusRequest, PodSandboxConfig, PullImageRequest};
use futures_util::FutureExt;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::client::Runtime;
use super::pull_error::{Fault, ImageError, PullFailure, WaitingReason, cause};
use super::pull_metrics::PullMetrics;
use super::pull_progress;
use super::pull_secrets::PullSecrets;
use super::pulled_images::PulledImages;
use super::registry_auth::{Credential, RegistryAuth};
use crate::pod::image_reference::ImageReference;
use crate::pod::launch::PullProgress;
use crate::pod::observed::Nanoseconds;

/// How long the next pull waits after a first failure, and at most (the kubelet's image back-off).
const FIRST_BACK_OFF: Duration = Duration::from_secs(10);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(300);
/// A failure that is older than this counts no longer: the next one is a first again.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// Pulls of different images at one time. The runtime has its own limit on downloads; this one bounds what a
/// folder full of manifests can ask of it.
const PARALLEL_PULLS: usize = 16;
/// When to ask again for an image that is not to be pulled, or that the runtime says nothing about.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Where containerd before 2.0 looks for the runtime class of a pull.
const RUNTIME_HANDLER_ANNOTATION: &str = "io.containerd.cri.runtime-handler";

/// When an image is pulled (a container's `imagePullPolicy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PullPolicy {
    /// Before every start, also when it is there: its name may mean another image by now.
    Always,
    /// Only when it is not there.
    IfNotPresent,
    /// Not at all.
    Never,
}

impl PullPolicy {
    /// Reads the field's value; the defaults are filled in before, so anything unknown is as good as none.
    pub(crate) fn parse(policy: &str) -> PullPolicy {
        match policy {
            "Always" => PullPolicy::Always,
            "Never" => PullPolicy::Never,
            _ => PullPolicy::IfNotPresent,
        }
    }
}

/// An image that a container needs.
#[derive(Clone, Debug)]
pub(crate) struct ImageRequest {
    /// As the container's spec names it.
    pub(crate) image: String,
    /// When to pull it.
    pub(crate) policy: PullPolicy,
    /// The CRI runtime handler of the pod's runtime class, which may keep its images apart; empty for the default.
    pub(crate) runtime_handler: String,
    /// What the pod brings to log in with, see [`Images::must_pull`].
    pub(crate) secrets: Option<Arc<PullSecrets>>,
}

/// An image that is on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResolvedImage {
    /// What CreateContainer takes (CRI `Image.id`): `sha256:` and the digest of the image's configuration.
    pub(crate) id: String,
    /// As the container's spec names it.
    pub(crate) user_specified: String,
    /// The digest reference (`REPOSITORY@sha256:...`) of the name that was asked for, or the id where there is none.
    pub(crate) image_ref: String,
    /// The user that the image runs as, where it is a number.
    pub(crate) uid: Option<i64>,
    /// The user that the image runs as, where it is a name; else empty.
    pub(crate) username: String,
    /// Bytes on the disk.
    pub(crate) size: u64,
    /// How long the pull took that this waited for; `None` if there was none.
    pub(crate) pulled: Option<Duration>,
}

/// Something to tell about an image while a container waits for it: an event on the pod, as the kubelet posts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageEvent {
    /// Whether its type is `Warning`; else `Normal`.
    pub(crate) warning: bool,
    /// `Pulling`, `Pulled`, `Failed`, `BackOff`, `ErrImageNeverPull` or `InspectFailed`.
    pub(crate) reason: &'static str,
    /// For a person.
    pub(crate) message: String,
}

impl ImageEvent {
    fn normal(reason: &'static str, message: String) -> ImageEvent {
        ImageEvent {
            warning: false,
            reason,
            message,
        }
    }

    fn warning(reason: &'static str, message: &str) -> ImageEvent {
        ImageEvent {
            warning: true,
            reason,
            message: message.to_owned(),
        }
    }
}

/// What is pulled: the image's full name, the runtime handler it is for, and the pod's own credentials: whom they let in
/// and keep out is none of another pod's business.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PullKey {
    image: String,
    runtime_handler: String,
    secrets: Option<[u8; 32]>,
}

impl PullKey {
    fn of(reference: &ImageReference, request: &ImageRequest) -> PullKey {
        PullKey {
            image: reference.to_string(),
            runtime_handler: request.runtime_handler.clone(),
            secrets: request.secrets.as_ref().map(|secrets| secrets.digest()),
        }
    }
}

/// How a pull ended: the image's id and how long it took, or why not.
type PullOutcome = Result<(String, Duration), Arc<PullFailure>>;

/// What is known of one image's pulls.
enum PullState {
    /// On its way; the receiver gets the outcome.
    Pulling {
        outcome: watch::Receiver<Option<PullOutcome>>,
        /// By the clock of the machine, which the runtime dates its blobs by.
        since: jiff::Timestamp,
        /// How many bytes of each layer, by digest, were ever seen.
        layers: HashMap<String, u64>,
    },
    /// The last pull failed.
    Failed {
        failure: Arc<PullFailure>,
        wait: Duration,
        failed_at: Instant,
    },
}

/// The node's images.
pub(crate) struct Images {
    runtime: Runtime,
    /// docker's config.json form; may be absent.
    auth_file: PathBuf,
    pulled: Arc<PulledImages>,
    pulls: Mutex<HashMap<PullKey, PullState>>,
    slots: Semaphore,
    metrics: PullMetrics,
    /// Ends every pull: the runtime drops what it has no caller for, and resumes its downloads at the next try.
    stopping: CancellationToken,
    /// Has the next pull panic, in tests.
    #[cfg(test)]
    panics: std::sync::atomic::AtomicBool,
}

impl std::fmt::Debug for Images {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Images").finish_non_exhaustive()
    }
}

impl Images {
    /// The images of `runtime`; what it pulls is noted in `pulled`.
    pub(crate) fn new(
        runtime: Runtime,
        auth_file: PathBuf,
        pulled: Arc<PulledImages>,
        stopping: CancellationToken,
    ) -> Arc<Images> {
        Arc::new(Images {
            runtime,
            auth_file,
            pulled,
            pulls: Mutex::new(HashMap::new()),
            slots: Semaphore::new(PARALLEL_PULLS),
            metrics: PullMetrics::default(),
            stopping,
            #[cfg(test)]
            panics: false.into(),
        })
    }

    /// Has the image on the node, as its policy says, and tells on the way what a pod's events tell. Dropping
    /// the call ends the wait and not the pull.
    pub(crate) async fn ensure(
        self: &Arc<Self>,
        request: &ImageRequest,
        tell: &(dyn Fn(ImageEvent) + Send + Sync),
    ) -> Result<ResolvedImage, ImageError> {
        let name = &request.image;
        let reference = ImageReference::parse(name).map_err(|invalid| {
            let message = invalid.to_string();
            tell(ImageEvent::warning("InspectFailed", &message));
            error(name, WaitingReason::InvalidImageName, message, true, None)
        })?;
        if request.policy != PullPolicy::Always {
            if let Some(image) = self.inspect(request, &reference.to_string(), tell).await? {
                tell(ImageEvent::normal(
                    "Pulled",
                    format!("Image \"{name}\" is already on the node"),
                ));
                return Ok(resolved(name, &reference, image, None));
            }
            if request.policy == PullPolicy::Never {
                let message = format!("image \"{name}\" is not on the node, and its pull policy is Never");
                tell(ImageEvent::warning("ErrImageNeverPull", &message));
                let reason = WaitingReason::ErrImageNeverPull;
                return Err(error(name, reason, message, true, Some(LOOK_AGAIN_AFTER)));
            }
        }
        let asked_at = Instant::now();
        let (id, duration) = self.pull(request, &reference, tell).await?;
        // By its id: the name could mean another image again by now.
        let Some(image) = self.inspect(request, &id, tell).await? else {
            let message = format!("image \"{name}\" was removed again right after it was pulled");
            tell(ImageEvent::warning("Failed", &message));
            let reason = WaitingReason::ErrImagePull;
            return Err(error(name, reason, message, false, Some(LOOK_AGAIN_AFTER)));
        };
        tell(ImageEvent::normal(
            "Pulled",
            format!(
                "Pulled image \"{name}\" in {:.3} s ({:.3} s with waiting), {} bytes",
                duration.as_secs_f64(),
                asked_at.elapsed().as_secs_f64(),
                image.size
            ),
        ));
        Ok(resolved(name, &reference, image, Some(duration)))
    }

    /// Whether [`Images::ensure`] would pull, so that credentials are only fetched for a pull.
    pub(crate) async fn must_pull(&self, request: &ImageRequest) -> bool {
        match request.policy {
            PullPolicy::Always => true,
            PullPolicy::Never => false,
            PullPolicy::IfNotPresent => {
                let Ok(reference) = ImageReference::parse(&request.image) else {
                    return false;
                };
                let silent = |_: ImageEvent| {};
                let found = self.inspect(request, &reference.to_string(), &silent).await;
                found.is_ok_and(|image| image.is_none())
            }
        }
    }

    /// How long pulls took, and what they brought.
    pub(crate) fn pull_metrics(&self) -> &PullMetrics {
        &self.metrics
    }

    /// How far the pull of an image has come, whichever runtime handler it is for; `None` if there is none under way.
    pub(crate) async fn progress(&self, image: &str) -> Option<PullProgress> {
        let reference = ImageReference::parse(image).ok()?;
        let image = reference.to_string();
        let under_way = self.lock().iter().find_map(|(key, state)| match state {
            PullState::Pulling { since, .. } if key.image == image => Some((key.clone(), *since)),
            _ => None,
        });
        let (key, since) = under_way?;
        let mut progress = pull_progress::progress(&self.runtime, &reference, since).await;
        if let Some(PullState::Pulling { layers, .. }) = self.lock().get_mut(&key) {
            // Between an ingest's end and its blob's beginning a layer is neither.
            for layer in &mut progress.layers {
                let seen = layers.entry(layer.digest.clone()).or_default();
                layer.offset = layer.offset.max(*seen);
                *seen = layer.offset;
            }
        }
        Some(progress)
    }

    /// Asks the runtime for an image by name or id.
    async fn inspect(
        &self,
        request: &ImageRequest,
        name_or_id: &str,
        tell: &(dyn Fn(ImageEvent) + Send + Sync),
    ) -> Result<Option<Image>, ImageError> {
        let question = ImageStatusRequest {
            image: Some(image_spec(name_or_id, &request.runtime_handler)),
            verbose: false,
        };
        match self.runtime.images().image_status(question).await {
            Ok(answer) => Ok(answer.into_inner().image),
            Err(status) => {
                let name = &request.image;
                let message = format!(
                    "the runtime does not say whether it has image \"{name}\": {}",
                    cause(&status)
                );
                tell(ImageEvent::warning("InspectFailed", &message));
                let reason = WaitingReason::ImageInspectError;
                Err(error(name, reason, message, false, Some(LOOK_AGAIN_AFTER)))
            }
        }
    }

    /// Pulls the image, or waits for the pull that is under way, or refuses because the last failure is too young.
    async fn pull(
        self: &Arc<Self>,
        request: &ImageRequest,
        reference: &ImageReference,
        tell: &(dyn Fn(ImageEvent) + Send + Sync),
    ) -> Result<(String, Duration), ImageError> {
        let name = &request.image;
        let key = PullKey::of(reference, request);
        let mut outcome = match self.join_or_start(&key, reference, request.secrets.as_ref()) {
            Ok(outcome) => outcome,
            Err((failure, wait)) => {
                let message = format!(
                    "{}; the next try is in {} s",
                    failure.message,
                    wait.as_secs().max(1)
                );
                tell(ImageEvent::normal(
                    "BackOff",
                    format!("Waiting before image \"{name}\" is pulled again"),
                ));
                let permanent = failure.fault.is_permanent();
                let reason = WaitingReason::ImagePullBackOff;
                return Err(error(name, reason, message, permanent, Some(wait)));
            }
        };
        tell(ImageEvent::normal("Pulling", format!("Pulling image \"{name}\"")));
        let ended = match outcome.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone(),
            Err(_) => None,
        };
        match ended {
            Some(Ok(pulled)) => Ok(pulled),
            Some(Err(failure)) => {
                tell(ImageEvent::warning("Failed", &failure.message));
                let wait = self.wait_left(&key);
                Err(error(
                    name,
                    failure.reason(),
                    failure.message.clone(),
                    failure.fault.is_permanent(),
                    wait,
                ))
            }
            None => {
                let message = format!("debuglet stops; image \"{name}\" is pulled when it is started again");
                Err(error(name, WaitingReason::ErrImagePull, message, false, None))
            }
        }
    }

    /// The outcome to wait for, or the last failure and how long it still holds the next pull back.
    fn join_or_start(
        self: &Arc<Self>,
        key: &PullKey,
        reference: &ImageReference,
        secrets: Option<&Arc<PullSecrets>>,
    ) -> Result<watch::Receiver<Option<PullOutcome>>, (Arc<PullFailure>, Duration)> {
        let mut pulls = self.lock();
        pulls.retain(|_, state| !state.is_forgotten());
        let last_wait = match pulls.get(key) {
            Some(PullState::Pulling { outcome, .. }) => return Ok(outcome.clone()),
            Some(PullState::Failed {
                failure,
                wait,
                failed_at,
            }) => {
                let left = wait.saturating_sub(failed_at.elapsed());
                if !left.is_zero() {
                    return Err((failure.clone(), left));
                }
                Some(*wait)
            }
            None => None,
        };
        let (sender, outcome) = watch::channel(None);
        let state = PullState::Pulling {
            outcome: outcome.clone(),
            since: jiff::Timestamp::now(),
            layers: HashMap::new(),
        };
        pulls.insert(key.clone(), state);
        drop(pulls);
        let (images, key, reference) = (self.clone(), key.clone(), reference.clone());
        let secrets = secrets.cloned();
        tokio::spawn(async move {
            let pull = AssertUnwindSafe(Box::pin(images.run_pull(&key, &reference, secrets.as_deref())));
            let ended = images.stopping.run_until_cancelled(pull.catch_unwind()).await;
            // A panic is a failure like others: those who wait hear of it, and the next pull may begin after a while.
            let ended = ended.map(|ended| ended.unwrap_or_else(|_| Err(Arc::new(panicked(&key)))));
            images.note(&key, ended.as_ref(), last_wait);
            sender.send_replace(ended);
        });
        Ok(outcome)
    }

    /// Keeps what the next caller must know: after a failure, how long to wait.
    fn note(&self, key: &PullKey, ended: Option<&PullOutcome>, last_wait: Option<Duration>) {
        let mut pulls = self.lock();
        if let Some(Err(failure)) = ended {
            let wait = last_wait.map_or(FIRST_BACK_OFF, |last| (last * 2).min(LONGEST_BACK_OFF));
            tracing::warn!(image = key.image, wait_s = wait.as_secs(), "{}", failure.message);
            let state = PullState::Failed {
                failure: failure.clone(),
                wait,
                failed_at: Instant::now(),
            };
            pulls.insert(key.clone(), state);
        } else {
            pulls.remove(key);
        }
    }

    /// How long a failure still holds the next pull back.
    fn wait_left(&self, key: &PullKey) -> Option<Duration> {
        match self.lock().get(key) {
            Some(PullState::Failed { wait, failed_at, .. }) => Some(wait.saturating_sub(failed_at.elapsed())),
            _ => None,
        }
    }

    /// One pull: with each of the credentials that fit, the pod's own first, then without any. The next is tried only
    /// where credentials may be what is missing.
    async fn run_pull(
        &self,
        key: &PullKey,
        reference: &ImageReference,
        secrets: Option<&PullSecrets>,
    ) -> PullOutcome {
        // The semaphore is never closed; without a permit the pull would go on all the same.
        let _slot = self.slots.acquire().await.ok();
        #[cfg(test)]
        if self.panics.swap(false, std::sync::atomic::Ordering::Relaxed) {
            panic!("a test asked for it");
        }
        let started_at = Instant::now();
        let before = self.on_node(key, &key.image).await;
        let auth = RegistryAuth::read(&self.auth_file).await;
        let sources = [secrets.map(PullSecrets::auth), Some(&auth)];
        let problems = || sources.iter().flatten().flat_map(|auth| &auth.problems);
        for problem in problems() {
            tracing::warn!("{problem}");
        }
        let credentials = sources
            .iter()
            .flatten()
            .flat_map(|auth| auth.credentials_for(reference));
        let ended = self
            .try_credentials(key, reference, &credentials.collect::<Vec<_>>())
            .await;
        match ended {
            Ok(id) => {
                self.pulled.add(&key.image, &id).await;
                let took = started_at.elapsed();
                // An image that was there already is only asked for by its name again.
                let brought = self
                    .on_node(key, &id)
                    .await
                    .filter(|after| before.as_ref().is_none_or(|before| before.id != after.id));
                self.metrics.pulled(took, brought.map_or(0, |image| image.size));
                Ok((id, took))
            }
            Err(mut failure) => {
                let problem = problems().find(|problem| problem.may_cost_credentials());
                if let (true, Some(problem)) = (failure.fault.may_depend_on_credentials(), problem) {
                    failure.message = format!("{}; {problem}", failure.message);
                }
                Err(Arc::new(failure))
            }
        }
    }

    /// An image that is on the node, for the metrics: where the runtime does not say, it is not counted.
    async fn on_node(&self, key: &PullKey, name_or_id: &str) -> Option<Image> {
        let question = ImageStatusRequest {
            image: Some(image_spec(name_or_id, &key.runtime_handler)),
            verbose: false,
        };
        self.runtime
            .images()
            .image_status(question)
            .await
            .ok()?
            .into_inner()
            .image
    }

    /// Of several refusals the first is reported: its credentials fitted best.
    async fn try_credentials(
        &self,
        key: &PullKey,
        reference: &ImageReference,
        credentials: &[&Credential],
    ) -> Result<String, PullFailure> {
        let mut refused = None;
        for credential in credentials {
            match self.pull_once(key, reference, Some(credential)).await {
                Err(failure) if failure.fault.may_depend_on_credentials() => {
                    refused.get_or_insert(failure);
                }
                ended => return ended,
            }
        }
        let ended = self.pull_once(key, reference, None).await;
        ended.map_err(|failure| refused.unwrap_or(failure))
    }

    async fn pull_once(
        &self,
        key: &PullKey,
        reference: &ImageReference,
        credential: Option<&Credential>,
    ) -> Result<String, PullFailure> {
        let request = PullImageRequest {
            image: Some(image_spec(&key.image, &key.runtime_handler)),
            auth: credential.map(|credential| credential.auth.clone()),
            sandbox_config: sandbox_config(&key.runtime_handler),
        };
        let entry = credential.map(|credential| credential.entry.as_str());
        let mut images = self.runtime.images();
        let ended = tokio::select! {
            ended = images.pull_image(request) => ended,
            () = pull_progress::stalled(&self.runtime, reference, jiff::Timestamp::now()) => {
                Err(Status::deadline_exceeded("nothing arrives"))
            }
        };
        match ended {
            Ok(answer) => Ok(answer.into_inner().image_ref),
            Err(status) => Err(PullFailure::read(reference, &status, entry)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PullKey, PullState>> {
        // A panic elsewhere leaves the map as whole as it was: every change is one insert or remove.
        self.pulls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is told of a pull that panicked; the panic itself is in the log.
fn panicked(key: &PullKey) -> PullFailure {
    PullFailure {
        fault: Fault::Other,
        message: format!("debuglet panicked while it pulled image \"{}\"", key.image),
    }
}

impl PullState {
    /// Whether a failure is so old that it counts no longer.
    fn is_forgotten(&self) -> bool {
        matches!(self, PullState::Failed { failed_at, .. } if failed_at.elapsed() >= FORGOTTEN_AFTER)
    }
}

/// The image for the runtime, for pods of this runtime handler.
fn image_spec(image: &str, runtime_handler: &str) -> ImageSpec {
    ImageSpec {
        image: image.to_owned(),
        runtime_handler: runtime_handler.to_owned(),
        ..ImageSpec::default()
    }
}

/// containerd before 2.0 does not know the runtime handler of an `ImageSpec`.
fn sandbox_config(runtime_handler: &str) -> Option<PodSandboxConfig> {
    (!runtime_handler.is_empty()).then(|| PodSandboxConfig {
        annotations: [(RUNTIME_HANDLER_ANNOTATION.to_owned(), runtime_handler.to_owned())].into(),
        ..PodSandboxConfig::default()
    })
}

fn resolved(name: &str, reference: &ImageReference, image: Image, pulled: Option<Duration>) -> ResolvedImage {
    let repository = format!("{}@", reference.repository());
    let of_this_name = image
        .repo_digests
        .iter()
        .find(|digest| digest.starts_with(&repository));
    ResolvedImage {
        image_ref: of_this_name.unwrap_or(&image.id).clone(),
        id: image.id,
        user_specified: name.to_owned(),
        uid: image.uid.map(|uid| uid.value),
        username: image.username,
        size: image.size,
        pulled,
    }
}

fn error(
    image: &str,
    reason: WaitingReason,
    message: String,
    permanent: bool,
    retry_after: Option<Duration>,
) -> ImageError {
    ImageError {
        image: image.to_owned(),
        reason,
        message,
        permanent,
        retry_at: retry_after.map(from_now),
    }
}

/// The moment that is this far ahead.
fn from_now(wait: Duration) -> Nanoseconds {
    let at = jiff::Timestamp::now().as_nanosecond() + i128::try_from(wait.as_nanos()).unwrap_or(i128::MAX);
    Nanoseconds::try_from(at).unwrap_or(Nanoseconds::MAX)
}

#[cfg(test)]
mod tests;
