//! The volumes of a pod that somebody else runs, from the mounts of its containers. A kubelet lays a volume in a folder
//! of its name; what lies elsewhere on the host gets a name that no spec of Kubernetes' would have.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use debuglet_proto::v1::Mount;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource, Volume};

/// What the names begin with that are made up: of a path on the host whose volume's name is not known.
pub(crate) const MADE_UP: &str = "unnamed-";
/// The folder of the plugin whose volumes lie in `NAME/mount`.
const CSI: &str = "kubernetes.io~csi";
/// The folders of the plugins whose volumes a kubelet fills itself.
const FILLED_BY_KUBELET: [&str; 4] = [
    "kubernetes.io~configmap",
    "kubernetes.io~downward-api",
    "kubernetes.io~projected",
    "kubernetes.io~secret",
];
/// Which part of a volume is mounted (`subPath`), where only the kubelet knows.
const UNKNOWN_PART: &str = "?";

/// The volumes by name, each with where it lies on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountedVolumes(BTreeMap<String, MountedVolume>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct MountedVolume {
    /// Empty where only parts of it are mounted.
    path: PathBuf,
    /// The folder's name of the kubelet's plugin: `kubernetes.io~empty-dir`; empty where only parts of it are mounted.
    plugin: Option<String>,
}

/// What a path on the host is to the pod.
pub(crate) enum Place<'a> {
    /// A volume, and what below it.
    Volume {
        /// The folder's name of the kubelet's plugin.
        plugin: &'a str,
        /// The volume's name, or that of the persistent volume behind it.
        name: &'a str,
        /// The path in the volume.
        below: Option<String>,
    },
    /// A part of a volume (`subPath`), which the kubelet mounts once more, elsewhere.
    Part {
        /// The volume's name.
        name: &'a str,
    },
    /// One of the files that every container gets.
    OwnFile,
    /// Anything else.
    Host,
}

impl MountedVolumes {
    /// The volumes of the pod with this UID that these mounts show.
    pub(crate) fn of<'a>(uid: &str, mounts: impl Iterator<Item = &'a Mount>) -> MountedVolumes {
        let mut volumes = BTreeMap::new();
        let mut unnamed = 0;
        for mount in mounts {
            match place(uid, &mount.host_path) {
                Place::Volume { plugin, name, below } => {
                    let mut path = PathBuf::from(&mount.host_path);
                    for _ in Path::new(below.as_deref().unwrap_or_default()).components() {
                        path.pop();
                    }
                    let plugin = Some(plugin.to_owned());
                    volumes.insert(name.to_owned(), MountedVolume { path, plugin });
                }
                Place::Part { name } => {
                    let unlocated = MountedVolume {
                        path: PathBuf::new(),
                        plugin: Some(String::new()),
                    };
                    volumes.entry(name.to_owned()).or_insert(unlocated);
                }
                Place::OwnFile => {}
                Place::Host => {
                    let path = PathBuf::from(&mount.host_path);
                    if volumes.values().all(|volume: &MountedVolume| volume.path != path) {
                        volumes.insert(
                            format!("{MADE_UP}{unnamed}"),
                            MountedVolume { path, plugin: None },
                        );
                        unnamed += 1;
                    }
                }
            }
        }
        MountedVolumes(volumes)
    }

    /// Where each lies on the host, as far as it is known.
    pub(crate) fn paths(&self) -> BTreeMap<String, PathBuf> {
        self.located()
            .map(|(name, volume)| (name.clone(), volume.path.clone()))
            .collect()
    }

    fn located(&self) -> impl Iterator<Item = (&String, &MountedVolume)> {
        self.0
            .iter()
            .filter(|(_, volume)| !volume.path.as_os_str().is_empty())
    }

    /// The volume of a mount, and what below it is mounted; none for the files that every container gets. `uid` is the
    /// pod's.
    pub(crate) fn name_of(&self, uid: &str, mount: &Mount) -> Option<(&str, Option<String>)> {
        if let Place::Part { name } = place(uid, &mount.host_path) {
            let (name, _) = self.0.get_key_value(name)?;
            return Some((name, Some(UNKNOWN_PART.to_owned())));
        }
        let path = Path::new(&mount.host_path);
        let (name, volume) = self
            .located()
            .filter(|(_, volume)| path.starts_with(&volume.path))
            .max_by_key(|(_, volume)| volume.path.components().count())?;
        let below = path
            .strip_prefix(&volume.path)
            .ok()?
            .to_string_lossy()
            .into_owned();
        Some((name, Some(below).filter(|below| !below.is_empty())))
    }

    /// As `spec.volumes`. Of what a kubelet filled itself only the name is known.
    pub(crate) fn in_spec(&self) -> Vec<Volume> {
        let volume = |(name, volume): (&String, &MountedVolume)| Volume {
            name: name.clone(),
            empty_dir: volume
                .plugin
                .as_ref()
                .is_some_and(|plugin| plugin == "kubernetes.io~empty-dir")
                .then(EmptyDirVolumeSource::default),
            host_path: volume.plugin.is_none().then(|| HostPathVolumeSource {
                path: volume.path.display().to_string(),
                type_: None,
            }),
            ..Volume::default()
        };
        self.0.iter().map(volume).collect()
    }
}

/// Whether a kubelet has filled this path itself, from what the API server or the pod says: no container may write there,
/// whatever its mount says.
pub(crate) fn is_filled_by_kubelet(uid: &str, path: &str) -> bool {
    matches!(place(uid, path), Place::Volume { plugin, .. } if FILLED_BY_KUBELET.contains(&plugin))
}

/// The root folder of the kubelet that runs the pod with this UID, from what it mounts for a container.
pub(crate) fn kubelet_root<'a>(uid: &str, mounts: impl Iterator<Item = &'a Mount>) -> Option<PathBuf> {
    let of_kubelet = |mount: &&Mount| !matches!(place(uid, &mount.host_path), Place::Host);
    let mut mounts = mounts.filter(of_kubelet);
    let (root, _) = mounts.next()?.host_path.split_once(&format!("/pods/{uid}/"))?;
    Some(PathBuf::from(root))
}

/// Where a kubelet keeps what it gives to the containers of a pod: `ROOT/pods/UID/...`, whatever its root folder, and
/// debuglet for pods of its own.
pub(crate) fn place<'a>(uid: &str, path: &'a str) -> Place<'a> {
    let folder = format!("/pods/{uid}/");
    let Some((_, below)) = path.split_once(&folder) else {
        return Place::Host;
    };
    let parts: Vec<&str> = below.split('/').collect();
    match parts[..] {
        // The kubelet keeps notes beside what the driver has mounted.
        ["volumes", plugin @ CSI, name, "mount", ref rest @ ..]
        | ["volumes", plugin, name, ref rest @ ..] => Place::Volume {
            plugin,
            name,
            below: Some(rest.join("/")).filter(|rest| !rest.is_empty()),
        },
        ["volume-subpaths", name, ..] => Place::Part { name },
        ["etc-hosts"] | ["containers", ..] => Place::OwnFile,
        _ => Place::Host,
    }
}
