use super::*;
use crate::pod::objects::NoObjects;
use serde_json::{Map, Value, json};

/// What a kubelet sent, see the file's `about`.
const REFERENCE: &str = include_str!("../reference/container_config.json");
const IMAGE: &str = "sha256:3d4f5b474b789a6c6b4950eaa10ab8a6198c542ca6819cc86f91a99723e5e618";
const TARGET: &str = "9bd118a98d065356ae446650640f650709250619f3338301aef4513383124162";

/// The pod that the reference was recorded with.
fn pod(name: &str, spec: &Value) -> Pod {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "default", "uid": "POD_UID"},
        "spec": {
            "nodeName": "node1",
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "busybox"}],
            "volumes": [{"name": "scratch", "emptyDir": {}}, {"name": "host", "hostPath": {"path": "/srv"}}],
        },
    });
    for (field, value) in spec.as_object().expect("an object") {
        pod["spec"][field] = value.clone();
    }
    serde_json::from_value(pod).expect("a pod")
}

fn container(fields: &Value) -> Container {
    let mut container = json!({
        "name": "dbg", "image": "busybox",
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
    });
    for (field, value) in fields.as_object().expect("an object") {
        container[field] = value.clone();
    }
    serde_json::from_value(container).expect("a container")
}

fn node() -> Node {
    Node {
        name: "node1".into(),
        ips: vec!["192.0.2.7".into()],
        memory_bytes: 8 << 30,
        hugepage_sizes: vec!["2MB".into(), "1GB".into()],
        ..Node::default()
    }
}

/// Everything that a configuration follows from, to be changed by a test before it asks for it.
struct Case {
    pod: Pod,
    container: Container,
    attempt: u32,
    pod_ips: Vec<String>,
    node: Node,
    target: Option<&'static str>,
}

impl Case {
    fn new(container_fields: &Value) -> Case {
        Case {
            pod: pod("web", &json!({})),
            container: container(container_fields),
            attempt: 0,
            pod_ips: vec!["10.99.0.146".into()],
            node: node(),
            target: None,
        }
    }

    fn config(&self) -> Result<ContainerConfig, ConfigError> {
        let volumes = ["scratch", "host"].map(|name| (name.to_owned(), Path::new("/VOLUMES").join(name)));
        container_config(&ContainerContext {
            pod: &self.pod,
            container: &self.container,
            attempt: self.attempt,
            image: &Image {
                id: IMAGE.into(),
                user: ImageUser::default(),
            },
            pod_ips: &self.pod_ips,
            node: &self.node,
            target: self.target,
            objects: &Objects::none(NoObjects::NoApiServer),
            volumes: &volumes.into(),
            etc_hosts: Path::new("/ETC_HOSTS"),
            termination_log: Path::new("/TERMINATION_LOG"),
        })
    }

    /// Container path, host path and whether it is read-only, of each mount.
    fn mounts(&self) -> Vec<(String, String, bool)> {
        let mounts = self.config().expect("a configuration").mounts;
        mounts
            .into_iter()
            .map(|mount| (mount.container_path, mount.host_path, mount.readonly))
            .collect()
    }
}

/// An object without what protobuf leaves out: zeros and everything empty.
fn object(fields: Value) -> Value {
    let Value::Object(fields) = fields else {
        panic!("no object: {fields}")
    };
    let says_something = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::Number(number) => number.as_i64() != Some(0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Bool(true) | Value::Object(_) => true,
    };
    Value::Object(
        fields
            .into_iter()
            .filter(|(_, value)| says_something(value))
            .collect(),
    )
}

/// The configuration in the form of the reference. A message that is there but empty is `{}`.
fn as_json(config: &ContainerConfig) -> Value {
    let texts = |map: &HashMap<String, String>| json!(map.iter().collect::<BTreeMap<_, _>>());
    let linux = config.linux.as_ref().expect("linux");
    let resources = linux.resources.as_ref().expect("resources");
    let security = linux.security_context.as_ref().expect("a security context");
    let number = |value: &debuglet_proto::v1::Int64Value| object(json!({ "value": value.value }));
    let profile = |profile: &debuglet_proto::v1::SecurityProfile| {
        object(json!({"profile_type": profile.profile_type, "localhost_ref": profile.localhost_ref}))
    };
    let namespaces = security.namespace_options.as_ref().expect("namespaces");
    let metadata = config.metadata.as_ref().expect("metadata");
    let image = config.image.as_ref().expect("an image");
    object(json!({
        "annotations": texts(&config.annotations),
        "args": config.args,
        "command": config.command,
        "working_dir": config.working_dir,
        "envs": config.envs.iter().map(|variable| {
            object(json!({"key": variable.key, "value": String::from_utf8_lossy(&variable.value)}))
        }).collect::<Vec<_>>(),
        "image": object(json!({"image": image.image})),
        "labels": texts(&config.labels),
        "linux": {
            "resources": object(json!({
                "cpu_period": resources.cpu_period,
                "cpu_quota": resources.cpu_quota,
                "cpu_shares": resources.cpu_shares,
                "memory_limit_in_bytes": resources.memory_limit_in_bytes,
                "oom_score_adj": resources.oom_score_adj,
                "hugepage_limits": resources.hugepage_limits.iter().map(|limit| {
                    object(json!({"page_size": limit.page_size, "limit": limit.limit}))
                }).collect::<Vec<_>>(),
            })),
            "security_context": object(json!({
                "capabilities": security.capabilities.as_ref().map(|capabilities| object(json!({
                    "add_capabilities": capabilities.add_capabilities,
                    "drop_capabilities": capabilities.drop_capabilities,
                }))),
                "privileged": security.privileged,
                "namespace_options": object(json!({
                    "network": namespaces.network,
                    "pid": namespaces.pid,
                    "ipc": namespaces.ipc,
                    "target_id": namespaces.target_id,
                    "userns_options": namespaces.userns_options.as_ref().map(|userns| json!({"mode": userns.mode})),
                })),
                "masked_paths": security.masked_paths,
                "readonly_paths": security.readonly_paths,
                "no_new_privs": security.no_new_privs,
                "readonly_rootfs": security.readonly_rootfs,
                "run_as_user": security.run_as_user.as_ref().map(number),
                "run_as_group": security.run_as_group.as_ref().map(number),
                "run_as_username": security.run_as_username,
                "seccomp": security.seccomp.as_ref().map(profile),
                "apparmor": security.apparmor.as_ref().map(profile),
                "supplemental_groups": security.supplemental_groups,
            })),
        },
        "log_path": config.log_path,
        "metadata": object(json!({"name": metadata.name, "attempt": metadata.attempt})),
        "mounts": config.mounts.iter().map(|mount| object(json!({
            "container_path": mount.container_path,
            "host_path": mount.host_path,
            "readonly": mount.readonly,
            "selinux_relabel": mount.selinux_relabel,
            "propagation": mount.propagation,
            "recursive_read_only": mount.recursive_read_only,
        }))).collect::<Vec<_>>(),
        "stdin": config.stdin,
        "stdin_once": config.stdin_once,
        "tty": config.tty,
    }))
}

#[test]
fn an_ephemeral_container_is_configured_as_by_a_kubelet() {
    let reference: Value = serde_json::from_str(REFERENCE).expect("the reference");
    let cases: &Map<_, _> = reference["cases"].as_object().expect("cases");
    assert_eq!(cases.len(), 7);
    for (name, expected) in cases {
        let mut case = Case::new(&expected["asked"]);
        case.pod = pod(
            expected["podName"].as_str().expect("a name"),
            &expected["podSpec"],
        );
        case.target = expected["asked"].get("targetContainerName").map(|_| TARGET);
        let mut config = case.config().expect(name);
        let image = config.image.clone().expect("an image");
        assert_eq!(
            json!(image.user_specified_image),
            expected["asked"]["image"],
            "{name}"
        );
        // What is ours alone.
        assert_eq!(
            config.labels.remove(labels::ORIGIN).as_deref(),
            Some("debuglet"),
            "{name}"
        );
        let hash = config.annotations.remove(labels::CONTAINER_HASH).expect("a hash");
        assert!(u64::from_str_radix(&hash, 16).is_ok(), "{name}: {hash}");
        assert_eq!(as_json(&config), expected["config"], "{name}");
    }
}

#[test]
fn the_hash_is_the_kubelets_of_name_and_image() {
    let hash = |fields: Value| hash(&container(&fields));
    let busybox = json!({"name": "dbg", "image": "docker.io/library/busybox:latest"});
    assert_eq!(hash(busybox), "15ce5d0", "as recorded");
    let other = json!({"name": "dbg2", "image": "docker.io/library/busybox:latest"});
    assert_ne!(hash(other), "15ce5d0");
}

#[test]
fn attempts_are_counted_in_the_log_path_and_the_annotations() {
    let case = Case {
        attempt: 3,
        ..Case::new(&json!({"name": "main"}))
    };
    let config = case.config().expect("a configuration");
    assert_eq!(config.log_path, "main/3.log");
    assert_eq!(config.metadata.map(|metadata| metadata.attempt), Some(3));
    assert_eq!(config.annotations["io.kubernetes.container.restartCount"], "3");
}

#[test]
fn command_and_args_are_expanded_and_the_working_directory_is_not() {
    let case = Case::new(&json!({
        "command": ["run", "$(A)", "$$(A)"], "args": ["$(A)$(NOPE)"], "workingDir": "/$(A)",
        "env": [{"name": "A", "value": "1"}],
    }));
    let config = case.config().expect("a configuration");
    assert_eq!(config.command, ["run", "1", "$(A)"]);
    assert_eq!(config.args, ["1$(NOPE)"]);
    assert_eq!(config.working_dir, "/$(A)");
}

#[test]
fn streams_are_as_asked_for() {
    for (fields, streams) in [
        (json!({}), (false, false, false)),
        (json!({"stdin": true, "stdinOnce": true}), (true, true, false)),
        (json!({"stdin": true, "tty": true}), (true, false, true)),
    ] {
        let config = Case::new(&fields).config().expect("a configuration");
        assert_eq!((config.stdin, config.stdin_once, config.tty), streams, "{fields}");
    }
}

#[test]
fn volumes_come_first_then_etc_hosts_then_the_termination_message() {
    let case = Case::new(&json!({"volumeMounts": [
        {"name": "host", "mountPath": "/h", "readOnly": true}, {"name": "scratch", "mountPath": "s"},
    ]}));
    let expected = [
        ("/h", "/VOLUMES/host", true),
        ("/s", "/VOLUMES/scratch", false),
        ("/etc/hosts", "/ETC_HOSTS", false),
        ("/dev/termination-log", "/TERMINATION_LOG", false),
    ];
    assert_eq!(
        case.mounts(),
        expected.map(|(path, host, readonly)| (path.into(), host.into(), readonly))
    );
}

#[test]
fn etc_hosts_is_left_out_without_an_address_and_where_the_container_has_its_own() {
    let has_hosts = |case: &Case| case.mounts().iter().any(|(_, host, _)| host == "/ETC_HOSTS");
    let mut case = Case::new(&json!({}));
    assert!(has_hosts(&case));
    case.pod_ips.clear();
    assert!(!has_hosts(&case), "the sandbox has no address");
    case.pod = pod("web", &json!({"hostNetwork": true}));
    assert!(has_hosts(&case), "the host's network has addresses");
    case.container = container(&json!({"volumeMounts": [{"name": "scratch", "mountPath": "/etc/hosts"}]}));
    assert!(!has_hosts(&case), "the container mounts its own");
}

#[test]
fn without_a_path_there_is_no_file_for_the_termination_message() {
    let case = Case::new(&json!({"terminationMessagePath": ""}));
    assert!(
        case.mounts()
            .iter()
            .all(|(_, host, _)| host != "/TERMINATION_LOG")
    );
}

#[test]
fn a_mount_propagates_as_asked_for() {
    for (mode, propagation) in [
        (json!(null), MountPropagation::PropagationPrivate),
        (json!("None"), MountPropagation::PropagationPrivate),
        (
            json!("HostToContainer"),
            MountPropagation::PropagationHostToContainer,
        ),
        (json!("Bidirectional"), MountPropagation::PropagationBidirectional),
    ] {
        let case = Case::new(
            &json!({"volumeMounts": [{"name": "host", "mountPath": "/h", "mountPropagation": mode}]}),
        );
        assert_eq!(
            case.config().expect("a configuration").mounts[0].propagation(),
            propagation,
            "{mode}"
        );
    }
}

#[test]
fn recursive_read_only_needs_a_runtime_that_can_unless_only_if_possible() {
    for (mode, supported, outcome) in [
        ("Disabled", true, Ok(false)),
        ("IfPossible", false, Ok(false)),
        ("IfPossible", true, Ok(true)),
        ("Enabled", true, Ok(true)),
        (
            "Enabled",
            false,
            Err(ConfigError::RecursiveReadOnly {
                container: "dbg".into(),
                volume: "host".into(),
            }),
        ),
    ] {
        let mount = json!({"name": "host", "mountPath": "/h", "readOnly": true, "recursiveReadOnly": mode});
        let mut case = Case::new(&json!({ "volumeMounts": [mount] }));
        case.node.recursive_read_only = supported;
        assert_eq!(
            case.config().map(|config| config.mounts[0].recursive_read_only),
            outcome,
            "{mode} {supported}"
        );
    }
}

#[test]
fn only_what_is_the_pods_own_is_relabelled_and_only_with_selinux() {
    let mounts = json!([{"name": "scratch", "mountPath": "/s"}, {"name": "host", "mountPath": "/h"}]);
    let mut case = Case::new(&json!({ "volumeMounts": mounts }));
    let relabelled = |case: &Case| {
        let mounts = case.config().expect("a configuration").mounts;
        mounts
            .into_iter()
            .map(|mount| mount.selinux_relabel)
            .collect::<Vec<_>>()
    };
    assert_eq!(relabelled(&case), [false; 4]);
    case.node.selinux = true;
    assert_eq!(relabelled(&case), [true, false, true, true]);
}

#[test]
fn a_volume_that_is_not_there_and_a_part_of_one_are_errors_that_name_it() {
    for (mount, error) in [
        (
            json!({"name": "gone", "mountPath": "/g"}),
            ConfigError::NoVolume {
                container: "dbg".into(),
                volume: "gone".into(),
            },
        ),
        (
            json!({"name": "scratch", "mountPath": "/g", "subPath": "x"}),
            ConfigError::SubPath {
                container: "dbg".into(),
                volume: "scratch".into(),
            },
        ),
    ] {
        let case = Case::new(&json!({ "volumeMounts": [mount] }));
        assert_eq!(case.config(), Err(error));
    }
}

#[test]
fn on_the_hosts_network_the_pods_address_is_the_nodes() {
    let source = json!({"fieldRef": {"fieldPath": "status.podIP"}});
    let mut case = Case::new(&json!({"env": [{"name": "IP", "valueFrom": source}]}));
    case.pod = pod("web", &json!({"hostNetwork": true}));
    case.pod_ips.clear();
    assert_eq!(
        case.config().expect("a configuration").envs[0].value,
        b"192.0.2.7"
    );
}

#[test]
fn ports_are_noted_for_whoever_finds_the_container() {
    let case = Case::new(&json!({"ports": [{"containerPort": 80, "protocol": "TCP"}]}));
    let config = case.config().expect("a configuration");
    let ports: Value =
        serde_json::from_str(&config.annotations["io.kubernetes.container.ports"]).expect("JSON");
    assert_eq!(ports, json!([{"containerPort": 80, "protocol": "TCP"}]));
}
