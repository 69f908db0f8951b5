//! Where the parts are that the tests run on.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The folder that `integration/setup` fills.
pub(crate) fn cache() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    match std::env::var_os("DEBUGLET_CACHE") {
        Some(folder) => workspace.join(folder),
        None => workspace.join("target/parts"),
    }
}

/// The folders that the tests need on a node: the workspace, the parts, and the folder of the program under test.
pub fn needed_folders() -> Vec<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let program = debuglet();
    let needed = [workspace, &cache(), program.parent().unwrap()];
    // As they are mounted: a way to them may lead over a link.
    needed.map(|folder| folder.canonicalize().unwrap()).into()
}

/// Held for as long as this process uses the parts: `integration/setup` of another workspace, or of another version of
/// this one, waits for it before it replaces one of them.
static IN_USE: LazyLock<Option<File>> = LazyLock::new(|| {
    let folder = File::open(cache()).ok()?;
    folder.lock_shared().ok()?;
    Some(folder)
});

/// A file or folder below [`cache`].
pub(crate) fn built(name: &str) -> PathBuf {
    LazyLock::force(&IN_USE);
    let path = cache().join(name);
    assert!(
        path.exists(),
        "{} is missing: run integration/setup",
        path.display()
    );
    path
}

/// A program of Debian's containerd or runc: as it is installed, or unpacked where something else is.
pub(crate) fn debian(path: &str) -> PathBuf {
    let unpacked = cache().join("debian").join(path);
    if unpacked.exists() {
        LazyLock::force(&IN_USE);
        return unpacked;
    }
    Path::new("/").join(path)
}

/// The `debuglet` program under test: `DEBUGLET_BIN`, or the one that cargo put beside this test.
pub(crate) fn debuglet() -> PathBuf {
    let path = match std::env::var_os("DEBUGLET_BIN") {
        Some(path) => PathBuf::from(path),
        None => {
            // A test runs from target/PROFILE/deps, an example or a program from nearer by.
            let test = std::env::current_exe().unwrap();
            test.ancestors()
                .skip(1)
                .map(|folder| folder.join("debuglet"))
                .find(|path| path.is_file())
                .unwrap_or_default()
        }
    };
    assert!(
        path.is_file(),
        "no debuglet to test: run `cargo build -p debuglet` first"
    );
    path
}
