//! The sandbox of a pod in CRI's terms, as a kubelet asks for it.

use std::collections::HashMap;
use std::path::Path;

use debuglet_proto::v1::security_profile::ProfileType;
use debuglet_proto::v1::{
    Int64Value, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, PodSandboxConfig, PodSandboxMetadata,
    PortMapping, Protocol, SecurityProfile,
};
use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::cgroup::{CgroupDriver, cgroup_parent};
use super::dns::dns_config;
use super::hostname::{Hostname, HostnameError};
use super::labels;
use super::log_names::log_folder;
use super::node::Node;
use super::quantity::QuantityError;
use super::resources::{pod_resources, qos_class};
use super::security_context::{
    SecurityContextError, pod_namespaces, selinux, supplemental_groups, supplemental_groups_policy,
};

/// Why there is no sandbox for a pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SandboxConfigError {
    /// The object is no whole pod.
    #[error("the pod has no spec")]
    NoSpec,
    /// It cannot have the host name it asks for.
    #[error(transparent)]
    Hostname(#[from] HostnameError),
    /// Its requests and limits cannot be read.
    #[error(transparent)]
    Quantity(#[from] QuantityError),
    /// Its security context says what is not known.
    #[error(transparent)]
    SecurityContext(#[from] SecurityContextError),
}

/// What a sandbox follows from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SandboxContext<'a> {
    /// The pod with all its containers, the ephemeral ones included: a privileged one among them makes the
    /// sandbox of the request privileged, without which containerd refuses that container.
    pub(crate) pod: &'a Pod,
    /// How many sandboxes the pod had before.
    pub(crate) attempt: u32,
    /// The node it runs on.
    pub(crate) node: &'a Node,
    /// Who manages the cgroup tree.
    pub(crate) cgroup_driver: CgroupDriver,
    /// The folder of all pods' logs, `/var/log/pods`.
    pub(crate) log_dir: &'a Path,
}

/// The configuration to run the pod's sandbox with, and to send along with each of its containers: containerd
/// takes the cgroup, the log folder and the host name of a container from there.
pub(crate) fn sandbox_config(context: &SandboxContext<'_>) -> Result<PodSandboxConfig, SandboxConfigError> {
    let SandboxContext { pod, node, .. } = *context;
    let spec = pod.spec.as_ref().ok_or(SandboxConfigError::NoSpec)?;
    let metadata = &pod.metadata;
    let uid = metadata.uid.clone().unwrap_or_default();

    let mut all_labels: HashMap<_, _> = metadata.labels.clone().unwrap_or_default().into_iter().collect();
    all_labels.extend(labels::of_pod(pod));
    let mut annotations = metadata.annotations.clone().unwrap_or_default();
    // It would make the pod look like a kubelet's.
    annotations.remove(labels::CONFIG_SOURCE);

    let hostname = if spec.host_network == Some(true) {
        String::new()
    } else {
        Hostname::of(pod)?.in_kernel(spec.set_hostname_as_fqdn == Some(true))?
    };

    Ok(PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: metadata.name.clone().unwrap_or_default(),
            uid: uid.clone(),
            namespace: metadata.namespace.clone().unwrap_or_default(),
            attempt: context.attempt,
        }),
        hostname,
        log_directory: context
            .log_dir
            .join(log_folder(pod))
            .to_string_lossy()
            .into_owned(),
        dns_config: Some(dns_config(spec, &node.resolv_conf)),
        port_mappings: port_mappings(spec),
        labels: all_labels,
        annotations: annotations.into_iter().collect(),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: cgroup_parent(context.cgroup_driver, qos_class(spec)?, &uid),
            security_context: Some(sandbox_security_context(spec)?),
            sysctls: sysctls(spec),
            overhead: None,
            resources: Some(pod_resources(spec, node)?),
        }),
    })
}

/// Under which user and in which namespaces the sandbox itself runs.
fn sandbox_security_context(spec: &PodSpec) -> Result<LinuxSandboxSecurityContext, SecurityContextError> {
    let of_pod = spec.security_context.as_ref();
    Ok(LinuxSandboxSecurityContext {
        namespace_options: Some(pod_namespaces(Some(spec))),
        selinux_options: of_pod
            .and_then(|of_pod| of_pod.se_linux_options.as_ref())
            .map(selinux),
        run_as_user: of_pod
            .and_then(|of_pod| of_pod.run_as_user)
            .map(|value| Int64Value { value }),
        run_as_group: of_pod
            .and_then(|of_pod| of_pod.run_as_group)
            .map(|value| Int64Value { value }),
        readonly_rootfs: false,
        supplemental_groups: supplemental_groups(of_pod),
        supplemental_groups_policy: supplemental_groups_policy(of_pod)?.into(),
        privileged: has_privileged_container(spec),
        // The sandbox runs nothing of the user's, so it is filtered whatever the pod says.
        seccomp: Some(SecurityProfile {
            profile_type: ProfileType::RuntimeDefault.into(),
            localhost_ref: String::new(),
        }),
        apparmor: None,
        // Replaced by `seccomp`.
        seccomp_profile_path: String::new(),
    })
}

/// Whether any container of the pod is privileged, the ephemeral ones included.
fn has_privileged_container(spec: &PodSpec) -> bool {
    let ordinary = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    ordinary
        .map(|container| &container.security_context)
        .chain(ephemeral.map(|container| &container.security_context))
        .flatten()
        .any(|security_context| security_context.privileged == Some(true))
}

/// `securityContext.sysctls`.
fn sysctls(spec: &PodSpec) -> HashMap<String, String> {
    let of_pod = spec.security_context.as_ref();
    of_pod
        .and_then(|of_pod| of_pod.sysctls.as_ref())
        .into_iter()
        .flatten()
        .map(|sysctl| (sysctl.name.clone(), sysctl.value.clone()))
        .collect()
}

/// The ports of the containers; CNI's portmap plugin opens those with a `hostPort` on the node.
fn port_mappings(spec: &PodSpec) -> Vec<PortMapping> {
    spec.containers
        .iter()
        .flat_map(|container| container.ports.iter().flatten())
        .map(|port| PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            }
            .into(),
            container_port: port.container_port,
            host_port: port.host_port.unwrap_or(0),
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use debuglet_proto::v1::{NamespaceMode, NamespaceOption};
    use serde_json::{Value, json};

    fn pod(metadata: Value, spec: Value) -> Pod {
        let mut pod = json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u-1"},
            "spec": {"containers": [{"name": "main"}]},
        });
        for (part, fields) in [("metadata", metadata), ("spec", spec)] {
            for (field, value) in fields.as_object().expect("an object") {
                pod[part][field] = value.clone();
            }
        }
        serde_json::from_value(pod).expect("a pod")
    }

    fn config(pod: &Pod) -> PodSandboxConfig {
        let node = Node::default();
        sandbox_config(&SandboxContext {
            pod,
            attempt: 2,
            node: &node,
            cgroup_driver: CgroupDriver::Cgroupfs,
            log_dir: Path::new("/var/log/pods"),
        })
        .expect("a configuration")
    }

    fn linux(
        spec: Value,
    ) -> (
        LinuxPodSandboxConfig,
        LinuxSandboxSecurityContext,
        NamespaceOption,
    ) {
        let linux = config(&pod(json!({}), spec)).linux.expect("linux");
        let security_context = linux.security_context.clone().expect("a security context");
        let namespaces = security_context.namespace_options.clone().expect("namespaces");
        (linux, security_context, namespaces)
    }

    #[test]
    fn a_sandbox_carries_the_pods_identity_its_log_folder_and_its_cgroup() {
        let config = config(&pod(json!({}), json!({})));
        let metadata = config.metadata.expect("metadata");
        assert_eq!(
            (
                metadata.name.as_str(),
                metadata.namespace.as_str(),
                metadata.uid.as_str(),
                metadata.attempt
            ),
            ("web", "shop", "u-1", 2)
        );
        assert_eq!(config.hostname, "web");
        assert_eq!(config.log_directory, "/var/log/pods/shop_web_u-1");
        assert_eq!(
            config.linux.expect("linux").cgroup_parent,
            "/debuglet/besteffort/podu-1"
        );
    }

    #[test]
    fn the_pods_labels_and_annotations_are_there_and_ours_win() {
        let config = config(&pod(
            json!({
                "labels": {"app": "web", "io.kubernetes.pod.name": "other", "io.debuglet.origin": "other"},
                "annotations": {"note": "x", "kubernetes.io/config.source": "file"},
            }),
            json!({}),
        ));
        let mut labels: Vec<_> = config.labels.into_iter().collect();
        labels.sort();
        let expected = [
            ("app", "web"),
            ("io.debuglet.origin", "debuglet"),
            ("io.kubernetes.pod.name", "web"),
            ("io.kubernetes.pod.namespace", "shop"),
            ("io.kubernetes.pod.uid", "u-1"),
        ];
        assert_eq!(
            labels,
            expected.map(|(label, value)| (label.into(), value.into()))
        );
        let annotations: Vec<_> = config.annotations.into_iter().collect();
        assert_eq!(
            annotations,
            [("note".into(), "x".into())],
            "never what marks a kubelet's pod"
        );
    }

    #[test]
    fn namespaces_follow_the_pods_spec() {
        use NamespaceMode::{Container, Node, Pod};
        for (spec, network, pid, ipc) in [
            (json!({}), Pod, Container, Pod),
            (json!({"hostNetwork": true}), Node, Container, Pod),
            (
                json!({"hostPID": true, "shareProcessNamespace": false}),
                Pod,
                Node,
                Pod,
            ),
            (json!({"shareProcessNamespace": true}), Pod, Pod, Pod),
            (json!({"hostIPC": true}), Pod, Container, Node),
        ] {
            let (_, _, namespaces) = linux(spec.clone());
            assert_eq!(
                (namespaces.network(), namespaces.pid(), namespaces.ipc()),
                (network, pid, ipc),
                "{spec}"
            );
            assert_eq!(namespaces.userns_options.expect("userns").mode(), Node);
        }
    }

    #[test]
    fn a_pod_on_the_hosts_network_keeps_the_hosts_name() {
        assert_eq!(config(&pod(json!({}), json!({"hostNetwork": true}))).hostname, "");
    }

    #[test]
    fn the_name_with_its_domain_is_set_where_the_pod_asks_for_it() {
        let spec = json!({"subdomain": "set", "setHostnameAsFQDN": true});
        assert_eq!(
            config(&pod(json!({}), spec)).hostname,
            "web.set.shop.svc.cluster.local"
        );
    }

    #[test]
    fn sysctls_users_and_groups_of_the_pod_reach_the_sandbox() {
        let (linux, security_context, _) = linux(json!({"securityContext": {
            "runAsUser": 1000, "runAsGroup": 3000, "fsGroup": 2000, "supplementalGroups": [7],
            "supplementalGroupsPolicy": "Strict",
            "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
            "seLinuxOptions": {"level": "s0:c1"},
        }}));
        assert_eq!(
            linux
                .sysctls
                .get("net.ipv4.ip_unprivileged_port_start")
                .map(String::as_str),
            Some("0")
        );
        assert_eq!(security_context.run_as_user.map(|user| user.value), Some(1000));
        assert_eq!(security_context.run_as_group.map(|group| group.value), Some(3000));
        assert_eq!(security_context.supplemental_groups, [2000, 7]);
        assert_eq!(security_context.supplemental_groups_policy, 1);
        assert_eq!(
            security_context.selinux_options.map(|options| options.level),
            Some("s0:c1".into())
        );
    }

    #[test]
    fn the_sandbox_itself_always_has_the_runtimes_system_call_filter() {
        let (_, security_context, _) =
            linux(json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}));
        assert_eq!(
            security_context.seccomp.map(|profile| profile.profile_type()),
            Some(ProfileType::RuntimeDefault)
        );
    }

    #[test]
    fn any_privileged_container_makes_the_sandbox_privileged() {
        let privileged = json!([{"name": "p", "securityContext": {"privileged": true}}]);
        assert!(!linux(json!({})).1.privileged);
        for field in ["containers", "initContainers", "ephemeralContainers"] {
            assert!(linux(json!({field: privileged})).1.privileged, "{field}");
        }
    }

    #[test]
    fn host_ports_are_mapped() {
        let ports = json!([{"containerPort": 80, "hostPort": 8080, "hostIP": "127.0.0.1"}, {"containerPort": 53, "protocol": "UDP"}]);
        let config = config(&pod(
            json!({}),
            json!({"containers": [{"name": "main", "ports": ports}]}),
        ));
        let mapped: Vec<_> = config
            .port_mappings
            .iter()
            .map(|port| {
                (
                    port.protocol(),
                    port.container_port,
                    port.host_port,
                    port.host_ip.as_str(),
                )
            })
            .collect();
        assert_eq!(
            mapped,
            [(Protocol::Tcp, 80, 8080, "127.0.0.1"), (Protocol::Udp, 53, 0, "")]
        );
    }
}
