//! Where in the cgroup tree a pod's containers live: the kubelet's layout under a root of our own.
//!
//! The root is `debuglet` and not `kubepods`: a kubelet removes the cgroup of every pod below `kubepods` that it
//! does not know, and one may be started on this node at any time.
//!
//! Nobody has to make these groups: with the driver cgroupfs, runc makes the folders on the way to a
//! container's; with systemd, the container's scope pulls in the slices above it. Neither takes them away
//! again, so whoever removes a pod removes its group as well. Limits are set on the containers' own groups only.

use super::resources::QosClass;

/// Who manages the cgroup tree (CRI `RuntimeConfig`, or the configuration's `cgroup_driver`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CgroupDriver {
    /// The runtime makes folders in the cgroup file system. Assumed while the runtime does not say.
    #[default]
    Cgroupfs,
    /// systemd does, as slices and scopes.
    Systemd,
}

/// The top of our part of the tree.
const ROOT: &str = "debuglet";

/// The cgroup of a pod: CRI's `cgroup_parent`, an absolute path below the cgroup mount.
pub(crate) fn cgroup_parent(driver: CgroupDriver, class: QosClass, uid: &str) -> String {
    let pod = format!("pod{uid}");
    // Guaranteed pods have no level for their class, as with a kubelet.
    let mut names = vec![ROOT];
    match class {
        QosClass::Guaranteed => {}
        QosClass::Burstable => names.push("burstable"),
        QosClass::BestEffort => names.push("besteffort"),
    }
    names.push(&pod);
    match driver {
        CgroupDriver::Cgroupfs => format!("/{}", names.join("/")),
        CgroupDriver::Systemd => slices(&names),
    }
}

/// The path of nested systemd slices. A dash in a slice's name means that it lies in another slice, so those
/// in a name become underscores; and each slice is named after all those above it.
fn slices(names: &[&str]) -> String {
    let mut path = String::new();
    let mut slice = String::new();
    for name in names {
        if !slice.is_empty() {
            slice.push('-');
        }
        slice.push_str(&name.replace('-', "_"));
        path.push('/');
        path.push_str(&slice);
        path.push_str(".slice");
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_pods_cgroup_follows_driver_and_qos_class() {
        let uid = "0f1e-22";
        for (driver, class, path) in [
            (
                CgroupDriver::Cgroupfs,
                QosClass::Guaranteed,
                "/debuglet/pod0f1e-22",
            ),
            (
                CgroupDriver::Cgroupfs,
                QosClass::Burstable,
                "/debuglet/burstable/pod0f1e-22",
            ),
            (
                CgroupDriver::Cgroupfs,
                QosClass::BestEffort,
                "/debuglet/besteffort/pod0f1e-22",
            ),
            (
                CgroupDriver::Systemd,
                QosClass::Guaranteed,
                "/debuglet.slice/debuglet-pod0f1e_22.slice",
            ),
            (
                CgroupDriver::Systemd,
                QosClass::Burstable,
                "/debuglet.slice/debuglet-burstable.slice/debuglet-burstable-pod0f1e_22.slice",
            ),
            (
                CgroupDriver::Systemd,
                QosClass::BestEffort,
                "/debuglet.slice/debuglet-besteffort.slice/debuglet-besteffort-pod0f1e_22.slice",
            ),
        ] {
            assert_eq!(cgroup_parent(driver, class, uid), path);
        }
    }
}
