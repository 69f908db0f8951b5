//! What the API server of the cluster is told of what debuglet does: the ephemeral containers that it has not heard of, the
//! states of those that were started while the kubelet is down, and events. Each looks at what is to be told and at what
//! was told, and tells the difference: so nothing is queued, and nothing told twice.

pub(crate) mod ephemeral_containers;
pub(crate) mod events;
pub(crate) mod statuses;
mod trouble;
