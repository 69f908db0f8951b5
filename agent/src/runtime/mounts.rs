//! What is mounted in a container, as it was asked for.

use debuglet_proto::v1::{Container, ContainerStatusRequest, Mount};

use super::client::Runtime;
use super::error::RuntimeError;
use super::observe::none_if_gone;

impl Runtime {
    /// The mounts of the newest container of this name in a sandbox, whatever its state; `None` if there is none.
    pub(crate) async fn newest_mounts(
        &self,
        sandbox_id: &str,
        name: &str,
    ) -> Result<Option<Vec<Mount>>, RuntimeError> {
        let attempt =
            |container: &Container| Some((container.metadata.as_ref()?.attempt, container.created_at));
        let listed = self.list_containers_in(sandbox_id).await?;
        let newest = listed
            .into_iter()
            .filter(|container| {
                let metadata = container.metadata.as_ref();
                metadata.is_some_and(|metadata| metadata.name == name)
            })
            .max_by_key(attempt);
        let Some(newest) = newest else { return Ok(None) };
        let request = ContainerStatusRequest {
            container_id: newest.id.clone(),
            verbose: false,
        };
        match self.runtime().container_status(request).await {
            Ok(answer) => Ok(answer.into_inner().status.map(|status| status.mounts)),
            Err(status) => none_if_gone(RuntimeError::new(
                "read the status of container",
                &newest.id,
                &status,
            )),
        }
    }
}
