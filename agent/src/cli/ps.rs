//! `debuglet ps`: the pods of this node, one a line.

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use k8s_openapi::List;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::Value;

use super::age;
use super::client::{Client, NODE_REPORT, pods_path};
use super::document::{json, yaml};
use super::failure::Failure;
use super::output::{print, tell};
use super::status_words::debug_words;
use super::table::table;
use crate::pod::pod_line::pod_line;

/// The annotation that says where a pod comes from.
const SOURCE: &str = "debuglet.io/source";

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  debuglet ps\n  debuglet ps -n kube-system -o wide\n  debuglet ps -o yaml"
)]
pub(super) struct Arguments {
    /// Only the pods of this namespace; without it, those of all
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// How to print them
    #[arg(short, long, value_name = "FORM")]
    output: Option<Output>,
}

/// Other forms than the plain table.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Json,
    Yaml,
    Wide,
}

/// Prints the pods, and below them what is wrong with the node.
pub(super) async fn run(client: &Client, arguments: Arguments) -> Result<(), Failure> {
    let path = pods_path(arguments.namespace.as_deref());
    let wide = match arguments.output {
        Some(Output::Json) => {
            let pods: Value = client.get(&path).await?;
            return print(&json(&pods)?);
        }
        Some(Output::Yaml) => {
            let pods: Value = client.get(&path).await?;
            return print(&yaml(&pods)?);
        }
        Some(Output::Wide) => true,
        None => false,
    };
    let mut pods: List<Pod> = client.get(&path).await?;
    let report: NodeReport = client.get(NODE_REPORT).await?;
    if pods.items.is_empty() {
        tell(&match &arguments.namespace {
            Some(namespace) => format!("No pods in namespace {namespace}."),
            None => "No pods on this node.".into(),
        });
    } else {
        pods.items
            .sort_by_key(|pod| (pod.metadata.namespace.clone(), pod.metadata.name.clone()));
        print(&pods_table(&pods.items, wide, Timestamp::now()))?;
    }
    for notice in report.notices() {
        tell(&notice);
    }
    Ok(())
}

/// The table of pods.
fn pods_table(pods: &[Pod], wide: bool, now: Timestamp) -> String {
    let mut headings = vec!["NAMESPACE", "POD", "READY", "STATUS", "DEBUG", "SOURCE", "AGE"];
    if wide {
        headings.extend(["RESTARTS", "IP", "NODE"]);
    }
    let rows = pods.iter().map(|pod| row(pod, wide, now)).collect();
    table(&headings, rows)
}

fn row(pod: &Pod, wide: bool, now: Timestamp) -> Vec<String> {
    let line = pod_line(pod);
    let restarts = line.restarts(now);
    let annotations = pod.metadata.annotations.as_ref();
    let source = annotations.and_then(|annotations| annotations.get(SOURCE));
    let or_none = |value: Option<String>| {
        value
            .filter(|value| !value.is_empty())
            .unwrap_or_else(|| "-".into())
    };
    let mut cells = vec![
        pod.metadata.namespace.clone().unwrap_or_default(),
        pod.metadata.name.clone().unwrap_or_default(),
        line.ready(),
        line.status,
        debug_words(pod),
        or_none(source.cloned()),
        age::since(pod.metadata.creation_timestamp.as_ref().map(|time| time.0), now),
    ];
    if wide {
        cells.push(restarts);
        cells.push(or_none(
            pod.status.as_ref().and_then(|status| status.pod_ip.clone()),
        ));
        cells.push(or_none(pod.spec.as_ref().and_then(|spec| spec.node_name.clone())));
    }
    cells
}

/// What the agent reports of its node, as far as it is told here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeReport {
    problems: Vec<Problem>,
    kubelet: KubeletReport,
    manifests: ManifestsReport,
    kubernetes: KubernetesReport,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct KubernetesReport {
    server: String,
    answers: bool,
    message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    pod: String,
    message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct KubeletReport {
    running: bool,
    evidence: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ManifestsReport {
    path: String,
    problems: Vec<ManifestProblem>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ManifestProblem {
    file: String,
    pod: String,
    message: String,
}

impl NodeReport {
    /// One line per thing that the user should know.
    fn notices(&self) -> Vec<String> {
        let mut notices = Vec::new();
        for problem in &self.problems {
            notices.push(match problem.pod.as_str() {
                "" => problem.message.clone(),
                pod => format!("{pod}: {}", problem.message),
            });
        }
        if self.kubelet.running {
            let evidence = match self.kubelet.evidence.as_str() {
                "" => String::new(),
                evidence => format!(" ({evidence})"),
            };
            notices.push(format!(
                "A kubelet runs here{evidence}: pods of {} are not started.",
                self.manifests.path
            ));
        }
        let Self { kubernetes, .. } = self;
        if !kubernetes.answers && !kubernetes.message.is_empty() {
            let server = match kubernetes.server.as_str() {
                "" => String::new(),
                server => format!(" {server}"),
            };
            notices.push(format!(
                "Nothing is known from the API server{server}: {}",
                kubernetes.message
            ));
        }
        for problem in &self.manifests.problems {
            let pod = match problem.pod.as_str() {
                "" => String::new(),
                pod => format!(", pod {pod}"),
            };
            notices.push(format!("{}{pod}: {}", problem.file, problem.message));
        }
        notices
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::visible::hostile::{TEXTS, assert_visible, spoiled};
    use crate::visible::width;
    use serde_json::json;

    fn pods() -> Vec<Pod> {
        serde_json::from_value(json!([
            {
                "metadata": {"namespace": "kube-system", "name": "etcd-node1", "creationTimestamp": "2026-10-11T03:00:00Z",
                             "annotations": {"debuglet.io/source": "manifest"}},
                "spec": {"containers": [{"name": "etcd"}], "nodeName": "node1",
                         "ephemeralContainers": [{"name": "debugger-8f2lq", "image": "busybox"}]},
                "status": {"phase": "Running", "podIP": "10.0.0.7",
                    "containerStatuses": [{"name": "etcd", "image": "", "imageID": "", "ready": true,
                                           "restartCount": 2, "state": {"running": {}}}],
                    "ephemeralContainerStatuses": [{"name": "debugger-8f2lq", "image": "", "imageID": "",
                                           "ready": false, "restartCount": 0, "state": {"running": {}}}]},
            },
            {"metadata": {"namespace": "shop", "name": "cart"}, "spec": {"containers": [{"name": "c"}]},
             "status": {"phase": "Pending"}},
        ]))
        .unwrap()
    }

    #[test]
    fn the_table_has_a_line_per_pod() {
        let now = "2026-11-21T04:00:00Z".parse().unwrap();
        assert_eq!(
            pods_table(&pods(), false, now),
            "NAMESPACE     POD          READY   STATUS    DEBUG       SOURCE     AGE\n\
             kube-system   etcd-node1   1/1     Running   1 running   manifest   41d\n\
             shop          cart         0/1     Pending   -           -          <unknown>\n"
        );
        let wide = pods_table(&pods()[..1], true, now);
        assert!(
            wide.lines()
                .next()
                .unwrap()
                .ends_with("AGE   RESTARTS   IP         NODE"),
            "{wide}"
        );
        assert!(
            wide.trim_end().ends_with("41d   2          10.0.0.7   node1"),
            "{wide}"
        );
    }

    #[test]
    fn what_a_pod_holds_is_shown_as_text_and_keeps_the_columns() {
        let now = "2026-11-21T04:00:00Z".parse().unwrap();
        let pods = serde_json::to_value(pods()).unwrap();
        for (text, shown) in TEXTS {
            let pods: Vec<Pod> = serde_json::from_value(spoiled(&pods, text)).unwrap();
            let table = pods_table(&pods, true, now);
            assert_visible(&table);
            assert_eq!(table.lines().count(), 3, "{table}");
            assert!(table.contains(&format!("etcd-node1{shown}   ")), "{table}");
            let starts: Vec<Option<usize>> = table
                .lines()
                .zip(["STATUS", "Running", "Pending"])
                .map(|(line, word)| line.find(word).map(|at| width(&line[..at])))
                .collect();
            assert!(
                starts.iter().all(|start| start.is_some() && *start == starts[0]),
                "{table}"
            );
        }
    }

    #[test]
    fn what_is_wrong_with_the_node_is_said_below() {
        let report: NodeReport = serde_json::from_value(json!({
            "problems": [{"kind": "RuntimeNotReady", "object": "/run/c.sock", "since": "2026-11-21T04:00:00Z",
                          "message": "The runtime at /run/c.sock is not ready: connection refused"},
                         {"kind": "Other", "object": "x", "since": "2026-11-21T04:00:00Z", "pod": "shop/cart",
                          "message": "Its worker has failed."}],
            "kubelet": {"running": true, "evidence": "process 812"},
            "manifests": {"path": "/etc/debuglet/manifests", "problems": [
                {"file": "a.yaml", "pod": "", "message": "line 3: a tab"},
                {"file": "b.yaml", "pod": "shop/cart", "message": "livenessProbe is not supported"}]},
        }))
        .unwrap();
        assert_eq!(
            report.notices(),
            [
                "The runtime at /run/c.sock is not ready: connection refused",
                "shop/cart: Its worker has failed.",
                "A kubelet runs here (process 812): pods of /etc/debuglet/manifests are not started.",
                "a.yaml: line 3: a tab",
                "b.yaml, pod shop/cart: livenessProbe is not supported",
            ]
        );
    }
}
