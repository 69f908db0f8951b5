//! What debuglet made and has no record of: which of all that the runtime lists that is, and how it is told.

use super::problems::ProblemKind;
use super::{Entry, Store};
use crate::pod::leftover::{Leftover, OwnContainer, OwnSandbox, leftovers};
use crate::pod::visibility::Audience;

impl Store {
    /// What of these is left over. They were listed before this is called, so that a pod which was created meanwhile is
    /// known; one that was forgotten meanwhile is left over, though it is gone from the runtime too.
    pub(crate) fn left_over(
        &self,
        sandboxes: Vec<OwnSandbox>,
        containers: Vec<OwnContainer>,
    ) -> Vec<Leftover> {
        let inner = self.lock();
        let knows_pod = |uid: &str| inner.pods.get(uid).is_some_and(|entry| !entry.is_foreign());
        let knows_container =
            |uid: &str, name: &str| inner.pods.get(uid).is_some_and(|entry| entry.has_made(name));
        leftovers(sandboxes, containers, knows_pod, knows_container)
    }

    /// Reports what is left over, and withdraws what of `before` is not any more.
    pub(crate) fn report_leftovers(&self, before: &[Leftover], now: &[Leftover]) {
        for leftover in now {
            let pod = leftover.pod();
            let named = self.pod_for(Audience::Node, &pod.namespace, &pod.name);
            let namesake = named.is_some_and(|named| named.metadata.uid.as_ref() != Some(&pod.uid));
            self.problem(
                ProblemKind::Leftover,
                leftover.id(),
                pod.to_string(),
                leftover.message(namesake),
            );
        }
        let stays = |leftover: &Leftover| now.iter().any(|other| other.id() == leftover.id());
        for leftover in before.iter().filter(|leftover| !stays(leftover)) {
            self.solved(ProblemKind::Leftover, leftover.id());
        }
    }
}

impl Entry {
    /// Whether a container of this name may have been made here for the pod.
    fn has_made(&self, name: &str) -> bool {
        let spec = self.pod.spec.as_ref().filter(|_| !self.is_foreign());
        let ordinary = spec.into_iter().flat_map(|spec| {
            let init = spec.init_containers.iter().flatten();
            spec.containers.iter().chain(init)
        });
        self.records.iter().any(|record| record.spec.name == name)
            || ordinary.into_iter().any(|container| container.name == name)
    }
}
