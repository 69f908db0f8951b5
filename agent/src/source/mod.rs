//! Where pods come from.

pub(crate) mod discovery;
mod document_lines;
mod folder_files;
mod folder_watch;
pub(crate) mod kubelet;
pub(crate) mod kubernetes;
mod manifest_file;
pub(crate) mod manifests;
pub(crate) mod node_name;
pub(crate) mod static_manifests;
pub(crate) mod take_over;
