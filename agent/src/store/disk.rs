//! What must outlive the process, as files under `state_dir`:
//!
//! ```text
//! lock                          held by the agent that runs on this folder
//! versions.json                 which resource versions may have been given out
//! pods/UID/pod.json             the pod as accepted, that it is to go, and since when it is gone, if it is
//! pods/UID/ephemeral/NAME.json  the record of one ephemeral container
//! pods/UID.gone                 what is being removed for good
//! ```
//!
//! A write is done when it would survive a power cut ([`durable_file`]). Every function here blocks.

mod versions;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::durable_file;
use crate::pod::deletion::Removal;
use crate::pod::record::{self, CreatedContainer, Origin, Phase, Record};
use crate::pod::source::Source;

/// What the name of a folder ends with that is being removed.
const GONE: &str = ".gone";

/// Why something could not be kept, or read back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    /// A file operation failed.
    #[error("cannot {step} {path}: {source}")]
    Io {
        /// What was tried: `write`, `read`, ...
        step: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another agent has the folder.
    #[error(
        "another debuglet agent runs on {path} already; give this one a state_dir of its own, or stop the other"
    )]
    InUse {
        /// The state folder.
        path: PathBuf,
    },
    /// What is to be kept cannot be written as JSON.
    #[error("cannot encode {path}: {source}")]
    Encode {
        /// The file it was meant for.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
}

fn io_error(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DiskError {
    let path = path.to_path_buf();
    move |source| DiskError::Io { step, path, source }
}

/// A pod as it was accepted: what runs on even where its manifest has become unreadable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeptPod {
    /// The pod, with defaults, without its ephemeral containers.
    pub(crate) pod: Pod,
    /// Where it came from: `"manifest": PATH`, or `"api": null`.
    #[serde(flatten)]
    pub(crate) source: Source,
    /// How often a pod of this very manifest was removed before: part of what the UID follows from.
    #[serde(default)]
    pub(crate) incarnation: u64,
    /// That it is to go, where a client of the API said so: no source says it again after a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) removal: Option<Removal>,
    /// Since when nothing of it is left in the runtime: a tombstone, which keeps its name in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gone_since: Option<Timestamp>,
}

/// What was found of one pod at start.
#[derive(Debug)]
pub(crate) struct LoadedPod {
    /// The name of its folder.
    pub(crate) uid: String,
    /// The pod; none where its file is missing or cannot be read.
    pub(crate) kept: Option<KeptPod>,
    /// Its ephemeral containers, in the order in which they were accepted.
    pub(crate) records: Vec<Record>,
    /// What could not be read, in words.
    pub(crate) problems: Vec<String>,
}

/// The state folder, locked against other agents for as long as this lives.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    _lock: nix::fcntl::Flock<File>,
}

impl Disk {
    /// Makes the folder where it is missing, and takes its lock.
    pub(crate) fn open(root: &Path) -> Result<Disk, DiskError> {
        fs::create_dir_all(root.join("pods")).map_err(io_error("create", root))?;
        // What is kept below a folder lasts as long as the folder, so it lasts too; and one that was there already may
        // have been made a moment before the power went.
        sync_dir(root)?;
        if let Some(parent) = root.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_dir(parent)?;
        }
        // Specs hold environment variables: they are root's business alone.
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(root, private).map_err(io_error("protect", root))?;
        let path = root.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(io_error("open", &path))?;
        match nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Disk {
                root: root.to_path_buf(),
                _lock: lock,
            }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(DiskError::InUse {
                path: root.to_path_buf(),
            }),
            Err((_, errno)) => Err(io_error("lock", &path)(errno.into())),
        }
    }

    /// The folder of one pod.
    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root.join("pods").join(uid)
    }

    /// Keeps a pod.
    pub(crate) fn write_pod(&self, uid: &str, kept: &KeptPod) -> Result<(), DiskError> {
        let dir = self.pod_dir(uid);
        create_durably(&dir)?;
        write_durably(&dir, "pod.json", kept)
    }

    /// Keeps the record of one ephemeral container.
    pub(crate) fn write_record(&self, uid: &str, record: &Record) -> Result<(), DiskError> {
        let dir = self.pod_dir(uid).join("ephemeral");
        create_durably(&self.pod_dir(uid))?;
        create_durably(&dir)?;
        let name = format!("{}.json", record.spec.name);
        write_durably(&dir, &name, record)
    }

    /// The records of a pod, in the order in which they were accepted; one that cannot be read counts as *created*.
    pub(crate) fn records(&self, uid: &str) -> Result<Vec<Record>, DiskError> {
        let loaded = load_pod(uid.to_owned(), &self.pod_dir(uid))?;
        for problem in loaded.problems {
            tracing::error!("{problem}");
        }
        Ok(loaded.records)
    }

    /// Takes back a record that was not accepted after all.
    pub(crate) fn drop_record(&self, uid: &str, name: &str) {
        // Where this fails too, the record is there after a restart: nothing better can be done on such a disk.
        let folder = self.pod_dir(uid).join("ephemeral");
        let _ = fs::remove_file(folder.join(format!("{name}.json"))).map(|()| sync_dir(&folder));
    }

    /// Forgets a pod altogether. Whatever happens in between, all of it is there afterwards or nothing; on return
    /// nothing, also after a power cut.
    pub(crate) fn remove_pod(&self, uid: &str) -> Result<(), DiskError> {
        let dir = self.pod_dir(uid);
        let gone = self.pod_dir(&format!("{uid}{GONE}"));
        match fs::rename(&dir, &gone) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &dir)(error)),
            _ => {
                sync_dir(&self.root.join("pods"))?;
                remove_all(&gone)
            }
        }
    }

    /// Reads everything back. What cannot be read is set aside and named, and a record that cannot be read
    /// counts as *created*: its container may have run.
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
            loaded.push(load_pod(uid, &entry.path())?);
        }
        loaded.sort_by(|one, other| one.uid.cmp(&other.uid));
        Ok(loaded)
    }
}

fn remove_all(dir: &Path) -> Result<(), DiskError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", dir)(error)),
        _ => Ok(()),
    }
}

/// Whether a pod's folder holds nothing but what was being written when the agent ended: nobody was told that the
/// pod is accepted, and nothing of it was begun.
fn was_never_accepted(dir: &Path) -> bool {
    let Ok(mut entries) = fs::read_dir(dir) else {
        return false;
    };
    entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == "pod.json.new"))
}

fn load_pod(uid: String, dir: &Path) -> Result<LoadedPod, DiskError> {
    let mut problems = Vec::new();
    let kept = match read::<KeptPod>(&dir.join("pod.json")) {
        Ok(kept) => kept,
        Err(problem) => {
            problems.push(set_aside(&dir.join("pod.json"), &problem));
            None
        }
    };
    let mut records = Vec::new();
    let folder = dir.join("ephemeral");
    match fs::read_dir(&folder) {
        Ok(entries) => {
            for entry in entries {
                let path = entry.map_err(io_error("list", &folder))?.path();
                let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                    continue;
                };
                if let Some(name) = name.strip_suffix(".json") {
                    records.push(load_record(name, &path, &mut problems));
                } else if let Some(name) = name.strip_suffix(".json.unreadable")
                    && !folder.join(format!("{name}.json")).exists()
                {
                    records.push(fail_closed(name));
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_error("list", &folder)(error)),
    }
    // Earlier versions could write one number twice.
    records.sort_by(|one: &Record, other| (one.order, &one.spec.name).cmp(&(other.order, &other.spec.name)));
    record::number(&mut records);
    Ok(LoadedPod {
        uid,
        kept,
        records,
        problems,
    })
}

fn load_record(name: &str, path: &Path, problems: &mut Vec<String>) -> Record {
    match read::<Record>(path) {
        Ok(Some(record)) if record.spec.name == name => record,
        Ok(Some(_)) => {
            problems.push(set_aside(path, "it holds the record of another name"));
            fail_closed(name)
        }
        Ok(None) => fail_closed(name),
        Err(problem) => {
            problems.push(set_aside(path, &problem));
            fail_closed(name)
        }
    }
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
        // After all whose place is known. Far from the end of the numbers, so that others can come after it.
        order: u64::from(u32::MAX),
        origin: Origin::Api,
        asked_by: None,
        copy_mounts: None,
        phase: Phase::Created(created),
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, String> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| error.to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Renames a file that cannot be read, so that a person can look at it, and says so.
fn set_aside(path: &Path, problem: &str) -> String {
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

/// Makes a folder where there is none, in one that is there. One that is found was made durable when it was made: where
/// that fails it goes again.
fn create_durably(dir: &Path) -> Result<(), DiskError> {
    create_and_sync(dir, sync_dir)
}

fn create_and_sync(dir: &Path, sync: impl Fn(&Path) -> Result<(), DiskError>) -> Result<(), DiskError> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir(dir).map_err(io_error("create", dir))?;
    dir.parent().map_or(Ok(()), sync).inspect_err(|_| {
        let _ = fs::remove_dir(dir);
    })
}

fn write_durably(dir: &Path, name: &str, content: &impl Serialize) -> Result<(), DiskError> {
    let path = dir.join(name);
    let bytes = serde_json::to_vec(content).map_err(|source| DiskError::Encode {
        path: path.clone(),
        source,
    })?;
    durable_file::write(dir, name, &bytes).map_err(io_error("write", &path))
}

fn sync_dir(dir: &Path) -> Result<(), DiskError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(io_error("sync", dir))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::EphemeralContainer;

    use super::*;

    fn record(name: &str) -> Record {
        let spec = EphemeralContainer {
            name: name.to_owned(),
            image: Some("i".to_owned()),
            ..Default::default()
        };
        Record {
            spec,
            order: 0,
            origin: Origin::Api,
            asked_by: None,
            copy_mounts: None,
            phase: Phase::Accepted,
        }
    }

    fn placed(order: u64, name: &str) -> Record {
        Record {
            order,
            ..record(name)
        }
    }

    fn names(records: &[Record]) -> Vec<&str> {
        records.iter().map(|record| record.spec.name.as_str()).collect()
    }

    #[test]
    fn records_come_back_in_the_order_in_which_they_were_accepted() {
        let dir = tempfile::tempdir().expect("folder");
        let disk = Disk::open(dir.path()).expect("open");
        for (order, name) in [(0, "zebra"), (1, "ape"), (7, "mouse")] {
            disk.write_record("u1", &placed(order, name)).expect("write");
        }
        let loaded = disk.load().expect("load");
        assert_eq!(names(&loaded[0].records), ["zebra", "ape", "mouse"]);
        assert_eq!(record::next_order(&loaded[0].records), 8);
        assert!(loaded[0].problems.is_empty());
    }

    #[test]
    fn records_of_one_order_and_one_that_cannot_be_read_get_orders_of_their_own() {
        let dir = tempfile::tempdir().expect("folder");
        let disk = Disk::open(dir.path()).expect("open");
        for (order, name) in [(1, "b"), (1, "a"), (0, "z"), (5, "torn")] {
            disk.write_record("u1", &placed(order, name)).expect("write");
        }
        fs::write(disk.pod_dir("u1").join("ephemeral/torn.json"), "{ torn").expect("tear");
        let records = disk.load().expect("load").remove(0).records;
        assert_eq!(names(&records), ["z", "a", "b", "torn"]);
        assert!(records.is_sorted_by(|one, next| one.order < next.order));
        assert!(record::next_order(&records) > records[3].order);
    }

    #[test]
    fn a_record_that_cannot_be_read_counts_as_created_and_is_set_aside_and_named() {
        let dir = tempfile::tempdir().expect("folder");
        let disk = Disk::open(dir.path()).expect("open");
        disk.write_record("u1", &record("dbg")).expect("write");
        let file = disk.pod_dir("u1").join("ephemeral/dbg.json");
        fs::write(&file, "{ torn").expect("tear");
        // A second start must not forget what the first one set aside.
        for start in 1..=2 {
            let loaded = disk.load().expect("load");
            assert_eq!(loaded[0].records.len(), 1, "start {start}");
            assert_eq!(loaded[0].records[0].spec.name, "dbg");
            assert!(
                matches!(loaded[0].records[0].phase, Phase::Created(_)),
                "start {start}"
            );
            assert_eq!(loaded[0].problems.len(), if start == 1 { 1 } else { 0 });
        }
        assert!(file.with_extension("json.unreadable").exists());
    }

    #[test]
    fn a_write_that_was_cut_before_its_rename_leaves_the_old_record() {
        let dir = tempfile::tempdir().expect("folder");
        let disk = Disk::open(dir.path()).expect("open");
        disk.write_record("u1", &record("dbg")).expect("write");
        fs::write(disk.pod_dir("u1").join("ephemeral/dbg.json.new"), "{ half").expect("cut");
        let loaded = disk.load().expect("load");
        assert_eq!(loaded[0].records, [record("dbg")]);
    }

    #[test]
    fn the_source_of_a_pod_is_kept_and_files_of_the_first_release_are_read() {
        let dir = tempfile::tempdir().expect("folder");
        let disk = Disk::open(dir.path()).expect("open");
        let removal = Removal {
            grace_seconds: 5,
            since: Timestamp::UNIX_EPOCH,
        };
        let api = KeptPod {
            pod: Pod::default(),
            source: Source::Api,
            incarnation: 0,
            removal: Some(removal),
            gone_since: None,
        };
        disk.write_pod("a", &api).expect("write");
        fs::create_dir(disk.pod_dir("b")).expect("folder");
        let old = r#"{"pod":{"apiVersion":"v1","kind":"Pod","metadata":{}},"manifest":"/m/web.yaml","incarnation":2}"#;
        fs::write(disk.pod_dir("b").join("pod.json"), old).expect("write");
        let kept: Vec<_> = disk
            .load()
            .expect("load")
            .into_iter()
            .map(|loaded| loaded.kept.expect("kept"))
            .collect();
        assert_eq!(kept[0], api);
        let manifest = KeptPod {
            source: Source::Manifest(PathBuf::from("/m/web.yaml")),
            incarnation: 2,
            removal: None,
            ..api
        };
        assert_eq!(kept[1], manifest);
        let written = serde_json::to_value(&manifest).expect("JSON");
        assert_eq!(
            written["manifest"], "/m/web.yaml",
            "as the first release reads it"
        );
    }

    #[test]
    fn what_was_never_accepted_and_what_is_half_removed_goes_at_the_next_start() {
        let dir = tempfile::tempdir().expect("folder");
        let disk = Disk::open(dir.path()).expect("open");
        for (pod, file) in [
            ("cut", "pod.json.new"),
            ("old.gone", "pod.json"),
            ("kept", "pod.json.unreadable"),
        ] {
            fs::create_dir(disk.pod_dir(pod)).expect("folder");
            fs::write(disk.pod_dir(pod).join(file), "{").expect("write");
        }
        fs::create_dir(disk.pod_dir("empty")).expect("folder");
        let loaded = disk.load().expect("load");
        assert_eq!(
            loaded.iter().map(|pod| pod.uid.as_str()).collect::<Vec<_>>(),
            ["kept"]
        );
        for pod in ["cut", "old.gone", "empty"] {
            assert!(!disk.pod_dir(pod).exists(), "{pod}");
        }
    }

    #[test]
    fn a_folder_that_may_not_outlive_a_power_cut_is_not_left_for_the_next_write_to_find() {
        let dir = tempfile::tempdir().expect("folder");
        let pod = dir.path().join("u1");
        for attempt in 1..=2 {
            let failed = create_and_sync(&pod, |parent| {
                Err(io_error("sync", parent)(io::Error::other("no space left")))
            });
            assert!(failed.is_err(), "attempt {attempt}");
            assert!(!pod.exists(), "attempt {attempt}");
        }
        create_durably(&pod).expect("made");
        assert!(pod.is_dir());
    }

    #[test]
    fn two_agents_cannot_run_on_one_state_folder() {
        let dir = tempfile::tempdir().expect("folder");
        let first = Disk::open(dir.path()).expect("open");
        assert!(matches!(Disk::open(dir.path()), Err(DiskError::InUse { .. })));
        drop(first);
        Disk::open(dir.path()).expect("free again");
    }
}
