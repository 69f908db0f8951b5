//! From a write over TLS to its answer, beside what a durable write costs in the same folder.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use integration::kubernetes::client;
use integration::{ContainerdVersion, Node, debug_container, sleeping_pod};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::{conditions::is_pod_running, wait::await_condition};
use serde_json::json;

use crate::SAMPLES;
use crate::figures::{median, row, verdict};

/// How much longer than the disk an answer may take.
const BOUND: Duration = Duration::from_millis(3);

/// Measures the writes in turn with the same bytes made durable without the agent.
pub(crate) async fn measure(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    let pods: Api<Pod> = Api::default_namespaced(client(&node, &agent.kubeconfig().await).await);
    let folder = node.folder().join("state/measured");
    fs::create_dir(&folder).unwrap();

    let (mut durable, mut created, mut labelled, mut debugged) = (vec![], vec![], vec![], vec![]);
    for number in 0..SAMPLES {
        let name = format!("written-{number}");
        let pod: Pod = serde_json::from_value(sleeping_pod(&name)).unwrap();
        let bytes = serde_json::to_vec(&pod).unwrap();
        durable.push(write_durably(&folder, &name, &bytes));
        created.push(timed(pods.create(&PostParams::default(), &pod)).await);
        await_condition(pods.clone(), &name, is_pod_running())
            .await
            .unwrap();
        // Of the pod's start, nothing is to be under way.
        tokio::time::sleep(Duration::from_millis(300)).await;

        durable.push(write_durably(&folder, &name, &bytes));
        let label = Patch::Merge(json!({ "metadata": { "labels": { "written": "yes" } } }));
        labelled.push(timed(pods.patch(&name, &PatchParams::default(), &label)).await);

        durable.push(write_durably(&folder, &name, &bytes));
        let container = debug_container("dbg", &["true"]);
        let debug = Patch::Strategic(json!({ "spec": { "ephemeralContainers": [container] } }));
        debugged.push(timed(pods.patch_ephemeral_containers(&name, &PatchParams::default(), &debug)).await);

        pods.delete(&name, &DeleteParams::default().grace_period(0))
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    row("a durable write: file, sync, rename, sync", &durable);
    for (what, samples) in [
        ("POST of a pod, to its 201", &created),
        ("PATCH of a label, to its 200", &labelled),
        ("PATCH of ephemeralcontainers, to its 200", &debugged),
    ] {
        row(what, samples);
        let above = median(samples).saturating_sub(median(&durable));
        verdict(
            "above a durable write, ms",
            above.as_secs_f64() * 1000.0,
            above <= BOUND,
            "3 ms",
        );
    }
}

async fn timed<T>(write: impl Future<Output = kube::Result<T>>) -> Duration {
    let started = Instant::now();
    write.await.unwrap();
    started.elapsed()
}

/// Writes a file so that it would survive a power cut.
fn write_durably(folder: &Path, name: &str, bytes: &[u8]) -> Duration {
    let started = Instant::now();
    let draft = folder.join("draft");
    let mut file = File::create(&draft).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
    fs::rename(&draft, folder.join(name)).unwrap();
    File::open(folder).unwrap().sync_all().unwrap();
    started.elapsed()
}
