//! From the PATCH of `kubectl debug -i` to the first byte of output, beside kubelet and kube-apiserver.

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use integration::kubernetes::{ControlPlane, Kubectl, KubectlVersion, Kubelet};
use integration::{ContainerdVersion, Node, sleeping_pod};

use crate::SAMPLES;
use crate::figures::{median, row, verdict};

/// Between two commands, so that what the one before left is done.
const PAUSE: Duration = Duration::from_millis(500);
/// Seconds.
const DAY: u64 = 24 * 60 * 60;

/// Measures both in turn, each on a node of its own.
pub(crate) async fn measure(version: ContainerdVersion) {
    let (ours, theirs) = (Node::start(version).await, Node::start(version).await);
    let agent = ours.start_agent().await;
    let plane = ControlPlane::start(&theirs).await;
    let _kubelet = Kubelet::start(&theirs, &plane).await;
    let debuglet = Kubectl::new(&ours, KubectlVersion::V1_36, &agent.kubeconfig().await);
    let kubernetes = Kubectl::new(&theirs, KubectlVersion::V1_36, &plane.kubeconfig());
    for kubectl in [&debuglet, &kubernetes] {
        create_pod(kubectl).await;
        // The first of each fills caches.
        patch_to_first_byte(kubectl, "first").await;
    }
    let (mut with_debuglet, mut with_kubernetes) = (Vec::new(), Vec::new());
    for number in 0..SAMPLES {
        let name = format!("dbg-{number}");
        with_debuglet.push(patch_to_first_byte(&debuglet, &name).await);
        tokio::time::sleep(PAUSE).await;
        with_kubernetes.push(patch_to_first_byte(&kubernetes, &name).await);
        tokio::time::sleep(PAUSE).await;
    }
    row("kubectl debug -i, PATCH to first byte", &with_debuglet);
    row("the same with kube-apiserver and kubelet", &with_kubernetes);
    let ratio = median(&with_debuglet).as_secs_f64() / median(&with_kubernetes).as_secs_f64();
    verdict("debuglet / Kubernetes", ratio, ratio <= 1.0, "1.0");
}

async fn create_pod(kubectl: &Kubectl<'_>) {
    let mut pod = sleeping_pod("measured");
    pod["spec"]["nodeName"] = "node1".into();
    let file = kubectl.file("measured.json", &pod.to_string());
    kubectl.run(["create", "-f", &file]).await.succeeded();
    kubectl
        .run("wait --for=condition=Ready pod/measured --timeout=60s".split(' '))
        .await
        .succeeded();
}

/// Starts a container that says what is typed, with a line typed beforehand. When the PATCH was sent, kubectl's own log
/// tells: it has a line for each answer, with the time and how long the answer took.
async fn patch_to_first_byte(kubectl: &Kubectl<'_>, name: &str) -> Duration {
    let mut command = kubectl.command([
        "debug",
        "-i",
        "measured",
        "-v=6",
        "-c",
        name,
        "--image=docker.io/library/busybox:latest",
        "--image-pull-policy=IfNotPresent",
        "--",
        "sh",
        "-c",
        // What is written right before the end can be lost on its way: it lives a little longer.
        "read line; echo $line; sleep 1",
    ]);
    command.env("TZ", "UTC").stdin(Stdio::piped());
    let (mut output, written) = std::io::pipe().unwrap();
    let mut process = kubectl.node().spawn_with_stdout(command, written);
    let mut keyboard = process.stdin().unwrap();
    keyboard.write_all(b"typed\n").unwrap();
    let first_byte =
        tokio::task::spawn_blocking(move || output.read_exact(&mut [0]).map(|()| SystemTime::now()));
    let first_byte = first_byte.await.unwrap().expect("the line comes back");
    let said = process.output().await.stderr;
    // Not before: the end of the input would detach the output.
    drop(keyboard);
    let patch = said
        .lines()
        .find(|line| line.contains("verb=\"PATCH\""))
        .unwrap_or_else(|| panic!("no PATCH in {said}"));
    let patched = answered_at(patch) - took(patch);
    // klog's stamps have no date.
    let midnight = first_byte
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs()
        / DAY
        * DAY;
    let first_byte =
        first_byte.duration_since(SystemTime::UNIX_EPOCH).unwrap() - Duration::from_secs(midnight);
    if first_byte >= patched {
        first_byte - patched
    } else {
        first_byte + Duration::from_secs(DAY) - patched
    }
}

/// When a line of klog's was written, since midnight: `I1121 20:53:50.773044 ...`.
fn answered_at(line: &str) -> Duration {
    let clock = line.split_whitespace().nth(1).unwrap();
    let parts: Vec<f64> = clock.split(':').map(|part| part.parse().unwrap()).collect();
    Duration::from_secs_f64(parts[0] * 3600.0 + parts[1] * 60.0 + parts[2])
}

/// How long the answer took that a line of klog's is about.
fn took(line: &str) -> Duration {
    let milliseconds = line.split("milliseconds=").nth(1).unwrap();
    let milliseconds = milliseconds.split_whitespace().next().unwrap();
    Duration::from_millis(milliseconds.parse().unwrap())
}
