//! The pods of this node, and what is on disk of them.
