//! The configuration file: defaults and checks.
