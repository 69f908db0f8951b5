//! The threads on which durable writes run. They do nothing else, so that nothing else that blocks a thread (a log on a
//! disk that does not answer, a scan of /proc) can hold up a record.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// How many writes may be under way at the same time; the next ones wait for a free thread.
const WRITE_THREADS: usize = 16;

/// The write did not come to its end: the agent is shutting down, or the write panicked, which is logged.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotRun;

/// The threads for durable writes. The state folder owns them ([`Disk`](crate::store::disk::Disk)). They are started when they are needed and end when they
/// are idle. Dropping this waits for no write that is under way.
#[derive(Debug)]
pub(crate) struct WriteThreads {
    /// Only its threads for blocking work are used. None only while it is dropped.
    runtime: Option<Runtime>,
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
        })
    }

    /// Runs `write` on one of the threads and gives what it returns. A write that has begun runs to its end, also where
    /// the caller stops waiting for it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        write: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NotRun> {
        let Some(runtime) = &self.runtime else {
            return Err(NotRun);
        };
        runtime.spawn_blocking(write).await.map_err(|error| {
            if error.is_panic() {
                tracing::error!("a durable write has panicked: {error}");
            }
            NotRun
        })
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
        let released = std::sync::Arc::new(std::sync::Mutex::new(released));
        let (begun, mut begins) = tokio::sync::mpsc::channel(WRITE_THREADS);
        for _ in 0..WRITE_THREADS {
            let (released, begun) = (std::sync::Arc::clone(&released), begun.clone());
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
    async fn a_write_that_panicked_is_told_and_the_next_one_runs() {
        let threads = WriteThreads::with(1).unwrap();
        assert_eq!(threads.run(|| -> i32 { panic!("a defect") }).await, Err(NotRun));
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
                read += 1;
            }
        }
        assert!(read > 20, "the store's files were read: {read}");
    }
}
