//! Everybody who follows a log shares one inotify instance: the kernel gives root 128 of them on most nodes, and the
//! kubelet, systemd and others need theirs.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::log_file::LogFile;
use crate::untrusted_file::LOGS;

/// How many logs are followed at once; each one holds an open file and a connection.
pub(crate) const MAX_FOLLOWERS: usize = 512;

/// How often a followed file is looked at where the kernel has no inotify instance or no watch left to give.
const POLL_PERIOD: Duration = Duration::from_millis(250);
/// How often a followed file is looked at beside inotify, which drops events under load.
const SAFETY_PERIOD: Duration = Duration::from_secs(10);

/// What wakes a follower: nobody's reading of the folder.
const CHANGES: AddWatchFlags = AddWatchFlags::IN_MODIFY
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_CLOSE_WRITE)
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);

/// The places of those who follow logs, and the one inotify instance that wakes them. The API owns it.
#[derive(Debug)]
pub(crate) struct LogFollowers {
    places: Arc<Semaphore>,
    watcher: Arc<Mutex<Option<Arc<Watcher>>>>,
}

impl Default for LogFollowers {
    fn default() -> LogFollowers {
        LogFollowers::new(MAX_FOLLOWERS)
    }
}

impl LogFollowers {
    /// Room for so many at once.
    pub(super) fn new(most: usize) -> LogFollowers {
        LogFollowers {
            places: Arc::new(Semaphore::new(most)),
            watcher: Arc::default(),
        }
    }

    /// A place to follow a log; none where all are taken.
    pub(crate) fn place(&self) -> Option<Place> {
        Some(Place {
            permit: Arc::clone(&self.places).try_acquire_owned().ok()?,
            watcher: Arc::clone(&self.watcher),
        })
    }
}

/// The place of one follower; free for the next when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    permit: OwnedSemaphorePermit,
    watcher: Arc<Mutex<Option<Arc<Watcher>>>>,
}

impl Place {
    /// Watches the folder of `log`; where that cannot be, the log is looked at now and then.
    pub(super) async fn watch(self, log: &LogFile) -> Changes {
        let happened = Arc::new(Notify::new());
        let watch = match self.watcher() {
            Ok(watcher) => Watch::add(watcher, log, Arc::clone(&happened)).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &watch {
            let path = log.path().display();
            tracing::warn!(%path, %error, "cannot watch a log, looking at it now and then instead");
        }
        Changes {
            watch: watch.ok(),
            happened,
            _place: self.permit,
        }
    }

    /// The watcher, which the first follower makes. One that could not be made is tried again by the next.
    fn watcher(&self) -> io::Result<Arc<Watcher>> {
        let mut watcher = lock(&self.watcher);
        if let Some(watcher) = &*watcher {
            return Ok(Arc::clone(watcher));
        }
        let made = Arc::new(Watcher::start()?);
        Ok(Arc::clone(watcher.insert(made)))
    }
}

/// Wakes one follower when something happened in its log's folder.
pub(super) struct Changes {
    watch: Option<Watch>,
    happened: Arc<Notify>,
    _place: OwnedSemaphorePermit,
}

impl Changes {
    /// Waits for a change since the last call, or until it is time to look anyway.
    pub(super) async fn changed(&self) {
        let is_watched = self.watch.as_ref().is_some_and(Watch::is_alive);
        let period = if is_watched { SAFETY_PERIOD } else { POLL_PERIOD };
        // Too late is as good as a change.
        let _ = tokio::time::timeout(period, self.happened.notified()).await;
    }
}

/// One inotify instance and the thread that reads its events, until this is dropped.
#[derive(Debug)]
struct Watcher {
    instance: Arc<Inotify>,
    folders: Arc<Mutex<Folders>>,
    /// Closed with this: then the thread ends.
    _stop: UnixStream,
}

/// Who follows logs in which folder. The kernel has one watch for a folder, whoever asks.
#[derive(Debug, Default)]
struct Folders {
    followers: HashMap<WatchDescriptor, HashMap<u64, Arc<Notify>>>,
    next_follower: u64,
    /// How many watches were given back: one that was added before and is not noted yet may be among them.
    removals: u64,
}

impl Watcher {
    fn start() -> io::Result<Watcher> {
        let instance = Arc::new(Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?);
        let folders = Arc::<Mutex<Folders>>::default();
        let (stop, stopped) = UnixStream::pair()?;
        let reader = (Arc::clone(&instance), Arc::clone(&folders));
        std::thread::Builder::new()
            .name("log-followers".to_owned())
            .spawn(move || {
                let (instance, folders) = reader;
                if let Err(error) = read_events(&instance, &folders, &stopped) {
                    tracing::error!("the events of logs' folders cannot be read: {error}");
                    // Their followers look now and then.
                    lock(&folders).followers.clear();
                }
            })?;
        Ok(Watcher {
            instance,
            folders,
            _stop: stop,
        })
    }
}

/// Wakes followers until the other end of `stopped` is closed.
fn read_events(instance: &Inotify, folders: &Mutex<Folders>, stopped: &UnixStream) -> nix::Result<()> {
    loop {
        let mut ready = [instance.as_fd(), stopped.as_fd()].map(|of| PollFd::new(of, PollFlags::POLLIN));
        match poll(&mut ready, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            polled => polled?,
        };
        if ready[1].any() == Some(true) {
            return Ok(());
        }
        match instance.read_events() {
            Ok(events) => lock(folders).wake(&events),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

impl Folders {
    fn wake(&mut self, events: &[InotifyEvent]) {
        for event in events {
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                let all = self.followers.values().flat_map(HashMap::values);
                all.for_each(|follower| follower.notify_one());
            }
            let of_folder = self.followers.get(&event.wd).into_iter();
            of_folder
                .flat_map(HashMap::values)
                .for_each(|follower| follower.notify_one());
            // The folder is gone, and the kernel's watch with it.
            if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                self.followers.remove(&event.wd);
            }
        }
    }
}

/// One follower's share in the watch of a folder, given back when it is dropped.
struct Watch {
    watcher: Arc<Watcher>,
    descriptor: WatchDescriptor,
    follower: u64,
}

impl Watch {
    async fn add(watcher: Arc<Watcher>, log: &LogFile, happened: Arc<Notify>) -> io::Result<Watch> {
        loop {
            let removals = lock(&watcher.folders).removals;
            let (instance, folder) = (Arc::clone(&watcher.instance), log.folder_path().to_path_buf());
            let add = move || Ok(instance.add_watch(&folder, CHANGES)?);
            let descriptor = LOGS.run_io(log.path(), add).await?;
            let mut folders = lock(&watcher.folders);
            if folders.removals != removals && !folders.followers.contains_key(&descriptor) {
                // It may be one that somebody else has just given back.
                continue;
            }
            let follower = folders.next_follower;
            folders.next_follower += 1;
            let of_folder = folders.followers.entry(descriptor).or_default();
            of_folder.insert(follower, happened);
            drop(folders);
            return Ok(Watch {
                watcher,
                descriptor,
                follower,
            });
        }
    }

    /// Whether the folder is still there and watched.
    fn is_alive(&self) -> bool {
        lock(&self.watcher.folders)
            .followers
            .contains_key(&self.descriptor)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut folders = lock(&self.watcher.folders);
        let Some(of_folder) = folders.followers.get_mut(&self.descriptor) else {
            return;
        };
        of_folder.remove(&self.follower);
        if of_folder.is_empty() {
            folders.followers.remove(&self.descriptor);
            folders.removals += 1;
            // The kernel has dropped it by itself where the folder is gone (EINVAL).
            let _: Result<(), Errno> = self.watcher.instance.rm_watch(self.descriptor);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use super::*;

    /// The lines of all inotify instances of this process that watch these inodes, and of how many instances they are.
    fn watches_of(inodes: &[u64]) -> (usize, usize) {
        let (mut instances, mut watches) = (0, 0);
        for descriptor in std::fs::read_dir("/proc/self/fdinfo").unwrap().flatten() {
            let Ok(info) = std::fs::read_to_string(descriptor.path()) else {
                continue; // closed meanwhile
            };
            let of_ours = info
                .lines()
                .filter_map(|line| line.strip_prefix("inotify ")?.split_once("ino:"))
                .filter_map(|(_, rest)| u64::from_str_radix(rest.split(' ').next()?, 16).ok())
                .filter(|inode| inodes.contains(inode))
                .count();
            instances += usize::from(of_ours > 0);
            watches += of_ours;
        }
        (instances, watches)
    }

    fn log_in(root: &Path, folder: usize) -> LogFile {
        let folder = root.join(format!("shop_web_{folder}/app"));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("0.log");
        std::fs::write(&path, "").unwrap();
        LogFile::new(root, &path)
    }

    #[tokio::test]
    async fn three_hundred_followers_use_one_inotify_instance_with_one_watch_for_each_folder() {
        const FOLDERS: usize = 100;
        let root = tempfile::tempdir().unwrap();
        let logs: Vec<LogFile> = (0..FOLDERS).map(|folder| log_in(root.path(), folder)).collect();
        let inodes: Vec<u64> = logs
            .iter()
            .map(|log| std::fs::metadata(log.folder_path()).unwrap().ino())
            .collect();
        let followers = LogFollowers::default();
        let mut all = Vec::new();
        for log in logs.iter().cycle().take(3 * FOLDERS) {
            all.push(followers.place().unwrap().watch(log).await);
        }
        assert_eq!(watches_of(&inodes), (1, FOLDERS));

        // Each one of a folder hears of it, and nobody else.
        std::fs::write(logs[7].path(), "a line").unwrap();
        for changes in all.iter().skip(7).step_by(FOLDERS) {
            changes.happened.notified().await;
        }
        let quiet = all[8].happened.notified();
        let quiet = tokio::time::timeout(Duration::ZERO, quiet).await;
        assert!(quiet.is_err(), "a neighbour's change");

        all.truncate(FOLDERS + 1);
        assert_eq!(watches_of(&inodes), (1, FOLDERS), "one follower of each is left");
        all.truncate(1);
        assert_eq!(watches_of(&inodes), (1, 1));
        // One that comes again is woken again.
        let again = followers.place().unwrap().watch(&logs[7]).await;
        std::fs::write(logs[7].path(), "another").unwrap();
        again.happened.notified().await;
    }

    #[tokio::test]
    async fn places_are_bounded_and_free_again_when_a_follower_leaves() {
        let root = tempfile::tempdir().unwrap();
        let log = log_in(root.path(), 0);
        let followers = LogFollowers::new(2);
        let first = followers.place().unwrap().watch(&log).await;
        let _second = followers.place().unwrap();
        assert!(followers.place().is_none());
        drop(first);
        assert!(followers.place().is_some());
    }

    #[tokio::test]
    async fn a_folder_that_is_gone_or_was_never_there_is_looked_at_now_and_then() {
        let root = tempfile::tempdir().unwrap();
        let log = log_in(root.path(), 0);
        let followers = LogFollowers::default();
        let changes = followers.place().unwrap().watch(&log).await;
        assert!(changes.watch.as_ref().unwrap().is_alive());
        std::fs::remove_dir_all(root.path().join("shop_web_0")).unwrap();
        while changes.watch.as_ref().unwrap().is_alive() {
            changes.happened.notified().await;
        }
        let missing = followers.place().unwrap().watch(&log).await;
        assert!(missing.watch.is_none());
        missing.changed().await;
    }
}
