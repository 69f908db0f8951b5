//! Tests on real mounts: each runs in a mount namespace of its own, whose end takes its mounts along.

use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Runs `test` in a folder and a mount namespace of its own.
pub(crate) fn in_private_mounts(test: impl FnOnce(&Path) + Send + 'static) {
    // Made and removed outside: what is still mounted in it goes with the namespace, at the thread's end.
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().canonicalize().expect("its path");
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).expect("tests of mounts run as root");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
        test(&root);
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
    folder.close().expect("nothing is left behind");
}

/// Mounts a tmpfs of this size (`2m`) at the folder.
pub(crate) fn mount_memory(folder: &Path, size: &str) {
    let options = format!("size={size}");
    let memory = Some("tmpfs");
    mount(memory, folder, memory, MsFlags::empty(), Some(options.as_str())).expect("a tmpfs");
}
