//! What the API server says of the pods of this node. It makes no pod here: a pod is there because the runtime shows it.
//! It says what the runtime does not tell, and which ephemeral containers the cluster asks for.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{EphemeralContainer, Pod};
use k8s_openapi::jiff::Timestamp;

use super::changes::ChangeKind;
use super::{Entry, Inner, Store};
use crate::pod::discovered::Owner;
use crate::pod::discovered::enriched::is_said_of;
use crate::pod::discovered::union::is_older;
use crate::pod::identity::PodKey;
use crate::pod::launch::Launch;
use crate::pod::source::Source;
use crate::pod::visibility::Audience;

/// News from the API server's watch.
#[derive(Debug)]
pub(crate) enum KubernetesChange {
    /// These are all the pods of the node.
    All(Vec<Pod>),
    /// This one is new or has changed.
    Applied(Box<Pod>),
    /// This one is no more.
    Gone(Box<Pod>),
    /// This is what came of a write of ours to a pod.
    Written(Box<Pod>),
}

impl Store {
    /// Takes note that the pods of the API server are followed, or that they are not: then what was last heard of them
    /// stays, but for whether they are ready.
    pub(crate) fn follow_kubernetes(&self, followed: bool) {
        let mut inner = self.lock();
        if followed != inner.kubernetes_away.is_some() {
            return;
        }
        let before = inner.history.version();
        inner.kubernetes_away = (!followed).then(Timestamp::now);
        inner.compose_all();
        let version = inner.history.version();
        drop(inner);
        if version != before {
            self.announce(version);
        }
    }

    /// Takes news from the API server.
    pub(crate) fn apply_kubernetes(&self, change: KubernetesChange) {
        let mut inner = self.lock();
        let before = inner.history.version();
        match change {
            KubernetesChange::All(pods) => {
                let known = pods.into_iter().map(|pod| (name_of(&pod), Arc::new(pod)));
                inner.kubernetes = known.collect();
                inner.compose_all();
            }
            KubernetesChange::Applied(pod) => {
                let name = name_of(&pod);
                // What a write of ours has brought already is not taken back by the watch, which comes after.
                let older = |known: &Arc<Pod>| is_older(&pod, known);
                if !inner.kubernetes.get(&name).is_some_and(older) {
                    inner.kubernetes.insert(name.clone(), Arc::new(*pod));
                    inner.compose_named(&name);
                }
            }
            KubernetesChange::Written(pod) => {
                let name = name_of(&pod);
                // Whether there is such a pod is for the watch to say.
                let overtaken =
                    |known: &Arc<Pod>| known.metadata.uid != pod.metadata.uid || is_older(&pod, known);
                if !inner.kubernetes.get(&name).is_none_or(overtaken) {
                    inner.kubernetes.insert(name.clone(), Arc::new(*pod));
                    inner.compose_named(&name);
                }
            }
            KubernetesChange::Gone(pod) => {
                let name = name_of(&pod);
                // One that was made anew has another UID of its own; the end of the one before says nothing.
                let same = |known: &Arc<Pod>| known.metadata.uid == pod.metadata.uid;
                if inner.kubernetes.get(&name).is_some_and(same) {
                    inner.kubernetes.remove(&name);
                    inner.compose_named(&name);
                }
            }
        }
        let version = inner.history.version();
        drop(inner);
        if version != before {
            self.announce(version);
        }
    }
}

/// Namespace and name: the API server has one pod of them at a time.
fn name_of(pod: &Pod) -> (String, String) {
    let metadata = &pod.metadata;
    (
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}

impl Inner {
    /// What the API server says of a pod that was found here.
    pub(super) fn said_of(&self, key: &PodKey, owner: Owner) -> Option<Arc<Pod>> {
        let name = (key.namespace.clone(), key.name.clone());
        let known = self.kubernetes.get(&name);
        known.filter(|known| is_said_of(known, key, owner)).cloned()
    }

    fn compose_all(&mut self) {
        let uids: Vec<String> = self.pods.keys().cloned().collect();
        uids.iter().for_each(|uid| self.compose(uid));
    }

    fn compose_named(&mut self, (namespace, name): &(String, String)) {
        let named = self.pods.named(namespace, name);
        let uids: Vec<String> = named.map(|entry| entry.key.uid.clone()).collect();
        uids.iter().for_each(|uid| self.compose(uid));
    }

    /// Makes a discovered pod what all say of it together.
    fn compose(&mut self, uid: &str) {
        let Some(entry) = self.pods.get(uid) else { return };
        let Source::Discovered(owner) = entry.source else {
            return;
        };
        let kubernetes = self.said_of(&entry.key, owner);
        let as_of = kubernetes.as_ref().and(self.kubernetes_away);
        let Some(entry) = self.pods.get_mut(uid) else {
            return;
        };
        if entry.known_by.kubernetes == kubernetes && entry.known_by.as_of == as_of {
            return;
        }
        let shown = |entry: &Entry| {
            let visibility = entry.visible_now();
            let containers = [Audience::Node, Audience::Cluster]
                .map(|audience| entry.ephemeral_containers(audience, &visibility));
            (containers, entry.known_by.spec_from(), visibility)
        };
        let before = shown(entry);
        entry.known_by.kubernetes = kubernetes;
        entry.known_by.as_of = as_of;
        let mut changed = shown(entry) != before;
        if let Some(pod) = entry.known_by.pod().filter(|pod| *pod != *entry.pod) {
            entry.pod = Arc::new(pod);
            changed = true;
        }
        for container in entry.theirs() {
            let accepted = || Launch::accepted(&container.name);
            entry
                .launches
                .entry(container.name.clone())
                .or_insert_with(accepted);
        }
        // What the API server says of its status is for the worker to weigh.
        entry.wake.notify_one();
        if changed {
            self.publish(uid, ChangeKind::Modified);
        }
    }
}

impl Entry {
    /// The ephemeral containers that the API server asks for.
    pub(super) fn asked_of_api_server(&self) -> impl Iterator<Item = &EphemeralContainer> {
        let kubernetes = self.known_by.kubernetes.as_ref();
        let spec = kubernetes.and_then(|pod| pod.spec.as_ref());
        let containers = spec.and_then(|spec| spec.ephemeral_containers.as_ref());
        containers.into_iter().flatten()
    }

    /// The ephemeral containers that the API server asks for and of which nothing was written down here: the kubelet's.
    pub(super) fn theirs(&self) -> Vec<EphemeralContainer> {
        let is_new = |container: &&EphemeralContainer| {
            !self
                .records
                .iter()
                .any(|record| record.spec.name == container.name)
        };
        self.asked_of_api_server().filter(is_new).cloned().collect()
    }
}

#[cfg(test)]
#[path = "kubernetes_tests.rs"]
mod tests;
