//! The pods of this node as the API server knows them: watched by `spec.nodeName`, and merged into the store.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::watcher::{self, Event};
use tokio_util::sync::CancellationToken;

use crate::kubernetes::api_server::ApiServer;
use crate::store::Store;
use crate::store::kubernetes::KubernetesChange;

/// How long an API server that does not answer is left alone.
const RETRY: Duration = Duration::from_secs(5);

/// Keeps what the store knows from the API server what that says, until `shutdown`.
pub(crate) async fn run(api_server: Arc<ApiServer>, store: Arc<Store>, shutdown: CancellationToken) {
    let follow = async {
        loop {
            if let Err(error) = follow(&api_server, &store).await {
                tracing::warn!("the API server's pods cannot be watched: {error}");
                api_server.failed(&error);
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    shutdown.run_until_cancelled(follow).await;
}

/// Follows the watch until it fails; answers why, in words.
async fn follow(api_server: &ApiServer, store: &Store) -> Result<(), String> {
    let client = api_server.client().await.map_err(|error| error.to_string())?;
    let of_node = watcher::Config::default().fields(&format!("spec.nodeName={}", store.node_name()));
    let events = kube::runtime::watcher(Api::<Pod>::all(client), of_node);
    pin_mut!(events);
    let mut listed = Vec::new();
    while let Some(event) = events.next().await {
        let event = event.map_err(|error| error.to_string())?;
        api_server.answered();
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(pod) => listed.push(pod),
            Event::InitDone => store.apply_kubernetes(KubernetesChange::All(std::mem::take(&mut listed))),
            Event::Apply(pod) => store.apply_kubernetes(KubernetesChange::Applied(Box::new(pod))),
            Event::Delete(pod) => store.apply_kubernetes(KubernetesChange::Gone(Box::new(pod))),
        }
    }
    Ok(())
}
