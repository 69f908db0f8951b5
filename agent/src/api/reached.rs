//! What a session (exec, attach, port-forward) is with, so that it ends when its client no longer sees that: the stream
//! itself goes on with the runtime, which knows no clients.

use axum::response::Response;
use k8s_openapi::api::core::v1::Pod;

use super::container::ServedContainer;
use crate::pod::visibility::Audience;
use crate::store::Store;

/// A pod, or one of its containers, as the client of a session saw it; in the extensions of the answer that opens one.
#[derive(Clone, Debug)]
pub(super) struct Reached {
    audience: Audience,
    namespace: String,
    name: String,
    uid: Option<String>,
    /// None: the session is with the pod.
    container: Option<String>,
}

impl Reached {
    /// This pod as `audience` sees it, and the container of this name in it.
    pub(super) fn new(audience: Audience, pod: &Pod, container: Option<&str>) -> Reached {
        let metadata = &pod.metadata;
        Reached {
            audience,
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone(),
            container: container.map(str::to_owned),
        }
    }

    /// The answer, with this.
    pub(super) fn on(self, mut response: Response) -> Response {
        response.extensions_mut().insert(self);
        response
    }

    /// Whether the client would still find it: another pod of the name does not count.
    pub(super) fn is_seen(&self, store: &Store) -> bool {
        let Some(pod) = store.pod_for(self.audience, &self.namespace, &self.name) else {
            return false;
        };
        let has = |name: &String| ServedContainer::find(&pod, name).is_ok();
        pod.metadata.uid == self.uid && self.container.as_ref().is_none_or(has)
    }
}
