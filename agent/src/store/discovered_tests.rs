use std::path::Path;

use k8s_openapi::api::core::v1::{EphemeralContainer, Pod};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::pod::asked_by::AskedBy;
use crate::pod::discovered::enriched::SPEC_FROM_ANNOTATION;
use crate::pod::discovered::volumes::MountedVolumes;
use crate::pod::record::Phase;
use crate::pod::visibility::Audience;
use crate::store::DryRun;
use crate::store::accept::WantedList;
use crate::store::claim::Holder;
use crate::store::create::CreateError;
use crate::store::delete::{DeleteError, Deletion};
use crate::store::disk::Disk;
use crate::store::kubernetes::KubernetesChange;
use crate::store::progress::AdvanceError;

fn store(folder: &Path) -> Arc<Store> {
    Store::load("node1", Disk::open(folder).unwrap()).unwrap().0
}

fn found(uid: &str, image: &str) -> DiscoveredPod {
    let pod = json!({
        "metadata": {"name": "till", "namespace": "shop", "uid": uid},
        "spec": {"containers": [{"name": "main", "image": image}], "securityContext": {}},
    });
    DiscoveredPod {
        pod: serde_json::from_value(pod).unwrap(),
        sandbox_id: "s1".to_owned(),
        owner: Owner::Cri,
        manifest: None,
        volumes: MountedVolumes::default(),
        etc_hosts: None,
        kubelet_root: None,
    }
}

async fn look(store: &Arc<Store>, changed: Vec<DiscoveredPod>, ready: &[&str], listed: &[&str]) {
    let all = |uids: &[&str]| uids.iter().map(|uid| (*uid).to_owned()).collect();
    let refused = store
        .apply_discovered(Discovered {
            changed,
            ready: all(ready),
            listed: all(listed),
            complete: true,
        })
        .await
        .unwrap();
    assert!(refused.is_empty());
}

async fn debug(store: &Arc<Store>) {
    store
        .accept(&AskedBy::root(), "shop", "till", wanted(), DryRun::No)
        .await
        .unwrap();
}

fn wanted() -> WantedList {
    let container = EphemeralContainer {
        name: "debugger".to_owned(),
        image: Some("busybox".to_owned()),
        ..EphemeralContainer::default()
    };
    WantedList {
        containers: vec![container],
        ..WantedList::default()
    }
}

fn shown(store: &Store) -> Option<Arc<Pod>> {
    store.pod("shop", "till")
}

fn is_leaving(store: &Store) -> bool {
    shown(store).is_some_and(|pod| pod.metadata.deletion_timestamp.is_some())
}

async fn end(store: &Arc<Store>, uid: &str) {
    let terminated = crate::pod::plan::ephemeral::pod_removed(Timestamp::now().as_nanosecond() as i64);
    store
        .advance(uid, "debugger", |_| {
            Some(Phase::Ended {
                created: None,
                terminated,
            })
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_pod_without_debug_containers_is_there_while_its_sandbox_is_ready() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    look(&store, vec![found("u1", "one")], &["u1"], &["u1"]).await;
    let pod = shown(&store).unwrap();
    assert_eq!(
        pod.metadata.annotations.clone().unwrap()["debuglet.io/source"],
        "cri"
    );
    look(&store, vec![], &["u1"], &["u1"]).await;
    assert_eq!(shown(&store), Some(pod), "nothing has changed");
    look(&store, vec![], &[], &["u1"]).await;
    assert_eq!(shown(&store), None);
    assert!(!folder.path().join("pods/u1").exists());
}

#[tokio::test]
async fn a_pod_with_debug_containers_stays_until_the_runtime_has_forgotten_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    look(&store, vec![found("u1", "one")], &["u1"], &["u1"]).await;
    debug(&store).await;
    look(&store, vec![], &[], &["u1"]).await;
    assert!(!is_leaving(&store), "a kubelet may make it a new sandbox");
    look(&store, vec![], &[], &[]).await;
    assert!(is_leaving(&store));
    look(&store, vec![found("u1", "two")], &["u1"], &["u1"]).await;
    assert!(!is_leaving(&store), "it is back");
}

#[tokio::test]
async fn the_pods_of_a_kubelet_are_counted_once_all_were_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    assert_eq!(store.kubelet_pods(), None, "nobody has looked");
    let of = |uid: &str, owner: Owner| DiscoveredPod {
        owner,
        ..found(uid, "one")
    };
    let found = vec![
        of("u1", Owner::Cri),
        of("u2", Owner::StaticPod),
        of("u3", Owner::Kubelet),
    ];
    let all = ["u1", "u2", "u3"];
    look(&store, found, &all, &all).await;
    assert_eq!(store.kubelet_pods(), Some(2));
    look(&store, vec![], &["u1"], &["u1"]).await;
    assert_eq!(store.kubelet_pods(), Some(0));
}

#[tokio::test]
async fn a_pod_that_is_back_is_not_buried() {
    let folder = tempfile::tempdir().unwrap();
    {
        let store = store(folder.path());
        look(&store, vec![found("u1", "one")], &["u1"], &["u1"]).await;
        debug(&store).await;
        end(&store, "u1").await;
        look(&store, vec![], &[], &[]).await;
        look(&store, vec![found("u1", "one")], &["u1"], &["u1"]).await;
        let buried = store.forget("u1").await;
        assert!(matches!(buried, Err(AdvanceError::Stays)), "{buried:?}");
        assert!(store.has_pod("u1"));
    }
    let store = store(folder.path());
    assert_eq!(store.view("u1").unwrap().records.len(), 1);
}

#[tokio::test]
async fn a_pod_that_went_and_came_back_is_for_another_worker() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    look(&store, vec![found("u1", "one")], &["u1"], &["u1"]).await;
    let before = store.view("u1").unwrap().wake;
    look(&store, vec![found("u1", "two")], &["u1"], &["u1"]).await;
    assert!(Arc::ptr_eq(&before, &store.view("u1").unwrap().wake), "it stayed");
    look(&store, vec![], &[], &[]).await;
    // The worker of before is told, and finds that the pod is not its own any more.
    before.notified().await;
    look(&store, vec![found("u1", "two")], &["u1"], &["u1"]).await;
    assert!(!Arc::ptr_eq(&before, &store.view("u1").unwrap().wake));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_debug_container_that_is_accepted_while_its_pod_goes_is_never_without_a_pod() {
    for round in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        look(&store, vec![found("u1", "one")], &["u1"], &["u1"]).await;
        let accepting = {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                store
                    .accept(&AskedBy::root(), "shop", "till", wanted(), DryRun::No)
                    .await
            })
        };
        look(&store, vec![], &[], &[]).await;
        let accepted = accepting.await.unwrap();
        assert_eq!(
            accepted.is_ok(),
            store.has_pod("u1"),
            "round {round}: {accepted:?}"
        );
        let kept = folder.path().join("pods/u1/ephemeral/debugger.json").exists();
        assert_eq!(kept, accepted.is_ok(), "round {round}");
    }
}

#[tokio::test]
async fn debug_containers_are_known_after_a_restart_and_after_the_pod_came_back() {
    let folder = tempfile::tempdir().unwrap();
    {
        let store = store(folder.path());
        look(&store, vec![found("u1", "one")], &["u1"], &["u1"]).await;
        debug(&store).await;
    }
    let store = store(folder.path());
    assert_eq!(store.view("u1").unwrap().records.len(), 1);
    look(&store, vec![], &[], &[]).await;
    end(&store, "u1").await;
    store.forget("u1").await.unwrap();
    assert_eq!(shown(&store), None);

    look(&store, vec![found("u1", "one")], &["u1"], &["u1"]).await;
    let records = store.view("u1").unwrap().records;
    assert!(matches!(records[0].phase, Phase::Ended { .. }), "{records:?}");
}

#[tokio::test]
async fn somebody_elses_pod_is_neither_deleted_nor_is_its_name_free() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    look(&store, vec![found("u1", "one")], &["u1"], &["u1"]).await;
    let deleted = store
        .delete(Audience::Node, "shop", "till", Deletion::default(), DryRun::No)
        .await;
    assert!(matches!(deleted, Err(DeleteError::Foreign)), "{deleted:?}");
    let created = store
        .create(Audience::Node, found("", "mine").pod, DryRun::No)
        .await;
    assert!(
        matches!(created, Err(CreateError::AlreadyExists(Holder::Foreign))),
        "{created:?}"
    );
}

#[tokio::test]
async fn a_pod_that_came_back_is_no_tombstone_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    {
        let store = store(folder.path());
        look(&store, vec![found("u1", "one")], &["u1"], &["u1"]).await;
        debug(&store).await;
        end(&store, "u1").await;
        look(&store, vec![], &[], &[]).await;
        store.forget("u1").await.unwrap();
        look(&store, vec![found("u1", "one")], &["u1"], &["u1"]).await;
    }
    let store = store(folder.path());
    assert!(shown(&store).is_some());
}

#[tokio::test]
async fn of_two_of_one_name_the_one_that_debuglet_runs_is_meant() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let ours = store
        .create(Audience::Node, found("", "ours").pod, DryRun::No)
        .await
        .unwrap();
    look(&store, vec![found("u1", "theirs")], &["u1"], &["u1"]).await;
    let shown = shown(&store).unwrap();
    assert_eq!(shown.metadata.uid, ours.metadata.uid);
}

#[tokio::test]
async fn what_a_kubelet_took_from_secrets_is_marked_while_only_the_runtime_tells_of_it_and_never_written_down()
 {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let mut found = found("u1", "app");
    found.owner = Owner::Kubelet;
    let container = &mut found.pod.spec.as_mut().unwrap().containers[0];
    container.args = Some(vec!["--password=SECRET".to_owned()]);
    look(&store, vec![found], &["u1"], &["u1"]).await;
    let marked = |store: &Store| {
        let annotations = shown(store).unwrap().metadata.annotations.clone().unwrap();
        annotations[SPEC_FROM_ANNOTATION] == "runtime"
    };
    assert!(marked(&store));
    debug(&store).await;
    let file = std::fs::read_to_string(store.pod_dir("u1").join("pod.json")).unwrap();
    assert!(file.contains("u1") && !file.contains("SECRET"), "{file}");

    let known: Pod = serde_json::from_value(json!({
        "metadata": {"name": "till", "namespace": "shop", "uid": "u1"},
        "spec": {"containers": [{"name": "main", "image": "app", "args": ["--password=$(PASSWORD)"]}]},
    }))
    .unwrap();
    store.apply_kubernetes(KubernetesChange::Applied(Box::new(known.clone())));
    assert!(!marked(&store));
    // It is gone there and runs here still.
    store.apply_kubernetes(KubernetesChange::Gone(Box::new(known)));
    assert!(marked(&store));
}

fn listed(id: &str, name: &str, created_at: i64) -> ListedSandbox {
    ListedSandbox {
        id: id.to_owned(),
        said: PodKey {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            uid: "u1".to_owned(),
        },
        attempt: 0,
        created_at,
        ready: true,
        of_kubelet: false,
    }
}

/// The pod `till` has the UID that its sandbox says: it was there first.
#[tokio::test]
async fn a_pod_of_a_uid_that_another_one_has_never_gets_what_is_kept_of_that_one() {
    let folder = tempfile::tempdir().unwrap();
    let (till, cart) = (listed("s1", "till", 1), listed("s2", "cart", 2));
    let uid_of_cart = {
        let store = store(folder.path());
        let uids = store.external_uids(&[cart.clone(), till.clone()]);
        assert_eq!(uids[1], "u1");
        look(&store, vec![found("u1", "one")], &["u1"], &["u1"]).await;
        debug(&store).await;
        uids[0].clone()
    };
    assert_ne!(uid_of_cart, "u1");
    let store = store(folder.path());
    let alone = std::slice::from_ref(&cart);
    assert_eq!(
        store.external_uids(alone),
        std::slice::from_ref(&uid_of_cart),
        "its records are there"
    );
    look(&store, vec![], &[], &[]).await;
    end(&store, "u1").await;
    store.forget("u1").await.unwrap();
    assert_eq!(
        store.external_uids(alone),
        [uid_of_cart],
        "its tombstone is there"
    );
    assert_eq!(store.external_uids(&[till]), ["u1"], "it comes back");
}

#[tokio::test]
async fn a_pod_is_shown_as_the_sandbox_that_it_was_found_in_and_takes_no_other_name() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    look(&store, vec![found("u1", "one")], &["u1"], &["u1"]).await;
    assert_eq!(store.sandbox_of_external("u1").as_deref(), Some("s1"));
    assert_eq!(store.view("u1").unwrap().sandbox_id.as_deref(), Some("s1"));
    let mut other = found("u1", "two");
    other.pod.metadata.name = Some("cart".to_owned());
    let refused = store
        .apply_discovered(Discovered {
            changed: vec![other],
            ready: ["u1".to_owned()].into(),
            listed: ["u1".to_owned()].into(),
            complete: true,
        })
        .await
        .unwrap();
    assert_eq!(refused, ["u1".to_owned()].into());
    assert_eq!(shown(&store).unwrap().metadata.name.as_deref(), Some("till"));
    assert!(store.pod("shop", "cart").is_none());
}
