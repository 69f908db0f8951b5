//! The files on the host that the containers of a pod need before they are made.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

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
    pod_dir.join(CONTAINERS).join(container).join(attempt.to_string())
}

/// The name of the pod's `/etc/hosts` in the pod's folder.
const ETC_HOSTS: &str = "etc-hosts";
/// Its mode.
const ETC_HOSTS_MODE: u32 = 0o644;
/// Held while a pod's `/etc/hosts` is looked at and written: the containers of a pod are launched side by side and are to
/// have the same file.
static HOSTS: Mutex<()> = Mutex::new(());
/// The name of the folder with the files of the pod's containers, in the pod's folder.
const CONTAINERS: &str = "containers";
/// The mode of a termination message's file: its container may run as anybody.
const TERMINATION_LOG_MODE: u32 = 0o666;
/// How much of the disk a short file may use, in bytes: what is allocated behind its end fills the disk, too.
const MOST_ALLOCATED: u64 = 64 * 1024;
/// The unit of `st_blocks`, in bytes.
const BLOCK_BYTES: u64 = 512;

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
    // A new file: an earlier container of this attempt may hold the old one.
    Folder::open(folder)
        .and_then(|folder| folder.replace_file(name_of(&termination_log), TERMINATION_LOG_MODE, b""))
        .map_err(failed("write", &termination_log))?;
    let hosts = pod_dir.join(ETC_HOSTS);
    keep_hosts(pod_dir, etc_hosts.as_bytes()).map_err(failed("write", &hosts))?;
    Ok(ContainerFiles {
        etc_hosts: hosts,
        termination_log,
    })
}

/// Sees to it that the pod's `/etc/hosts` says this, and never reads it beyond that. Running containers have this very
/// file mounted, so it is changed in place. Where one of them keeps it from being changed a new file takes its place, which
/// those see that are made from then on.
fn keep_hosts(pod_dir: &Path, content: &[u8]) -> io::Result<()> {
    let _one_at_a_time = HOSTS.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Folder::open(pod_dir)?;
    let path = Path::new(ETC_HOSTS);
    let is_right = || -> io::Result<bool> {
        let file = folder.file(path)?;
        let length = file.metadata()?.len();
        Ok(length == content.len() as u64 && read_range(&file, 0, content.len())? == content)
    };
    if is_right().unwrap_or(false) {
        return Ok(());
    }
    let change = || -> io::Result<()> {
        let file = folder.file_to_change(path)?;
        file.write_all_at(content, 0)?;
        file.set_len(content.len() as u64)
    };
    change().or_else(|_| folder.replace_file(OsStr::new(ETC_HOSTS), ETC_HOSTS_MODE, content))
}

/// The last `bytes` of a file that a container which has ended could write; nothing where it cannot be read, as when its pod
/// was never here. Of the file no more than that is kept: it may be what fills the disk. Blocks.
pub(crate) fn keep_end(file: &Path, bytes: usize) -> Vec<u8> {
    let keep = || -> io::Result<Vec<u8>> {
        let folder = Folder::open(file.parent().unwrap_or(Path::new("/")))?;
        let opened = folder.file(Path::new(name_of(file)))?;
        let found = opened.metadata()?;
        let start = found.len().saturating_sub(bytes as u64);
        let end = read_range(&opened, start, bytes)?;
        if start > 0 || found.blocks().saturating_mul(BLOCK_BYTES) > MOST_ALLOCATED {
            cut(&folder, name_of(file), &end);
        }
        Ok(end)
    };
    keep().unwrap_or_default()
}

/// Makes `content` all that is in a file. First in a way that a full disk allows: it is written over what is there. A file
/// that cannot be cut goes.
fn cut(folder: &Folder, name: &OsStr, content: &[u8]) {
    let in_place = || -> io::Result<()> {
        let file = folder.file_to_change(Path::new(name))?;
        // There may be nothing at its beginning: then there is room once the rest is gone.
        let over = file.write_all_at(content, 0);
        if over.is_err() {
            file.set_len(0)?;
            file.write_all_at(content, 0)?;
        }
        file.set_len(content.len() as u64)
    };
    let cut = in_place().or_else(|_| folder.replace_file(name, TERMINATION_LOG_MODE, content));
    if cut.is_err() {
        let _ = folder.remove_file(name);
    }
}

/// Removes the pod's `/etc/hosts`: its containers, which could write to it without a limit, have ended. Blocks.
pub(crate) fn remove_hosts(pod_dir: &Path) -> io::Result<()> {
    let removed = Folder::open(pod_dir).and_then(|folder| folder.remove_file(OsStr::new(ETC_HOSTS)));
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Removes what containers of the pod could write to in its folder, but for its volumes: a tombstone keeps records. Blocks.
#[expect(
    clippy::disallowed_methods,
    reason = "the pod's folder is root's alone; on a thread that may block"
)]
pub(crate) fn remove(pod_dir: &Path) -> io::Result<()> {
    remove_hosts(pod_dir)?;
    match fs::remove_dir_all(pod_dir.join(CONTAINERS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn name_of(file: &Path) -> &OsStr {
    file.file_name().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn whatever_a_container_makes_of_etc_hosts_it_says_again_what_it_should_and_stays_the_same_file() {
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
    fn containers_that_are_launched_at_once_share_one_etc_hosts() {
        for _ in 0..50 {
            let pod_dir = tempfile::tempdir().expect("a folder");
            let prepare = |container: &str| {
                let files =
                    prepare(pod_dir.path(), container, 0, "127.0.0.1\tlocalhost\n").expect("prepared");
                // What the runtime mounts into this container.
                fs::metadata(files.etc_hosts).expect("a file").ino()
            };
            let inodes: Vec<u64> = std::thread::scope(|scope| {
                let threads = ["one", "two", "three", "four"].map(|name| scope.spawn(move || prepare(name)));
                threads.map(|thread| thread.join().expect("it ends")).to_vec()
            });
            assert!(inodes.iter().all(|inode| *inode == inodes[0]), "{inodes:?}");
        }
    }

    /// Holds a lease on a file and takes it anew whenever it is broken, as a container can. It ends when dropped.
    struct Lease(std::process::Child);

    impl Lease {
        fn on(path: &Path, kind: &str) -> Lease {
            use std::io::Read;
            let script = format!(
                "import fcntl, os, signal, sys\n\
                 file = os.open(sys.argv[1], os.O_RDONLY)\n\
                 signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])\n\
                 fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.{kind})\n\
                 print('held', flush=True)\n\
                 while True:\n    signal.sigwait([signal.SIGIO])\n    \
                 fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)\n    \
                 fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.{kind})\n"
            );
            let mut holder = std::process::Command::new("python3")
                .args(["-c", &script])
                .arg(path)
                .stdout(std::process::Stdio::piped())
                .spawn()
                .expect("python3");
            let mut held = [0; 4];
            let mut said = holder.stdout.take().expect("its output");
            said.read_exact(&mut held).expect("the lease is held");
            Lease(holder)
        }
    }

    impl Drop for Lease {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn no_lease_of_a_container_and_no_program_that_it_runs_keeps_its_pod_from_another_launch() {
        let pod_dir = tempfile::tempdir().expect("a folder");
        let hosts = pod_dir.path().join("etc-hosts");
        let message = termination_log(pod_dir.path(), "app", 0);
        let prepare = |content: &str| {
            let files = prepare(pod_dir.path(), "app", 0, content).expect("prepared");
            assert_eq!(fs::read_to_string(&files.etc_hosts).expect("read"), content);
            assert_eq!(fs::read_to_string(&files.termination_log).expect("read"), "");
            for (path, mode) in [(&files.etc_hosts, 0o644), (&files.termination_log, 0o666)] {
                let found = fs::metadata(path).expect("a file").permissions().mode();
                assert_eq!(found & 0o777, mode, "{}", path.display());
            }
        };
        prepare("127.0.0.1\tlocalhost\n");
        for (turn, kind) in ["F_RDLCK", "F_WRLCK"].into_iter().enumerate() {
            let _leases = [&hosts, &message].map(|path| Lease::on(path, kind));
            for change in 0..3 {
                prepare(&format!("10.0.0.{turn}\tweb-{change}\n"));
            }
        }
        for path in [&hosts, &message] {
            fs::copy("/bin/sleep", path).expect("copied");
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("executable");
            let mut runs = std::process::Command::new(path)
                .arg("600")
                .spawn()
                .expect("it runs");
            prepare("127.0.0.1\tlocalhost\n");
            runs.kill().expect("killed");
            runs.wait().expect("ended");
        }
        let names = fs::read_dir(pod_dir.path()).expect("listed").count();
        assert_eq!(names, 2, "no draft is left");
    }

    #[test]
    fn of_a_termination_message_no_more_than_its_end_is_read_and_kept_and_nothing_of_what_is_no_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let kept = |name: &str| fs::read(path(name)).expect("read");
        fs::write(path("0"), "the end").expect("written");
        assert_eq!(keep_end(&path("0"), 4096), b"the end");
        assert_eq!(kept("0"), b"the end");
        assert_eq!(keep_end(&path("0"), 3), b"end");
        assert_eq!(kept("0"), b"end");
        let file = File::options().write(true).open(path("0")).expect("open");
        file.set_len(1 << 43).expect("sparse");
        assert_eq!(keep_end(&path("0"), 4), [0; 4]);
        assert_eq!(kept("0"), [0; 4]);
        let behind = nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE;
        nix::fcntl::fallocate(&file, behind, 0, 1 << 20).expect("allocated");
        assert_eq!(keep_end(&path("0"), 4), [0; 4]);
        assert!(
            file.metadata().expect("a file").blocks() <= 8,
            "nothing is behind its end"
        );

        fs::write(path("held"), "the end").expect("written");
        let lease = Lease::on(&path("held"), "F_RDLCK");
        assert_eq!(keep_end(&path("held"), 3), b"end");
        assert_eq!(kept("held"), b"end");
        drop(lease);

        std::os::unix::fs::symlink("/etc/passwd", path("1")).expect("a link");
        nix::unistd::mkfifo(&path("2"), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        for name in ["1", "2", "3"] {
            assert_eq!(keep_end(&path(name), 4096), b"", "{name}");
        }
    }

    #[test]
    fn a_termination_message_that_fills_its_disk_is_cut_there_and_its_end_is_kept() {
        use crate::private_mounts::{in_private_mounts, mount_memory};
        in_private_mounts(|root| {
            mount_memory(root, "1m");
            let path = root.join("0");
            // A file that begins with nothing has no room there for its end.
            for begin in [0, 64 * 1024] {
                let file = File::create(&path).expect("made");
                let mut at = begin;
                while file.write_all_at(&[b'x'; 4096], at).is_ok() {
                    at += 4096;
                }
                assert!(fs::write(root.join("more"), "x").is_err(), "the disk is full");
                assert_eq!(keep_end(&path, 4096), [b'x'; 4096]);
                assert_eq!(fs::read(&path).expect("kept"), [b'x'; 4096]);
                fs::write(root.join("more"), vec![1; 512 * 1024]).expect("there is room");
                fs::remove_file(root.join("more")).expect("removed");
            }
        });
    }

    #[test]
    fn nothing_that_a_container_could_write_to_stays_in_the_folder_of_a_pod_that_is_gone() {
        let pod_dir = tempfile::tempdir().expect("a folder");
        for _ in 0..2 {
            prepare(pod_dir.path(), "app", 0, "127.0.0.1\tlocalhost\n").expect("prepared");
            fs::write(pod_dir.path().join("pod.json"), "{}").expect("written");
            remove(pod_dir.path()).expect("removed");
            let left = fs::read_dir(pod_dir.path()).expect("listed");
            let left: Vec<_> = left.map(|file| file.expect("a name").file_name()).collect();
            assert_eq!(left, ["pod.json"]);
        }
        remove(pod_dir.path()).expect("it is gone");
        remove(Path::new("/no/such/pod")).expect("it was never there");
    }
}
