//! Many clients that watch pods at once, each on a TLS connection of its own.

use std::process::{Command, Stdio};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Request;
use kube::client::Body;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::agent::Agent;
use crate::eventually::{eventually, in_time};
use crate::node::Node;
use crate::pods::sleeping_pod;
use crate::process::Process;

/// How long a watcher may wait for its next line.
const PATIENCE: Duration = Duration::from_secs(300);

/// How many connect at once: no server lets everybody be unknown to it at the same time.
const AT_ONCE: usize = 20;

/// Clients that watch, and note the versions they are told.
#[derive(Debug)]
pub struct Watchers {
    tasks: Vec<JoinHandle<Vec<u64>>>,
}

impl Watchers {
    /// Starts `count` watches on a path, and waits until all are answered. Each goes on until a line holds
    /// `last`.
    pub async fn start(client: &kube::Client, count: usize, path: &str, last: &'static str) -> Watchers {
        allow_open_files();
        let mut tasks = Vec::with_capacity(count);
        while tasks.len() < count {
            let batch = AT_ONCE.min(count - tasks.len());
            let (begun, mut all_begun) = mpsc::channel(batch);
            for _ in 0..batch {
                let watch = watch(client.clone(), path.to_owned(), last, begun.clone());
                tasks.push(tokio::spawn(watch));
            }
            drop(begun);
            for _ in 0..batch {
                let begun = in_time("every watch begins", all_begun.recv(), || path).await;
                begun.expect("no watch has failed");
            }
        }
        Watchers { tasks }
    }

    /// The versions that each was told, in the order in which it was.
    pub async fn told(self) -> Vec<Vec<u64>> {
        let mut told = Vec::with_capacity(self.tasks.len());
        for task in self.tasks {
            told.push(task.await.unwrap());
        }
        told
    }
}

/// Begins a watch whose answer nobody reads.
pub async fn watch_without_reading(client: &kube::Client, path: &str) -> hyper::Response<Body> {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = client.send(request).await.unwrap();
    assert_eq!(response.status(), 200);
    response
}

async fn watch(client: kube::Client, path: String, last: &'static str, begun: mpsc::Sender<()>) -> Vec<u64> {
    let mut body = watch_without_reading(&client, &path).await.into_body();
    begun.send(()).await.unwrap();
    let (mut pending, mut versions) = (Vec::new(), Vec::new());
    loop {
        let frame = tokio::time::timeout(PATIENCE, body.frame()).await;
        let frame = frame.unwrap_or_else(|_| {
            panic!(
                "waited in vain for {PATIENCE:?} for a line with {last:?} of {path}; {} came, to version {:?}",
                versions.len(),
                versions.last()
            )
        });
        let frame = frame.expect("the watch does not end").unwrap();
        pending.extend_from_slice(&frame.into_data().unwrap_or_default());
        while let Some(end) = pending.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            let line = std::str::from_utf8(&line).unwrap();
            versions.push(version(line));
            if line.contains(last) {
                return versions;
            }
        }
    }
}

/// The version of an event's object. Not read as JSON: a thousand watchers read a great many lines.
fn version(line: &str) -> u64 {
    let (_, version) = line
        .split_once(r#""resourceVersion":""#)
        .unwrap_or_else(|| panic!("no version: {line}"));
    let (version, _) = version.split_once('"').unwrap();
    version.parse().unwrap()
}

/// Starts what debuglet takes for a kubelet. Beside one it starts no pods of its own: they are served and wait, and cost
/// no sandbox. To be started before the agent.
pub fn pretend_kubelet(node: &Node) -> Process {
    let program = node.folder().join("kubelet");
    std::fs::copy("/bin/sleep", &program).unwrap();
    let mut kubelet = Command::new(program);
    kubelet.arg("86400").stdin(Stdio::null());
    node.spawn(kubelet)
}

/// Writes the manifests of `count` pods, `pod-0` and so on, and waits until all are served and wait.
pub async fn write_waiting_pods(node: &Node, agent: &Agent, count: usize) {
    let before = agent.api().pods().await.len();
    for number in 0..count {
        let name = format!("pod-{number}");
        node.write_manifest(&format!("{name}.json"), &sleeping_pod(&name));
    }
    eventually("all pods are served, and wait", async || {
        let pods = agent.api().pods().await;
        let waits = |pod: &&Value| pod["status"]["containerStatuses"][0]["state"]["waiting"].is_object();
        let waiting = pods.iter().filter(waits).count();
        if waiting == before + count {
            Ok(())
        } else {
            Err(waiting)
        }
    })
    .await;
}

/// Lets this process have as many files open as it may. Many systems begin with 1024.
fn allow_open_files() {
    let process = std::process::id().to_string();
    let limits = Command::new("prlimit")
        .args([
            "--pid",
            &process,
            "--nofile",
            "--raw",
            "--noheadings",
            "--output",
            "HARD",
        ])
        .output()
        .unwrap();
    let hard = String::from_utf8_lossy(&limits.stdout).trim().to_owned();
    let raised = Command::new("prlimit")
        .args(["--pid", &process, &format!("--nofile={hard}:{hard}")])
        .status()
        .unwrap();
    assert!(raised.success());
}
