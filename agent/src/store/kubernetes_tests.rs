//! What the API server says of discovered pods, as it is served.

use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;
use crate::pod::asked_by::AskedBy;
use crate::pod::discovered::volumes::MountedVolumes;
use crate::pod::discovered::{DiscoveredPod, Owner};
use crate::store::DryRun;
use crate::store::accept::{StopError, WantedList};
use crate::store::discovered::Discovered;
use crate::store::disk::Disk;

fn store(folder: &Path) -> Arc<Store> {
    Store::load("node1", Disk::open(folder).unwrap()).unwrap().0
}

fn pod(value: Value) -> Pod {
    serde_json::from_value(value).unwrap()
}

async fn find(store: &Arc<Store>, uid: &str) {
    let found = pod(json!({
        "metadata": {"name": "cart", "namespace": "shop", "uid": uid},
        "spec": {"containers": [{"name": "main"}]},
    }));
    let uids = || std::iter::once(uid.to_owned()).collect();
    let refused = store
        .apply_discovered(Discovered {
            changed: vec![DiscoveredPod {
                pod: found,
                sandbox_id: "s1".to_owned(),
                owner: Owner::Kubelet,
                manifest: None,
                volumes: MountedVolumes::default(),
                etc_hosts: None,
                kubelet_root: None,
            }],
            ready: uids(),
            listed: uids(),
            complete: true,
        })
        .await
        .unwrap();
    assert!(refused.is_empty());
}

/// The API server's pod.
fn known(uid: &str, label: &str) -> Pod {
    pod(json!({
        "metadata": {"name": "cart", "namespace": "shop", "uid": uid, "labels": {"is": label}},
        "spec": {"containers": [{"name": "main"}], "ephemeralContainers": [{"name": "theirs", "image": "a"}]},
    }))
}

fn shown(store: &Store) -> Value {
    serde_json::to_value(&*store.pod("shop", "cart").expect("it is shown")).unwrap()
}

fn from(pod: &Value) -> &str {
    pod["metadata"]["annotations"]["debuglet.io/spec-from"]
        .as_str()
        .unwrap()
}

#[tokio::test]
async fn the_api_server_enriches_a_pod_that_the_runtime_shows_and_makes_none() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    store.apply_kubernetes(KubernetesChange::All(vec![known("u1", "a")]));
    assert!(store.pod("shop", "cart").is_none());
    find(&store, "u1").await;
    let first = shown(&store);
    assert_eq!(first["metadata"]["labels"], json!({"is": "a"}));
    assert_eq!(first["spec"]["ephemeralContainers"][0]["name"], "theirs");
    assert_eq!(from(&first), "API server");

    store.apply_kubernetes(KubernetesChange::Applied(Box::new(known("u1", "b"))));
    assert_eq!(shown(&store)["metadata"]["labels"], json!({"is": "b"}));
    // The end of another pod of the name says nothing of this one.
    store.apply_kubernetes(KubernetesChange::Gone(Box::new(known("u2", "b"))));
    assert_eq!(from(&shown(&store)), "API server");
    store.apply_kubernetes(KubernetesChange::Gone(Box::new(known("u1", "b"))));
    let alone = shown(&store);
    assert_eq!(
        (from(&alone), &alone["metadata"]["labels"]),
        ("runtime", &Value::Null)
    );
}

#[tokio::test]
async fn a_status_alone_makes_no_new_version_and_reaches_the_worker() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    find(&store, "u1").await;
    store.apply_kubernetes(KubernetesChange::All(vec![known("u1", "a")]));
    let before = store.pods().0;
    let mut ready = known("u1", "a");
    ready.status = serde_json::from_value(json!({"phase": "Running"})).unwrap();
    ready.metadata.resource_version = Some("8".to_owned());
    store.apply_kubernetes(KubernetesChange::Applied(Box::new(ready.clone())));
    assert_eq!(store.pods().0, before);
    let view = store.view("u1").unwrap();
    assert_eq!(view.kubernetes.unwrap().status, ready.status);
}

#[tokio::test]
async fn what_was_last_heard_of_an_api_server_that_is_away_stays_and_says_since_when() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    find(&store, "u1").await;
    store.apply_kubernetes(KubernetesChange::All(vec![known("u1", "a")]));
    store.follow_kubernetes(true);
    assert!(store.view("u1").unwrap().is_current);
    store.follow_kubernetes(false);
    let since = from(&shown(&store)).to_owned();
    assert!(since.starts_with("API server as of 20"), "{since}");
    store.follow_kubernetes(false);
    assert_eq!(from(&shown(&store)), since, "it is away since then");
    assert!(!store.view("u1").unwrap().is_current);
    assert_eq!(shown(&store)["metadata"]["labels"], json!({"is": "a"}));
    store.follow_kubernetes(true);
    assert_eq!(from(&shown(&store)), "API server");
}

#[tokio::test]
async fn a_kubelets_ephemeral_container_is_not_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    find(&store, "u1").await;
    store.apply_kubernetes(KubernetesChange::All(vec![known("u1", "a")]));
    let stopped = store.stop(&AskedBy::root(), "shop", "cart", "theirs").await;
    assert!(matches!(stopped, Err(StopError::NotOurs)), "{stopped:?}");
}

#[tokio::test]
async fn a_pod_that_passes_for_another_in_the_api_server_changes_nothing_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    find(&store, "u1").await;
    store.apply_kubernetes(KubernetesChange::All(vec![known("u1", "a")]));
    let before = shown(&store);
    let mut liar = known("u9", "liar");
    liar.metadata.namespace = Some("elsewhere".to_owned());
    let mirrored = ("kubernetes.io/config.mirror".to_owned(), "u1".to_owned());
    liar.metadata.annotations = Some([mirrored].into());
    for change in [
        KubernetesChange::Applied(Box::new(liar.clone())),
        KubernetesChange::All(vec![known("u1", "a"), liar.clone()]),
        KubernetesChange::All(vec![liar.clone(), known("u1", "a")]),
        KubernetesChange::Gone(Box::new(liar.clone())),
    ] {
        let text = format!("{change:?}");
        store.apply_kubernetes(change);
        assert_eq!(shown(&store), before, "{text}");
        assert!(store.pod("elsewhere", "cart").is_none());
    }
    // Nor where it was there first.
    store.apply_kubernetes(KubernetesChange::All(vec![liar]));
    assert_eq!(from(&shown(&store)), "runtime");
    find(&store, "u1").await;
    assert_eq!(from(&shown(&store)), "runtime");
    assert!(store.pod("elsewhere", "cart").is_none());
}

/// The pod `shop/cart` of a store that was started anew, with a debug container that was accepted before; what was shown of
/// it then had the label `is: before`.
async fn started_anew(folder: &Path) -> Arc<Store> {
    let first = store(folder);
    find(&first, "u1").await;
    first.apply_kubernetes(KubernetesChange::All(vec![known("u1", "before")]));
    let debugger = WantedList {
        containers: serde_json::from_value(json!([
            {"name": "theirs", "image": "a"}, {"name": "debugger", "image": "busybox:1"}]))
        .unwrap(),
        ..WantedList::default()
    };
    first
        .accept(&AskedBy::root(), "shop", "cart", debugger, DryRun::No)
        .await
        .unwrap();
    drop(first);
    store(folder)
}

#[tokio::test]
async fn after_a_start_a_pod_says_of_each_of_its_specs_where_it_is_from() {
    // In whichever order the runtime and the API server tell of it.
    for runtime_first in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let store = started_anew(folder.path()).await;
        let seen = store.pods().0;
        assert_eq!(from(&shown(&store)), "kept on disk");
        assert_eq!(shown(&store)["metadata"]["labels"]["is"], "before");
        for step in [runtime_first, !runtime_first] {
            match step {
                true => find(&store, "u1").await,
                false => store.apply_kubernetes(KubernetesChange::All(vec![known("u1", "after")])),
            }
        }
        // Every version that a watch shows is whole.
        let (_, changes) = store.changes::<Pod>(seen).unwrap();
        let versions: Vec<(String, Option<String>)> = changes
            .iter()
            .map(|change| {
                let pod = serde_json::to_value(&**change.object.whole()).unwrap();
                let label = pod["metadata"]["labels"]["is"].as_str().map(str::to_owned);
                (from(&pod).to_owned(), label)
            })
            .collect();
        assert!(!versions.is_empty());
        for (from, label) in versions {
            let expected = match from.as_str() {
                "kept on disk" => Some("before"),
                "API server" => Some("after"),
                "runtime" => None,
                other => panic!("{other}"),
            };
            assert_eq!(label.as_deref(), expected, "{from}");
        }
        assert_eq!(from(&shown(&store)), "API server");
    }
}
