//! One API server, for everyone who speaks to it: the client, and whether it answers.

use std::fmt;
use std::path::Path;
use std::sync::Mutex;

use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::sync::watch;

use crate::config::{KUBELET_KUBECONFIG, KubeconfigSetting};

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiServerError {
    /// The kubeconfig cannot be read, or says what cannot be used.
    #[error("cannot use the kubeconfig {file}: {source}")]
    Kubeconfig {
        /// The file.
        file: String,
        /// What is wrong.
        source: kube::config::KubeconfigError,
    },
    /// This is not a pod of a cluster.
    #[error("cannot find the API server from within: {0}")]
    InCluster(#[source] kube::config::InClusterError),
    /// What the kubeconfig says makes no client.
    #[error("cannot make a client of the API server: {0}")]
    Client(#[source] kube::Error),
}

/// Whether the API server answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Nobody has asked yet.
    #[default]
    Unknown,
    /// It did when it was last asked.
    Answers,
    /// It did not, for this reason.
    Away(String),
}

/// The API server of this node's cluster.
pub(crate) struct ApiServer {
    kubeconfig: KubeconfigSetting,
    client: Mutex<Option<Client>>,
    reach: watch::Sender<Reach>,
}

impl fmt::Debug for ApiServer {
    /// Without the client, which holds credentials.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ApiServer")
            .field("kubeconfig", &self.kubeconfig)
            .field("reach", &*self.reach.borrow())
            .finish_non_exhaustive()
    }
}

impl ApiServer {
    /// The one that the configuration names; none where it names none, or the kubelet's kubeconfig is not there.
    pub(crate) fn configured(setting: &KubeconfigSetting) -> Option<ApiServer> {
        match setting {
            KubeconfigSetting::Off => return None,
            KubeconfigSetting::Kubelet if !Path::new(KUBELET_KUBECONFIG).exists() => return None,
            _ => {}
        }
        Some(ApiServer {
            kubeconfig: setting.clone(),
            client: Mutex::new(None),
            reach: watch::Sender::new(Reach::Unknown),
        })
    }

    /// A client of it, whether or not it answers.
    pub(crate) async fn client(&self) -> Result<Client, ApiServerError> {
        if let Some(client) = self.kept() {
            return Ok(client);
        }
        let config = match &self.kubeconfig {
            KubeconfigSetting::InCluster => kube::Config::incluster().map_err(ApiServerError::InCluster)?,
            KubeconfigSetting::File(file) => from_file(file).await?,
            KubeconfigSetting::Kubelet | KubeconfigSetting::Off => {
                from_file(Path::new(KUBELET_KUBECONFIG)).await?
            }
        };
        let client = Client::try_from(config).map_err(ApiServerError::Client)?;
        *self.lock() = Some(client.clone());
        Ok(client)
    }

    /// Whether it answers, and when that changes.
    #[allow(dead_code, reason = "the next steps stand on it")]
    pub(crate) fn reach(&self) -> watch::Receiver<Reach> {
        self.reach.subscribe()
    }

    /// Says that it has answered.
    pub(crate) fn answered(&self) {
        self.set(Reach::Answers);
    }

    /// Says that it has not answered, and why.
    pub(crate) fn failed(&self, reason: &str) {
        self.set(Reach::Away(reason.to_owned()));
    }

    fn set(&self, reach: Reach) {
        self.reach.send_if_modified(|current| {
            let changed = *current != reach;
            *current = reach;
            changed
        });
    }

    fn kept(&self) -> Option<Client> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Client>> {
        self.client
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

async fn from_file(file: &Path) -> Result<kube::Config, ApiServerError> {
    let named = |source| ApiServerError::Kubeconfig {
        file: file.display().to_string(),
        source,
    };
    let kubeconfig = Kubeconfig::read_from(file).map_err(named)?;
    kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(named)
}
