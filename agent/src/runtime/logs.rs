//! CRI log files: parse, tail, follow across rotation.
