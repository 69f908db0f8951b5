//! What every worker needs of the node.

use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use crate::kubernetes::api_server::ApiServer;
use crate::kubernetes::kubelet::Kubelet;
use crate::pod::container_path::ContainerPath;
use crate::pod::kubelet_life::Life;
use crate::runtime::client::Runtime;
use crate::runtime::images::Images;
use crate::runtime::node_facts::NodeFacts;
use crate::store::Store;
use crate::store::events::{Happening, Severity};

/// What every worker needs of the node. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// The pods.
    pub(crate) store: Arc<Store>,
    /// The API server of this node's cluster, where one is configured.
    pub(crate) api_server: Option<Arc<ApiServer>>,
    /// The runtime.
    pub(crate) runtime: Runtime,
    /// Its images.
    pub(crate) images: Arc<Images>,
    /// The facts of this machine and its runtime, as of the last time that they were asked for.
    pub(crate) facts: watch::Receiver<Arc<NodeFacts>>,
    /// The folder of all pods' logs.
    pub(crate) log_dir: PathBuf,
    /// Why no sandbox and no ordinary container may be started now, if so: a kubelet runs here.
    pub(crate) forbidden: watch::Receiver<Option<String>>,
    /// The node's kubelet, where its work is done here while it is down.
    pub(crate) kubelet: Option<Arc<Kubelet>>,
}

impl Context {
    /// The same for the worker of the pod `namespace/name`: its calls to the runtime are made in the pod's name.
    pub(crate) fn for_pod(&self, name: &str) -> Context {
        Context {
            runtime: self.runtime.for_pod(name),
            ..self.clone()
        }
    }

    /// The facts of this machine and its runtime.
    pub(crate) fn facts(&self) -> Arc<NodeFacts> {
        Arc::clone(&self.facts.borrow())
    }

    /// Whether the kubelet's work is done here, as of the last look at it.
    pub(crate) fn kubelet_down(&self) -> bool {
        let kubelet = self.kubelet.as_ref();
        kubelet.is_some_and(|kubelet| *kubelet.life().borrow() == Life::Down)
    }

    /// [`Context::kubelet_down`], as of now.
    pub(crate) async fn kubelet_still_down(&self) -> bool {
        match &self.kubelet {
            Some(kubelet) => kubelet.is_down().await,
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
