//! The ephemeral containers of a pod that the API server has, too: what of a client's list is the API server's to take,
//! and which records it has not heard of.

use std::sync::Arc;

use k8s_openapi::api::core::v1::EphemeralContainer;

use super::accept::{AcceptError, Judged, WantedList};
use super::{Entry, Store};
use crate::pod::asked_by::AskedBy;
use crate::pod::discovered::union::{Place, place, takes_additions};
use crate::pod::record::{Origin, Record};

/// The new ones of a list, for a pod that the API server has.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NewContainers {
    /// The pod's UID, the same in both places.
    pub(crate) uid: String,
    /// The containers, judged and with their defaults.
    pub(crate) containers: Vec<EphemeralContainer>,
}

/// A record of a pod that the API server has, whose entry it has not, or has as something else.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LocalEntry {
    /// The pod's namespace.
    pub(crate) namespace: String,
    /// The pod's name.
    pub(crate) name: String,
    /// The pod's UID, the same in both places.
    pub(crate) uid: String,
    /// The record.
    pub(crate) record: Record,
    /// Whether the API server has another container under the name.
    pub(crate) differs: bool,
}

impl Store {
    /// Judges a client's list as [`Store::accept`] does, and gives what it adds to a pod that the API server has; none
    /// where the pod is not one that the API server can add to, or nothing is new.
    pub(crate) async fn new_containers(
        self: &Arc<Self>,
        asked_by: &AskedBy,
        namespace: &str,
        name: &str,
        wanted: WantedList,
    ) -> Result<Option<NewContainers>, AcceptError> {
        let pod = self.to_write(asked_by.audience(), namespace, name);
        let Some((uid, writing)) = pod.filter(|(uid, _)| self.is_shared(uid)) else {
            return Ok(None);
        };
        let (store, asked_by) = (Arc::clone(self), asked_by.clone());
        let judge = move || {
            let Judged { new, .. } = store.judge(&asked_by, &uid, &writing, wanted)?;
            let containers: Vec<_> = new.into_iter().map(|record| record.spec).collect();
            Ok((!containers.is_empty()).then_some(NewContainers { uid, containers }))
        };
        self.write_threads().run(judge).await?
    }

    /// The entries that were asked for here, of pods that the API server has, and that it does not know as they are.
    pub(crate) fn local_entries(&self) -> Vec<LocalEntry> {
        let inner = self.lock();
        let mut found = Vec::new();
        for entry in inner.pods.values().filter(|entry| entry.is_shared()) {
            let Some(known) = &entry.known_by.kubernetes else {
                continue;
            };
            for record in entry.records.iter().filter(|record| record.origin == Origin::Api) {
                let differs = match place(record, known) {
                    Place::Both => continue,
                    Place::Here => false,
                    Place::Differs => true,
                };
                found.push(LocalEntry {
                    namespace: entry.key.namespace.clone(),
                    name: entry.key.name.clone(),
                    uid: entry.key.uid.clone(),
                    record: record.clone(),
                    differs,
                });
            }
        }
        found
    }

    /// The names of the ephemeral containers that the API server has in the pod with this UID, in the order in which it
    /// told of them last.
    pub(crate) fn names_in_api_server(&self, uid: &str) -> Vec<String> {
        let inner = self.lock();
        let asked = inner
            .pods
            .get(uid)
            .into_iter()
            .flat_map(Entry::asked_of_api_server);
        asked.map(|container| container.name.clone()).collect()
    }

    /// Whether the pod with this UID is the API server's, too.
    fn is_shared(&self, uid: &str) -> bool {
        self.lock().pods.get(uid).is_some_and(Entry::is_shared)
    }
}

impl Entry {
    /// Whether it is a pod of the API server, under the same UID, to which ephemeral containers can be added there.
    fn is_shared(&self) -> bool {
        let known = self.known_by.kubernetes.as_ref();
        known
            .is_some_and(|known| takes_additions(known) && known.metadata.uid.as_ref() == Some(&self.key.uid))
    }
}

#[cfg(test)]
#[path = "union_tests.rs"]
mod tests;
