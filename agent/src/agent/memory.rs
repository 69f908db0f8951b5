//! How the agent's threads get their memory.

/// Has all threads draw from one pool of memory. Left alone, glibc opens up to eight for each processor, one for each
/// new thread that finds the others in use; what is freed in one of them is of no use to the others, and the agent holds
/// more than it needs. To be called before there is a second thread.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
pub(super) fn share_between_threads() {
    const POOLS: libc::c_int = 1;
    // SAFETY: mallopt reads and writes nothing but the allocator's own settings. It is unsafe only while other threads
    // allocate, and the caller is the only one.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, POOLS) };
}

/// Other libraries have one pool.
#[cfg(not(target_env = "gnu"))]
pub(super) fn share_between_threads() {}
