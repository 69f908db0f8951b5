//! Reads the facts of this machine that end up in pods (`pod::node::Node`).

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

use debuglet_proto::v1::StatusRequest;
use tonic::Status;

use super::client::Runtime;
use super::error::{NoAnswer, RuntimeError};
use crate::pod::cgroup::CgroupDriver;
use crate::pod::dns::parse_resolv_conf;
use crate::pod::node::{Node, SystemInfo};

/// An address of the documentation block (RFC 5737): asking for the way to it sends nothing, and tells which of
/// our addresses leads outside.
const ELSEWHERE: &str = "192.0.2.1:9";

/// What pods take from the node and its runtime.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct NodeFacts {
    /// This machine.
    pub(crate) node: Node,
    /// Who manages the cgroup tree.
    pub(crate) cgroup_driver: CgroupDriver,
}

impl Runtime {
    /// The facts of the node of this name, and what the runtime did not answer of them: that is left as if there were none
    /// of it, and is to be asked again. `cgroup_driver` is what the configuration says, if it does. The runtime is waited
    /// for no longer than `limit`.
    pub(crate) async fn node_facts(
        &self,
        name: &str,
        cgroup_driver: Option<CgroupDriver>,
        limit: Duration,
    ) -> (NodeFacts, Option<RuntimeError>) {
        let mut facts = NodeFacts::default();
        let driver = async {
            match cgroup_driver {
                Some(configured) => Ok(configured),
                None => self.cgroup_driver().await,
            }
        };
        let asked = async { tokio::join!(driver, self.recursive_read_only()) };
        let asked = tokio::time::timeout(limit, asked).await;
        let (driver, recursive_read_only) = asked.unwrap_or_else(|_| {
            let silent = || NoAnswer::new("Status".to_owned(), limit).into_status();
            (Err(silent()), Err(silent()))
        });
        let mut failure = None;
        let mut failed = |object: &str, status: &Status| {
            failure = Some(RuntimeError::new("ask the runtime for its", object, status));
        };
        facts.cgroup_driver = driver.unwrap_or_else(|status| {
            failed("cgroup driver", &status);
            CgroupDriver::default()
        });
        let recursive_read_only = recursive_read_only.unwrap_or_else(|status| {
            failed("features", &status);
            false
        });
        let name = name.to_owned();
        let read = tokio::task::spawn_blocking(move || read_facts(name, recursive_read_only)).await;
        facts.node = read.unwrap_or_default();
        (facts, failure)
    }

    /// Whether mounts can be made read-only with all that is mounted below.
    async fn recursive_read_only(&self) -> Result<bool, Status> {
        let request = StatusRequest { verbose: false };
        let status = self.runtime().status(request).await?.into_inner();
        let mut handlers = status.runtime_handlers.iter();
        Ok(handlers.any(|handler| {
            let features = handler.features.as_ref();
            handler.name.is_empty() && features.is_some_and(|features| features.recursive_read_only_mounts)
        }))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "files of the kernel and of the node's owner, on a thread that may block"
)]
fn read_facts(name: String, recursive_read_only: bool) -> Node {
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as i64);
    let storage =
        nix::sys::statvfs::statvfs("/").map_or(0, |fs| fs.blocks() as i64 * fs.fragment_size() as i64);
    Node {
        name,
        ips: own_addresses(),
        cpu_milli: processors * 1000,
        memory_bytes: memory_bytes(&text("/proc/meminfo")),
        ephemeral_storage_bytes: storage,
        hugepage_sizes: hugepage_sizes(Path::new("/sys/kernel/mm/hugepages")),
        cgroup_v2: Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
        selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        recursive_read_only,
        thermal_paths: thermal_paths(Path::new("/sys/devices/system/cpu")),
        resolv_conf: parse_resolv_conf(&text("/etc/resolv.conf")),
        hosts: text("/etc/hosts"),
        system: system_info(),
    }
}

/// Containers of other tools hide some of these files: what cannot be read stays empty.
fn system_info() -> SystemInfo {
    let word = |path| text(path).trim().to_owned();
    SystemInfo {
        boot_id: word("/proc/sys/kernel/random/boot_id"),
        machine_id: word("/etc/machine-id"),
        system_uuid: word("/sys/class/dmi/id/product_uuid"),
        kernel_version: word("/proc/sys/kernel/osrelease"),
        os_image: pretty_name(&text("/etc/os-release")),
    }
}

/// `PRETTY_NAME` of `/etc/os-release`, whose values are written as a shell would take them.
fn pretty_name(os_release: &str) -> String {
    let name = os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
}

#[expect(
    clippy::disallowed_methods,
    reason = "files of the kernel and of the node's owner, on a thread that may block"
)]
fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn own_addresses() -> Vec<String> {
    let way_out = || {
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.connect(ELSEWHERE).ok()?;
        Some(socket.local_addr().ok()?.ip().to_string())
    };
    // A node without a way out still has an address that its own processes reach.
    vec![way_out().unwrap_or_else(|| "127.0.0.1".to_owned())]
}

/// `MemTotal` of `/proc/meminfo`, which counts in KiB.
fn memory_bytes(meminfo: &str) -> i64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: i64 = total
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0);
    kib * 1024
}

/// The sizes of huge pages, largest last, in the hugetlb cgroup's words: `hugepages-2048kB` is `2MB`.
#[expect(
    clippy::disallowed_methods,
    reason = "files of the kernel and of the node's owner, on a thread that may block"
)]
fn hugepage_sizes(folder: &Path) -> Vec<String> {
    let mut sizes: Vec<u64> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            name.to_str()?
                .strip_prefix("hugepages-")?
                .strip_suffix("kB")?
                .parse()
                .ok()
        })
        .collect();
    sizes.sort_unstable();
    sizes.into_iter().map(hugepage_name).collect()
}

fn hugepage_name(kib: u64) -> String {
    match kib {
        kib if kib % (1024 * 1024) == 0 => format!("{}GB", kib / (1024 * 1024)),
        kib if kib % 1024 == 0 => format!("{}MB", kib / 1024),
        kib => format!("{kib}KB"),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "files of the kernel and of the node's owner, on a thread that may block"
)]
fn thermal_paths(folder: &Path) -> Vec<String> {
    let mut paths: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("thermal_throttle"))
        .filter(|path| path.exists())
        .map(|path| path.display().to_string())
        .collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_the_total_in_bytes() {
        assert_eq!(
            memory_bytes("MemTotal:       24105000 kB\nMemFree: 1 kB\n"),
            24_105_000 * 1024
        );
        assert_eq!(memory_bytes("nothing"), 0);
    }

    #[test]
    fn a_system_is_named_with_or_without_quotes() {
        for (os_release, name) in [
            ("ID=debian\nPRETTY_NAME=\"Debian 12\"\n", "Debian 12"),
            ("PRETTY_NAME=Alpine\n", "Alpine"),
            ("ID=x\n", ""),
        ] {
            assert_eq!(pretty_name(os_release), name);
        }
    }

    #[test]
    fn huge_pages_are_named_as_the_cgroup_names_them() {
        for (kib, expected) in [(64, "64KB"), (2048, "2MB"), (1_048_576, "1GB")] {
            assert_eq!(hugepage_name(kib), expected);
        }
    }
}
