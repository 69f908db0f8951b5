//! On real mounts.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Command;

use serde_json::{Value, json};

use super::tear_down::tear_down_now;
use super::*;
use crate::private_mounts::{in_private_mounts, mount_memory};

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": spec})).expect("a pod")
}

fn pod_with(volume: &Value) -> Pod {
    pod(json!({"containers": [{"name": "a"}], "volumes": [volume]}))
}

fn memory() -> Pod {
    pod_with(&json!({"name": "data", "emptyDir": {"medium": "Memory", "sizeLimit": "64Ki"}}))
}

fn prepare_now(pod: &Pod, pod_dir: &Path) -> Result<BTreeMap<String, PathBuf>, VolumeError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(prepare(pod, None, pod_dir))
}

fn prepared(pod: &Pod, pod_dir: &Path) -> PathBuf {
    prepare_now(pod, pod_dir)
        .expect("prepared")
        .remove("data")
        .expect("the volume")
}

fn refusal(pod: &Pod, pod_dir: &Path) -> String {
    prepare_now(pod, pod_dir).expect_err("refused").to_string()
}

fn is_memory(path: &Path) -> bool {
    statfs(path).expect("a folder").filesystem_type() == TMPFS_MAGIC
}

fn bind(from: &Path, to: &Path) {
    nix::mount::mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("a bind mount");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").mode() & 0o7777
}

#[test]
fn an_empty_dir_is_made_ready_while_as_many_paths_of_the_host_hang_as_may() {
    in_private_mounts(|root| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (ends, began) = (std::sync::Mutex::new(Vec::new()), std::sync::mpsc::channel());
        for number in 0..untrusted_file::VOLUMES.most_of_a_mount() {
            let ((end, ended), begin) = (std::sync::mpsc::channel::<()>(), began.0.clone());
            ends.lock().expect("no panic").push(end);
            runtime.spawn(async move {
                let path = PathBuf::from(format!("/mnt/dead-{number}"));
                let hang = move || {
                    let _ = begin.send(());
                    ended.recv()
                };
                untrusted_file::VOLUMES.run(&path, hang).await
            });
            let within = std::time::Duration::from_secs(60);
            began.1.recv_timeout(within).expect("it hangs");
        }
        for volume in [
            json!({"name": "data", "emptyDir": {}}),
            json!({"name": "data", "emptyDir": {"medium": "Memory"}}),
        ] {
            let ready = prepare_now(
                &pod_with(&volume),
                &root.join(volume["emptyDir"].to_string().len().to_string()),
            );
            ready.expect("it needs none of these threads");
        }
        drop(ends);
    });
}

#[test]
fn an_empty_dir_lies_where_a_kubelet_puts_it_and_is_open_to_every_user() {
    in_private_mounts(|root| {
        let path = prepared(&pod_with(&json!({"name": "data", "emptyDir": {}})), root);
        assert_eq!(path, root.join("volumes/kubernetes.io~empty-dir/data"));
        assert_eq!(mode(&path), 0o777);
        assert_eq!(mode(&root.join("volumes")), 0o750);
    });
}

#[test]
fn an_fs_group_owns_the_empty_dirs_and_what_is_made_in_them() {
    in_private_mounts(|root| {
        for (name, empty_dir) in [("disk", json!({})), ("memory", json!({"medium": "Memory"}))] {
            let volume = json!({"name": "data", "emptyDir": empty_dir});
            let pod =
                pod(json!({"containers": [], "securityContext": {"fsGroup": 2000}, "volumes": [volume]}));
            let path = prepared(&pod, &root.join(name));
            assert_eq!(mode(&path), 0o2777, "{name}");
            fs::write(path.join("file"), "").expect("a file");
            assert_eq!(
                fs::metadata(path.join("file")).expect("the file").gid(),
                2000,
                "{name}"
            );
        }
    });
}

#[test]
fn preparing_again_leaves_what_the_containers_made() {
    in_private_mounts(|root| {
        let disk = pod_with(&json!({"name": "data", "emptyDir": {}}));
        for pod in [disk, memory()] {
            let pod_dir = tempfile::tempdir_in(root).expect("a folder");
            let path = prepared(&pod, pod_dir.path());
            fs::write(path.join("file"), "kept").expect("a file");
            fs::set_permissions(&path, Permissions::from_mode(0o700)).expect("a mode");
            assert_eq!(prepared(&pod, pod_dir.path()), path);
            assert_eq!(fs::read_to_string(path.join("file")).expect("the file"), "kept");
            assert_eq!(mode(&path), 0o700);
            tear_down_now(pod_dir.path()).expect("torn down");
        }
    });
}

#[test]
fn a_half_made_empty_dir_is_made_whole() {
    in_private_mounts(|root| {
        fs::create_dir_all(root.join("volumes/kubernetes.io~empty-dir/data.new")).expect("what a crash left");
        let path = prepared(&pod_with(&json!({"name": "data", "emptyDir": {}})), root);
        assert_eq!(mode(&path), 0o777);
        assert!(!path.with_extension("new").exists());
    });
}

#[test]
fn a_memory_volume_is_a_tmpfs_of_its_size() {
    in_private_mounts(|root| {
        let path = prepared(&memory(), root);
        assert!(is_memory(&path));
        assert_eq!(mode(&path), 0o777);
        fs::write(path.join("fits"), vec![0; 60 * 1024]).expect("it fits");
        let full = fs::write(path.join("more"), vec![0; 8 * 1024]).expect_err("it is full");
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    });
}

#[test]
fn a_memory_volume_is_mounted_again_after_a_reboot() {
    in_private_mounts(|root| {
        let path = prepared(&memory(), root);
        fs::write(path.join("file"), "gone").expect("a file");
        nix::mount::umount(&path).expect("as a reboot does");
        assert_eq!(prepared(&memory(), root), path);
        assert!(is_memory(&path) && !path.join("file").exists());
    });
}

#[test]
fn a_memory_volume_is_no_larger_than_the_pods_memory() {
    let container = |limit: &str| json!({"name": "a", "resources": {"limits": {"memory": limit}}});
    let no_limit = json!({"name": "b"});
    for (containers, init_containers, size_limit, expected) in [
        (
            json!([container("1Mi")]),
            json!([]),
            json!("64Ki"),
            Some(64 << 10),
        ),
        (json!([container("1Mi")]), json!([]), json!("2Mi"), Some(1 << 20)),
        (
            json!([container("1Mi"), container("1Mi")]),
            json!([]),
            json!(null),
            Some(2 << 20),
        ),
        (
            json!([container("1Mi")]),
            json!([container("4Mi")]),
            json!(null),
            Some(4 << 20),
        ),
        // Each of them can be said, and their sum cannot.
        (
            json!(vec![container("8Pi"); 1100]),
            json!([]),
            json!(null),
            Some(i64::MAX),
        ),
        (json!([container("1Mi"), no_limit]), json!([]), json!(null), None),
        (json!([no_limit]), json!([]), json!("0"), None),
    ] {
        let pod = pod(json!({"containers": containers, "initContainers": init_containers}));
        let empty_dir: EmptyDirVolumeSource =
            serde_json::from_value(json!({"sizeLimit": size_limit})).expect("an emptyDir");
        assert_eq!(
            memory_size(&pod, &empty_dir),
            expected,
            "{containers} {init_containers} {size_limit}"
        );
    }
}

#[test]
fn a_memory_volume_does_not_take_a_foreign_mount_for_its_own() {
    in_private_mounts(|root| {
        let path = root.join("volumes/kubernetes.io~empty-dir/data");
        fs::create_dir_all(&path).expect("a folder");
        nix::mount::mount(Some("proc"), &path, Some("proc"), MsFlags::empty(), None::<&str>)
            .expect("a mount");
        let refusal = refusal(&memory(), root);
        assert!(refusal.contains("something else is mounted at"), "{refusal}");
    });
}

#[test]
fn a_host_path_must_be_what_its_type_says() {
    in_private_mounts(|root| {
        let at = |name: &str| root.join(name).display().to_string();
        fs::create_dir(root.join("folder")).expect("a folder");
        fs::write(root.join("file"), "").expect("a file");
        symlink(root.join("folder"), root.join("link")).expect("a link");
        let _socket = UnixListener::bind(root.join("socket")).expect("a socket");
        let made = Command::new("mknod")
            .arg(root.join("block"))
            .args(["b", "7", "250"])
            .status();
        assert!(made.expect("mknod").success());
        let bad = |path: &str, kind: &str| format!("hostPath type check failed: {path} is not {kind}");
        for (path, kind, expected) in [
            (at("nothing"), "", Ok(())),
            (at("folder"), "Directory", Ok(())),
            (at("link"), "Directory", Ok(())),
            (at("file"), "File", Ok(())),
            (at("socket"), "Socket", Ok(())),
            ("/dev/null".to_owned(), "CharDevice", Ok(())),
            (at("block"), "BlockDevice", Ok(())),
            (at("folder"), "DirectoryOrCreate", Ok(())),
            (at("new/folder"), "DirectoryOrCreate", Ok(())),
            (at("new-file"), "FileOrCreate", Ok(())),
            (at("file"), "FileOrCreate", Ok(())),
            (
                at("nothing"),
                "Directory",
                Err(bad(&at("nothing"), "a directory")),
            ),
            (at("file"), "Directory", Err(bad(&at("file"), "a directory"))),
            (
                at("file"),
                "DirectoryOrCreate",
                Err(bad(&at("file"), "a directory")),
            ),
            (at("folder"), "File", Err(bad(&at("folder"), "a file"))),
            (at("folder"), "FileOrCreate", Err(bad(&at("folder"), "a file"))),
            (at("file"), "Socket", Err(bad(&at("file"), "a socket file"))),
            (
                at("file"),
                "CharDevice",
                Err(bad(&at("file"), "a character device")),
            ),
            (
                "/dev/null".to_owned(),
                "BlockDevice",
                Err(bad("/dev/null", "a block device")),
            ),
        ] {
            let pod = pod_with(&json!({"name": "data", "hostPath": {"path": path, "type": kind}}));
            let expected = expected
                .map(|()| PathBuf::from(&path))
                .map_err(|reason| format!("MountVolume.SetUp failed for volume \"data\" : {reason}"));
            let found = prepare_now(&pod, root);
            let found = found
                .map(|paths| paths["data"].clone())
                .map_err(|error| error.to_string());
            assert_eq!(found, expected, "{path} {kind}");
        }
        assert_eq!(mode(&root.join("new/folder")), 0o755);
        assert_eq!(mode(&root.join("new-file")), 0o644);
        let orphan =
            pod_with(&json!({"name": "data", "hostPath": {"path": at("none/file"), "type": "FileOrCreate"}}));
        let refusal = refusal(&orphan, root);
        assert!(
            refusal.contains("cannot make") && refusal.contains("No such file"),
            "{refusal}"
        );
    });
}

#[test]
fn a_kind_of_volume_that_is_not_known_is_refused() {
    in_private_mounts(|root| {
        for volume in [
            json!({"name": "data", "secret": {"secretName": "a"}}),
            json!({"name": "data", "emptyDir": {"medium": "HugePages"}}),
        ] {
            let refusal = refusal(&pod_with(&volume), root);
            assert!(
                refusal.ends_with("this kind of volume is not supported"),
                "{refusal}"
            );
        }
    });
}

#[test]
fn tearing_down_removes_the_volumes_and_nothing_else() {
    in_private_mounts(|root| {
        fs::create_dir(root.join("host")).expect("a folder");
        fs::write(root.join("host/file"), "").expect("a file");
        let host = root.join("host").display().to_string();
        let pod = pod(json!({"containers": [], "volumes": [
            {"name": "data", "emptyDir": {}},
            {"name": "memory", "emptyDir": {"medium": "Memory"}},
            {"name": "host", "hostPath": {"path": host}},
        ]}));
        let pod_dir = root.join("pod");
        let path = prepared(&pod, &pod_dir);
        fs::create_dir_all(path.join("folder/deeper")).expect("a folder");
        fs::write(path.join("folder/deeper/file"), "").expect("a file");
        symlink(root.join("host"), path.join("link")).expect("a link");
        symlink(root.join("host"), path.join("folder/link")).expect("a link");
        fs::write(pod_dir.join("pod.json"), "").expect("the agent's own file");
        tear_down_now(&pod_dir).expect("torn down");
        tear_down_now(&pod_dir).expect("nothing to do");
        let left: Vec<_> = fs::read_dir(&pod_dir).expect("the folder").flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(root.join("host/file").exists() && pod_dir.join("pod.json").exists());
        tear_down_now(&root.join("nothing")).expect("no folder, no volumes");
    });
}

#[test]
fn tearing_down_takes_away_mounts_and_keeps_what_was_mounted() {
    in_private_mounts(|root| {
        let (precious, pod_dir) = (root.join("precious"), root.join("a pod"));
        fs::create_dir(&precious).expect("a folder");
        fs::write(precious.join("file"), "").expect("a file");
        let path = prepared(&pod_with(&json!({"name": "data", "emptyDir": {}})), &pod_dir);
        for _ in 0..2 {
            fs::create_dir_all(path.join("below/it")).expect("a folder");
            bind(&precious, &path.join("below/it"));
        }
        fs::write(path.join("over"), "").expect("a file");
        bind(&precious.join("file"), &path.join("over"));
        tear_down_now(&pod_dir).expect("torn down");
        assert!(precious.join("file").exists());
        assert!(!pod_dir.join("volumes").exists());
    });
}

#[test]
fn a_busy_mount_stops_the_tear_down_until_it_is_free() {
    in_private_mounts(|root| {
        let path = prepared(&memory(), root);
        let open = File::create(path.join("file")).expect("a file");
        let refusal = tear_down_now(root).expect_err("busy").to_string();
        assert!(
            refusal.starts_with(&format!("cannot unmount {}", path.display())),
            "{refusal}"
        );
        assert!(path.join("file").exists());
        drop(open);
        tear_down_now(root).expect("torn down");
    });
}

#[test]
fn tearing_down_goes_on_where_it_was_cut_short() {
    in_private_mounts(|root| {
        fs::create_dir_all(root.join("volumes.removing/7/folder")).expect("what a crash left");
        fs::create_dir_all(root.join("volumes/kubernetes.io~empty-dir/data")).expect("a volume");
        tear_down_now(root).expect("torn down");
        assert_eq!(fs::read_dir(root).expect("the folder").count(), 0);
    });
}

#[test]
fn folders_nested_deeper_than_a_path_can_name_are_removed() {
    in_private_mounts(|root| {
        let path = prepared(&pod_with(&json!({"name": "data", "emptyDir": {}})), root);
        let mut folder = open_folder(&path).expect("the volume");
        for _ in 0..2500 {
            nix::sys::stat::mkdirat(&folder, "d", nix::sys::stat::Mode::S_IRWXU).expect("a folder");
            let below = nix::fcntl::openat(
                &folder,
                "d",
                nix::fcntl::OFlag::O_DIRECTORY,
                nix::sys::stat::Mode::empty(),
            );
            folder = File::from(below.expect("the folder"));
        }
        tear_down_now(root).expect("torn down");
        assert!(!root.join("volumes").exists());
    });
}

#[test]
fn volumes_that_are_a_link_are_not_followed() {
    in_private_mounts(|root| {
        fs::create_dir_all(root.join("elsewhere/data")).expect("a folder");
        fs::create_dir(root.join("pod")).expect("a folder");
        symlink(root.join("elsewhere"), root.join("pod/volumes")).expect("a link");
        tear_down_now(&root.join("pod")).expect("the link is removed");
        assert!(root.join("elsewhere/data").exists());
        assert_eq!(fs::read_dir(root.join("pod")).expect("listed").count(), 0);
    });
}

#[test]
fn volumes_that_fill_the_disk_to_its_last_folder_are_removed() {
    in_private_mounts(|root| {
        mount_memory(root, "1m,nr_inodes=24");
        let pod_dir = root.join("pod");
        let path = prepared(&pod_with(&json!({"name": "data", "emptyDir": {}})), &pod_dir);
        fs::create_dir_all(path.join("a/b")).expect("folders");
        let mut number = 0;
        while fs::write(path.join(format!("a/b/{number}")), "x").is_ok() {
            number += 1;
        }
        fs::create_dir(root.join("more")).expect_err("there is no room for another folder");
        tear_down_now(&pod_dir).expect("removed");
        assert_eq!(fs::read_dir(&pod_dir).expect("the pod's folder").count(), 0);
        tear_down_now(&pod_dir).expect("nothing to do");
    });
}

#[tokio::test]
async fn for_a_container_only_the_volumes_that_it_mounts_are_made_ready() {
    let root = tempfile::tempdir().expect("a folder");
    let gone = root.path().join("gone");
    let pod = pod(json!({
        "containers": [
            {"name": "a", "volumeMounts": [{"name": "data", "mountPath": "/data"}]},
            {"name": "b", "volumeMounts": [{"name": "host", "mountPath": "/host"}]},
            {"name": "c"},
        ],
        "volumes": [
            {"name": "data", "emptyDir": {}},
            {"name": "host", "hostPath": {"path": gone, "type": "Directory"}},
        ],
    }));
    let containers = &pod.spec.as_ref().expect("a spec").containers;
    let names = async |container| {
        let ready = prepare(&pod, container, root.path()).await;
        ready.map(|ready| ready.into_keys().collect::<Vec<_>>()).ok()
    };
    assert_eq!(names(Some(&containers[0])).await, Some(vec!["data".to_owned()]));
    assert_eq!(
        names(Some(&containers[1])).await,
        None,
        "it cannot have the volume"
    );
    assert_eq!(names(Some(&containers[2])).await, Some(Vec::new()));
    assert_eq!(names(None).await, None);
}
