//! What the API server of the cluster is told.

pub(crate) mod ephemeral_containers;
