//! The real Kubernetes that debuglet is compared with and driven by: a private control plane, a kubelet, kubectl,
//! and a client library's way into a node.

mod client;
mod control_plane;
mod kubectl;
mod kubelet;

pub use client::client;
pub use control_plane::ControlPlane;
pub use kubectl::{Kubectl, KubectlVersion};
pub use kubelet::Kubelet;
