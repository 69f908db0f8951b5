use super::*;
use serde_json::{Value, json};

fn pod(security_context: &Value, spec: &Value) -> Pod {
    let mut pod = json!({
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"containers": [{"name": "main"}], "securityContext": security_context},
    });
    for (field, value) in spec.as_object().expect("an object") {
        pod["spec"][field] = value.clone();
    }
    serde_json::from_value(pod).expect("a pod")
}

fn container(security_context: &Value) -> Container {
    serde_json::from_value(json!({"name": "dbg", "securityContext": security_context})).expect("a container")
}

/// The effective context of a container in a pod, both given by their `securityContext`, with an image that
/// runs as root.
fn of(of_pod: Value, own: Value) -> Result<LinuxContainerSecurityContext, SecurityContextError> {
    with_image(&of_pod, &own, &ImageUser::default())
}

fn with_image(
    of_pod: &Value,
    own: &Value,
    image_user: &ImageUser,
) -> Result<LinuxContainerSecurityContext, SecurityContextError> {
    security_context(
        &pod(of_pod, &json!({})),
        &container(own),
        image_user,
        &Node::default(),
        None,
    )
}

fn number(uid: i64) -> ImageUser {
    ImageUser {
        uid: Some(uid),
        name: String::new(),
    }
}

fn named(name: &str) -> ImageUser {
    ImageUser {
        uid: None,
        name: name.into(),
    }
}

#[test]
fn the_containers_own_user_goes_before_the_pods_and_both_before_the_images() {
    for (of_pod, own, image, uid, username) in [
        (json!({}), json!({}), ImageUser::default(), Some(0), ""),
        (json!({}), json!({}), number(7), Some(7), ""),
        (json!({}), json!({}), named("app"), None, "app"),
        (
            json!({"runAsUser": 1000}),
            json!({}),
            named("app"),
            Some(1000),
            "",
        ),
        (
            json!({"runAsUser": 1000}),
            json!({"runAsUser": 2000}),
            number(7),
            Some(2000),
            "",
        ),
        (
            json!({"runAsUser": 1000}),
            json!({"runAsUser": 0}),
            number(7),
            Some(0),
            "",
        ),
    ] {
        let context = with_image(&of_pod, &own, &image).expect("a context");
        assert_eq!(context.run_as_user.map(|user| user.value), uid, "{of_pod} {own}");
        assert_eq!(context.run_as_username, username, "{of_pod} {own}");
    }
    let context = of(json!({"runAsGroup": 1}), json!({"runAsGroup": 2})).expect("a context");
    assert_eq!(context.run_as_group.map(|group| group.value), Some(2));
    let context = of(json!({"runAsGroup": 1}), json!({})).expect("a context");
    assert_eq!(context.run_as_group.map(|group| group.value), Some(1));
}

#[test]
fn run_as_non_root_refuses_what_is_or_could_be_root() {
    use SecurityContextError::{ImageRunsAsRoot, ImageUserIsName, RunsAsRoot};
    let non_root = json!({"runAsNonRoot": true});
    for (of_pod, own, image, refusal) in [
        (
            non_root.clone(),
            json!({}),
            ImageUser::default(),
            Some(ImageRunsAsRoot("dbg".into())),
        ),
        (
            json!({}),
            non_root.clone(),
            number(0),
            Some(ImageRunsAsRoot("dbg".into())),
        ),
        (json!({}), non_root.clone(), number(7), None),
        (
            json!({}),
            non_root.clone(),
            named("root"),
            Some(ImageUserIsName {
                container: "dbg".into(),
                user: "root".into(),
            }),
        ),
        (json!({"runAsUser": 1000}), non_root.clone(), named("root"), None),
        (
            json!({"runAsUser": 0}),
            non_root.clone(),
            number(7),
            Some(RunsAsRoot("dbg".into())),
        ),
        (
            json!({"runAsNonRoot": true, "runAsUser": 5}),
            json!({"runAsUser": 0}),
            number(7),
            Some(RunsAsRoot("dbg".into())),
        ),
        (
            non_root.clone(),
            json!({"runAsNonRoot": false}),
            ImageUser::default(),
            None,
        ),
    ] {
        let outcome = with_image(&of_pod, &own, &image);
        assert_eq!(outcome.err(), refusal, "{of_pod} {own} {image:?}");
    }
}

#[test]
fn a_refusal_says_what_to_do() {
    let error = with_image(&json!({}), &json!({"runAsNonRoot": true}), &named("app")).expect_err("a refusal");
    assert_eq!(
        error.to_string(),
        "container dbg has runAsNonRoot and its image's user is a name (app), which cannot be known not to be root; \
         set runAsUser to that user's number"
    );
}

#[test]
fn groups_are_the_volumes_group_first_then_the_supplemental_ones() {
    for (of_pod, groups, policy) in [
        (json!({}), vec![], SupplementalGroupsPolicy::Merge),
        (
            json!({"supplementalGroups": [7, 8]}),
            vec![7, 8],
            SupplementalGroupsPolicy::Merge,
        ),
        (
            json!({"fsGroup": 55, "supplementalGroups": [77], "supplementalGroupsPolicy": "Strict"}),
            vec![55, 77],
            SupplementalGroupsPolicy::Strict,
        ),
    ] {
        let context = of(of_pod.clone(), json!({})).expect("a context");
        assert_eq!(context.supplemental_groups, groups, "{of_pod}");
        assert_eq!(context.supplemental_groups_policy(), policy, "{of_pod}");
    }
    assert!(of(json!({"supplementalGroupsPolicy": "Other"}), json!({})).is_err());
}

#[test]
fn capabilities_privileges_and_root_are_the_containers_own() {
    let context = of(
        json!({}),
        json!({
            "privileged": true, "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
            "capabilities": {"add": ["SYS_PTRACE"], "drop": ["ALL"]},
        }),
    )
    .expect("a context");
    assert!(context.privileged && context.readonly_rootfs && context.no_new_privs);
    let capabilities = context.capabilities.expect("capabilities");
    assert_eq!(capabilities.add_capabilities, ["SYS_PTRACE"]);
    assert_eq!(capabilities.drop_capabilities, ["ALL"]);

    let context = of(json!({}), json!({"allowPrivilegeEscalation": true})).expect("a context");
    assert!(!context.privileged && !context.readonly_rootfs && !context.no_new_privs);
    assert!(context.capabilities.is_none());
}

#[test]
fn system_calls_are_filtered_only_where_asked_for() {
    let default = json!({"seccompProfile": {"type": "RuntimeDefault"}});
    let local = json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "audit.json"}});
    let none = json!({"seccompProfile": {"type": "Unconfined"}});
    for (of_pod, own, profile_type, file) in [
        (json!({}), json!({}), ProfileType::Unconfined, ""),
        (default.clone(), json!({}), ProfileType::RuntimeDefault, ""),
        (default, none, ProfileType::Unconfined, ""),
        (
            json!({}),
            local,
            ProfileType::Localhost,
            "/var/lib/kubelet/seccomp/audit.json",
        ),
    ] {
        let profile = of(of_pod.clone(), own.clone())
            .expect("a context")
            .seccomp
            .expect("a profile");
        assert_eq!(
            (profile.profile_type(), profile.localhost_ref.as_str()),
            (profile_type, file),
            "{of_pod} {own}"
        );
    }
    assert!(of(json!({}), json!({"seccompProfile": {"type": "Localhost"}})).is_err());
}

#[test]
fn apparmor_is_the_containers_field_then_the_annotation_then_the_pods_field() {
    let field = |name: &str| json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": name}});
    for (of_pod, annotation, own, text) in [
        (json!({}), None, json!({}), ""),
        (field("p"), None, json!({}), "localhost/p"),
        (field("p"), Some("localhost/a"), json!({}), "localhost/a"),
        (field("p"), Some("localhost/a"), field("c"), "localhost/c"),
        (json!({}), Some("runtime/default"), json!({}), "runtime/default"),
        (json!({}), Some("unconfined"), json!({}), "unconfined"),
        (field("p"), Some("nonsense"), json!({}), "localhost/p"),
    ] {
        let mut pod = pod(&of_pod, &json!({}));
        if let Some(annotation) = annotation {
            let key = "container.apparmor.security.beta.kubernetes.io/dbg".to_owned();
            pod.metadata.annotations = Some([(key, annotation.to_owned())].into());
        }
        let context = security_context(
            &pod,
            &container(&own),
            &ImageUser::default(),
            &Node::default(),
            None,
        )
        .expect("a context");
        assert_eq!(context.apparmor_profile, text, "{of_pod} {annotation:?} {own}");
        assert_eq!(
            context.apparmor.is_some(),
            !text.is_empty(),
            "{of_pod} {annotation:?} {own}"
        );
    }
    assert!(of(json!({}), json!({"appArmorProfile": {"type": "Localhost"}})).is_err());
}

#[test]
fn selinux_labels_of_the_container_replace_the_pods() {
    let context = of(
        json!({"seLinuxOptions": {"user": "u", "level": "s0"}}),
        json!({"seLinuxOptions": {"type": "spc_t"}}),
    );
    let options = context.expect("a context").selinux_options.expect("options");
    assert_eq!(
        (
            options.user.as_str(),
            options.r#type.as_str(),
            options.level.as_str()
        ),
        ("", "spc_t", "")
    );
    let inherited = of(json!({"seLinuxOptions": {"level": "s0"}}), json!({})).expect("a context");
    assert_eq!(
        inherited.selinux_options.map(|options| options.level),
        Some("s0".into())
    );
}

#[test]
fn an_unmasked_proc_mount_hides_nothing() {
    let context = of(json!({}), json!({"procMount": "Unmasked"})).expect("a context");
    assert!(context.masked_paths.is_empty() && context.readonly_paths.is_empty());
    let context = of(json!({}), json!({"procMount": "Default"})).expect("a context");
    assert_eq!(
        (context.masked_paths.len(), context.readonly_paths.len()),
        (12, 5)
    );
}

#[test]
fn the_nodes_thermal_counters_are_hidden_too() {
    let path = "/sys/devices/system/cpu/cpu0/thermal_throttle";
    let node = Node {
        thermal_paths: vec![path.into()],
        ..Node::default()
    };
    let pod = pod(&json!({}), &json!({}));
    let context = security_context(&pod, &container(&json!({})), &ImageUser::default(), &node, None)
        .expect("a context");
    assert_eq!(context.masked_paths.last().map(String::as_str), Some(path));
}

#[test]
fn a_target_counts_only_where_each_container_has_its_own_pid_namespace() {
    for (spec, target, pid, target_id) in [
        (json!({}), None, NamespaceMode::Container, ""),
        (json!({}), Some("t"), NamespaceMode::Target, "t"),
        (
            json!({"shareProcessNamespace": true}),
            Some("t"),
            NamespaceMode::Pod,
            "",
        ),
        (json!({"hostPID": true}), Some("t"), NamespaceMode::Node, ""),
    ] {
        let pod = pod(&json!({}), &spec);
        let context = security_context(
            &pod,
            &container(&json!({})),
            &ImageUser::default(),
            &Node::default(),
            target,
        );
        let namespaces = context.expect("a context").namespace_options.expect("namespaces");
        assert_eq!(
            (namespaces.pid(), namespaces.target_id.as_str()),
            (pid, target_id),
            "{spec} {target:?}"
        );
    }
}
