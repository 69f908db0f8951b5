//! The labels and annotations by which sandboxes and containers are told apart: the kubelet's own, so that
//! crictl, log shippers and a kubelet that is started here find what they know, and one that says who made them.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Pod;

/// The label that marks what debuglet created: nothing without it is ever touched.
pub(crate) const ORIGIN: &str = "io.debuglet.origin";
/// Its value.
pub(crate) const ORIGIN_DEBUGLET: &str = "debuglet";
/// The pod's name.
pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
/// The pod's namespace.
pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// The pod's UID.
pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
/// The container's name in the pod's spec.
pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Annotation: `spec.terminationGracePeriodSeconds`.
pub(crate) const TERMINATION_GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
/// Annotation: a hash of the container's spec, in hexadecimal digits.
pub(crate) const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
/// Annotation: the container's attempt.
pub(crate) const CONTAINER_RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Annotation: `terminationMessagePath`.
pub(crate) const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// Annotation: `terminationMessagePolicy`.
pub(crate) const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// Annotation: the container's ports as JSON.
pub(crate) const CONTAINER_PORTS: &str = "io.kubernetes.container.ports";
/// Annotation of a kubelet's own sandboxes: where it read the pod. What carries it is a kubelet's pod.
pub(crate) const CONFIG_SOURCE: &str = "kubernetes.io/config.source";

/// Annotation of an API server's mirror pod: the UID that its static pod has in the runtime.
pub(crate) const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";

/// What marks everything of a pod: whose it is and who made it.
pub(crate) fn of_pod(pod: &Pod) -> HashMap<String, String> {
    let metadata = &pod.metadata;
    [
        (POD_NAME, metadata.name.as_deref()),
        (POD_NAMESPACE, metadata.namespace.as_deref()),
        (POD_UID, metadata.uid.as_deref()),
        (ORIGIN, Some(ORIGIN_DEBUGLET)),
    ]
    .into_iter()
    .map(|(label, value)| (label.to_owned(), value.unwrap_or_default().to_owned()))
    .collect()
}
