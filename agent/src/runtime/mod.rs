//! The runtime: CRI, containerd's events and pull progress, images, logs, streams.

pub(crate) mod client;
pub(crate) mod logs;
pub(crate) mod spdy;
pub(crate) mod streams;
