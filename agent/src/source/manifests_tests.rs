//! With real files and real events.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

use super::super::folder_watch::start;
use super::*;
use crate::store::disk::Disk;

fn pod(name: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n")
}

/// Waits for the snapshot that has exactly these pods.
async fn wait_for(folder: &mut ManifestFolder, expected: &[&str]) {
    let names = |snapshot: &Snapshot| -> Vec<String> {
        let pods = snapshot.values().flatten().flatten();
        pods.filter_map(|entry| entry.pod.metadata.name.clone()).collect()
    };
    let mut last = None;
    let found = async {
        loop {
            let snapshot = folder.next().await.unwrap();
            if names(&snapshot) == expected {
                return;
            }
            last = Some(snapshot);
        }
    };
    if tokio::time::timeout(Duration::from_secs(20), found)
        .await
        .is_err()
    {
        panic!("no snapshot with {expected:?}; the last was {last:?}");
    }
}

/// A store that the folder can report to, in a state folder that goes at once.
fn store() -> Arc<Store> {
    let state = tempfile::tempdir().unwrap();
    Store::load("node1", Disk::open(state.path()).unwrap()).unwrap().0
}

fn begin(base: &TempDir, folder: &str) -> (PathBuf, ManifestFolder) {
    let path = base.path().join(folder);
    (path.clone(), ManifestFolder::follow(path, store()))
}

fn write(folder: &Path, name: &str) {
    fs::write(folder.join(format!("{name}.yaml")), pod(name)).unwrap();
}

#[tokio::test]
async fn pods_come_change_and_go_with_their_files() {
    let base = tempfile::tempdir().unwrap();
    write(base.path(), "a");
    let (path, mut folder) = begin(&base, "");
    wait_for(&mut folder, &["a"]).await;
    write(&path, "b");
    wait_for(&mut folder, &["a", "b"]).await;
    fs::write(path.join("b.yaml"), pod("changed")).unwrap();
    wait_for(&mut folder, &["a", "changed"]).await;
    fs::remove_file(path.join("a.yaml")).unwrap();
    wait_for(&mut folder, &["changed"]).await;
}

#[tokio::test]
async fn the_folder_may_come_later_with_folders_above_it() {
    let base = tempfile::tempdir().unwrap();
    let (path, mut folder) = begin(&base, "etc/debuglet/manifests");
    wait_for(&mut folder, &[]).await;
    fs::create_dir_all(&path).unwrap();
    write(&path, "a");
    wait_for(&mut folder, &["a"]).await;
}

#[tokio::test]
async fn the_folder_may_go_and_come_again() {
    let base = tempfile::tempdir().unwrap();
    let (path, mut folder) = begin(&base, "manifests");
    fs::create_dir(&path).unwrap();
    write(&path, "a");
    wait_for(&mut folder, &["a"]).await;
    fs::remove_dir_all(&path).unwrap();
    wait_for(&mut folder, &[]).await;
    fs::create_dir(&path).unwrap();
    write(&path, "b");
    wait_for(&mut folder, &["b"]).await;
    // Another folder in the place of this one, all at once.
    let other = base.path().join("other");
    fs::create_dir(&other).unwrap();
    write(&other, "c");
    fs::rename(&path, base.path().join("old")).unwrap();
    fs::rename(&other, &path).unwrap();
    wait_for(&mut folder, &["c"]).await;
    write(&path, "d");
    wait_for(&mut folder, &["c", "d"]).await;
}

#[tokio::test]
async fn an_editors_rename_is_one_change() {
    let base = tempfile::tempdir().unwrap();
    write(base.path(), "a");
    let (path, mut folder) = begin(&base, "");
    wait_for(&mut folder, &["a"]).await;
    fs::write(path.join(".a.yaml.new"), pod("edited")).unwrap();
    fs::rename(path.join(".a.yaml.new"), path.join("a.yaml")).unwrap();
    let next = folder.next().await.unwrap();
    assert_eq!(next.len(), 1);
    assert_eq!(
        next[&path.join("a.yaml")].as_ref().unwrap()[0]
            .pod
            .metadata
            .name
            .as_deref(),
        Some("edited")
    );
}

#[tokio::test]
async fn a_file_in_the_middle_of_being_written_is_not_read() {
    use std::io::Write;
    let base = tempfile::tempdir().unwrap();
    let (path, mut folder) = begin(&base, "");
    wait_for(&mut folder, &[]).await;
    let mut file = fs::File::create(path.join("a.yaml")).unwrap();
    file.write_all(pod("first").as_bytes()).unwrap();
    file.write_all(format!("---\n{}", pod("second")).as_bytes())
        .unwrap();
    drop(file);
    let next = folder.next().await.unwrap();
    assert_eq!(next[&path.join("a.yaml")].as_ref().unwrap().len(), 2);
}

#[tokio::test]
async fn a_bad_file_says_why_and_may_become_good() {
    let base = tempfile::tempdir().unwrap();
    fs::write(base.path().join("a.yaml"), "kind: [").unwrap();
    let (path, mut folder) = begin(&base, "");
    let first = folder.next().await.unwrap();
    let reason = first[&path.join("a.yaml")].as_ref().unwrap_err();
    assert!(reason.contains("is not YAML"), "{reason}");
    write(&path, "a");
    wait_for(&mut folder, &["a"]).await;
}

#[tokio::test]
async fn a_folder_for_which_the_kernel_gives_no_events_is_polled_and_a_problem_until_it_does() {
    static FAILS: AtomicBool = AtomicBool::new(true);
    let base = tempfile::tempdir().unwrap();
    let path = base.path().to_path_buf();
    let watch = FolderWatch::started_by(
        |shared, folder| {
            if FAILS.load(Ordering::SeqCst) {
                return Err(notify::Error::generic("Too many open files"));
            }
            start(shared, folder)
        },
        path.clone(),
    );
    let store = store();
    let mut folder = ManifestFolder::watched_by(watch, path.clone(), Arc::clone(&store));
    wait_for(&mut folder, &[]).await;
    write(&path, "a");
    wait_for(&mut folder, &["a"]).await;

    let problems = store.node_report().problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].kind, ProblemKind::FolderNotWatched);
    assert_eq!(problems[0].object, path.display().to_string());
    assert!(
        problems[0].message.contains("Too many open files"),
        "{problems:?}"
    );
    assert!(store.unready().is_empty(), "it is polled");

    FAILS.store(false, Ordering::SeqCst);
    fs::remove_file(path.join("a.yaml")).unwrap();
    wait_for(&mut folder, &[]).await;
    assert_eq!(store.node_report().problems, []);
}
