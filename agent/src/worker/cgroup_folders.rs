//! The cgroups of pods that are gone. With the driver `cgroupfs` the runtime makes the pod's group and leaves it
//! behind; systemd takes away a slice that nothing is in.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the hierarchies are: version 2 itself, of version 1 one folder per controller.
const MOUNT: &str = "/sys/fs/cgroup";

/// Removes the pod's group from every hierarchy. Blocks. What cannot be removed, because something still runs in
/// it, stays: an empty group costs nothing but its name.
#[expect(
    clippy::disallowed_methods,
    reason = "cgroups are the kernel's; on a thread that may block"
)]
pub(crate) fn remove(cgroup_parent: &str) {
    let mount = Path::new(MOUNT);
    let hierarchies = if mount.join("cgroup.controllers").exists() {
        vec![mount.to_path_buf()]
    } else {
        folders(mount)
    };
    for hierarchy in hierarchies {
        let group = hierarchy.join(cgroup_parent.trim_start_matches('/'));
        if let Err(error) = remove_tree(&group)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!("the cgroup {} stays: {error}", group.display());
        }
    }
}

/// A group goes only after the groups in it; its files go with it.
#[expect(
    clippy::disallowed_methods,
    reason = "cgroups are the kernel's; on a thread that may block"
)]
fn remove_tree(group: &Path) -> io::Result<()> {
    for child in folders(group) {
        remove_tree(&child)?;
    }
    fs::remove_dir(group)
}

#[expect(
    clippy::disallowed_methods,
    reason = "cgroups are the kernel's; on a thread that may block"
)]
fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_goes_with_the_groups_in_it_and_nothing_beside_it() {
        let root = tempfile::tempdir().expect("folder");
        fs::create_dir_all(root.path().join("pod1/container/inner")).expect("groups");
        fs::create_dir_all(root.path().join("pod2")).expect("group");
        remove_tree(&root.path().join("pod1")).expect("removed");
        assert_eq!(folders(root.path()), [root.path().join("pod2")]);
    }
}
