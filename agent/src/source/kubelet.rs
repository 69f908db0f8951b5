//! Is a kubelet here? Where one runs, its pods are not ours to add to: the agent then starts no pods of its own.
//!
//! It is here when its signs of life say so (`pod/kubelet_life.rs`), or when there is a pod that only a kubelet can have
//! started.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use debuglet_proto::v1::{
    ListPodSandboxRequest, PodSandbox, PodSandboxFilter, PodSandboxState, PodSandboxStateValue,
};

use crate::kubernetes::kubelet::Look;
use crate::kubernetes::kubelet_signs::{HEALTH_PORT, PROCESS_NAME};
use crate::pod::kubelet_life::{HealthPort, Lease};
use crate::pod::labels;
use crate::runtime::client::Runtime;

/// A runtime that takes longer than this to list its sandboxes shows none.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);

/// The signs of a kubelet on this node. Its text is for people, and names only what proves that one is here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// What a look showed.
    look: Look,
    /// How many ready sandboxes carry the annotation `kubernetes.io/config.source` which ours never do.
    sandboxes: usize,
}

impl Evidence {
    /// Whether a kubelet is here.
    pub(crate) fn is_here(&self) -> bool {
        self.look.judgement.here || self.sandboxes > 0
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signs = &self.look.signs;
        let process = signs
            .process
            .map(|id| format!("process {id} is named {PROCESS_NAME}"));
        let answers = signs.port == HealthPort::OfRoot && self.look.judgement.here;
        let port = answers.then(|| match process {
            Some(_) => format!("port {HEALTH_PORT} answers /healthz"),
            None => format!("port {HEALTH_PORT} answers /healthz and the node's Lease is renewed"),
        });
        let sandboxes = match self.sandboxes {
            0 => None,
            1 => Some("1 pod that a kubelet started runs".to_owned()),
            several => Some(format!("{several} pods that a kubelet started run")),
        };
        let signs: Vec<String> = [process, port, sandboxes].into_iter().flatten().collect();
        formatter.write_str(&signs.join(", "))
    }
}

/// What a look at its signs of life and so many `sandboxes` of a kubelet come to.
pub(crate) fn evidence(look: Look, sandboxes: usize) -> Evidence {
    Evidence { look, sandboxes }
}

/// What makes a look doubtful, by what it is about: something that people should know and can mend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Doubts {
    /// Somebody answers at the health port who does not count as a kubelet.
    pub(crate) health_port: Option<String>,
    /// Processes are hidden.
    pub(crate) processes: Option<String>,
    /// The node's Lease is not known.
    pub(crate) lease: Option<String>,
}

/// What is doubtful about a look at the node `node_name`.
pub(crate) fn doubts(look: &Look, node_name: &str) -> Doubts {
    let health_port = match look.signs.port {
        HealthPort::Silent => None,
        HealthPort::OfRoot if look.judgement.here => None,
        HealthPort::OfRoot if look.judgement.lease_told => Some(format!(
            "A process of root answers at port {HEALTH_PORT} as a kubelet does, but no process is named {PROCESS_NAME} and \
             nobody renews this node's Lease: it is ignored"
        )),
        HealthPort::OfRoot => Some(format!(
            "A process of root answers at port {HEALTH_PORT} as a kubelet does, but no process is named {PROCESS_NAME}, and \
             the API server does not show debuglet this node's Lease: it stops no pods, but nothing is taken over from a \
             kubelet until debuglet can read the Lease (systemd/clusterrole-take-over.yaml)"
        )),
        HealthPort::OfOther(Some(user)) => Some(format!(
            "A process of user {user} answers at the kubelet's health port {HEALTH_PORT}: it is ignored"
        )),
        HealthPort::OfOther(None) => Some(format!(
            "Something answers at the kubelet's health port {HEALTH_PORT}, and /proc/net/tcp does not tell whose it is: it is \
             ignored"
        )),
    };
    let processes = look.signs.processes_hidden.then(|| {
        "/proc hides processes of root from debuglet (hidepid), so it cannot see a kubelet's process: give its unit \
         CAP_SYS_PTRACE (CapabilityBoundingSet)"
            .to_owned()
    });
    let lease = (look.lease == Lease::Unknown).then(|| {
        format!(
            "The API server shows debuglet no Lease of a node {node_name:?}, so nothing is taken over from a kubelet: \
             node_name must be the name that the kubelet has"
        )
    });
    Doubts {
        health_port,
        processes,
        lease,
    }
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
    use crate::kubernetes::kubelet_signs::KubeletSigns;
    use crate::pod::kubelet_life::Judgement;

    /// A look that showed this, and how it was judged.
    fn look(process: Option<u32>, port: HealthPort, here: bool) -> Look {
        Look {
            signs: KubeletSigns {
                process,
                port,
                ..KubeletSigns::default()
            },
            judgement: Judgement {
                here,
                ..Judgement::default()
            },
            ..Look::default()
        }
    }

    #[test]
    fn the_evidence_names_what_proves_that_a_kubelet_is_here_and_the_doubts_what_does_not() {
        use HealthPort::{OfOther, OfRoot, Silent};
        #[rustfmt::skip]
        let table = [
            (look(None, Silent, false),            0, "", None),
            (look(None, OfRoot, false),            0, "", Some("A process of root answers at port 10248 as a kubelet does")),
            (look(None, OfOther(Some(7)), false),  0, "", Some("A process of user 7 answers at the kubelet's health port 10248")),
            (look(None, OfOther(None), false),     0, "", Some("Something answers at the kubelet's health port 10248")),
            (look(Some(812), Silent, true),        0, "process 812 is named kubelet", None),
            (look(None, OfRoot, true),             0, "port 10248 answers /healthz and the node's Lease is renewed", None),
            (look(None, Silent, false),            1, "1 pod that a kubelet started runs", None),
            (look(Some(7), OfRoot, true),          3,
             "process 7 is named kubelet, port 10248 answers /healthz, 3 pods that a kubelet started run", None),
            (look(Some(7), OfOther(Some(1)), true), 0, "process 7 is named kubelet",
             Some("A process of user 1 answers")),
        ];
        for (look, sandboxes, text, doubt) in table {
            let found = evidence(look, sandboxes);
            assert_eq!(found.is_here(), !text.is_empty(), "{found:?}");
            assert_eq!(found.to_string(), text);
            let told = doubts(&look, "node1").health_port;
            assert_eq!(told.is_some(), doubt.is_some(), "{told:?}");
            assert!(told.unwrap_or_default().starts_with(doubt.unwrap_or_default()));
        }
    }

    #[test]
    fn a_port_of_roots_holds_up_a_take_over_only_where_nothing_is_known_of_the_lease() {
        for (lease_told, words) in [(true, "it is ignored"), (false, "clusterrole-take-over.yaml")] {
            let mut look = look(None, HealthPort::OfRoot, false);
            look.judgement.lease_told = lease_told;
            let told = doubts(&look, "node1").health_port.expect("a doubt");
            assert!(told.contains(words), "{told}");
        }
    }

    #[test]
    fn hidden_processes_and_a_lease_that_is_not_known_are_doubts() {
        let mut doubtful = look(None, HealthPort::Silent, false);
        assert_eq!(doubts(&doubtful, "node1"), Doubts::default());
        doubtful.signs.processes_hidden = true;
        doubtful.lease = Lease::Unknown;
        let told = doubts(&doubtful, "node1");
        assert!(
            told.processes
                .is_some_and(|words| words.contains("CAP_SYS_PTRACE"))
        );
        assert!(told.lease.is_some_and(|words| words.contains("\"node1\"")));
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
