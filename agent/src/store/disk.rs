//! What must outlive the process, as files under `state_dir`:
//!
//! ```text
//! lock                          held by the agent that runs on this folder
//! versions.json                 which resource versions may have been given out
//! pods/UID/pod.json             the pod as accepted, that it is to go or was evicted, and since when it is gone, if it is
//! pods/UID/ephemeral/NAME.json  the record of one ephemeral container
//! pods/UID.gone                 what is being removed for good
//! ballast                       room that is kept for what ends something
//! alive                         written now and again, to see that the disk answers
//! ```
//!
//! A write is done when it would survive a power cut ([`durable_file`]). Every function here blocks, and is to run on the
//! disk's own threads ([`WriteThreads`]).

mod ballast;
mod load;
mod versions;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::durable_file::{self, WriteError};
use crate::pod::deletion::Removal;
use crate::pod::eviction::Eviction;
use crate::pod::record::{Phase, Record};
use crate::pod::source::Source;
use crate::write_threads::WriteThreads;
use ballast::{Ballast, Room};

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
    /// A file was written, and its folder could not be synced: what is read is the new content, and after a power cut it
    /// may be the old one again.
    #[error("{path} is written, but may not survive a power cut: its folder cannot be synced: {source}")]
    NotSynced {
        /// The file.
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
    /// Why all of it has to end though it is wanted, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) evicted: Option<Eviction>,
    /// Since when nothing of it is left in the runtime: a tombstone, which keeps its name in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gone_since: Option<Timestamp>,
}

/// Syncs a file, or a folder: which files are in it. A test can have it fail.
type SyncFn = dyn Fn(&Path) -> io::Result<()> + Send + Sync;

/// The state folder, locked against other agents for as long as this lives.
pub(crate) struct Disk {
    root: PathBuf,
    threads: Arc<WriteThreads>,
    ballast: Ballast,
    sync: Arc<SyncFn>,
    _lock: nix::fcntl::Flock<File>,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Disk")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl Disk {
    /// Makes the folder where it is missing, and takes its lock.
    #[expect(
        clippy::disallowed_methods,
        reason = "the state folder is root's alone; callers are on threads that may block"
    )]
    pub(crate) fn open(root: &Path) -> Result<Disk, DiskError> {
        fs::create_dir_all(root.join("pods")).map_err(io_error("create", root))?;
        // What is kept below a folder lasts as long as the folder, so it lasts too; and one that was there already may
        // have been made a moment before the power went.
        let sync = |folder: &Path| durable_file::sync_folder(folder).map_err(io_error("sync", folder));
        sync(root)?;
        if let Some(parent) = root.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync(parent)?;
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
            Ok(lock) => {
                let ballast = Ballast::of(root);
                // A disk that is full already has no room for it; it is made when there is some.
                let _ = ballast.restore();
                Ok(Disk {
                    root: root.to_path_buf(),
                    threads: Arc::new(WriteThreads::new().map_err(io_error("start threads for", root))?),
                    ballast,
                    sync: Arc::new(durable_file::sync_folder),
                    _lock: lock,
                })
            }
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(DiskError::InUse {
                path: root.to_path_buf(),
            }),
            Err((_, errno)) => Err(io_error("lock", &path)(errno.into())),
        }
    }

    /// The state folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of one pod.
    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root.join("pods").join(uid)
    }

    /// The threads on which durable writes run.
    pub(crate) fn threads(&self) -> &Arc<WriteThreads> {
        &self.threads
    }

    /// Keeps a pod.
    pub(crate) fn write_pod(&self, uid: &str, kept: &KeptPod) -> Result<(), DiskError> {
        let dir = self.pod_dir(uid);
        self.create_durably(&dir)?;
        let ends = kept.removal.is_some() || kept.evicted.is_some() || kept.gone_since.is_some();
        self.write_durably(&dir, "pod.json", kept, if ends { Room::Kept } else { Room::Free })
    }

    /// Keeps the record of one ephemeral container.
    pub(crate) fn write_record(&self, uid: &str, record: &Record) -> Result<(), DiskError> {
        let dir = self.pod_dir(uid).join("ephemeral");
        self.create_durably(&self.pod_dir(uid))?;
        self.create_durably(&dir)?;
        let name = format!("{}.json", record.spec.name);
        let room = match record.phase {
            Phase::Accepted | Phase::Created(_) => Room::Free,
            Phase::Stopping { .. } | Phase::Ended { .. } => Room::Kept,
        };
        self.write_durably(&dir, &name, record, room)
    }

    /// Takes back a record that was not accepted after all.
    #[expect(
        clippy::disallowed_methods,
        reason = "the state folder is root's alone; callers are on threads that may block"
    )]
    pub(crate) fn drop_record(&self, uid: &str, name: &str) {
        // Where this fails too, the record is there after a restart: nothing better can be done on such a disk.
        let folder = self.pod_dir(uid).join("ephemeral");
        let _ = fs::remove_file(folder.join(format!("{name}.json"))).map(|()| (self.sync)(&folder));
    }

    /// Forgets a pod altogether. Whatever happens in between, all of it is there afterwards or nothing; on return
    /// nothing, also after a power cut.
    #[expect(
        clippy::disallowed_methods,
        reason = "the state folder is root's alone; callers are on threads that may block"
    )]
    pub(crate) fn remove_pod(&self, uid: &str) -> Result<(), DiskError> {
        let dir = self.pod_dir(uid);
        let gone = self.pod_dir(&format!("{uid}{GONE}"));
        // What a removal left that could not be finished; the pod may have been written again since.
        remove_all(&gone)?;
        let renamed = self
            .ballast
            .make_room(Room::Kept, || match fs::rename(&dir, &gone) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(WriteError::NotWritten(error)),
                _ => Ok(()),
            });
        renamed.map_err(|error| io_error("remove", &dir)(error.into()))?;
        let pods = self.root.join("pods");
        (self.sync)(&pods).map_err(io_error("sync", &pods))?;
        remove_all(&gone)
    }

    /// Writes a small file durably, to see that the disk answers. What it answers does not matter.
    pub(crate) fn write_sign_of_life(&self) {
        if let Err(error) = durable_file::write(&self.root, "alive", b"") {
            tracing::debug!("the disk answers that it cannot write: {error}");
        }
    }

    /// How many bytes are missing of the room that is kept for what ends something.
    #[cfg(test)]
    fn missing_ballast(&self) -> u64 {
        ballast::BALLAST_BYTES.saturating_sub(self.ballast.bytes())
    }

    /// Makes the room again that is kept for what ends something, where it was given up.
    pub(crate) fn restore_ballast(&self) -> Result<(), DiskError> {
        self.ballast
            .restore()
            .map_err(io_error("keep room in", &self.root))
    }

    /// Makes a folder where there is none, in one that is there. One that is found was made durable when it was made:
    /// where that fails it goes again.
    #[expect(
        clippy::disallowed_methods,
        reason = "the state folder is root's alone; callers are on threads that may block"
    )]
    fn create_durably(&self, dir: &Path) -> Result<(), DiskError> {
        if dir.is_dir() {
            return Ok(());
        }
        fs::create_dir(dir).map_err(io_error("create", dir))?;
        let parent = dir.parent().unwrap_or(dir);
        (self.sync)(parent).map_err(|error| {
            let _ = fs::remove_dir(dir);
            io_error("sync", parent)(error)
        })
    }

    fn write_durably(
        &self,
        dir: &Path,
        name: &str,
        content: &impl Serialize,
        room: Room,
    ) -> Result<(), DiskError> {
        let path = dir.join(name);
        let bytes = serde_json::to_vec(content).map_err(|source| DiskError::Encode {
            path: path.clone(),
            source,
        })?;
        let write = || durable_file::write_with(dir, name, &bytes, &*self.sync);
        self.ballast.make_room(room, write).map_err(|error| match error {
            WriteError::NotWritten(source) => io_error("write", &path)(source),
            WriteError::NotSynced(source) => DiskError::NotSynced { path, source },
        })
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the state folder is root's alone; callers are on threads that may block"
)]
fn remove_all(dir: &Path) -> Result<(), DiskError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", dir)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
impl Disk {
    /// Has every sync of a folder fail while the answer is true; nothing else fails.
    pub(crate) fn break_syncs(&mut self) -> Arc<std::sync::atomic::AtomicBool> {
        let broken = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let breaks = Arc::clone(&broken);
        // The folder of all pods is synced at the start, without which there is none.
        let pods = self.root.join("pods");
        self.sync = Arc::new(
            move |path| match breaks.load(std::sync::atomic::Ordering::Relaxed) {
                true if path != pods => Err(io::Error::other("the disk is broken")),
                _ => durable_file::sync_folder(path),
            },
        );
        broken
    }
}

#[cfg(test)]
mod tests;
