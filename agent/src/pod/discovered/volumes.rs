//! The volumes of a pod that somebody else runs, from the mounts of its containers. A kubelet lays a volume in a folder
//! of its name; what lies elsewhere on the host gets a name that no spec of Kubernetes' would have.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use debuglet_proto::v1::Mount;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource, Volume};

/// What the names begin with that are made up: of a path on the host whose volume's name is not known.
pub(crate) const MADE_UP: &str = "unnamed-";

/// The volumes by name, each with where it lies on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountedVolumes(BTreeMap<String, MountedVolume>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct MountedVolume {
    path: PathBuf,
    /// The folder's name of the kubelet's plugin: `kubernetes.io~empty-dir`.
    plugin: Option<String>,
}

/// What a path on the host is to the pod.
enum Place<'a> {
    /// A volume, and what below it.
    Volume {
        plugin: &'a str,
        name: &'a str,
        below: Option<String>,
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

    /// Where each lies on the host.
    pub(crate) fn paths(&self) -> BTreeMap<String, PathBuf> {
        self.0
            .iter()
            .map(|(name, volume)| (name.clone(), volume.path.clone()))
            .collect()
    }

    /// The volume of a mount, and what below it is mounted; none for the files that every container gets.
    pub(crate) fn name_of(&self, mount: &Mount) -> Option<(&str, Option<String>)> {
        let path = Path::new(&mount.host_path);
        let (name, volume) = self
            .0
            .iter()
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

/// Where a kubelet keeps what it gives to the containers of a pod: `ROOT/pods/UID/...`, whatever its root folder.
fn place<'a>(uid: &str, path: &'a str) -> Place<'a> {
    let folder = format!("/pods/{uid}/");
    let Some((_, below)) = path.split_once(&folder) else {
        return Place::Host;
    };
    let parts: Vec<&str> = below.split('/').collect();
    match parts[..] {
        ["volumes", plugin, name, ref rest @ ..] => Place::Volume {
            plugin,
            name,
            below: Some(rest.join("/")).filter(|rest| !rest.is_empty()),
        },
        ["etc-hosts"] | ["containers", ..] => Place::OwnFile,
        _ => Place::Host,
    }
}
