//! Evicts the pods that use more of the disk than they may: measures their volumes now and again, as a kubelet does.
//!
//! Each pod is measured for itself, so that none whose volumes take long, or do not answer, keeps others from it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::volumes::{self, Usage};
use crate::pod::eviction::LimitedVolume;
use crate::store::Store;

/// How often the volumes are measured (a kubelet's eviction manager looks every 10 s).
const INTERVAL: Duration = Duration::from_secs(10);
/// Where measuring a pod takes long, the pause is this many times as long: it takes one thread for 5 % of the time at most.
const PAUSE_FACTOR: u32 = 20;

/// Measures until `shutdown`.
pub(crate) async fn run(store: Arc<Store>, shutdown: CancellationToken) {
    shutdown.run_until_cancelled(measure_all(&store)).await;
}

async fn measure_all(store: &Arc<Store>) {
    let mut turns = Turns::default();
    let mut under_way = FuturesUnordered::new();
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                for (uid, limited) in turns.begin(store.limited_volumes(), Instant::now()) {
                    under_way.push(measure_pod(store, uid, limited));
                }
            }
            Some((uid, took)) = under_way.next() => turns.ended(&uid, took, Instant::now()),
        }
    }
}

/// Measures the volumes of a pod, and evicts it if need be; answers its UID and how long that took.
async fn measure_pod(store: &Arc<Store>, uid: String, limited: Vec<LimitedVolume>) -> (String, Duration) {
    let started = Instant::now();
    if let Some(message) = exceeded(&store.pod_dir(&uid), &limited).await {
        store.evict(&uid, message).await;
    }
    (uid, started.elapsed())
}

/// When each pod is measured next. A pod that is not here is due.
#[derive(Debug, Default)]
struct Turns(HashMap<String, Turn>);

#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// It is being measured.
    UnderWay,
    /// It is not measured before this.
    NotBefore(Instant),
}

impl Turns {
    /// Those of these pods that are due, which are under way from now on. Pods that are not among them are forgotten.
    fn begin<T>(&mut self, pods: Vec<(String, T)>, now: Instant) -> Vec<(String, T)> {
        let is_due = |turn: Option<&Turn>| match turn {
            None => true,
            Some(Turn::UnderWay) => false,
            Some(Turn::NotBefore(at)) => *at <= now,
        };
        let mut turns = HashMap::new();
        let mut due = Vec::new();
        for (uid, volumes) in pods {
            let before = self.0.remove(&uid);
            if is_due(before.as_ref()) {
                turns.insert(uid.clone(), Turn::UnderWay);
                due.push((uid, volumes));
            } else if let Some(turn) = before {
                turns.insert(uid, turn);
            }
        }
        self.0 = turns;
        due
    }

    /// Takes note that it took so long to measure a pod.
    fn ended(&mut self, uid: &str, took: Duration, now: Instant) {
        if let Some(turn) = self.0.get_mut(uid) {
            *turn = Turn::NotBefore(now + took.saturating_mul(PAUSE_FACTOR));
        }
    }
}

/// What is said of the first of these volumes that has more than it may, or more than can be measured.
async fn exceeded(pod_dir: &Path, limited: &[LimitedVolume]) -> Option<String> {
    for volume in limited {
        let path: PathBuf = volumes::empty_dir_path(pod_dir, &volume.name);
        match volumes::measure(&path, volume.bytes).await {
            Ok(Usage::Within) => {}
            Ok(Usage::Exceeds) => return Some(volume.exceeded()),
            Ok(Usage::TooMuch(why)) => return Some(volume.unmeasurable(why)),
            Err(error) => tracing::warn!("cannot measure {}: {error}", path.display()),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::eviction::limited_volumes;

    #[tokio::test]
    async fn the_first_volume_that_has_more_than_it_may_or_than_can_be_measured_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let volumes = json!([
            {"name": "free", "emptyDir": {}},
            {"name": "never-made", "emptyDir": {"sizeLimit": "64Ki"}},
            {"name": "small", "emptyDir": {"sizeLimit": "64Ki"}},
            {"name": "scratch", "emptyDir": {"sizeLimit": "64Ki"}},
            {"name": "deep", "emptyDir": {"sizeLimit": "1Gi"}},
        ]);
        let pod = json!({"spec": {"containers": [], "volumes": volumes}});
        let limited = limited_volumes(&serde_json::from_value(pod).unwrap());
        for (name, bytes) in [("free", 1 << 20), ("small", 100), ("scratch", 1 << 20)] {
            let path = volumes::empty_dir_path(folder.path(), name);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("file"), vec![1; bytes]).unwrap();
        }
        let deep = volumes::empty_dir_path(folder.path(), "deep");
        std::fs::create_dir_all(deep.join("d/".repeat(200))).unwrap();
        let said = exceeded(folder.path(), &limited).await;
        let expected = "Usage of EmptyDir volume \"scratch\" exceeds the limit \"64Ki\".";
        assert_eq!(said.as_deref(), Some(expected));
        std::fs::remove_dir_all(volumes::empty_dir_path(folder.path(), "scratch")).unwrap();
        let said = exceeded(folder.path(), &limited).await;
        let expected = "Usage of EmptyDir volume \"deep\" cannot be compared with the limit \"1Gi\": \
                        its folders are nested more than 100 deep.";
        assert_eq!(said.as_deref(), Some(expected));
        std::fs::remove_dir_all(deep).unwrap();
        assert_eq!(exceeded(folder.path(), &limited).await, None);
    }

    #[test]
    fn a_pod_whose_measuring_takes_long_or_does_not_end_keeps_no_other_from_its_turn() {
        let mut turns = Turns::default();
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let due = |turns: &mut Turns, pods: &[&str], now: Instant| {
            let pods = pods.iter().map(|uid| ((*uid).to_owned(), ())).collect();
            let due = turns.begin(pods, now);
            due.into_iter().map(|(uid, ())| uid).collect::<Vec<_>>()
        };
        let all = ["light", "heavy", "hangs"];
        assert_eq!(due(&mut turns, &all, at(0)), all);
        turns.ended("light", Duration::from_millis(5), at(0));
        turns.ended("heavy", Duration::from_secs(2), at(2));
        assert_eq!(due(&mut turns, &all, at(10)), ["light"]);
        turns.ended("light", Duration::from_millis(5), at(10));
        assert_eq!(due(&mut turns, &all, at(40)), ["light"]);
        turns.ended("light", Duration::from_millis(5), at(40));
        assert_eq!(due(&mut turns, &all, at(42)), ["light", "heavy"]);
        // One that went is forgotten, also where its measuring ends later.
        assert!(due(&mut turns, &[], at(50)).is_empty());
        turns.ended("hangs", Duration::from_secs(50), at(50));
        assert!(turns.0.is_empty());
    }
}
