//! What a container is allowed to do: the security contexts of its pod and its own put together as a kubelet
//! does, in CRI's terms.

use debuglet_proto::v1::security_profile::ProfileType;
use debuglet_proto::v1::{
    Capability, Int64Value, LinuxContainerSecurityContext, NamespaceMode, NamespaceOption, SeLinuxOption,
    SecurityProfile, SupplementalGroupsPolicy, UserNamespace,
};
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, PodSpec, SELinuxOptions, SeccompProfile,
};

use super::node::Node;

/// Where profiles named by `seccompProfile.localhostProfile` are: a kubelet's folder, where they already are on
/// a node that has them.
pub(crate) const SECCOMP_PROFILES: &str = "/var/lib/kubelet/seccomp";

/// How AppArmor profiles were given per container before there was a field for them.
const APPARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Paths that the default proc mount hides from a container (`procMount: Default`).
const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Paths that the default proc mount lets a container only read.
const READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Why a container may not run, or not as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SecurityContextError {
    /// `runAsNonRoot` beside `runAsUser: 0`.
    #[error("container {0} has runAsNonRoot and its runAsUser is 0, which is root")]
    RunsAsRoot(String),
    /// `runAsNonRoot`, and the image runs as root.
    #[error(
        "container {0} has runAsNonRoot and its image runs as root; set runAsUser to another user's number"
    )]
    ImageRunsAsRoot(String),
    /// `runAsNonRoot`, and the image's user is a name, which could mean any number.
    #[error(
        "container {container} has runAsNonRoot and its image's user is a name ({user}), which cannot be known not to be root; set runAsUser to that user's number"
    )]
    ImageUserIsName {
        /// The container's name.
        container: String,
        /// The image's user.
        user: String,
    },
    /// A profile of type Localhost without its name.
    #[error("container {container} has {profile} of type Localhost without localhostProfile")]
    NoProfileName {
        /// The container's name.
        container: String,
        /// The field: `seccompProfile` or `appArmorProfile`.
        profile: &'static str,
    },
    /// A word that none of the field's values is.
    #[error("{field} {value:?} is not supported")]
    Unknown {
        /// The field's name.
        field: &'static str,
        /// The value as written.
        value: String,
    },
}

/// Who an image runs as (CRI `Image`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ImageUser {
    /// `uid`, where the image's user is a number.
    pub(crate) uid: Option<i64>,
    /// `username`, where it is a name; empty otherwise.
    pub(crate) name: String,
}

/// The security context of one container, ordinary, init or ephemeral.
///
/// `target` is the id of the container whose processes it is to see (`targetContainerName`).
pub(crate) fn security_context(
    pod: &Pod,
    container: &Container,
    image_user: &ImageUser,
    node: &Node,
    target: Option<&str>,
) -> Result<LinuxContainerSecurityContext, SecurityContextError> {
    // An image that names no user runs as root.
    let image_uid = match image_user.uid {
        None if image_user.name.is_empty() => Some(0),
        uid => uid,
    };
    let spec = pod.spec.as_ref();
    let of_pod = spec.and_then(|spec| spec.security_context.as_ref());
    let own = container.security_context.as_ref();

    let run_as_user = own
        .and_then(|own| own.run_as_user)
        .or_else(|| of_pod.and_then(|of_pod| of_pod.run_as_user));
    let run_as_group = own
        .and_then(|own| own.run_as_group)
        .or_else(|| of_pod.and_then(|of_pod| of_pod.run_as_group));
    let run_as_non_root = own
        .and_then(|own| own.run_as_non_root)
        .or_else(|| of_pod.and_then(|of_pod| of_pod.run_as_non_root));
    if run_as_non_root == Some(true) {
        check_not_root(&container.name, run_as_user, image_uid, &image_user.name)?;
    }

    let unmasked = own.and_then(|own| own.proc_mount.as_deref()) == Some("Unmasked");
    let (masked_paths, readonly_paths) = if unmasked {
        (Vec::new(), Vec::new())
    } else {
        let masked = MASKED_PATHS.into_iter().map(str::to_owned);
        let masked = masked.chain(node.thermal_paths.iter().cloned()).collect();
        (masked, READONLY_PATHS.map(str::to_owned).into())
    };

    let (apparmor, apparmor_profile) = match apparmor_profile(pod, container) {
        Some(profile) => apparmor(&container.name, &profile)?,
        None => (None, String::new()),
    };

    Ok(LinuxContainerSecurityContext {
        capabilities: own
            .and_then(|own| own.capabilities.as_ref())
            .map(|capabilities| Capability {
                add_capabilities: capabilities.add.clone().unwrap_or_default(),
                drop_capabilities: capabilities.drop.clone().unwrap_or_default(),
                add_ambient_capabilities: Vec::new(),
            }),
        privileged: own.and_then(|own| own.privileged).unwrap_or(false),
        namespace_options: Some(container_namespaces(spec, target)),
        selinux_options: own
            .and_then(|own| own.se_linux_options.as_ref())
            .or_else(|| of_pod.and_then(|of_pod| of_pod.se_linux_options.as_ref()))
            .map(selinux),
        run_as_user: run_as_user.or(image_uid).map(|value| Int64Value { value }),
        run_as_group: run_as_group.map(|value| Int64Value { value }),
        run_as_username: match run_as_user {
            Some(_) => String::new(),
            None => image_user.name.clone(),
        },
        readonly_rootfs: own.and_then(|own| own.read_only_root_filesystem).unwrap_or(false),
        supplemental_groups: supplemental_groups(of_pod),
        supplemental_groups_policy: supplemental_groups_policy(of_pod)?.into(),
        no_new_privs: own.and_then(|own| own.allow_privilege_escalation) == Some(false),
        masked_paths,
        readonly_paths,
        seccomp: Some(seccomp(
            &container.name,
            own.and_then(|own| own.seccomp_profile.as_ref())
                .or_else(|| of_pod.and_then(|of_pod| of_pod.seccomp_profile.as_ref())),
        )?),
        apparmor,
        apparmor_profile,
        // Replaced by `seccomp`, which every runtime of CRI v1 knows.
        seccomp_profile_path: String::new(),
    })
}

/// Sees to it that a container with `runAsNonRoot` does not run as root, as far as that can be known before it
/// runs.
fn check_not_root(
    container: &str,
    run_as_user: Option<i64>,
    image_uid: Option<i64>,
    image_user: &str,
) -> Result<(), SecurityContextError> {
    match (run_as_user, image_uid) {
        (Some(0), _) => Err(SecurityContextError::RunsAsRoot(container.to_owned())),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err(SecurityContextError::ImageRunsAsRoot(container.to_owned())),
        (None, Some(_)) => Ok(()),
        (None, None) => Err(SecurityContextError::ImageUserIsName {
            container: container.to_owned(),
            user: image_user.to_owned(),
        }),
    }
}

/// The namespaces of the pod's containers and of its sandbox.
pub(crate) fn pod_namespaces(spec: Option<&PodSpec>) -> NamespaceOption {
    let of_host = |host: Option<bool>| match host {
        Some(true) => NamespaceMode::Node,
        _ => NamespaceMode::Pod,
    };
    let pid = match spec {
        Some(spec) if spec.host_pid == Some(true) => NamespaceMode::Node,
        Some(spec) if spec.share_process_namespace == Some(true) => NamespaceMode::Pod,
        _ => NamespaceMode::Container,
    };
    NamespaceOption {
        network: of_host(spec.and_then(|spec| spec.host_network)).into(),
        pid: pid.into(),
        ipc: of_host(spec.and_then(|spec| spec.host_ipc)).into(),
        target_id: String::new(),
        // The host's user namespace: `hostUsers: false` is not supported.
        userns_options: Some(UserNamespace {
            mode: NamespaceMode::Node.into(),
            ..Default::default()
        }),
    }
}

/// The namespaces of one container. A target makes a difference only where each container has its own PID
/// namespace: elsewhere the target's processes are in sight anyway.
fn container_namespaces(spec: Option<&PodSpec>, target: Option<&str>) -> NamespaceOption {
    let mut namespaces = pod_namespaces(spec);
    if let Some(target) = target
        && namespaces.pid() == NamespaceMode::Container
    {
        namespaces.set_pid(NamespaceMode::Target);
        namespaces.target_id = target.to_owned();
    }
    namespaces
}

/// The additional groups of a pod's processes, the group of its volumes first.
pub(crate) fn supplemental_groups(of_pod: Option<&PodSecurityContext>) -> Vec<i64> {
    of_pod
        .map(|of_pod| {
            of_pod
                .fs_group
                .into_iter()
                .chain(of_pod.supplemental_groups.iter().flatten().copied())
                .collect()
        })
        .unwrap_or_default()
}

/// Whether the groups that the image gives its user count as well (`supplementalGroupsPolicy`).
pub(crate) fn supplemental_groups_policy(
    of_pod: Option<&PodSecurityContext>,
) -> Result<SupplementalGroupsPolicy, SecurityContextError> {
    match of_pod.and_then(|of_pod| of_pod.supplemental_groups_policy.as_deref()) {
        None | Some("Merge") => Ok(SupplementalGroupsPolicy::Merge),
        Some("Strict") => Ok(SupplementalGroupsPolicy::Strict),
        Some(other) => Err(SecurityContextError::Unknown {
            field: "supplementalGroupsPolicy",
            value: other.to_owned(),
        }),
    }
}

/// SELinux' four labels; what is not given is up to the runtime.
pub(crate) fn selinux(options: &SELinuxOptions) -> SeLinuxOption {
    SeLinuxOption {
        user: options.user.clone().unwrap_or_default(),
        role: options.role.clone().unwrap_or_default(),
        r#type: options.type_.clone().unwrap_or_default(),
        level: options.level.clone().unwrap_or_default(),
    }
}

/// The system call filter; none unless one is asked for, which is a kubelet's default too.
fn seccomp(
    container: &str,
    profile: Option<&SeccompProfile>,
) -> Result<SecurityProfile, SecurityContextError> {
    let of_type = |profile_type: ProfileType| SecurityProfile {
        profile_type: profile_type.into(),
        localhost_ref: String::new(),
    };
    let Some(profile) = profile else {
        return Ok(of_type(ProfileType::Unconfined));
    };
    match profile.type_.as_str() {
        "RuntimeDefault" => Ok(of_type(ProfileType::RuntimeDefault)),
        "Unconfined" => Ok(of_type(ProfileType::Unconfined)),
        "Localhost" => {
            let name = profile_name(container, "seccompProfile", profile.localhost_profile.as_deref())?;
            Ok(SecurityProfile {
                profile_type: ProfileType::Localhost.into(),
                localhost_ref: format!("{SECCOMP_PROFILES}/{name}"),
            })
        }
        other => Err(SecurityContextError::Unknown {
            field: "seccompProfile.type",
            value: other.to_owned(),
        }),
    }
}

/// The AppArmor profile that applies to a container: its own, else the one in the pod's annotations, else the
/// pod's.
fn apparmor_profile(pod: &Pod, container: &Container) -> Option<AppArmorProfile> {
    let own = container.security_context.as_ref();
    let own = own.and_then(|own| own.app_armor_profile.clone());
    let annotated = || {
        let annotations = pod.metadata.annotations.as_ref()?;
        let value = annotations.get(&format!("{APPARMOR_ANNOTATION}{}", container.name))?;
        let (type_, localhost_profile) = match value.as_str() {
            "runtime/default" => ("RuntimeDefault", None),
            "unconfined" => ("Unconfined", None),
            value => ("Localhost", Some(value.strip_prefix("localhost/")?.to_owned())),
        };
        Some(AppArmorProfile {
            type_: type_.to_owned(),
            localhost_profile,
        })
    };
    let of_pod = || {
        let spec = pod.spec.as_ref()?;
        spec.security_context.as_ref()?.app_armor_profile.clone()
    };
    own.or_else(annotated).or_else(of_pod)
}

/// An AppArmor profile in both of CRI's forms: older runtimes know only the text.
fn apparmor(
    container: &str,
    profile: &AppArmorProfile,
) -> Result<(Option<SecurityProfile>, String), SecurityContextError> {
    let (profile_type, name, text) = match profile.type_.as_str() {
        "RuntimeDefault" => (ProfileType::RuntimeDefault, "", "runtime/default".to_owned()),
        "Unconfined" => (ProfileType::Unconfined, "", "unconfined".to_owned()),
        "Localhost" => {
            let name = profile_name(container, "appArmorProfile", profile.localhost_profile.as_deref())?;
            (ProfileType::Localhost, name, format!("localhost/{name}"))
        }
        other => {
            return Err(SecurityContextError::Unknown {
                field: "appArmorProfile.type",
                value: other.to_owned(),
            });
        }
    };
    let profile = SecurityProfile {
        profile_type: profile_type.into(),
        localhost_ref: name.to_owned(),
    };
    Ok((Some(profile), text))
}

/// The name that a profile of type Localhost needs.
fn profile_name<'a>(
    container: &str,
    profile: &'static str,
    name: Option<&'a str>,
) -> Result<&'a str, SecurityContextError> {
    name.filter(|name| !name.is_empty())
        .ok_or_else(|| SecurityContextError::NoProfileName {
            container: container.to_owned(),
            profile,
        })
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value)] // `json!` literals read better without a `&`
mod tests;
