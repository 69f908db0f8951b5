//! What the systemd watchdog goes by: an agent that cannot do this any more records nothing, and is restarted.

use std::sync::Arc;

use crate::store::Store;

/// Ends once everything has answered that the agent needs for its work: the store, the threads that write, and those of
/// tokio that may block. An error is an answer: a restart makes no room on a full disk. The runtime is not asked.
pub(super) async fn sign_of_life(store: &Arc<Store>) {
    drop(store.node_report());
    let blocking = tokio::task::spawn_blocking(|| ());
    let (_, _) = tokio::join!(store.write_sign_of_life(), blocking);
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::sync::{Barrier, mpsc};
    use std::time::Duration;

    use super::*;
    use crate::store::disk::Disk;
    use crate::write_threads::tests::occupy;

    /// Longer than a sign of life takes, while everything answers.
    const LONG: Duration = Duration::from_secs(5);
    /// How long one that must not come is waited for.
    const SHORT: Duration = Duration::from_millis(200);

    fn store(folder: &std::path::Path) -> Arc<Store> {
        Store::load("node1", Disk::open(folder).unwrap()).unwrap().0
    }

    async fn comes(sign: impl Future<Output = ()>, within: Duration) -> bool {
        tokio::time::timeout(within, sign).await.is_ok()
    }

    #[tokio::test]
    async fn there_is_none_while_a_durable_write_hangs_and_again_once_it_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        assert!(comes(sign_of_life(&store), LONG).await);
        assert!(folder.path().join("alive").is_file());
        let release = occupy(store.write_threads()).await;
        let mut sign = std::pin::pin!(sign_of_life(&store));
        assert!(!comes(&mut sign, SHORT).await);
        drop(release);
        assert!(comes(sign, LONG).await);
    }

    #[test]
    fn there_is_none_while_the_threads_hang_on_which_all_else_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let begun = Arc::new(Barrier::new(3));
        let releases: Vec<_> = (0..2)
            .map(|_| {
                let (release, released) = mpsc::channel::<()>();
                let begun = Arc::clone(&begun);
                drop(runtime.spawn_blocking(move || {
                    begun.wait();
                    released.recv()
                }));
                release
            })
            .collect();
        begun.wait();
        runtime.block_on(async {
            let mut sign = std::pin::pin!(sign_of_life(&store));
            assert!(!comes(&mut sign, SHORT).await);
            drop(releases);
            assert!(comes(sign, LONG).await);
        });
    }

    #[tokio::test]
    async fn a_disk_that_refuses_every_write_has_answered() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        std::fs::create_dir(folder.path().join("alive.new")).unwrap();
        assert!(comes(sign_of_life(&store), LONG).await);
        assert!(!folder.path().join("alive").exists());
    }
}
