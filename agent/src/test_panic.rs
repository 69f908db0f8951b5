//! Panics that tests ask a debug build for, at places that code names. A release build has nothing here.

/// A place at which tests can have a debug build panic: where the folder `DEBUGLET_TEST_PANICS` holds a file of this
/// name, which goes.
#[cfg(debug_assertions)]
#[expect(
    clippy::disallowed_methods,
    reason = "the folder is the test's; there is none outside of tests"
)]
pub(crate) fn point(name: &str) {
    let Some(folder) = std::env::var_os("DEBUGLET_TEST_PANICS") else {
        return;
    };
    if std::fs::remove_file(std::path::Path::new(&folder).join(name)).is_ok() {
        panic!("a test asked for it at {name:?}");
    }
}

#[cfg(not(debug_assertions))]
pub(crate) fn point(_name: &str) {}
