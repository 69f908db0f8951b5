//! Client libraries that nobody here wrote: kube for Rust, and Kubernetes' own for Python.

use std::process::{Command, Stdio};

use futures_util::TryStreamExt;
use integration::debug_container;
use integration::kubernetes::client;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, watcher};
use kube::runtime::{WatchStreamExt, wait::await_condition};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::server::{Server, echoing_pod, pod};

on_debuglet_and_kubernetes!(kube_for_rust_works, the_python_client_works);

async fn kube_for_rust_works(server: &Server) {
    let pods: Api<Pod> = Api::default_namespaced(client(&server.node, server.kubeconfig()).await);
    let created = create(&pods, &pod("web")).await;
    let listed = pods.list(&ListParams::default().labels("app=web")).await.unwrap();
    assert_eq!(listed.items.len(), 1);
    assert_eq!(listed.items[0].metadata.uid, created.metadata.uid);

    let container = debug_container(
        "dbg",
        &["sh", "-c", "echo begun; read line; echo got $line; sleep 600"],
    );
    let mut container = container;
    container["stdin"] = true.into();
    let patch = json!({ "spec": { "ephemeralContainers": [container] } });
    let patched = pods
        .patch_ephemeral_containers("web", &PatchParams::default(), &Patch::Strategic(patch))
        .await
        .unwrap();
    assert_eq!(patched.spec.unwrap().ephemeral_containers.unwrap().len(), 1);
    await_condition(pods.clone(), "web", |pod: Option<&Pod>| debugs(pod, "dbg"))
        .await
        .unwrap();

    let attach = AttachParams::default().container("dbg").stdin(true).stderr(false);
    let mut attached = pods.attach("web", &attach).await.unwrap();
    attached.stdin().unwrap().write_all(b"this\n").await.unwrap();
    let mut said = [0; 9];
    attached.stdout().unwrap().read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"got this\n");
    drop(attached);

    let exec = AttachParams::default().container("main");
    let mut executed = pods
        .exec("web", ["sh", "-c", "echo out; exit 3"], &exec)
        .await
        .unwrap();
    let status = executed.take_status().unwrap();
    let mut out = String::new();
    executed.stdout().unwrap().read_to_string(&mut out).await.unwrap();
    assert_eq!(out, "out\n");
    let status = status.await.unwrap();
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"), "{status:?}");

    let log = LogParams {
        container: Some("dbg".to_owned()),
        ..Default::default()
    };
    assert_eq!(pods.logs("web", &log).await.unwrap(), "begun\ngot this\n");
    assert_eq!(echoed_through_a_forward(&pods).await, "ping");

    let gone = pods.delete("web", &DeleteParams::default()).await.unwrap();
    assert!(gone.left().is_some(), "the pod, on its way out");
    let missing = pods.get("nope").await.unwrap_err();
    let kube::Error::Api(status) = missing else {
        panic!("{missing}")
    };
    assert_eq!((status.code, status.reason.as_str()), (404, "NotFound"));
}

/// What comes back through a forwarded port for `ping`.
async fn echoed_through_a_forward(pods: &Api<Pod>) -> String {
    create(pods, &echoing_pod("echo")).await;
    let mut forward = pods.portforward("echo", &[8080]).await.unwrap();
    let mut stream = forward.take_stream(8080).unwrap();
    stream.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.unwrap();
    String::from_utf8(answer.to_vec()).unwrap()
}

async fn create(pods: &Api<Pod>, pod: &Value) -> Pod {
    let pod: Pod = serde_json::from_value(pod.clone()).unwrap();
    let created = pods.create(&PostParams::default(), &pod).await.unwrap();
    let name = created.metadata.name.as_deref().unwrap();
    await_condition(pods.clone(), name, kube::runtime::conditions::is_pod_running())
        .await
        .unwrap();
    created
}

/// Whether an ephemeral container of a pod runs.
fn debugs(pod: Option<&Pod>, name: &str) -> bool {
    let statuses = pod
        .and_then(|pod| pod.status.as_ref()?.ephemeral_container_statuses.as_deref())
        .unwrap_or_default();
    statuses.iter().any(|status| {
        status.name == name && status.state.as_ref().is_some_and(|state| state.running.is_some())
    })
}

async fn the_python_client_works(server: &Server) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/client.py");
    let kubectl = server.kubectl();
    for pod in [pod("web"), echoing_pod("echo")] {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let file = kubectl.file(name, &pod.to_string());
        kubectl.run(["create", "-f", &file]).await.succeeded();
        let ready = ["wait", "--for=condition=Ready", "pod", name, "--timeout=60s"];
        kubectl.run(ready).await.succeeded();
    }
    let mut command = Command::new("/usr/bin/python3");
    command
        .arg(script)
        .env("KUBECONFIG", server.kubeconfig())
        .env("PYTHONWARNINGS", "ignore")
        .stdin(Stdio::null());
    let output = server.node.spawn(command).output().await.succeeded();
    assert_eq!(
        output.stdout,
        "list\nwatch\npatch\nattach\nexec\nlog\nportforward\ngone\n"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reflector_goes_on_across_restarts_of_the_agent() {
    let mut server = Server::debuglet(integration::ContainerdVersion::V1_6).await;
    let pods: Api<Pod> = Api::default_namespaced(client(&server.node, server.kubeconfig()).await);
    create(&pods, &pod("first")).await;
    let stream = watcher(pods.clone(), watcher::Config::default())
        .default_backoff()
        .applied_objects();
    // What a watch says of a restart is an error, after which it goes on.
    let stream = stream.map_ok(|pod| pod.metadata.name.unwrap_or_default());
    let mut names = std::pin::pin!(stream);
    sees(&mut names, "first").await;

    server.restart_agent().await;
    create(&pods, &pod("second")).await;
    sees(&mut names, "second").await;
    server.restart_agent().await;
    create(&pods, &pod("third")).await;
    sees(&mut names, "third").await;
}

/// Waits until a watch names a pod, whatever errors come before.
async fn sees(
    names: &mut (impl futures_util::Stream<Item = Result<String, watcher::Error>> + Unpin),
    name: &str,
) {
    loop {
        match names.try_next().await {
            Ok(Some(seen)) if seen == name => return,
            Ok(Some(_)) | Err(_) => {}
            Ok(None) => panic!("the watch ended before it saw {name}"),
        }
    }
}
