//! A pod's volumes on the host: makes them before its first container, and takes away what was made of them when the
//! pod is gone. Doing either twice, or after a restart, changes nothing.

mod tear_down;
mod usage;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, EmptyDirVolumeSource, HostPathVolumeSource, Pod, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use nix::libc;
use nix::mount::MsFlags;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};

use crate::pod::quantity::Amount;
use crate::untrusted_file::{self, NoAnswer, REMOVALS};
pub(crate) use usage::{Usage, measure};

/// The folder of all volumes in a pod's folder, named as a kubelet names it.
const VOLUMES: &str = "volumes";
/// The folder of the emptyDir volumes in [`VOLUMES`], named as a kubelet names it.
const EMPTY_DIRS: &str = "kubernetes.io~empty-dir";
/// The mode of the folders above a volume: no way in for other users.
const FOLDER_MODE: u32 = 0o750;
/// The mode of an emptyDir: its containers may run as anybody.
const EMPTY_DIR_MODE: u32 = 0o777;
/// What an fsGroup adds to a folder's mode: what is made in it belongs to the group too.
const SET_GROUP_ID: u32 = 0o2000;
/// The modes of what a hostPath of type DirectoryOrCreate or FileOrCreate makes.
const HOST_DIRECTORY_MODE: u32 = 0o755;
const HOST_FILE_MODE: u32 = 0o644;

/// What stands in the way of a pod's volumes. The text is the message of a `FailedMount` event.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    /// A volume cannot be made ready.
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {reason}")]
    SetUp {
        /// The volume's name.
        volume: String,
        /// Why.
        reason: SetUpError,
    },
    /// Something is still mounted in the pod's folder.
    #[error("cannot unmount {}: {source}", path.display())]
    Unmount {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The pod's volumes cannot be removed.
    #[error("cannot remove the volumes in {}: {source}", folder.display())]
    Remove {
        /// The pod's folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It takes longer to remove the volumes than one try of it waits.
    #[error("the volumes in {} are still being removed", folder.display())]
    StillRemoving {
        /// The pod's folder.
        folder: PathBuf,
    },
    /// There is no thread to remove the volumes in.
    #[error("cannot remove the volumes in {}: {source}", folder.display())]
    NoThread {
        /// The pod's folder.
        folder: PathBuf,
        /// Why.
        source: NoAnswer,
    },
}

/// Why a volume cannot be made ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetUpError {
    /// The hostPath is not what its type says.
    #[error("hostPath type check failed: {path} is not {expected}")]
    HostPathType {
        /// The path on the host.
        path: String,
        /// What it must be, with an article.
        expected: &'static str,
    },
    /// A file or folder cannot be made or looked at.
    #[error("cannot {step} {}: {source}", path.display())]
    File {
        /// What was tried, as a verb.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something that is not the volume's memory is mounted in its place.
    #[error("something else is mounted at {}", path.display())]
    Occupied {
        /// Where.
        path: PathBuf,
    },
    /// What it lies on does not answer.
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
    /// The volume is of a kind that the agent does not know; validation refuses such pods.
    #[error("this kind of volume is not supported")]
    Unsupported,
}

/// Makes the pod's volumes ready and says where on the host each one is, by name. `pod_dir` is the pod's own folder;
/// what is missing of the path to it is made.
///
/// For a `container` only the volumes that it mounts.
pub(crate) async fn prepare(
    pod: &Pod,
    container: Option<&Container>,
    pod_dir: &Path,
) -> Result<BTreeMap<String, PathBuf>, VolumeError> {
    let spec = pod.spec.as_ref();
    let is_mounted = |volume: &Volume| {
        container.is_none_or(|container| {
            let mut mounts = container.volume_mounts.iter().flatten();
            mounts.any(|mount| mount.name == volume.name)
        })
    };
    let mut ready = BTreeMap::new();
    let volumes = spec.and_then(|spec| spec.volumes.as_ref()).into_iter().flatten();
    for volume in volumes.filter(|volume| is_mounted(volume)) {
        // A path of the host may lie on a server that is down: each volume has its own answer. One without a type is not
        // looked at: the runtime makes a folder where nothing is.
        let (threads, about) = match &volume.host_path {
            Some(host_path) if host_path.type_.as_deref().unwrap_or_default().is_empty() => {
                ready.insert(volume.name.clone(), PathBuf::from(&host_path.path));
                continue;
            }
            Some(host_path) => (&untrusted_file::VOLUMES, PathBuf::from(&host_path.path)),
            None => (&untrusted_file::EMPTY_DIRS, empty_dir_path(pod_dir, &volume.name)),
        };
        let (pod, set_up_volume, pod_dir) = (pod.clone(), volume.clone(), pod_dir.to_path_buf());
        let set_up = move || set_up(&pod, &set_up_volume, &pod_dir);
        let failed = |reason| VolumeError::SetUp {
            volume: volume.name.clone(),
            reason,
        };
        let done = threads.run(&about, set_up).await;
        let path = done.map_err(|error| failed(error.into()))?.map_err(failed)?;
        ready.insert(volume.name.clone(), path);
    }
    Ok(ready)
}

/// Where the emptyDir of this name is, in the pod's own folder.
pub(crate) fn empty_dir_path(pod_dir: &Path, name: &str) -> PathBuf {
    pod_dir.join(VOLUMES).join(EMPTY_DIRS).join(name)
}

/// Unmounts and removes what [`prepare`] made in `pod_dir`; the pod's containers must have ended. Never touches what a
/// hostPath names, nor anything behind a link or a mount. What takes long goes on after the error, and the next try
/// finds it done.
pub(crate) async fn tear_down(pod_dir: &Path) -> Result<(), VolumeError> {
    let folder = pod_dir.to_path_buf();
    let tear_down = move || tear_down::tear_down_now(&folder);
    match REMOVALS.run(pod_dir, tear_down).await {
        Ok(result) => result,
        Err(NoAnswer::InTime { path, .. }) => Err(VolumeError::StillRemoving { folder: path }),
        Err(source) => Err(VolumeError::NoThread {
            folder: pod_dir.to_path_buf(),
            source,
        }),
    }
}

fn set_up(pod: &Pod, volume: &Volume, pod_dir: &Path) -> Result<PathBuf, SetUpError> {
    if let Some(host_path) = &volume.host_path {
        return set_up_host_path(host_path);
    }
    let Some(empty_dir) = &volume.empty_dir else {
        return Err(SetUpError::Unsupported);
    };
    let path = empty_dir_path(pod_dir, &volume.name);
    make_folders(path.parent().unwrap_or(pod_dir), FOLDER_MODE)?;
    let group = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.as_ref()?.fs_group)
        .and_then(|group| u32::try_from(group).ok());
    match empty_dir.medium.as_deref() {
        None | Some("") => set_up_folder(&path, group)?,
        Some("Memory") => set_up_memory(&path, group, memory_size(pod, empty_dir))?,
        Some(_) => return Err(SetUpError::Unsupported),
    }
    Ok(path)
}

/// An emptyDir on the disk. It appears under its name with its owner and mode, so that what exists is whole, and what
/// a container has since made of its mode is left as it is.
#[expect(
    clippy::disallowed_methods,
    reason = "the state folder is root's, and this is a thread of EMPTY_DIRS, or of VOLUMES for a path of the host"
)]
fn set_up_folder(path: &Path, group: Option<u32>) -> Result<(), SetUpError> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => {
            return Err(SetUpError::Occupied {
                path: path.to_path_buf(),
            });
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("look at", path)(error)),
        Err(_) => {}
    }
    // A volume's name has no dot, so that this is no other volume's; a crash may have left it half made.
    let draft = path.with_extension("new");
    make_folders(&draft, FOLDER_MODE)?;
    let folder = open_folder(&draft).map_err(failed("open", &draft))?;
    // First the owner: changing it clears the set-group-ID bit.
    fchown(&folder, None, group).map_err(failed("change the group of", &draft))?;
    folder
        .set_permissions(Permissions::from_mode(empty_dir_mode(group)))
        .map_err(failed("change the mode of", &draft))?;
    fs::rename(&draft, path).map_err(failed("make", path))
}

/// An emptyDir of medium Memory: a tmpfs of its own. One that is mounted is kept, with the files in it.
#[expect(
    clippy::disallowed_methods,
    reason = "the state folder is root's, and this is a thread of EMPTY_DIRS, or of VOLUMES for a path of the host"
)]
fn set_up_memory(path: &Path, group: Option<u32>, size: Option<i64>) -> Result<(), SetUpError> {
    make_folders(path, FOLDER_MODE)?;
    let device = |path: &Path| fs::symlink_metadata(path).map(|found| found.dev());
    let parent = path.parent().unwrap_or(path);
    let is_mounted = device(path).map_err(failed("look at", path))?
        != device(parent).map_err(failed("look at", parent))?;
    if is_mounted {
        let is_memory = statfs(path)
            .map_err(io::Error::from)
            .map_err(failed("look at", path))?
            .filesystem_type()
            == TMPFS_MAGIC;
        return match is_memory {
            true => Ok(()),
            false => Err(SetUpError::Occupied {
                path: path.to_path_buf(),
            }),
        };
    }
    // Without a limit all of the machine's memory, as a kubelet that does not know less.
    let size = size.map_or("100%".to_owned(), |bytes| bytes.to_string());
    let owner = group.map_or(String::new(), |group| format!(",gid={group}"));
    let options = format!("size={size},mode={:o}{owner}", empty_dir_mode(group));
    nix::mount::mount(
        Some("tmpfs"),
        path,
        Some("tmpfs"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .map_err(io::Error::from)
    .map_err(failed("mount memory at", path))
}

fn empty_dir_mode(group: Option<u32>) -> u32 {
    group.map_or(EMPTY_DIR_MODE, |_| EMPTY_DIR_MODE | SET_GROUP_ID)
}

/// The size of a memory volume in bytes: its `sizeLimit`, but not more than the pod's memory limit.
fn memory_size(pod: &Pod, empty_dir: &EmptyDirVolumeSource) -> Option<i64> {
    let own = empty_dir.size_limit.as_ref().and_then(bytes);
    [own, memory_limit(pod)].into_iter().flatten().min()
}

/// The most memory that the pod may use, in bytes: what its containers may use together, or an init container alone;
/// `None` when one of them has no limit.
fn memory_limit(pod: &Pod) -> Option<i64> {
    let spec = pod.spec.as_ref()?;
    let limit = |container: &Container| bytes(container.resources.as_ref()?.limits.as_ref()?.get("memory")?);
    // Each limit fits into an i64, and their sum may not.
    let add = |sum: i64, container: &Container| Some(sum.saturating_add(limit(container)?));
    let together = spec.containers.iter().try_fold(0, add)?;
    let alone = spec
        .init_containers
        .iter()
        .flatten()
        .map(limit)
        .collect::<Option<Vec<_>>>()?;
    alone.into_iter().chain([together]).max()
}

fn bytes(quantity: &Quantity) -> Option<i64> {
    let bytes = Amount::parse(&quantity.0).ok()?.value();
    (bytes > 0).then_some(bytes)
}

/// Checks a hostPath against its type (Kubernetes `HostPathType`), and makes what `...OrCreate` asks for.
#[expect(
    clippy::disallowed_methods,
    reason = "the state folder is root's, and this is a thread of EMPTY_DIRS, or of VOLUMES for a path of the host"
)]
fn set_up_host_path(host_path: &HostPathVolumeSource) -> Result<PathBuf, SetUpError> {
    let path = PathBuf::from(&host_path.path);
    let kind = host_path.type_.as_deref().unwrap_or_default();
    let (expected, is_expected): (_, fn(&fs::FileType) -> bool) = match kind {
        "" => return Ok(path),
        "Directory" | "DirectoryOrCreate" => ("a directory", fs::FileType::is_dir),
        "File" | "FileOrCreate" => ("a file", fs::FileType::is_file),
        "Socket" => ("a socket file", FileTypeExt::is_socket),
        "CharDevice" => ("a character device", FileTypeExt::is_char_device),
        "BlockDevice" => ("a block device", FileTypeExt::is_block_device),
        _ => return Err(SetUpError::Unsupported),
    };
    if kind.ends_with("OrCreate") && !path.try_exists().map_err(failed("look at", &path))? {
        match kind {
            "DirectoryOrCreate" => make_folders(&path, HOST_DIRECTORY_MODE)?,
            // Its folder must exist.
            _ => {
                let mut options = OpenOptions::new();
                options.create_new(true).append(true).mode(HOST_FILE_MODE);
                match options.open(&path) {
                    // Somebody was faster; what it is, is looked at below.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    made => drop(made.map_err(failed("make", &path))?),
                }
            }
        }
    }
    match untrusted_file::metadata(&path) {
        Ok(found) if is_expected(&found.file_type()) => Ok(path),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("look at", &path)(error)),
        Ok(_) | Err(_) => Err(SetUpError::HostPathType {
            path: host_path.path.clone(),
            expected,
        }),
    }
}

/// Makes the folder and those above it that are missing.
#[expect(
    clippy::disallowed_methods,
    reason = "the state folder is root's, and this is a thread of EMPTY_DIRS, or of VOLUMES for a path of the host"
)]
fn make_folders(path: &Path, mode: u32) -> Result<(), SetUpError> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(failed("make", path))
}

/// Opens the folder itself: not one that a link leads to.
#[expect(
    clippy::disallowed_methods,
    reason = "the state folder is root's, and this is a thread of EMPTY_DIRS, or of VOLUMES for a path of the host"
)]
fn open_folder(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(path)
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SetUpError {
    let path = path.to_path_buf();
    move |source| SetUpError::File { step, path, source }
}

#[cfg(test)]
mod tests;
