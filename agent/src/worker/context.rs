//! What every worker needs of the node.

use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::kubernetes::api_server::ApiServer;
use crate::kubernetes::kubelet::Kubelet;
use crate::pod::cgroup::CgroupDriver;
use crate::pod::container_path::ContainerPath;
use crate::pod::kubelet_life::Life;
use crate::pod::node::Node;
use crate::runtime::client::Runtime;
use crate::runtime::images::Images;
use crate::store::Store;
use crate::store::events::{Happening, Severity};

/// What every worker needs of the node.
#[derive(Debug)]
pub(crate) struct Context {
    /// The pods.
    pub(crate) store: Arc<Store>,
    /// The API server of this node's cluster, where one is configured.
    pub(crate) api_server: Option<Arc<ApiServer>>,
    /// The runtime.
    pub(crate) runtime: Runtime,
    /// Its images.
    pub(crate) images: Arc<Images>,
    /// The facts of this machine.
    pub(crate) node: Node,
    /// Who manages the cgroup tree.
    pub(crate) cgroup_driver: CgroupDriver,
    /// The folder of all pods' logs.
    pub(crate) log_dir: PathBuf,
    /// Why no sandbox and no ordinary container may be started now, if so: a kubelet runs here.
    pub(crate) forbidden: tokio::sync::watch::Receiver<Option<String>>,
    /// The node's kubelet, where its work is done here while it is down.
    pub(crate) kubelet: Option<Arc<Kubelet>>,
}

impl Context {
    /// Whether the kubelet's work is done here, as of the last look at it.
    pub(crate) fn kubelet_down(&self) -> bool {
        let kubelet = self.kubelet.as_ref();
        kubelet.is_some_and(|kubelet| *kubelet.life().borrow() == Life::Down)
    }

    /// [`Context::kubelet_down`], as of now.
    pub(crate) async fn kubelet_still_down(&self) -> bool {
        match &self.kubelet {
            Some(kubelet) => kubelet.look().await.1 == Life::Down,
            None => false,
        }
    }

    /// Records an event on a pod or on one of its containers, and logs it.
    pub(crate) fn tell(
        &self,
        pod: &Pod,
        container: Option<&str>,
        severity: Severity,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let message = message.into();
        let name = pod_name(pod);
        match severity {
            Severity::Normal => tracing::info!(pod = name, container, reason, "{message}"),
            Severity::Warning => tracing::warn!(pod = name, container, reason, "{message}"),
        }
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.store.record_event(
            uid,
            Happening {
                severity,
                reason,
                message,
                container: container.map(|name| ContainerPath::of(pod, name)),
            },
        );
    }
}

/// `namespace/name`.
pub(crate) fn pod_name(pod: &Pod) -> String {
    let metadata = &pod.metadata;
    format!(
        "{}/{}",
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default()
    )
}
