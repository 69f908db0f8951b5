//! debuglet on the real parts, each test on a private node of its own. Needs root and `integration/setup`.

// A helper of a test is a test, too.
#![allow(clippy::unwrap_used)]

/// Makes two tests of each function that is given: one on containerd 1.6, one on 2.4.
macro_rules! on_both_versions {
    ($($(#[$attribute:meta])* $name:ident),+ $(,)?) => {
        mod on_containerd_1_6 {
            $(
                $(#[$attribute])*
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(integration::ContainerdVersion::V1_6).await;
                }
            )+
        }
        mod on_containerd_2_4 {
            $(
                $(#[$attribute])*
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(integration::ContainerdVersion::V2_4).await;
                }
            )+
        }
    };
}

#[macro_use]
mod server;

mod accepted;
mod at_most_once;
mod clients;
mod cluster_users;
mod command_line;
mod copied_mounts;
mod cri;
mod discovery;
mod dying_sandbox;
mod foreign_pods;
mod full_disk;
mod hostile_files;
mod hung_shim;
mod idle;
mod joining;
mod kubectl;
mod kubelet;
mod kubelet_life;
mod kubernetes_source;
mod leftovers;
mod lifecycle;
mod logs;
mod manifests;
mod metrics;
mod panics;
mod patches;
mod pods;
mod port_forward;
mod private_node;
mod proxy;
mod secrets;
mod shared_uids;
mod silent_runtime;
mod story;
mod streams;
mod take_over;
mod targets;
mod terminal;
mod tracer;
mod watchers;
mod write_through;
