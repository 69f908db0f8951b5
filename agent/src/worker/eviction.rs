//! Evicts the pods that use more of the disk than they may: measures their volumes now and again, as a kubelet does.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::volumes::{self, Usage};
use crate::pod::eviction::LimitedVolume;
use crate::store::Store;

/// How often the volumes are measured (a kubelet's eviction manager looks every 10 s).
const INTERVAL: Duration = Duration::from_secs(10);
/// Where measuring takes long, the pause is this many times as long: it takes one thread for 5 % of the time at most.
const PAUSE_FACTOR: u32 = 20;

/// Measures until `shutdown`.
pub(crate) async fn run(store: Arc<Store>, shutdown: CancellationToken) {
    let measuring = async {
        let mut pause = INTERVAL;
        loop {
            tokio::time::sleep(pause).await;
            let started = Instant::now();
            look(&store).await;
            pause = INTERVAL.max(started.elapsed().saturating_mul(PAUSE_FACTOR));
        }
    };
    shutdown.run_until_cancelled(measuring).await;
}

/// Measures each volume that has a limit once, one after the other.
async fn look(store: &Arc<Store>) {
    for (uid, limited) in store.limited_volumes() {
        let pod_dir = store.pod_dir(&uid);
        let measuring = tokio::task::spawn_blocking(move || exceeded(&pod_dir, &limited));
        if let Ok(Some(message)) = measuring.await {
            store.evict(&uid, message).await;
        }
    }
}

/// What is said of the first of these volumes that has more than it may. Blocks.
fn exceeded(pod_dir: &Path, limited: &[LimitedVolume]) -> Option<String> {
    let exceeds = |volume: &&LimitedVolume| {
        let path = volumes::empty_dir_path(pod_dir, &volume.name);
        match volumes::usage(&path, volume.bytes) {
            Ok(Usage::Exceeds) => true,
            Ok(Usage::Within) => false,
            Ok(Usage::TooMuch(why)) => {
                tracing::warn!("{} is measured in part: {why}", path.display());
                false
            }
            Err(error) => {
                tracing::warn!("cannot measure {}: {error}", path.display());
                false
            }
        }
    };
    limited.iter().find(exceeds).map(LimitedVolume::exceeded)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::eviction::limited_volumes;

    #[test]
    fn the_first_volume_that_has_more_than_it_may_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let volumes = json!([
            {"name": "free", "emptyDir": {}},
            {"name": "never-made", "emptyDir": {"sizeLimit": "64Ki"}},
            {"name": "small", "emptyDir": {"sizeLimit": "64Ki"}},
            {"name": "scratch", "emptyDir": {"sizeLimit": "64Ki"}},
        ]);
        let pod = json!({"spec": {"containers": [], "volumes": volumes}});
        let limited = limited_volumes(&serde_json::from_value(pod).unwrap());
        for (name, bytes) in [("free", 1 << 20), ("small", 100), ("scratch", 1 << 20)] {
            let path = volumes::empty_dir_path(folder.path(), name);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("file"), vec![1; bytes]).unwrap();
        }
        let said = exceeded(folder.path(), &limited);
        let expected = "Usage of EmptyDir volume \"scratch\" exceeds the limit \"64Ki\".";
        assert_eq!(said.as_deref(), Some(expected));
        std::fs::remove_dir_all(volumes::empty_dir_path(folder.path(), "scratch")).unwrap();
        assert_eq!(exceeded(folder.path(), &limited), None);
    }
}
