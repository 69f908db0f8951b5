//! What the node itself gives: rights, folders, room on the disk, and credentials.

use std::path::Path;

use nix::errno::Errno;
use nix::sys::statvfs::{Statvfs, statvfs};
use nix::unistd::{AccessFlags, access, geteuid};

use super::Finding;
use crate::config::Config;
use crate::runtime::registry_auth::RegistryAuth;

/// What may be left of a disk, in percent, before it is worth a word, and before nothing can be accepted any more.
const LOW_PERCENT: u64 = 10;
const EMPTY_PERCENT: u64 = 2;

/// The capabilities that the agent needs, by name and bit (capabilities(7)): to write what belongs to others, to give
/// volumes to a pod's group, and to mount memory.
const CAPABILITIES: [(&str, u32); 5] = [
    ("CAP_CHOWN", 0),
    ("CAP_DAC_OVERRIDE", 1),
    ("CAP_FOWNER", 3),
    ("CAP_FSETID", 4),
    ("CAP_SYS_ADMIN", 21),
];

/// Whether this process has the rights that the agent needs.
#[expect(
    clippy::disallowed_methods,
    reason = "a command reads what its user may read, and holds up nobody else"
)]
pub(super) fn permissions() -> Finding {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    permission_finding(geteuid().is_root(), &status)
}

fn permission_finding(is_root: bool, status: &str) -> Finding {
    if !is_root {
        return Finding::fail(
            "rights",
            "not root: the runtime's socket and the pods' folders are root's (sudo)",
        );
    }
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    let missing = CAPABILITIES.iter().filter(|(_, bit)| effective & (1 << bit) == 0);
    let missing: Vec<&str> = missing.map(|(name, _)| *name).collect();
    match missing.is_empty() {
        true => Finding::ok("rights", "root, with the capabilities to mount and to own"),
        false => Finding::fail("rights", format!("root, but without {}", missing.join(", "))),
    }
}

/// Whether the folders are there, or can be made, and can be written to.
#[expect(
    clippy::disallowed_methods,
    reason = "a command reads what its user may read, and holds up nobody else"
)]
pub(super) fn folders(config: &Config) -> Vec<Finding> {
    let writable = |topic, path: &Path| match access(existing(path), AccessFlags::W_OK | AccessFlags::X_OK) {
        Err(error) => Finding::fail(
            topic,
            format!("{} is not writable: {}", path.display(), error.desc()),
        ),
        Ok(()) if path.is_dir() => Finding::ok(topic, path.display().to_string()),
        Ok(()) if path.exists() => Finding::fail(topic, format!("{} is not a folder", path.display())),
        Ok(()) => Finding::ok(topic, format!("{} will be made", path.display())),
    };
    vec![
        writable("state", &config.state_dir),
        writable("run", &config.run_dir),
        writable("logs", &config.log_dir),
        manifests(&config.manifests.path),
    ]
}

/// The folder of manifests is only read, and may appear later.
#[expect(
    clippy::disallowed_methods,
    reason = "a command reads what its user may read, and holds up nobody else"
)]
fn manifests(path: &Path) -> Finding {
    match std::fs::read_dir(path) {
        Ok(_) => Finding::ok("manifests", path.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Finding::ok("manifests", format!("{} is not there yet", path.display()))
        }
        Err(error) => Finding::fail("manifests", format!("{} cannot be read: {error}", path.display())),
    }
}

/// How much room is left for the state and for the logs; one line where they share a disk.
#[expect(
    clippy::disallowed_methods,
    reason = "a command reads what its user may read, and holds up nobody else"
)]
pub(super) fn disks(config: &Config) -> Vec<Finding> {
    let mut seen = Vec::new();
    let mut findings = Vec::new();
    for path in [&config.state_dir, &config.log_dir] {
        match statvfs(existing(path)) {
            Ok(disk) if seen.contains(&disk.filesystem_id()) => {}
            Ok(disk) => {
                seen.push(disk.filesystem_id());
                findings.push(disk_finding(path, &Room::of(&disk)));
            }
            Err(error) => findings.push(Finding::fail("disk", unknown_disk(path, error))),
        }
    }
    findings
}

fn unknown_disk(path: &Path, error: Errno) -> String {
    format!("cannot look at the disk of {}: {}", path.display(), error.desc())
}

/// What is left of a disk for somebody who is not root, in percent.
struct Room {
    bytes: u64,
    /// Of the files that the file system can hold; file systems without a limit say 0 of 0.
    files: Option<u64>,
}

impl Room {
    fn of(disk: &Statvfs) -> Room {
        let percent = |left: u64, all: u64| (left * 100).checked_div(all);
        Room {
            bytes: percent(disk.blocks_available(), disk.blocks()).unwrap_or(100),
            files: percent(disk.files_available(), disk.files()),
        }
    }
}

fn disk_finding(path: &Path, room: &Room) -> Finding {
    let path = path.display();
    let (percent, message) = match room.files {
        Some(files) if files < room.bytes && files < LOW_PERCENT => {
            (files, format!("{path} has {files} % of its inodes left"))
        }
        _ => (room.bytes, format!("{path} has {} % left", room.bytes)),
    };
    match percent {
        0..EMPTY_PERCENT => Finding::fail("disk", message),
        EMPTY_PERCENT..LOW_PERCENT => Finding::warn("disk", message),
        _ => Finding::ok("disk", message),
    }
}

/// Whether the credentials for registries can be used.
#[expect(
    clippy::disallowed_methods,
    reason = "a command reads what its user may read, and holds up nobody else"
)]
pub(super) async fn registry(config: &Config) -> Vec<Finding> {
    let path = &config.registry.auth_file;
    let problems = RegistryAuth::read(path).await.problems;
    if problems.is_empty() {
        let message = match path.exists() {
            true => format!("credentials from {}", path.display()),
            false => format!("no credentials: {} is not there", path.display()),
        };
        return vec![Finding::ok("registry", message)];
    }
    let warn = |problem: &_| Finding::warn("registry", format!("{problem}"));
    problems.iter().map(warn).collect()
}

/// The path, or the nearest folder above it that exists.
#[expect(
    clippy::disallowed_methods,
    reason = "a command reads what its user may read, and holds up nobody else"
)]
fn existing(path: &Path) -> &Path {
    path.ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn root_needs_its_capabilities() {
        let all = "Name:\ta\nCapEff:\t000001ffffffffff\n";
        assert_eq!(permission_finding(true, all).level, Level::Ok);
        let without_mounts = permission_finding(true, "CapEff:\t000001ffffdfffff\n");
        assert_eq!(without_mounts.level, Level::Fail);
        assert_eq!(without_mounts.message, "root, but without CAP_SYS_ADMIN");
        assert_eq!(permission_finding(false, all).level, Level::Fail);
    }

    #[test]
    fn a_disk_is_worth_a_word_under_ten_percent_and_a_failure_under_two() {
        let path = Path::new("/var/lib/debuglet");
        for (bytes, files, level, message) in [
            (40, Some(90), Level::Ok, "/var/lib/debuglet has 40 % left"),
            (10, None, Level::Ok, "/var/lib/debuglet has 10 % left"),
            (3, Some(90), Level::Warn, "/var/lib/debuglet has 3 % left"),
            (1, Some(90), Level::Fail, "/var/lib/debuglet has 1 % left"),
            (
                40,
                Some(0),
                Level::Fail,
                "/var/lib/debuglet has 0 % of its inodes left",
            ),
        ] {
            let finding = disk_finding(path, &Room { bytes, files });
            assert_eq!((finding.level, finding.message.as_str()), (level, message));
        }
    }

    #[test]
    fn a_folder_that_is_missing_will_be_made_and_a_file_in_its_place_is_a_failure() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        std::fs::write(&file, "").expect("a file");
        let mut config = Config::load(None).expect("defaults");
        config.state_dir = folder.path().join("a/b");
        config.run_dir = folder.path().to_path_buf();
        config.log_dir = file;
        config.manifests.path = folder.path().join("later");
        let levels: Vec<Level> = folders(&config).iter().map(|finding| finding.level).collect();
        assert_eq!(levels, [Level::Ok, Level::Ok, Level::Fail, Level::Ok]);
        let messages: Vec<String> = folders(&config)
            .into_iter()
            .map(|finding| finding.message)
            .collect();
        assert!(messages[0].ends_with("a/b will be made"), "{messages:?}");
        assert!(messages[3].ends_with("later is not there yet"), "{messages:?}");
    }

    #[tokio::test]
    async fn credentials_that_cannot_be_used_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = Config::load(None).expect("defaults");
        config.registry.auth_file = folder.path().join("auth.json");
        assert_eq!(registry(&config).await[0].level, Level::Ok, "there need be none");
        std::fs::write(&config.registry.auth_file, "{").expect("a file");
        let findings = registry(&config).await;
        assert!(
            findings.iter().all(|finding| finding.level == Level::Warn),
            "{findings:?}"
        );
        assert!(findings[0].message.contains("auth.json"), "{findings:?}");
    }
}
