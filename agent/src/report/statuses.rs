//! The states of debug containers that were started while the kubelet is down, in the API server's pods. Beside a kubelet
//! that lives nothing is written: it reports what runs in its pods, whoever started it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::trouble::{Patience, Trouble, Waits, answer, answers_again, client, sooner};
use crate::kubernetes::api_server::ApiServer;
use crate::kubernetes::kubelet::Kubelet;
use crate::pod::ephemeral_statuses::with_ours;
use crate::pod::kubelet_life::Life;
use crate::store::Store;
use crate::store::events::{Happening, Severity};
use crate::store::reported::OwnStatuses;

/// How often a pod that somebody else writes at the same time is read and written anew at once.
const CONFLICTS: u32 = 5;

/// Reports, whenever the kubelet is down, until `shutdown`.
pub(crate) async fn run(
    api_server: Arc<ApiServer>,
    store: Arc<Store>,
    kubelet: Arc<Kubelet>,
    shutdown: CancellationToken,
) {
    let mut report = Report {
        api_server,
        store,
        kubelet,
        told: HashMap::new(),
        patience: Patience::default(),
        waits: Waits::default(),
    };
    shutdown.run_until_cancelled(report.run()).await;
}

/// What became of telling.
enum Told {
    /// It stands there now.
    Done,
    /// Nothing was written: the kubelet is not down any more.
    KubeletIsThere,
}

/// What was reported, beside what is to be.
struct Report {
    api_server: Arc<ApiServer>,
    store: Arc<Store>,
    kubelet: Arc<Kubelet>,
    /// What the API server was told last, by the pod's UID; never of more pods than have debug containers.
    told: HashMap<String, Vec<ContainerStatus>>,
    patience: Patience,
    /// The pods that wait alone, by their UID.
    waits: Waits,
}

impl Report {
    async fn run(&mut self) {
        let (mut pods, mut life) = (self.store.versions(), self.kubelet.life());
        let mut reach = self.api_server.reach();
        loop {
            pods.mark_unchanged();
            reach.mark_unchanged();
            let down = *life.borrow_and_update() == Life::Down;
            let wait = if down { self.pass().await } else { None };
            if !down {
                // The kubelet writes the same list: what was told is nothing to go by any more.
                self.told.clear();
            }
            tokio::select! {
                changed = pods.changed(), if down && self.patience.is_calm() => if changed.is_err() { return },
                () = answers_again(&mut reach), if wait.is_some() => self.waits.end(),
                changed = life.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
        }
    }

    /// Tells what is new of every pod. Answers how long to wait before the next try, where it did not succeed.
    async fn pass(&mut self) -> Option<Duration> {
        let pods = self.store.own_statuses();
        self.told.retain(|uid, _| pods.iter().any(|pod| pod.uid == *uid));
        self.waits.keep(|uid| pods.iter().any(|pod| pod.uid == uid));
        let mut again = None;
        for pod in pods {
            if self.told.get(&pod.uid) == Some(&pod.statuses) {
                continue;
            }
            if let Some(remaining) = self.waits.remaining(&pod.uid) {
                again = sooner(again, remaining);
                continue;
            }
            match self.tell(&pod).await {
                // That it is there wakes us, if only to forget what was told.
                Ok(Told::KubeletIsThere) => return None,
                // One that is gone, or that cannot be told, is not tried again before there is something new to tell.
                Ok(Told::Done) | Err(Trouble::Gone) => {}
                Err(trouble @ Trouble::Refused(_)) => {
                    tracing::warn!(
                        pod = pod.name,
                        "the state of its debug containers is not reported: {trouble}"
                    );
                }
                Err(trouble) => {
                    let (wait, is_news) = self.waits.after(&pod.uid, &trouble, rand::random());
                    self.complain(&pod, &trouble, is_news);
                    if !trouble.is_of_one() {
                        // The next time others come first: what cannot be read may be this pod alone.
                        return Some(self.patience.after(&trouble, rand::random()));
                    }
                    self.patience.reset();
                    again = sooner(again, wait);
                    continue;
                }
            }
            self.patience.reset();
            self.waits.forget(&pod.uid);
            self.told.insert(pod.uid, pod.statuses);
        }
        self.patience.reset();
        again
    }

    /// Writes the list with ours in it, as it is at the version it was read at.
    async fn tell(&self, pod: &OwnStatuses) -> Result<Told, Trouble> {
        let client = client(&self.api_server).await?;
        let pods = Api::<Pod>::namespaced(client, &pod.namespace);
        let mut tries = 0;
        loop {
            let known = answer(&self.api_server, pods.get(&pod.name)).await?;
            if known.metadata.uid.as_ref() != Some(&pod.uid) {
                return Err(Trouble::Gone);
            }
            let list = known
                .status
                .and_then(|status| status.ephemeral_container_statuses)
                .unwrap_or_default();
            let Some(list) = with_ours(&list, &pod.statuses) else {
                return Ok(Told::Done);
            };
            // It may be back. After a conflict it even is likely to be the one who has written.
            if !self.kubelet.is_down().await {
                return Ok(Told::KubeletIsThere);
            }
            let patch = json!({
                "metadata": {"uid": pod.uid, "resourceVersion": known.metadata.resource_version},
                "status": {"ephemeralContainerStatuses": list},
            });
            let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
            match answer(
                &self.api_server,
                pods.patch_status(&pod.name, &parameters, &patch),
            )
            .await
            {
                Err(Trouble::Conflict) if tries < CONFLICTS => tries += 1,
                patched => return patched.map(|_| Told::Done),
            }
        }
    }

    fn complain(&self, pod: &OwnStatuses, trouble: &Trouble, is_news: bool) {
        if !matches!(trouble, Trouble::Forbidden(_) | Trouble::Denied(_)) {
            tracing::debug!(
                pod = pod.name,
                "the state of its debug containers waits: {trouble}"
            );
        } else if is_news {
            let message = format!(
                "The API server does not show the state of debug containers: {trouble} (rights: get pods, patch pods/status)"
            );
            tracing::warn!(pod = pod.name, "{message}");
            self.store.record_event(
                &pod.uid,
                Happening {
                    severity: Severity::Warning,
                    reason: "FailedReport",
                    message,
                    container: None,
                },
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;
    use crate::kubernetes::kubelet_signs::private;
    use crate::kubernetes::scripted::{Scripted, refusal};
    use crate::store::disk::Disk;

    #[tokio::test]
    async fn after_a_conflict_nothing_is_written_when_the_kubelet_is_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let proc = folder.path().join("proc");
        std::fs::create_dir(&proc).expect("a folder");
        let back = proc.clone();
        let server = Scripted::start(move |method, _| {
            if method == Method::PATCH {
                // Who has written in between is the kubelet, which has just come back.
                private::add_kubelet(&back);
                return refusal(409, "Conflict", "the object has been modified");
            }
            let metadata =
                json!({"name": "web", "namespace": "default", "uid": "u1", "resourceVersion": "7"});
            (
                200,
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata}),
            )
        })
        .await;
        let nobody = "127.0.0.1:1".parse().expect("an address");
        let place = private::place(&proc, nobody);
        let report = Report {
            api_server: Arc::clone(&server.api_server),
            store: Store::load("node1", Disk::open(&folder.path().join("state")).expect("a disk"))
                .expect("a store")
                .0,
            kubelet: Kubelet::at(place, "node1", None, Duration::ZERO),
            told: HashMap::new(),
            patience: Patience::default(),
            waits: Waits::default(),
        };
        let pod = OwnStatuses {
            uid: "u1".to_owned(),
            namespace: "default".to_owned(),
            name: "web".to_owned(),
            statuses: vec![ContainerStatus {
                name: "debugger".to_owned(),
                ..ContainerStatus::default()
            }],
        };
        let told = report.tell(&pod).await;
        assert!(matches!(told, Ok(Told::KubeletIsThere)), "{:?}", told.err());
        assert_eq!(server.count(&Method::PATCH, "/pods/web/status"), 1);
    }
}
