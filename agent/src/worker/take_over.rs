//! What a worker does about a kubelet that was down and comes back: what was not made for it yet goes back to it, and a
//! container that it starts beside one of ours is told of.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;

use super::context::Context;
use super::step::{Outcome, RETRY_SLOWLY};
use crate::pod::observed::ObservedPod;
use crate::pod::record::Origin;
use crate::store::events::Severity;
use crate::store::progress::View;

/// Leaves an ephemeral container to the kubelet, whose it is.
pub(super) async fn hand_back(context: &Context, pod: &Pod, container: &str, origin: Origin) -> Outcome {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let handed_back = match context.store.hand_back(uid, container).await {
        Ok(handed_back) => handed_back,
        Err(error) => return Outcome::failed("InternalError", error.to_string(), RETRY_SLOWLY),
    };
    if handed_back {
        let message = match origin {
            Origin::KubeApiserver => {
                "It is left to the kubelet again: that is not surely down any more, or it is not asked for any more"
            }
            Origin::Api | Origin::Manifest => {
                "It is left to the kubelet: the API server asks for the same container"
            }
        };
        context.tell(pod, Some(container), Severity::Normal, "LeftToKubelet", message);
    }
    Outcome::Done
}

/// The containers that somebody else started beside one of ours of the same name: each is told of once.
#[derive(Debug, Default)]
pub(super) struct SecondAttempts {
    /// Their ids.
    told: BTreeSet<String>,
}

impl SecondAttempts {
    /// An event for each that is new. A kubelet cannot be bound: all that can be done is to say so, and hands off.
    pub(super) fn tell(&mut self, context: &Context, view: &View, observed: &ObservedPod) {
        let second = observed.second_attempts(&view.records);
        self.told
            .retain(|id| second.iter().any(|container| container.id == *id));
        for container in second {
            if self.told.insert(container.id.clone()) {
                let message = format!(
                    "A container of this name was started beside debuglet's, and not by debuglet: attempt {}, {}",
                    container.attempt, container.id
                );
                let name = Some(container.name.as_str());
                context.tell(&view.pod, name, Severity::Warning, "SecondAttempt", message);
            }
        }
    }
}
