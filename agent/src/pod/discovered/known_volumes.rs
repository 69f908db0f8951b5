//! Where the volumes of a pod lie whose spec is known: under the names that they have there. Where a container has one
//! mounted, its mount says it; a kubelet names the folder of a claim after something else.

use std::collections::BTreeMap;
use std::path::PathBuf;

use debuglet_proto::v1::Mount;
use k8s_openapi::api::core::v1::{Container, PodSpec, Volume, VolumeMount};

use super::ForeignContainer;

/// The volumes of `spec` by name, each with where it lies on the host, as far as that is known. `containers` are those
/// that the runtime shows of the pod with this UID.
pub(crate) fn known_volumes(
    spec: &PodSpec,
    uid: &str,
    containers: &[ForeignContainer],
) -> BTreeMap<String, PathBuf> {
    let kubelet_folder = kubelet_folder(uid, containers);
    let place = |volume: &Volume| {
        mounted(&volume.name, spec, containers)
            .or_else(|| Some(PathBuf::from(&volume.host_path.as_ref()?.path)))
            .or_else(|| Some(PathBuf::from(kubelet_folder?).join(plugin_folder(volume)?)))
    };
    let volumes = spec.volumes.iter().flatten();
    volumes
        .filter_map(|volume| Some((volume.name.clone(), place(volume)?)))
        .collect()
}

/// Where a container has the whole of the volume from.
fn mounted(name: &str, spec: &PodSpec, containers: &[ForeignContainer]) -> Option<PathBuf> {
    let asked_for = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    let wholes = asked_for.flat_map(|container: &Container| {
        let mounts = container.volume_mounts.iter().flatten();
        let is_whole = |mount: &&VolumeMount| {
            let below = mount.sub_path.as_ref().or(mount.sub_path_expr.as_ref());
            mount.name == name && below.is_none_or(String::is_empty)
        };
        mounts
            .filter(is_whole)
            .map(|mount| (&container.name, &mount.mount_path))
    });
    wholes
        .filter_map(|(container, path)| {
            let of_name = containers.iter().filter(|one| one.observed.name == *container);
            let newest = of_name.max_by_key(|one| (one.observed.attempt, one.observed.created_at))?;
            let is_there = |mount: &&Mount| trimmed(&mount.container_path) == trimmed(path);
            let mount = newest.mounts.iter().find(is_there)?;
            Some(PathBuf::from(&mount.host_path))
        })
        .next()
}

fn trimmed(path: &str) -> &str {
    path.trim_end_matches('/')
}

/// The folder that the pod's kubelet keeps for it, `ROOT/pods/UID`, seen from any of its mounts.
fn kubelet_folder<'a>(uid: &str, containers: &'a [ForeignContainer]) -> Option<&'a str> {
    let folder = format!("/pods/{uid}/");
    let mut mounts = containers.iter().flat_map(|container| &container.mounts);
    mounts.find_map(|mount| {
        let at = mount.host_path.find(&folder)?;
        mount.host_path.get(..at + folder.len())
    })
}

/// Where below that a kubelet lays a volume of a kind that is named as in the spec, mounted or not.
fn plugin_folder(volume: &Volume) -> Option<PathBuf> {
    let plugins = [
        (volume.empty_dir.is_some(), "empty-dir"),
        (volume.config_map.is_some(), "configmap"),
        (volume.secret.is_some(), "secret"),
        (volume.projected.is_some(), "projected"),
        (volume.downward_api.is_some(), "downward-api"),
    ];
    let (_, plugin) = plugins.into_iter().find(|(is_of_kind, _)| *is_of_kind)?;
    Some(PathBuf::from(format!(
        "volumes/kubernetes.io~{plugin}/{}",
        volume.name
    )))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::recorded_containers;
    use super::*;

    fn mount(host: &str, container: &str) -> Mount {
        Mount {
            host_path: host.to_owned(),
            container_path: container.to_owned(),
            ..Mount::default()
        }
    }

    #[test]
    fn a_volume_lies_where_a_container_has_it_from_or_where_its_kind_always_lies() {
        let spec = json!({
            "volumes": [
                {"name": "claim", "persistentVolumeClaim": {"claimName": "c"}},
                {"name": "unmounted-claim", "persistentVolumeClaim": {"claimName": "d"}},
                {"name": "tools", "hostPath": {"path": "/usr/share"}},
                {"name": "scratch", "emptyDir": {}},
                {"name": "settings", "configMap": {"name": "s"}},
                {"name": "password", "secret": {"secretName": "p"}},
                {"name": "part", "emptyDir": {}},
            ],
            "containers": [{"name": "main", "volumeMounts": [
                {"name": "claim", "mountPath": "/data/"},
                {"name": "part", "mountPath": "/part", "subPath": "a"},
                {"name": "password", "mountPath": "/password"},
            ]}],
        });
        let spec: PodSpec = serde_json::from_value(spec).expect("a spec");
        let mut container = recorded_containers().remove(0);
        container.observed.name = "main".to_owned();
        let pod = "/var/lib/kubelet/pods/u1";
        container.mounts = vec![
            mount(&format!("{pod}/volumes/kubernetes.io~csi/pvc-7/mount"), "/data"),
            mount(&format!("{pod}/volume-subpaths/part/main/1"), "/part"),
            mount("/elsewhere/password", "/password"),
        ];
        let at = |below: &str| PathBuf::from(format!("{pod}/volumes/kubernetes.io~{below}"));
        let expected = [
            ("claim", at("csi/pvc-7/mount")),
            ("part", at("empty-dir/part")),
            ("password", PathBuf::from("/elsewhere/password")),
            ("scratch", at("empty-dir/scratch")),
            ("settings", at("configmap/settings")),
            ("tools", PathBuf::from("/usr/share")),
        ];
        let expected = expected.map(|(name, path)| (name.to_owned(), path));
        assert_eq!(known_volumes(&spec, "u1", &[container]), BTreeMap::from(expected));
    }

    #[test]
    fn without_a_kubelets_folder_only_paths_of_the_host_are_known() {
        let spec = json!({
            "containers": [],
            "volumes": [{"name": "scratch", "emptyDir": {}}, {"name": "tools", "hostPath": {"path": "/usr"}}],
        });
        let spec: PodSpec = serde_json::from_value(spec).expect("a spec");
        let expected = BTreeMap::from([("tools".to_owned(), PathBuf::from("/usr"))]);
        assert_eq!(known_volumes(&spec, "u1", &[]), expected);
    }
}
