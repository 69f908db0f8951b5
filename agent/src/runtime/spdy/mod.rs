//! SPDY/3.1, as far as a container runtime's streaming server needs it: a client that opens a few streams,
//! each of which carries bytes one way. HTTP/2 never replaced it there.
//!
//! - [`frame`]: what goes over the wire.
//! - [`connection`]: the task that owns the connection, and the streams' ends.

pub(crate) mod connection;
mod frame;
#[cfg(test)]
pub(crate) mod peer;
