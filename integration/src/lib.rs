//! Starts the real parts that debuglet works with, each test's in a private node: containerd of both promised
//! versions, a registry, the agent and its command line. Made for tests: what cannot be started panics.
//!
//! ```no_run
//! # async fn example() {
//! use integration::{ContainerdVersion, Node};
//!
//! let node = Node::start(ContainerdVersion::V2_4).await;
//! let agent = node.start_agent().await;
//! node.write_manifest("web.json", &integration::sleeping_pod("web"));
//! agent.api().pod_until("default", "web", integration::is_running).await;
//! println!("{}", node.debuglet(["ps"]).await.stdout);
//! # }
//! ```
// Everything here runs in tests only; clippy.toml's allowance covers no library.
#![allow(clippy::unwrap_used)]

mod agent;
mod api;
mod busy_machine;
mod containerd;
mod cri;
mod eventually;
mod foreign_pod;
mod images;
pub mod kubernetes;
pub mod machine;
mod namespaces;
mod node;
mod parts;
mod pods;
mod process;
mod proxy;
pub mod readme;
mod tcp_front;
mod terminal;
mod watchers;

pub use agent::{Agent, AgentOptions};
pub use api::{Answer, Api, Watch};
pub use busy_machine::BusyMachine;
pub use containerd::ContainerdVersion;
pub use cri::Cri;
pub use eventually::{eventually, eventually_within, in_time, settles};
pub use foreign_pod::ForeignPod;
pub use images::{BUSYBOX, DISTROLESS, LARGE, USER_1000, USER_DEBUG};
pub use node::Node;
pub use parts::needed_folders;
pub use pods::{debug_container, ephemeral_status, is_running, sleeping_pod, state_of};
pub use process::{Output, Process};
pub use proxy::{Held, HeldCalls, Moment, Proxy};
pub use tcp_front::TcpFront;
pub use terminal::Terminal;
pub use watchers::{Watchers, pretend_kubelet, watch_without_reading, write_waiting_pods};
