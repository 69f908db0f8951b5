//! The API server of this node's cluster: how it is reached, and whether it answers. Who watches it, reports to it and
//! asks it is elsewhere.

pub(crate) mod api_server;
pub(crate) mod back_off;
mod credential_files;
mod credentials;
pub(crate) mod ephemeral_containers;
mod exec_plugin;
mod failure;
pub(crate) mod objects;
