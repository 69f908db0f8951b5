//! Is a kubelet here? Where one runs, its pods are not ours to add to: the agent then starts no pods of its own.
//!
//! One sign is enough: of life, or a pod that only a kubelet can have started.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use debuglet_proto::v1::{
    ListPodSandboxRequest, PodSandbox, PodSandboxFilter, PodSandboxState, PodSandboxStateValue,
};

use crate::kubernetes::kubelet_signs::{HEALTH_ADDRESS, KubeletSigns, PROCESS_NAME};
use crate::pod::labels;
use crate::runtime::client::Runtime;

/// A runtime that takes longer than this to list its sandboxes shows none.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);

/// The signs of a kubelet on this node. Its text is for people, and empty without a sign.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// Its signs of life.
    signs: KubeletSigns,
    /// How many ready sandboxes carry the annotation `kubernetes.io/config.source` which ours never do.
    sandboxes: usize,
}

impl Evidence {
    /// Whether there is any sign of a kubelet.
    pub(crate) fn is_here(&self) -> bool {
        *self != Evidence::default()
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let process = self
            .signs
            .process
            .map(|id| format!("process {id} is named {PROCESS_NAME}"));
        let health_port = self
            .signs
            .health_port
            .then(|| format!("{HEALTH_ADDRESS} answers /healthz"));
        let sandboxes = match self.sandboxes {
            0 => None,
            1 => Some("1 pod that a kubelet started runs".to_owned()),
            several => Some(format!("{several} pods that a kubelet started run")),
        };
        let signs: Vec<String> = [process, health_port, sandboxes].into_iter().flatten().collect();
        formatter.write_str(&signs.join(", "))
    }
}

/// What `signs` of life and so many `sandboxes` of a kubelet come to.
pub(crate) fn evidence(signs: KubeletSigns, sandboxes: usize) -> Evidence {
    Evidence { signs, sandboxes }
}

/// How many ready sandboxes a kubelet made. A runtime that does not answer shows none.
pub(crate) async fn sandboxes(runtime: &Runtime) -> usize {
    let ready = PodSandboxFilter {
        state: Some(PodSandboxStateValue {
            state: PodSandboxState::SandboxReady.into(),
        }),
        ..PodSandboxFilter::default()
    };
    let mut client = runtime.runtime();
    let request = client.list_pod_sandbox(ListPodSandboxRequest { filter: Some(ready) });
    let Ok(Ok(answer)) = tokio::time::timeout(LIST_TIMEOUT, request).await else {
        return 0;
    };
    let sandboxes = answer.into_inner().items;
    let is_a_kubelets = |sandbox: &&PodSandbox| is_a_kubelets(&sandbox.annotations);
    sandboxes.iter().filter(is_a_kubelets).count()
}

/// Whether a sandbox of these annotations was made by a kubelet: ours never carry its annotation, whatever their pods do.
fn is_a_kubelets(annotations: &HashMap<String, String>) -> bool {
    annotations.contains_key(labels::CONFIG_SOURCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_sign_means_no_kubelet_and_each_sign_alone_means_one() {
        assert!(!Evidence::default().is_here());
        assert_eq!(Evidence::default().to_string(), "");
        for (evidence, text) in [
            (
                Evidence {
                    signs: KubeletSigns {
                        process: Some(812),
                        health_port: false,
                    },
                    sandboxes: 0,
                },
                "process 812 is named kubelet",
            ),
            (
                Evidence {
                    signs: KubeletSigns {
                        process: None,
                        health_port: true,
                    },
                    sandboxes: 0,
                },
                "127.0.0.1:10248 answers /healthz",
            ),
            (
                Evidence {
                    sandboxes: 1,
                    ..Evidence::default()
                },
                "1 pod that a kubelet started runs",
            ),
            (
                Evidence {
                    signs: KubeletSigns {
                        process: Some(7),
                        health_port: true,
                    },
                    sandboxes: 3,
                },
                "process 7 is named kubelet, 127.0.0.1:10248 answers /healthz, 3 pods that a kubelet started run",
            ),
        ] {
            assert!(evidence.is_here());
            assert_eq!(evidence.to_string(), text);
        }
    }

    #[test]
    fn only_sandboxes_with_the_kubelets_annotation_are_a_kubelets() {
        let of = |keys: &[&str]| {
            keys.iter()
                .map(|key| ((*key).to_owned(), "a".to_owned()))
                .collect()
        };
        assert!(is_a_kubelets(&of(&[labels::CONFIG_SOURCE])));
        assert!(!is_a_kubelets(&of(&["note"])));
        assert!(!is_a_kubelets(&of(&[])));
    }
}
