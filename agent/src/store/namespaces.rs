//! The namespaces of this node: those in which there is a pod, and `default`. Nobody creates or removes one.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, NamespaceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::changes::{Change, ChangeKind, History};
use crate::pod::identity::derived_uid;

/// The namespace that there always is.
const DEFAULT: &str = "default";

/// Kubernetes' own label, by which clients select a namespace by name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The namespaces by name.
#[derive(Debug)]
pub(crate) struct Namespaces {
    node_name: String,
    namespaces: BTreeMap<String, Arc<Namespace>>,
}

impl Namespaces {
    /// Of a node without pods: `default`, since `now`.
    pub(crate) fn new(node_name: &str, now: Time, history: &mut History) -> Namespaces {
        let mut namespaces = Namespaces {
            node_name: node_name.to_owned(),
            namespaces: BTreeMap::new(),
        };
        namespaces.open(DEFAULT, now, history);
        namespaces
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Namespace>> {
        self.namespaces.values().cloned().collect()
    }

    /// There is a pod in this namespace since `created`.
    pub(crate) fn open(&mut self, name: &str, created: Time, history: &mut History) {
        if self.namespaces.contains_key(name) {
            return;
        }
        let version = history.next_version();
        let namespace = Arc::new(Namespace {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                uid: Some(derived_uid(&["namespace", &self.node_name, name])),
                labels: Some([(NAME_LABEL.to_owned(), name.to_owned())].into()),
                creation_timestamp: Some(created),
                resource_version: Some(version.to_string()),
                ..ObjectMeta::default()
            },
            status: Some(NamespaceStatus {
                phase: Some("Active".to_owned()),
                ..NamespaceStatus::default()
            }),
            ..Namespace::default()
        });
        let change = Change::new(version, ChangeKind::Added, None, Arc::clone(&namespace));
        history.namespaces.push(change);
        self.namespaces.insert(name.to_owned(), namespace);
    }

    /// The last pod of this namespace is gone.
    pub(crate) fn close(&mut self, name: &str, history: &mut History) {
        if name == DEFAULT {
            return;
        }
        let Some(namespace) = self.namespaces.remove(name) else {
            return;
        };
        let version = history.next_version();
        let mut last = Namespace::clone(&namespace);
        last.metadata.resource_version = Some(version.to_string());
        let change = Change::new(version, ChangeKind::Deleted, Some(namespace), Arc::new(last));
        history.namespaces.push(change);
    }
}
