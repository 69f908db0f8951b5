//! The images that `integration/setup` makes, by the names under which every node's registry serves them.

/// Holds a sandbox's namespaces.
pub(crate) const PAUSE: &str = "127.0.0.1:5000/pause:1";
/// busybox with a shell; every node has it, under `docker.io/library/busybox:latest` too.
pub const BUSYBOX: &str = "127.0.0.1:5000/busybox:1";
/// One static program that answers on port 8080, `/srv/greeting.txt`, and no shell; every node has it.
pub const DISTROLESS: &str = "127.0.0.1:5000/distroless:1";
/// busybox that runs as user 1000; to be pulled.
pub const USER_1000: &str = "127.0.0.1:5000/user-1000:1";
/// busybox that runs as the user named `debug`; to be pulled.
pub const USER_DEBUG: &str = "127.0.0.1:5000/user-debug:1";
/// busybox with 24 MB that do not compress; to be pulled.
pub const LARGE: &str = "127.0.0.1:5000/large:1";
