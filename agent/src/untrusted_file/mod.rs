//! Opens files that a container, a pod which others run, or a sandbox which others made may have written or named.
//!
//! Whoever can write into a folder can put anything there under any name: a link to a file of root's, a FIFO, a device,
//! a sparse file of any length. And whoever names a path can name one on a server that is down. So:
//!
//! - [`folder`] opens regular files only, follows no link below the folder that they belong to, and never waits in `open`.
//! - [`removal`] removes what others nested, without following any of it.
//! - [`own_threads`] runs what touches such paths on threads of their own, with a deadline, so that a file system that
//!   does not answer holds up nothing else.
//!
//! Clippy forbids the opening functions of `std::fs`, `tokio::fs` and `Path` everywhere else (`clippy.toml`); a place
//! that reads only what root alone can write says so with `#[expect]`.

#[cfg(test)]
pub(crate) mod dead_server;
mod folder;
mod mount_points;
mod own_threads;
mod removal;

pub(crate) use folder::{Folder, metadata, only_root_can_change, read_range, regular_file};
pub(crate) use mount_points::mount_points;
pub(crate) use own_threads::{
    EMPTY_DIRS, IMAGES, LOG_FOLDERS, LOGS, MEASUREMENTS, NoAnswer, REMOVALS, VOLUMES,
};
