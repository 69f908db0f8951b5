use std::sync::atomic::Ordering;

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::*;
use crate::pod::source::Source;
use crate::store::disk::Disk;
use crate::store::{Store, Wanted};

fn entry(namespace: &str, name: &str, uid: &str) -> Entry {
    let pod = json!({
        "metadata": {"namespace": namespace, "name": name, "uid": uid},
        "spec": {"containers": []},
    });
    let pod: Pod = serde_json::from_value(pod).unwrap();
    Entry::new(pod, Source::Api, 0, Wanted::Running, Vec::new())
}

fn uids<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<&'a str> {
    entries.map(|entry| entry.key.uid.as_str()).collect()
}

#[test]
fn the_index_of_names_follows_what_is_inserted_and_removed() {
    let mut table = PodTable::default();
    for (namespace, name, uid) in [
        ("a", "web", "1"),
        ("a", "web", "2"),
        ("a", "db", "3"),
        ("b", "web", "4"),
    ] {
        table.insert(entry(namespace, name, uid));
    }
    assert_eq!(uids(table.named("a", "web")), ["1", "2"]);
    assert_eq!(uids(table.named("b", "web")), ["4"]);
    assert_eq!(uids(table.named("b", "db")), [""; 0]);
    assert_eq!(uids(table.of_namespace("a")), ["3", "1", "2"]);

    assert!(table.remove("1").is_some() && table.remove("1").is_none());
    assert_eq!(uids(table.named("a", "web")), ["2"]);
    // Another pod under the same UID takes its place under its own name.
    table.insert(entry("b", "db", "2"));
    assert_eq!(uids(table.named("a", "web")), [""; 0]);
    assert_eq!(uids(table.named("b", "db")), ["2"]);
    for uid in ["2", "3", "4"] {
        assert!(table.remove(uid).is_some());
    }
    assert!(table.names.is_empty(), "{:?}", table.names);
}

#[test]
fn a_question_about_one_name_looks_at_the_pods_of_that_name_and_the_list_of_work_at_each_pod_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::load("node1", Disk::open(folder.path()).unwrap())
        .unwrap()
        .0;
    let pods = 1000;
    for pod in 0..pods {
        let namespace = format!("n{}", pod % 10);
        store
            .lock()
            .insert(entry(&namespace, &format!("p{pod}"), &format!("u{pod}")));
    }
    let visits = |ask: &dyn Fn()| {
        store.lock().pods.visits.store(0, Ordering::Relaxed);
        ask();
        store.lock().pods.visits.load(Ordering::Relaxed)
    };
    let get = visits(&|| assert!(store.pod("n3", "p3").is_some()));
    assert_eq!(get, 1);
    let workable = visits(&|| assert_eq!(store.workable().len(), pods));
    assert_eq!(workable, 2 * pods, "each pod, and its namesakes: itself");
}
