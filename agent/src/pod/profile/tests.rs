use super::*;
use serde_json::{Value, json};

fn request(profile: Profile) -> DebugRequest {
    DebugRequest {
        name: "debugger-abcde".into(),
        image: "busybox".into(),
        profile,
        ..DebugRequest::default()
    }
}

fn spec(request: &DebugRequest, custom: Option<&str>) -> Value {
    let custom = custom.map(|text| CustomProfile::parse(text).unwrap());
    serde_json::to_value(debug_container(request, custom.as_ref()).unwrap()).unwrap()
}

fn refusal(text: &str) -> String {
    CustomProfile::parse(text).unwrap_err().to_string()
}

#[test]
fn each_profile_gives_the_security_context_that_kubectl_gives_it() {
    for (name, expected) in [
        ("general", json!({"capabilities": {"add": ["SYS_PTRACE"]}})),
        ("baseline", Value::Null),
        (
            "restricted",
            json!({
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
                "runAsNonRoot": true,
                "seccompProfile": {"type": "RuntimeDefault"},
            }),
        ),
        (
            "netadmin",
            json!({"capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}}),
        ),
        ("sysadmin", json!({"privileged": true})),
        ("legacy", Value::Null),
    ] {
        let profile = name.parse().unwrap();
        assert_eq!(
            spec(&request(profile), None)["securityContext"],
            expected,
            "{name}"
        );
    }
    assert_eq!(Profile::default(), "general".parse().unwrap());
    assert!(Profile::NAMES.iter().all(|name| name.parse::<Profile>().is_ok()));
    assert!("root".parse::<Profile>().unwrap_err().contains("sysadmin"));
}

#[test]
fn a_request_becomes_the_spec_that_kubectl_writes() {
    let request = DebugRequest {
        command: vec!["sh".into(), "-c".into(), "id".into()],
        environment: vec![("A".into(), "1".into()), ("B".into(), "".into())],
        image_pull_policy: Some("Never".into()),
        target: Some("etcd".into()),
        stdin: true,
        tty: true,
        ..request(Profile::Legacy)
    };
    assert_eq!(
        spec(&request, None),
        json!({
            "name": "debugger-abcde",
            "image": "busybox",
            "imagePullPolicy": "Never",
            "command": ["sh", "-c", "id"],
            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": ""}],
            "stdin": true,
            "targetContainerName": "etcd",
            "terminationMessagePolicy": "File",
            "tty": true,
        })
    );
    let bare = spec(&self::request(Profile::Legacy), None);
    assert_eq!(
        bare,
        json!({"name": "debugger-abcde", "image": "busybox", "terminationMessagePolicy": "File"})
    );
}

#[test]
fn arguments_only_leaves_the_image_its_command() {
    let request = DebugRequest {
        command: vec!["-v".into()],
        arguments_only: true,
        ..request(Profile::Legacy)
    };
    let spec = spec(&request, None);
    assert_eq!((&spec["args"], &spec["command"]), (&json!(["-v"]), &Value::Null));
}

#[test]
fn a_pipe_is_stdin_once_and_a_terminal_is_not() {
    let piped = DebugRequest {
        stdin: true,
        stdin_once: true,
        ..request(Profile::Legacy)
    };
    assert_eq!(spec(&piped, None)["stdinOnce"], json!(true));
    let terminal = DebugRequest {
        stdin: true,
        tty: true,
        ..request(Profile::Legacy)
    };
    assert_eq!(spec(&terminal, None)["stdinOnce"], Value::Null);
}

#[test]
fn a_custom_profile_is_merged_field_by_field_and_lists_by_their_key() {
    let request = DebugRequest {
        environment: vec![("A".into(), "1".into()), ("B".into(), "2".into())],
        ..request(Profile::General)
    };
    let merged = spec(
        &request,
        Some(
            r#"{"env": [{"name": "B", "value": "two"}, {"name": "C", "value": "3"}],
                "securityContext": {"runAsUser": 0},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                "imagePullPolicy": "Never"}"#,
        ),
    );
    assert_eq!(
        merged["env"],
        json!([{"name": "A", "value": "1"}, {"name": "B", "value": "two"}, {"name": "C", "value": "3"}])
    );
    assert_eq!(
        merged["securityContext"],
        json!({"capabilities": {"add": ["SYS_PTRACE"]}, "runAsUser": 0})
    );
    assert_eq!(
        merged["volumeMounts"],
        json!([{"mountPath": "/data", "name": "data"}])
    );
    assert_eq!(merged["imagePullPolicy"], "Never");
    assert_eq!(merged["image"], "busybox");
}

#[test]
fn a_list_without_a_key_is_replaced_as_a_whole() {
    let merged = spec(
        &request(Profile::Netadmin),
        Some("securityContext:\n  capabilities:\n    add: [SYS_TIME]\n"),
    );
    assert_eq!(
        merged["securityContext"]["capabilities"],
        json!({"add": ["SYS_TIME"]})
    );
}

#[test]
fn a_null_in_a_custom_profile_says_nothing() {
    let merged = spec(
        &request(Profile::General),
        Some(r#"{"securityContext": null, "env": null}"#),
    );
    assert_eq!(
        merged["securityContext"],
        json!({"capabilities": {"add": ["SYS_PTRACE"]}})
    );
}

#[test]
fn a_custom_profile_may_not_set_what_kubectl_forbids() {
    for (text, field) in [
        (r#"{"name": "x"}"#, "name"),
        (r#"{"command": ["x"]}"#, "command"),
        (r#"{"image": "x"}"#, "image"),
        (
            r#"{"lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}"#,
            "lifecycle",
        ),
        (
            r#"{"volumeDevices": [{"name": "x", "devicePath": "/x"}]}"#,
            "volumeDevices",
        ),
    ] {
        assert!(
            refusal(text).starts_with(&format!("it may not set {field}")),
            "{text}"
        );
    }
    assert!(CustomProfile::parse(r#"{"name": "", "command": [], "image": ""}"#).is_ok());
}

#[test]
fn a_custom_profile_that_no_container_could_be_is_refused() {
    assert!(refusal("[1]").contains("no fields"));
    assert!(refusal("env: [").starts_with("it is neither JSON nor YAML"));
    assert_eq!(
        refusal("securityContext:\n  runAsRoot: true\n"),
        "it is not a partial container: containers have no field securityContext.runAsRoot"
    );
    assert_eq!(
        refusal(r#"{"env": [{"name": "A", "val": "1"}]}"#),
        "it is not a partial container: containers have no field env[0].val"
    );
    assert!(refusal(r#"{"tty": "yes"}"#).starts_with("it is not a partial container"));
}

#[test]
fn a_generated_name_is_a_dns_label_without_words() {
    assert_eq!(generated_name([0, 1, 26, 27, 255]), "debugger-bc9bq");
}

#[test]
fn capabilities_under_another_user_than_root_are_pointed_out() {
    let pod = |user: i64| -> PodSpec {
        serde_json::from_value(json!({"containers": [], "securityContext": {"runAsUser": user}})).unwrap()
    };
    let general = debug_container(&request(Profile::General), None).unwrap();
    let baseline = debug_container(&request(Profile::Baseline), None).unwrap();
    let as_root = CustomProfile::parse(r#"{"securityContext": {"runAsUser": 0}}"#).unwrap();
    let as_root = debug_container(&request(Profile::General), Some(&as_root)).unwrap();
    assert!(powerless(&general, &pod(1000)));
    assert!(!powerless(&general, &pod(0)));
    assert!(!powerless(&baseline, &pod(1000)));
    assert!(!powerless(&as_root, &pod(1000)));
}
