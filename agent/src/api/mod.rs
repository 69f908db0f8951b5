//! The node-local Kubernetes API.
mod log;
mod streams;
