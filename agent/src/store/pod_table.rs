//! The table of all pods: by UID, with an index of names, so that a question about one name does not go through
//! every pod of the node.

use std::collections::{BTreeMap, BTreeSet, btree_map};

use super::Entry;

/// The pods by UID. Two of them may have one namespace and name: a pod that goes and its successor, or a pod of ours
/// and an external one.
///
/// The index follows `Entry::key` as it is when the entry is inserted: the key of an entry never changes afterwards.
#[derive(Debug, Default)]
pub(super) struct PodTable {
    by_uid: BTreeMap<String, Entry>,
    /// UIDs by namespace and name.
    names: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
    /// How many entries were looked at, for tests that bound it.
    #[cfg(test)]
    pub(super) visits: std::sync::atomic::AtomicUsize,
}

impl PodTable {
    /// The pod with this UID.
    pub(super) fn get(&self, uid: &str) -> Option<&Entry> {
        self.by_uid.get(uid)
    }

    /// The same, to be changed: all of it but its key.
    pub(super) fn get_mut(&mut self, uid: &str) -> Option<&mut Entry> {
        self.by_uid.get_mut(uid)
    }

    /// Whether there is a pod with this UID.
    pub(super) fn contains_key(&self, uid: &str) -> bool {
        self.by_uid.contains_key(uid)
    }

    /// All UIDs, in their order.
    pub(super) fn keys(&self) -> btree_map::Keys<'_, String, Entry> {
        self.by_uid.keys()
    }

    /// All pods, in the order of their UIDs.
    pub(super) fn values(&self) -> impl Iterator<Item = &Entry> {
        self.by_uid.values().inspect(|_| self.visit())
    }

    /// All pods with their UIDs, in the order of these.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Entry)> {
        self.by_uid.iter().inspect(|_| self.visit())
    }

    /// The pods of this namespace and name, in the order of their UIDs.
    pub(super) fn named(&self, namespace: &str, name: &str) -> impl Iterator<Item = &Entry> {
        let uids = self.names.get(namespace).and_then(|names| names.get(name));
        self.entries(uids.into_iter().flatten())
    }

    /// The pods of this namespace.
    pub(super) fn of_namespace(&self, namespace: &str) -> impl Iterator<Item = &Entry> {
        let names = self.names.get(namespace);
        self.entries(names.into_iter().flat_map(BTreeMap::values).flatten())
    }

    fn entries<'a>(&'a self, uids: impl Iterator<Item = &'a String>) -> impl Iterator<Item = &'a Entry> {
        uids.filter_map(|uid| self.by_uid.get(uid))
            .inspect(|_| self.visit())
    }

    /// Adds a pod, in place of one that has its UID.
    pub(super) fn insert(&mut self, entry: Entry) {
        self.remove(&entry.key.uid);
        let key = entry.key.clone();
        let names = self.names.entry(key.namespace).or_default();
        names.entry(key.name).or_default().insert(key.uid.clone());
        self.by_uid.insert(key.uid, entry);
    }

    /// Takes out a pod.
    pub(super) fn remove(&mut self, uid: &str) -> Option<Entry> {
        let entry = self.by_uid.remove(uid)?;
        let key = &entry.key;
        if let Some(names) = self.names.get_mut(&key.namespace) {
            if let Some(uids) = names.get_mut(&key.name) {
                uids.remove(uid);
                if uids.is_empty() {
                    names.remove(&key.name);
                }
            }
            if names.is_empty() {
                self.names.remove(&key.namespace);
            }
        }
        Some(entry)
    }

    #[cfg(test)]
    fn visit(&self) {
        self.visits.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "only tests count")]
    fn visit(&self) {}
}

#[cfg(test)]
#[path = "pod_table_tests.rs"]
mod tests;
