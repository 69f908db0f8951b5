//! debuglet runs Kubernetes ephemeral debug containers in any pod on its node, whoever started that pod,
//! with or without a control plane.
//!
//! Start reading at [`agent`], which puts the parts together, or follow one debug container:
//! `source/` or `api/` -> `store/` -> `worker/` -> `runtime/`, and back as status. The rules are in `pod/`.

// What is printed goes through cli/output.rs, which makes it visible.
#![deny(clippy::print_stdout, clippy::print_stderr)]
#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "the tests write and read their own files"
    )
)]

mod agent;
mod api;
#[cfg(test)]
mod architecture_tests;
mod cli;
mod config;
mod durable_file;
mod http_upgrade;
mod kubernetes;
mod logging;
mod metrics;
mod panic_message;
mod pod;
#[cfg(test)]
mod private_mounts;
mod report;
mod runtime;
mod source;
mod store;
mod systemd_notify;
mod test_panic;
mod untrusted_file;
mod visible;
mod worker;
mod write_threads;

fn main() -> std::process::ExitCode {
    cli::main()
}
