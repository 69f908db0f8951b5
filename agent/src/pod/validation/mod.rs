//! What a pod and an ephemeral container may say: the rules of an API server (v1.36), and what debuglet leaves out.
//!
//! Everything here is for objects with their defaults filled in ([`crate::pod::defaults`]).

mod container;
mod environment;
mod ephemeral;
mod findings;
mod mounts;
mod names;
mod network;
mod pod_spec;
mod resources;
mod security;
mod unsupported;
mod volumes;

pub(crate) use ephemeral::{ephemeral_change, ephemeral_containers};
pub(crate) use names::{is_dns_label, is_dns_subdomain};
pub(crate) use pod_spec::pod;
pub(crate) use unsupported::unsupported;
