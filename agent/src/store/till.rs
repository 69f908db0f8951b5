//! The pod of a kubelet's that the tests of the store look at: `shop/till` with the UID `u1`.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::Store;
use super::discovered::Discovered;
use super::disk::Disk;
use crate::pod::discovered::volumes::MountedVolumes;
use crate::pod::discovered::{DiscoveredPod, Owner};

/// A store in `folder` with the pod, which `owner` runs and the API server has not told of.
pub(super) async fn store_with(folder: &Path, owner: Owner) -> Arc<Store> {
    let store = Store::load("node1", Disk::open(folder).unwrap()).unwrap().0;
    let pod = json!({
        "metadata": {"name": "till", "namespace": "shop", "uid": "u1"},
        "spec": {"containers": [{"name": "main", "image": "busybox:1"}], "securityContext": {}},
    });
    let found = DiscoveredPod {
        pod: serde_json::from_value(pod).unwrap(),
        sandbox_id: "s1".to_owned(),
        owner,
        manifest: None,
        volumes: MountedVolumes::default(),
        etc_hosts: None,
        kubelet_root: None,
    };
    let uids = BTreeSet::from(["u1".to_owned()]);
    let discovered = Discovered {
        changed: vec![found],
        ready: uids.clone(),
        listed: uids,
        complete: true,
    };
    assert!(store.apply_discovered(discovered).await.unwrap().is_empty());
    store
}

/// The pod as the API server has it at this version, with these ephemeral containers.
pub(super) fn known(version: &str, ephemeral: Value) -> Box<Pod> {
    let pod = json!({
        "metadata": {"name": "till", "namespace": "shop", "uid": "u1", "resourceVersion": version},
        "spec": {"containers": [{"name": "main", "image": "busybox:1"}], "ephemeralContainers": ephemeral},
    });
    Box::new(serde_json::from_value(pod).unwrap())
}
