//! The real Kubernetes that debuglet is compared with and driven by: a private control plane, a kubelet, kubectl,
//! and a client library's way into a node.

mod client;
mod control_plane;
mod kubectl;
mod kubelet;
mod refusing_front;
mod static_control_plane;

pub use client::client;
pub use control_plane::ControlPlane;
pub use kubectl::{Kubectl, KubectlVersion};
pub use kubelet::{Kubelet, kubelet_configuration};
pub use refusing_front::RefusingFront;
pub use static_control_plane::{control_plane_images, write_static_control_plane};

/// A program of Kubernetes' own: kubelet, kubectl, ...
pub fn program(name: &str) -> std::path::PathBuf {
    crate::parts::built(&format!("kubernetes/{name}"))
}
