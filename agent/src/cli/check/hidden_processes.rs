//! Whether /proc hides a kubelet's process from the agent: hardened nodes mount it with `hidepid` (proc(5)).

use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::Finding;

/// What the status of an agent says that runs as its unit does: root, without that capability.
const OF_UNIT: &str = "Gid:\t0\t0\t0\t0\nCapEff:\t0\n";
/// The bit of `CAP_SYS_PTRACE` (capabilities(7)).
const PTRACE: u32 = 19;

/// What is wrong with it, for the agent that serves `socket`, or for one that runs as its unit says.
#[expect(
    clippy::disallowed_methods,
    reason = "a command reads what its user may read, and holds up nobody else"
)]
pub(super) fn look(socket: &Path) -> Option<Finding> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let status = agent(socket).and_then(|id| std::fs::read_to_string(format!("/proc/{id}/status")).ok());
    finding(&mounts, status.as_deref())
}

/// The process id of the agent that listens at `socket`.
fn agent(socket: &Path) -> Option<i32> {
    let stream = UnixStream::connect(socket).ok()?;
    let id = getsockopt(&stream, PeerCredentials).ok()?.pid();
    // Zero stands for a process of another PID namespace.
    (id > 0).then_some(id)
}

/// What /proc/self/mountinfo and the agent's /proc/PID/status come to. An agent that does not run will have the rights of its
/// unit, which do not include that one.
fn finding(mounts: &str, status: Option<&str>) -> Option<Finding> {
    let options = options_of_proc(mounts)?;
    let option = |name: &str| {
        options
            .split(',')
            .find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
    };
    let mode = option("hidepid")?;
    // The members of the group, root's where none is named, see everything, but under `ptraceable`.
    let group = (!matches!(mode, "4" | "ptraceable")).then(|| option("gid").unwrap_or("0"));
    if matches!(mode, "0" | "off") || sees_everything(status.unwrap_or(OF_UNIT), group) {
        return None;
    }
    Some(Finding::warn(
        "kubelet",
        format!(
            "/proc is mounted with hidepid={mode}, which hides a kubelet's process from the agent: give its unit \
             CAP_SYS_PTRACE (CapabilityBoundingSet)"
        ),
    ))
}

/// The options of the file system at /proc: of the mount that covers the others (proc(5), `/proc/PID/mountinfo`).
fn options_of_proc(mounts: &str) -> Option<&str> {
    mounts.lines().rev().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let is_proc = mount.split(' ').nth(4) == Some("/proc") && file_system.starts_with("proc ");
        is_proc.then(|| file_system.rsplit(' ').next()).flatten()
    })
}

/// Whether the process of this /proc/PID/status may look at all others.
fn sees_everything(status: &str, group: Option<&str>) -> bool {
    let field = |name: &str| {
        status.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key == name).then(|| value.trim())
        })
    };
    let effective = field("CapEff").and_then(|mask| u64::from_str_radix(mask, 16).ok());
    let groups = field("Groups").unwrap_or_default().split_whitespace();
    // The group of the process is its fourth: real, effective, saved, file system.
    let own = field("Gid").and_then(|ids| ids.split_whitespace().nth(3));
    effective.is_some_and(|mask| mask & (1 << PTRACE) != 0)
        || group.is_some_and(|group| groups.chain(own).any(|own| own == group))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_processes_are_a_warning_unless_the_agent_may_see_them() {
        let mounts = |options: &str| {
            format!(
                "22 1 8:1 / / rw - ext4 /dev/sda rw\n23 22 0:21 / /proc rw,nosuid - proc proc {options}\n\
                 24 23 0:30 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw,fd=30\n"
            )
        };
        let with = "Gid:\t0\t0\t0\t0\nGroups:\t0 \nCapEff:\t000001ffffffffff\n";
        let without = "Gid:\t0\t0\t0\t0\nGroups:\t0 10\nCapEff:\t000000000020000b\n";
        #[rustfmt::skip]
        let table = [
            ("rw",                            Some(without), false),
            ("rw,hidepid=0",                  Some(without), false),
            ("rw,hidepid=off",                Some(without), false),
            ("rw,hidepid=2",                  Some(without), false),
            ("rw,hidepid=invisible",          Some(without), false),
            ("rw,gid=99,hidepid=2",           Some(without), true),
            ("rw,gid=99,hidepid=1",           Some(without), true),
            ("rw,gid=99,hidepid=invisible",   Some(without), true),
            ("rw,gid=10,hidepid=invisible",   Some(without), false),
            ("rw,gid=0,hidepid=2",            Some(without), false),
            ("rw,gid=10,hidepid=ptraceable",  Some(without), true),
            ("rw,gid=99,hidepid=2",           Some(with),    false),
            ("rw,hidepid=ptraceable",         Some(with),    false),
            ("rw,hidepid=2",                  None,          false),
            ("rw,gid=99,hidepid=2",           None,          true),
            ("rw,hidepid=ptraceable",         None,          true),
            ("rw",                            None,          false),
        ];
        for (options, status, warns) in table {
            let found = finding(&mounts(options), status);
            assert_eq!(found.is_some(), warns, "{options} {status:?}");
        }
        let covered = format!(
            "{}25 22 0:21 / /proc rw - proc proc rw\n",
            mounts("rw,gid=99,hidepid=2")
        );
        assert_eq!(finding(&covered, None), None, "another mount covers it");
    }
}
