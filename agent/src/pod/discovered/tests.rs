//! What a kubelet's static pod looks like in the runtime was recorded: `static-pod.json`, as crictl prints it.

use serde_json::{Value, json};

use super::*;
use crate::pod::observed::ContainerState;

fn recorded() -> Value {
    serde_json::from_str(include_str!("static-pod.json")).expect("a recording")
}

fn strings(value: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(value.clone()).expect("texts")
}

pub(super) fn recorded_sandbox() -> ForeignSandbox {
    let sandbox = &recorded()["sandbox"];
    let status = &sandbox["status"];
    let config: PodSandboxConfig =
        serde_json::from_value(sandbox["info"]["config"].clone()).expect("a configuration");
    ForeignSandbox {
        observed: ObservedSandbox {
            id: status["id"].as_str().expect("an id").to_owned(),
            attempt: 0,
            ours: false,
            ready: true,
            created_at: 1_700_000_000_000_000_000,
            ips: vec!["10.99.0.3".to_owned()],
            runtime_handler: String::new(),
        },
        metadata: config.metadata.clone().expect("metadata"),
        labels: strings(&status["labels"]),
        annotations: strings(&status["annotations"]),
        namespaces: NamespaceOption {
            pid: NamespaceMode::Container as i32,
            ..NamespaceOption::default()
        },
        config: Some(config),
    }
}

pub(crate) fn recorded_containers() -> Vec<ForeignContainer> {
    let recorded = recorded();
    let containers = recorded["containers"].as_array().expect("containers");
    let container = |(index, container): (usize, &Value)| {
        let status = &container["status"];
        let config: ContainerConfig =
            serde_json::from_value(container["info"]["config"].clone()).expect("a configuration");
        ForeignContainer {
            observed: ObservedContainer {
                id: status["id"].as_str().expect("an id").to_owned(),
                name: status["metadata"]["name"].as_str().expect("a name").to_owned(),
                attempt: 0,
                sandbox_id: "s".to_owned(),
                ours: false,
                state: ContainerState::Running,
                created_at: i64::try_from(index).expect("small"),
                started_at: 0,
                finished_at: 0,
                exit_code: 0,
                reason: String::new(),
                message: String::new(),
                image: status["image"]["image"].as_str().expect("an image").to_owned(),
                image_id: String::new(),
                log_path: String::new(),
            },
            annotations: strings(&status["annotations"]),
            mounts: config.mounts.clone(),
            config: Some(config),
        }
    };
    containers.iter().enumerate().map(container).collect()
}

fn recorded_pod() -> DiscoveredPod {
    discover(&recorded_sandbox(), &recorded_containers(), "node1")
}

#[test]
fn a_static_pod_is_told_by_its_annotation_and_keeps_its_own_labels() {
    let found = recorded_pod();
    assert_eq!(found.owner, Owner::StaticPod);
    let metadata = &found.pod.metadata;
    assert_eq!(metadata.name.as_deref(), Some("web-node1"));
    assert_eq!(metadata.namespace.as_deref(), Some("kube-system"));
    assert_eq!(metadata.uid.as_deref(), Some("0342b1c6ee826b1b35f189db36139778"));
    let labels = metadata.labels.clone().expect("labels");
    assert_eq!(
        labels.into_iter().collect::<Vec<_>>(),
        [("app".into(), "web".into())]
    );
    let annotations = metadata.annotations.clone().expect("annotations");
    assert_eq!(annotations[labels::CONFIG_SOURCE], "file");
}

#[test]
fn who_runs_a_pod_follows_from_the_kubelets_annotation() {
    for (source, owner) in [
        (Some("api"), Owner::Kubelet),
        (Some("file"), Owner::StaticPod),
        (Some("http"), Owner::StaticPod),
        (None, Owner::Cri),
    ] {
        let annotations = source.map(|source| (labels::CONFIG_SOURCE.to_owned(), source.to_owned()));
        assert_eq!(Owner::of(&annotations.into_iter().collect()), owner, "{source:?}");
    }
}

#[test]
fn containers_come_in_the_order_in_which_they_were_made() {
    let spec = recorded_pod().pod.spec.expect("a spec");
    let names: Vec<&str> = spec
        .containers
        .iter()
        .map(|container| container.name.as_str())
        .collect();
    assert_eq!(names, ["first", "main", "side"]);
    assert_eq!(spec.termination_grace_period_seconds, Some(30));
}

#[test]
fn a_container_is_what_it_was_asked_to_be() {
    let spec = recorded_pod().pod.spec.expect("a spec");
    let shown = serde_json::to_value(&spec.containers[1]).expect("JSON");
    assert_eq!(
        shown,
        json!({
            "name": "main",
            "image": "127.0.0.1:5000/distroless:1",
            "env": [{"name": "A", "value": "b"}],
            "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}, "runAsUser": 1000},
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "volumeMounts": [
                {"name": "scratch", "mountPath": "/scratch"},
                {"name": "unnamed-0", "mountPath": "/h", "readOnly": true},
            ],
        })
    );
}

#[test]
fn a_kubelets_volumes_have_their_names_and_other_paths_made_up_ones() {
    let found = recorded_pod();
    let uid = "0342b1c6ee826b1b35f189db36139778";
    let scratch = format!("/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir/scratch");
    let expected = [
        ("scratch".to_owned(), scratch.into()),
        ("unnamed-0".to_owned(), "/tmp".into()),
    ];
    assert_eq!(found.volumes.paths().into_iter().collect::<Vec<_>>(), expected);
    let volumes = serde_json::to_value(found.pod.spec.expect("a spec").volumes).expect("JSON");
    assert_eq!(
        volumes,
        json!([
            {"name": "scratch", "emptyDir": {}},
            {"name": "unnamed-0", "hostPath": {"path": "/tmp"}},
        ])
    );
}

#[test]
fn a_csi_volume_lies_where_its_driver_has_mounted_it() {
    let mount = |host: &str| Mount {
        host_path: host.to_owned(),
        ..Mount::default()
    };
    for (plugin, below, path, sub_path) in [
        ("csi", "mount", "/mount", None),
        ("csi", "mount/a/b", "/mount", Some("a/b")),
        ("csi", "mount/mount", "/mount", Some("mount")),
        ("empty-dir", "mount", "", Some("mount")),
    ] {
        let root = format!("/var/lib/kubelet/pods/u1/volumes/kubernetes.io~{plugin}/pvc-7");
        let mounts = [mount(&format!("{root}/{below}"))];
        let volumes = MountedVolumes::of("u1", mounts.iter());
        assert_eq!(
            volumes.paths()["pvc-7"],
            PathBuf::from(format!("{root}{path}")),
            "{plugin} {below}"
        );
        assert_eq!(
            volumes.name_of("u1", &mounts[0]),
            Some(("pvc-7", sub_path.map(str::to_owned))),
            "{plugin} {below}"
        );
    }
}

#[test]
fn what_lies_below_a_volume_is_its_sub_path() {
    let mount = |host: &str| Mount {
        host_path: host.to_owned(),
        ..Mount::default()
    };
    let root = "/var/lib/kubelet/pods/u1/volumes/kubernetes.io~configmap/settings";
    let mounts = [
        mount(&format!("{root}/a/b")),
        mount("/var/lib/kubelet/pods/u1/etc-hosts"),
    ];
    let volumes = MountedVolumes::of("u1", mounts.iter());
    assert_eq!(volumes.paths()["settings"], PathBuf::from(root));
    assert_eq!(
        volumes.name_of("u1", &mounts[0]),
        Some(("settings", Some("a/b".to_owned())))
    );
    assert_eq!(volumes.name_of("u1", &mounts[1]), None);
}

#[test]
fn of_two_containers_of_one_name_the_newest_counts() {
    let mut containers = recorded_containers();
    let mut again = containers[1].clone();
    again.observed.attempt = 1;
    again.observed.created_at = 100;
    again.observed.image = "other".to_owned();
    containers.push(again);
    let spec = discover(&recorded_sandbox(), &containers, "node1")
        .pod
        .spec
        .expect("a spec");
    assert_eq!(spec.containers.len(), 3);
    assert_eq!(spec.containers[1].image.as_deref(), Some("other"));
}

#[test]
fn a_sandbox_without_a_uid_gets_one_that_stays() {
    let mut sandbox = recorded_sandbox();
    sandbox.metadata.uid.clear();
    let uid = |sandbox: &ForeignSandbox| discover(sandbox, &[], "node1").pod.metadata.uid;
    let first = uid(&sandbox);
    assert_eq!(first, uid(&sandbox));
    assert_eq!(first.as_ref().map(String::len), Some(36));
    sandbox.observed.id = "another".to_owned();
    assert_ne!(first, uid(&sandbox));
}

#[test]
fn namespaces_of_the_node_and_shared_ones_are_shown_in_the_spec() {
    let mut sandbox = recorded_sandbox();
    sandbox.namespaces = NamespaceOption {
        network: NamespaceMode::Node as i32,
        pid: NamespaceMode::Pod as i32,
        ipc: NamespaceMode::Node as i32,
        ..NamespaceOption::default()
    };
    let spec = discover(&sandbox, &[], "node1").pod.spec.expect("a spec");
    assert_eq!(
        (
            spec.host_network,
            spec.host_pid,
            spec.host_ipc,
            spec.share_process_namespace
        ),
        (Some(true), None, Some(true), Some(true))
    );
}

#[test]
fn a_volume_of_which_only_a_part_is_mounted_has_its_name_and_no_place() {
    let mount = |host: &str| Mount {
        host_path: format!("/k/pods/u1/{host}"),
        ..Mount::default()
    };
    let part = mount("volume-subpaths/settings/main/0");
    let volumes = MountedVolumes::of("u1", [&part].into_iter());
    assert_eq!(volumes.paths(), BTreeMap::new());
    assert_eq!(
        volumes.name_of("u1", &part),
        Some(("settings", Some("?".to_owned())))
    );
    assert_eq!(
        serde_json::to_value(volumes.in_spec()).expect("JSON"),
        json!([{"name": "settings"}])
    );
    // Mounted as a whole elsewhere, it is known where it lies, in whatever order.
    let whole = mount("volumes/kubernetes.io~configmap/settings");
    for mounts in [[&part, &whole], [&whole, &part]] {
        let volumes = MountedVolumes::of("u1", mounts.into_iter());
        assert_eq!(volumes.paths()["settings"], PathBuf::from(&whole.host_path));
    }
}

#[test]
fn the_kubelets_root_is_above_what_it_mounts() {
    let found = recorded_pod();
    assert_eq!(found.kubelet_root, Some(PathBuf::from("/var/lib/kubelet")));
    let none = discover(&recorded_sandbox(), &[], "node1");
    assert_eq!(none.kubelet_root, None);
}

#[test]
fn a_profile_that_all_containers_have_is_the_pods() {
    let profile = |of_type: ProfileType, name: &str| SecurityProfile {
        profile_type: of_type.into(),
        localhost_ref: name.to_owned(),
    };
    let pod = |change: &dyn Fn(usize, &mut LinuxContainerSecurityContext)| {
        let mut containers = recorded_containers();
        for (index, container) in containers.iter_mut().enumerate() {
            let linux = container.config.as_mut().and_then(|config| config.linux.as_mut());
            change(
                index,
                linux
                    .and_then(|linux| linux.security_context.as_mut())
                    .expect("a context"),
            );
        }
        let spec = discover(&recorded_sandbox(), &containers, "node1").pod.spec;
        serde_json::to_value(spec.and_then(|spec| spec.security_context)).expect("JSON")
    };
    let of_localhost = pod(&|_, context| {
        context.seccomp = Some(profile(
            ProfileType::Localhost,
            "/var/lib/kubelet/seccomp/team/web.json",
        ));
        context.apparmor = Some(profile(ProfileType::Localhost, "web"));
    });
    let expected = json!({"type": "Localhost", "localhostProfile": "team/web.json"});
    assert_eq!(of_localhost["seccompProfile"], expected);
    let expected = json!({"type": "Localhost", "localhostProfile": "web"});
    assert_eq!(of_localhost["appArmorProfile"], expected);

    let of_runtime = pod(&|_, context| {
        context.seccomp = Some(profile(ProfileType::RuntimeDefault, ""));
        context.apparmor = Some(profile(ProfileType::Unconfined, ""));
    });
    assert_eq!(of_runtime["seccompProfile"], json!({"type": "RuntimeDefault"}));
    assert_eq!(of_runtime["appArmorProfile"], json!({"type": "Unconfined"}));

    let of_one = pod(&|index, context| {
        let of_type = if index == 0 {
            ProfileType::RuntimeDefault
        } else {
            ProfileType::Unconfined
        };
        context.seccomp = Some(profile(of_type, ""));
        context.apparmor = (index == 0).then(|| profile(ProfileType::Localhost, "web"));
    });
    assert_eq!(
        (&of_one["seccompProfile"], &of_one["appArmorProfile"]),
        (&Value::Null, &Value::Null)
    );
}

#[test]
fn a_strict_policy_for_groups_is_the_sandboxs() {
    let mut sandbox = recorded_sandbox();
    let linux = sandbox.config.as_mut().and_then(|config| config.linux.as_mut());
    let context = linux.expect("linux").security_context.get_or_insert_default();
    context.supplemental_groups = vec![55, 77];
    context.supplemental_groups_policy = SupplementalGroupsPolicy::Strict.into();
    let spec = discover(&sandbox, &[], "node1").pod.spec.expect("a spec");
    let context = spec.security_context.expect("a context");
    assert_eq!(context.supplemental_groups, Some(vec![55, 77]));
    assert_eq!(context.supplemental_groups_policy.as_deref(), Some("Strict"));
}
