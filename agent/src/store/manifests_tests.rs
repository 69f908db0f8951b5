use std::time::Duration;

use serde_json::json;

use super::*;
use crate::pod::asked_by::AskedBy;
use crate::pod::discovered::volumes::MountedVolumes;
use crate::pod::discovered::{DiscoveredPod, Owner};
use crate::pod::same_container::table;
use crate::pod::visibility::Audience;
use crate::store::DryRun;
use crate::store::accept::WantedList;
use crate::store::claim::Holder;
use crate::store::create::CreateError;
use crate::store::delete::Deletion;
use crate::store::discovered::Discovered;
use crate::store::disk::Disk;

const FILE: &str = "/manifests/web.json";

fn store(folder: &Path) -> Arc<Store> {
    Store::load("node1", Disk::open(folder).unwrap()).unwrap().0
}

fn manifest(command: &str) -> ManifestPod {
    let document = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "main", "image": "busybox", "command": [command]}]},
    });
    ManifestPod {
        pod: serde_json::from_value(document.clone()).unwrap(),
        document,
    }
}

async fn apply(store: &Arc<Store>, file: Option<ManifestFile>) {
    let files = file.into_iter().map(|file| (PathBuf::from(FILE), file)).collect();
    store
        .apply_manifests(files, LogDir(PathBuf::from("/nonexistent")))
        .await
        .unwrap();
}

fn uid(store: &Store) -> String {
    store
        .pod("default", "web")
        .and_then(|pod| pod.metadata.uid.clone())
        .unwrap_or_default()
}

#[tokio::test]
async fn a_pod_that_is_replaced_is_on_its_way_out_before_the_new_one_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    apply(&store, Some(Ok(vec![manifest("one")]))).await;
    let (old, seen) = (uid(&store), *store.versions().borrow());

    apply(&store, Some(Ok(vec![manifest("two")]))).await;

    let (_, changes) = store.changes::<Pod>(seen).unwrap();
    let leaves = |change: &crate::store::changes::Change<Pod>| {
        change.object.whole().metadata.deletion_timestamp.is_some()
    };
    assert_eq!(
        changes[0].object.whole().metadata.uid.as_deref(),
        Some(old.as_str())
    );
    assert!(leaves(&changes[0]) && changes[1].kind == ChangeKind::Added);
    let workable: Vec<String> = store.workable().into_iter().map(|(uid, _)| uid).collect();
    assert_eq!(
        workable,
        std::slice::from_ref(&old),
        "the new one has no worker yet"
    );
    store.forget(&old).await.unwrap();
    assert_eq!(store.workable()[0].0, uid(&store));
}

#[tokio::test]
async fn a_pod_that_comes_back_is_another_and_keeps_its_uid_when_the_tombstone_goes() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    apply(&store, Some(Ok(vec![manifest("one")]))).await;
    let first = uid(&store);
    apply(&store, None).await;
    store.forget(&first).await.unwrap();

    apply(&store, Some(Ok(vec![manifest("one")]))).await;
    let second = uid(&store);
    assert_ne!(first, second);

    store.lock().tombstones.clear();
    apply(&store, Some(Ok(vec![manifest("one")]))).await;
    assert_eq!(uid(&store), second);
}

#[tokio::test]
async fn the_last_good_version_goes_on_while_its_file_is_bad_also_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = store(folder.path());
    apply(&first, Some(Ok(vec![manifest("one")]))).await;
    let good = uid(&first);
    drop(first);

    let store = store(folder.path());
    apply(&store, Some(Err("line 3: is not YAML".to_owned()))).await;
    let mut bad = manifest("one");
    bad.pod.spec.get_or_insert_default().containers[0].image = None;
    apply(&store, Some(Ok(vec![bad]))).await;

    assert_eq!(uid(&store), good);
    assert_eq!(store.node_report().manifests.problems.len(), 1);
}

#[tokio::test]
async fn a_pod_is_not_forgotten_while_a_debug_container_has_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    apply(&store, Some(Ok(vec![manifest("one")]))).await;
    debug(&store).await;
    let uid = uid(&store);
    assert!(store.forget(&uid).await.is_err());
    store
        .stop(&AskedBy::root(), "default", "web", "dbg")
        .await
        .unwrap();
    assert!(store.forget(&uid).await.is_err());
}

/// The pod of [`manifest`], created over the API instead.
async fn create(store: &Arc<Store>) -> String {
    let mut pod = manifest("one").pod;
    pod.metadata.namespace = Some("default".to_owned());
    let pod = crate::pod::creation::prepare(pod, "node1").unwrap();
    let created = store.create(Audience::Node, pod, DryRun::No).await.unwrap();
    created.metadata.uid.clone().unwrap()
}

#[tokio::test]
async fn a_pod_of_the_api_is_left_alone_and_keeps_its_name_until_it_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let api = create(&store).await;
    let problems = || store.node_report().manifests.problems;

    apply(&store, None).await;
    assert_eq!((uid(&store), problems().len()), (api.clone(), 0));
    apply(&store, Some(Err("line 3: is not YAML".to_owned()))).await;
    assert_eq!(store.view(&api).unwrap().removal, None);
    apply(&store, Some(Ok(vec![manifest("one")]))).await;
    assert_eq!((uid(&store), store.pods().1.len()), (api.clone(), 1));
    assert!(problems()[0].message.contains("over the API"), "{:?}", problems());

    store
        .delete(Audience::Node, "default", "web", Deletion::default(), DryRun::No)
        .await
        .unwrap();
    store.name_freed().await;
    apply(&store, Some(Ok(vec![manifest("one")]))).await;
    assert_eq!(problems(), []);
    assert_ne!(uid(&store), api);
    let workable: Vec<String> = store.workable().into_iter().map(|(uid, _)| uid).collect();
    assert_eq!(workable, [api], "the new one starts when the old one is gone");
}

/// Shows the external pods of these UIDs, named like that of [`manifest`], as the ready ones, and the runtime's list as
/// `listed`.
async fn discover(store: &Arc<Store>, ready: &[&str], listed: &[&str]) {
    let found = |uid: &&str| DiscoveredPod {
        pod: serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": uid},
            "spec": {"containers": [{"name": "main", "image": "busybox"}]},
        }))
        .unwrap(),
        sandbox_id: format!("s-{uid}"),
        owner: Owner::Cri,
        manifest: None,
        volumes: MountedVolumes::default(),
        etc_hosts: None,
        kubelet_root: None,
    };
    let all = |uids: &[&str]| uids.iter().map(|uid| (*uid).to_owned()).collect();
    store
        .apply_discovered(Discovered {
            changed: ready.iter().map(found).collect(),
            ready: all(ready),
            listed: all(listed),
            complete: true,
        })
        .await
        .unwrap();
}

async fn debug(store: &Arc<Store>) {
    let debug = serde_json::from_value(json!({"name": "dbg", "image": "busybox"})).unwrap();
    let wanted = WantedList {
        containers: vec![debug],
        ..WantedList::default()
    };
    store
        .accept(&AskedBy::root(), "default", "web", wanted, DryRun::No)
        .await
        .unwrap();
}

/// Whether the store has notified since it was last asked.
async fn is_notified(store: &Store) -> bool {
    tokio::time::timeout(Duration::ZERO, store.name_freed())
        .await
        .is_ok()
}

#[tokio::test]
async fn an_external_pod_gives_up_its_name_when_it_goes_also_while_its_debug_containers_have_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let problems = || store.node_report().manifests.problems.len();

    // An external pod without debug containers goes.
    discover(&store, &["e1"], &["e1"]).await;
    apply(&store, Some(Ok(vec![manifest("one")]))).await;
    assert_eq!((problems(), is_notified(&store).await), (1, false));
    discover(&store, &[], &[]).await;
    assert!(is_notified(&store).await);

    // One with debug containers stays until they have ended, and leaves the name at once.
    discover(&store, &["e2"], &["e2"]).await;
    debug(&store).await;
    apply(&store, Some(Ok(vec![manifest("one")]))).await;
    assert_eq!((problems(), is_notified(&store).await), (1, false));
    discover(&store, &[], &[]).await;
    assert!(is_notified(&store).await);
    apply(&store, Some(Ok(vec![manifest("one")]))).await;
    assert_eq!((problems(), is_notified(&store).await), (0, false));
    apply(&store, None).await;
    let own = uid(&store);
    store.forget(&own).await.unwrap();
    assert!(
        !is_notified(&store).await,
        "no manifest waits for a manifest's pod"
    );
}

#[tokio::test]
async fn a_pod_of_the_api_gives_up_its_name_when_it_is_deleted_and_when_it_is_not_created_after_all() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    for grace_seconds in [None, Some(0)] {
        let created = create(&store).await;
        assert!(!is_notified(&store).await);
        let deletion = Deletion {
            grace_seconds,
            ..Deletion::default()
        };
        store
            .delete(Audience::Node, "default", "web", deletion, DryRun::No)
            .await
            .unwrap();
        assert!(is_notified(&store).await, "{grace_seconds:?}");
        store.forget(&created).await.unwrap();
        is_notified(&store).await;
    }

    // Nothing comes of a claim.
    let mut pod = manifest("one").pod;
    pod.metadata.namespace = Some("default".to_owned());
    let pods = folder.path().join("pods");
    std::fs::rename(&pods, folder.path().join("aside")).unwrap();
    std::fs::write(&pods, "no folder").unwrap();
    let failed = store.create(Audience::Node, pod, DryRun::No).await;
    assert!(matches!(failed, Err(CreateError::Disk(_))), "{failed:?}");
    assert!(is_notified(&store).await);
    let files = BTreeMap::from([(PathBuf::from(FILE), Ok(vec![manifest("one")]))]);
    let failed = store
        .apply_manifests(files, LogDir(PathBuf::from("/nonexistent")))
        .await;
    assert!(
        failed.is_err() && !is_notified(&store).await,
        "else it would go round"
    );
}

#[tokio::test]
async fn a_create_that_is_only_tried_keeps_a_name_from_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let mut pod = manifest("one").pod;
    pod.metadata.namespace = Some("default".to_owned());
    let trying = std::thread::scope(|threads| {
        let tries = threads.spawn(|| {
            for _ in 0..2000 {
                // Whoever writes the name meanwhile has it.
                let _ = store.create_blocking(Audience::Node, pod.clone(), DryRun::All);
            }
        });
        let mut refused = 0;
        while !tries.is_finished() {
            refused += usize::from(store.claim_for_manifest("default", "web").is_err());
        }
        refused
    });
    assert_eq!(trying, 0);
    let _claim = store.claim_for_manifest("default", "web").unwrap();
    assert!(matches!(
        store.create(Audience::Node, pod, DryRun::All).await,
        Err(CreateError::AlreadyExists(Holder::Api))
    ));
}

#[tokio::test]
async fn a_pod_of_the_folder_has_its_name_while_it_is_there_and_while_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let holder = async || {
        let mut pod = manifest("one").pod;
        pod.metadata.namespace = Some("default".to_owned());
        match store.create(Audience::Node, pod, DryRun::No).await {
            Err(CreateError::AlreadyExists(holder)) => holder,
            other => panic!("{other:?}"),
        }
    };
    apply(&store, Some(Ok(vec![manifest("one")]))).await;
    assert_eq!(holder().await, Holder::Manifest(PathBuf::from(FILE)));
    apply(&store, None).await;
    assert_eq!(holder().await, Holder::Leaving);
}

/// The status of the pod: phase, reason.
fn told(store: &Store) -> (Option<String>, Option<String>) {
    let status = store
        .pod("default", "web")
        .and_then(|pod| pod.status.clone())
        .unwrap_or_default();
    (status.phase, status.reason)
}

#[tokio::test]
async fn a_pod_that_is_not_valid_and_one_that_is_not_supported_are_told_apart() {
    for (change, reason) in [
        (json!({"restartPolicy": "Sometimes"}), "Invalid"),
        (json!({"hostUsers": false}), "NotSupported"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let mut document = manifest("one").document;
        document["spec"]
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        let pod = serde_json::from_value(document.clone()).unwrap();
        apply(&store, Some(Ok(vec![ManifestPod { pod, document }]))).await;
        assert_eq!(told(&store), (Some("Failed".to_owned()), Some(reason.to_owned())));
    }
}

#[tokio::test]
async fn a_pod_whose_log_folder_no_file_system_takes_is_refused_with_the_field() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let mut long = manifest("one");
    long.pod.metadata.name = Some("p".repeat(211));
    apply(&store, Some(Ok(vec![long]))).await;
    let problems = store.node_report().manifests.problems;
    assert!(
        problems[0]
            .message
            .starts_with("metadata.name: may have 210 characters"),
        "{problems:?}"
    );
    let pod = store.pod("default", &"p".repeat(211)).unwrap();
    assert_eq!(pod.status.as_ref().unwrap().phase.as_deref(), Some("Failed"));
    assert_eq!(store.workable().len(), 0);
}

#[tokio::test]
async fn an_ephemeral_container_that_makes_the_pod_too_large_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let with = |containers: serde_json::Value| {
        let mut manifest = manifest("one");
        manifest.pod.spec.as_mut().unwrap().ephemeral_containers =
            serde_json::from_value(containers).unwrap();
        manifest
    };
    let sized =
        |name: &str, bytes: usize| json!({"name": name, "image": "busybox", "args": ["x".repeat(bytes)]});
    let containers = json!([
        sized("a", 700_000),
        sized("b", 700_000),
        sized("c", 700_000),
        sized("d", 1)
    ]);
    apply(&store, Some(Ok(vec![with(containers)]))).await;
    let pod = store.pod("default", "web").unwrap();
    let names: Vec<&str> = pod
        .spec
        .as_ref()
        .unwrap()
        .ephemeral_containers
        .iter()
        .flatten()
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(names, ["a", "b", "d"]);
    let problems = store.node_report().manifests.problems;
    assert!(
        problems.len() == 1
            && problems[0]
                .message
                .contains("\"c\": it is left out: the pod would have"),
        "{problems:?}"
    );
}

#[tokio::test]
async fn an_ephemeral_container_counts_as_changed_exactly_when_it_is_another_container() {
    let with = |container: &EphemeralContainer| {
        let mut manifest = manifest("one");
        let spec = manifest.pod.spec.as_mut().unwrap();
        spec.ephemeral_containers = Some(vec![container.clone()]);
        Some(Ok(vec![manifest]))
    };
    for (more, same) in table::rows() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        apply(&store, with(&table::base())).await;
        apply(&store, with(&table::container(&more))).await;
        let problems = store.node_report().manifests.problems;
        assert_eq!(problems.is_empty(), same, "{more}: {problems:?}");
    }
}

#[tokio::test]
async fn an_ephemeral_container_with_a_log_ran_before_and_what_is_left_out_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let logs = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let apply = async |names: &[&str]| {
        let mut web = manifest("one");
        let ephemeral = names.iter().map(|name| json!({"name": name, "image": "busybox"}));
        let ephemeral: serde_json::Value = ephemeral.collect();
        web.pod.spec.as_mut().unwrap().ephemeral_containers = serde_json::from_value(ephemeral).unwrap();
        let files = BTreeMap::from([(PathBuf::from(FILE), Ok(vec![web]))]);
        let log_dir = LogDir(logs.path().to_path_buf());
        store.apply_manifests(files, log_dir).await.unwrap();
    };
    apply(&[]).await;
    let uid = uid(&store);
    let ran = logs.path().join(format!("default_web_{uid}/ran"));
    std::fs::create_dir_all(&ran).unwrap();
    std::fs::write(ran.join("0.log"), "").unwrap();

    apply(&["ran", "new", "new"]).await;
    let records = store.view(&uid).unwrap().records;
    let phases: Vec<_> = records
        .iter()
        .map(|record| (record.spec.name.as_str(), record.created().is_some()))
        .collect();
    assert_eq!(phases, [("ran", true), ("new", false)]);
    let (_, events) = store.list::<k8s_openapi::api::core::v1::Event>(Audience::Node);
    let told = events
        .iter()
        .filter(|event| event.reason.as_deref() == Some("FailedValidation"));
    let counts: Vec<_> = told.map(|event| event.count).collect();
    assert_eq!(counts, [Some(1)], "it is listed twice");
}
