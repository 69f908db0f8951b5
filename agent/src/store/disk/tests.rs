use k8s_openapi::api::core::v1::EphemeralContainer;

use super::*;
use crate::pod::record::Origin;
use crate::private_mounts::{in_private_mounts, mount_memory};

fn record(order: i64, name: &str) -> Record {
    let spec = EphemeralContainer {
        name: name.to_owned(),
        image: Some("i".to_owned()),
        ..Default::default()
    };
    Record {
        order,
        spec,
        origin: Origin::Api,
        asked_by: None,
        copy_mounts: None,
        phase: Phase::Accepted,
    }
}

fn api_pod() -> KeptPod {
    KeptPod {
        pod: Pod::default(),
        source: Source::Api,
        incarnation: 0,
        removal: None,
        evicted: None,
        gone_since: None,
    }
}

#[test]
fn records_come_back_in_the_order_in_which_they_were_accepted() {
    let dir = tempfile::tempdir().expect("folder");
    let disk = Disk::open(dir.path()).expect("open");
    for (order, name) in (0..).zip(["zebra", "ape", "mouse"]) {
        disk.write_record("u1", &record(order, name)).expect("write");
    }
    let loaded = disk.load().expect("load");
    let names: Vec<_> = loaded[0]
        .records
        .iter()
        .map(|record| record.spec.name.as_str())
        .collect();
    assert_eq!(names, ["zebra", "ape", "mouse"]);
    assert!(loaded[0].problems.is_empty());
}

#[test]
fn a_record_that_cannot_be_read_counts_as_created_and_is_set_aside_and_named() {
    let dir = tempfile::tempdir().expect("folder");
    let disk = Disk::open(dir.path()).expect("open");
    disk.write_record("u1", &record(0, "dbg")).expect("write");
    let file = disk.pod_dir("u1").join("ephemeral/dbg.json");
    fs::write(&file, "{ torn").expect("tear");
    // A second start must not forget what the first one set aside.
    for start in 1..=2 {
        let loaded = disk.load().expect("load");
        assert_eq!(loaded[0].records.len(), 1, "start {start}");
        assert_eq!(loaded[0].records[0].spec.name, "dbg");
        assert!(
            matches!(loaded[0].records[0].phase, Phase::Created(_)),
            "start {start}"
        );
        assert_eq!(loaded[0].problems.len(), if start == 1 { 1 } else { 0 });
    }
    assert!(file.with_extension("json.unreadable").exists());
}

#[test]
fn a_write_that_was_cut_before_its_rename_leaves_the_old_record() {
    let dir = tempfile::tempdir().expect("folder");
    let disk = Disk::open(dir.path()).expect("open");
    disk.write_record("u1", &record(0, "dbg")).expect("write");
    fs::write(disk.pod_dir("u1").join("ephemeral/dbg.json.new"), "{ half").expect("cut");
    let loaded = disk.load().expect("load");
    assert_eq!(loaded[0].records, [record(0, "dbg")]);
}

#[test]
fn the_source_of_a_pod_is_kept_and_files_of_the_first_release_are_read() {
    let dir = tempfile::tempdir().expect("folder");
    let disk = Disk::open(dir.path()).expect("open");
    let removal = Removal {
        grace_seconds: 5,
        since: Timestamp::UNIX_EPOCH,
    };
    let api = KeptPod {
        pod: Pod::default(),
        source: Source::Api,
        incarnation: 0,
        removal: Some(removal),
        evicted: None,
        gone_since: None,
    };
    disk.write_pod("a", &api).expect("write");
    fs::create_dir(disk.pod_dir("b")).expect("folder");
    let old =
        r#"{"pod":{"apiVersion":"v1","kind":"Pod","metadata":{}},"manifest":"/m/web.yaml","incarnation":2}"#;
    fs::write(disk.pod_dir("b").join("pod.json"), old).expect("write");
    let kept: Vec<_> = disk
        .load()
        .expect("load")
        .into_iter()
        .map(|loaded| loaded.kept.expect("kept"))
        .collect();
    assert_eq!(kept[0], api);
    let manifest = KeptPod {
        source: Source::Manifest(PathBuf::from("/m/web.yaml")),
        incarnation: 2,
        removal: None,
        evicted: None,
        ..api
    };
    assert_eq!(kept[1], manifest);
    let written = serde_json::to_value(&manifest).expect("JSON");
    assert_eq!(
        written["manifest"], "/m/web.yaml",
        "as the first release reads it"
    );
}

#[test]
fn what_was_never_accepted_and_what_is_half_removed_goes_at_the_next_start() {
    let dir = tempfile::tempdir().expect("folder");
    let disk = Disk::open(dir.path()).expect("open");
    for (pod, file) in [
        ("cut", "pod.json.new"),
        ("old.gone", "pod.json"),
        ("kept", "pod.json.unreadable"),
    ] {
        fs::create_dir(disk.pod_dir(pod)).expect("folder");
        fs::write(disk.pod_dir(pod).join(file), "{").expect("write");
    }
    fs::create_dir(disk.pod_dir("empty")).expect("folder");
    let loaded = disk.load().expect("load");
    assert_eq!(
        loaded.iter().map(|pod| pod.uid.as_str()).collect::<Vec<_>>(),
        ["kept"]
    );
    for pod in ["cut", "old.gone", "empty"] {
        assert!(!disk.pod_dir(pod).exists(), "{pod}");
    }
}

#[test]
fn a_folder_that_may_not_outlive_a_power_cut_is_not_left_for_the_next_write_to_find() {
    let dir = tempfile::tempdir().expect("folder");
    let mut disk = Disk::open(dir.path()).expect("open");
    let sync = std::mem::replace(
        &mut disk.sync,
        Arc::new(|_| Err(io::Error::other("no space left"))),
    );
    for attempt in 1..=2 {
        assert!(disk.write_pod("u1", &api_pod()).is_err(), "attempt {attempt}");
        assert!(!disk.pod_dir("u1").exists(), "attempt {attempt}");
    }
    disk.sync = sync;
    disk.write_pod("u1", &api_pod()).expect("made");
    assert!(disk.pod_dir("u1").is_dir());
}

#[test]
fn what_is_found_at_the_start_is_synced_file_by_file_and_folder_by_folder_once() {
    let dir = tempfile::tempdir().expect("folder");
    let mut disk = Disk::open(dir.path()).expect("open");
    disk.write_pod("u1", &api_pod()).expect("write");
    disk.write_record("u1", &record(0, "dbg")).expect("write");
    fs::write(disk.pod_dir("u1").join("ephemeral/cut.json.new"), "{ half").expect("cut");
    let gone = KeptPod {
        gone_since: Some(Timestamp::UNIX_EPOCH),
        ..api_pod()
    };
    disk.write_pod("gone", &gone).expect("write");
    let synced = Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = Arc::clone(&synced);
    disk.sync = Arc::new(move |path| {
        noted.lock().expect("a lock").push(path.to_path_buf());
        durable_file::sync_folder(path)
    });
    assert!(disk.load().expect("load").iter().all(|pod| pod.synced));
    let mut expected: Vec<PathBuf> = [
        "",
        "u1",
        "u1/ephemeral",
        "u1/ephemeral/cut.json.new",
        "u1/ephemeral/dbg.json",
        "u1/pod.json",
    ]
    .map(|path| dir.path().join("pods").join(path))
    .into();
    expected[0] = dir.path().join("pods");
    let mut synced = std::mem::take(&mut *synced.lock().expect("a lock"));
    synced.sort();
    assert_eq!(synced, expected);

    // A pod that cannot be synced is read all the same, and says so.
    disk.sync = Arc::new(|path| match path.ends_with("ephemeral") {
        true => Err(io::Error::other("broken")),
        false => durable_file::sync_folder(path),
    });
    let loaded = disk.load().expect("load").pop().expect("the pod that is there");
    assert!(!loaded.synced);
    assert_eq!(loaded.records.len(), 1);
    assert!(loaded.problems[0].contains("power cut"), "{:?}", loaded.problems);
}

#[test]
fn records_with_one_order_come_back_by_name_and_one_that_cannot_be_read_comes_last() {
    let dir = tempfile::tempdir().expect("folder");
    let disk = Disk::open(dir.path()).expect("open");
    for (order, name) in [(7, "torn"), (1, "b"), (1, "a"), (9, "late")] {
        disk.write_record("u1", &record(order, name)).expect("write");
    }
    fs::write(disk.pod_dir("u1").join("ephemeral/torn.json"), "{").expect("tear");
    let loaded = disk.load().expect("load");
    let names = loaded[0].records.iter().map(|record| record.spec.name.as_str());
    assert_eq!(names.collect::<Vec<_>>(), ["a", "b", "late", "torn"]);
    assert!(loaded[0].records.is_sorted_by(|one, next| one.order < next.order));
}

#[test]
fn on_a_full_disk_what_ends_something_is_written_and_what_begins_something_is_not() {
    in_private_mounts(|root| {
        mount_memory(root, "2m");
        let disk = Disk::open(root).expect("open");
        disk.write_pod("u1", &api_pod()).expect("write");
        disk.write_record("u1", &record(0, "dbg")).expect("write");
        let mut filler = File::create(root.join("filler")).expect("a file");
        let fill = |filler: &mut File| while io::Write::write(filler, &[1; 4096]).is_ok() {};
        fill(&mut filler);

        assert!(disk.write_record("u1", &record(1, "more")).is_err());
        assert!(disk.write_pod("u2", &api_pod()).is_err());
        assert_eq!(disk.missing_ballast(), 0, "nothing new is worth it");

        let stopping = Record {
            phase: Phase::Stopping { created: None },
            ..record(0, "dbg")
        };
        disk.write_record("u1", &stopping)
            .expect("the ballast makes room");
        assert!(disk.missing_ballast() > 0);
        disk.restore_ballast().expect_err("there is no room yet");

        // What fills the disk takes each piece that is given up: in the end there is none.
        let removal = KeptPod {
            removal: Some(Removal {
                grace_seconds: 5,
                since: Timestamp::UNIX_EPOCH,
            }),
            ..api_pod()
        };
        let mut written = 0;
        while disk.write_pod("u1", &removal).is_ok() {
            fill(&mut filler);
            written += 1;
        }
        assert!(written >= 4, "{written}");
        assert_eq!(disk.load().expect("load")[0].kept, Some(removal));

        drop(filler);
        fs::remove_file(root.join("filler")).expect("removed");
        disk.restore_ballast().expect("there is room again");
        assert_eq!(disk.missing_ballast(), 0);
    });
}

#[test]
fn two_agents_cannot_run_on_one_state_folder() {
    let dir = tempfile::tempdir().expect("folder");
    let first = Disk::open(dir.path()).expect("open");
    assert!(matches!(Disk::open(dir.path()), Err(DiskError::InUse { .. })));
    drop(first);
    Disk::open(dir.path()).expect("free again");
}

#[test]
fn a_pod_goes_though_an_earlier_removal_of_it_was_not_finished() {
    let dir = tempfile::tempdir().expect("folder");
    let disk = Disk::open(dir.path()).expect("open");
    disk.write_record("u1", &record(0, "earlier")).expect("write");
    fs::rename(disk.pod_dir("u1"), disk.pod_dir("u1.gone")).expect("the first half of a removal");
    disk.write_record("u1", &record(1, "later")).expect("write");
    disk.remove_pod("u1").expect("remove");
    for folder in ["u1", "u1.gone"] {
        assert!(!disk.pod_dir(folder).exists(), "{folder}");
    }
}
