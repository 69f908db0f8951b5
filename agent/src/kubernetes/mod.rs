//! The API server of this node's cluster: how it is reached, and whether it answers; and whether the node's kubelet
//! lives. Who watches them, reports to them and asks them is elsewhere.

pub(crate) mod api_server;
pub(crate) mod back_off;
mod clients;
pub(crate) mod cluster_users;
mod credential_files;
mod credentials;
pub(crate) mod ephemeral_containers;
mod exec_plugin;
pub(crate) mod failure;
pub(crate) mod kubelet;
pub(crate) mod kubelet_signs;
mod listening_sockets;
pub(crate) mod node_name;
pub(crate) mod objects;
mod recent;
#[cfg(test)]
pub(crate) mod scripted;
