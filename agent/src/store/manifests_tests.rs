use serde_json::json;

use super::*;
use crate::store::DryRun;
use crate::store::accept::WantedList;
use crate::store::claim::Holder;
use crate::store::create::CreateError;
use crate::store::delete::Deletion;
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
    let leaves =
        |change: &crate::store::changes::Change<Pod>| change.object.metadata.deletion_timestamp.is_some();
    assert_eq!(changes[0].object.metadata.uid.as_deref(), Some(old.as_str()));
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
    let debug = serde_json::from_value(json!({"name": "dbg", "image": "busybox"})).unwrap();
    let wanted = WantedList {
        containers: vec![debug],
        ..WantedList::default()
    };
    store.accept("default", "web", wanted, DryRun::No).await.unwrap();
    let uid = uid(&store);
    assert!(store.forget(&uid).await.is_err());
    store.stop("default", "web", "dbg").await.unwrap();
    assert!(store.forget(&uid).await.is_err());
}

/// The pod of [`manifest`], created over the API instead.
async fn create(store: &Arc<Store>) -> String {
    let mut pod = manifest("one").pod;
    pod.metadata.namespace = Some("default".to_owned());
    let pod = crate::pod::creation::prepare(pod, "node1").unwrap();
    let created = store.create(pod, DryRun::No).await.unwrap();
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
        .delete("default", "web", Deletion::default(), DryRun::No)
        .await
        .unwrap();
    store.name_freed().await;
    apply(&store, Some(Ok(vec![manifest("one")]))).await;
    assert_eq!(problems(), []);
    assert_ne!(uid(&store), api);
    let workable: Vec<String> = store.workable().into_iter().map(|(uid, _)| uid).collect();
    assert_eq!(workable, [api], "the new one starts when the old one is gone");
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
                let _ = store.create_blocking(pod.clone(), DryRun::All);
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
        store.create(pod, DryRun::All).await,
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
        match store.create(pod, DryRun::No).await {
            Err(CreateError::AlreadyExists(holder)) => holder,
            other => panic!("{other:?}"),
        }
    };
    apply(&store, Some(Ok(vec![manifest("one")]))).await;
    assert_eq!(holder().await, Holder::Manifest(PathBuf::from(FILE)));
    apply(&store, None).await;
    assert_eq!(holder().await, Holder::Leaving);
}
