//! What lists and watches read: for each kind that is served, its objects and their changes, and of each what users of the
//! cluster see of it. All kinds are read in one way, so that nothing of a list or a watch is written twice.

use std::sync::Arc;

use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::watch;

use super::changes::{Change, Gone, History, Log};
use super::views::Views;
use super::{Entry, Inner, Store};
use crate::pod::visibility::Audience;

/// A kind of object that the store has for lists and watches.
pub(crate) trait Served: Metadata<Ty = ObjectMeta> + Clone + Default + Send + Sync + 'static {
    /// All objects, in any order.
    fn all(inner: &Inner) -> Vec<Views<Self>>;
    /// Their changes.
    fn log(history: &History) -> &Log<Self>;
    /// Sends the newest version to those who wait for a change of this kind.
    fn versions(store: &Store) -> &watch::Sender<u64> {
        &store.versions
    }
}

impl Served for Pod {
    fn all(inner: &Inner) -> Vec<Views<Pod>> {
        let served = |entry: &Entry| entry.served.clone();
        let entries = inner.pods.values().filter(|entry| !entry.is_deleted());
        entries.map(served).collect()
    }

    fn log(history: &History) -> &Log<Pod> {
        &history.pods
    }
}

impl Served for Event {
    fn all(inner: &Inner) -> Vec<Views<Event>> {
        inner.events.all()
    }

    fn log(history: &History) -> &Log<Event> {
        &history.events
    }

    /// Events have a bell of their own: they are many, and no worker and no watch on pods waits for one.
    fn versions(store: &Store) -> &watch::Sender<u64> {
        &store.event_versions
    }
}

impl Served for Namespace {
    fn all(inner: &Inner) -> Vec<Views<Namespace>> {
        inner.namespaces.all()
    }

    fn log(history: &History) -> &Log<Namespace> {
        &history.namespaces
    }
}

impl Served for Node {
    fn all(inner: &Inner) -> Vec<Views<Node>> {
        vec![Views::same(Arc::clone(&inner.node))]
    }

    fn log(history: &History) -> &Log<Node> {
        &history.nodes
    }
}

impl Store {
    /// All objects of a kind that `audience` sees, by namespace and name, and the version at which they are these.
    pub(crate) fn list<T: Served>(&self, audience: Audience) -> (u64, Vec<Arc<T>>) {
        let (version, objects) = {
            let inner = self.lock();
            (inner.history.version(), T::all(&inner))
        };
        let mut objects: Vec<Arc<T>> = objects
            .iter()
            .filter_map(|views| views.of(audience).cloned())
            .collect();
        objects.sort_by(|one, other| place(&**one).cmp(&place(&**other)));
        (version, objects)
    }

    /// One object of a kind, by its name, where `audience` sees it.
    pub(crate) fn object<T: Served>(
        &self,
        audience: Audience,
        namespace: Option<&str>,
        name: &str,
    ) -> Option<Arc<T>> {
        let objects = T::all(&self.lock());
        let mut visible = objects.iter().filter_map(|views| views.of(audience));
        let found = visible.find(|object| {
            let metadata = object.metadata();
            metadata.name.as_deref() == Some(name) && metadata.namespace.as_deref() == namespace
        });
        found.cloned()
    }

    /// The newest version, of whatever kind.
    pub(crate) fn version(&self) -> u64 {
        self.lock().history.version()
    }

    /// The changes of a kind after `version`, and the newest version: up to it these are all.
    pub(crate) fn changes<T: Served>(&self, version: u64) -> Result<(u64, Vec<Change<T>>), Gone> {
        let inner = self.lock();
        let changes = T::log(&inner.history).since(version)?;
        Ok((inner.history.version(), changes))
    }

    /// The newest version; it changes when an object of this kind has changed.
    pub(crate) fn versions_of<T: Served>(&self) -> watch::Receiver<u64> {
        T::versions(self).subscribe()
    }
}

/// Where an object stands in a list: by namespace, name and UID (two pods may have one name for a while).
pub(crate) fn place<T: Metadata<Ty = ObjectMeta>>(object: &T) -> (&str, &str, &str) {
    let metadata = object.metadata();
    (
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
        metadata.uid.as_deref().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::Disk;

    #[test]
    fn after_a_restart_versions_go_on_and_a_watch_from_before_must_list_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let load = || {
            let disk = Disk::open(folder.path()).expect("a state folder");
            Store::load("node1", disk).expect("a store").0
        };
        let before = load().version();
        let store = load();
        assert!(store.version() > before);
        assert!(store.changes::<Pod>(before).is_err());
        assert!(store.changes::<Node>(before).is_err());
        assert!(store.changes::<Pod>(store.version()).is_ok());
    }
}
