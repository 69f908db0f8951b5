//! What clients write to pods, and what is left of it wherever the agent is killed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use k8s_openapi::api::core::v1::ContainerStateTerminated;
use serde_json::json;

use super::accept::{AcceptError, WantedList};
use super::claim::MAX_API_PODS;
use super::create::CreateError;
use super::delete::Deletion;
use super::disk::{Disk, DiskError};
use super::progress::AdvanceError;
use super::update::{Update, UpdateError};
use super::*;
use crate::pod::asked_by::AskedBy;
use crate::pod::creation;
use crate::pod::record::CreatedContainer;
use crate::pod::update::Changeable;
use crate::pod::visibility::Audience;

fn store(folder: &Path) -> Arc<Store> {
    let (store, problems) = Store::load("node1", Disk::open(folder).unwrap()).unwrap();
    assert!(problems.is_empty(), "{problems:?}");
    store
}

fn prepared() -> Pod {
    let pod = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"containers": [{"name": "main", "image": "busybox"}]},
    });
    creation::prepare(serde_json::from_value(pod).unwrap(), "node1").unwrap()
}

async fn create(store: &Arc<Store>) -> String {
    let created = store
        .create(Audience::Node, prepared(), DryRun::No)
        .await
        .unwrap();
    created.metadata.uid.clone().unwrap()
}

async fn delete(store: &Arc<Store>, grace_seconds: Option<i64>) {
    let deletion = Deletion {
        grace_seconds,
        ..Deletion::default()
    };
    store
        .delete(Audience::Node, "default", "web", deletion, DryRun::No)
        .await
        .unwrap();
}

fn labels(label: &str) -> Changeable {
    Changeable {
        labels: Some(BTreeMap::from([(label.to_owned(), "x".to_owned())])),
        annotations: None,
    }
}

async fn label(store: &Arc<Store>, base: Option<Changeable>, label: &str) -> Result<Arc<Pod>, UpdateError> {
    let update = Update {
        uid: None,
        resource_version: None,
        base,
        wanted: labels(label),
    };
    store
        .update(Audience::Node, "default", "web", update, DryRun::No)
        .await
}

/// The folder of the pod.
fn pod_dir(folder: &Path, uid: &str) -> PathBuf {
    folder.join("pods").join(uid)
}

#[tokio::test]
async fn a_pod_that_was_created_is_there_after_a_restart_as_it_was_last_changed() {
    let folder = tempfile::tempdir().unwrap();
    let first = store(folder.path());
    let uid = create(&first).await;
    label(&first, None, "a").await.unwrap();
    let before = first.pod("default", "web").unwrap();
    drop(first);

    let store = store(folder.path());
    let after = store.pod("default", "web").unwrap();
    assert_eq!(after.metadata.uid.as_ref(), Some(&uid));
    assert_eq!(after.metadata.labels, before.metadata.labels);
    assert_eq!(after.metadata.annotations, before.metadata.annotations);
    assert_eq!(after.spec, before.spec);
    assert_eq!(store.workable().len(), 1);
}

#[tokio::test]
async fn a_create_that_was_cut_leaves_nothing_before_its_rename_and_all_of_it_after() {
    let folder = tempfile::tempdir().unwrap();
    let first = store(folder.path());
    let uid = create(&first).await;
    drop(first);
    let dir = pod_dir(folder.path(), &uid);
    let whole = fs::read(dir.join("pod.json")).unwrap();
    fs::remove_file(dir.join("pod.json")).unwrap();

    // The file beside, as far as it was written; nothing but the folder at first.
    for (cut, beside) in [
        ("folder", None),
        ("half", Some(&whole[..whole.len() / 2])),
        ("written", Some(&whole[..])),
    ] {
        fs::create_dir_all(&dir).unwrap();
        if let Some(beside) = beside {
            fs::write(dir.join("pod.json.new"), beside).unwrap();
        }
        let store = store(folder.path());
        assert!(store.pod("default", "web").is_none(), "{cut}");
        assert!(store.workable().is_empty(), "{cut}");
        assert!(!dir.exists(), "{cut}");
    }

    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("pod.json"), &whole).unwrap();
    assert!(store(folder.path()).pod("default", "web").is_some());
}

#[tokio::test]
async fn a_delete_that_was_cut_before_its_rename_did_not_happen_and_one_after_it_is_never_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let first = store(folder.path());
    let uid = create(&first).await;
    let dir = pod_dir(folder.path(), &uid);
    let before = fs::read(dir.join("pod.json")).unwrap();
    delete(&first, Some(7)).await;
    drop(first);
    let after = fs::read(dir.join("pod.json")).unwrap();

    fs::write(dir.join("pod.json"), &before).unwrap();
    fs::write(dir.join("pod.json.new"), &after).unwrap();
    let cut = store(folder.path());
    assert_eq!(cut.view(&uid).unwrap().removal, None);
    drop(cut);

    fs::rename(dir.join("pod.json.new"), dir.join("pod.json")).unwrap();
    for restart in 1..=2 {
        let store = store(folder.path());
        let removal = store.view(&uid).unwrap().removal.unwrap();
        assert_eq!(removal.grace_seconds, 7, "restart {restart}");
        let pod = store.pod("default", "web").unwrap();
        assert!(pod.metadata.deletion_timestamp.is_some(), "restart {restart}");
    }
}

#[tokio::test]
async fn a_pod_that_was_deleted_without_grace_is_ended_after_a_restart_and_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let first = store(folder.path());
    let uid = create(&first).await;
    delete(&first, Some(0)).await;
    let second = create(&first).await;
    drop(first);

    let store = store(folder.path());
    let served = store.pod("default", "web").unwrap();
    assert_eq!(served.metadata.uid.as_ref(), Some(&second));
    let workable = || {
        store
            .workable()
            .into_iter()
            .map(|(uid, _)| uid)
            .collect::<Vec<_>>()
    };
    assert_eq!(workable(), std::slice::from_ref(&uid));
    store.forget(&uid).await.unwrap();
    assert_eq!(workable(), [second]);
}

#[tokio::test]
async fn the_end_of_a_pod_that_was_cut_is_finished_and_nothing_of_it_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let first = store(folder.path());
    let uid = create(&first).await;
    delete(&first, None).await;
    drop(first);
    let dir = pod_dir(folder.path(), &uid);

    // Before its files are touched: its end is looked for again.
    let again = store(folder.path());
    assert!(again.view(&uid).is_some_and(|view| view.removal.is_some()));
    drop(again);
    // After the first step: what is left goes.
    let gone = dir.with_extension("gone");
    fs::rename(&dir, &gone).unwrap();
    fs::remove_file(gone.join("pod.json")).unwrap();
    let last = store(folder.path());
    assert_eq!((last.pods().1.len(), last.workable().len()), (0, 0));
    assert_eq!(fs::read_dir(folder.path().join("pods")).unwrap().count(), 0);

    // In one go.
    let uid = create(&last).await;
    delete(&last, None).await;
    last.forget(&uid).await.unwrap();
    assert_eq!(fs::read_dir(folder.path().join("pods")).unwrap().count(), 0);
}

#[tokio::test]
async fn one_of_many_that_create_a_pod_of_one_name_at_once_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let creations: Vec<_> = (0..8)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.create(Audience::Node, prepared(), DryRun::No).await })
        })
        .collect();
    let mut created = 0;
    for creation in creations {
        match creation.await.unwrap() {
            Ok(_) => created += 1,
            Err(error) => assert!(matches!(error, CreateError::AlreadyExists(_)), "{error:?}"),
        }
    }
    assert_eq!((created, store.pods().1.len()), (1, 1));
    assert_eq!(fs::read_dir(folder.path().join("pods")).unwrap().count(), 1);
}

#[tokio::test]
async fn what_the_disk_refuses_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let pods = folder.path().join("pods");
    fs::remove_dir(&pods).unwrap();
    fs::write(&pods, "no folder").unwrap();
    assert!(matches!(
        store.create(Audience::Node, prepared(), DryRun::No).await,
        Err(CreateError::Disk(_))
    ));
    assert!(store.pod("default", "web").is_none());
    fs::remove_file(&pods).unwrap();
    fs::create_dir(&pods).unwrap();
    create(&store).await;

    let uid = store.pod("default", "web").unwrap().metadata.uid.clone().unwrap();
    let file = pod_dir(folder.path(), &uid).join("pod.json.new");
    fs::create_dir(&file).unwrap();
    assert!(matches!(
        label(&store, None, "a").await,
        Err(UpdateError::Disk(_))
    ));
    let served = store.pod("default", "web").unwrap();
    assert_eq!(
        (&served.metadata.labels, &served.metadata.deletion_timestamp),
        (&None, &None)
    );
    assert_eq!(store.view(&uid).unwrap().removal, None);
}

/// A debug container of the pod, as a client adds it.
async fn debug(store: &Arc<Store>, name: &str) -> Result<Arc<Pod>, AcceptError> {
    let view = store.view(
        store
            .pod("default", "web")
            .unwrap()
            .metadata
            .uid
            .as_deref()
            .unwrap(),
    );
    let mut containers: Vec<_> = view
        .unwrap()
        .records
        .into_iter()
        .map(|record| record.spec)
        .collect();
    containers.push(serde_json::from_value(json!({"name": name, "image": "busybox"})).unwrap());
    let wanted = WantedList {
        containers,
        ..WantedList::default()
    };
    store
        .accept(&AskedBy::root(), "default", "web", wanted, DryRun::No)
        .await
}

fn made(id: &str) -> CreatedContainer {
    CreatedContainer {
        container_id: id.to_owned(),
        sandbox_id: "s1".to_owned(),
        log_path: None,
    }
}

fn phase(store: &Arc<Store>, uid: &str, name: &str) -> Phase {
    let records = store.view(uid).unwrap().records;
    let mut records = records.into_iter();
    records.find(|record| record.spec.name == name).unwrap().phase
}

#[tokio::test]
async fn a_stop_and_a_deletion_that_the_disk_refuses_are_in_force_and_are_written_when_it_takes_them() {
    let folder = tempfile::tempdir().unwrap();
    let first = store(folder.path());
    let uid = create(&first).await;
    debug(&first, "dbg").await.unwrap();
    debug(&first, "waits").await.unwrap();
    let created = |_: &Phase| Some(Phase::Created(made("c1")));
    first.advance(&uid, "dbg", created).await.unwrap();
    let dir = pod_dir(folder.path(), &uid);
    let in_the_way = [
        "pod.json.new",
        "ephemeral/dbg.json.new",
        "ephemeral/waits.json.new",
    ]
    .map(|name| dir.join(name));
    for path in &in_the_way {
        fs::create_dir(path).unwrap();
    }

    for name in ["dbg", "waits"] {
        let stopped = first
            .stop(&AskedBy::root(), "default", "web", name)
            .await
            .unwrap();
        assert!(stopped.unwritten.is_some(), "{name}");
        assert!(
            matches!(phase(&first, &uid, name), Phase::Stopping { .. }),
            "{name}"
        );
    }
    // A launch that is under way sees the stop, as it would see one that is on the disk.
    let start = |phase: &Phase| matches!(phase, Phase::Accepted).then(|| Phase::Created(made("c2")));
    assert!(first.advance(&uid, "waits", start).await.is_err());
    assert!(matches!(
        phase(&first, &uid, "waits"),
        Phase::Stopping { created: None }
    ));

    let deletion = Deletion::default();
    let deleted = first
        .delete(Audience::Node, "default", "web", deletion, DryRun::No)
        .await
        .unwrap();
    assert!(deleted.unwritten.is_some());
    assert!(deleted.object.metadata.deletion_timestamp.is_some());
    assert!(first.view(&uid).unwrap().removal.is_some());
    let (_, events) = first.list::<k8s_openapi::api::core::v1::Event>(Audience::Node);
    let unwritten = events
        .iter()
        .filter(|event| event.reason.as_deref() == Some("NotWritten"));
    assert_eq!(unwritten.count(), 3, "{events:?}");
    assert!(first.keep_up().await.unwrap().contains("1 pods"));

    // What a restart before then sees: nothing was started twice for it, and nothing ends.
    let copy = tempfile::tempdir().unwrap();
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(folder.path().join("pods"))
        .arg(copy.path())
        .status();
    assert!(copied.unwrap().success());
    let restarted = store(copy.path());
    assert_eq!(phase(&restarted, &uid, "dbg"), Phase::Created(made("c1")));
    assert_eq!(phase(&restarted, &uid, "waits"), Phase::Accepted);
    assert_eq!(restarted.view(&uid).unwrap().removal, None);

    for path in &in_the_way {
        fs::remove_dir(path).unwrap();
    }
    assert_eq!(first.keep_up().await, None);
    drop(first);
    let last = store(folder.path());
    let stopping = Phase::Stopping {
        created: Some(made("c1")),
    };
    assert_eq!(phase(&last, &uid, "dbg"), stopping);
    assert_eq!(phase(&last, &uid, "waits"), Phase::Stopping { created: None });
    assert!(last.view(&uid).unwrap().removal.is_some());
}

#[tokio::test]
async fn an_end_that_the_disk_refuses_is_in_force_where_the_pod_goes_and_a_restart_starts_nothing_again() {
    let folder = tempfile::tempdir().unwrap();
    let first = store(folder.path());
    let uid = create(&first).await;
    debug(&first, "dbg").await.unwrap();
    let created = |_: &Phase| Some(Phase::Created(made("c1")));
    first.advance(&uid, "dbg", created).await.unwrap();
    delete(&first, Some(30)).await;
    let in_the_way = pod_dir(folder.path(), &uid).join("ephemeral/dbg.json.new");
    fs::create_dir(&in_the_way).unwrap();
    let ended = |phase: &Phase| match phase {
        Phase::Created(created) => Some(Phase::Ended {
            created: Some(created.clone()),
            terminated: ContainerStateTerminated::default(),
        }),
        _ => None,
    };
    assert!(first.advance(&uid, "dbg", ended).await.is_err());
    assert_eq!(phase(&first, &uid, "dbg"), Phase::Created(made("c1")));
    first.end(&uid, "dbg", ended).await.unwrap();
    assert!(matches!(phase(&first, &uid, "dbg"), Phase::Ended { .. }));
    let (_, events) = first.list::<k8s_openapi::api::core::v1::Event>(Audience::Node);
    let unwritten = events
        .iter()
        .filter(|event| event.reason.as_deref() == Some("NotWritten"));
    assert_eq!(unwritten.count(), 1, "{events:?}");
    // What the next agent finds is *created*, so it starts nothing, though nothing is left of the container.
    let left = fs::read_to_string(in_the_way.with_file_name("dbg.json")).unwrap();
    assert!(left.contains(r#""phase":"created""#), "{left}");
    assert!(first.keep_up().await.is_some());
    fs::remove_dir(&in_the_way).unwrap();
    assert_eq!(first.keep_up().await, None);
    drop(first);
    let last = store(folder.path());
    assert!(matches!(phase(&last, &uid, "dbg"), Phase::Ended { .. }));
}

#[tokio::test]
async fn no_pod_is_created_beside_one_of_its_name_whose_deletion_is_not_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let uid = create(&store).await;
    let file = pod_dir(folder.path(), &uid).join("pod.json.new");
    fs::create_dir(&file).unwrap();
    delete(&store, Some(0)).await;
    assert!(store.pod("default", "web").is_none());
    let refused = store.create(Audience::Node, prepared(), DryRun::No).await;
    assert!(matches!(refused, Err(CreateError::Disk(_))), "{refused:?}");
    fs::remove_dir(&file).unwrap();
    create(&store).await;
}

/// The rule for a folder that cannot be synced: memory has what whoever reads the files finds, the caller hears of an
/// error, and nothing that follows is said to be done before the file was written once more.
#[tokio::test]
async fn a_file_whose_folder_cannot_be_synced_is_the_same_in_memory_and_is_written_once_more() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = Disk::open(folder.path()).unwrap();
    let broken = disk.break_syncs();
    let (store, _) = Store::load("node1", disk).unwrap();
    let uid = create(&store).await;
    debug(&store, "dbg").await.unwrap();
    let on_disk = || -> (serde_json::Value, serde_json::Value) {
        let read = |name: &str| {
            serde_json::from_slice(&fs::read(pod_dir(folder.path(), &uid).join(name)).unwrap()).unwrap()
        };
        (read("pod.json"), read("ephemeral/dbg.json"))
    };
    broken.store(true, Ordering::Relaxed);

    // What begins something is taken back where it can be.
    assert!(matches!(
        debug(&store, "late").await,
        Err(AcceptError::Disk(DiskError::NotSynced { .. }))
    ));
    assert!(!pod_dir(folder.path(), &uid).join("ephemeral/late.json").exists());
    assert_eq!(store.view(&uid).unwrap().records.len(), 1);

    let changed = label(&store, None, "a").await;
    assert!(
        matches!(changed, Err(UpdateError::Disk(DiskError::NotSynced { .. }))),
        "{changed:?}"
    );
    let served = store.pod("default", "web").unwrap();
    assert_eq!(served.metadata.labels, labels("a").labels);
    assert_eq!(on_disk().0["pod"]["metadata"]["labels"]["a"], "x");

    let created = |phase: &Phase| matches!(phase, Phase::Accepted).then(|| Phase::Created(made("c1")));
    let advanced = store.advance(&uid, "dbg", created).await;
    assert!(
        matches!(advanced, Err(AdvanceError::Disk(DiskError::NotSynced { .. }))),
        "{advanced:?}"
    );
    assert_eq!(phase(&store, &uid, "dbg"), Phase::Created(made("c1")));
    assert_eq!(on_disk().1["phase"], "created");
    // Whoever asks whether that is so, as a start does, hears of the error until it was written once more.
    assert!(store.advance(&uid, "dbg", |_| None).await.is_err());

    let stopped = store
        .stop(&AskedBy::root(), "default", "web", "dbg")
        .await
        .unwrap();
    assert!(stopped.unwritten.is_some());
    assert_eq!(on_disk().1["phase"], "stopping");
    let deleted = store
        .delete(Audience::Node, "default", "web", Deletion::default(), DryRun::No)
        .await
        .unwrap();
    assert!(deleted.unwritten.is_some());
    assert!(!on_disk().0["removal"].is_null());

    broken.store(false, Ordering::Relaxed);
    assert!(store.advance(&uid, "dbg", |_| None).await.is_ok());
    assert_eq!(store.keep_up().await, None);
    assert_eq!(
        store.lock().pods.get(&uid).unwrap().unwritten,
        Unwritten::default()
    );
}

#[tokio::test]
async fn a_pod_that_cannot_be_synced_at_the_start_is_written_once_more() {
    let folder = tempfile::tempdir().unwrap();
    let first = store(folder.path());
    let uid = create(&first).await;
    debug(&first, "dbg").await.unwrap();
    drop(first);
    let mut disk = Disk::open(folder.path()).unwrap();
    let broken = disk.break_syncs();
    broken.store(true, Ordering::Relaxed);
    let (store, problems) = Store::load("node1", disk).unwrap();
    let told = |problem: &String| problem.contains(&uid) && problem.contains("power cut");
    assert!(problems.iter().any(told), "{problems:?}");
    assert!(store.advance(&uid, "dbg", |_| None).await.is_err());
    broken.store(false, Ordering::Relaxed);
    assert!(store.advance(&uid, "dbg", |_| None).await.is_ok());
}

#[tokio::test]
async fn a_change_of_what_somebody_else_has_changed_since_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    create(&store).await;
    label(&store, Some(Changeable::default()), "a").await.unwrap();
    let overtaken = label(&store, Some(Changeable::default()), "b").await;
    assert!(matches!(overtaken, Err(UpdateError::Overtaken)), "{overtaken:?}");
    label(&store, Some(labels("a")), "b").await.unwrap();
    assert_eq!(
        store.pod("default", "web").unwrap().metadata.labels,
        labels("b").labels
    );
}

#[tokio::test]
async fn a_list_is_accepted_for_the_pod_and_the_version_that_the_client_means_and_for_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let uid = create(&store).await;
    let version = store
        .pod("default", "web")
        .unwrap()
        .metadata
        .resource_version
        .clone();
    label(&store, None, "a").await.unwrap();
    let now = store
        .pod("default", "web")
        .unwrap()
        .metadata
        .resource_version
        .clone();
    let other = Some("other".to_owned());
    for (uid, version, is_meant) in [
        (other, None, false),
        (Some(uid.clone()), version, false),
        (Some(uid), now, true),
    ] {
        for dry_run in [DryRun::All, DryRun::No] {
            let debug = json!({"name": "dbg", "image": "busybox"});
            let wanted = WantedList {
                uid: uid.clone(),
                resource_version: version.clone(),
                containers: vec![serde_json::from_value(debug).unwrap()],
                ..WantedList::default()
            };
            match store
                .accept(&AskedBy::root(), "default", "web", wanted, dry_run)
                .await
            {
                Ok(_) => assert!(is_meant, "{uid:?} {version:?}"),
                Err(AcceptError::Conflict) => assert!(!is_meant, "{uid:?} {version:?}"),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[tokio::test]
async fn no_more_pods_are_created_than_there_may_be_and_one_that_goes_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let named = |number: usize| {
        let mut pod = prepared();
        pod.metadata.name = Some(format!("web-{number}"));
        pod
    };
    for number in 1..MAX_API_PODS {
        let mut pod = named(number);
        pod.metadata.uid = Some(format!("u{number}"));
        store
            .lock()
            .insert(Entry::new(pod, Source::Api, 0, Wanted::Running, Vec::new()));
    }
    let uid = create(&store).await;
    for dry_run in [DryRun::All, DryRun::No] {
        let refused = store.create(Audience::Node, named(MAX_API_PODS), dry_run).await;
        assert!(
            matches!(refused, Err(CreateError::TooMany(MAX_API_PODS))),
            "{refused:?}"
        );
    }
    delete(&store, Some(0)).await;
    assert!(
        store
            .create(Audience::Node, prepared(), DryRun::No)
            .await
            .is_err()
    );
    store.forget(&uid).await.unwrap();
    create(&store).await;
}

fn list_of(names: &[&str]) -> WantedList {
    let container = |name: &&str| serde_json::from_value(json!({"name": name, "image": "busybox"})).unwrap();
    WantedList {
        containers: names.iter().map(container).collect(),
        ..WantedList::default()
    }
}

async fn accept(store: &Arc<Store>, names: &[&str]) {
    let accepted = store
        .accept(&AskedBy::root(), "default", "web", list_of(names), DryRun::No)
        .await;
    assert_eq!(ephemeral_names(&accepted.unwrap()), names);
}

fn ephemeral_names(pod: &Pod) -> Vec<&str> {
    let spec = pod.spec.as_ref().unwrap();
    let containers = spec.ephemeral_containers.iter().flatten();
    containers.map(|container| container.name.as_str()).collect()
}

#[tokio::test]
async fn a_list_has_the_order_in_which_its_client_sent_it_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = store(folder.path());
    let uid = create(&first).await;
    accept(&first, &["a"]).await;
    let version = first.pods().0;
    accept(&first, &["a"]).await;
    assert_eq!(first.pods().0, version, "nothing has changed");
    accept(&first, &["c", "a", "b"]).await;
    accept(&first, &["b", "d", "c", "a"]).await;
    let asked_by = AskedBy::root();
    let tried = first.accept(
        &asked_by,
        "default",
        "web",
        list_of(&["a", "b", "c", "d"]),
        DryRun::All,
    );
    assert_eq!(ephemeral_names(&tried.await.unwrap()), ["a", "b", "c", "d"]);
    // A record that moves on keeps its place.
    first
        .advance(&uid, "d", |_| Some(Phase::Stopping { created: None }))
        .await
        .unwrap();
    drop(first);

    let store = store(folder.path());
    let pod = store.pod("default", "web").unwrap();
    assert_eq!(ephemeral_names(&pod), ["b", "d", "c", "a"]);
}

#[tokio::test]
async fn a_record_that_comes_after_one_was_taken_out_has_a_place_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let first = store(folder.path());
    let uid = create(&first).await;
    accept(&first, &["x", "y", "z"]).await;
    // As where one is handed back to the kubelet.
    first.disk.drop_record(&uid, "y");
    first.lock().take_out(&uid, "y");
    accept(&first, &["x", "z", "a"]).await;
    let orders: Vec<i64> = first
        .view(&uid)
        .unwrap()
        .records
        .iter()
        .map(|record| record.order)
        .collect();
    assert!(orders.is_sorted_by(|one, next| one < next), "{orders:?}");
    drop(first);
    let pod = store(folder.path()).pod("default", "web").unwrap();
    assert_eq!(ephemeral_names(&pod), ["x", "z", "a"]);
}

#[tokio::test]
async fn a_new_record_that_comes_first_or_last_has_no_other_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let first = store(folder.path());
    let uid = create(&first).await;
    accept(&first, &["a"]).await;
    let records = pod_dir(folder.path(), &uid).join("ephemeral");
    let written = |name: &str| fs::metadata(records.join(format!("{name}.json"))).unwrap().ino();
    let a = written("a");
    accept(&first, &["c", "b", "a"]).await;
    let c = written("c");
    accept(&first, &["d", "c", "b", "a", "z"]).await;
    assert_eq!((written("a"), written("c")), (a, c));
    drop(first);
    let pod = store(folder.path()).pod("default", "web").unwrap();
    assert_eq!(ephemeral_names(&pod), ["d", "c", "b", "a", "z"]);
}

#[tokio::test]
async fn an_order_that_cannot_be_written_leaves_the_one_that_was() {
    let folder = tempfile::tempdir().unwrap();
    let first = store(folder.path());
    let uid = create(&first).await;
    accept(&first, &["a", "b"]).await;
    // Nothing can be renamed onto a folder.
    let blocked = pod_dir(folder.path(), &uid).join("ephemeral/new.json");
    fs::create_dir_all(blocked.join("x")).unwrap();
    let failed = first
        .accept(
            &AskedBy::root(),
            "default",
            "web",
            list_of(&["b", "new", "a"]),
            DryRun::No,
        )
        .await;
    assert!(matches!(failed, Err(AcceptError::Disk(_))), "{failed:?}");
    assert_eq!(ephemeral_names(&first.pod("default", "web").unwrap()), ["a", "b"]);
    drop(first);
    fs::remove_dir_all(blocked).unwrap();
    let pod = store(folder.path()).pod("default", "web").unwrap();
    assert_eq!(ephemeral_names(&pod), ["a", "b"]);
}

#[tokio::test]
async fn a_pod_is_evicted_once_and_stays_so_over_a_restart_until_it_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let first = store(folder.path());
    let mut pod = prepared();
    let volume = json!({"name": "scratch", "emptyDir": {"sizeLimit": "1Mi"}});
    pod.spec.as_mut().unwrap().volumes = Some(vec![serde_json::from_value(volume).unwrap()]);
    let created = first.create(Audience::Node, pod, DryRun::No).await.unwrap();
    let uid = created.metadata.uid.clone().unwrap();
    let limited = first.limited_volumes();
    assert_eq!(
        (limited.len(), limited[0].0.as_str(), limited[0].1.len()),
        (1, uid.as_str(), 1)
    );
    first.evict(&uid, "too much".to_owned()).await;
    first.evict(&uid, "again".to_owned()).await;
    let (_, events) = first.list::<k8s_openapi::api::core::v1::Event>(Audience::Node);
    let told: Vec<_> = events
        .iter()
        .map(|event| (event.reason.as_deref(), event.message.as_deref()))
        .collect();
    assert_eq!(told, [(Some("Evicted"), Some("too much"))]);
    assert!(first.limited_volumes().is_empty());
    drop(first);

    let second = store(folder.path());
    let evicted = second.view(&uid).unwrap().evicted.unwrap();
    assert_eq!(evicted.message, "too much");
    assert!(second.limited_volumes().is_empty());
    delete(&second, Some(0)).await;
    second.forget(&uid).await.unwrap();
    assert_eq!(second.lock().pods.values().count(), 0);
}

#[tokio::test]
async fn records_whose_pod_cannot_be_read_are_a_problem_of_the_node_for_thirty_days() {
    let folder = tempfile::tempdir().unwrap();
    let first = store(folder.path());
    let uid = create(&first).await;
    debug(&first, "dbg").await.unwrap();
    drop(first);
    let dir = pod_dir(folder.path(), &uid);
    fs::write(dir.join("pod.json"), "{ torn").unwrap();
    let problems = |store: &Store| -> Vec<String> {
        let problems = store.node_report().problems.into_iter();
        problems
            .map(|problem| format!("{} {}", problem.kind.name(), problem.object))
            .collect()
    };
    let (second, _) = Store::load("node1", Disk::open(folder.path()).unwrap()).unwrap();
    assert_eq!(problems(&second), [format!("UnreadablePod {}", dir.display())]);
    drop(second);

    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(31 * 24 * 3600);
    fs::File::open(&dir).unwrap().set_modified(long_ago).unwrap();
    let third = store(folder.path());
    assert!(problems(&third).is_empty());
    assert!(!dir.exists());
}
