//! Where pods come from.
pub(crate) mod manifests;
