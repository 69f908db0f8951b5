//! `pods/log`.
