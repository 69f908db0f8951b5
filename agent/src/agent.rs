//! The daemon: puts the parts together; start and shutdown order, readable top to bottom.
