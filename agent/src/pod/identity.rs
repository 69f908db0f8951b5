//! Who is the same pod: the key of everything that is kept about one, and the UID of a pod that came from a manifest.

use std::fmt;

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Namespace, name and UID: what tells one pod from every other, also from the one that had its name before.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PodKey {
    /// `metadata.namespace`.
    pub(crate) namespace: String,
    /// `metadata.name`.
    pub(crate) name: String,
    /// `metadata.uid`.
    pub(crate) uid: String,
}

impl PodKey {
    /// What is not in the metadata is empty.
    pub(crate) fn of(pod: &Pod) -> PodKey {
        let metadata = &pod.metadata;
        PodKey {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for PodKey {
    /// `namespace/name`, as people write it: the UID says nothing to them.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// What a manifest pod's UID is made of, besides the node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ManifestIdentity<'a> {
    /// The file's name in the manifests folder, without the folder.
    pub(crate) file: &'a str,
    /// `metadata.namespace`, with its default.
    pub(crate) namespace: &'a str,
    /// `metadata.name`.
    pub(crate) name: &'a str,
    /// The pod as the file has it, before defaults.
    pub(crate) document: &'a Value,
}

impl ManifestIdentity<'_> {
    /// The UID of this pod on this node. `incarnation` is 0, and one more each time a pod comes back after its
    /// removal. It is derived, so that the agent, once restarted, knows the pod that it started before.
    ///
    /// Comments, the order of keys and `spec.ephemeralContainers` do not count; anything else makes another pod.
    pub(crate) fn uid(&self, node_name: &str, incarnation: u64) -> String {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            // The length keeps two neighbours from trading bytes unnoticed.
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        part(node_name.as_bytes());
        part(self.file.as_bytes());
        part(self.namespace.as_bytes());
        part(self.name.as_bytes());
        part(canonical(self.document).as_bytes());
        part(&incarnation.to_be_bytes());
        uuid_shaped(&hash.finalize())
    }
}

/// The UID of an object that is not kept but follows from what is known, such as a namespace: the same after a restart.
pub(crate) fn derived_uid(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        // The length keeps two neighbours from trading bytes unnoticed.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    uuid_shaped(&hash.finalize())
}

/// The document as compact JSON with sorted keys and without `spec.ephemeralContainers`.
fn canonical(document: &Value) -> String {
    let mut document = document.clone();
    if let Some(spec) = document.get_mut("spec").and_then(Value::as_object_mut) {
        spec.shift_remove("ephemeralContainers");
    }
    document.sort_all_objects();
    document.to_string()
}

/// The UID of a pod that came over the API: nothing but `random`.
pub(crate) fn random_uid(random: [u8; 16]) -> String {
    uuid(random, 4)
}

/// The first 16 bytes in the form of a UUID of version 8 (RFC 9562: made by the application's own rule).
fn uuid_shaped(hash: &[u8]) -> String {
    let mut bytes = [0_u8; 16];
    for (byte, from) in bytes.iter_mut().zip(hash) {
        *byte = *from;
    }
    uuid(bytes, 8)
}

/// The bytes in the form of a UUID of this version.
fn uuid(mut bytes: [u8; 16], version: u8) -> String {
    bytes[6] = (bytes[6] & 0x0f) | version << 4;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"b": "1", "a": "2"}},
            "spec": {"containers": [{"name": "main", "image": "busybox"}]}
        })
    }

    fn uid(document: &Value, incarnation: u64) -> String {
        let identity = ManifestIdentity {
            file: "web.yaml",
            namespace: "default",
            name: "web",
            document,
        };
        identity.uid("node1", incarnation)
    }

    /// A change here makes every pod of every node a new one on the next upgrade: never change it.
    #[test]
    fn the_uid_of_a_manifest_pod_never_changes() {
        assert_eq!(uid(&document(), 0), "686fd974-4ec3-8c79-95e4-5b0cc1b6307b");
        assert_eq!(uid(&document(), 1), "d3db98a7-aa2d-82ec-8063-242f1feb080b");
    }

    #[test]
    fn the_order_of_keys_does_not_count() {
        let other: Value = serde_json::from_str(
            r#"{"spec": {"containers": [{"image": "busybox", "name": "main"}]}, "kind": "Pod",
                "metadata": {"labels": {"a": "2", "b": "1"}, "name": "web"}, "apiVersion": "v1"}"#,
        )
        .unwrap();
        assert_eq!(uid(&other, 0), uid(&document(), 0));
    }

    #[test]
    fn ephemeral_containers_do_not_count() {
        let mut with = document();
        with["spec"]["ephemeralContainers"] = json!([{"name": "dbg", "image": "busybox"}]);
        assert_eq!(uid(&with, 0), uid(&document(), 0));
    }

    #[test]
    fn everything_else_makes_another_pod() {
        let mut changed = document();
        changed["spec"]["containers"][0]["image"] = json!("other");
        let plain = uid(&document(), 0);
        let document = document();
        let same = ManifestIdentity {
            file: "web.yaml",
            namespace: "default",
            name: "web",
            document: &document,
        };
        for other in [
            uid(&changed, 0),
            uid(&document, 1),
            same.uid("node2", 0),
            ManifestIdentity {
                file: "web2.yaml",
                ..same
            }
            .uid("node1", 0),
            ManifestIdentity {
                namespace: "defaul",
                name: "tweb",
                ..same
            }
            .uid("node1", 0),
        ] {
            assert_ne!(other, plain);
        }
    }

    #[test]
    fn a_uid_has_the_form_of_a_uuid() {
        let uid = uid(&document(), 0);
        let lengths: Vec<usize> = uid.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert!(uid[14..].starts_with('8'), "version 8: {uid}");
        assert_eq!(random_uid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
