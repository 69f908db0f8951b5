//! The runtime: CRI, containerd's events and pull progress, images, logs, streams.

pub(crate) mod call_metrics;
pub(crate) mod cgroup_driver;
pub(crate) mod client;
pub(crate) mod error;
pub(crate) mod events;
pub(crate) mod foreign;
pub(crate) mod images;
pub(crate) mod log_links;
pub(crate) mod logs;
mod mounts;
pub(crate) mod news;
pub(crate) mod node_facts;
pub(crate) mod observe;
pub(crate) mod own;
pub(crate) mod port_forward;
pub(crate) mod pull_error;
pub(crate) mod pull_metrics;
pub(crate) mod pull_progress;
pub(crate) mod pull_secrets;
pub(crate) mod pulled_images;
pub(crate) mod registry_auth;
pub(crate) mod spdy;
pub(crate) mod streaming_server;
pub(crate) mod streams;
