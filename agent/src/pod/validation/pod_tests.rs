use serde_json::{Value, json};

use super::super::unsupported;
use super::*;
use crate::pod::defaults;

/// A pod with this spec; what it does not say is that of a plain one.
fn pod_with(spec: &Value) -> Pod {
    let mut whole = json!({
        "containers": [{"name": "main", "image": "busybox", "volumeMounts": [{"name": "scratch", "mountPath": "/s"}]}],
        "volumes": [{"name": "scratch", "emptyDir": {}}],
    });
    whole
        .as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    let mut pod = serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": whole})).unwrap();
    defaults::pod(&mut pod);
    pod
}

/// A pod with one container that says this besides its name and image.
fn pod_of(container: &Value) -> Pod {
    let mut whole = json!({"name": "main", "image": "busybox"});
    whole
        .as_object_mut()
        .unwrap()
        .extend(container.as_object().unwrap().clone());
    pod_with(&json!({"containers": [whole]}))
}

/// Field and reason of each error.
fn causes(errors: &[FieldError]) -> Vec<(&str, &str)> {
    errors
        .iter()
        .map(|error| (error.field.as_str(), error.cause.reason()))
        .collect()
}

#[test]
fn a_plain_pod_is_valid_and_supported() {
    let plain = pod_with(&json!({"initContainers": [{"name": "setup", "image": "busybox"}]}));
    assert_eq!(pod(&plain), []);
    assert_eq!(unsupported(&plain), []);
}

#[test]
fn a_name_is_no_longer_than_the_folder_of_the_pods_logs_allows() {
    let named = |namespace: usize, name: usize| {
        let mut pod = pod_with(&json!({}));
        pod.metadata.namespace = Some("n".repeat(namespace));
        pod.metadata.name = Some("p".repeat(name));
        pod
    };
    for (namespace, most) in [(7, 210), (63, 154), (1, 216)] {
        let longest = named(namespace, most);
        assert_eq!(unsupported(&longest), []);
        let mut folder = longest.clone();
        folder.metadata.uid = Some(crate::pod::identity::random_uid([0; 16]));
        assert_eq!(crate::pod::log_names::log_folder(&folder).len(), 255);
        let errors = unsupported(&named(namespace, most + 1));
        assert_eq!(causes(&errors), [("metadata.name", "FieldValueTooLong")]);
        assert!(errors[0].message.contains(&most.to_string()), "{}", errors[0]);
    }
}

#[test]
fn metadata_follows_the_forms_of_names() {
    for (metadata, field, reason) in [
        (json!({}), "metadata.name", "FieldValueRequired"),
        (json!({"name": "Web"}), "metadata.name", "FieldValueInvalid"),
        (
            json!({"name": "a", "namespace": "a.b"}),
            "metadata.namespace",
            "FieldValueInvalid",
        ),
        (
            json!({"name": "a", "labels": {"a b": "x"}}),
            "metadata.labels",
            "FieldValueInvalid",
        ),
        (
            json!({"name": "a", "labels": {"a": "x y"}}),
            "metadata.labels",
            "FieldValueInvalid",
        ),
        (
            json!({"name": "a", "annotations": {"a/b/c": "x"}}),
            "metadata.annotations",
            "FieldValueInvalid",
        ),
        (
            json!({"name": "a", "annotations": {"a": "x".repeat(MAX_ANNOTATIONS)}}),
            "metadata.annotations",
            "FieldValueTooLong",
        ),
    ] {
        let mut named: Pod = serde_json::from_value(
            json!({"metadata": metadata, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
        )
        .unwrap();
        defaults::pod(&mut named);
        assert_eq!(causes(&pod(&named)), [(field, reason)], "{metadata}");
    }
}

#[test]
fn each_rule_of_a_spec_names_its_field() {
    let required = "FieldValueRequired";
    let invalid = "FieldValueInvalid";
    let unknown = "FieldValueNotSupported";
    let forbidden = "FieldValueForbidden";
    let duplicate = "FieldValueDuplicate";
    let volume = |source: Value| {
        let mut volume = json!({"name": "v"});
        volume
            .as_object_mut()
            .unwrap()
            .extend(source.as_object().unwrap().clone());
        json!({"volumes": [{"name": "scratch"}, volume]})
    };
    for (spec, field, reason) in [
        (json!({"containers": []}), "spec.containers", required),
        (
            json!({"containers": [{"name": "a", "image": "i"}, {"name": "a", "image": "i"}]}),
            "spec.containers[1].name",
            duplicate,
        ),
        (
            json!({"initContainers": [{"name": "main", "image": "i"}]}),
            "spec.initContainers[0].name",
            duplicate,
        ),
        (
            json!({"initContainers": [{"name": "setup"}]}),
            "spec.initContainers[0].image",
            required,
        ),
        (
            json!({"restartPolicy": "Sometimes"}),
            "spec.restartPolicy",
            unknown,
        ),
        (json!({"dnsPolicy": "Mine"}), "spec.dnsPolicy", unknown),
        (json!({"dnsPolicy": "None"}), "spec.dnsConfig", required),
        (
            json!({"dnsPolicy": "None", "dnsConfig": {}}),
            "spec.dnsConfig.nameservers",
            required,
        ),
        (
            json!({"dnsConfig": {"nameservers": ["dns"]}}),
            "spec.dnsConfig.nameservers[0]",
            invalid,
        ),
        (
            json!({"dnsConfig": {"searches": ["a b"]}}),
            "spec.dnsConfig.searches[0]",
            invalid,
        ),
        (
            json!({"dnsConfig": {"options": [{"value": "x"}]}}),
            "spec.dnsConfig.options[0]",
            required,
        ),
        (json!({"hostname": "a.b"}), "spec.hostname", invalid),
        (json!({"subdomain": "A"}), "spec.subdomain", invalid),
        (
            json!({"hostNetwork": true, "hostnameOverride": "a"}),
            "spec.hostnameOverride",
            forbidden,
        ),
        (
            json!({"hostAliases": [{"ip": "localhost"}]}),
            "spec.hostAliases[0].ip",
            invalid,
        ),
        (
            json!({"terminationGracePeriodSeconds": -1}),
            "spec.terminationGracePeriodSeconds",
            invalid,
        ),
        (
            json!({"activeDeadlineSeconds": 0}),
            "spec.activeDeadlineSeconds",
            invalid,
        ),
        (
            json!({"shareProcessNamespace": true, "hostPID": true}),
            "spec.shareProcessNamespace",
            invalid,
        ),
        (
            json!({"securityContext": {"fsGroup": -1}}),
            "spec.securityContext.fsGroup",
            invalid,
        ),
        (
            json!({"securityContext": {"supplementalGroups": [0, -1]}}),
            "spec.securityContext.supplementalGroups[1]",
            invalid,
        ),
        (
            json!({"securityContext": {"sysctls": [{"name": "", "value": "1"}]}}),
            "spec.securityContext.sysctls[0].name",
            required,
        ),
        (
            json!({"securityContext": {"sysctls": [{"name": "a b", "value": "1"}]}}),
            "spec.securityContext.sysctls[0].name",
            invalid,
        ),
        (
            json!({"securityContext": {"sysctls": [{"name": "net.a", "value": "1"}, {"name": "net/a", "value": "1"}]}}),
            "spec.securityContext.sysctls[1].name",
            duplicate,
        ),
        (
            json!({"hostNetwork": true, "securityContext": {"sysctls": [{"name": "net.a", "value": "1"}]}}),
            "spec.securityContext.sysctls[0].name",
            invalid,
        ),
        (
            json!({"hostIPC": true, "securityContext": {"sysctls": [{"name": "kernel.shmmax", "value": "1"}]}}),
            "spec.securityContext.sysctls[0].name",
            invalid,
        ),
        (
            json!({"securityContext": {"fsGroupChangePolicy": "Often"}}),
            "spec.securityContext.fsGroupChangePolicy",
            unknown,
        ),
        (
            volume(json!({"name": "scratch"})),
            "spec.volumes[1].name",
            duplicate,
        ),
        (volume(json!({"name": "a.b"})), "spec.volumes[1].name", invalid),
        (
            volume(json!({"emptyDir": {"sizeLimit": "a lot"}})),
            "spec.volumes[1].emptyDir.sizeLimit",
            invalid,
        ),
        (
            volume(json!({"emptyDir": {"sizeLimit": "-1"}})),
            "spec.volumes[1].emptyDir.sizeLimit",
            invalid,
        ),
        (
            volume(json!({"emptyDir": {}, "hostPath": {"path": "/"}})),
            "spec.volumes[1]",
            forbidden,
        ),
        (
            volume(json!({"hostPath": {"path": ""}})),
            "spec.volumes[1].hostPath.path",
            required,
        ),
        (
            volume(json!({"hostPath": {"path": "/a/../b"}})),
            "spec.volumes[1].hostPath.path",
            invalid,
        ),
        (
            volume(json!({"hostPath": {"path": "/a", "type": "Pipe"}})),
            "spec.volumes[1].hostPath.type",
            unknown,
        ),
    ] {
        assert_eq!(causes(&pod(&pod_with(&spec))), [(field, reason)], "{spec}");
    }
}

#[test]
fn each_rule_of_a_container_names_its_field() {
    let invalid = "FieldValueInvalid";
    for (container, field, reason) in [
        (
            json!({"ports": [{}]}),
            "ports[0].containerPort",
            "FieldValueRequired",
        ),
        (
            json!({"ports": [{"containerPort": 65536}]}),
            "ports[0].containerPort",
            invalid,
        ),
        (
            json!({"ports": [{"containerPort": 1, "name": "Web"}]}),
            "ports[0].name",
            invalid,
        ),
        (
            json!({"ports": [{"containerPort": 1, "protocol": "HTTP"}]}),
            "ports[0].protocol",
            "FieldValueNotSupported",
        ),
        (
            json!({"ports": [{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]}),
            "ports[1].name",
            "FieldValueDuplicate",
        ),
        (
            json!({"ports": [{"containerPort": 1, "hostPort": 80}, {"containerPort": 2, "hostPort": 80}]}),
            "ports[1].hostPort",
            "FieldValueDuplicate",
        ),
        (
            json!({"resources": {"requests": {"cpu": "fast"}}}),
            "resources.requests[cpu]",
            invalid,
        ),
        (
            json!({"resources": {"requests": {"cpu": "-1"}}}),
            "resources.requests[cpu]",
            invalid,
        ),
        (
            json!({"resources": {"requests": {"gpu": "1"}}}),
            "resources.requests[gpu]",
            invalid,
        ),
        (
            json!({"resources": {"limits": {"memory": "1Gi"}, "requests": {"memory": "2G"}}}),
            "resources.requests[memory]",
            invalid,
        ),
        (
            json!({"resources": {"requests": {"hugepages-2Mi": "2Mi"}}}),
            "resources.requests[hugepages-2Mi]",
            "FieldValueRequired",
        ),
    ] {
        let path = format!("spec.containers[0].{field}");
        assert_eq!(
            causes(&pod(&pod_of(&container))),
            [(path.as_str(), reason)],
            "{container}"
        );
    }
    let even = json!({"resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Mi"}}});
    assert_eq!(pod(&pod_of(&even)), []);
}

#[test]
fn containers_that_run_at_once_share_the_ports_of_the_host() {
    let container =
        |name: &str| json!({"name": name, "image": "i", "ports": [{"containerPort": 80, "hostPort": 80}]});
    let both = json!({"containers": [container("a"), container("b")]});
    assert_eq!(
        causes(&pod(&pod_with(&both))),
        [("spec.containers[1].ports[0].hostPort", "FieldValueDuplicate")]
    );
    let one_after_the_other = json!({"initContainers": [container("a"), container("b")]});
    assert_eq!(pod(&pod_with(&one_after_the_other)), []);
}

#[test]
fn what_is_not_supported_is_refused_by_the_name_of_its_field() {
    let probe = json!({"exec": {"command": ["true"]}});
    for (spec, field) in [
        (json!({"hostUsers": false}), "spec.hostUsers"),
        (json!({"runtimeClassName": "kata"}), "spec.runtimeClassName"),
        (
            json!({"imagePullSecrets": [{"name": "a"}]}),
            "spec.imagePullSecrets",
        ),
        (
            json!({"schedulingGates": [{"name": "a"}]}),
            "spec.schedulingGates",
        ),
        (
            json!({"readinessGates": [{"conditionType": "a"}]}),
            "spec.readinessGates",
        ),
        (json!({"resourceClaims": [{"name": "a"}]}), "spec.resourceClaims"),
        (json!({"resources": {"limits": {"cpu": "1"}}}), "spec.resources"),
        (json!({"activeDeadlineSeconds": 5}), "spec.activeDeadlineSeconds"),
        (json!({"os": {"name": "windows"}}), "spec.os.name"),
        (
            json!({"volumes": [{"name": "scratch", "secret": {"secretName": "a"}}]}),
            "spec.volumes[0].secret",
        ),
        (
            json!({"volumes": [{"name": "scratch", "persistentVolumeClaim": {"claimName": "a"}}]}),
            "spec.volumes[0].persistentVolumeClaim",
        ),
        (
            json!({"volumes": [{"name": "scratch", "configMap": {"name": "a"}}]}),
            "spec.volumes[0].configMap",
        ),
        (
            json!({"volumes": [{"name": "scratch", "emptyDir": {"medium": "HugePages"}}]}),
            "spec.volumes[0].emptyDir.medium",
        ),
        (
            json!({"initContainers": [{"name": "proxy", "image": "i", "restartPolicy": "Always"}]}),
            "spec.initContainers[0].restartPolicy",
        ),
    ] {
        let errors = unsupported(&pod_with(&spec));
        assert_eq!(causes(&errors), [(field, "FieldValueNotSupported")], "{spec}");
    }
    for (container, field) in [
        (json!({"livenessProbe": probe}), "livenessProbe"),
        (json!({"readinessProbe": probe}), "readinessProbe"),
        (json!({"startupProbe": probe}), "startupProbe"),
        (json!({"lifecycle": {"preStop": probe}}), "lifecycle"),
        (
            json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}),
            "env[0].valueFrom.secretKeyRef",
        ),
        (
            json!({"envFrom": [{"configMapRef": {"name": "c"}}]}),
            "envFrom[0].configMapRef",
        ),
        (
            json!({"volumeMounts": [{"name": "scratch", "mountPath": "/a", "subPath": "b"}]}),
            "volumeMounts[0].subPath",
        ),
        (
            json!({"resources": {"limits": {"example.com/gpu": "1"}}}),
            "resources.limits[example.com/gpu]",
        ),
    ] {
        let errors = unsupported(&pod_of(&container));
        let path = format!("spec.containers[0].{field}");
        assert_eq!(
            causes(&errors),
            [(path.as_str(), "FieldValueNotSupported")],
            "{container}"
        );
    }
}

#[test]
fn an_optional_object_of_an_api_server_may_be_missing() {
    let container = json!({
        "envFrom": [{"secretRef": {"name": "s", "optional": true}}],
        "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k", "optional": true}}}]});
    assert_eq!(unsupported(&pod_of(&container)), []);
}

#[test]
fn what_only_a_scheduler_reads_is_no_obstacle() {
    let spec = json!({
        "nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}], "priorityClassName": "system-node-critical",
        "affinity": {"nodeAffinity": {}}, "serviceAccountName": "default", "automountServiceAccountToken": true});
    let placed = pod_with(&spec);
    assert_eq!((pod(&placed), unsupported(&placed)), (vec![], vec![]));
}
