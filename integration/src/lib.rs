//! Starts the real parts.
