//! One task per pod: observe, plan, act, report. Events wake it; it does not poll.

mod cgroup_folders;
pub(crate) mod context;
mod ending;
pub(crate) mod eviction;
mod files;
pub(crate) mod garbage;
pub(crate) mod image_garbage;
mod launch;
mod objects;
mod panics;
mod pod_worker;
mod report;
mod sandbox;
mod signals;
mod step;
mod strangers;
mod take_over;
mod target;
mod unread_ends;
pub(crate) mod volumes;
mod waits;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::pod::kubelet_life::Life;
use crate::runtime::events::{ContainerEventKind, RuntimeEvent};
use crate::runtime::news::News;
use context::Context;
use panics::Panics;
use pod_worker::PodWorker;
use signals::Signals;

/// How often every pod is looked at even if nothing happens: the net under the events.
const RELIST: Duration = Duration::from_secs(300);
/// How many workers may end before the first of them is taken note of; they wait for that.
const EVENTS_AT_ONCE: usize = 64;

/// The workers of all pods.
#[derive(Debug)]
pub(crate) struct Workers {
    context: Arc<Context>,
    signals: Arc<Signals>,
    /// Told what may concern somebody else's pods.
    news: Arc<News>,
    /// Containers that nobody here knows, whose pods are asked for.
    strangers: mpsc::Sender<String>,
    asking: JoinHandle<()>,
    tasks: JoinSet<()>,
    /// The pods of the workers and their steps, by the ids of the workers' tasks.
    pods: HashMap<Id, (String, TaskTracker)>,
    working: BTreeSet<String>,
    /// The pods whose worker's task panicked, by UID, until one ends in order.
    died: HashMap<String, Died>,
}

/// What the next worker of a pod has to know of one whose task panicked.
#[derive(Debug, Default)]
struct Died {
    panics: Panics,
    /// How long the next worker rests.
    pause: Duration,
    /// The steps that were under way: they go on.
    steps: TaskTracker,
}

impl Died {
    /// Returns once no step of the worker is under way any more.
    async fn steps_ended(steps: &TaskTracker) {
        steps.close();
        steps.wait().await;
    }
}

impl Workers {
    /// No workers yet; `news` is told what may concern somebody else's pods.
    pub(crate) fn new(context: Arc<Context>, news: Arc<News>, shutdown: &CancellationToken) -> Workers {
        let signals = Arc::<Signals>::default();
        let (strangers, asking) = strangers::ask(context.runtime.clone(), Arc::clone(&signals), shutdown);
        Workers {
            context,
            signals,
            news,
            strangers,
            asking,
            tasks: JoinSet::new(),
            pods: HashMap::new(),
            working: BTreeSet::new(),
            died: HashMap::new(),
        }
    }

    /// Gives every pod a worker and wakes it, until `shutdown`; then lets each finish the step it is at.
    pub(crate) async fn run(mut self, mut events: mpsc::Receiver<RuntimeEvent>, shutdown: CancellationToken) {
        let mut versions = self.context.store.versions();
        let mut launching = self.context.forbidden.clone();
        let mut life = self.context.kubelet.as_ref().map(|kubelet| kubelet.life());
        let mut relist = tokio::time::interval(RELIST);
        relist.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut arrived = Vec::with_capacity(EVENTS_AT_ONCE);
        loop {
            self.start_missing(&shutdown);
            tokio::select! {
                // However many events come.
                biased;
                () = shutdown.cancelled() => break,
                changed = versions.changed() => if changed.is_err() { break },
                Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => self.ended(ended),
                // A kubelet came or went: every plan may change.
                changed = launching.changed() => {
                    if changed.is_err() { break }
                    self.signals.wake_all();
                }
                () = changed(life.as_mut()) => self.signals.wake_all(),
                // Somebody else's pods are looked at when the discovery, which lists them all at once, sees a change.
                _ = relist.tick() => self.signals.relist(|uid| !self.context.store.is_only_shown(uid)),
                count = events.recv_many(&mut arrived, EVENTS_AT_ONCE) => {
                    if count == 0 { break }
                    for event in arrived.drain(..) {
                        self.route(&event);
                    }
                }
            }
        }
        while let Some(ended) = self.tasks.join_next_with_id().await {
            self.ended(ended);
        }
        for died in self.died.values() {
            Died::steps_ended(&died.steps).await;
        }
        if let Err(error) = self.asking.await {
            tracing::error!("the questions about unknown containers failed: {error}");
        }
    }

    fn start_missing(&mut self, shutdown: &CancellationToken) {
        for (uid, wake) in self.context.store.workable() {
            if self.working.insert(uid.clone()) {
                let signal = self.signals.of_pod(&uid, wake);
                let died = self.died.get(&uid);
                let steps = TaskTracker::new();
                let worker = PodWorker::new(
                    Arc::clone(&self.context),
                    uid.clone(),
                    signal,
                    Arc::clone(&self.signals),
                    steps.clone(),
                    died.map(|died| died.panics.clone()).unwrap_or_default(),
                    shutdown.clone(),
                );
                let before = died.map(|died| (died.steps.clone(), died.pause));
                let shutdown = shutdown.clone();
                let task = self.tasks.spawn(Box::pin(async move {
                    if let Some((steps, pause)) = before {
                        // What they do is not to be planned a second time.
                        Died::steps_ended(&steps).await;
                        let pause = tokio::time::sleep(pause);
                        if shutdown.run_until_cancelled(pause).await.is_none() {
                            return;
                        }
                    }
                    worker.run().await;
                }));
                self.pods.insert(task.id(), (uid, steps));
            }
        }
    }

    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        let Some((uid, steps)) = self.pods.remove(&id) else {
            return;
        };
        self.signals.forget(&uid);
        self.working.remove(&uid);
        match ended {
            Ok(_) => drop(self.died.remove(&uid)),
            // A worker outlives the panics of its rounds, so this one was beside them. The pod gets another worker.
            Err(error) => {
                let died = self.died.entry(uid.clone()).or_default();
                died.pause = died.panics.of_task(&self.context, &uid, error);
                died.steps = steps;
            }
        }
    }

    fn route(&self, event: &RuntimeEvent) {
        let RuntimeEvent::Container { id, kind } = event else {
            self.signals.relist(|_| true);
            self.news.anything();
            return;
        };
        if *kind == ContainerEventKind::ExecExited {
            return;
        }
        let owner = self.signals.event(id, *kind);
        if owner
            .as_ref()
            .is_none_or(|uid| self.context.store.is_foreign(uid))
        {
            match kind {
                ContainerEventKind::Created => self.news.created(id),
                ContainerEventKind::Started => self.news.started(id),
                ContainerEventKind::Exited => self.news.ended(id),
                ContainerEventKind::Deleted => self.news.removed(id),
                _ => self.news.anything(),
            }
        }
        if owner.is_some() || *kind != ContainerEventKind::Started {
            return;
        }
        // Somebody started a container that we have not seen: it may be in a pod of ours. Where too many wait for the
        // answer already, the slow re-list finds it.
        if self.strangers.try_send(id.clone()).is_err() {
            tracing::debug!(id, "whose container this is is not asked");
        }
    }
}

/// Returns when the kubelet's life has changed; never where nobody takes over from it.
async fn changed(life: Option<&mut watch::Receiver<Life>>) {
    match life {
        // The context holds the sender.
        Some(life) => drop(life.changed().await),
        None => std::future::pending().await,
    }
}
