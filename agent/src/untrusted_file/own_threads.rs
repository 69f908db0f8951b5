//! Threads for what may never end: a call on a path whose server is down does not return, and nothing can end it. Such a
//! call takes one of these threads, and its caller gets an error in time.
//!
//! Half of the threads are for any path. Of the other half each mount may take [`RESERVED_FOR_A_MOUNT`], so that a server
//! that is down, however many paths are on it, leaves threads for what lies elsewhere.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, oneshot};
use tokio::time::{timeout, timeout_at};

use super::mount_points::mount_point_of;

/// For logs: what reads them and lists their folders; what makes a folder where a pod's sandbox says that it is.
pub(crate) static LOGS: OwnThreads = OwnThreads::new(16, Duration::from_secs(30));
/// For what makes folders in that of all pods' logs: no launch waits for readers whose logs lie elsewhere.
pub(crate) static LOG_FOLDERS: OwnThreads = OwnThreads::new(16, Duration::from_secs(30));
/// For paths of the host that pods name, and any other path that is looked at for a container before it is made.
pub(crate) static VOLUMES: OwnThreads = OwnThreads::new(16, Duration::from_secs(10));
/// For the volumes that lie in the state folder: no launch waits for paths of the host which it does not need.
pub(crate) static EMPTY_DIRS: OwnThreads = OwnThreads::new(16, Duration::from_secs(10));
/// For the pieces in which it is measured how much of the disk volumes use.
pub(crate) static MEASUREMENTS: OwnThreads = OwnThreads::new(4, Duration::from_secs(30));
/// For the disk that the runtime keeps its images on.
pub(crate) static IMAGES: OwnThreads = OwnThreads::new(1, Duration::from_secs(10));
/// For what takes as long as there are files: the removal of volumes and logs. What is not done in time goes on.
pub(crate) static REMOVALS: OwnThreads = OwnThreads::new(8, Duration::from_secs(60));

/// How many of the reserved threads one mount may take.
const RESERVED_FOR_A_MOUNT: usize = 2;
/// Which part of the deadline a thread for any path is waited for, before it is looked up which mount the path lies on.
/// Without a server that is down, threads become free much sooner.
const WAIT_FOR_ANY: u32 = 100;

/// The stack of one thread, in bytes; nothing that runs here calls itself.
const STACK_BYTES: usize = 512 * 1024;

/// Why there is no answer about a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// The call has not returned in time. It may return later; until then each next one of the path fails at once.
    #[error("the volume's server does not answer: nothing came of {} in {} s", path.display(), deadline.as_secs())]
    InTime {
        /// What was looked at.
        path: PathBuf,
        /// How long it may take.
        deadline: Duration,
    },
    /// All threads that the path could have are taken by calls that do not return.
    #[error(
        "cannot look at {}: {calls} looks at other paths do not end, the longest at {}",
        path.display(),
        oldest.display()
    )]
    AllThreadsTaken {
        /// What was to be looked at.
        path: PathBuf,
        /// How many calls are under way.
        calls: usize,
        /// The path of the one that is under way the longest.
        oldest: PathBuf,
    },
    /// The system gives no thread.
    #[error("cannot look at {}: there is no thread for it: {reason}", path.display())]
    NoThread {
        /// What was to be looked at.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
}

impl From<NoAnswer> for io::Error {
    fn from(error: NoAnswer) -> io::Error {
        io::Error::new(io::ErrorKind::TimedOut, error)
    }
}

/// A bounded number of threads, each of which ends with its call. They belong to the process: one that hangs is not
/// waited for when the agent ends.
pub(crate) struct OwnThreads {
    deadline: Duration,
    /// The threads for any path.
    for_any: Semaphore,
    /// The threads of which no mount gets more than [`RESERVED_FOR_A_MOUNT`].
    reserved: Semaphore,
    /// What each mount may take of these, where somebody waits for it or has it.
    of_mounts: Mutex<BTreeMap<PathBuf, Weak<Semaphore>>>,
    calls: Mutex<Calls>,
}

/// The right to one thread, until it is dropped.
enum Place {
    ForAny {
        _permit: SemaphorePermit<'static>,
    },
    Reserved {
        _permit: SemaphorePermit<'static>,
        _of_mount: OwnedSemaphorePermit,
    },
}

/// The calls that are under way.
struct Calls {
    next: u64,
    under_way: Vec<Call>,
}

struct Call {
    number: u64,
    path: PathBuf,
    since: Instant,
}

impl OwnThreads {
    /// At most `most` threads, each with so much time.
    const fn new(most: usize, deadline: Duration) -> OwnThreads {
        OwnThreads {
            deadline,
            for_any: Semaphore::const_new(most.div_ceil(2)),
            reserved: Semaphore::const_new(most / 2),
            of_mounts: Mutex::new(BTreeMap::new()),
            calls: Mutex::new(Calls {
                next: 0,
                under_way: Vec::new(),
            }),
        }
    }

    /// How many calls on paths of one mount there may be at once beside those that are under way.
    #[cfg(test)]
    pub(crate) fn most_of_a_mount(&self) -> usize {
        self.for_any.available_permits() + RESERVED_FOR_A_MOUNT
    }

    /// Does `work`, which is about `path`, on a thread of its own. Dropped, the work goes on to its end and nobody hears
    /// of it.
    ///
    /// # Errors
    /// When it has no end in time, or there is no thread for it.
    pub(crate) async fn run<T: Send + 'static>(
        &'static self,
        path: &Path,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NoAnswer> {
        let latest = tokio::time::Instant::now() + self.deadline;
        let not_in_time = || NoAnswer::InTime {
            path: path.to_path_buf(),
            deadline: self.deadline,
        };
        if self.hangs_at(path) {
            return Err(not_in_time());
        }
        let Ok(Some(place)) = timeout_at(latest, self.place(path)).await else {
            let calls = self.lock();
            return Err(NoAnswer::AllThreadsTaken {
                path: path.to_path_buf(),
                calls: calls.under_way.len(),
                oldest: calls
                    .under_way
                    .first()
                    .map(|call| call.path.clone())
                    .unwrap_or_default(),
            });
        };
        let under_way = self.begin(path);
        let (answer, answered) = oneshot::channel();
        let run = move || {
            let _place = place;
            let _under_way = under_way;
            // Nobody may wait any more.
            let _ = answer.send(work());
        };
        std::thread::Builder::new()
            .name("untrusted-file".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(run)
            .map_err(|error| NoAnswer::NoThread {
                path: path.to_path_buf(),
                reason: error.to_string(),
            })?;
        match timeout_at(latest, answered).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(_)) => Err(NoAnswer::NoThread {
                path: path.to_path_buf(),
                reason: "it has panicked".to_owned(),
            }),
            Err(_) => Err(not_in_time()),
        }
    }

    /// [`OwnThreads::run`] for what answers as `std::io` does.
    pub(crate) async fn run_io<T: Send + 'static>(
        &'static self,
        path: &Path,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.run(path, work).await?
    }

    /// Waits for the right to a thread for `path`. Never `None`: the semaphores are not closed.
    async fn place(&'static self, path: &Path) -> Option<Place> {
        if let Ok(permit) = timeout(self.deadline / WAIT_FOR_ANY, self.for_any.acquire()).await {
            return Some(Place::ForAny {
                _permit: permit.ok()?,
            });
        }
        let of_mount = self.of_mount(mount_point_of(path).await);
        let reserved = async {
            let of_mount = of_mount.acquire_owned().await.ok()?;
            let permit = self.reserved.acquire().await.ok()?;
            Some(Place::Reserved {
                _permit: permit,
                _of_mount: of_mount,
            })
        };
        tokio::select! {
            permit = self.for_any.acquire() => Some(Place::ForAny { _permit: permit.ok()? }),
            place = reserved => place,
        }
    }

    /// What the mount may take of the reserved threads.
    fn of_mount(&self, mount: PathBuf) -> Arc<Semaphore> {
        let mut of_mounts = self.of_mounts.lock().unwrap_or_else(PoisonError::into_inner);
        of_mounts.retain(|_, semaphore| semaphore.strong_count() > 0);
        let known = of_mounts.get(&mount).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let semaphore = Arc::new(Semaphore::new(RESERVED_FOR_A_MOUNT));
            of_mounts.insert(mount, Arc::downgrade(&semaphore));
            semaphore
        })
    }

    /// Whether a call on this path is under way for longer than it may.
    fn hangs_at(&self, path: &Path) -> bool {
        let calls = self.lock();
        let mut of_path = calls.under_way.iter().filter(|call| call.path == path);
        of_path.any(|call| call.since.elapsed() >= self.deadline)
    }

    fn begin(&'static self, path: &Path) -> UnderWay {
        let mut calls = self.lock();
        let number = calls.next;
        calls.next += 1;
        calls.under_way.push(Call {
            number,
            path: path.to_path_buf(),
            since: Instant::now(),
        });
        UnderWay {
            threads: self,
            number,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call, until this is dropped.
struct UnderWay {
    threads: &'static OwnThreads,
    number: u64,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.threads
            .lock()
            .under_way
            .retain(|call| call.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::super::dead_server::DeadServer;
    use super::*;

    impl OwnThreads {
        fn free(&self) -> usize {
            self.for_any.available_permits() + self.reserved.available_permits()
        }
    }

    fn threads(most: usize, deadline: Duration) -> &'static OwnThreads {
        Box::leak(Box::new(OwnThreads::new(most, deadline)))
    }

    /// A call that returns when the sender is dropped.
    fn hanging() -> (mpsc::Sender<()>, impl FnOnce() + Send + 'static) {
        let (end, ended) = mpsc::channel();
        (end, move || {
            let _ = ended.recv();
        })
    }

    #[tokio::test]
    async fn a_call_that_does_not_return_is_an_error_in_time_and_no_other_is_begun_at_its_path() {
        let threads = threads(2, Duration::from_millis(50));
        let path = Path::new("/mnt/dead");
        let (end, hangs) = hanging();
        let error = threads.run(path, hangs).await.expect_err("no answer");
        assert!(matches!(&error, NoAnswer::InTime { path, .. } if path == Path::new("/mnt/dead")));
        assert!(
            error
                .to_string()
                .starts_with("the volume's server does not answer: nothing came of /mnt/dead in "),
            "{error}"
        );
        let again = threads.run(path, || panic!("it was begun")).await;
        assert_eq!(again.expect_err("no answer"), error);
        assert_eq!(threads.run(Path::new("/mnt/other"), || 7).await, Ok(7));
        drop(end);
        while threads.run(path, || ()).await.is_err() {
            tokio::task::yield_now().await;
        }
        // The thread is given back after the call has ended.
        while threads.free() < 2 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn calls_that_hang_take_a_bounded_number_of_threads_and_the_next_is_told_which() {
        let threads = threads(2, Duration::from_millis(50));
        let mut ends = Vec::new();
        for path in ["/mnt/one", "/mnt/two"] {
            let (end, hangs) = hanging();
            ends.push(end);
            threads.run(Path::new(path), hangs).await.expect_err("no answer");
        }
        let error = threads.run(Path::new("/srv"), || panic!("it was begun")).await;
        let error = error.expect_err("no thread").to_string();
        let expected = "cannot look at /srv: 2 looks at other paths do not end, the longest at /mnt/one";
        assert_eq!(error, expected);
        drop(ends);
        while threads.run(Path::new("/srv"), || ()).await.is_err() {}
    }

    #[tokio::test]
    async fn a_caller_that_leaves_frees_no_thread_before_the_call_has_returned() {
        let threads = threads(1, Duration::from_millis(50));
        let (end, hangs) = hanging();
        let left = timeout(
            Duration::from_millis(5),
            threads.run(Path::new("/mnt/dead"), hangs),
        );
        left.await.expect_err("it has left");
        let error = threads.run(Path::new("/srv"), || panic!("it was begun")).await;
        assert!(matches!(error, Err(NoAnswer::AllThreadsTaken { .. })));
        drop(end);
        while threads.run(Path::new("/srv"), || ()).await.is_err() {}
    }

    #[tokio::test]
    async fn a_file_system_whose_server_is_dead_holds_up_one_thread_and_an_error_says_so() {
        let threads = threads(2, Duration::from_millis(100));
        let server = DeadServer::mount();
        let path = server.folder().join("volume");
        let look = |path: PathBuf| move || std::fs::metadata(path).map(|_| ());
        for _ in 0..5 {
            let error = threads
                .run_io(&path, look(path.clone()))
                .await
                .expect_err("no answer");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        }
        assert_eq!(threads.free(), 1);
        // Its end is an answer, too.
        drop(server);
        while threads.free() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    #[tokio::test]
    async fn many_paths_on_a_server_that_is_dead_leave_threads_for_what_lies_elsewhere() {
        let threads = threads(16, Duration::from_millis(500));
        let (dead, also_dead) = (DeadServer::mount(), DeadServer::mount());
        let look = |path: PathBuf| async move {
            let touched = path.clone();
            threads
                .run_io(&path, move || std::fs::metadata(touched).map(|_| ()))
                .await
        };
        let paths = |server: &DeadServer| {
            let folder = server.folder().to_path_buf();
            (0..20).map(move |number| folder.join(number.to_string()))
        };
        let looks = paths(&dead).chain(paths(&also_dead)).map(look);
        for outcome in futures_util::future::join_all(looks).await {
            assert_eq!(outcome.expect_err("no answer").kind(), io::ErrorKind::TimedOut);
        }
        let elsewhere = tempfile::tempdir().expect("a folder");
        look(elsewhere.path().to_path_buf()).await.expect("an answer");
        let error = look(dead.folder().join("new")).await.expect_err("no thread");
        assert!(
            error.to_string().contains("looks at other paths do not end"),
            "{error}"
        );
        drop((dead, also_dead));
        while threads.free() < 16 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(
            threads
                .of_mounts
                .lock()
                .expect("no panic")
                .values()
                .all(|one| one.strong_count() == 0)
        );
    }
}
