//! The pods of this node: what every source says of them merged, what the workers report, the history that
//! watches read, and (in [`disk`]) what must outlive the process.
//!
//! Three sides use it: sources say which pods there are ([`manifests`]), the API reads pods and writes them
//! ([`create`], [`update`], [`delete`]) and their ephemeral containers ([`accept`]), and a pod's worker reads what
//! is wanted and reports what is ([`progress`]).

pub(crate) mod accept;
pub(crate) mod changes;
pub(crate) mod claim;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod discovered;
pub(crate) mod disk;
pub(crate) mod earlier_logs;
pub(crate) mod events;
mod evict;
pub(crate) mod kubernetes;
pub(crate) mod launch_metrics;
mod leftovers;
pub(crate) mod manifests;
mod namespaces;
mod node;
pub(crate) mod node_report;
mod pod_table;
pub(crate) mod problems;
pub(crate) mod progress;
pub(crate) mod reported;
pub(crate) mod served;
pub(crate) mod take_over;
pub(crate) mod union;
pub(crate) mod unwritten;
pub(crate) mod update;
pub(crate) mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::{EphemeralContainer, Node as NodeObject, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::{Notify, watch};

use crate::pod::asked_by;
use crate::pod::copied_mounts;
use crate::pod::deletion::Removal;
use crate::pod::discovered::Owner;
use crate::pod::discovered::enriched::{Known, SPEC_FROM_ANNOTATION};
use crate::pod::discovered::identity::Bearer;
use crate::pod::discovered::resolved::without_resolved;
use crate::pod::eviction::Eviction;
use crate::pod::identity::PodKey;
use crate::pod::launch::Launch;
use crate::pod::node::Node;
use crate::pod::record::{Phase, Record};
use crate::pod::source::Source;
use crate::pod::status;
use crate::pod::visibility::{Audience, Visibility};
use crate::write_threads::WriteThreads;
use changes::{Change, ChangeKind, History};
use disk::{Disk, KeptPod};
use events::{Events, Happening};
use launch_metrics::{LaunchClock, LaunchMetrics};
use namespaces::{Namespaces, Since};
use node_report::NodeReport;
use pod_table::PodTable;
use problems::Problems;
use unwritten::Unwritten;
use views::Views;

/// Whether a write is done, or only judged and answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DryRun {
    /// It is done, and durable before the answer.
    No,
    /// The answer is what it would be, and nothing is kept.
    All,
}

/// The pods of this node. Shared by all; nothing in it waits while it is locked.
#[derive(Debug)]
pub(crate) struct Store {
    node_name: String,
    disk: Disk,
    inner: Mutex<Inner>,
    /// The newest version, for those who wait for a change of anything but events.
    versions: watch::Sender<u64>,
    /// The newest version, for those who wait for events.
    event_versions: Arc<watch::Sender<u64>>,
    /// See [`Inner::name_freed`].
    name_freed: Arc<Notify>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pods: PodTable,
    /// Notified when a name that a manifest may have had to wait for becomes free: [`Inner::publish_always`] and
    /// `claim::Claim` do so.
    name_freed: Arc<Notify>,
    /// Namespace and name of the pods that are being written to the disk: nobody else may take them meanwhile.
    claims: BTreeSet<(String, String)>,
    /// UIDs that were used by pods that are gone.
    tombstones: BTreeMap<String, Tombstone>,
    /// Records whose pod could not be read at start, by its UID, until a source names the pod again.
    orphans: BTreeMap<String, Orphans>,
    /// Whether the pods that somebody else runs are all here.
    discovered: bool,
    /// The pods of this node as the API server knows them, by namespace and name: no pod there takes another's place,
    /// whatever it says of itself.
    kubernetes: BTreeMap<(String, String), Arc<Pod>>,
    /// Since when the API server has not been heard of; none while it is.
    kubernetes_away: Option<Timestamp>,
    history: History,
    events: Events,
    /// [`Store::event_versions`], for the events that become visible or hidden with their pod.
    event_versions: Arc<watch::Sender<u64>>,
    launch_clock: LaunchClock,
    namespaces: Namespaces,
    report: NodeReport,
    problems: Problems,
    facts: Node,
    node: Arc<NodeObject>,
}

/// What is remembered of a pod that is gone, beside what is on disk.
#[derive(Debug)]
struct Tombstone {
    since: Timestamp,
    bearer: Bearer,
}

impl Tombstone {
    fn of(kept: &KeptPod, since: Timestamp) -> Tombstone {
        Tombstone {
            since,
            bearer: bearer(&PodKey::of(&kept.pod), &kept.source),
        }
    }
}

/// Whose UID it is that the pod of this key has.
fn bearer(key: &PodKey, source: &Source) -> Bearer {
    Bearer {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        external: matches!(source, Source::Discovered(_)),
    }
}

/// The records of a pod that cannot be read.
#[derive(Debug)]
struct Orphans {
    records: Vec<Record>,
    /// When its folder last changed.
    since: Timestamp,
}

/// What a pod is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    /// It runs.
    Running,
    /// It goes.
    Removed(Removal),
    /// It was never started: it needs what is not supported, or is not valid.
    Refused { reason: String, message: String },
}

#[derive(Clone, Debug)]
struct Entry {
    key: PodKey,
    /// As accepted, with defaults, without ephemeral containers.
    pod: Arc<Pod>,
    /// What is known of a discovered pod, and by whom.
    known_by: Known,
    source: Source,
    /// See [`disk::KeptPod::incarnation`].
    incarnation: u64,
    wanted: Wanted,
    /// Why all of it has to end though it is wanted, if so.
    evicted: Option<Eviction>,
    /// In the order in which they were accepted.
    records: Vec<Record>,
    status: PodStatus,
    launches: BTreeMap<String, Launch>,
    /// The ephemeral containers whose name somebody else's container has.
    foreign: BTreeSet<String>,
    /// As it was published last.
    served: Views<Pod>,
    /// What users of the cluster see of it, as of then.
    visibility: Visibility,
    /// Whether what is served is more than a guess: not so for a pod that was read from disk at start, until its
    /// worker has looked at it.
    known: bool,
    /// Wakes the pod's worker; wakes that come together are one.
    wake: Arc<Notify>,
    /// Held while the pod's files are written, in threads that may block: writes of one pod never overtake
    /// each other.
    writing: Arc<Mutex<()>>,
    /// What the disk lacks of it, or may lack after a power cut.
    unwritten: Unwritten,
}

impl Entry {
    /// A pod of which nothing has been seen yet; its UID is in its metadata.
    fn new(pod: Pod, source: Source, incarnation: u64, wanted: Wanted, records: Vec<Record>) -> Entry {
        let key = PodKey::of(&pod);
        let status = match &wanted {
            Wanted::Refused { reason, message } => status::refused(&pod, reason, message, Timestamp::now()),
            _ => PodStatus {
                phase: Some("Pending".to_owned()),
                ..PodStatus::default()
            },
        };
        let launches = records
            .iter()
            .map(|record| (record.spec.name.clone(), first_launch(record)))
            .collect();
        Entry {
            key,
            pod: Arc::new(pod),
            known_by: Known::default(),
            source,
            incarnation,
            wanted,
            evicted: None,
            records,
            status,
            launches,
            foreign: BTreeSet::new(),
            served: Views::default(),
            visibility: Visibility::Hidden,
            known: true,
            wake: Arc::new(Notify::new()),
            writing: Arc::default(),
            unwritten: Unwritten::default(),
        }
    }

    /// What the API shows of the pod under `version`. Where users of the cluster see it and nothing of what they see has
    /// changed, they see what they saw.
    fn serve(&self, version: u64) -> Views<Pod> {
        let whole = Arc::new(self.rendered(Audience::Node, version));
        let Visibility::Visible { without } = self.visible_now() else {
            return Views::different(whole, None);
        };
        if without.is_empty() {
            return Views::same(whole);
        }
        let mut pod = self.rendered(Audience::Cluster, version);
        let before = self.served.of(Audience::Cluster);
        if let Some(before) = before {
            pod.metadata
                .resource_version
                .clone_from(&before.metadata.resource_version);
            if pod == **before {
                return Views::different(whole, Some(Arc::clone(before)));
            }
            pod.metadata.resource_version = Some(version.to_string());
        }
        Views::different(whole, Some(Arc::new(pod)))
    }

    /// What users of the cluster may see of it, as it is.
    fn visible_now(&self) -> Visibility {
        Visibility::of(&self.source, self.known_by.kubernetes.as_deref(), &self.records)
    }

    /// The version at which `audience` sees it; none where it does not see it.
    fn version_for(&self, audience: Audience) -> Option<&str> {
        self.served.of(audience)?.metadata.resource_version.as_deref()
    }

    /// The pod as `audience` sees it.
    fn rendered(&self, audience: Audience, version: u64) -> Pod {
        let visibility = self.visible_now();
        let visible = |record: &&Record| visibility.shows_record(audience, &record.spec.name);
        let mut pod = Pod::clone(&self.pod);
        let metadata = &mut pod.metadata;
        metadata.resource_version = Some(version.to_string());
        self.source.annotate(metadata);
        if self.is_foreign() {
            let annotations = metadata.annotations.get_or_insert_default();
            annotations.insert(SPEC_FROM_ANNOTATION.to_owned(), self.known_by.spec_from());
        }
        copied_mounts::annotate(metadata, self.records.iter().filter(visible));
        asked_by::annotate(metadata, self.records.iter().filter(visible));
        if let Wanted::Removed(removal) = &self.wanted {
            metadata.deletion_timestamp = Some(Time(removal.deadline()));
            metadata.deletion_grace_period_seconds = Some(removal.grace_seconds);
        }
        let containers = self.ephemeral_containers(audience, &visibility);
        if !containers.is_empty() {
            pod.spec.get_or_insert_default().ephemeral_containers = Some(containers);
        }
        let mut status = self.status.clone();
        if let Some(statuses) = &mut status.ephemeral_container_statuses {
            statuses.retain(|status| visibility.shows_record(audience, &status.name));
        }
        status
            .ephemeral_container_statuses
            .take_if(|statuses| statuses.is_empty());
        pod.status = Some(status);
        pod
    }

    /// The ephemeral containers that `audience` sees: those that are recorded here, and those that only the API server has.
    /// Under the name of a record that is hidden, the latter's own counts.
    fn ephemeral_containers(&self, audience: Audience, visibility: &Visibility) -> Vec<EphemeralContainer> {
        let visible = self
            .records
            .iter()
            .filter(|record| visibility.shows_record(audience, &record.spec.name));
        let mut containers: Vec<_> = visible.map(|record| record.spec.clone()).collect();
        let others = self.asked_of_api_server().filter(|container| {
            let mut records = self.records.iter();
            records.all(|record| {
                record.spec.name != container.name || !visibility.shows_record(audience, &record.spec.name)
            })
        });
        containers.extend(others.cloned());
        containers
    }

    /// Whether its spec has values that a kubelet took from Secrets: a pod of an API server of which only the runtime
    /// tells. A static pod can refer to none.
    fn shows_resolved_values(&self) -> bool {
        self.source == Source::Discovered(Owner::Kubelet) && self.known_by.kubernetes.is_none()
    }

    /// Whether somebody else runs it.
    fn is_foreign(&self) -> bool {
        matches!(self.source, Source::Discovered(_))
    }

    /// How it is being removed, if it is.
    fn removal(&self) -> Option<Removal> {
        match self.wanted {
            Wanted::Removed(removal) => Some(removal),
            _ => None,
        }
    }

    /// Whether it is served no more, though not all of it is gone from the runtime: as in Kubernetes, who deletes a
    /// pod without any grace does not wait for its end. Another pod can have its name, and starts after that end.
    fn is_deleted(&self) -> bool {
        self.source == Source::Api && self.removal().is_some_and(|removal| removal.grace_seconds == 0)
    }

    /// What is kept of it on disk.
    fn kept(&self) -> KeptPod {
        let pod = if self.shows_resolved_values() {
            without_resolved(&self.pod)
        } else {
            Pod::clone(&self.pod)
        };
        KeptPod {
            pod,
            source: self.source.clone(),
            incarnation: self.incarnation,
            // What goes from the folder goes because its file says so, also after a restart.
            removal: self.removal().filter(|_| self.source == Source::Api),
            evicted: self.evicted.clone(),
            gone_since: None,
        }
    }
}

impl Store {
    /// A store on the state folder that `disk` holds, with everything that was kept there. Returns, beside it,
    /// what could not be read back, in words.
    pub(crate) fn load(node_name: &str, disk: Disk) -> Result<(Arc<Store>, Vec<String>), disk::DiskError> {
        let now = Timestamp::now();
        let (version, mut problems) = disk.first_version(now.as_microsecond().unsigned_abs());
        let mut history = History::starting_at(version);
        let event_versions = Arc::new(watch::Sender::new(version));
        let mut inner = Inner {
            pods: PodTable::default(),
            name_freed: Arc::default(),
            claims: BTreeSet::new(),
            tombstones: BTreeMap::new(),
            orphans: BTreeMap::new(),
            discovered: false,
            kubernetes: BTreeMap::new(),
            kubernetes_away: None,
            namespaces: Namespaces::new(node_name, Time(now), &mut history),
            history,
            events: Events::default(),
            event_versions: Arc::clone(&event_versions),
            launch_clock: LaunchClock::default(),
            report: NodeReport {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                node_name: node_name.to_owned(),
                ..NodeReport::default()
            },
            problems: Problems::default(),
            facts: Node {
                name: node_name.to_owned(),
                ..Node::default()
            },
            node: Arc::default(),
        };
        inner.publish_node();
        for loaded in disk.load()? {
            problems.extend(loaded.problems);
            match loaded.kept {
                Some(kept) if kept.gone_since.is_none() => {
                    let wanted = kept.removal.map_or(Wanted::Running, Wanted::Removed);
                    let mut entry =
                        Entry::new(kept.pod, kept.source, kept.incarnation, wanted, loaded.records);
                    entry.known = false;
                    entry.evicted = kept.evicted;
                    if !loaded.synced {
                        entry.all_unwritten();
                    }
                    if entry.is_foreign() {
                        entry.known_by = Known::kept(Arc::clone(&entry.pod));
                    }
                    inner.insert(entry);
                }
                Some(kept) => {
                    let since = kept.gone_since.unwrap_or(Timestamp::UNIX_EPOCH);
                    inner.tombstones.insert(loaded.uid, Tombstone::of(&kept, since));
                }
                None => {
                    inner.orphans.insert(
                        loaded.uid,
                        Orphans {
                            records: loaded.records,
                            since: loaded.changed,
                        },
                    );
                }
            }
        }
        let version = inner.history.version();
        let name_freed = Arc::clone(&inner.name_freed);
        let store = Store {
            node_name: node_name.to_owned(),
            disk,
            inner: Mutex::new(inner),
            versions: watch::Sender::new(version),
            event_versions,
            name_freed,
        };
        let store = Arc::new(store);
        store.write_threads().observe_panics(Arc::downgrade(&store));
        store.expire_tombstones();
        store.expire_orphans();
        store.report_orphans();
        Ok((store, problems))
    }

    /// The node whose pods these are.
    pub(crate) fn node_name(&self) -> &str {
        &self.node_name
    }

    /// The folder in which everything of one pod lies.
    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.disk.pod_dir(uid)
    }

    /// The threads on which everything that writes runs, so that nothing else holds it up.
    pub(crate) fn write_threads(&self) -> &Arc<WriteThreads> {
        self.disk.threads()
    }

    /// The pod of this name as `audience` sees it: of two that it sees, the newest that is not on its way out.
    pub(crate) fn pod_for(&self, audience: Audience, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let inner = self.lock();
        let entry = inner.seen_by(audience, namespace, name)?;
        entry.served.of(audience).cloned()
    }

    /// The same, as clients of the node see it.
    #[cfg(test)]
    pub(crate) fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.pod_for(Audience::Node, namespace, name)
    }

    /// All pods by namespace and name, and the version at which they are this.
    #[cfg(test)]
    pub(crate) fn pods(&self) -> (u64, Vec<Arc<Pod>>) {
        self.list(Audience::Node)
    }

    /// Returns once every pod that was read from disk at start was looked at.
    pub(crate) async fn first_look(&self) {
        let mut versions = self.versions();
        while !self.lock().pods.values().all(|entry| entry.known) {
            if versions.changed().await.is_err() {
                return;
            }
        }
    }

    /// The newest version; it also wakes when a launch has moved on.
    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.versions.subscribe()
    }

    /// How far the launch of an ephemeral container has come, where `audience` sees it.
    pub(crate) fn launch(
        &self,
        audience: Audience,
        namespace: &str,
        pod: &str,
        container: &str,
    ) -> Option<Launch> {
        let inner = self.lock();
        let entry = inner.seen_by(audience, namespace, pod)?;
        let launch = entry.launches.get(container);
        launch
            .filter(|_| entry.visibility.shows_record(audience, container))
            .cloned()
    }

    /// Where the log of an ephemeral container is, as its record says; none where nothing was created, or not by this
    /// version.
    pub(crate) fn log_path(&self, uid: &str, container: &str) -> Option<PathBuf> {
        let inner = self.lock();
        let records = &inner.pods.get(uid)?.records;
        let record = records.iter().find(|record| record.spec.name == container)?;
        record.created()?.log_path.clone()
    }

    /// How launches came out.
    pub(crate) fn launch_metrics(&self) -> LaunchMetrics {
        self.lock().launch_clock.metrics()
    }

    /// What the node has and lacks.
    pub(crate) fn node_report(&self) -> NodeReport {
        let inner = self.lock();
        NodeReport {
            problems: inner.problems.listed(),
            ..inner.report.clone()
        }
    }

    /// Records an event of the pod with this UID; nothing where the pod is gone.
    pub(crate) fn record_event(&self, uid: &str, happening: Happening) {
        let version = {
            let mut inner = self.lock();
            let inner = &mut *inner;
            let Some(entry) = inner.pods.get(uid) else { return };
            let pod = &entry.pod.metadata;
            let now = Timestamp::now();
            inner.events.record(
                pod,
                &entry.visibility,
                happening,
                &self.node_name,
                now,
                &mut inner.history,
            );
            inner.history.version()
        };
        announce(&self.event_versions, version);
    }

    /// The UID of the pod that `audience` means by its name, and what is held while its files are written.
    fn to_write(&self, audience: Audience, namespace: &str, name: &str) -> Option<(String, Arc<Mutex<()>>)> {
        let inner = self.lock();
        let entry = inner.seen_by(audience, namespace, name)?;
        Some((entry.key.uid.clone(), Arc::clone(&entry.writing)))
    }

    /// What is held while the files of the pod with this UID are written.
    fn writing(&self, uid: &str) -> Option<Arc<Mutex<()>>> {
        self.lock().pods.get(uid).map(|entry| Arc::clone(&entry.writing))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing that runs under the lock can leave it half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes everyone who waits for a new version, or for a launch to move on.
    fn announce(&self, version: u64) {
        announce(&self.versions, version);
    }
}

/// Wakes those who wait for a version. Who announces late does not take back a newer one.
fn announce(versions: &watch::Sender<u64>, version: u64) {
    versions.send_modify(|newest| *newest = version.max(*newest));
}

impl Inner {
    /// The pod with this UID, unless it went before `writing` was held: one that came back has a place of its own.
    fn held(&self, uid: &str, writing: &Arc<Mutex<()>>) -> Option<&Entry> {
        self.pods
            .get(uid)
            .filter(|entry| Arc::ptr_eq(&entry.writing, writing))
    }

    fn by_name(&self, namespace: &str, name: &str) -> Option<&Entry> {
        self.newest(namespace, name, |_| true)
    }

    /// The same of the pods that `audience` sees.
    fn seen_by(&self, audience: Audience, namespace: &str, name: &str) -> Option<&Entry> {
        self.newest(namespace, name, |entry| entry.visibility.shows_pod(audience))
    }

    /// The same of the pods that debuglet runs: somebody else's of that name is another matter.
    fn own_by_name(&self, namespace: &str, name: &str) -> Option<&Entry> {
        self.newest(namespace, name, |entry| !entry.is_foreign())
    }

    fn newest(&self, namespace: &str, name: &str, counts: impl Fn(&Entry) -> bool) -> Option<&Entry> {
        self.pods
            .named(namespace, name)
            .filter(|entry| !entry.is_deleted())
            .filter(|entry| counts(entry))
            .max_by_key(|entry| {
                let stays = entry.removal().is_none();
                (
                    stays,
                    // Of two that stay, ours: its name was there to be asked for.
                    !entry.is_foreign(),
                    entry.pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
                )
            })
    }

    /// Adds a pod.
    fn insert(&mut self, entry: Entry) {
        let uid = entry.key.uid.clone();
        self.pods.insert(entry);
        self.publish(&uid, ChangeKind::Added);
    }

    /// Gives the pod a new version, and everyone who watches its new state; its worker looks at it anew. The end of a
    /// pod that was deleted without grace was told when it was deleted.
    fn publish(&mut self, uid: &str, kind: ChangeKind) -> u64 {
        let Some(entry) = self.pods.get_mut(uid) else {
            return self.history.version();
        };
        if entry.is_deleted() {
            return self.history.version();
        }
        self.publish_always(uid, kind)
    }

    fn publish_always(&mut self, uid: &str, kind: ChangeKind) -> u64 {
        let Some(entry) = self.pods.get_mut(uid) else {
            return self.history.version();
        };
        let key = entry.key.clone();
        let visibility = entry.visible_now();
        let before = std::mem::replace(&mut entry.visibility, visibility.clone());
        let visible = visibility.shows_pod(Audience::Cluster);
        let shown = |audience| self.namespaces.shows(audience, &key.namespace);
        let is_counted = shown(Audience::Node) && (shown(Audience::Cluster) || !visible);
        let leaves_users = before.shows_pod(Audience::Cluster) && !visible;
        if kind != ChangeKind::Deleted && (!is_counted || leaves_users) {
            self.count_namespace(&key.namespace, None);
        }
        let version = self.history.next_version();
        let Some(entry) = self.pods.get_mut(uid) else {
            return version;
        };
        let served = entry.serve(version);
        let previous = std::mem::replace(&mut entry.served, served.clone());
        let previous = (kind != ChangeKind::Added).then_some(previous);
        let leaves = |views: &Views<Pod>| views.whole().metadata.deletion_timestamp.is_some();
        let begins_to_leave = leaves(&served) && !previous.as_ref().is_some_and(leaves);
        // A manifest never waits for another manifest's pod.
        let is_waited_for = entry.source.manifest().is_none();
        if is_waited_for && (begins_to_leave || kind == ChangeKind::Deleted) {
            self.name_freed.notify_one();
        }
        let change = Change::new(version, kind, previous, served);
        self.history.pods.push(change);
        if kind == ChangeKind::Added || visibility != before {
            let version = self.history.version();
            self.events.show(uid, &visibility, &mut self.history);
            if self.history.version() != version {
                announce(&self.event_versions, self.history.version());
            }
        }
        if kind == ChangeKind::Deleted {
            self.count_namespace(&key.namespace, Some(uid));
            self.after_deletion(&key);
        }
        self.history.version()
    }

    /// Takes note of since when there are pods in a namespace, and for whom; `gone` is the UID of one that has just gone.
    fn count_namespace(&mut self, namespace: &str, gone: Option<&str>) {
        let in_it = self.pods.of_namespace(namespace);
        let here = in_it.filter(|entry| !entry.is_deleted() && Some(entry.key.uid.as_str()) != gone);
        let mut since = Since::default();
        for entry in here {
            let created = entry.pod.metadata.creation_timestamp.clone();
            let created = created.unwrap_or_else(|| Time(Timestamp::now()));
            let earlier = |since: &Option<Time>| since.as_ref().is_none_or(|since| created.0 < since.0);
            if earlier(&since.any) {
                since.any = Some(created.clone());
            }
            if entry.visibility.shows_pod(Audience::Cluster) && earlier(&since.visible) {
                since.visible = Some(created);
            }
        }
        self.namespaces.set(namespace, since, &mut self.history);
    }

    /// What the end of a pod means to another that has had its name already: a client that keeps pods by name has just
    /// dropped that one too, so it is told of it once more.
    fn after_deletion(&mut self, gone: &PodKey) {
        let is_other = |entry: &&Entry| entry.key.uid != gone.uid && !entry.is_deleted();
        let namesake = self.pods.named(&gone.namespace, &gone.name).find(is_other);
        if let Some(namesake) = namesake.map(|entry| entry.key.uid.clone()) {
            self.publish(&namesake, ChangeKind::Modified);
        }
    }
}

/// Where a launch stands before its worker has said anything.
fn first_launch(record: &Record) -> Launch {
    let mut launch = Launch::accepted(&record.spec.name);
    if let Phase::Ended { terminated, .. } = &record.phase {
        launch.end(terminated);
    }
    launch
}

#[cfg(test)]
mod till;
#[cfg(test)]
mod visibility_tests;
#[cfg(test)]
mod writes_tests;
