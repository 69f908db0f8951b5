//! Attach and exec sessions with the runtime.
