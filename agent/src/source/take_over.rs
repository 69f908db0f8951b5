//! Does what the node's kubelet leaves undone while it is down: ephemeral containers that the API server asks for become
//! debuglet's own, where it is sure that nobody has launched them.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::kubernetes::kubelet::Kubelet;
use crate::pod::container_path::ContainerPath;
use crate::pod::identity::PodKey;
use crate::pod::kubelet_life::Life;
use crate::pod::log_names::log_folder;
use crate::pod::observed::ObservedPod;
use crate::pod::take_over::{NotTaken, judge};
use crate::runtime::client::Runtime;
use crate::runtime::error::RuntimeError;
use crate::store::Store;
use crate::store::earlier_logs;
use crate::store::events::{Happening, Severity};
use crate::store::take_over::{LeftUndone, TakeOverError};

/// How often the kubelet is looked for while something waits for it and it shows no sign of life, and how soon what did
/// not succeed is tried again.
const WAITING: Duration = Duration::from_secs(1);

/// What takes over.
#[derive(Debug)]
pub(crate) struct TakeOver {
    kubelet: Arc<Kubelet>,
    store: Arc<Store>,
    runtime: Runtime,
    log_dir: PathBuf,
    /// What was judged to be the kubelet's for good, as pod UID and container; never more than is asked for.
    left: HashSet<(String, String)>,
}

impl TakeOver {
    /// Nothing taken over yet; `log_dir` is the folder of all pods' logs.
    pub(crate) fn new(
        kubelet: Arc<Kubelet>,
        store: Arc<Store>,
        runtime: Runtime,
        log_dir: &Path,
    ) -> TakeOver {
        TakeOver {
            kubelet,
            store,
            runtime,
            log_dir: log_dir.to_path_buf(),
            left: HashSet::new(),
        }
    }

    /// Takes over what the kubelet leaves undone whenever it is down, until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let (mut pods, mut life) = (self.store.versions(), self.kubelet.life());
        let work = async {
            // However often something changes: a look costs a scan of /proc, a connection, and often a request.
            let mut looks = tokio::time::interval(WAITING);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                pods.mark_unchanged();
                life.mark_unchanged();
                let waits = !self.undone().is_empty() && *life.borrow() != Life::Alive;
                tokio::select! {
                    changed = pods.changed() => if changed.is_err() { return },
                    changed = life.changed() => if changed.is_err() { return },
                    _ = looks.tick(), if waits => {
                        if self.kubelet.is_down().await {
                            let undone = self.undone();
                            self.take(undone).await;
                        }
                    }
                }
            }
        };
        shutdown.run_until_cancelled(work).await;
    }

    /// What nobody has launched, as far as the API server knows, and was not judged yet.
    fn undone(&mut self) -> Vec<LeftUndone> {
        let mut undone = self.store.left_undone();
        let asked_for: HashMap<&str, &LeftUndone> =
            undone.iter().map(|pod| (pod.uid.as_str(), pod)).collect();
        self.left.retain(|(uid, name)| {
            asked_for
                .get(uid.as_str())
                .is_some_and(|pod| pod.names.contains(name))
        });
        for pod in &mut undone {
            let uid = &pod.uid;
            pod.names
                .retain(|name| !self.left.contains(&(uid.clone(), name.clone())));
        }
        undone.retain(|pod| !pod.names.is_empty());
        undone
    }

    async fn take(&mut self, undone: Vec<LeftUndone>) {
        for pod in undone {
            if let Err(error) = self.take_of(&pod).await {
                tracing::warn!("{error}");
            }
        }
    }

    async fn take_of(&mut self, pod: &LeftUndone) -> Result<(), RuntimeError> {
        let key = PodKey {
            uid: pod.uid.clone(),
            ..PodKey::of(&pod.known)
        };
        let observed = self.runtime.observe_pod(&key, true, &HashMap::new()).await?;
        let folders = self.log_folders(pod, &observed).await?;
        for name in &pod.names {
            let logged = is_logged(&folders, name).await;
            let taken = match judge(&pod.known, &observed, logged, name) {
                Ok(()) => self.store.take_over(&pod.uid, name).await,
                Err(reason) => {
                    if reason == NotTaken::Logged {
                        let message = format!("It is left to the kubelet, which is down: {reason}");
                        self.tell(pod, name, Severity::Warning, "LeftToKubelet", message);
                    }
                    self.left.insert((pod.uid.clone(), name.clone()));
                    continue;
                }
            };
            match taken {
                Ok(()) => {
                    let message = "The kubelet is down: debuglet starts it instead".to_owned();
                    self.tell(pod, name, Severity::Normal, "TakenOver", message);
                }
                Err(error @ TakeOverError::Invalid(_)) => {
                    let message = format!("It is left out: {error}");
                    self.tell(pod, name, Severity::Warning, "FailedValidation", message);
                    self.left.insert((pod.uid.clone(), name.clone()));
                }
                Err(TakeOverError::Disk(error)) => tracing::error!("{error}"),
                // A panic is shown by those who own the threads.
                Err(TakeOverError::Gone | TakeOverError::NotRun(_)) => {}
            }
        }
        Ok(())
    }

    fn tell(
        &self,
        pod: &LeftUndone,
        container: &str,
        severity: Severity,
        reason: &'static str,
        message: String,
    ) {
        tracing::info!(pod_uid = pod.uid, container, reason, "{message}");
        let happening = Happening {
            severity,
            reason,
            message,
            container: Some(ContainerPath::Ephemeral(container.to_owned())),
        };
        self.store.record_event(&pod.uid, happening);
    }

    /// Where logs of the pod's containers may lie: where its sandboxes say, and where a kubelet puts them.
    async fn log_folders(
        &self,
        pod: &LeftUndone,
        observed: &ObservedPod,
    ) -> Result<Vec<PathBuf>, RuntimeError> {
        let mut known = k8s_openapi::api::core::v1::Pod::clone(&pod.known);
        known.metadata.uid = Some(pod.uid.clone());
        let mut folders = vec![self.log_dir.join(log_folder(&known))];
        for sandbox in &observed.sandboxes {
            let config = self
                .runtime
                .foreign_sandbox(&sandbox.id)
                .await?
                .and_then(|sandbox| sandbox.config);
            folders.extend(config.map(|config| PathBuf::from(config.log_directory)));
        }
        Ok(folders)
    }
}

/// Whether there is anything in one of the container's log folders; what cannot be read counts as a log.
async fn is_logged(folders: &[PathBuf], container: &str) -> bool {
    for folder in folders {
        if earlier_logs::are_in(&folder.join(container))
            .await
            .unwrap_or(true)
        {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicU32, Ordering};

    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;
    use crate::kubernetes::kubelet_signs::private;
    use crate::pod::discovered::volumes::MountedVolumes;
    use crate::pod::discovered::{DiscoveredPod, Owner};
    use crate::runtime::call_limits::CallLimits;
    use crate::store::discovered::Discovered;
    use crate::store::disk::Disk;
    use crate::store::kubernetes::KubernetesChange;

    /// The pod `web`, in the runtime and in the API server, which asks for a debug container in it.
    fn pod(version: u32) -> Pod {
        let metadata = json!({"name": "web", "namespace": "default", "uid": "u1", "resourceVersion": version.to_string(),
            "labels": {"version": version.to_string()}});
        let spec = json!({"containers": [{"name": "main", "image": "a"}],
            "ephemeralContainers": [{"name": "debugger", "image": "a"}]});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a pod")
    }

    #[tokio::test]
    async fn the_kubelet_is_looked_for_at_its_own_pace_however_often_the_pods_change() {
        let folder = tempfile::tempdir().expect("a folder");
        let (proc, state) = (folder.path().join("proc"), folder.path().join("state"));
        std::fs::create_dir(&proc).expect("a folder");
        // Each look connects once. What answers there is no kubelet.
        let port = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let place = private::place(&proc, port.local_addr().expect("its address"));
        let looks = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&looks);
        let counting = tokio::spawn(async move {
            while port.accept().await.is_ok() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        let store = Store::load("node1", Disk::open(&state).expect("a disk"))
            .expect("a store")
            .0;
        let uids = BTreeSet::from(["u1".to_owned()]);
        let found = Discovered {
            changed: vec![DiscoveredPod {
                pod: pod(0),
                owner: Owner::Kubelet,
                sandbox_id: "s1".to_owned(),
                manifest: None,
                volumes: MountedVolumes::default(),
                etc_hosts: None,
                kubelet_root: None,
            }],
            ready: uids.clone(),
            listed: uids,
            complete: true,
        };
        assert!(store.apply_discovered(found).await.unwrap().is_empty());
        store.apply_kubernetes(KubernetesChange::All(vec![pod(1)]));
        assert_eq!(store.left_undone().len(), 1);

        let kubelet = Kubelet::at(place, "node1", None, Duration::from_secs(1000));
        assert_eq!(kubelet.look().await.judgement.life, Life::Quiet);
        let shutdown = CancellationToken::new();
        let socket = folder.path().join("no-runtime.sock");
        let runtime = Runtime::connect_lazy(&socket, CallLimits::default(), shutdown.clone());
        let take_over = TakeOver::new(kubelet, Arc::clone(&store), runtime, folder.path());
        let running = tokio::spawn(take_over.run(shutdown.clone()));
        let begun = tokio::time::Instant::now();
        for version in 2..=200 {
            store.apply_kubernetes(KubernetesChange::Applied(Box::new(pod(version))));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let intervals = u32::try_from(begun.elapsed().as_secs()).expect("few");
        let looked = looks.load(Ordering::Relaxed);
        // One before, one at once, and one for each interval.
        assert!(
            (2..=intervals + 3).contains(&looked),
            "{looked} looks in {intervals} s"
        );
        shutdown.cancel();
        running.await.expect("it ends");
        counting.abort();
    }
}
