//! This node's kubelet, for everyone who has to know whether it lives: looks for its signs, and keeps what they say over
//! time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use tokio::sync::watch;

use super::api_server::ApiServer;
use super::kubelet_signs::{self, KubeletSigns};
use crate::pod::kubelet_life::{KubeletLife, Life, Signs};

/// The namespace of the nodes' Leases (KEP-589).
const LEASES: &str = "kube-node-lease";
/// An API server that takes longer than this says nothing of the Lease.
const LEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// The kubelet of this node, whether there is one or not.
#[derive(Debug)]
pub(crate) struct Kubelet {
    node_name: String,
    api_server: Option<Arc<ApiServer>>,
    down_after: Duration,
    seen: Mutex<KubeletLife>,
    life: watch::Sender<Life>,
}

impl Kubelet {
    /// The kubelet of the node `node_name`, which counts as down once it has shown no sign of life for `down_after`.
    pub(crate) fn new(
        node_name: &str,
        api_server: Option<Arc<ApiServer>>,
        down_after: Duration,
    ) -> Arc<Kubelet> {
        Arc::new(Kubelet {
            node_name: node_name.to_owned(),
            api_server,
            down_after,
            seen: Mutex::new(KubeletLife::new(down_after)),
            life: watch::Sender::default(),
        })
    }

    /// How long it must show no sign of life to count as down.
    pub(crate) fn down_after(&self) -> Duration {
        self.down_after
    }

    /// Looks now: at the process and the health port, and where they show nothing, at the Lease. Takes some
    /// milliseconds, or [`LEASE_TIMEOUT`] where the API server does not answer.
    pub(crate) async fn look(&self) -> (KubeletSigns, Life) {
        let signs = kubelet_signs::look().await;
        let seen = Signs {
            here: signs.any(),
            renewed: if signs.any() { None } else { self.renewed().await },
        };
        let (life, changed) = self.judge(&seen);
        // Where there is no cluster, that there is no kubelet says nothing.
        let in_cluster = |api_server: &Arc<ApiServer>| !api_server.address().is_empty();
        if changed && self.api_server.as_ref().is_some_and(in_cluster) {
            match life {
                Life::Alive => tracing::info!("the kubelet shows signs of life"),
                Life::Quiet => tracing::info!("the kubelet shows no sign of life"),
                Life::Down => tracing::warn!("the kubelet is down"),
            }
        }
        (signs, life)
    }

    /// How it stands after this look, and whether that is news. It is published before another look is judged, so that
    /// what is published is what was judged last.
    fn judge(&self, signs: &Signs) -> (Life, bool) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let life = seen.see(signs, Instant::now(), Timestamp::now());
        let changed = self
            .life
            .send_if_modified(|before| std::mem::replace(before, life) != life);
        (life, changed)
    }

    /// How it stands, as of the last look.
    pub(crate) fn life(&self) -> watch::Receiver<Life> {
        self.life.subscribe()
    }

    /// When it last renewed its Lease; none where the API server does not say.
    async fn renewed(&self) -> Option<Timestamp> {
        let api_server = self.api_server.as_ref()?;
        let ask = async {
            let leases = Api::<Lease>::namespaced(api_server.client().await.ok()?, LEASES);
            leases.get(&self.node_name).await.ok()?.spec?.renew_time
        };
        let asked = tokio::time::timeout(LEASE_TIMEOUT, ask).await;
        asked.ok()?.map(|time| time.0)
    }
}
