use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::pod::discovered::Owner;
use crate::pod::visibility::Audience;
use crate::store::DryRun;
use crate::store::kubernetes::KubernetesChange;
use crate::store::progress::Report;
use crate::store::till::{known, store_with};

/// A store with the pod `shop/till` that a kubelet runs.
async fn store(folder: &Path) -> Arc<Store> {
    store_with(folder, Owner::Kubelet).await
}

fn wanted(containers: Value) -> WantedList {
    WantedList {
        containers: serde_json::from_value(containers).unwrap(),
        ..WantedList::default()
    }
}

fn served(store: &Store) -> Vec<String> {
    let pod = store.pod("shop", "till").unwrap();
    let spec = pod.spec.as_ref().unwrap();
    let list = spec.ephemeral_containers.iter().flatten();
    list.map(|container| container.name.clone()).collect()
}

async fn new_names(store: &Arc<Store>, containers: Value) -> Option<Vec<String>> {
    let new = store
        .new_containers(&AskedBy::root(), "shop", "till", wanted(containers))
        .await
        .unwrap()?;
    assert_eq!(new.uid, "u1");
    Some(
        new.containers
            .into_iter()
            .map(|container| container.name)
            .collect(),
    )
}

#[tokio::test]
async fn what_a_list_adds_to_a_pod_of_the_api_server_is_for_that_to_take() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    let theirs = json!({"name": "theirs", "image": "busybox:1", "volumeMounts": [
        {"name": "data", "mountPath": "/data", "subPath": "a"}]});
    let ours = json!({"name": "ours", "image": "busybox:1"});
    assert_eq!(
        new_names(&store, json!([ours])).await,
        None,
        "nobody else has the pod"
    );

    store.apply_kubernetes(KubernetesChange::Applied(known("5", json!([theirs]))));
    assert_eq!(new_names(&store, json!([theirs])).await, None, "nothing is new");
    // What the API server has taken is not judged by our rules.
    let names = new_names(&store, json!([theirs, ours])).await;
    assert_eq!(names, Some(vec!["ours".to_owned()]));
    // It can be neither removed nor changed.
    for list in [
        json!([ours]),
        json!([{"name": "theirs", "image": "busybox:2"}, ours]),
    ] {
        let refused = store
            .new_containers(&AskedBy::root(), "shop", "till", wanted(list))
            .await;
        assert!(matches!(refused, Err(AcceptError::Invalid(_))), "{refused:?}");
    }
    // And it becomes no record of ours when a client sends back the list that it read.
    let list = wanted(json!([theirs, ours]));
    store
        .accept(&AskedBy::root(), "shop", "till", list, DryRun::No)
        .await
        .unwrap();
    let records = store.view("u1").unwrap().records;
    assert_eq!(records.len(), 1);
    assert_eq!(served(&store), ["ours", "theirs"]);
}

#[tokio::test]
async fn a_static_pod_is_not_added_to_by_way_of_its_mirror() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_with(folder.path(), Owner::StaticPod).await;
    let mut mirror = known("5", json!([]));
    mirror.metadata.uid = Some("mirror".to_owned());
    let hash = ("kubernetes.io/config.mirror".to_owned(), "u1".to_owned());
    mirror.metadata.annotations = Some([hash].into());
    store.apply_kubernetes(KubernetesChange::Applied(mirror));
    let ours = json!([{"name": "ours", "image": "busybox:1"}]);
    assert_eq!(new_names(&store, ours.clone()).await, None);
    store
        .accept(&AskedBy::root(), "shop", "till", wanted(ours), DryRun::No)
        .await
        .unwrap();
    assert_eq!(store.local_entries(), []);
}

#[tokio::test]
async fn a_local_entry_is_one_that_the_api_server_has_not_or_has_as_something_else() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    let ours = json!([{"name": "ours", "image": "busybox:1"}]);
    store
        .accept(&AskedBy::root(), "shop", "till", wanted(ours.clone()), DryRun::No)
        .await
        .unwrap();
    assert_eq!(store.local_entries(), [], "nobody else has the pod");
    let other = json!([{"name": "ours", "image": "busybox:2"}]);
    for (version, theirs, expected) in [
        ("5", json!([]), Some(false)),
        ("6", other, Some(true)),
        ("7", ours, None),
    ] {
        store.apply_kubernetes(KubernetesChange::Applied(known(version, theirs.clone())));
        let entries = store.local_entries();
        let differs = entries.first().map(|entry| entry.differs);
        assert_eq!(
            (differs, entries.len()),
            (expected, usize::from(expected.is_some())),
            "{theirs}"
        );
        assert_eq!(served(&store), ["ours"], "nothing there takes away what is here");
    }
}

#[tokio::test]
async fn what_the_api_server_took_is_served_at_once_and_older_news_do_not_take_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    let ours = json!([{"name": "ours", "image": "busybox:1"}]);
    let written = |version: &str| KubernetesChange::Written(known(version, ours.clone()));
    store.apply_kubernetes(written("10"));
    assert!(
        served(&store).is_empty(),
        "whether there is such a pod is for the watch to say"
    );
    store.apply_kubernetes(KubernetesChange::Applied(known("8", json!([]))));
    store.apply_kubernetes(written("10"));
    assert_eq!(served(&store), ["ours"]);
    assert!(
        store.launch(Audience::Node, "shop", "till", "ours").is_some(),
        "who asked for it can follow it"
    );
    store.apply_kubernetes(KubernetesChange::Applied(known("9", json!([]))));
    assert_eq!(served(&store), ["ours"]);
    // A list is what there is, also where versions went back.
    store.apply_kubernetes(KubernetesChange::All(vec![*known("3", json!([]))]));
    assert!(served(&store).is_empty());
}

#[tokio::test]
async fn a_status_is_told_only_under_the_entry_that_means_the_same_container() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    let ours = json!([{"name": "ours", "image": "busybox:1"}]);
    store
        .accept(&AskedBy::root(), "shop", "till", wanted(ours.clone()), DryRun::No)
        .await
        .unwrap();
    let status = json!({"ephemeralContainerStatuses": [
        {"name": "ours", "image": "busybox:1", "imageID": "", "ready": false, "restartCount": 0},
    ]});
    let report = Report {
        status: serde_json::from_value(status).unwrap(),
        launches: BTreeMap::default(),
        foreign: BTreeSet::default(),
    };
    store.report("u1", report);
    let other = json!([{"name": "ours", "image": "busybox:2"}]);
    for (version, theirs, expected) in [("5", json!([]), 0), ("6", other, 0), ("7", ours, 1)] {
        store.apply_kubernetes(KubernetesChange::Applied(known(version, theirs.clone())));
        assert_eq!(store.own_statuses().len(), expected, "{theirs}");
    }
}

#[tokio::test]
async fn a_local_entry_that_the_api_server_asks_for_as_well_is_not_launched_here_and_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    let list = wanted(json!([{"name": "dbg", "image": "busybox:1"}]));
    store
        .accept(&AskedBy::root(), "shop", "till", list, DryRun::No)
        .await
        .unwrap();
    assert!(store.is_to_launch("u1", "dbg", false));
    assert!(
        !store.hand_back("u1", "dbg").await.unwrap(),
        "nobody else knows of it"
    );

    let other = known("2", json!([{"name": "dbg", "image": "busybox:2"}]));
    store.apply_kubernetes(KubernetesChange::All(vec![*other]));
    assert!(
        !store.hand_back("u1", "dbg").await.unwrap(),
        "that is another one"
    );

    let same = known("3", json!([{"name": "dbg", "image": "busybox:1"}]));
    store.apply_kubernetes(KubernetesChange::Applied(same));
    assert!(!store.is_to_launch("u1", "dbg", true));
    assert!(store.hand_back("u1", "dbg").await.unwrap());
    assert_eq!(served(&store), ["dbg"]);
    assert!(store.view("u1").unwrap().records.is_empty());
}

#[tokio::test]
async fn what_was_taken_over_is_launched_only_as_long_as_the_api_server_asks_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    let asks = || known("2", json!([{"name": "dbg", "image": "busybox:1"}]));
    store.apply_kubernetes(KubernetesChange::All(vec![*asks()]));
    store.take_over("u1", "dbg").await.unwrap();
    assert!(store.is_to_launch("u1", "dbg", true));
    assert!(!store.is_to_launch("u1", "dbg", false), "the kubelet is back");

    let mut leaves = serde_json::to_value(asks()).unwrap();
    leaves["metadata"]["resourceVersion"] = json!("3");
    leaves["metadata"]["deletionTimestamp"] = json!("2026-11-21T03:12:40Z");
    let leaves = serde_json::from_value(leaves).unwrap();
    store.apply_kubernetes(KubernetesChange::Applied(Box::new(leaves)));
    assert!(!store.is_to_launch("u1", "dbg", true), "the pod is to go");

    store.apply_kubernetes(KubernetesChange::Gone(asks()));
    assert!(
        !store.is_to_launch("u1", "dbg", true),
        "the pod was removed by force"
    );
    assert!(store.hand_back("u1", "dbg").await.unwrap());
    assert!(store.view("u1").unwrap().records.is_empty());
}
