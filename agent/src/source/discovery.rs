//! The pods that somebody else runs, found in the runtime. The runtime's events say when to look; one look is two
//! lists, and only what is new or different in them is asked for in detail.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use debuglet_proto::v1::{Container, ContainerState, PodSandbox, PodSandboxState};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::static_manifests::StaticManifests;
use crate::pod::discovered::identity::ListedSandbox;
use crate::pod::discovered::{DiscoveredPod, Owner, discover};
use crate::pod::leftover::Leftover;
use crate::runtime::client::Runtime;
use crate::runtime::error::RuntimeError;
use crate::runtime::foreign;
use crate::runtime::news::{Awaited, Listed, News};
use crate::runtime::observe::{is_our_sandbox, is_ours};
use crate::runtime::own::{own_containers, own_sandboxes};
use crate::store::Store;
use crate::store::discovered::Discovered;
use crate::write_threads::NotRun;

/// How long nothing may have happened before the runtime is looked at all the same: the net under the events.
const RE_LIST: Duration = Duration::from_secs(300);
/// How long after an event that the lists do not show yet they are looked at again; doubles.
const SETTLE_FIRST: Duration = Duration::from_millis(5);
/// The longest of these waits: a busy runtime may take seconds from the start of a sandbox's process to its being ready.
const SETTLE_LONGEST: Duration = Duration::from_secs(5);
/// How often, which is for about a minute: what is not in the lists then was not CRI's, or is gone again.
const SETTLE_TRIES: u32 = 20;
/// How long a runtime that does not answer is left alone.
const RETRY: Duration = Duration::from_secs(5);

/// How many pods are asked for in detail at the same time.
const DETAILS_AT_ONCE: usize = 16;

/// How a pod stood in the lists: when this changes it is asked for in detail.
type Look = BTreeMap<String, i32>;

/// The search for somebody else's pods.
struct Discovery {
    runtime: Runtime,
    store: Arc<Store>,
    /// By UID, the last look at each pod that is shown.
    looks: HashMap<String, Look>,
    awaited: Awaited,
    tries: u32,
    /// What debuglet made and has no record of, at the last look.
    leftovers: Vec<Leftover>,
    /// Whether the last look could not see all of what is new.
    broken: bool,
    /// Whether new pods are looked for.
    all: bool,
    static_manifests: StaticManifests,
}

/// Keeps the store's discovered pods what the runtime shows, until `shutdown`, and reports what debuglet itself made and has
/// no record of.
///
/// Only of the pods that it has already, unless `all` are looked for: what was debugged before the search was turned off
/// goes when its pod goes.
pub(crate) async fn run(
    runtime: Runtime,
    store: Arc<Store>,
    news: Arc<News>,
    all: bool,
    static_manifests: StaticManifests,
    shutdown: CancellationToken,
) {
    let mut versions = store.versions();
    let mut discovery = Discovery {
        runtime,
        store,
        looks: HashMap::new(),
        awaited: Awaited::default(),
        tries: 0,
        leftovers: Vec::new(),
        broken: false,
        all,
        static_manifests,
    };
    shutdown
        .run_until_cancelled(async {
            loop {
                versions.mark_unchanged();
                let next = Instant::now() + discovery.turn(news.take()).await;
                loop {
                    tokio::select! {
                        () = news.wait() => break,
                        () = sleep_until(next) => break,
                        // The manifest of a pod may come back, and with it the pod's UID.
                        changed = versions.changed(), if !discovery.leftovers.is_empty() => {
                            if changed.is_err() {
                                return;
                            }
                            discovery.judge_leftovers_again();
                        }
                    }
                }
            }
        })
        .await;
}

impl Discovery {
    /// One look, and when the next one is due even if nothing happens.
    async fn turn(&mut self, news: Awaited) -> Duration {
        if news.any {
            self.tries = 0;
        }
        self.awaited.extend(news);
        match self.look().await {
            Ok(()) => {}
            Err(error) => {
                if !error.is_logged() {
                    tracing::warn!("somebody else's pods cannot be looked at: {error}");
                }
                return RETRY;
            }
        }
        if self.broken {
            return RETRY;
        }
        if self.awaited.is_settled() {
            return RE_LIST;
        }
        if self.tries == SETTLE_TRIES {
            self.awaited = Awaited::default();
            return RE_LIST;
        }
        self.tries += 1;
        (SETTLE_FIRST * 2_u32.pow(self.tries - 1)).min(SETTLE_LONGEST)
    }

    async fn look(&mut self) -> Result<(), RuntimeError> {
        self.broken = false;
        let sandboxes = self.runtime.list_sandboxes().await?;
        let containers = self.runtime.list_all_containers().await?;
        self.settle(&sandboxes, &containers);
        self.look_for_leftovers(&sandboxes, &containers).await?;

        let is_external = |sandbox: &&PodSandbox| !is_our_sandbox(&sandbox.labels, &sandbox.annotations);
        let external: Vec<&PodSandbox> = sandboxes.iter().filter(is_external).collect();
        let described: Vec<ListedSandbox> = external.iter().map(|sandbox| foreign::listed(sandbox)).collect();
        let uids = self.store.external_uids(&described);
        // Of several ready ones the highest attempt counts.
        let mut newest: BTreeMap<String, (&ListedSandbox, &PodSandbox)> = BTreeMap::new();
        for ((uid, described), sandbox) in uids.iter().zip(&described).zip(external) {
            let shown = newest.get(uid).map(|(shown, _)| shown.rank());
            if described.ready && shown.is_none_or(|shown| described.rank() > shown) {
                newest.insert(uid.clone(), (described, sandbox));
            }
        }
        let listed = uids.into_iter().collect();
        let mut changed = Vec::new();
        let mut ready = BTreeSet::new();
        let mut looks = HashMap::new();
        newest.retain(|uid, _| self.all || self.store.is_foreign(uid));
        let newest: Vec<(String, Look, Option<String>)> = newest
            .into_iter()
            .map(|(uid, (_, sandbox))| {
                let look = look_of(sandbox, &containers);
                // One that is here no more was buried since it was shown.
                let asked = self.looks.get(&uid) != Some(&look) || !self.store.has_pod(&uid);
                (uid, look, asked.then(|| sandbox.id.clone()))
            })
            .collect();
        let asked = newest
            .iter()
            .filter_map(|(uid, _, id)| Some((id.clone()?, uid.clone())));
        let mut details = self.details(&asked.collect::<Vec<_>>()).await;
        for (uid, look, id) in newest {
            let detail = id.and_then(|id| details.remove(&id));
            match detail {
                Some(Ok(Some((pod, complete)))) => {
                    changed.push(pod);
                    if !complete {
                        self.broken = true;
                        ready.insert(uid);
                        continue;
                    }
                }
                None => {}
                // Gone since it was listed.
                Some(Ok(None)) => continue,
                Some(Err(error)) => {
                    // One that is broken must not hide the others.
                    if !error.is_logged() {
                        tracing::warn!("{error}");
                    }
                    self.broken = true;
                    if let Some(look) = self.looks.remove(&uid) {
                        looks.insert(uid.clone(), look);
                        ready.insert(uid);
                    }
                    continue;
                }
            }
            looks.insert(uid.clone(), look);
            ready.insert(uid);
        }
        self.looks = looks;
        let applied = self
            .store
            .apply_discovered(Discovered {
                changed,
                ready,
                listed,
                complete: self.all,
            })
            .await;
        match applied {
            Ok(refused) => self.looks.retain(|uid, _| !refused.contains(uid)),
            // All of them are looked at anew.
            Err(NotRun::Panicked { .. }) => {
                self.looks.clear();
                self.broken = true;
            }
            Err(NotRun::ShuttingDown) => {}
        }
        Ok(())
    }

    async fn look_for_leftovers(
        &mut self,
        sandboxes: &[PodSandbox],
        containers: &[Container],
    ) -> Result<(), RuntimeError> {
        let mut found = self
            .store
            .left_over(own_sandboxes(sandboxes), own_containers(containers));
        let is_among = |all: &[Leftover], one: &Leftover| all.iter().any(|other| other.id() == one.id());
        if found.iter().any(|leftover| !is_among(&self.leftovers, leftover)) {
            // A pod may have been removed and forgotten since the lists were made: then the runtime has it no more.
            let sandboxes = self.runtime.list_sandboxes().await?;
            let containers = self.runtime.list_all_containers().await?;
            let again = self
                .store
                .left_over(own_sandboxes(&sandboxes), own_containers(&containers));
            found.retain(|leftover| is_among(&again, leftover));
        }
        self.set_leftovers(found);
        Ok(())
    }

    /// What of the leftovers is one still, as far as the store says.
    fn judge_leftovers_again(&mut self) {
        let (mut sandboxes, mut containers) = (Vec::new(), Vec::new());
        for leftover in self.leftovers.clone() {
            match leftover {
                Leftover::Sandbox {
                    sandbox,
                    containers: inside,
                } => {
                    sandboxes.push(sandbox);
                    containers.extend(inside);
                }
                Leftover::Container(container) => containers.push(container),
            }
        }
        self.set_leftovers(self.store.left_over(sandboxes, containers));
    }

    fn set_leftovers(&mut self, found: Vec<Leftover>) {
        if !found.is_empty() || !self.leftovers.is_empty() {
            self.store.report_leftovers(&self.leftovers, &found);
        }
        self.leftovers = found;
    }

    /// The sandboxes of these ids in detail, each with the UID that its pod has here. One that the runtime does not answer
    /// for keeps few others waiting.
    async fn details(
        &self,
        sandboxes: &[(String, String)],
    ) -> HashMap<String, Result<Option<(DiscoveredPod, bool)>, RuntimeError>> {
        let mut details = HashMap::new();
        for some in sandboxes.chunks(DETAILS_AT_ONCE) {
            let asked = join_all(some.iter().map(|(id, uid)| self.detail(id, uid))).await;
            details.extend(some.iter().map(|(id, _)| id.clone()).zip(asked));
        }
        details
    }

    /// The pod of this sandbox, under the UID that it has here, and whether all of it could be read; `None` if it is gone.
    async fn detail(
        &self,
        sandbox_id: &str,
        uid: &str,
    ) -> Result<Option<(DiscoveredPod, bool)>, RuntimeError> {
        let Some(sandbox) = self.runtime.foreign_sandbox(sandbox_id).await? else {
            return Ok(None);
        };
        let (containers, unread) = self.runtime.foreign_containers(sandbox_id).await?;
        let node_name = self.store.node_name();
        let mut found = discover(&sandbox, &containers, node_name);
        found.pod.metadata.uid = Some(uid.to_owned());
        if found.owner == Owner::StaticPod {
            found.manifest = self.static_manifests.of(&found.pod, node_name).await;
        }
        Ok(Some((found, unread.is_none())))
    }

    /// Stops waiting for what the lists show by now.
    fn settle(&mut self, sandboxes: &[PodSandbox], containers: &[Container]) {
        let sandboxes = sandboxes.iter().map(|sandbox| {
            let listed = match sandbox.state() {
                PodSandboxState::SandboxReady => Listed::Runs,
                PodSandboxState::SandboxNotready => Listed::NotReady,
            };
            (sandbox.id.as_str(), listed)
        });
        let containers = containers.iter().map(|container| {
            let listed = match container.state() {
                ContainerState::ContainerCreated => Listed::Created,
                ContainerState::ContainerRunning => Listed::Runs,
                ContainerState::ContainerExited | ContainerState::ContainerUnknown => Listed::Exited,
            };
            (container.id.as_str(), listed)
        });
        self.awaited.settle(&sandboxes.chain(containers).collect());
    }
}

/// How a pod stands in the lists: its sandbox, and the containers in it that are not ours, with their states.
fn look_of(sandbox: &PodSandbox, containers: &[Container]) -> Look {
    let in_it =
        |container: &&Container| container.pod_sandbox_id == sandbox.id && !is_ours(&container.labels);
    let mut look: Look = containers
        .iter()
        .filter(in_it)
        .map(|container| (container.id.clone(), container.state))
        .collect();
    look.insert(sandbox.id.clone(), sandbox.state);
    look
}
