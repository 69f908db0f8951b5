//! What the API server is told of this node's debug containers: read by `report/`, which knows what it has told before.
//! Nothing is told that is hidden from users of the cluster (`pod/visibility.rs`), as they read it there.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerStatus, Event};

use super::{Entry, Store};
use crate::pod::discovered::union::{Place, place};
use crate::pod::take_over;
use crate::pod::visibility::Audience;

/// The states of the debug containers that debuglet handles in one pod of the API server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OwnStatuses {
    /// The pod's UID.
    pub(crate) uid: String,
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// As in `status.ephemeralContainerStatuses`.
    pub(crate) statuses: Vec<ContainerStatus>,
}

impl Store {
    /// The states of what debuglet handles of the ephemeral containers that the API server asks for. Not among them is
    /// what it does not ask for, or asks for as something else, and what somebody else's container has the name of.
    pub(crate) fn own_statuses(&self) -> Vec<OwnStatuses> {
        let inner = self.lock();
        inner.pods.values().filter_map(own_statuses).collect()
    }

    /// The events of pods that the API server knows, the least recently seen first. Whoever may read events there reads
    /// what is told, so these are the events that users of the cluster see: the others stay on the node.
    pub(crate) fn events_to_tell(&self) -> Vec<Arc<Event>> {
        let inner = self.lock();
        let is_known = |event: &Arc<Event>| {
            let uid = event.involved_object.uid.as_ref();
            uid.and_then(|uid| inner.pods.get(uid))
                .is_some_and(|entry| entry.known_by.kubernetes.is_some())
        };
        let all = inner.events.all();
        let visible = all
            .iter()
            .filter_map(|views| views.of(Audience::Cluster).cloned());
        visible.filter(is_known).collect()
    }
}

fn own_statuses(entry: &Entry) -> Option<OwnStatuses> {
    let known = entry.known_by.kubernetes.as_ref()?;
    if !take_over::may_be_debugged(known) {
        return None;
    }
    let is_ours = |status: &&ContainerStatus| {
        let name = &status.name;
        let mut records = entry.records.iter();
        let record = records.find(|record| record.spec.name == *name);
        record.is_some_and(|record| place(record, known) == Place::Both) && !entry.foreign.contains(name)
    };
    let statuses = entry.status.ephemeral_container_statuses.as_ref()?;
    let statuses: Vec<_> = statuses.iter().filter(is_ours).cloned().collect();
    (!statuses.is_empty()).then(|| OwnStatuses {
        uid: entry.key.uid.clone(),
        namespace: entry.key.namespace.clone(),
        name: entry.key.name.clone(),
        statuses,
    })
}
