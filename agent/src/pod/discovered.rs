//! A pod that somebody else runs, in Kubernetes' words, from what the runtime shows of it. What the runtime does not
//! tell is left out: which containers are init containers, whether they are ready, what a volume is made of.

pub(crate) mod enriched;
pub(crate) mod identity;
pub(crate) mod joining;
pub(crate) mod known_volumes;
pub(crate) mod resolved;
pub(crate) mod static_manifest;
pub(crate) mod union;
pub(crate) mod volumes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use debuglet_proto::v1::security_profile::ProfileType;
use debuglet_proto::v1::{
    ContainerConfig, LinuxContainerSecurityContext, Mount, NamespaceMode, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata, SecurityProfile, SupplementalGroupsPolicy,
};
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Capabilities, Container, EnvVar, Pod, PodSecurityContext, PodSpec, SELinuxOptions,
    SeccompProfile, SecurityContext, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;

use serde::{Deserialize, Serialize};

use super::etc_hosts;
use super::labels;
use super::observed::{ObservedContainer, ObservedSandbox};
use identity::sound_uid;
use static_manifest::StaticManifest;
use volumes::{MountedVolumes, kubelet_root};

/// A sandbox that debuglet did not make (CRI `PodSandboxStatus`, verbose).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ForeignSandbox {
    /// What the rules need of any sandbox.
    pub(crate) observed: ObservedSandbox,
    /// Whose sandbox it says it is; what counts, labels do not.
    pub(crate) metadata: PodSandboxMetadata,
    /// All of its labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// All of its annotations.
    pub(crate) annotations: BTreeMap<String, String>,
    /// Whose namespaces its containers use.
    pub(crate) namespaces: NamespaceOption,
    /// As it was asked for; none where the runtime does not tell.
    pub(crate) config: Option<PodSandboxConfig>,
}

/// A container in such a sandbox that debuglet did not make (CRI `ContainerStatus`, verbose).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ForeignContainer {
    /// What the rules need of any container.
    pub(crate) observed: ObservedContainer,
    /// All of its annotations.
    pub(crate) annotations: BTreeMap<String, String>,
    /// What is mounted in it, with the paths on the host.
    pub(crate) mounts: Vec<Mount>,
    /// As it was asked for; none where the runtime does not tell.
    pub(crate) config: Option<ContainerConfig>,
}

/// Who runs a discovered pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Owner {
    /// A kubelet, from a file or an address of its own: the API server cannot change it.
    StaticPod,
    /// A kubelet, for an API server.
    Kubelet,
    /// Some other client of the runtime, crictl perhaps.
    Cri,
}

impl Owner {
    /// By the annotation that a kubelet puts on each of its sandboxes.
    pub(crate) fn of(annotations: &BTreeMap<String, String>) -> Owner {
        match annotations.get(labels::CONFIG_SOURCE).map(String::as_str) {
            Some("api") => Owner::Kubelet,
            Some(_) => Owner::StaticPod,
            None => Owner::Cri,
        }
    }

    /// The value of the annotation `debuglet.io/source`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Owner::StaticPod => "static-pod",
            Owner::Kubelet => "kubelet",
            Owner::Cri => "cri",
        }
    }
}

/// A pod that was found in the runtime.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DiscoveredPod {
    /// As far as it is known, without ephemeral containers and without a status.
    pub(crate) pod: Pod,
    /// The sandbox that it was found in.
    pub(crate) sandbox_id: String,
    /// Who runs it.
    pub(crate) owner: Owner,
    /// Of a static pod, the manifest that describes it, where that was found.
    pub(crate) manifest: Option<StaticManifest>,
    /// Where its volumes lie on the host: those of known and of made-up names.
    pub(crate) volumes: MountedVolumes,
    /// The file on the host that its containers have as `/etc/hosts`; none where they have the runtime's own.
    pub(crate) etc_hosts: Option<String>,
    /// The root folder of the kubelet that runs it; none where no kubelet does.
    pub(crate) kubelet_root: Option<PathBuf>,
}

/// The pod of a sandbox and the containers in it, of which the newest of each name counts.
pub(crate) fn discover(
    sandbox: &ForeignSandbox,
    containers: &[ForeignContainer],
    node_name: &str,
) -> DiscoveredPod {
    let PodSandboxMetadata {
        name, uid, namespace, ..
    } = sandbox.metadata.clone();
    let uid = sound_uid(&uid, &sandbox.observed.id);
    let mut newest: BTreeMap<&str, &ForeignContainer> = BTreeMap::new();
    for container in containers {
        let shown = newest.entry(&container.observed.name).or_insert(container);
        let age = |one: &ForeignContainer| (one.observed.attempt, one.observed.created_at);
        if age(container) > age(shown) {
            *shown = container;
        }
    }
    // In the order in which they were made first: a kubelet makes them in the order of the spec.
    let mut newest: Vec<&ForeignContainer> = newest.into_values().collect();
    let first_made = |name: &str| {
        let times = containers.iter().filter(|one| one.observed.name == name);
        times.map(|one| one.observed.created_at).min()
    };
    newest.sort_by_key(|container| first_made(&container.observed.name));

    let mounts = || newest.iter().flat_map(|container| &container.mounts);
    let volumes = MountedVolumes::of(&uid, mounts());
    let kubelet_root = kubelet_root(&uid, mounts());
    let grace = newest.iter().find_map(|container| {
        container
            .annotations
            .get(labels::TERMINATION_GRACE_PERIOD)?
            .parse()
            .ok()
    });
    let config = sandbox.config.clone().unwrap_or_default();
    let has_mode = |mode: i32, wanted: NamespaceMode| mode == wanted as i32;
    let modes = &sandbox.namespaces;
    let of_node = |mode| has_mode(mode, NamespaceMode::Node).then_some(true);
    let shared = has_mode(modes.pid, NamespaceMode::Pod).then_some(true);
    let private_users = config.linux.as_ref().and_then(|linux| {
        let users = linux
            .security_context
            .as_ref()?
            .namespace_options
            .as_ref()?
            .userns_options
            .as_ref()?;
        has_mode(users.mode, NamespaceMode::Pod).then_some(false)
    });
    let own = |label: &&String| !label.starts_with("io.kubernetes.");
    let all_labels = sandbox.labels.iter().filter(|(label, _)| own(label));
    let pod = Pod {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(namespace),
            uid: Some(uid.clone()),
            creation_timestamp: Timestamp::from_nanosecond(sandbox.observed.created_at.into())
                .ok()
                .map(Time),
            labels: Some(
                all_labels
                    .map(|(label, value)| (label.clone(), value.clone()))
                    .collect(),
            ),
            annotations: Some(sandbox.annotations.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            node_name: Some(node_name.to_owned()),
            hostname: Some(config.hostname.clone()).filter(|name| !name.is_empty()),
            host_network: of_node(modes.network),
            host_pid: of_node(modes.pid),
            host_ipc: of_node(modes.ipc),
            share_process_namespace: shared,
            host_users: private_users,
            termination_grace_period_seconds: grace,
            containers: newest
                .iter()
                .map(|container| discover_container(container, &uid, &volumes))
                .collect(),
            // Every pod of an API server has one, and kubectl counts on it.
            security_context: Some(
                pod_security_context(&config, &newest, kubelet_root.as_deref()).unwrap_or_default(),
            ),
            volumes: Some(volumes.in_spec()).filter(|volumes| !volumes.is_empty()),
            ..PodSpec::default()
        }),
        status: None,
    };
    DiscoveredPod {
        pod,
        sandbox_id: sandbox.observed.id.clone(),
        owner: Owner::of(&sandbox.annotations),
        manifest: None,
        kubelet_root,
        etc_hosts: mounts()
            .find(|mount| mount.container_path == etc_hosts::PATH)
            .map(|mount| mount.host_path.clone()),
        volumes,
    }
}

/// What all containers of the pod have in common, as far as it can be told: a debug container gets the same.
fn pod_security_context(
    sandbox: &PodSandboxConfig,
    containers: &[&ForeignContainer],
    kubelet_root: Option<&Path>,
) -> Option<PodSecurityContext> {
    let of_sandbox = sandbox
        .linux
        .as_ref()?
        .security_context
        .clone()
        .unwrap_or_default();
    let strict = of_sandbox.supplemental_groups_policy() == SupplementalGroupsPolicy::Strict;
    let selinux = of_sandbox.selinux_options.map(|options| {
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        SELinuxOptions {
            user: some(options.user),
            role: some(options.role),
            type_: some(options.r#type),
            level: some(options.level),
        }
    });
    // A kubelet gives every sandbox the runtime's own filter, whatever the pod says; its containers tell.
    let seccomp = in_common(containers, |context| context.seccomp.clone());
    let apparmor = in_common(containers, |context| context.apparmor.clone());
    let known = PodSecurityContext {
        run_as_user: of_sandbox.run_as_user.map(|user| user.value),
        run_as_group: of_sandbox.run_as_group.map(|group| group.value),
        supplemental_groups: Some(of_sandbox.supplemental_groups).filter(|groups| !groups.is_empty()),
        se_linux_options: selinux,
        supplemental_groups_policy: strict.then(|| "Strict".to_owned()),
        seccomp_profile: seccomp.and_then(|profile| seccomp_profile(&profile, kubelet_root)),
        app_armor_profile: apparmor.and_then(|profile| app_armor_profile(&profile)),
        ..PodSecurityContext::default()
    };
    (known != PodSecurityContext::default()).then_some(known)
}

/// What every container of the pod was asked to have: then it is the pod's, or as good as.
fn in_common(
    containers: &[&ForeignContainer],
    of: impl Fn(&LinuxContainerSecurityContext) -> Option<SecurityProfile>,
) -> Option<SecurityProfile> {
    let profile = |container: &&ForeignContainer| {
        let linux = container.config.as_ref()?.linux.as_ref()?;
        of(linux.security_context.as_ref()?)
    };
    let (first, others) = containers.split_first()?;
    let first = profile(first);
    if others.iter().all(|container| profile(container) == first) {
        first
    } else {
        None
    }
}

/// In Kubernetes' words; none without a filter, which is what none means there, too.
fn seccomp_profile(profile: &SecurityProfile, kubelet_root: Option<&Path>) -> Option<SeccompProfile> {
    let localhost_profile = match profile.profile_type() {
        ProfileType::Unconfined => return None,
        ProfileType::RuntimeDefault => None,
        ProfileType::Localhost => {
            let folder = joining::seccomp_folder(kubelet_root?);
            let name = Path::new(&profile.localhost_ref).strip_prefix(folder).ok()?;
            Some(name.to_string_lossy().into_owned())
        }
    };
    Some(SeccompProfile {
        type_: profile.profile_type().as_str_name().to_owned(),
        localhost_profile,
    })
}

/// In Kubernetes' words.
fn app_armor_profile(profile: &SecurityProfile) -> Option<AppArmorProfile> {
    let localhost = profile.profile_type() == ProfileType::Localhost;
    Some(AppArmorProfile {
        type_: profile.profile_type().as_str_name().to_owned(),
        localhost_profile: localhost.then(|| profile.localhost_ref.clone()),
    })
}

fn discover_container(container: &ForeignContainer, uid: &str, volumes: &MountedVolumes) -> Container {
    let config = container.config.clone().unwrap_or_default();
    let some = |list: Vec<String>| Some(list).filter(|list| !list.is_empty());
    let mounts = container.mounts.iter().filter_map(|mount| {
        let (name, sub_path) = volumes.name_of(uid, mount)?;
        Some(VolumeMount {
            name: name.to_owned(),
            mount_path: mount.container_path.clone(),
            sub_path,
            read_only: mount.readonly.then_some(true),
            ..VolumeMount::default()
        })
    });
    let environment = config.envs.into_iter().map(|variable| EnvVar {
        name: variable.key,
        value: Some(String::from_utf8_lossy(&variable.value).into_owned()),
        value_from: None,
    });
    let annotation = |name| container.annotations.get(name).cloned();
    // As a kubelet was asked for it; the status says what that is to the runtime.
    let asked_for = config.image.map(|image| image.user_specified_image);
    let image = asked_for.filter(|image| !image.is_empty());
    Container {
        name: container.observed.name.clone(),
        image: image
            .or_else(|| Some(container.observed.image.clone()))
            .filter(|image| !image.is_empty()),
        command: some(config.command),
        args: some(config.args),
        working_dir: Some(config.working_dir).filter(|folder| !folder.is_empty()),
        env: Some(environment.collect::<Vec<_>>()).filter(|list| !list.is_empty()),
        volume_mounts: Some(mounts.collect::<Vec<_>>()).filter(|list| !list.is_empty()),
        stdin: config.stdin.then_some(true),
        stdin_once: config.stdin_once.then_some(true),
        tty: config.tty.then_some(true),
        ports: annotation(labels::CONTAINER_PORTS).and_then(|ports| serde_json::from_str(&ports).ok()),
        termination_message_path: annotation(labels::TERMINATION_MESSAGE_PATH),
        termination_message_policy: annotation(labels::TERMINATION_MESSAGE_POLICY),
        security_context: config
            .linux
            .and_then(|linux| linux.security_context)
            .and_then(|context| security_context(&context)),
        ..Container::default()
    }
}

/// What of a security context differs from that of a container which asks for nothing.
fn security_context(context: &LinuxContainerSecurityContext) -> Option<SecurityContext> {
    let capabilities = context.capabilities.as_ref().and_then(|capabilities| {
        let some = |list: &Vec<String>| Some(list.clone()).filter(|list| !list.is_empty());
        let (add, drop) = (
            some(&capabilities.add_capabilities),
            some(&capabilities.drop_capabilities),
        );
        (add.is_some() || drop.is_some()).then_some(Capabilities { add, drop })
    });
    let known = SecurityContext {
        privileged: context.privileged.then_some(true),
        read_only_root_filesystem: context.readonly_rootfs.then_some(true),
        allow_privilege_escalation: context.no_new_privs.then_some(false),
        run_as_user: context.run_as_user.as_ref().map(|user| user.value),
        run_as_group: context.run_as_group.as_ref().map(|group| group.value),
        capabilities,
        ..SecurityContext::default()
    };
    (known != SecurityContext::default()).then_some(known)
}

#[cfg(test)]
pub(super) mod tests;
