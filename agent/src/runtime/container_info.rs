//! What containerd tells of a container beside its CRI status: `ContainerStatus` with `verbose`, `info["info"]`.

use std::collections::HashMap;

use debuglet_proto::v1::ContainerStatusRequest;
use serde::de::DeserializeOwned;

use super::client::Runtime;

impl Runtime {
    /// What containerd tells of a container, as far as `T` reads it. `None` where the runtime does not answer, or tells no
    /// such thing.
    pub(crate) async fn container_info<T: DeserializeOwned>(&self, container_id: &str) -> Option<T> {
        let request = ContainerStatusRequest {
            container_id: container_id.to_owned(),
            verbose: true,
        };
        let answer = self.runtime().container_status(request).await.ok()?;
        read(&answer.into_inner().info)
    }
}

/// What an answer's `info` holds under `info`.
pub(super) fn read<T: DeserializeOwned>(info: &HashMap<String, String>) -> Option<T> {
    serde_json::from_str(info.get("info")?).ok()
}
