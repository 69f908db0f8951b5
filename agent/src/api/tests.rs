//! Requests over the real socket, answered from a real store.
