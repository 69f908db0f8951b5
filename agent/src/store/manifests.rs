//! What the manifests folder says, merged into the store: which pods are new, which go, which stay as they
//! are, and which ephemeral containers were added.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use k8s_openapi::api::core::v1::{EphemeralContainer, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::changes::ChangeKind;
use super::claim::Holder;
use super::disk::{DiskError, KeptPod};
use super::earlier_logs;
use super::events::{Happening, Severity};
use super::node_report::ManifestProblem;
use super::{Entry, Inner, Store, Wanted};
use crate::pod::asked_by::{AskedBy, WayIn};
use crate::pod::container_path::ContainerPath;
use crate::pod::deletion::Removal;
use crate::pod::field_error::FieldError;
use crate::pod::identity::{ManifestIdentity, PodKey};
use crate::pod::log_names::log_folder;
use crate::pod::plan::grace;
use crate::pod::record::{CreatedContainer, Origin, Phase, Record, next_order};
use crate::pod::same_container::same;
use crate::pod::source::Source;
use crate::pod::{defaults, size, validation};
use crate::untrusted_file::NoAnswer;
use crate::write_threads::NotRun;

/// One pod of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ManifestPod {
    /// The pod as it is written, without defaults.
    pub(crate) pod: Pod,
    /// The document it was read from: what its identity is derived from.
    pub(crate) document: serde_json::Value,
}

/// What one file of the folder holds, or why it cannot be read, in one line.
pub(crate) type ManifestFile = Result<Vec<ManifestPod>, String>;

/// `status.reason` of a pod that breaks a rule.
const INVALID: &str = "Invalid";
/// The same of a pod that is valid and needs what debuglet does not do.
const NOT_SUPPORTED: &str = "NotSupported";

/// Where a first look for logs of an earlier life goes: `log_dir/NAMESPACE_NAME_UID/CONTAINER/`.
#[derive(Clone, Debug)]
pub(crate) struct LogDir(pub(crate) PathBuf);

impl Store {
    /// Makes the pods of the folder what `files` say: every file that is there now, by path.
    ///
    /// What is wrong is reported (node report, events) and changes nothing else: the last good version of a
    /// pod goes on running. Durable on return.
    ///
    /// # Errors
    ///
    /// When the disk refused something, or could not be asked. What it did take is in force, and the next call tries again.
    pub(crate) async fn apply_manifests(
        self: &Arc<Self>,
        files: BTreeMap<PathBuf, ManifestFile>,
        log_dir: LogDir,
    ) -> Result<(), ApplyError> {
        let files = Arc::new(files);
        let mut logged = BTreeMap::new();
        loop {
            let (store, files, log_dir, known) = (
                Arc::clone(self),
                Arc::clone(&files),
                log_dir.clone(),
                logged.clone(),
            );
            let apply = move || Application::new(&store, log_dir, known).apply(&files);
            let (outcome, unknown) = self.write_threads().run(apply).await?;
            outcome?;
            if unknown.is_empty() {
                return Ok(());
            }
            for folder in unknown {
                let are_there = earlier_logs::are_in(&folder).await?;
                logged.insert(folder, are_there);
            }
        }
    }
}

/// Why not all of the manifests folder is in force.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// The disk does not take it.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The write did not come to its end.
    #[error(transparent)]
    NotRun(#[from] NotRun),
    /// Nobody can say whether a container ran before.
    #[error("cannot look for the log of an ephemeral container, which would tell that it ran before: {0}")]
    Logs(#[from] NoAnswer),
}

/// One pass over the folder.
struct Application<'a> {
    store: &'a Store,
    log_dir: LogDir,
    /// Whether there are logs of an earlier life in these folders.
    logged: BTreeMap<PathBuf, bool>,
    /// The folders of which that has to be known before their containers can be accepted.
    unknown: BTreeSet<PathBuf>,
    problems: Vec<ManifestProblem>,
    /// What is told of ephemeral containers, with the UIDs of their pods.
    happenings: Vec<(String, Happening)>,
    /// The UIDs of the pods that stay.
    keep: BTreeSet<String>,
    /// Which file has taken which `namespace/name`.
    taken: BTreeMap<(String, String), String>,
}

impl<'a> Application<'a> {
    fn new(store: &'a Store, log_dir: LogDir, logged: BTreeMap<PathBuf, bool>) -> Application<'a> {
        Application {
            store,
            log_dir,
            logged,
            unknown: BTreeSet::new(),
            problems: Vec::new(),
            happenings: Vec::new(),
            keep: BTreeSet::new(),
            taken: BTreeMap::new(),
        }
    }

    /// Answers also of which folders it has to be known whether there are logs in them: their containers are left out.
    fn apply(
        mut self,
        files: &BTreeMap<PathBuf, ManifestFile>,
    ) -> (Result<(), DiskError>, BTreeSet<PathBuf>) {
        let mut outcome = Ok(());
        // First the files that cannot be read: what runs from them keeps its names.
        for (path, file) in files {
            if let Err(reason) = file {
                self.problem(path, "", reason.clone());
                self.keep_all_of(path);
            }
        }
        // Of two files that name one pod, the one whose pod runs already counts, else the first by name.
        let pods = || {
            files
                .iter()
                .flat_map(|(path, file)| file.iter().flatten().map(move |pod| (path, pod)))
        };
        let (running, others): (Vec<_>, Vec<_>) = pods().partition(|(path, pod)| self.runs_from(path, pod));
        for (path, pod) in running.into_iter().chain(others) {
            if let Err(error) = self.apply_pod(path, pod) {
                self.problem(path, "", error.to_string());
                self.keep_all_of(path);
                outcome = Err(error);
            }
        }
        self.remove_the_rest();
        // What the next pass will tell again is not told twice.
        if self.unknown.is_empty() || outcome.is_err() {
            for (uid, happening) in self.happenings {
                self.store.record_event(&uid, happening);
            }
        }
        self.store
            .report_node(|report| report.manifests.problems = self.problems);
        (outcome, self.unknown)
    }

    /// Keeps the pods of a file, or of all files where the path is that of a folder that cannot be read.
    fn keep_all_of(&mut self, path: &Path) {
        let inner = self.store.lock();
        for (uid, entry) in inner.pods.iter() {
            let of_path = entry
                .source
                .manifest()
                .is_some_and(|manifest| manifest.starts_with(path));
            if of_path && entry.removal().is_none() {
                self.keep.insert(uid.clone());
                let name = (entry.key.namespace.clone(), entry.key.name.clone());
                self.taken.entry(name).or_insert_with(|| file_name(path));
            }
        }
    }

    fn runs_from(&self, path: &Path, manifest: &ManifestPod) -> bool {
        let metadata = &manifest.pod.metadata;
        let namespace = metadata
            .namespace
            .as_deref()
            .filter(|namespace| !namespace.is_empty())
            .unwrap_or("default");
        let inner = self.store.lock();
        inner
            .own_by_name(namespace, metadata.name.as_deref().unwrap_or_default())
            .is_some_and(|entry| entry.source.manifest() == Some(path) && entry.wanted == Wanted::Running)
    }

    fn apply_pod(&mut self, path: &Path, manifest: &ManifestPod) -> Result<(), DiskError> {
        let mut pod = manifest.pod.clone();
        defaults::pod(&mut pod);
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let name = pod.metadata.name.clone().unwrap_or_default();
        let shown = format!("{namespace}/{name}");
        if let Some(first) = self.taken.get(&(namespace.clone(), name.clone())) {
            let message = format!("there is a pod of this name in {first} already; that one counts");
            self.problem(path, &shown, message);
            return Ok(());
        }
        // What is created meanwhile waits until this one is through, and the other way round.
        let _claim = match self.store.claim_for_manifest(&namespace, &name) {
            Ok(claim) => claim,
            Err(holder) => {
                let message = match holder {
                    Holder::Foreign => {
                        "somebody else runs a pod of this name; that one counts while it is there"
                    }
                    _ => "a pod of this name was created over the API; that one counts until it is deleted",
                };
                self.problem(path, &shown, message.to_owned());
                return Ok(());
            }
        };
        self.taken
            .insert((namespace.clone(), name.clone()), file_name(path));

        let ephemeral = pod
            .spec
            .as_mut()
            .and_then(|spec| spec.ephemeral_containers.take())
            .unwrap_or_default();
        let errors = validation::pod(&pod);
        if !errors.is_empty() {
            self.refuse(path, pod, manifest, INVALID, &errors);
            return Ok(());
        }
        let errors = validation::unsupported(&pod);
        if !errors.is_empty() {
            self.refuse(path, pod, manifest, NOT_SUPPORTED, &errors);
            return Ok(());
        }
        let (uid, incarnation) = self.uid(path, &namespace, &name, manifest);
        let known = self
            .store
            .lock()
            .pods
            .get(&uid)
            .is_some_and(|entry| entry.wanted == Wanted::Running);
        if !known {
            self.add(path, pod, &uid, incarnation)?;
        }
        self.keep.insert(uid.clone());
        self.add_ephemeral(path, &shown, &uid, ephemeral)
    }

    /// The UID of this pod and its incarnation: that of the pod that runs, if this is it, else the first that is not
    /// used up. (A tombstone does not last for ever, and a running pod keeps its UID when an older one's has gone.)
    fn uid(&self, path: &Path, namespace: &str, name: &str, manifest: &ManifestPod) -> (String, u64) {
        let file = file_name(path);
        let identity = ManifestIdentity {
            file: &file,
            namespace,
            name,
            document: &manifest.document,
        };
        let uid_of = |incarnation| identity.uid(&self.store.node_name, incarnation);
        let inner = self.store.lock();
        let running = inner
            .own_by_name(namespace, name)
            .filter(|entry| entry.wanted == Wanted::Running);
        if let Some(entry) = running
            && uid_of(entry.incarnation) == entry.key.uid
        {
            return (entry.key.uid.clone(), entry.incarnation);
        }
        let used_up = |uid: &str| {
            inner.tombstones.contains_key(uid)
                || inner.pods.get(uid).is_some_and(|entry| entry.removal().is_some())
        };
        let mut incarnation = 0;
        loop {
            let uid = uid_of(incarnation);
            if !used_up(&uid) {
                return (uid, incarnation);
            }
            incarnation += 1;
        }
    }

    fn add(&mut self, path: &Path, mut pod: Pod, uid: &str, incarnation: u64) -> Result<(), DiskError> {
        pod.spec.get_or_insert_default().node_name = Some(self.store.node_name.clone());
        pod.metadata.uid = Some(uid.to_owned());
        pod.metadata.creation_timestamp = Some(Time(Timestamp::now()));
        let source = Source::Manifest(path.to_path_buf());
        let kept = KeptPod {
            pod: pod.clone(),
            source: source.clone(),
            incarnation,
            removal: None,
            evicted: None,
            gone_since: None,
        };
        let name = |metadata: &Option<String>| metadata.clone().unwrap_or_default();
        self.store
            .write_unwritten_named(&name(&pod.metadata.namespace), &name(&pod.metadata.name))?;
        self.store.disk.write_pod(uid, &kept)?;
        let mut inner = self.store.lock();
        // What it replaces goes in the same breath: the new pod gets no worker before the old one is gone.
        let key = PodKey::of(&pod);
        let replaced: Vec<String> = inner
            .pods
            .named(&key.namespace, &key.name)
            .filter(|entry| entry.wanted == Wanted::Running && !entry.is_foreign())
            .map(|entry| entry.key.uid.clone())
            .collect();
        for old in replaced {
            inner.remove(&old);
        }
        let orphans = inner.orphans.remove(uid).map(|orphans| orphans.records);
        let records = orphans.unwrap_or_default();
        inner.insert(Entry::new(pod, source, incarnation, Wanted::Running, records));
        let version = inner.history.version();
        drop(inner);
        self.store.orphan_found(uid);
        self.store.announce(version);
        Ok(())
    }

    /// A pod that is not valid, or needs what is not supported, and has no good version, is shown as failed.
    fn refuse(
        &mut self,
        path: &Path,
        mut pod: Pod,
        manifest: &ManifestPod,
        reason: &str,
        errors: &[FieldError],
    ) {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let name = pod.metadata.name.clone().unwrap_or_default();
        let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let message = all.join("; ");
        self.problem(path, &format!("{namespace}/{name}"), message.clone());
        let mut inner = self.store.lock();
        let good = inner
            .own_by_name(&namespace, &name)
            .filter(|entry| entry.wanted == Wanted::Running);
        if let Some(entry) = good {
            self.keep.insert(entry.key.uid.clone());
            return;
        }
        let file = file_name(path);
        let identity = ManifestIdentity {
            file: &file,
            namespace: &namespace,
            name: &name,
            document: &manifest.document,
        };
        let uid = identity.uid(&self.store.node_name, 0);
        self.keep.insert(uid.clone());
        if inner.pods.contains_key(&uid) {
            return;
        }
        pod.metadata.uid = Some(uid.clone());
        pod.metadata.creation_timestamp = Some(Time(Timestamp::now()));
        let wanted = Wanted::Refused {
            reason: reason.to_owned(),
            message: message.clone(),
        };
        inner.insert(Entry::new(
            pod,
            Source::Manifest(path.to_path_buf()),
            0,
            wanted,
            Vec::new(),
        ));
        let version = inner.history.version();
        drop(inner);
        self.store.announce(version);
        tracing::warn!(pod = %format!("{namespace}/{name}"), manifest = %file, "the pod is refused: {message}");
        self.store.record_event(
            &uid,
            warning("FailedValidation", format!("the pod is refused: {message}"), None),
        );
    }

    /// Accepts what is new among the manifest's ephemeral containers. What is not valid is left out; what was
    /// accepted stays as it was accepted. Either is reported.
    fn add_ephemeral(
        &mut self,
        path: &Path,
        shown: &str,
        uid: &str,
        mut wanted: Vec<EphemeralContainer>,
    ) -> Result<(), DiskError> {
        wanted.iter_mut().for_each(defaults::ephemeral_container);
        let Some((pod, writing)) = self
            .store
            .lock()
            .pods
            .get(uid)
            .map(|entry| (Arc::clone(&entry.pod), Arc::clone(&entry.writing)))
        else {
            return Ok(());
        };
        let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut tried, version) = {
            let inner = self.store.lock();
            // The pod may have gone before its files could be written.
            let Some(entry) = inner.held(uid, &writing) else {
                return Ok(());
            };
            (entry.clone(), inner.history.version())
        };
        let records = tried.records.clone();
        let mut specs: Vec<EphemeralContainer> = records.iter().map(|record| record.spec.clone()).collect();
        let mut seen = BTreeSet::new();
        let mut new: Vec<Record> = Vec::new();
        for spec in wanted {
            let name = spec.name.clone();
            if !seen.insert(name.clone()) {
                self.ephemeral_problem(path, shown, uid, &name, "it is listed twice; the first counts");
                continue;
            }
            if let Some(accepted) = specs.iter().find(|accepted| accepted.name == name) {
                if !same(accepted, &spec) {
                    let message =
                        "it was changed after it was accepted, which is not possible; it stays as accepted";
                    self.ephemeral_problem(path, shown, uid, &name, message);
                }
                continue;
            }
            specs.push(spec.clone());
            let index = specs.len() - 1;
            let prefix = format!("spec.ephemeralContainers[{index}]");
            let mut errors: Vec<String> = validation::ephemeral_containers(&pod, &specs, &[])
                .into_iter()
                .filter(|error| error.field.starts_with(&prefix))
                .map(|error| {
                    format!(
                        "{}: {}",
                        error.field.trim_start_matches(&prefix).trim_start_matches('.'),
                        error.message
                    )
                })
                .collect();
            if errors.is_empty() {
                let Some(phase) = self.first_phase(&pod, &name) else {
                    continue;
                };
                tried.records.push(Record {
                    spec,
                    order: next_order(&tried.records),
                    origin: Origin::Manifest,
                    asked_by: Some(AskedBy::new("", WayIn::Manifest)),
                    copy_mounts: None,
                    phase,
                });
                if let Err(too_large) = size::judge(tried.serve(version).whole()) {
                    tried.records.pop();
                    errors.push(too_large.to_string());
                }
            }
            if errors.is_empty() {
                new.extend(tried.records.last().cloned());
            } else {
                specs.pop();
                let message = format!("it is left out: {}", errors.join("; "));
                self.ephemeral_problem(path, shown, uid, &name, &message);
            }
        }
        for record in records {
            if record.origin == Origin::Manifest && !seen.contains(&record.spec.name) {
                let message =
                    "it was removed from the manifest after it was accepted, which is not possible; it stays";
                self.ephemeral_problem(path, shown, uid, &record.spec.name, message);
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        self.store.keep(uid, &new)?;
        let version = self.store.lock().add(uid, new);
        self.store.announce(version);
        Ok(())
    }

    /// A manifest is not ours to write, so it may name a container that ran before our state was lost: a log
    /// of it tells. None where that is not known yet.
    fn first_phase(&mut self, pod: &Pod, container: &str) -> Option<Phase> {
        let folder = self.log_dir.0.join(log_folder(pod)).join(container);
        match self.logged.get(&folder) {
            Some(true) => Some(Phase::Created(CreatedContainer {
                container_id: String::new(),
                sandbox_id: String::new(),
                log_path: None,
            })),
            Some(false) => Some(Phase::Accepted),
            None => {
                self.unknown.insert(folder);
                None
            }
        }
    }

    fn remove_the_rest(&mut self) {
        let mut inner = self.store.lock();
        let rest: Vec<String> = inner
            .pods
            .iter()
            .filter(|(uid, entry)| {
                entry.source.manifest().is_some()
                    && entry.removal().is_none()
                    && !self.keep.contains(uid.as_str())
            })
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in rest {
            let refused = inner
                .pods
                .get(&uid)
                .is_some_and(|entry| matches!(entry.wanted, Wanted::Refused { .. }));
            if refused {
                inner.publish(&uid, ChangeKind::Deleted);
                inner.pods.remove(&uid);
            } else {
                inner.remove(&uid);
            }
        }
        let version = inner.history.version();
        drop(inner);
        self.store.announce(version);
    }

    fn ephemeral_problem(&mut self, path: &Path, shown: &str, uid: &str, container: &str, message: &str) {
        let message = format!("ephemeral container {container:?}: {message}");
        self.problem(path, shown, message.clone());
        let container = Some(ContainerPath::Ephemeral(container.to_owned()));
        let happening = warning("FailedValidation", message, container);
        self.happenings.push((uid.to_owned(), happening));
    }

    fn problem(&mut self, path: &Path, pod: &str, message: String) {
        let file = file_name(path);
        tracing::warn!(manifest = %file, pod, "{message}");
        self.problems.push(ManifestProblem {
            file,
            pod: pod.to_owned(),
            message,
        });
    }
}

impl Inner {
    /// Has a pod go, with the grace of its spec.
    fn remove(&mut self, uid: &str) {
        if let Some(entry) = self.pods.get_mut(uid) {
            entry.wanted = Wanted::Removed(Removal {
                grace_seconds: grace(&entry.pod),
                since: Timestamp::now(),
            });
            entry.wake.notify_one();
            self.publish(uid, ChangeKind::Modified);
        }
    }
}

fn warning(reason: &'static str, message: String, container: Option<ContainerPath>) -> Happening {
    Happening {
        severity: Severity::Warning,
        reason,
        message,
        container,
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(
        || path.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    )
}

#[cfg(test)]
#[path = "manifests_tests.rs"]
mod tests;
