//! The namespaces of this node: those in which there is a pod, and `default`. Nobody creates or removes one.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, NamespaceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::changes::{Change, ChangeKind, History};
use super::views::Views;
use crate::pod::identity::derived_uid;
use crate::pod::visibility::Audience;

/// The namespace that there always is.
const DEFAULT: &str = "default";

/// Kubernetes' own label, by which clients select a namespace by name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Since when there is a pod in a namespace; none where there is no such pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Since {
    /// Any pod.
    pub(crate) any: Option<Time>,
    /// A pod that users of the cluster see.
    pub(crate) visible: Option<Time>,
}

/// The namespaces by name.
#[derive(Debug)]
pub(crate) struct Namespaces {
    node_name: String,
    namespaces: BTreeMap<String, Views<Namespace>>,
}

impl Namespaces {
    /// Of a node without pods: `default`, since `now`.
    pub(crate) fn new(node_name: &str, now: Time, history: &mut History) -> Namespaces {
        let mut namespaces = Namespaces {
            node_name: node_name.to_owned(),
            namespaces: BTreeMap::new(),
        };
        let since = Since {
            any: Some(now.clone()),
            visible: Some(now),
        };
        namespaces.set(DEFAULT, since, history);
        namespaces
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Views<Namespace>> {
        self.namespaces.values().cloned().collect()
    }

    /// Whether `audience` sees this namespace.
    pub(crate) fn shows(&self, audience: Audience, name: &str) -> bool {
        let views = self.namespaces.get(name);
        views.is_some_and(|views| views.of(audience).is_some())
    }

    /// Makes a namespace what its pods come to: each audience sees it while there is a pod in it that it sees, with the age
    /// that it had at first. `default` is always there.
    pub(crate) fn set(&mut self, name: &str, since: Since, history: &mut History) {
        let before = self.namespaces.get(name).cloned();
        if name == DEFAULT && before.is_some() {
            return;
        }
        let shown = |audience| before.as_ref().and_then(|views| views.of(audience));
        let (any, visible) = (shown(Audience::Node), shown(Audience::Cluster));
        if (any.is_some(), visible.is_some()) == (since.any.is_some(), since.visible.is_some()) {
            return;
        }
        let version = history.next_version();
        let view = |shown: Option<&Arc<Namespace>>, since: Option<Time>| {
            since.map(|since| match shown {
                Some(shown) => Arc::clone(shown),
                None => Arc::new(self.namespace(name, since, version)),
            })
        };
        let visible = view(visible, since.visible);
        let (kind, object) = match (view(any, since.any), &before) {
            (Some(any), None) => (ChangeKind::Added, Views::different(any, visible)),
            (Some(any), Some(_)) => (ChangeKind::Modified, Views::different(any, visible)),
            (None, before) => {
                let last = |audience| {
                    let views = before.as_ref()?;
                    let mut last = Namespace::clone(views.of(audience)?);
                    last.metadata.resource_version = Some(version.to_string());
                    Some(Arc::new(last))
                };
                let whole = last(Audience::Node).unwrap_or_default();
                (
                    ChangeKind::Deleted,
                    Views::different(whole, last(Audience::Cluster)),
                )
            }
        };
        if kind == ChangeKind::Deleted {
            self.namespaces.remove(name);
        } else {
            self.namespaces.insert(name.to_owned(), object.clone());
        }
        history
            .namespaces
            .push(Change::new(version, kind, before, object));
    }

    fn namespace(&self, name: &str, created: Time, version: u64) -> Namespace {
        Namespace {
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
        }
    }
}
