//! The threads on which durable writes run. They do nothing else, so that nothing else that blocks a thread (a log on a
//! disk that does not answer, a scan of /proc) can hold up a record.

use std::fmt::Debug;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use tokio::runtime::{Builder, Runtime};

use crate::panic_message;

/// How many writes may be under way at the same time; the next ones wait for a free thread.
const WRITE_THREADS: usize = 16;

/// Why a write did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotRun {
    /// The agent is shutting down.
    #[error("the agent is shutting down")]
    ShuttingDown,
    /// The write panicked, which is a defect. How much of it was done is not known.
    #[error("debuglet panicked while it wrote to the disk: {message}")]
    Panicked {
        /// The message of the panic.
        message: String,
    },
}

/// Who is told of a write that panicked.
pub(crate) trait PanicObserver: Debug + Send + Sync {
    /// A write panicked with this message.
    fn write_panicked(&self, message: &str);
}

/// The threads for durable writes. The state folder owns them ([`Disk`](crate::store::disk::Disk)). They are started when they are needed and end when they
/// are idle. Dropping this waits for no write that is under way.
#[derive(Debug)]
pub(crate) struct WriteThreads {
    /// Only its threads for blocking work are used. None only while it is dropped.
    runtime: Option<Runtime>,
    panic_observer: Arc<OnceLock<Box<dyn PanicObserver>>>,
}

impl WriteThreads {
    /// Prepares the threads, none of which runs yet.
    pub(crate) fn new() -> io::Result<WriteThreads> {
        WriteThreads::with(WRITE_THREADS)
    }

    fn with(threads: usize) -> io::Result<WriteThreads> {
        let runtime = Builder::new_current_thread()
            .max_blocking_threads(threads)
            .thread_name("debuglet-write")
            .build()?;
        Ok(WriteThreads {
            runtime: Some(runtime),
            panic_observer: Arc::default(),
        })
    }

    /// Tells `observer` of each write that panics from now on. Only the first call counts.
    pub(crate) fn observe_panics(&self, observer: impl PanicObserver + 'static) {
        let _ = self.panic_observer.set(Box::new(observer));
    }

    /// Runs `write` on one of the threads and gives what it returns. A write that has begun runs to its end, also where
    /// the caller stops waiting for it.
    ///
    /// # Errors
    ///
    /// When the threads have ended, or the write panicked. The observer of panics is told of a panic, also where the
    /// caller does not wait any more.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        write: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NotRun> {
        let Some(runtime) = &self.runtime else {
            return Err(NotRun::ShuttingDown);
        };
        let observer = Arc::clone(&self.panic_observer);
        // Caught on the thread, so that a panic is told also where nobody waits for the write any more.
        let write = move || {
            catch_unwind(AssertUnwindSafe(write)).map_err(|panic| {
                let message = panic_message::of(&*panic);
                tracing::error!("a write to the disk panicked: {message}");
                if let Some(observer) = observer.get() {
                    observer.write_panicked(&message);
                }
                NotRun::Panicked { message }
            })
        };
        // What waits for a thread is cancelled when the threads end.
        let written = runtime.spawn_blocking(write).await;
        written.map_err(|_| NotRun::ShuttingDown)?
    }
}

impl Drop for WriteThreads {
    fn drop(&mut self) {
        // Waiting is not possible in an async context, and a disk that does not answer is not worth waiting for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// Occupies every write thread until the sender is dropped.
    pub(crate) async fn occupy(threads: &WriteThreads) -> mpsc::Sender<()> {
        let (release, released) = mpsc::channel::<()>();
        let released = Arc::new(std::sync::Mutex::new(released));
        let (begun, mut begins) = tokio::sync::mpsc::channel(WRITE_THREADS);
        for _ in 0..WRITE_THREADS {
            let (released, begun) = (Arc::clone(&released), begun.clone());
            let write = move || {
                let _ = begun.blocking_send(());
                // All but one wait for the lock: a write that hangs on a disk.
                let _ = released.lock().map(|released| released.recv());
            };
            drop(
                threads
                    .runtime
                    .as_ref()
                    .map(|runtime| runtime.spawn_blocking(write)),
            );
        }
        for _ in 0..WRITE_THREADS {
            begins.recv().await;
        }
        release
    }

    #[tokio::test]
    async fn a_write_is_done_while_every_other_blocking_thread_waits() {
        let threads = WriteThreads::new().unwrap();
        let (release, released) = mpsc::channel::<()>();
        let waiting = tokio::task::spawn_blocking(move || released.recv());
        assert_eq!(threads.run(|| 7).await, Ok(7));
        drop(release);
        let _ = waiting.await;
    }

    #[tokio::test]
    async fn a_write_that_panicked_is_an_error_and_observed_and_the_next_one_runs() {
        #[derive(Debug)]
        struct Observed(mpsc::Sender<String>);
        impl PanicObserver for Observed {
            fn write_panicked(&self, message: &str) {
                self.0.send(message.to_owned()).unwrap();
            }
        }
        let threads = WriteThreads::with(1).unwrap();
        let (sender, observed) = mpsc::channel();
        threads.observe_panics(Observed(sender));
        let panicked = threads.run(|| -> i32 { panic!("a defect") }).await;
        let message = "a defect".to_owned();
        assert_eq!(panicked, Err(NotRun::Panicked { message }));
        assert_eq!(observed.try_iter().collect::<Vec<_>>(), ["a defect"]);
        assert_eq!(threads.run(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn a_write_that_hangs_holds_up_neither_the_drop_of_the_threads_nor_the_process() {
        let threads = WriteThreads::new().unwrap();
        let release = occupy(&threads).await;
        let late = tokio::time::timeout(Duration::from_millis(50), threads.run(|| 7)).await;
        assert!(late.is_err(), "every thread hangs");
        drop(threads);
        drop(release);
    }

    /// The rule of the module: nothing that the store writes waits for a thread that others can occupy.
    #[test]
    fn the_store_runs_nothing_on_the_threads_that_others_block() {
        let mut folders = vec![std::path::PathBuf::from(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/store"
        ))];
        let mut read = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                for shared in ["task::spawn_blocking", "block_in_place", "tokio::fs"] {
                    assert!(!text.contains(shared), "{} uses {shared}", path.display());
                }
                // What others write to may not answer: it is looked at there alone, on threads of its own.
                let looks = text.contains("Folder::open");
                assert!(
                    !looks || path.ends_with("store/earlier_logs.rs"),
                    "{}",
                    path.display()
                );
                read += 1;
            }
        }
        assert!(read > 20, "the store's files were read: {read}");
    }
}
