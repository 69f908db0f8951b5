//! The pods of this node: what every source says of them merged, what the workers report, the history that
//! watches read, and (in `disk`) what must outlive the process.

pub(crate) mod changes;
pub(crate) mod events;
