//! The worker of one pod: it looks, plans, begins the steps of the plan, reports, and waits for whatever comes
//! first: a change of what is wanted, news from the runtime, the end of a step, a time in the plan.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::jiff::Timestamp;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::context::{self, Context};
use super::launch::{Launch, PullingFlag};
use super::panics::{self, Panics};
use super::signals::{Signal, Signals};
use super::step::{Outcome, RETRY_AFTER, now};
use super::take_over::SecondAttempts;
use super::target::Targets;
use super::unread_ends::UnreadEnds;
use super::waits::Waits;
use super::{ending, report, sandbox, take_over};
use crate::panic_message;
use crate::pod::crash_back_off::CrashBackOff;
use crate::pod::defaults;
use crate::pod::eviction::Eviction;
use crate::pod::identity::PodKey;
use crate::pod::observed::{ContainerState, Nanoseconds, ObservedContainer, ObservedPod, ObservedSandbox};
use crate::pod::plan::ephemeral::EphemeralStep;
use crate::pod::plan::{self, Action, Held, Plan, SANDBOX, Situation};
use crate::pod::record::{Phase, Record};
use crate::pod::take_over::is_the_kubelets;
use crate::runtime::error::RuntimeError;
use crate::store::events::Severity;
use crate::store::problems::ProblemKind;
use crate::store::progress::View;
use crate::test_panic;

/// How long after the end of a process the runtime is asked again whether it has noticed; doubles.
const SETTLE_FIRST: Duration = Duration::from_millis(2);
/// The longest of these waits.
const SETTLE_LONGEST: Duration = Duration::from_millis(250);
/// How often it is asked like this
const SETTLE_TRIES: u32 = 20;
/// before it is asked at this pace: a shim that hangs, or whose pipes others hold open, takes its time.
const SETTLE_SLOWLY: Duration = Duration::from_secs(5);

/// When a container is asked for again whose status could not be read.
const UNREAD_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The worker of one pod.
#[derive(Debug)]
pub(super) struct PodWorker {
    context: Arc<Context>,
    uid: String,
    /// `namespace/name`; empty until the first turn.
    name: String,
    signal: Arc<Signal>,
    signals: Arc<Signals>,
    observed: ObservedPod,
    /// Containers that were seen exited, with their last words: nothing of them changes any more.
    exited: HashMap<String, ObservedContainer>,
    /// Containers whose process has ended though the runtime has not said so yet.
    settling: BTreeSet<String>,
    settle_tries: u32,
    unread_ends: UnreadEnds,
    /// Whether the runtime is to be looked at before the next plan.
    dirty: bool,
    /// Somebody else's pod as it was last found.
    shown: Option<Arc<Pod>>,
    crashes: CrashBackOff,
    held: BTreeMap<String, Held>,
    /// How many launches of a container have failed in a row.
    failures: BTreeMap<String, u32>,
    /// The containers whose image is there, by name.
    pulled: BTreeSet<String>,
    /// Whether the volumes of the pod, which is going or was evicted, were taken away.
    volumes_gone: bool,
    /// What is known of the targets of its debug containers.
    targets: Targets,
    /// Containers of a kubelet's beside one of ours of the same name.
    second_attempts: SecondAttempts,
    steps: JoinSet<Outcome>,
    /// Who owns the worker waits by it for the steps of one whose task panicked.
    under_way: TaskTracker,
    /// What each of them is busy with.
    step_names: HashMap<Id, String>,
    /// The panics of this worker and of its steps.
    panics: Panics,
    busy: BTreeMap<String, Arc<PullingFlag>>,
    /// Ends the waits of the steps.
    waits: Waits,
    /// Ends the wait for one container's image: set when it is stopped.
    launches: BTreeMap<String, CancellationToken>,
    /// The agent stops.
    shutdown: CancellationToken,
}

impl PodWorker {
    pub(super) fn new(
        context: Arc<Context>,
        uid: String,
        signal: Arc<Signal>,
        signals: Arc<Signals>,
        under_way: TaskTracker,
        panics: Panics,
        shutdown: CancellationToken,
    ) -> PodWorker {
        PodWorker {
            context,
            uid,
            name: String::new(),
            signal,
            signals,
            observed: ObservedPod::default(),
            exited: HashMap::new(),
            settling: BTreeSet::new(),
            settle_tries: 0,
            unread_ends: UnreadEnds::default(),
            dirty: true,
            shown: None,
            crashes: CrashBackOff::default(),
            held: BTreeMap::new(),
            failures: BTreeMap::new(),
            pulled: BTreeSet::new(),
            volumes_gone: false,
            targets: Targets::default(),
            second_attempts: SecondAttempts::default(),
            steps: JoinSet::new(),
            under_way,
            step_names: HashMap::new(),
            panics,
            busy: BTreeMap::new(),
            waits: Waits::new(&shutdown),
            launches: BTreeMap::new(),
            shutdown,
        }
    }

    /// Works until the pod is gone or the agent stops; then lets the steps under way come to their end.
    ///
    /// A panic is a defect, and ends neither the worker nor the steps that are under way: the worker forgets what it
    /// knew, and looks at everything anew after a pause.
    pub(super) async fn run(mut self) {
        loop {
            test_panic::point("worker-task");
            match AssertUnwindSafe(self.round()).catch_unwind().await {
                Ok(true) => {}
                Ok(false) => break,
                Err(panic) => {
                    let pause = self
                        .panics
                        .of_worker(&self.context, &self.uid, &panic_message::of(&*panic));
                    self.start_over();
                    let pause = tokio::time::sleep(pause);
                    if self.shutdown.run_until_cancelled(pause).await.is_none() {
                        break;
                    }
                }
            }
        }
        panics::forget(&self.context, &self.uid);
        self.waits.end();
        self.solve_unread();
        while self.steps.join_next().await.is_some() {}
        self.context.runtime.unanswered().settled(&self.name);
    }

    /// One turn, and the wait for the next one; false when there will be none.
    async fn round(&mut self) -> bool {
        let Some(wake_in) = self.turn().await else {
            return false;
        };
        tokio::select! {
            () = self.shutdown.cancelled() => return false,
            () = self.signal.wake.notified() => {}
            Some(ended) = self.steps.join_next_with_id(), if !self.steps.is_empty() => self.ended(ended),
            () = self.targets.found() => {}
            () = tokio::time::sleep(wake_in.unwrap_or(Duration::MAX)), if wake_in.is_some() => {}
        }
        while let Some(ended) = self.steps.try_join_next_with_id() {
            self.ended(ended);
        }
        true
    }

    /// Forgets what was learnt of the pod, as some of it may be half told after a panic. The steps under way go on, and
    /// their names stay busy until they end.
    fn start_over(&mut self) {
        self.solve_unread();
        self.observed = ObservedPod::default();
        self.unread_ends = UnreadEnds::default();
        self.exited.clear();
        self.settling.clear();
        self.dirty = true;
        self.shown = None;
        self.held.clear();
        self.pulled.clear();
        self.targets = Targets::default();
        self.second_attempts = SecondAttempts::default();
        let under_way: BTreeSet<&String> = self.step_names.values().collect();
        self.busy.retain(|name, _| under_way.contains(name));
        self.launches.retain(|name, _| under_way.contains(name));
    }

    /// Withdraws what was reported of statuses that could not be read.
    fn solve_unread(&self) {
        for id in self.observed.unread.keys() {
            self.context.store.solved(ProblemKind::StatusUnreadable, id);
        }
    }

    /// One turn: look, plan, report, begin. Answers after how long the next one is due at the latest, if that
    /// is known; `None` once the pod is gone.
    async fn turn(&mut self) -> Option<Option<Duration>> {
        let view = self.context.store.view(&self.uid)?;
        test_panic::point("worker");
        self.speak_for(&view.pod);
        if !Arc::ptr_eq(&view.wake, &self.signal.wake) {
            // The pod went and came back under its UID: it gets a worker of its own, which that wakes.
            return None;
        }
        if view.foreign
            && !self
                .shown
                .as_ref()
                .is_some_and(|shown| Arc::ptr_eq(shown, &view.pod))
        {
            // The discovery has seen a change.
            self.dirty = true;
            self.shown = Some(Arc::clone(&view.pod));
        }
        let evicted = view.evicted.as_ref().map(Eviction::removal);
        self.waits
            .follow(view.removal.or(evicted), plan::grace(&view.pod));
        let kubelet_down = self.context.kubelet_down();
        for record in &view.records {
            let ends = match record.phase {
                Phase::Stopping { .. } => true,
                // It goes back at once: a kubelet that is down again later is asked everything anew.
                Phase::Accepted => is_the_kubelets(record, view.kubernetes.as_deref(), kubelet_down),
                Phase::Created(_) | Phase::Ended { .. } => false,
            };
            if let Some(launch) = self.launches.get(&record.spec.name).filter(|_| ends) {
                launch.cancel();
            }
        }
        let seen = self.signal.take();
        self.dirty |= seen.dirty;
        if !seen.exited.is_empty() {
            self.settling.extend(seen.exited);
            self.settle_tries = 0;
        }
        let mut wake_in = None;
        if self.dirty {
            let shutdown = self.shutdown.clone();
            match shutdown.run_until_cancelled(self.look(&view)).await? {
                Ok(()) => self.dirty = false,
                Err(error) => {
                    if !error.is_logged() {
                        tracing::warn!(pod = context::pod_name(&view.pod), "{error}");
                    }
                    return Some(Some(to_duration(RETRY_AFTER)));
                }
            }
            wake_in = self.settle();
            if !self.observed.unread.is_empty() {
                self.dirty = true;
                wake_in = wake_in.or(Some(UNREAD_AGAIN_AFTER));
            }
        }
        if view.foreign {
            self.observed.found_in.clone_from(&view.sandbox_id);
            self.second_attempts.tell(&self.context, &view, &self.observed);
        }
        self.targets
            .find(&self.context.runtime, &view.records, &self.observed);
        let forbidden = self.context.forbidden.borrow().clone();
        let busy: BTreeSet<String> = self.busy.keys().cloned().collect();
        let now = now();
        let plan = plan::plan(&Situation {
            pod: &view.pod,
            records: &view.records,
            observed: &self.observed,
            removal: view
                .removal
                .map(|removal| removal.remaining_seconds(Timestamp::now())),
            eviction: evicted.map(|evicted| evicted.grace_seconds),
            volumes_gone: self.volumes_gone,
            forbidden: forbidden.as_deref(),
            kubernetes: view.kubernetes.as_deref(),
            kubelet_down,
            crashes: &self.crashes,
            held: &self.held,
            pulled: &self.pulled,
            busy: &busy,
            now,
        });
        self.report(&view, &plan, &busy);
        self.targets.tell(&self.context, &view, &plan, &self.held);
        if let Some(at) = plan.wake_at {
            let due = to_duration(at - now);
            wake_in = Some(wake_in.map_or(due, |earlier: Duration| earlier.min(due)));
        }
        if plan.actions.is_empty() && busy.is_empty() && wake_in.is_none() {
            // A call that was given up may have been done all the same. Then nothing makes it again.
            self.context.runtime.unanswered().settled(&self.name);
        }
        for action in plan.actions {
            self.begin(&view, action);
        }
        Some(wake_in)
    }

    /// Makes the calls to the runtime in the pod's name.
    fn speak_for(&mut self, pod: &Pod) {
        let name = context::pod_name(pod);
        if self.name != name {
            self.context = Arc::new(self.context.for_pod(&name));
            self.name = name;
        }
    }

    /// Looks at the pod in the runtime, and reads the last words of what has ended since.
    async fn look(&mut self, view: &View) -> Result<(), RuntimeError> {
        let mut observed = self
            .context
            .runtime
            .observe_pod(&PodKey::of(&view.pod), view.foreign, &self.exited)
            .await?;
        self.unread(view, &mut observed)?;
        self.observed = observed;
        let full = full_pod(view);
        for container in &mut self.observed.containers {
            if container.state == ContainerState::Exited
                && container.ours
                && !self.exited.contains_key(&container.id)
                && !self.observed.unread.contains_key(&container.id)
            {
                let policy = policy_of(&full, &container.name);
                container.message = ending::last_words(&self.context, &full, container, &policy).await;
                self.exited.insert(container.id.clone(), container.clone());
                self.crashes.adopt(container);
            }
        }
        let observed = &self.observed;
        self.exited
            .retain(|id, _| observed.containers.iter().any(|container| container.id == *id));
        self.own();
        Ok(())
    }

    /// Takes what was known before of those that only the runtime's list tells of. How one of them has ended is waited for,
    /// unless the pod goes: until then it stands as it was last seen.
    ///
    /// # Errors
    ///
    /// One that was never seen before has ended, and may still be read.
    fn unread(&mut self, view: &View, observed: &mut ObservedPod) -> Result<(), RuntimeError> {
        let before = &self.observed;
        let ended = |container: &&ObservedContainer| {
            container.state == ContainerState::Exited
                && view.removal.is_none()
                && observed.unread.contains_key(&container.id)
        };
        let ended = observed.containers.iter().filter(ended);
        let awaited = ended.map(|container| container.id.clone()).collect();
        let awaited = self.unread_ends.look(awaited);
        let mut unseen = None;
        for container in &mut observed.containers {
            if !observed.unread.contains_key(&container.id) {
                continue;
            }
            let known = before.containers.iter().find(|known| known.id == container.id);
            let waits = awaited.contains(&container.id);
            match known {
                Some(known) if known.state == container.state || waits => *container = known.clone(),
                None if waits => unseen = Some(container.id.clone()),
                Some(_) | None => {}
            }
        }
        for sandbox in &mut observed.sandboxes {
            let known = before.sandboxes.iter().find(|known| known.id == sandbox.id);
            if let Some(known) = known.filter(|_| observed.unread.contains_key(&sandbox.id)) {
                sandbox.ips.clone_from(&known.ips);
            }
        }
        for (id, why) in &observed.unread {
            if !before.unread.contains_key(id) {
                let pod = context::pod_name(&view.pod);
                tracing::warn!(pod, "{why}: what the runtime's list says of it is shown");
                let kind = ProblemKind::StatusUnreadable;
                self.context.store.problem(kind, id.as_str(), pod, why.as_str());
            }
        }
        for id in before
            .unread
            .keys()
            .filter(|id| !observed.unread.contains_key(*id))
        {
            self.context.store.solved(ProblemKind::StatusUnreadable, id);
        }
        let Some(id) = unseen else { return Ok(()) };
        let why = observed.unread.remove(&id).unwrap_or_default();
        // Kept, so that it is told once.
        self.observed.unread.insert(id.clone(), why.clone());
        let step = "say how this has ended: container";
        Err(RuntimeError::told(step, id, why))
    }

    /// Says which ids are this pod's, so that their events come here.
    fn own(&self) {
        let sandboxes = self.observed.sandboxes.iter().map(|sandbox| sandbox.id.as_str());
        let containers = self
            .observed
            .containers
            .iter()
            .map(|container| container.id.as_str());
        self.signals.own(&self.uid, sandboxes.chain(containers));
    }

    /// The runtime's event comes before its status: until that says EXITED, look again soon.
    fn settle(&mut self) -> Option<Duration> {
        let observed = &self.observed;
        let alive = |id: &String| {
            let container = observed.containers.iter().find(|container| container.id == *id);
            let sandbox = observed.sandboxes.iter().find(|sandbox| sandbox.id == *id);
            container.is_some_and(|container| container.state != ContainerState::Exited)
                || sandbox.is_some_and(|sandbox| sandbox.ready)
        };
        self.settling.retain(alive);
        if self.settling.is_empty() {
            return None;
        }
        if self.settle_tries >= SETTLE_TRIES {
            self.dirty = true;
            return Some(SETTLE_SLOWLY);
        }
        let wait = (SETTLE_FIRST * 2_u32.saturating_pow(self.settle_tries)).min(SETTLE_LONGEST);
        self.settle_tries += 1;
        self.dirty = true;
        Some(wait)
    }

    fn report(&self, view: &View, plan: &Plan, busy: &BTreeSet<String>) {
        let pulling = self
            .busy
            .iter()
            .filter(|(_, flag)| flag.is_up())
            .map(|(name, _)| name.as_str())
            .collect();
        let report = report::report(&report::Facts {
            node: &self.context.facts().node,
            view,
            pod: &full_pod(view),
            observed: &self.observed,
            plan,
            pulling: &pulling,
            starting: busy,
            targets: &self.targets,
        });
        self.context.store.report(&self.uid, report);
    }

    /// Begins one step; the worker goes on meanwhile, and plans nothing else for the same name.
    fn begin(&mut self, view: &View, action: Action) {
        let context = Arc::clone(&self.context);
        let pod = Arc::clone(&view.pod);
        match action {
            Action::RunSandbox { attempt, after } => {
                if let Some(after) = after {
                    self.sandbox_died(&pod, &after);
                }
                let dead: Vec<String> = self
                    .observed
                    .sandboxes
                    .iter()
                    .filter(|sandbox| sandbox.ours)
                    .map(|sandbox| sandbox.id.clone())
                    .collect();
                self.spawn_wait(SANDBOX, async move {
                    sandbox::run(&context, &pod, attempt, &dead).await.of_launch()
                });
            }
            Action::StopSandbox { id } => {
                self.spawn_wait(SANDBOX, async move { sandbox::stop(&context, &id).await });
            }
            Action::RemoveSandbox { id } => {
                self.spawn_wait(SANDBOX, async move { sandbox::remove(&context, &id).await });
            }
            Action::RemoveDeadSandbox { id } => {
                let key = id.clone();
                self.spawn_wait(&key, async move { sandbox::stop_and_remove(&context, &id).await });
            }
            Action::TearDownVolumes => {
                self.spawn_until_shutdown(SANDBOX, async move {
                    sandbox::tear_down_volumes(&context, &pod).await
                });
            }
            Action::Forget => {
                let created = view.records.iter().filter_map(|record| {
                    let created = record.created()?;
                    Some((record.spec.name.clone(), created.log_path.clone()))
                });
                let foreign = view.foreign.then(|| created.collect::<Vec<_>>());
                self.spawn_until_shutdown(SANDBOX, async move {
                    match foreign {
                        Some(created) => sandbox::forget_foreign(&context, &pod, created).await,
                        None => sandbox::forget(&context, &pod).await,
                    }
                });
            }
            Action::Launch { name, attempt, after } => {
                if let Some(after) = after {
                    self.crashes.restarted(&after, now());
                    let message = format!("Back-off restarting failed container {name}");
                    if self.crashes.seconds(&name) > 10 {
                        context.tell(&pod, Some(&name), Severity::Warning, "BackOff", message);
                    }
                }
                let container = pod.spec.iter().flat_map(|spec| {
                    spec.containers
                        .iter()
                        .chain(spec.init_containers.iter().flatten())
                });
                if let Some(container) = container
                    .into_iter()
                    .find(|container| container.name == name)
                    .cloned()
                {
                    self.launch(view, container, None, attempt, None, false);
                }
            }
            Action::LaunchEphemeral { name, target_id } => {
                self.launch_ephemeral(view, &name, target_id, false);
            }
            Action::PullEphemeral { name } => self.launch_ephemeral(view, &name, None, true),
            Action::Stop {
                name,
                id,
                grace_seconds,
            } => {
                let message = format!("Stopping container {name}");
                context.tell(&pod, Some(&name), Severity::Normal, "Killing", message);
                self.spawn_wait(
                    &name,
                    async move { ending::stop(&context, &id, grace_seconds).await },
                );
            }
            Action::Remove { name, id } => {
                self.spawn_wait(&name, async move { ending::remove(&context, &id).await });
            }
            Action::RemoveDead { name, id, attempt } => {
                let key = id.clone();
                self.spawn_wait(&key, async move {
                    ending::remove_dead(&context, &pod, &name, &id, attempt).await
                });
            }
            Action::HandBack { name } => {
                let mut records = view.records.iter();
                let Some(origin) = records
                    .find(|record| record.spec.name == name)
                    .map(|record| record.origin)
                else {
                    return;
                };
                let key = name.clone();
                self.spawn(&key, async move {
                    take_over::hand_back(&context, &pod, &name, origin).await
                });
            }
            Action::Ephemeral { name, step, refused } => {
                let Some(record) = view
                    .records
                    .iter()
                    .find(|record| record.spec.name == name)
                    .cloned()
                else {
                    return;
                };
                let grace = match view.removal {
                    Some(removal) => removal.remaining_seconds(Timestamp::now()),
                    None => plan::grace(&view.pod),
                };
                let (full, observed) = (full_pod(view), self.observed.clone());
                // A stop is a wait; every other step writes a record or starts a container, and comes to its end.
                let waits = matches!(step, EphemeralStep::Stop { .. });
                let step = async move {
                    ending::ephemeral(&context, &full, &record, step, refused, &observed, grace).await
                };
                if waits {
                    self.spawn_wait(&name, step);
                } else {
                    self.spawn(&name, step);
                }
            }
        }
    }

    /// Takes note, and tells, that a sandbox is made in the place of one that died.
    fn sandbox_died(&mut self, pod: &Pod, dead: &ObservedSandbox) {
        self.crashes.sandbox_made(dead, now());
        let changed = "Pod sandbox changed, it will be killed and re-created.";
        let context = &self.context;
        context.tell(pod, None, Severity::Normal, "SandboxChanged", changed.to_owned());
        if self.crashes.sandbox_seconds() > 10 {
            let message = "Back-off making the pod's sandbox again, which keeps dying".to_owned();
            context.tell(pod, None, Severity::Warning, "BackOff", message);
        }
    }

    fn launch_ephemeral(&mut self, view: &View, name: &str, target_id: Option<String>, only_pull: bool) {
        if let Some(record) = view.records.iter().find(|record| record.spec.name == name) {
            self.launch(
                view,
                defaults::as_container(&record.spec),
                Some(record),
                0,
                target_id,
                only_pull,
            );
        }
    }

    /// Begins the launch of a container; an ephemeral one has a `record`.
    fn launch(
        &mut self,
        view: &View,
        container: Container,
        record: Option<&Record>,
        attempt: u32,
        target_id: Option<String>,
        only_pull: bool,
    ) {
        let Some(sandbox) = self.observed.sandbox_to_join().cloned() else {
            return;
        };
        let name = container.name.clone();
        let pulling = PullingFlag::new(Arc::clone(&self.signal.wake));
        let (context, cancel) = (Arc::clone(&self.context), self.waits.for_image());
        self.launches.insert(name.clone(), cancel.clone());
        let pod = full_pod(view);
        let flag = Arc::clone(&pulling);
        let tries = self.failures.get(&name).copied().unwrap_or_default();
        let ephemeral = record.map(|record| record.origin);
        let copy_mounts = record.and_then(|record| record.copy_mounts.clone());
        self.spawn(&name, async move {
            // Where somebody else runs the pod its volumes are there, and where they are is read when they are needed.
            let volumes = if sandbox.ours {
                let prepare = sandbox::prepare_volumes(&context, &pod, Some(&container));
                match cancel.run_until_cancelled(Box::pin(prepare)).await {
                    Some(Ok(volumes)) => volumes,
                    Some(Err(outcome)) => return outcome.of_launch(),
                    None => return Outcome::Done,
                }
            } else {
                BTreeMap::new()
            };
            let launch = Launch {
                context,
                pod,
                container,
                ephemeral,
                copy_mounts,
                attempt,
                sandbox,
                target_id,
                volumes,
                cancel,
                pulling: flag,
                tries,
            };
            let outcome = if only_pull {
                launch.pull().await
            } else {
                Box::pin(launch.run()).await
            };
            outcome.of_launch()
        });
        self.busy.insert(name, pulling);
    }

    fn spawn(&mut self, name: &str, step: impl Future<Output = Outcome> + Send + 'static) {
        let flag = PullingFlag::new(Arc::clone(&self.signal.wake));
        self.busy.insert(name.to_owned(), flag);
        let step = self.steps.spawn(self.under_way.track_future(step));
        self.step_names.insert(step.id(), name.to_owned());
    }

    /// Like `spawn`, for a step that may be cut short: the runtime takes it back, or goes on by itself, or is asked
    /// again, be it by the next agent.
    fn spawn_wait(&mut self, name: &str, step: impl Future<Output = Outcome> + Send + 'static) {
        let waits = self.waits.for_others();
        self.spawn(name, async move {
            waits.run_until_cancelled(step).await.unwrap_or(Outcome::Done)
        });
    }

    /// Like `spawn`, for a step that the shutdown cuts short: what it waits for goes on by itself, and the next agent does it
    /// again.
    fn spawn_until_shutdown(&mut self, name: &str, step: impl Future<Output = Outcome> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.spawn(name, async move {
            shutdown.run_until_cancelled(step).await.unwrap_or(Outcome::Done)
        });
    }

    fn ended(&mut self, ended: Result<(Id, Outcome), JoinError>) {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let Some(name) = self.step_names.remove(&id) else {
            return;
        };
        // How far a step came that panicked is for its record and the runtime to say, as after a restart of the agent:
        // nothing is planned for its name before both were looked at.
        let outcome = match ended {
            Ok((_, outcome)) => outcome,
            Err(error) => {
                let outcome = self.panics.of_step(&self.context, &self.uid, &name, error);
                // A stop does not wait for the next try of a launch.
                match self.launches.contains_key(&name) {
                    true => outcome.of_launch(),
                    false => outcome,
                }
            }
        };
        self.busy.remove(&name);
        self.launches.remove(&name);
        self.held.remove(&name);
        match outcome {
            Outcome::Done => self.dirty = true,
            Outcome::Pulled => {
                self.pulled.insert(name);
            }
            Outcome::Seen(container) => {
                self.failures.remove(&name);
                self.pulled.insert(name);
                self.see(*container);
            }
            Outcome::Failed(held) => {
                if held.of_launch {
                    let failures = self.failures.entry(name.clone()).or_default();
                    *failures = failures.saturating_add(1);
                }
                self.held.insert(name, held);
                self.dirty = true;
            }
            Outcome::VolumesGone => {
                self.volumes_gone = true;
                // There may be room now for what the disk refused.
                self.held.retain(|_, held| held.of_launch);
            }
            Outcome::Forgotten => {}
        }
    }

    /// Takes in what a launch saw of its container, without looking at the whole pod again.
    fn see(&mut self, container: ObservedContainer) {
        if container.state == ContainerState::Exited {
            self.dirty = true;
            return;
        }
        self.observed.containers.retain(|known| known.id != container.id);
        self.observed.containers.push(container);
        self.own();
    }
}

impl Drop for PodWorker {
    /// The steps of a worker that ended in order are at their end. Those of one that panicked go on, as no create and no
    /// start may be cut short; only their waits end.
    fn drop(&mut self) {
        self.waits.end();
        self.steps.detach_all();
    }
}

/// The pod with its ephemeral containers.
fn full_pod(view: &View) -> Pod {
    let mut pod = Pod::clone(&view.pod);
    let own = view.records.iter().map(|record| &record.spec);
    let containers: Vec<_> = own.chain(&view.theirs).cloned().collect();
    if !containers.is_empty() {
        pod.spec.get_or_insert_default().ephemeral_containers = Some(containers);
    }
    pod
}

fn policy_of(pod: &Pod, name: &str) -> String {
    let Some(spec) = &pod.spec else {
        return String::new();
    };
    let ordinary = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    let mut policies = ordinary
        .map(|container| (&container.name, &container.termination_message_policy))
        .chain(
            spec.ephemeral_containers
                .iter()
                .flatten()
                .map(|one| (&one.name, &one.termination_message_policy)),
        );
    policies
        .find(|(of, _)| *of == name)
        .and_then(|(_, policy)| policy.clone())
        .unwrap_or_default()
}

fn to_duration(nanoseconds: Nanoseconds) -> Duration {
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
}
