//! What the node has and lacks, as `debuglet ps` shows it and the extension group serves it.

use serde::{Deserialize, Serialize};

use super::problems::Problem;
use crate::pod::visibility::Audience;

/// The node as the agent sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct NodeReport {
    /// debuglet's own version.
    pub(crate) version: String,
    /// The node's name.
    pub(crate) node_name: String,
    /// The container runtime.
    pub(crate) runtime: RuntimeReport,
    /// Whether a kubelet runs here.
    pub(crate) kubelet: KubeletReport,
    /// The API over TLS.
    pub(crate) api: ApiReport,
    /// The manifests folder.
    pub(crate) manifests: ManifestsReport,
    /// The API server of the node's cluster.
    pub(crate) kubernetes: KubernetesReport,
    /// What is wrong at this moment; [`super::Store::node_report`] fills it in.
    pub(crate) problems: Vec<Problem>,
}

impl NodeReport {
    /// The report as `audience` sees it. What is wrong names pods and containers that are hidden from users of the cluster,
    /// so it is for clients of the node; of the kinds of problems `/readyz` tells.
    pub(crate) fn shown_to(mut self, audience: Audience) -> NodeReport {
        if audience == Audience::Cluster {
            self.manifests = ManifestsReport::default();
            self.problems = Vec::new();
        }
        self
    }
}

/// The API server of the node's cluster; all empty where there is none, or it was not asked yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct KubernetesReport {
    /// Where it is: `https://...`; empty where that cannot be read.
    pub(crate) server: String,
    /// Where that and the credentials were read: a kubeconfig, or `in-cluster`.
    pub(crate) credentials: String,
    /// Whether it answered when it was last asked.
    pub(crate) answers: bool,
    /// Why not, if it did not.
    pub(crate) message: String,
}

/// The API over TLS; all empty where the configuration turns it off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ApiReport {
    /// Where it listens, or should: `https://...`.
    pub(crate) listen: String,
    /// root's kubeconfig.
    pub(crate) kubeconfig: String,
    /// Whether it listens.
    pub(crate) ready: bool,
    /// Why not, if it does not.
    pub(crate) message: String,
}

/// The container runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RuntimeReport {
    /// The address it is asked at: `unix:///...`.
    pub(crate) endpoint: String,
    /// What it calls itself.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
    /// Whether it answers.
    pub(crate) ready: bool,
    /// Why not, if it does not.
    pub(crate) message: String,
}

/// Whether a kubelet runs here: then no pods of our own are started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct KubeletReport {
    /// Whether it was looked for at all since the agent started.
    pub(crate) looked: bool,
    /// Whether one was found.
    pub(crate) running: bool,
    /// By what.
    pub(crate) evidence: String,
}

/// Why no pods of our own are started here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoPods {
    /// Nobody knows yet.
    #[error("it is not known yet whether a kubelet runs on this node: until then debuglet takes no pods")]
    NotLookedYet,
    /// A kubelet is here.
    #[error("a kubelet runs on this node ({0}): debuglet starts no pods of its own beside it")]
    Kubelet(String),
}

impl KubeletReport {
    /// Whether pods of our own may be started here.
    pub(crate) fn allows_pods(&self) -> Result<(), NoPods> {
        if !self.looked {
            return Err(NoPods::NotLookedYet);
        }
        if self.running {
            return Err(NoPods::Kubelet(self.evidence.clone()));
        }
        Ok(())
    }
}

/// The manifests folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ManifestsReport {
    /// Where it is.
    pub(crate) path: String,
    /// What is wrong with what lies in it.
    pub(crate) problems: Vec<ManifestProblem>,
}

/// Something in the manifests folder that is not done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ManifestProblem {
    /// The file, without its folder.
    pub(crate) file: String,
    /// `namespace/name` of the pod, where the trouble is one pod's.
    pub(crate) pod: String,
    /// What is wrong, in one line.
    pub(crate) message: String,
}
