//! The story that the README tells first. etcd and kube-apiserver are static pods from images of one program each, run by
//! a real kubelet; the API server looks for etcd at a port where nobody listens, ends, and is started again, and again.
//! It is debugged from its node.

use std::path::Path;
use std::time::Duration;

use integration::kubernetes::{Kubelet, control_plane_images, write_static_control_plane};
use integration::readme::{STORY, Shell, commands, section};
use integration::{
    Agent, BUSYBOX, ContainerdVersion, Node, debug_container, ephemeral_status, eventually_within,
    is_running, state_of,
};
use serde_json::{Value, json};

on_both_versions!(an_api_server_that_keeps_crashing_is_debugged_from_its_node_and_mended);

const API_SERVER: &str = "kube-apiserver-node1";
/// A crash takes the time in which kube-apiserver gives up on etcd; there are two before the story begins.
const CRASHED_WITHIN: Duration = Duration::from_secs(180);

async fn an_api_server_that_keeps_crashing_is_debugged_from_its_node_and_mended(version: ContainerdVersion) {
    let node = Node::start(version).await;
    node.tag(BUSYBOX, "docker.io/library/busybox:1.37").await;
    for (image, program) in control_plane_images() {
        let archive = node.folder().join("image.tar");
        node.pack_program(&archive, image, &program).await;
        node.ctr(["images", "import", archive.to_str().unwrap()])
            .await
            .succeeded();
        std::fs::remove_file(archive).unwrap();
    }
    lay_out(&node).await;
    // A kubelet that has not seen its API server yet ends no pod, not even one whose manifest was mended
    // (kubelet: "skipping delete because sources aren't ready yet"): this one knows of none.
    let _kubelet = Kubelet::launch(&node, Path::new("/etc/kubernetes/manifests"), None);
    let agent = node.start_agent().await;
    let broken = between_two_crashes(&agent).await;

    // Everything is as the README has it, but for the looks in between.
    let home = node.folder().join("home");
    std::fs::create_dir(&home).unwrap();
    let mut shell = Shell::new(&node, &home);
    let steps = commands(section(STORY));
    let (list, others) = steps.split_first().unwrap();
    shell.run(list).await;
    certificates_can_be_looked_at_while_nothing_runs(&node, &agent, &broken).await;
    for step in others {
        if step.shows_that_it_waits() {
            at_a_crash(&agent).await;
        }
        shell.run(step).await;
    }

    // The pod that was debugged is gone for good: the manifest that was mended made another one.
    let mended = agent.api().pod_until("kube-system", API_SERVER, is_running).await;
    assert_ne!(mended["metadata"]["uid"], broken["metadata"]["uid"]);
    assert_eq!(*ephemeral_status(&mended, "look"), Value::Null);
}

/// A debug container without a target has what it mounts of the pod, whatever the pod's own containers do.
async fn certificates_can_be_looked_at_while_nothing_runs(node: &Node, agent: &Agent, pod: &Value) {
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let certificates = volumes
        .iter()
        .find(|volume| volume["hostPath"]["path"] == "/etc/kubernetes/pki")
        .unwrap_or_else(|| panic!("no volume of the certificates: {volumes:?}"));
    let mut container = debug_container("certificates", &["ls", "/pki"]);
    container["volumeMounts"] =
        json!([{"name": certificates["name"], "mountPath": "/pki", "readOnly": true}]);
    let answer = agent.api().debug("kube-system", API_SERVER, &[container]).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    agent
        .api()
        .pod_until("kube-system", API_SERVER, |pod| {
            state_of(pod, "certificates") == "terminated:Completed"
        })
        .await;
    let of = ["logs", API_SERVER, "-n", "kube-system", "-c", "certificates"];
    let listed = node.debuglet(of).await.succeeded();
    assert_eq!(listed.stdout, "sa.key\ntokens.csv\n");

    // What the API server said last is the first thing to ask for.
    let described = node
        .debuglet(["describe", API_SERVER, "-n", "kube-system"])
        .await
        .succeeded();
    let described = described.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in [
        "Exit Code: 1",
        "Last Lines of Its Log:",
        "context deadline exceeded",
    ] {
        assert!(described.contains(words), "{words}: {described}");
    }
}

/// Waits until the API server has crashed twice, and is to be started again in a while.
async fn between_two_crashes(agent: &Agent) -> Value {
    eventually_within(CRASHED_WITHIN, "the API server has crashed twice", async || {
        let pod = agent.api().pod("kube-system", API_SERVER).await.body;
        let status = &pod["status"]["containerStatuses"][0];
        let ended = status["state"]["terminated"].is_object();
        if ended && status["restartCount"].as_i64() >= Some(1) {
            Ok(pod)
        } else {
            Err(pod)
        }
    })
    .await
}

/// Waits until the API server has just crashed: the kubelet then leaves it down for at least ten seconds more.
async fn at_a_crash(agent: &Agent) {
    let ends = async || {
        let pod = agent.api().pod("kube-system", API_SERVER).await.body;
        let state = &pod["status"]["containerStatuses"][0]["state"];
        (state["terminated"]["finishedAt"].clone(), state.clone())
    };
    let before = ends().await.0;
    eventually_within(CRASHED_WITHIN, "the API server crashes again", async || {
        let (end, state) = ends().await;
        if end.is_string() && end != before {
            Ok(())
        } else {
            Err(state)
        }
    })
    .await;
}

/// Lays the files of a control plane where kubeadm has them, with one mistake.
async fn lay_out(node: &Node) {
    let folder = node.folder().join("kubernetes");
    // Somebody's fingers were too quick.
    write_static_control_plane(node, &folder, "node1", 2397).await;
    let shown = "mkdir -p /etc/kubernetes; mount --bind \"$0\" /etc/kubernetes";
    node.run(["sh", "-euc", shown, folder.to_str().unwrap()])
        .await
        .succeeded();
}
