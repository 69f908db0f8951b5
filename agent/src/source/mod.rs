//! Where pods come from.
pub(crate) mod kubelet;
pub(crate) mod manifests;
