//! `pods`: what they are selected by, their table, and which pod a name means.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::resource::Resource;
use super::selectors::{Field, text};
use super::status::Failure;
use super::table::Column;
use crate::pod::age;
use crate::pod::pod_line::{node_name, nominated_node, pod_ip, pod_line, readiness_gates};
use crate::pod::visibility::Audience;
use crate::store::Store;

impl Resource for Pod {
    const FIELDS: &'static [Field<Pod>] = &[
        ("metadata.name", |pod| text(pod.metadata.name.as_ref())),
        ("metadata.namespace", |pod| text(pod.metadata.namespace.as_ref())),
        ("spec.nodeName", |pod| {
            text(pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()))
        }),
        ("spec.restartPolicy", |pod| {
            text(pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_ref()))
        }),
        ("spec.schedulerName", |pod| {
            text(pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_ref()))
        }),
        ("spec.serviceAccountName", |pod| {
            text(
                pod.spec
                    .as_ref()
                    .and_then(|spec| spec.service_account_name.as_ref()),
            )
        }),
        ("spec.hostNetwork", |pod| {
            match pod.spec.as_ref().and_then(|spec| spec.host_network) {
                Some(true) => "true",
                _ => "false",
            }
        }),
        ("status.phase", |pod| {
            text(pod.status.as_ref().and_then(|status| status.phase.as_ref()))
        }),
        ("status.podIP", |pod| {
            text(pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()))
        }),
        ("status.nominatedNodeName", |pod| {
            text(
                pod.status
                    .as_ref()
                    .and_then(|status| status.nominated_node_name.as_ref()),
            )
        }),
    ];

    const COLUMNS: &'static [Column] = &[
        Column::name("The pod's name, unique in its namespace."),
        Column::new("Ready", "How many of the pod's containers are ready."),
        Column::new("Status", "One word for the state of the pod and its containers."),
        Column::new(
            "Restarts",
            "How often containers were started again, and when last.",
        ),
        Column::new("Age", "How long ago the pod was created."),
        Column::new("IP", "The pod's first address.").wide(),
        Column::new("Node", "The node that the pod runs on.").wide(),
        Column::new("Nominated Node", "The node that is being cleared for the pod.").wide(),
        Column::new(
            "Readiness Gates",
            "How many of the pod's own conditions of readiness hold.",
        )
        .wide(),
    ];

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let line = pod_line(self);
        let created = self.metadata.creation_timestamp.as_ref().map(|time| time.0);
        vec![
            json!(self.metadata.name.as_deref().unwrap_or_default()),
            json!(line.ready()),
            json!(line.status),
            json!(line.restarts(now)),
            json!(age::since(created, now)),
            json!(pod_ip(self)),
            json!(node_name(self)),
            json!(nominated_node(self)),
            json!(readiness_gates(self)),
        ]
    }

    /// Of two pods of one name, the newest that is not on its way out.
    fn find(store: &Store, audience: Audience, namespace: Option<&str>, name: &str) -> Option<Arc<Pod>> {
        store.pod_for(audience, namespace.unwrap_or_default(), name)
    }
}

/// The pod as `audience` sees it, or the answer that there is none.
pub(crate) fn find(
    store: &Store,
    audience: Audience,
    namespace: &str,
    name: &str,
) -> Result<Arc<Pod>, Failure> {
    store
        .pod_for(audience, namespace, name)
        .ok_or_else(|| Failure::no_such("pods", name))
}
