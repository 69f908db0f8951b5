//! What users of the cluster see comes and goes with what their API server has: pods, containers, events and namespaces.

use std::path::Path;

use k8s_openapi::api::core::v1::{Event, Namespace};
use serde_json::{Value, json};

use super::accept::WantedList;
use super::events::Severity;
use super::kubernetes::KubernetesChange;
use super::till::{known, store_with};
use super::*;
use crate::pod::asked_by::{AskedBy, WayIn};
use crate::pod::container_path::ContainerPath;
use crate::store::served::Served;

/// A store with the pod `shop/till`, which a kubelet runs and the API server has not told of.
async fn store(folder: &Path) -> Arc<Store> {
    store_with(folder, Owner::Kubelet).await
}

async fn debug(store: &Arc<Store>, asked_by: &AskedBy, containers: Value) {
    let wanted = WantedList {
        containers: serde_json::from_value(containers).unwrap(),
        ..WantedList::default()
    };
    let accepted = store.accept(asked_by, "shop", "till", wanted, DryRun::No).await;
    accepted.unwrap();
}

fn happened(store: &Store, message: &str, container: Option<ContainerPath>) {
    let happening = Happening {
        severity: Severity::Normal,
        reason: "Pulled",
        message: message.to_owned(),
        container,
    };
    store.record_event("u1", happening);
}

/// What an audience sees: namespaces but `default`, the pods' ephemeral containers, and messages of events.
fn seen(store: &Store, audience: Audience) -> (Vec<String>, Vec<Vec<String>>, Vec<String>) {
    let namespaces = store.list::<Namespace>(audience).1;
    let namespaces = namespaces.iter().filter_map(|one| one.metadata.name.clone());
    let pods = store.list::<Pod>(audience).1;
    let containers = pods.iter().map(|pod| {
        let spec = pod.spec.iter();
        let containers = spec.flat_map(|spec| spec.ephemeral_containers.iter().flatten());
        containers.map(|container| container.name.clone()).collect()
    });
    let events = store.list::<Event>(audience).1;
    let mut messages: Vec<_> = events
        .iter()
        .filter(|event| event.reason.as_deref() == Some("Pulled"))
        .filter_map(|event| event.message.clone())
        .collect();
    messages.sort();
    (
        namespaces.filter(|name| name != "default").collect(),
        containers.collect(),
        messages,
    )
}

/// For each change of a kind since `version`, whether users of the cluster saw the object before and see it afterwards.
fn steps<T: Served>(store: &Store, version: u64) -> Vec<(bool, bool)> {
    let changes = store.changes::<T>(version).unwrap().1;
    let sees = |views: &Views<T>| views.of(Audience::Cluster).is_some();
    let steps = changes
        .iter()
        .map(|change| (change.previous.as_ref().is_some_and(sees), sees(&change.object)));
    steps.collect()
}

#[tokio::test]
async fn pods_containers_events_and_namespaces_are_shown_while_the_api_server_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    let text = |text: &str| text.to_owned();
    debug(
        &store,
        &AskedBy::root(),
        json!([{"name": "of-root", "image": "busybox:1"}]),
    )
    .await;
    happened(&store, "of the pod", None);
    happened(
        &store,
        "of the container",
        Some(ContainerPath::Ephemeral(text("of-root"))),
    );
    let all = (
        vec![text("shop")],
        vec![vec![text("of-root")]],
        vec![text("of the container"), text("of the pod")],
    );
    assert_eq!(seen(&store, Audience::Node), all);
    assert_eq!(seen(&store, Audience::Cluster), Default::default());
    assert!(
        store
            .launch(Audience::Cluster, "shop", "till", "of-root")
            .is_none()
    );

    // The API server tells of the pod, and not of the container.
    let (before, mut bell) = (store.version(), store.versions_of::<Event>());
    bell.mark_unchanged();
    store.apply_kubernetes(KubernetesChange::Applied(known("5", json!([]))));
    let some = (vec![text("shop")], vec![vec![]], vec![text("of the pod")]);
    assert_eq!(seen(&store, Audience::Cluster), some);
    assert_eq!(steps::<Pod>(&store, before), [(false, true)]);
    assert_eq!(steps::<Namespace>(&store, before), [(false, true)]);
    assert_eq!(steps::<Event>(&store, before), [(false, true)]);
    assert!(bell.has_changed().unwrap(), "who watches events hears of it");
    assert!(
        store
            .launch(Audience::Cluster, "shop", "till", "of-root")
            .is_none()
    );

    // It has the container, too.
    let appended = json!([{"name": "of-root", "image": "busybox:1"}]);
    let before = store.version();
    store.apply_kubernetes(KubernetesChange::Written(known("6", appended)));
    assert_eq!(seen(&store, Audience::Cluster), all);
    assert_eq!(steps::<Event>(&store, before), [(false, true), (false, true)]);
    assert!(
        store
            .launch(Audience::Cluster, "shop", "till", "of-root")
            .is_some()
    );

    // It has the pod no more.
    let before = store.version();
    store.apply_kubernetes(KubernetesChange::Gone(known("7", json!([]))));
    assert_eq!(seen(&store, Audience::Cluster), Default::default());
    assert_eq!(seen(&store, Audience::Node), all);
    assert_eq!(steps::<Pod>(&store, before), [(true, false)]);
    assert_eq!(steps::<Namespace>(&store, before), [(true, false)]);
    assert!(
        steps::<Event>(&store, before)
            .iter()
            .all(|step| *step == (true, false))
    );
}

#[tokio::test]
async fn under_the_name_of_a_hidden_container_users_of_the_cluster_see_the_api_servers_own() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    store.apply_kubernetes(KubernetesChange::Applied(known("5", json!([]))));
    debug(
        &store,
        &AskedBy::root(),
        json!([{"name": "dbg", "image": "of-root:1"}]),
    )
    .await;
    let before = store.version();
    let other = json!([{"name": "dbg", "image": "of-cluster:1"}]);
    store.apply_kubernetes(KubernetesChange::Applied(known("6", other.clone())));
    let image = |audience| {
        let pod = store.pod_for(audience, "shop", "till").unwrap();
        let list = pod.spec.clone().unwrap().ephemeral_containers.unwrap();
        list.into_iter()
            .map(|container| container.image.unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(image(Audience::Node), ["of-root:1"]);
    assert_eq!(image(Audience::Cluster), ["of-cluster:1"]);
    assert_eq!(steps::<Pod>(&store, before), [(true, true)]);
    // It can be sent back as it was read.
    let user = AskedBy::new("jane", WayIn::Cluster);
    let mut list = other;
    list.as_array_mut()
        .unwrap()
        .push(json!({"name": "new", "image": "busybox:1"}));
    debug(&store, &user, list).await;
    assert_eq!(image(Audience::Cluster), ["busybox:1", "of-cluster:1"]);
}

#[tokio::test]
async fn who_asked_is_kept_in_the_record_and_lets_users_see_it_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let user = AskedBy::new("jane", WayIn::Cluster);
    {
        let store = store(folder.path()).await;
        store.apply_kubernetes(KubernetesChange::Applied(known("5", json!([]))));
        debug(&store, &user, json!([{"name": "of-user", "image": "busybox:1"}])).await;
        let list =
            json!([{"name": "of-user", "image": "busybox:1"}, {"name": "of-root", "image": "busybox:1"}]);
        debug(&store, &AskedBy::root(), list).await;
    }
    let store = store(folder.path()).await;
    store.apply_kubernetes(KubernetesChange::Applied(known("5", json!([]))));
    let asked: Vec<_> = store
        .view("u1")
        .unwrap()
        .records
        .into_iter()
        .map(|record| (record.spec.name, record.asked_by))
        .collect();
    let expected = [("of-user", user), ("of-root", AskedBy::root())];
    let expected = expected.map(|(name, asked_by)| (name.to_owned(), Some(asked_by)));
    assert_eq!(asked, expected);
    assert_eq!(seen(&store, Audience::Cluster).1, [["of-user"]]);
}

/// What the API server is told: messages of events, and the containers whose states it is to show.
fn told(store: &Store) -> (Vec<String>, Vec<String>) {
    let events = store.events_to_tell();
    let pulled = events
        .iter()
        .filter(|event| event.reason.as_deref() == Some("Pulled"));
    let mut messages: Vec<_> = pulled.filter_map(|event| event.message.clone()).collect();
    messages.sort();
    let statuses = store.own_statuses().into_iter().flat_map(|pod| pod.statuses);
    (messages, statuses.map(|status| status.name).collect())
}

#[tokio::test]
async fn the_api_server_is_told_nothing_of_what_is_hidden_from_its_users() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    let of = |name: &str, image: &str| json!({"name": name, "image": image});
    let theirs = [of("shared", "busybox:1"), of("differs", "of-cluster:1")];
    let (root, user) = (AskedBy::root(), AskedBy::new("jane", WayIn::Cluster));
    let certificate = AskedBy::new("debuglet:group", WayIn::Certificate);
    let mut list = Vec::new();
    store.apply_kubernetes(KubernetesChange::Applied(known("5", json!([]))));
    for (asked_by, name, image) in [
        (&root, "of-root", "busybox:1"),
        (&certificate, "of-certificate", "busybox:1"),
        (&root, "shared", "busybox:1"),
        (&root, "differs", "of-root:1"),
    ] {
        list.push(of(name, image));
        debug(&store, asked_by, json!(list)).await;
    }
    debug(&store, &user, json!([of("of-user", "busybox:1")])).await;
    store.apply_kubernetes(KubernetesChange::Applied(known("6", json!(theirs))));
    let names = ["of-root", "of-certificate", "shared", "differs", "of-user"];
    let statuses = names.map(|name| k8s_openapi::api::core::v1::ContainerStatus {
        name: name.to_owned(),
        ..Default::default()
    });
    let report = progress::Report {
        status: PodStatus {
            ephemeral_container_statuses: Some(statuses.to_vec()),
            ..PodStatus::default()
        },
        launches: BTreeMap::new(),
        foreign: BTreeSet::new(),
    };
    store.report("u1", report);
    for name in names {
        happened(&store, name, Some(ContainerPath::Ephemeral(name.to_owned())));
    }
    happened(&store, "main", Some(ContainerPath::Ordinary("main".to_owned())));
    happened(&store, "the pod", None);

    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        told(&store),
        (
            texts(&["main", "of-user", "shared", "the pod"]),
            texts(&["shared"])
        )
    );
    assert_eq!(told(&store).0, seen(&store, Audience::Cluster).2);
    // Once the API server has a container, it is told of what happened to it before, too.
    let more = [of("shared", "busybox:1"), of("of-root", "busybox:1")];
    store.apply_kubernetes(KubernetesChange::Written(known("7", json!(more))));
    assert_eq!(
        told(&store),
        (
            texts(&["main", "of-root", "of-user", "shared", "the pod"]),
            texts(&["of-root", "shared"])
        )
    );
    // A pod that it does not know is not its own to show.
    store.apply_kubernetes(KubernetesChange::Gone(known("8", json!([]))));
    assert_eq!(told(&store), (vec![], vec![]));
}

#[tokio::test]
async fn a_record_that_does_not_say_who_asked_counts_as_the_nodes_own() {
    let folder = tempfile::tempdir().unwrap();
    let user = AskedBy::new("jane", WayIn::Cluster);
    {
        let store = store(folder.path()).await;
        store.apply_kubernetes(KubernetesChange::Applied(known("5", json!([]))));
        debug(&store, &user, json!([{"name": "dbg", "image": "busybox:1"}])).await;
        assert_eq!(seen(&store, Audience::Cluster).1, [["dbg"]]);
    }
    // As an agent wrote it that did not keep who asked.
    let file = folder.path().join("pods/u1/ephemeral/dbg.json");
    let mut record: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert!(record.as_object_mut().unwrap().remove("askedBy").is_some());
    std::fs::write(&file, record.to_string()).unwrap();

    let store = store(folder.path()).await;
    store.apply_kubernetes(KubernetesChange::Applied(known("5", json!([]))));
    assert_eq!(seen(&store, Audience::Node).1, [["dbg"]]);
    assert_eq!(seen(&store, Audience::Cluster).1, [Vec::<String>::new()]);
    // The API server's having it is what shows it to its users again.
    let appended = json!([{"name": "dbg", "image": "busybox:1"}]);
    store.apply_kubernetes(KubernetesChange::Written(known("6", appended)));
    assert_eq!(seen(&store, Audience::Cluster).1, [["dbg"]]);
}
