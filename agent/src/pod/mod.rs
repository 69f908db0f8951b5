//! The rules: what a pod may say, what is done about it, and how that is reported. Pure: no I/O, no async,
//! no clock but the one handed in.

pub(crate) mod age;
pub(crate) mod cgroup;
pub(crate) mod container_config;
pub(crate) mod crash_back_off;
pub(crate) mod decode;
pub(crate) mod defaults;
pub(crate) mod dns;
pub(crate) mod environment;
pub(crate) mod ephemeral_patch;
pub(crate) mod etc_hosts;
pub(crate) mod field_error;
pub(crate) mod hostname;
pub(crate) mod identity;
pub(crate) mod image_reference;
pub(crate) mod labels;
pub(crate) mod launch;
pub(crate) mod node;
pub(crate) mod node_object;
pub(crate) mod observed;
pub(crate) mod plan;
pub(crate) mod pod_line;
pub(crate) mod profile;
pub(crate) mod quantity;
pub(crate) mod record;
pub(crate) mod resources;
pub(crate) mod sandbox_config;
pub(crate) mod security_context;
pub(crate) mod status;
pub(crate) mod streaming;
pub(crate) mod termination_message;
pub(crate) mod validation;
