//! What a pod can say in Kubernetes and debuglet does not do. Such a pod is refused as a whole, field by field:
//! never run half.
//!
//! Ephemeral containers are another matter: what they name and cannot have shows in their own status.

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod, PodSpec};

use super::findings::Findings;
use super::volumes;
use crate::pod::field_error::{Cause, FieldError};

/// Names every field of the pod that is not supported. For a pod that is valid otherwise.
pub(crate) fn unsupported(pod: &Pod) -> Vec<FieldError> {
    let mut findings = Unsupported(Findings::default());
    log_folder(pod, &mut findings.0);
    if let Some(spec) = &pod.spec {
        pod_spec(spec, &mut findings);
        for (index, container) in spec.containers.iter().enumerate() {
            self::container(container, &format!("spec.containers[{index}]"), &mut findings);
        }
        for (index, container) in spec.init_containers.iter().flatten().enumerate() {
            self::container(container, &format!("spec.initContainers[{index}]"), &mut findings);
        }
    }
    findings.0.into_errors()
}

/// The longest name that a file or folder can have on Linux (NAME_MAX), in bytes.
const MAX_FILE_NAME: usize = 255;
/// How many characters a UID has that debuglet gives.
const UID_LENGTH: usize = 36;

/// The logs of a pod lie in a folder `NAMESPACE_NAME_UID`. Kubernetes takes longer names, and then no kubelet can start
/// the pod.
fn log_folder(pod: &Pod, findings: &mut Findings) {
    let length = |part: &Option<String>| part.as_deref().unwrap_or_default().len();
    let beside = length(&pod.metadata.namespace) + UID_LENGTH + "__".len();
    let most = MAX_FILE_NAME.saturating_sub(beside);
    if length(&pod.metadata.name) > most {
        let message = format!(
            "may have {most} characters in this namespace: the folder of the pod's logs is called \
             NAMESPACE_NAME_UID, and no folder's name has more than {MAX_FILE_NAME}"
        );
        findings.add("metadata.name", Cause::TooLong, message);
    }
}

struct Unsupported(Findings);

impl Unsupported {
    /// Notes the field if it is in use.
    fn field(&mut self, field: impl Into<String>, in_use: bool, why: &str) {
        if in_use {
            self.0.add(field, Cause::NotSupported, why);
        }
    }
}

const NO_API_SERVER: &str = "is not supported: it needs objects of an API server";

fn pod_spec(spec: &PodSpec, findings: &mut Unsupported) {
    let plain = "is not supported";
    findings.field("spec.hostUsers", spec.host_users == Some(false), plain);
    findings.field(
        "spec.runtimeClassName",
        spec.runtime_class_name.is_some(),
        NO_API_SERVER,
    );
    findings.field("spec.overhead", spec.overhead.is_some(), plain);
    findings.field(
        "spec.resources",
        spec.resources.is_some(),
        "is not supported; set resources of the containers",
    );
    findings.field(
        "spec.resourceClaims",
        is_some(spec.resource_claims.as_ref()),
        NO_API_SERVER,
    );
    findings.field(
        "spec.imagePullSecrets",
        is_some(spec.image_pull_secrets.as_ref()),
        "is not supported; name the credentials' file as registry.auth_file in the configuration",
    );
    findings.field(
        "spec.schedulingGates",
        is_some(spec.scheduling_gates.as_ref()),
        NO_API_SERVER,
    );
    findings.field(
        "spec.readinessGates",
        is_some(spec.readiness_gates.as_ref()),
        NO_API_SERVER,
    );
    findings.field(
        "spec.activeDeadlineSeconds",
        spec.active_deadline_seconds.is_some(),
        plain,
    );
    findings.field(
        "spec.os.name",
        spec.os.as_ref().is_some_and(|os| os.name == "windows"),
        "is not supported: this node runs Linux",
    );
    let windows = spec
        .security_context
        .as_ref()
        .is_some_and(|context| context.windows_options.is_some());
    findings.field(
        "spec.securityContext.windowsOptions",
        windows,
        "is not supported: this node runs Linux",
    );
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        for kind in volumes::kinds(volume) {
            let known = matches!(kind.as_str(), "emptyDir" | "hostPath");
            findings.field(
                format!("spec.volumes[{index}].{kind}"),
                !known,
                "is not supported; a volume can be an emptyDir or a hostPath",
            );
        }
        let medium = volume
            .empty_dir
            .as_ref()
            .and_then(|source| source.medium.as_deref())
            .unwrap_or_default();
        findings.field(
            format!("spec.volumes[{index}].emptyDir.medium"),
            !matches!(medium, "" | "Memory"),
            "is not supported; it can be empty or Memory",
        );
    }
}

fn container(container: &Container, path: &str, findings: &mut Unsupported) {
    let plain = "is not supported";
    for (field, in_use) in [
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
        ("lifecycle", container.lifecycle.is_some()),
        ("volumeDevices", is_some(container.volume_devices.as_ref())),
        (
            "restartPolicyRules",
            is_some(container.restart_policy_rules.as_ref()),
        ),
    ] {
        findings.field(format!("{path}.{field}"), in_use, plain);
    }
    findings.field(
        format!("{path}.restartPolicy"),
        container.restart_policy.is_some(),
        "is not supported; the pod's restartPolicy counts",
    );
    for (index, variable) in container.env.iter().flatten().enumerate() {
        if let Some(source) = &variable.value_from {
            environment_source(source, &format!("{path}.env[{index}].valueFrom"), findings);
        }
    }
    for (index, source) in container.env_from.iter().flatten().enumerate() {
        let path = format!("{path}.envFrom[{index}]");
        let needed = |optional: Option<bool>| optional != Some(true);
        let config_map = source
            .config_map_ref
            .as_ref()
            .is_some_and(|reference| needed(reference.optional));
        findings.field(format!("{path}.configMapRef"), config_map, NO_API_SERVER);
        let secret = source
            .secret_ref
            .as_ref()
            .is_some_and(|reference| needed(reference.optional));
        findings.field(format!("{path}.secretRef"), secret, NO_API_SERVER);
    }
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let path = format!("{path}.volumeMounts[{index}]");
        findings.field(format!("{path}.subPath"), mount.sub_path.is_some(), plain);
        findings.field(
            format!("{path}.subPathExpr"),
            mount.sub_path_expr.is_some(),
            plain,
        );
    }
    if let Some(resources) = &container.resources {
        findings.field(
            format!("{path}.resources.claims"),
            is_some(resources.claims.as_ref()),
            NO_API_SERVER,
        );
        for name in resources.limits.iter().flatten().map(|(name, _)| name) {
            findings.field(
                format!("{path}.resources.limits[{name}]"),
                name.contains('/'),
                "is not supported: there are no device plugins",
            );
        }
    }
    let windows = container
        .security_context
        .as_ref()
        .is_some_and(|context| context.windows_options.is_some());
    findings.field(
        format!("{path}.securityContext.windowsOptions"),
        windows,
        "is not supported: this node runs Linux",
    );
}

/// An optional object of an API server that is not there counts as missing, as in Kubernetes.
fn environment_source(source: &EnvVarSource, path: &str, findings: &mut Unsupported) {
    let config_map = source
        .config_map_key_ref
        .as_ref()
        .is_some_and(|reference| reference.optional != Some(true));
    findings.field(format!("{path}.configMapKeyRef"), config_map, NO_API_SERVER);
    let secret = source
        .secret_key_ref
        .as_ref()
        .is_some_and(|reference| reference.optional != Some(true));
    findings.field(format!("{path}.secretKeyRef"), secret, NO_API_SERVER);
    findings.field(
        format!("{path}.fileKeyRef"),
        source.file_key_ref.is_some(),
        "is not supported",
    );
}

fn is_some<T>(list: Option<&Vec<T>>) -> bool {
    list.is_some_and(|list| !list.is_empty())
}
