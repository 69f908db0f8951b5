use k8s_openapi::api::core::v1::{EphemeralContainer, Pod};
use serde_json::{Value, json};

use super::*;
use crate::pod::same_container::table;

/// The sample pod of the recorded answers.
fn sample_pod(reference: &Value) -> Pod {
    let mut pod: Pod = serde_json::from_value(reference["samplePod"].clone()).unwrap();
    defaults::pod(&mut pod);
    pod
}

fn with_defaults(containers: &Value) -> Vec<EphemeralContainer> {
    let mut containers: Vec<EphemeralContainer> = serde_json::from_value(containers.clone()).unwrap();
    containers.iter_mut().for_each(defaults::ephemeral_container);
    containers
}

/// Field and reason of each error.
fn causes(errors: &[FieldError]) -> Vec<(&str, &str)> {
    errors
        .iter()
        .map(|error| (error.field.as_str(), error.cause.reason()))
        .collect()
}

/// Checks one ephemeral container in the sample pod; what it does not say is that of a plain one.
fn check(container: &Value) -> Vec<FieldError> {
    let reference: Value = serde_json::from_str(include_str!("../reference/answers.json")).unwrap();
    let mut whole = json!({"name": "dbg", "image": "busybox"});
    whole
        .as_object_mut()
        .unwrap()
        .extend(container.as_object().unwrap().clone());
    ephemeral_containers(&sample_pod(&reference), &with_defaults(&json!([whole])), &[])
}

#[test]
fn every_recorded_answer_of_an_api_server_is_given_here_too() {
    let reference: Value = serde_json::from_str(include_str!("../reference/answers.json")).unwrap();
    let pod = sample_pod(&reference);
    for (name, case) in reference["cases"].as_object().unwrap() {
        let (accepted, wanted) = (with_defaults(&case["accepted"]), with_defaults(&case["wanted"]));
        let mut errors = ephemeral_containers(&pod, &wanted, &[]);
        errors.extend(ephemeral_change(&accepted, &wanted));
        let expected: Vec<(&str, &str)> = case["causes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|cause| {
                (
                    cause["field"].as_str().unwrap(),
                    cause["reason"].as_str().unwrap(),
                )
            })
            .collect();
        assert_eq!(causes(&errors), expected, "{name}");
    }
}

#[test]
fn every_ephemeral_container_that_an_api_server_accepted_is_accepted() {
    let reference: Value = serde_json::from_str(include_str!("../reference/accepted.json")).unwrap();
    for (name, case) in reference["cases"].as_object().unwrap() {
        let mut pod = reference["samplePod"].clone();
        pod["spec"]
            .as_object_mut()
            .unwrap()
            .extend(case["podSpec"].as_object().unwrap().clone());
        let mut pod: Pod = serde_json::from_value(pod).unwrap();
        defaults::pod(&mut pod);
        assert_eq!(
            ephemeral_containers(&pod, &with_defaults(&case["asked"]), &[]),
            [],
            "{name}"
        );
    }
}

#[test]
fn what_serves_the_work_of_a_pod_is_forbidden() {
    let probe = json!({"exec": {"command": ["true"]}});
    for (field, value) in [
        ("ports", json!([{"containerPort": 80}])),
        ("resources", json!({"requests": {"cpu": "1"}})),
        (
            "resizePolicy",
            json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"}]),
        ),
        ("restartPolicy", json!("Always")),
        ("restartPolicyRules", json!([{"action": "Restart"}])),
        ("livenessProbe", probe.clone()),
        ("readinessProbe", probe.clone()),
        ("startupProbe", probe),
        ("lifecycle", json!({})),
    ] {
        let errors = check(&json!({field: value}));
        let path = format!("spec.ephemeralContainers[0].{field}");
        assert_eq!(
            causes(&errors),
            [(path.as_str(), "FieldValueForbidden")],
            "{field}"
        );
    }
    assert_eq!(
        check(&json!({"ports": [], "resources": {}, "restartPolicyRules": null})),
        []
    );
}

#[test]
fn a_name_belongs_to_one_container_of_all_kinds() {
    let pod: Pod = serde_json::from_value(json!({"spec": {
        "containers": [{"name": "main"}], "initContainers": [{"name": "setup"}]}}))
    .unwrap();
    for name in ["main", "setup"] {
        let errors = ephemeral_containers(
            &pod,
            &with_defaults(&json!([{"name": name, "image": "busybox"}])),
            &[],
        );
        assert_eq!(
            causes(&errors),
            [("spec.ephemeralContainers[0].name", "FieldValueDuplicate")],
            "{name}"
        );
    }
}

#[test]
fn a_target_is_a_container_or_an_init_container_of_the_pod() {
    let pod: Pod = serde_json::from_value(json!({"spec": {
        "containers": [{"name": "cart"}, {"name": "envoy"}], "initContainers": [{"name": "setup"}]}}))
    .unwrap();
    let aim = |target: &str| {
        let other = json!({"name": "other", "image": "busybox"});
        let container = json!({"name": "dbg", "image": "busybox", "targetContainerName": target});
        ephemeral_containers(&pod, &with_defaults(&json!([other, container])), &[])
    };
    for target in ["", "cart", "envoy", "setup"] {
        assert_eq!(aim(target), [], "{target}");
    }
    let errors = aim("carts");
    assert_eq!(
        causes(&errors),
        [(
            "spec.ephemeralContainers[1].targetContainerName",
            "FieldValueNotFound"
        )]
    );
    assert_eq!(
        errors[0].message,
        "the pod has no container \"carts\" to target; it has: cart, envoy, setup"
    );
    assert_eq!(
        causes(&aim("other")).len(),
        1,
        "an ephemeral container is no target"
    );
}

#[test]
fn names_of_configmaps_and_secrets_are_no_fault_whether_they_exist_or_not() {
    let env = json!([
        {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "a"}}},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "none", "key": "b"}}}]);
    let env_from =
        json!([{"configMapRef": {"name": "none"}}, {"prefix": "X_", "secretRef": {"name": "none"}}]);
    assert_eq!(check(&json!({"env": env, "envFrom": env_from})), []);
}

#[test]
fn each_rule_names_its_field() {
    let required = "FieldValueRequired";
    let invalid = "FieldValueInvalid";
    let unknown = "FieldValueNotSupported";
    let forbidden = "FieldValueForbidden";
    for (container, field, reason) in [
        (json!({"image": " busybox"}), "image", invalid),
        (
            json!({"terminationMessagePolicy": "Always"}),
            "terminationMessagePolicy",
            unknown,
        ),
        (json!({"env": [{"name": "A=B"}]}), "env[0].name", invalid),
        (
            json!({"env": [{"name": "A", "valueFrom": {}}]}),
            "env[0].valueFrom",
            invalid,
        ),
        (
            json!({"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
            "env[0].valueFrom",
            invalid,
        ),
        (
            json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}]}),
            "env[0].valueFrom.fieldRef.fieldPath",
            unknown,
        ),
        (
            json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.nope"}}}]}),
            "env[0].valueFrom.fieldRef.fieldPath",
            invalid,
        ),
        (
            json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a b']"}}}]}),
            "env[0].valueFrom.fieldRef",
            invalid,
        ),
        (
            json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v2", "fieldPath": "metadata.name"}}}]}),
            "env[0].valueFrom.fieldRef.fieldPath",
            invalid,
        ),
        (
            json!({"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.gpu"}}}]}),
            "env[0].valueFrom.resourceFieldRef.resource",
            unknown,
        ),
        (
            json!({"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1Ki"}}}]}),
            "env[0].valueFrom.resourceFieldRef.divisor",
            invalid,
        ),
        (
            json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}}]}),
            "env[0].valueFrom.secretKeyRef.key",
            required,
        ),
        (json!({"envFrom": [{}]}), "envFrom[0]", invalid),
        (
            json!({"envFrom": [{"secretRef": {}}]}),
            "envFrom[0].secretRef.name",
            required,
        ),
        (
            json!({"volumeMounts": [{"name": "scratch"}]}),
            "volumeMounts[0].mountPath",
            required,
        ),
        (
            json!({"volumeMounts": [{"name": "scratch", "mountPath": "/a"}, {"name": "scratch", "mountPath": "/a"}]}),
            "volumeMounts[1].mountPath",
            invalid,
        ),
        (
            json!({"volumeMounts": [{"name": "scratch", "mountPath": "/a", "subPathExpr": "$(A)"}]}),
            "volumeMounts[0].subPathExpr",
            forbidden,
        ),
        (
            json!({"volumeMounts": [{"name": "scratch", "mountPath": "/a", "mountPropagation": "Both"}]}),
            "volumeMounts[0].mountPropagation",
            unknown,
        ),
        (
            json!({"volumeMounts": [{"name": "scratch", "mountPath": "/a", "mountPropagation": "Bidirectional"}]}),
            "volumeMounts[0].mountPropagation",
            forbidden,
        ),
        (
            json!({"volumeMounts": [{"name": "scratch", "mountPath": "/a", "recursiveReadOnly": "Enabled"}]}),
            "volumeMounts[0].recursiveReadOnly",
            forbidden,
        ),
        (
            json!({"volumeDevices": [{"name": "scratch", "devicePath": "/dev/x"}]}),
            "volumeDevices[0].name",
            invalid,
        ),
        (
            json!({"securityContext": {"runAsUser": -1}}),
            "securityContext.runAsUser",
            invalid,
        ),
        (
            json!({"securityContext": {"runAsGroup": 2147483648_i64}}),
            "securityContext.runAsGroup",
            invalid,
        ),
        (
            json!({"securityContext": {"procMount": "Open"}}),
            "securityContext.procMount",
            unknown,
        ),
        (
            json!({"securityContext": {"procMount": "Unmasked"}}),
            "securityContext.procMount",
            invalid,
        ),
        (
            json!({"securityContext": {"privileged": true, "allowPrivilegeEscalation": false}}),
            "securityContext",
            invalid,
        ),
        (
            json!({"securityContext": {"capabilities": {"add": ["CAP_SYS_ADMIN"]}, "allowPrivilegeEscalation": false}}),
            "securityContext",
            invalid,
        ),
        (
            json!({"securityContext": {"seccompProfile": {"type": ""}}}),
            "securityContext.seccompProfile.type",
            required,
        ),
        (
            json!({"securityContext": {"seccompProfile": {"type": "None"}}}),
            "securityContext.seccompProfile.type",
            unknown,
        ),
        (
            json!({"securityContext": {"seccompProfile": {"type": "Localhost"}}}),
            "securityContext.seccompProfile.localhostProfile",
            required,
        ),
        (
            json!({"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}}}),
            "securityContext.seccompProfile.localhostProfile",
            invalid,
        ),
        (
            json!({"securityContext": {"seccompProfile": {"type": "Unconfined", "localhostProfile": "x"}}}),
            "securityContext.seccompProfile.localhostProfile",
            invalid,
        ),
        (
            json!({"securityContext": {"appArmorProfile": {"type": "Localhost", "localhostProfile": " x"}}}),
            "securityContext.appArmorProfile.localhostProfile",
            invalid,
        ),
    ] {
        let errors = check(&container);
        let path = format!("spec.ephemeralContainers[0].{field}");
        assert_eq!(causes(&errors), [(path.as_str(), reason)], "{container}");
    }
}

#[test]
fn a_privileged_container_may_do_what_others_may_not() {
    let mount = json!({"name": "scratch", "mountPath": "/a", "mountPropagation": "Bidirectional"});
    assert_eq!(
        check(&json!({"securityContext": {"privileged": true}, "volumeMounts": [mount]})),
        []
    );
}

#[test]
fn nothing_and_an_empty_value_are_the_same_spec() {
    let plain = with_defaults(&json!([{"name": "dbg", "image": "busybox"}]));
    let spelled_out = with_defaults(&json!([{
        "name": "dbg", "image": "busybox", "command": [], "args": [], "env": [], "volumeMounts": [], "workingDir": "",
        "stdin": false, "tty": false, "targetContainerName": "", "imagePullPolicy": "Always", "resources": {"limits": {}},
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}]));
    assert_eq!(ephemeral_change(&plain, &spelled_out), []);
    let other = with_defaults(&json!([{"name": "dbg", "image": "busybox", "stdin": true}]));
    assert_eq!(
        causes(&ephemeral_change(&plain, &other)),
        [("spec.ephemeralContainers", "FieldValueForbidden")]
    );
}

#[test]
fn an_accepted_entry_may_be_sent_again_exactly_as_the_same_container() {
    let with_defaults = |mut container: EphemeralContainer| {
        defaults::ephemeral_container(&mut container);
        [container]
    };
    let old = with_defaults(table::base());
    for (more, same) in table::rows() {
        let errors = ephemeral_change(&old, &with_defaults(table::container(&more)));
        assert_eq!(errors.is_empty(), same, "{more}: {errors:?}");
    }
}

#[test]
fn accepted_entries_may_come_in_another_order_and_with_new_ones_between() {
    let old = with_defaults(&json!([{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]));
    let new = with_defaults(
        &json!([{"name": "b", "image": "x"}, {"name": "c", "image": "x"}, {"name": "a", "image": "x"}]),
    );
    assert_eq!(ephemeral_change(&old, &new), []);
    let errors = ephemeral_change(&old, &new[..1]);
    assert_eq!(
        errors[0].message,
        "\"a\" was accepted before and cannot be removed"
    );
}
