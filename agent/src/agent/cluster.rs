//! What has to do with the node's cluster: its API server and its kubelet, and the tasks that stand on them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config};
use crate::kubernetes::api_server::ApiServer;
use crate::kubernetes::kubelet::Kubelet;
use crate::report;
use crate::runtime::client::Runtime;
use crate::source::take_over::TakeOver;
use crate::source::{kubernetes, node_name};
use crate::store::Store;

/// The cluster of this node, if it has one.
pub(super) struct Cluster {
    api_server: Option<Arc<ApiServer>>,
    /// The node's kubelet.
    pub(super) kubelet: Arc<Kubelet>,
    takes_over: bool,
}

impl Cluster {
    /// The cluster of this API server. Nobody is asked for anything yet.
    pub(super) fn new(config: &Config, api_server: Option<Arc<ApiServer>>) -> Cluster {
        let down_after = Duration::from_secs(config.kubernetes.kubelet_down_seconds);
        Cluster {
            kubelet: Kubelet::new(&config.node_name, api_server.clone(), down_after),
            takes_over: api_server.is_some()
                && config.kubernetes.take_over == config::TakeOver::WhenKubeletIsDown,
            api_server,
        }
    }

    /// The kubelet, where its work is done here while it is down.
    pub(super) fn taken_over(&self) -> Option<Arc<Kubelet>> {
        self.takes_over.then(|| Arc::clone(&self.kubelet))
    }

    /// Starts what runs until `shutdown`: each task with its name.
    pub(super) fn start(
        &self,
        store: &Arc<Store>,
        runtime: &Runtime,
        log_dir: &Path,
        shutdown: &CancellationToken,
    ) -> Vec<(&'static str, JoinHandle<()>)> {
        let Some(api_server) = &self.api_server else {
            return Vec::new();
        };
        let watching = kubernetes::run(Arc::clone(api_server), Arc::clone(store), shutdown.clone());
        let events = report::events::run(Arc::clone(api_server), Arc::clone(store), shutdown.clone());
        let statuses = report::statuses::run(
            Arc::clone(api_server),
            Arc::clone(store),
            Arc::clone(&self.kubelet),
            shutdown.clone(),
        );
        let appending = report::ephemeral_containers::run(
            Arc::clone(api_server),
            Arc::clone(store),
            runtime.clone(),
            shutdown.clone(),
        );
        let naming = node_name::run(Arc::clone(api_server), Arc::clone(store), shutdown.clone());
        let mut tasks = vec![
            ("the look at the node's name", tokio::spawn(naming)),
            ("the watch of the API server", tokio::spawn(watching)),
            ("appending to the API server's pods", tokio::spawn(appending)),
            ("the report of events", tokio::spawn(events)),
            ("the report of states", tokio::spawn(statuses)),
        ];
        if let Some(kubelet) = self.taken_over() {
            let taking = TakeOver::new(kubelet, Arc::clone(store), runtime.clone(), log_dir);
            let taking = tokio::spawn(taking.run(shutdown.clone()));
            tasks.push(("taking over from the kubelet", taking));
        }
        tasks
    }
}
