//! What an API server (v1.36) fills in where a pod or an ephemeral container says nothing, so that everything
//! behind it meets one form: two specs mean the same exactly when they are equal after this.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, EnvVar, EphemeralContainer, HTTPGetAction, Lifecycle, LifecycleHandler,
    Pod, PodSpec, Probe, ResourceRequirements, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::image_reference;

/// The namespace of a manifest that names none.
pub(crate) const NAMESPACE: &str = "default";
/// `terminationGracePeriodSeconds` where none is given.
pub(crate) const TERMINATION_GRACE_PERIOD_SECONDS: i64 = 30;
/// `terminationMessagePath` where none is given.
pub(crate) const TERMINATION_MESSAGE_PATH: &str = "/dev/termination-log";

/// Fills in everything that the pod leaves out, ephemeral containers included.
pub(crate) fn pod(pod: &mut Pod) {
    if pod.metadata.namespace.as_deref().unwrap_or_default().is_empty() {
        pod.metadata.namespace = Some(NAMESPACE.to_owned());
    }
    let spec = pod.spec.get_or_insert_default();
    for container in spec
        .containers
        .iter_mut()
        .chain(spec.init_containers.iter_mut().flatten())
    {
        self::container(container);
        requests_from_limits(container.resources.get_or_insert_default());
    }
    for container in spec.ephemeral_containers.iter_mut().flatten() {
        ephemeral_container(container);
    }
    spec.volumes.iter_mut().flatten().for_each(volume);
    if spec.host_network == Some(true) {
        host_ports_of_host_network(spec);
    }
    pod_spec(spec);
}

/// Fills in everything that the ephemeral container leaves out.
pub(crate) fn ephemeral_container(ephemeral: &mut EphemeralContainer) {
    let target = ephemeral
        .target_container_name
        .take()
        .filter(|name| !name.is_empty());
    let mut filled = into_container(std::mem::take(ephemeral));
    container(&mut filled);
    *ephemeral = from_container(filled);
    ephemeral.target_container_name = target;
}

/// The same container without its target, for everything that ephemeral and other containers have in common.
pub(crate) fn as_container(ephemeral: &EphemeralContainer) -> Container {
    into_container(ephemeral.clone())
}

fn into_container(ephemeral: EphemeralContainer) -> Container {
    Container {
        args: ephemeral.args,
        command: ephemeral.command,
        env: ephemeral.env,
        env_from: ephemeral.env_from,
        image: ephemeral.image,
        image_pull_policy: ephemeral.image_pull_policy,
        lifecycle: ephemeral.lifecycle,
        liveness_probe: ephemeral.liveness_probe,
        name: ephemeral.name,
        ports: ephemeral.ports,
        readiness_probe: ephemeral.readiness_probe,
        resize_policy: ephemeral.resize_policy,
        resources: ephemeral.resources,
        restart_policy: ephemeral.restart_policy,
        restart_policy_rules: ephemeral.restart_policy_rules,
        security_context: ephemeral.security_context,
        startup_probe: ephemeral.startup_probe,
        stdin: ephemeral.stdin,
        stdin_once: ephemeral.stdin_once,
        termination_message_path: ephemeral.termination_message_path,
        termination_message_policy: ephemeral.termination_message_policy,
        tty: ephemeral.tty,
        volume_devices: ephemeral.volume_devices,
        volume_mounts: ephemeral.volume_mounts,
        working_dir: ephemeral.working_dir,
    }
}

fn from_container(container: Container) -> EphemeralContainer {
    EphemeralContainer {
        args: container.args,
        command: container.command,
        env: container.env,
        env_from: container.env_from,
        image: container.image,
        image_pull_policy: container.image_pull_policy,
        lifecycle: container.lifecycle,
        liveness_probe: container.liveness_probe,
        name: container.name,
        ports: container.ports,
        readiness_probe: container.readiness_probe,
        resize_policy: container.resize_policy,
        resources: container.resources,
        restart_policy: container.restart_policy,
        restart_policy_rules: container.restart_policy_rules,
        security_context: container.security_context,
        startup_probe: container.startup_probe,
        stdin: container.stdin,
        stdin_once: container.stdin_once,
        target_container_name: None,
        termination_message_path: container.termination_message_path,
        termination_message_policy: container.termination_message_policy,
        tty: container.tty,
        volume_devices: container.volume_devices,
        volume_mounts: container.volume_mounts,
        working_dir: container.working_dir,
    }
}

fn container(container: &mut Container) {
    leave_out_what_is_empty(container);
    let image = container.image.as_deref().unwrap_or_default();
    let pull_policy = image_reference::default_pull_policy(image);
    fill(&mut container.image_pull_policy, pull_policy);
    fill(&mut container.termination_message_path, TERMINATION_MESSAGE_PATH);
    fill(&mut container.termination_message_policy, "File");
    container.resources.get_or_insert_default();
    for port in container.ports.iter_mut().flatten() {
        fill(&mut port.protocol, "TCP");
    }
    container.env.iter_mut().flatten().for_each(environment_variable);
    for probe in [
        &mut container.liveness_probe,
        &mut container.readiness_probe,
        &mut container.startup_probe,
    ] {
        probe.iter_mut().for_each(self::probe);
    }
    if let Some(Lifecycle {
        post_start, pre_stop, ..
    }) = &mut container.lifecycle
    {
        for LifecycleHandler { http_get, .. } in [post_start, pre_stop].into_iter().flatten() {
            http_get.iter_mut().for_each(http_get_action);
        }
    }
}

fn environment_variable(variable: &mut EnvVar) {
    let Some(source) = &mut variable.value_from else {
        return;
    };
    if let Some(field) = &mut source.field_ref {
        fill(&mut field.api_version, "v1");
    }
    if let Some(divisor) = source
        .resource_field_ref
        .as_mut()
        .map(|resource| &mut resource.divisor)
    {
        divisor.get_or_insert_with(|| Quantity("0".to_owned()));
    }
    if let Some(file) = &mut source.file_key_ref {
        file.optional.get_or_insert(false);
    }
}

fn probe(probe: &mut Probe) {
    fill_number(&mut probe.timeout_seconds, 1);
    fill_number(&mut probe.period_seconds, 10);
    fill_number(&mut probe.success_threshold, 1);
    fill_number(&mut probe.failure_threshold, 3);
    probe.http_get.iter_mut().for_each(http_get_action);
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn http_get_action(action: &mut HTTPGetAction) {
    fill(&mut action.path, "/");
    fill(&mut action.scheme, "HTTP");
}

/// A container's `requests` are its `limits` where it does not say them.
fn requests_from_limits(resources: &mut ResourceRequirements) {
    let Some(limits) = &resources.limits else {
        return;
    };
    let requests: &mut BTreeMap<String, Quantity> = resources.requests.get_or_insert_default();
    for (name, quantity) in limits {
        requests.entry(name.clone()).or_insert_with(|| quantity.clone());
    }
}

fn volume(volume: &mut Volume) {
    let bare = Volume {
        name: volume.name.clone(),
        ..Volume::default()
    };
    if *volume == bare {
        volume.empty_dir = Some(EmptyDirVolumeSource::default());
    }
    if let Some(host_path) = &mut volume.host_path {
        host_path.type_.get_or_insert_default();
    }
    // Volumes that only an API server's pods can have; a pod of the manifests folder is refused with them.
    const FILE_MODE: i32 = 0o644;
    for mode in [
        volume.secret.as_mut().map(|source| &mut source.default_mode),
        volume.config_map.as_mut().map(|source| &mut source.default_mode),
        volume
            .downward_api
            .as_mut()
            .map(|source| &mut source.default_mode),
        volume.projected.as_mut().map(|source| &mut source.default_mode),
    ]
    .into_iter()
    .flatten()
    {
        mode.get_or_insert(FILE_MODE);
    }
}

/// On the host's network a container's port is the host's port.
fn host_ports_of_host_network(spec: &mut PodSpec) {
    let containers = spec
        .containers
        .iter_mut()
        .chain(spec.init_containers.iter_mut().flatten());
    for port in containers.flat_map(|container| container.ports.iter_mut().flatten()) {
        fill_number(&mut port.host_port, port.container_port);
    }
}

fn pod_spec(spec: &mut PodSpec) {
    fill(&mut spec.dns_policy, "ClusterFirst");
    fill(&mut spec.restart_policy, "Always");
    fill(&mut spec.scheduler_name, "default-scheduler");
    spec.security_context.get_or_insert_default();
    spec.termination_grace_period_seconds
        .get_or_insert(TERMINATION_GRACE_PERIOD_SECONDS);
    spec.enable_service_links.get_or_insert(true);
    // The older name of the field follows the newer one, and stands in for it.
    let account = [&spec.service_account_name, &spec.service_account]
        .into_iter()
        .flatten()
        .find(|name| !name.is_empty())
        .cloned();
    spec.service_account_name.clone_from(&account);
    spec.service_account = account;
}

/// Go's JSON knows no difference between nothing and an empty list, an empty text or false in these fields,
/// so neither may a comparison of two specs.
fn leave_out_what_is_empty(container: &mut Container) {
    for list in [&mut container.args, &mut container.command] {
        list.take_if(|list| list.is_empty());
    }
    container.env.take_if(|list| list.is_empty());
    container.env_from.take_if(|list| list.is_empty());
    container.ports.take_if(|list| list.is_empty());
    container.resize_policy.take_if(|list| list.is_empty());
    container.restart_policy_rules.take_if(|list| list.is_empty());
    container.volume_devices.take_if(|list| list.is_empty());
    container.volume_mounts.take_if(|list| list.is_empty());
    for text in [&mut container.image, &mut container.working_dir] {
        text.take_if(|text| text.is_empty());
    }
    for flag in [
        &mut container.stdin,
        &mut container.stdin_once,
        &mut container.tty,
    ] {
        flag.take_if(|flag| !*flag);
    }
    if let Some(resources) = &mut container.resources {
        resources.claims.take_if(|list| list.is_empty());
        resources.limits.take_if(|map| map.is_empty());
        resources.requests.take_if(|map| map.is_empty());
    }
    for variable in container.env.iter_mut().flatten() {
        variable.value.take_if(|text| text.is_empty());
    }
    for source in container.env_from.iter_mut().flatten() {
        source.prefix.take_if(|text| text.is_empty());
    }
    for mount in container.volume_mounts.iter_mut().flatten() {
        mount.read_only.take_if(|flag| !*flag);
        mount.sub_path.take_if(|text| text.is_empty());
        mount.sub_path_expr.take_if(|text| text.is_empty());
    }
    if let Some(capabilities) = container
        .security_context
        .as_mut()
        .and_then(|context| context.capabilities.as_mut())
    {
        capabilities.add.take_if(|list| list.is_empty());
        capabilities.drop.take_if(|list| list.is_empty());
    }
}

fn fill(field: &mut Option<String>, default: &str) {
    if field.as_deref().unwrap_or_default().is_empty() {
        *field = Some(default.to_owned());
    }
}

fn fill_number(field: &mut Option<i32>, default: i32) {
    if field.unwrap_or_default() == 0 {
        *field = Some(default);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn filled(pod: Value) -> Value {
        let mut pod: Pod = serde_json::from_value(pod).unwrap();
        self::pod(&mut pod);
        serde_json::to_value(pod).unwrap()
    }

    #[test]
    fn ephemeral_containers_are_stored_as_an_api_server_stored_them() {
        let reference: Value = serde_json::from_str(include_str!("reference/accepted.json")).unwrap();
        for (name, case) in reference["cases"].as_object().unwrap() {
            let mut containers: Vec<EphemeralContainer> =
                serde_json::from_value(case["asked"].clone()).unwrap();
            containers.iter_mut().for_each(ephemeral_container);
            assert_eq!(
                serde_json::to_value(&containers).unwrap(),
                case["stored"],
                "{name}"
            );
            let again = containers.clone();
            containers.iter_mut().for_each(ephemeral_container);
            assert_eq!(containers, again, "{name}: filling in twice changes nothing");
        }
    }

    #[test]
    fn a_pod_gets_what_it_leaves_out() {
        assert_eq!(
            filled(
                json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "busybox:1"}]}})
            ),
            json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "default"},
                "spec": {
                    "containers": [{
                        "name": "c", "image": "busybox:1", "imagePullPolicy": "IfNotPresent", "resources": {},
                        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"
                    }],
                    "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
                    "securityContext": {}, "terminationGracePeriodSeconds": 30, "enableServiceLinks": true
                }
            })
        );
    }

    #[test]
    fn what_a_pod_says_stays() {
        let said = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "b"},
            "spec": {
                "containers": [{
                    "name": "c", "image": "busybox", "imagePullPolicy": "Never", "resources": {"requests": {"cpu": "1"}},
                    "terminationMessagePath": "/x", "terminationMessagePolicy": "FallbackToLogsOnError"
                }],
                "dnsPolicy": "Default", "restartPolicy": "Never", "schedulerName": "mine", "enableServiceLinks": false,
                "securityContext": {"runAsUser": 1}, "terminationGracePeriodSeconds": 0
            }
        });
        assert_eq!(filled(said.clone()), said);
    }

    #[test]
    fn a_volume_without_a_source_is_an_empty_dir_and_a_host_path_has_a_type() {
        let pod = filled(
            json!({"spec": {"containers": [], "volumes": [{"name": "a"}, {"name": "b", "hostPath": {"path": "/b"}}]}}),
        );
        let expected =
            json!([{"name": "a", "emptyDir": {}}, {"name": "b", "hostPath": {"path": "/b", "type": ""}}]);
        assert_eq!(pod["spec"]["volumes"], expected);
    }

    #[test]
    fn requests_follow_limits_and_host_ports_follow_ports_on_the_hosts_network() {
        let pod = filled(json!({"spec": {"hostNetwork": true, "containers": [{
            "name": "c", "image": "i", "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}}]}}));
        let container = &pod["spec"]["containers"][0];
        assert_eq!(
            container["resources"]["requests"],
            json!({"cpu": "500m", "memory": "1Gi"})
        );
        assert_eq!(
            container["ports"],
            json!([{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}])
        );
    }

    #[test]
    fn probes_and_resource_fields_are_completed() {
        let pod = filled(json!({"spec": {"containers": [{
            "name": "c", "image": "i", "livenessProbe": {"httpGet": {"port": 80}},
            "env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]}]}}));
        let container = &pod["spec"]["containers"][0];
        let probe = json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
            "successThreshold": 1, "failureThreshold": 3});
        assert_eq!(container["livenessProbe"], probe);
        assert_eq!(
            container["env"][0]["valueFrom"]["resourceFieldRef"]["divisor"],
            "0"
        );
    }

    #[test]
    fn both_names_of_the_service_account_say_the_same() {
        for field in ["serviceAccount", "serviceAccountName"] {
            let pod = filled(json!({"spec": {"containers": [], field: "x"}}));
            assert_eq!(
                (&pod["spec"]["serviceAccount"], &pod["spec"]["serviceAccountName"]),
                (&json!("x"), &json!("x"))
            );
        }
    }
}
