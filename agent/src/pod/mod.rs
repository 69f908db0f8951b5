//! The rules: what a pod may say, what is done about it, and how that is reported. Pure: no I/O, no async,
//! no clock but the one handed in.

pub(crate) mod age;
pub(crate) mod cgroup;
pub(crate) mod container_config;
pub(crate) mod container_names;
pub(crate) mod copied_mounts;
pub(crate) mod crash_back_off;
pub(crate) mod creation;
pub(crate) mod decode;
pub(crate) mod defaults;
pub(crate) mod deletion;
pub(crate) mod discovered;
pub(crate) mod dns;
pub(crate) mod duplicate_fields;
pub(crate) mod environment;
pub(crate) mod ephemeral_statuses;
pub(crate) mod etc_hosts;
pub(crate) mod field_error;
pub(crate) mod generated_name;
pub(crate) mod hostname;
pub(crate) mod identity;
pub(crate) mod image_reference;
pub(crate) mod kubelet_life;
pub(crate) mod labels;
pub(crate) mod launch;
pub(crate) mod leftover;
pub(crate) mod log_names;
