//! The manifests of the kubelet's static pods, read only: where no API server tells, they tell what the runtime does not.
//! They are read when a static pod is found or has changed, and at no other time.

use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::manifest_file;
use crate::kubernetes::kubelet_signs::processes_named_kubelet;
use crate::pod::decode;
use crate::pod::discovered::static_manifest::{StaticManifest, as_the_kubelet_reads, describes};
use crate::untrusted_file::{Folder, NoAnswer, VOLUMES, metadata, read_range, regular_file};

/// Where kubeadm, k3s and RKE2 have them.
const USUAL_FOLDERS: [&str; 3] = [
    "/etc/kubernetes/manifests",
    "/var/lib/rancher/k3s/agent/pod-manifests",
    "/var/lib/rancher/rke2/agent/pod-manifests",
];
/// Where kubeadm has the kubelet's configuration, also while no kubelet runs.
const USUAL_CONFIGURATION: &str = "/var/lib/kubelet/config.yaml";
/// How many files of one folder are read: a node has a handful.
const MAX_FILES: usize = 100;
/// How much of a command line is read, in bytes.
const MAX_COMMAND_LINE: usize = 128 * 1024;

/// The folders of a node's static pods.
#[derive(Clone, Debug)]
pub(crate) struct StaticManifests {
    /// The folder that the configuration names (`discovery.static_manifests`); without it, it is looked for.
    configured: Option<PathBuf>,
}

impl StaticManifests {
    /// Those in this folder, or else where a kubelet has them.
    pub(crate) fn new(configured: Option<PathBuf>) -> StaticManifests {
        StaticManifests { configured }
    }

    /// The manifest of a static pod that was found in the runtime of the node `node_name`.
    pub(super) async fn of(&self, found: &Pod, node_name: &str) -> Option<StaticManifest> {
        // Whoever configured the kubelet has named these paths: a file system that does not answer must not end the look at
        // all pods.
        let (named, proc) = (self.clone(), Path::new("/proc"));
        let folders = VOLUMES.run(proc, move || named.folders(proc)).await;
        for folder in folders.unwrap_or_else(|error| unread(&error)) {
            let (looked_in, found, node_name) = (folder.clone(), found.clone(), node_name.to_owned());
            let manifest = VOLUMES
                .run(&folder, move || find(&looked_in, &found, &node_name))
                .await;
            if let Some(manifest) = manifest.unwrap_or_else(|error| unread(&error)) {
                return Some(manifest);
            }
        }
        None
    }

    /// The folders to look in, the likeliest first.
    fn folders(&self, proc: &Path) -> Vec<PathBuf> {
        if let Some(folder) = &self.configured {
            return vec![folder.clone()];
        }
        let commands = processes_named_kubelet(proc)
            .into_iter()
            .filter_map(|id| command_line(&proc.join(id.to_string()).join("cmdline")).ok());
        let mut folders: Vec<PathBuf> = commands.flat_map(|command| named_by(&command)).collect();
        folders.extend(configured_in(Path::new(USUAL_CONFIGURATION)));
        folders.extend(USUAL_FOLDERS.map(PathBuf::from));
        folders.dedup();
        folders
    }
}

/// What is known of folders that do not answer: nothing.
fn unread<T: Default>(error: &NoAnswer) -> T {
    tracing::warn!("the kubelet's static manifests cannot be read: {error}");
    T::default()
}

/// A process's command line (`/proc/PID/cmdline`), which the process may have changed.
fn command_line(file: &Path) -> io::Result<Vec<u8>> {
    read_range(&regular_file(file)?, 0, MAX_COMMAND_LINE)
}

/// The folders that a kubelet's command line names (`/proc/PID/cmdline`), itself or in its configuration file.
fn named_by(command: &[u8]) -> Vec<PathBuf> {
    let words: Vec<String> = command
        .split(|byte| *byte == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    let value = |flag: &str| {
        words.iter().enumerate().find_map(|(index, word)| {
            let name = word.strip_prefix("--")?;
            match name.split_once('=') {
                Some((name, value)) if name == flag => Some(PathBuf::from(value)),
                None if name == flag => words.get(index + 1).map(PathBuf::from),
                _ => None,
            }
        })
    };
    let configuration = value("config");
    let configured = configuration.and_then(|file| configured_in(&file));
    value("pod-manifest-path").into_iter().chain(configured).collect()
}

/// `staticPodPath` of a `KubeletConfiguration`.
fn configured_in(file: &Path) -> Option<PathBuf> {
    let documents = manifest_file::documents(file).ok()?;
    let path = documents
        .iter()
        .find_map(|document| document.get("staticPodPath")?.as_str());
    path.filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The manifest in a folder that describes the pod. As a kubelet, it looks at all files but hidden ones; `folder` may be
/// a single file, too. What cannot be read describes nothing.
fn find(folder: &Path, found: &Pod, node_name: &str) -> Option<StaticManifest> {
    let listed = Folder::open(folder).and_then(|folder| folder.names());
    let mut files: Vec<PathBuf> = match listed {
        Ok(names) => names.into_iter().map(|name| folder.join(name)).collect(),
        Err(_) => vec![folder.to_path_buf()],
    };
    files.sort();
    let is_hidden = |file: &Path| {
        let name = file.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with('.')
    };
    let files = files
        .into_iter()
        .filter(|file| !is_hidden(file) && metadata(file).is_ok_and(|found| found.is_file()));
    let manifests = files.take(MAX_FILES).flat_map(|file| {
        let documents = manifest_file::documents(&file).unwrap_or_default();
        documents
            .into_iter()
            .filter_map(pod_of)
            .map(move |pod| StaticManifest {
                pod: as_the_kubelet_reads(pod, node_name),
                file: file.clone(),
            })
    });
    manifests
        .into_iter()
        .find(|manifest| describes(&manifest.pod, found))
}

/// The pod in a document, if it is one. Unlike our own manifests it may have fields that are not known here.
fn pod_of(mut document: Value) -> Option<Pod> {
    if document.get("kind").and_then(Value::as_str) != Some("Pod") {
        return None;
    }
    decode::quantities_as_text(&mut document);
    let (pod, _unknown) = decode::decode::<Pod>(document).ok()?;
    Some(pod)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;
    use crate::untrusted_file::dead_server::DeadServer;

    const MANIFEST: &str = "
apiVersion: v1
kind: Pod
metadata: {name: etcd, namespace: kube-system, uid: fixed}
spec:
  containers:
  - {name: etcd, image: 'etcd:3', ports: [{containerPort: 2379}], ofTomorrow: true}
";

    fn found(image: &str) -> Pod {
        let pod = json!({
            "metadata": {"name": "etcd-node1", "namespace": "kube-system", "uid": "h1"},
            "spec": {"containers": [{"name": "etcd", "image": image}]},
        });
        serde_json::from_value(pod).expect("a pod")
    }

    #[tokio::test]
    async fn the_manifest_of_a_static_pod_is_found_among_other_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
        write("a.yaml", "kind: Pod\n\tnot: yaml");
        write(".b.yaml", &MANIFEST.replace("2379", "1"));
        write("c.yaml", "apiVersion: v1\nkind: Service");
        write("etcd.yaml", MANIFEST);
        let manifests = StaticManifests::new(Some(folder.path().to_path_buf()));
        let manifest = manifests
            .of(&found("etcd:3"), "node1")
            .await
            .expect("its manifest");
        assert_eq!(manifest.file, folder.path().join("etcd.yaml"));
        let container = &manifest.pod.spec.expect("a spec").containers[0];
        let ports = container.ports.as_ref().expect("ports");
        assert_eq!(ports[0].container_port, 2379);
        let newer = manifests.of(&found("etcd:4"), "node1").await;
        assert_eq!(newer, None, "it describes another pod");
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_whose_server_is_dead_is_a_folder_without_manifests() {
        let server = DeadServer::mount();
        let manifests = StaticManifests::new(Some(server.folder().join("manifests")));
        assert_eq!(manifests.of(&found("etcd:3"), "node1").await, None);
    }

    #[test]
    fn a_kubelets_command_line_names_the_folder_itself_or_in_its_configuration() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("config.yaml");
        let text = "kind: KubeletConfiguration\nstaticPodPath: /srv/static\n";
        fs::write(&file, text).expect("written");
        let config = format!("--config={}", file.display());
        let apart = format!("--config\0{}", file.display());
        for (words, expected) in [
            (format!("kubelet\0{config}\0--v=2\0"), vec!["/srv/static"]),
            (format!("kubelet\0{apart}\0"), vec!["/srv/static"]),
            (
                format!("kubelet\0--pod-manifest-path=/a\0{config}\0"),
                vec!["/a", "/srv/static"],
            ),
            ("kubelet\0--config=/nonexistent\0".to_owned(), vec![]),
            ("kubelet\0--configuration=x\0".to_owned(), vec![]),
        ] {
            let expected: Vec<PathBuf> = expected.into_iter().map(PathBuf::from).collect();
            assert_eq!(named_by(words.as_bytes()), expected, "{words:?}");
        }
    }
}
