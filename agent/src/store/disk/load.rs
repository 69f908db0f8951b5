//! What is read back at the start. All of it is synced before anything is done because of it: the process that wrote it
//! may have been killed before it had made it durable.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::jiff::Timestamp;

use super::{Disk, DiskError, GONE, KeptPod, io_error, remove_all};
use crate::pod::record::{self, CreatedContainer, Origin, Phase, Record};

/// What was found of one pod at start.
#[derive(Debug)]
pub(crate) struct LoadedPod {
    /// The name of its folder.
    pub(crate) uid: String,
    /// The pod; none where its file is missing or cannot be read.
    pub(crate) kept: Option<KeptPod>,
    /// Its ephemeral containers, in the order in which they were accepted.
    pub(crate) records: Vec<Record>,
    /// What could not be read, or not be synced, in words.
    pub(crate) problems: Vec<String>,
    /// Whether all of it would survive a power cut.
    pub(crate) synced: bool,
    /// When something was last added to its folder or removed from it.
    pub(crate) changed: Timestamp,
}

impl Disk {
    /// Reads everything back, and syncs it. What cannot be read is set aside and named, and a record that cannot be read
    /// counts as *created*: its container may have run.
    #[expect(
        clippy::disallowed_methods,
        reason = "the state folder is root's alone; callers are on threads that may block"
    )]
    pub(crate) fn load(&self) -> Result<Vec<LoadedPod>, DiskError> {
        let pods = self.root.join("pods");
        let mut loaded = Vec::new();
        for entry in fs::read_dir(&pods).map_err(io_error("list", &pods))? {
            let entry = entry.map_err(io_error("list", &pods))?;
            let Ok(uid) = entry.file_name().into_string() else {
                continue;
            };
            if uid.ends_with(GONE) || was_never_accepted(&entry.path()) {
                remove_all(&entry.path())?;
                continue;
            }
            let mut pod = load_pod(uid, &entry.path())?;
            // Nothing is begun because of a pod that is gone, and there may be a thousand of them.
            let is_gone = pod.kept.as_ref().is_some_and(|kept| kept.gone_since.is_some());
            if !is_gone && let Err(error) = self.sync_pod(&entry.path()) {
                pod.synced = false;
                pod.problems.push(format!(
                    "{} may not survive a power cut: {error}",
                    entry.path().display()
                ));
            }
            loaded.push(pod);
        }
        (self.sync)(&pods).map_err(io_error("sync", &pods))?;
        loaded.sort_by(|one, other| one.uid.cmp(&other.uid));
        Ok(loaded)
    }

    /// The records of a pod, in the order in which they were accepted; one that cannot be read counts as *created*.
    pub(crate) fn records(&self, uid: &str) -> Result<Vec<Record>, DiskError> {
        let loaded = load_pod(uid.to_owned(), &self.pod_dir(uid))?;
        for problem in loaded.problems {
            tracing::error!("{problem}");
        }
        Ok(loaded.records)
    }

    /// Syncs what is kept of a pod: its file, its records, and the folders that they are in.
    #[expect(
        clippy::disallowed_methods,
        reason = "the state folder is root's alone; callers are on threads that may block"
    )]
    fn sync_pod(&self, dir: &Path) -> Result<(), DiskError> {
        let sync = |path: &Path| match (self.sync)(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("sync", path)(error)),
            _ => Ok(()),
        };
        let ephemeral = dir.join("ephemeral");
        let records = match fs::read_dir(&ephemeral) {
            Ok(records) => records.collect::<io::Result<Vec<_>>>(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        for record in records.map_err(io_error("list", &ephemeral))? {
            sync(&record.path())?;
        }
        sync(&dir.join("pod.json"))?;
        sync(&ephemeral)?;
        sync(dir)
    }
}

/// Whether a pod's folder holds nothing but what was being written when the agent ended: nobody was told that the
/// pod is accepted, and nothing of it was begun.
#[expect(
    clippy::disallowed_methods,
    reason = "the state folder is root's alone; callers are on threads that may block"
)]
fn was_never_accepted(dir: &Path) -> bool {
    let Ok(mut entries) = fs::read_dir(dir) else {
        return false;
    };
    entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == "pod.json.new"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the state folder is root's alone; callers are on threads that may block"
)]
fn load_pod(uid: String, dir: &Path) -> Result<LoadedPod, DiskError> {
    let mut problems = Vec::new();
    let kept = match read::<KeptPod>(&dir.join("pod.json")) {
        Ok(kept) => kept,
        Err(problem) => {
            problems.push(set_aside(&dir.join("pod.json"), &problem));
            None
        }
    };
    let changed = fs::metadata(dir)
        .and_then(|folder| folder.modified())
        .ok()
        .and_then(|changed| Timestamp::try_from(changed).ok());
    Ok(LoadedPod {
        uid,
        kept,
        records: load_records(&dir.join("ephemeral"), &mut problems)?,
        problems,
        synced: true,
        changed: changed.unwrap_or(Timestamp::UNIX_EPOCH),
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "the state folder is root's alone; callers are on threads that may block"
)]
fn load_records(folder: &Path, problems: &mut Vec<String>) -> Result<Vec<Record>, DiskError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries.collect::<io::Result<Vec<_>>>(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => Err(error),
    };
    let mut paths: Vec<PathBuf> = entries
        .map_err(io_error("list", folder))?
        .into_iter()
        .map(|entry| entry.path())
        .collect();
    // Two records may have one order: versions before this one gave some twice.
    paths.sort();
    let (mut records, mut unreadable) = (Vec::new(), Vec::new());
    for path in paths {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if let Some(name) = name.strip_suffix(".json") {
            match load_record(name, &path, problems) {
                Some(record) => records.push(record),
                None => unreadable.push(name.to_owned()),
            }
        } else if let Some(name) = name.strip_suffix(".json.unreadable")
            && !folder.join(format!("{name}.json")).exists()
        {
            unreadable.push(name.to_owned());
        }
    }
    records.sort_by_key(|record: &Record| record.order);
    // Nobody knows any more when these were accepted: they come last.
    records.extend(unreadable.iter().map(|name| fail_closed(name)));
    record::number(&mut records);
    Ok(records)
}

/// The record in the file; none where it cannot be read, which is among the problems then.
fn load_record(name: &str, path: &Path, problems: &mut Vec<String>) -> Option<Record> {
    match read::<Record>(path) {
        Ok(Some(record)) if record.spec.name == name => return Some(record),
        Ok(Some(_)) => problems.push(set_aside(path, "it holds the record of another name")),
        Ok(None) => {}
        Err(problem) => problems.push(set_aside(path, &problem)),
    }
    None
}

/// A record that cannot be read counts as *created*: its container may have run.
fn fail_closed(name: &str) -> Record {
    let spec = k8s_openapi::api::core::v1::EphemeralContainer {
        name: name.to_owned(),
        ..Default::default()
    };
    let created = CreatedContainer {
        container_id: String::new(),
        sandbox_id: String::new(),
        log_path: None,
    };
    Record {
        spec,
        // Its place follows from those of the others.
        order: 0,
        origin: Origin::Api,
        asked_by: None,
        copy_mounts: None,
        phase: Phase::Created(created),
    }
}

/// What the file holds; none where there is no file. An error is in words.
#[expect(
    clippy::disallowed_methods,
    reason = "the state folder is root's alone; callers are on threads that may block"
)]
pub(super) fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, String> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| error.to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Renames a file that cannot be read, so that a person can look at it, and says so.
#[expect(
    clippy::disallowed_methods,
    reason = "the state folder is root's alone; callers are on threads that may block"
)]
pub(super) fn set_aside(path: &Path, problem: &str) -> String {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".unreadable");
    match fs::rename(path, &aside) {
        Ok(()) => format!(
            "{} cannot be read ({problem}); it was set aside as {}",
            path.display(),
            Path::new(&aside).display()
        ),
        Err(error) => format!(
            "{} cannot be read ({problem}), nor be set aside ({error})",
            path.display()
        ),
    }
}
