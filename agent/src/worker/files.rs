//! The files on the host that the containers of a pod need before they are made.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::untrusted_file::{Folder, read_range};

/// A file that could not be prepared.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {path}: {source}")]
pub(crate) struct FileError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_path_buf();
    move |source| FileError { step, path, source }
}

/// The files of one container, as paths on the host.
#[derive(Clone, Debug)]
pub(crate) struct ContainerFiles {
    /// The pod's `/etc/hosts`.
    pub(crate) etc_hosts: PathBuf,
    /// Where the container leaves its termination message.
    pub(crate) termination_log: PathBuf,
}

/// Where the termination message of a container's attempt is on the host.
pub(crate) fn termination_log(pod_dir: &Path, container: &str, attempt: u32) -> PathBuf {
    pod_dir
        .join("containers")
        .join(container)
        .join(attempt.to_string())
}

/// The name of the pod's `/etc/hosts` in the pod's folder.
const ETC_HOSTS: &str = "etc-hosts";

/// Prepares everything for one attempt of a container that lies in the pod's folder: an empty file for its termination
/// message, the pod's `/etc/hosts`. Blocks.
#[expect(
    clippy::disallowed_methods,
    reason = "the pod's folder is root's alone; on a thread that may block"
)]
pub(crate) fn prepare(
    pod_dir: &Path,
    container: &str,
    attempt: u32,
    etc_hosts: &str,
) -> Result<ContainerFiles, FileError> {
    let termination_log = termination_log(pod_dir, container, attempt);
    let folder = termination_log.parent().unwrap_or(pod_dir);
    fs::create_dir_all(folder).map_err(failed("create", folder))?;
    fs::write(&termination_log, "").map_err(failed("write", &termination_log))?;
    // The container may run as anybody.
    fs::set_permissions(&termination_log, fs::Permissions::from_mode(0o666))
        .map_err(failed("open up", &termination_log))?;
    let hosts = pod_dir.join(ETC_HOSTS);
    keep_hosts(pod_dir, etc_hosts.as_bytes()).map_err(failed("write", &hosts))?;
    Ok(ContainerFiles {
        etc_hosts: hosts,
        termination_log,
    })
}

/// Sees to it that the pod's `/etc/hosts` says this. Running containers have this very file mounted and may write to it:
/// it is changed in place, and only if it must be, and never read beyond what it should say.
fn keep_hosts(pod_dir: &Path, content: &[u8]) -> io::Result<()> {
    let folder = Folder::open(pod_dir)?;
    let file = match folder.file_to_change(Path::new(ETC_HOSTS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            folder.new_file(OsStr::new(ETC_HOSTS), 0o644)?
        }
        file => file?,
    };
    let length = content.len() as u64;
    if file.metadata()?.len() == length && read_range(&file, 0, content.len())? == content {
        return Ok(());
    }
    file.write_all_at(content, 0)?;
    file.set_len(length)
}

/// The last `bytes` of a file that a container may write; nothing where it cannot be read, as when its pod was never
/// here. Blocks.
pub(crate) fn read_end(file: &Path, bytes: usize) -> Vec<u8> {
    let read = || -> io::Result<Vec<u8>> {
        let folder = Folder::open(file.parent().unwrap_or(Path::new("/")))?;
        let file = folder.file(Path::new(file.file_name().unwrap_or_default()))?;
        let start = file.metadata()?.len().saturating_sub(bytes as u64);
        read_range(&file, start, bytes)
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn whatever_a_container_makes_of_etc_hosts_it_says_again_what_it_should_and_stays_the_same_file() {
        use std::os::unix::fs::MetadataExt;
        let pod_dir = tempfile::tempdir().expect("a folder");
        let path = pod_dir.path().join("etc-hosts");
        let hosts = "127.0.0.1\tlocalhost\n";
        let prepare = || prepare(pod_dir.path(), "app", 0, hosts).expect("prepared");
        prepare();
        let inode = || fs::metadata(&path).expect("a file").ino();
        let first = inode();
        // As large as any memory: reading it would end the process.
        let extend = |length: u64| {
            let file = File::options().write(true).open(&path).expect("open");
            file.set_len(length).expect("sparse");
        };
        let vandals: [&dyn Fn(); 4] = [&|| extend(1 << 43), &|| extend(0), &|| extend(5), &|| {
            fs::write(&path, "127.0.0.1\tlocal-host\n").expect("written");
        }];
        for vandal in vandals {
            vandal();
            prepare();
            assert_eq!(fs::read_to_string(&path).expect("read"), hosts);
            assert_eq!(inode(), first);
        }
        let written = fs::metadata(&path).expect("a file").modified().expect("its time");
        prepare();
        let again = fs::metadata(&path).expect("a file").modified().expect("its time");
        assert_eq!(again, written, "it is left alone where it is right");
    }

    #[test]
    fn of_a_termination_message_no_more_than_its_end_is_read_and_nothing_of_what_is_no_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("0"), "the end").expect("written");
        assert_eq!(read_end(&path("0"), 4096), b"the end");
        assert_eq!(read_end(&path("0"), 3), b"end");
        let file = File::options().write(true).open(path("0")).expect("open");
        file.set_len(1 << 43).expect("sparse");
        assert_eq!(read_end(&path("0"), 4), [0; 4]);
        std::os::unix::fs::symlink("/etc/passwd", path("1")).expect("a link");
        nix::unistd::mkfifo(&path("2"), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        for name in ["1", "2", "3"] {
            assert_eq!(read_end(&path(name), 4096), b"", "{name}");
        }
    }
}
