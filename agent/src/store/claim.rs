//! Who may have the name of a pod: two that would write a pod of one name at the same time take turns.

use std::path::PathBuf;

use super::{Inner, Store, Wanted};
use crate::pod::source::Source;
use crate::pod::visibility::Audience;

/// How many pods the API may have created; one that is gone for its clients counts until it has ended.
pub(super) const MAX_API_PODS: usize = 1000;

/// Why the API may not have a new pod of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Somebody has the name.
    Taken(Holder),
    /// There are so many pods already.
    TooMany(usize),
}

/// Who has the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A pod that was created over the API, or is being created.
    Api,
    /// A pod of this manifest.
    Manifest(PathBuf),
    /// A pod that somebody else runs.
    Foreign,
    /// A pod that is on its way out.
    Leaving,
}

/// The right to write a pod of one name; given back when it is dropped.
pub(super) struct Claim<'a> {
    store: &'a Store,
    name: (String, String),
    /// Who is told meanwhile that the name is taken.
    claimant: Claimant,
}

/// Who has claimed a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claimant {
    Api,
    Manifest,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut inner = self.store.lock();
        inner.claims.remove(&self.name);
        // A manifest may have been told that the name is taken, and then no pod came of the claim. A manifest that could
        // not be applied is not applied again for its own claim: it would go round for ever.
        if self.claimant == Claimant::Api && inner.pods.named(&self.name.0, &self.name.1).next().is_none() {
            inner.name_freed.notify_one();
        }
    }
}

impl Store {
    /// Whether the API could have a new pod of this name now. Only looks: nobody has to wait for that.
    pub(super) fn free_for_api(
        &self,
        audience: Audience,
        namespace: &str,
        name: &str,
    ) -> Result<(), Refusal> {
        self.lock().free_for_api(audience, namespace, name)
    }

    /// Claims the name for a new pod of the API: nobody may have it.
    pub(super) fn claim_for_api(
        &self,
        audience: Audience,
        namespace: &str,
        name: &str,
    ) -> Result<Claim<'_>, Refusal> {
        let mut inner = self.lock();
        inner.free_for_api(audience, namespace, name)?;
        self.claim(&mut inner, namespace, name, Claimant::Api)
            .map_err(Refusal::Taken)
    }

    /// Claims the name for a pod of the manifests folder, whose own pods it knows: no pod of the API or of somebody else
    /// may have it, other than on its way out.
    pub(super) fn claim_for_manifest(&self, namespace: &str, name: &str) -> Result<Claim<'_>, Holder> {
        let mut inner = self.lock();
        let own = inner.own_by_name(namespace, name);
        let other = own.or_else(|| inner.by_name(namespace, name));
        if let Some(entry) = other.filter(|entry| entry.removal().is_none()) {
            match &entry.source {
                Source::Manifest(_) => {}
                Source::Api => return Err(Holder::Api),
                Source::Discovered(_) => return Err(Holder::Foreign),
            }
        }
        self.claim(&mut inner, namespace, name, Claimant::Manifest)
    }

    fn claim(
        &self,
        inner: &mut Inner,
        namespace: &str,
        name: &str,
        claimant: Claimant,
    ) -> Result<Claim<'_>, Holder> {
        let name = (namespace.to_owned(), name.to_owned());
        if !inner.claims.insert(name.clone()) {
            return Err(Holder::Api);
        }
        Ok(Claim {
            store: self,
            name,
            claimant,
        })
    }

    /// Returns when a name may be free that a manifest had to leave to a pod of the API or to an external one.
    pub(crate) async fn name_freed(&self) {
        self.name_freed.notified().await;
    }
}

impl Inner {
    fn free_for_api(&self, audience: Audience, namespace: &str, name: &str) -> Result<(), Refusal> {
        if let Some(entry) = self.by_name(namespace, name) {
            if !entry.visibility.shows_pod(audience) {
                // That the name is taken cannot be kept from who asks for it; by whom can.
                return Err(Refusal::Taken(Holder::Api));
            }
            return Err(Refusal::Taken(match (&entry.wanted, &entry.source) {
                (Wanted::Removed(_), _) => Holder::Leaving,
                (_, Source::Manifest(path)) => Holder::Manifest(path.clone()),
                (_, Source::Api) => Holder::Api,
                (_, Source::Discovered(_)) => Holder::Foreign,
            }));
        }
        if self.claims.contains(&(namespace.to_owned(), name.to_owned())) {
            return Err(Refusal::Taken(Holder::Api));
        }
        let created = self.pods.values().filter(|entry| entry.source == Source::Api);
        let count = created.count() + self.claims.len();
        if count >= MAX_API_PODS {
            return Err(Refusal::TooMany(count));
        }
        Ok(())
    }
}
