//! What the rules need to know of the node. It is read once, when the agent starts: none of it changes while
//! the machine is up.

use debuglet_proto::v1::DnsConfig;

/// The facts of this node that end up in pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Node {
    /// The node's name: what `spec.nodeName` says to containers.
    pub(crate) name: String,
    /// The node's addresses, the primary one first: `status.hostIPs`, and the pod's own addresses on the
    /// host's network.
    pub(crate) ips: Vec<String>,
    /// Processors, in thousandths: the `limits.cpu` of a container without a limit (downward API).
    pub(crate) cpu_milli: i64,
    /// Memory in bytes (`MemTotal`): what OOM scores are measured against, and the `limits.memory` of a
    /// container without a limit.
    pub(crate) memory_bytes: i64,
    /// Size in bytes of the file system that containers write to: the `limits.ephemeral-storage` of a
    /// container without a limit.
    pub(crate) ephemeral_storage_bytes: i64,
    /// The sizes of huge pages that the kernel offers, named as the hugetlb cgroup names them: `2MB`, `1GB`.
    pub(crate) hugepage_sizes: Vec<String>,
    /// Whether the cgroup hierarchy is version 2.
    pub(crate) cgroup_v2: bool,
    /// Whether SELinux is enabled: only then are files relabelled for a container.
    pub(crate) selinux: bool,
    /// Whether the runtime can mount a tree read-only with everything below it
    /// (CRI `RuntimeHandlerFeatures.recursive_read_only_mounts`).
    pub(crate) recursive_read_only: bool,
    /// Folders `/sys/devices/system/cpu/cpuN/thermal_throttle` that exist here. They are hidden from
    /// containers, as other tenants' activity can be read from them.
    pub(crate) thermal_paths: Vec<String>,
    /// The host's `/etc/resolv.conf`, see [`super::dns::parse_resolv_conf`].
    pub(crate) resolv_conf: DnsConfig,
    /// The host's `/etc/hosts`, for pods on the host's network.
    pub(crate) hosts: String,
    /// What the machine and its system are called.
    pub(crate) system: SystemInfo,
}

/// What the machine and its system are called: nothing but `kubectl get nodes` and `describe` show it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SystemInfo {
    /// The identity of this boot.
    pub(crate) boot_id: String,
    /// The identity of the installed system.
    pub(crate) machine_id: String,
    /// The identity of the machine, as its firmware tells it.
    pub(crate) system_uuid: String,
    /// The kernel's release.
    pub(crate) kernel_version: String,
    /// The system's name for people.
    pub(crate) os_image: String,
}
