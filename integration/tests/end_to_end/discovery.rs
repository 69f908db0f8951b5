//! Pods that crictl runs are found, shown and debugged, and are left alone otherwise.

use std::time::{Duration, Instant};

use integration::kubernetes::{ControlPlane, Kubectl, KubectlVersion, Kubelet};
use integration::{
    Agent, BUSYBOX, ContainerdVersion, DISTROLESS, Node, debug_container, ephemeral_status, eventually,
    is_running, state_of,
};
use serde_json::{Value, json};

on_both_versions!(
    a_pod_of_crictl_is_found_debugged_and_goes_with_its_sandbox,
    a_sandbox_without_labels_uid_or_log_folder_can_be_debugged,
    what_was_debugged_outlives_the_agent_and_a_sandbox_that_is_made_anew,
);

/// Runs a sandbox from this configuration, with one container in it, and answers both ids.
async fn run(node: &Node, sandbox: &Value, container: &Value) -> (String, String) {
    let file = |name: &str, value: &Value| {
        let path = node.folder().join(name);
        std::fs::write(&path, value.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let sandbox_file = file("sandbox.json", sandbox);
    let container_file = file("container.json", container);
    let said = node.crictl(["runp", &sandbox_file]).await.succeeded();
    let sandbox_id = said.stdout.trim().to_owned();
    let said = node
        .crictl(["create", &sandbox_id, &container_file, &sandbox_file])
        .await
        .succeeded();
    let container_id = said.stdout.trim().to_owned();
    node.crictl(["start", &container_id]).await.succeeded();
    (sandbox_id, container_id)
}

async fn add(agent: &Agent, namespace: &str, pod: &str, containers: &[Value]) {
    let answer = agent.api().debug(namespace, pod, containers).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

fn sandbox(name: &str, uid: &str, logs: &str, attempt: u32) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "uid": uid, "attempt": attempt},
        "hostname": "till",
        "log_directory": logs,
        "labels": {"app": "till"},
        // As a kubelet does: each container has processes of its own.
        "linux": {"security_context": {"namespace_options": {"pid": 1}}},
    })
}

fn container(command: &[&str]) -> Value {
    json!({
        "metadata": {"name": "main"},
        "image": {"image": BUSYBOX},
        "command": command,
        "log_path": "main.log",
        "linux": {"security_context": {"namespace_options": {"pid": 1}}},
    })
}

async fn a_pod_of_crictl_is_found_debugged_and_goes_with_its_sandbox(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    let logs = node.folder().join("till-logs");
    let began = Instant::now();
    let (sandbox_id, container_id) = run(
        &node,
        &sandbox("till", "u-till", logs.to_str().unwrap(), 0),
        &container(&["sleep", "3600"]),
    )
    .await;
    let pod = agent.api().pod_until("shop", "till", is_running).await;
    println!("seen {:?} after crictl began", began.elapsed());
    assert_eq!(pod["metadata"]["uid"], "u-till");
    assert_eq!(pod["metadata"]["labels"], json!({"app": "till"}));
    assert_eq!(pod["metadata"]["annotations"]["debuglet.io/source"], "cri");
    assert_eq!(pod["spec"]["containers"][0]["command"], json!(["sleep", "3600"]));
    assert_eq!(pod["status"]["phase"], "Running");

    let look = "hostname; ps -o pid,args | grep -c '[s]leep 3600'; cat /proc/1/root/bin/busybox | wc -c";
    let mut debugger = debug_container("debugger", &["sh", "-c", look]);
    debugger["targetContainerName"] = json!("main");
    add(&agent, "shop", "till", &[debugger]).await;
    agent
        .api()
        .pod_until("shop", "till", |pod| {
            state_of(pod, "debugger").starts_with("terminated")
        })
        .await;
    let said = node
        .debuglet(["logs", "-n", "shop", "till", "-c", "debugger"])
        .await
        .succeeded();
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(lines[..2], ["till", "1"], "{said:?}");
    assert!(lines[2].parse::<u64>().unwrap() > 0);
    assert!(
        logs.join("debugger/0.log").is_file(),
        "its log is where the pod's are"
    );

    // It is not ours to change.
    let deleted = agent
        .api()
        .send(
            "DELETE",
            "/api/v1/namespaces/shop/pods/till",
            "application/json",
            &json!({}),
        )
        .await;
    assert_eq!(
        (deleted.status, &deleted.body["reason"]),
        (403, &json!("Forbidden"))
    );
    let inspected = node.crictl(["inspect", &container_id]).await.succeeded();
    assert!(inspected.stdout.contains("CONTAINER_RUNNING"));

    node.crictl(["stopp", &sandbox_id]).await.succeeded();
    node.crictl(["rmp", &sandbox_id]).await.succeeded();
    eventually("the pod goes with its sandbox", async || {
        let answer = agent.api().pod("shop", "till").await;
        if answer.status == 404 {
            Ok(())
        } else {
            Err(answer.body)
        }
    })
    .await;
}

async fn a_sandbox_without_labels_uid_or_log_folder_can_be_debugged(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    let bare = json!({"metadata": {"name": "bare", "namespace": "default", "attempt": 1}, "linux": {}});
    let command = json!({"metadata": {"name": "greeter"}, "image": {"image": DISTROLESS}, "linux": {}});
    run(&node, &bare, &command).await;
    let pod = agent.api().pod_until("default", "bare", is_running).await;
    assert_eq!(pod["metadata"]["uid"].as_str().map(str::len), Some(36));
    // crictl's pods share their processes, so that there is nothing to target.
    assert_eq!(pod["spec"]["shareProcessNamespace"], true);
    let mut debugger = debug_container("debugger", &["sh", "-c", "ps -o args | grep -c '[g]reeter'"]);
    debugger["securityContext"] = json!({"privileged": true});
    add(&agent, "default", "bare", &[debugger]).await;
    agent
        .api()
        .pod_until("default", "bare", |pod| {
            state_of(pod, "debugger").starts_with("terminated")
        })
        .await;
    let said = node
        .debuglet(["logs", "bare", "-c", "debugger"])
        .await
        .succeeded();
    assert_eq!(said.stdout, "1\n");
}

async fn what_was_debugged_outlives_the_agent_and_a_sandbox_that_is_made_anew(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    let logs = node.folder().join("till-logs");
    let first = sandbox("till", "u-till", logs.to_str().unwrap(), 0);
    let (sandbox_id, _) = run(&node, &first, &container(&["sleep", "3600"])).await;
    agent.api().pod_until("shop", "till", is_running).await;
    let debugger = debug_container("debugger", &["sleep", "3600"]);
    add(&agent, "shop", "till", &[debugger]).await;
    let running = agent
        .api()
        .pod_until("shop", "till", |pod| state_of(pod, "debugger") == "running:")
        .await;
    let id = ephemeral_status(&running, "debugger")["containerID"].clone();

    agent.kill().await;
    let agent = node.start_agent().await;
    let again = agent
        .api()
        .pod_until("shop", "till", |pod| state_of(pod, "debugger") == "running:")
        .await;
    assert_eq!(
        ephemeral_status(&again, "debugger")["containerID"],
        id,
        "it was adopted"
    );

    // As a reboot: the sandbox is gone, and one of the same pod is made.
    node.crictl(["stopp", &sandbox_id]).await.succeeded();
    node.crictl(["rmp", &sandbox_id]).await.succeeded();
    run(
        &node,
        &sandbox("till", "u-till", logs.to_str().unwrap(), 1),
        &container(&["sleep", "3600"]),
    )
    .await;
    let back = agent
        .api()
        .pod_until("shop", "till", |pod| {
            is_running(pod)
                && state_of(pod, "debugger").starts_with("terminated")
                && pod["metadata"]["deletionTimestamp"].is_null()
        })
        .await;
    assert_eq!(ephemeral_status(&back, "debugger")["containerID"], id);
    // What comes to an end after this turn of the pod's worker: whatever it would start, it has started.
    add(&agent, "shop", "till", &[debug_container("after", &["true"])]).await;
    agent
        .api()
        .pod_until("shop", "till", |pod| {
            state_of(pod, "after").starts_with("terminated")
        })
        .await;
    let made = node.cri().containers("debugger").await;
    assert!(made.is_empty(), "it was not started again: {made:?}");
}

/// The reason to exist: Kubernetes refuses ephemeral containers in static pods.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_static_pod_is_debugged_beside_its_kubelet_which_leaves_the_container_alone() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let plane = ControlPlane::start(&node).await;
    let kubelet = Kubelet::start(&node, &plane).await;
    let manifest = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "etcd", "namespace": "kube-system"},
        "spec": {
            "volumes": [{"name": "data", "emptyDir": {}}],
            "containers": [{
                "name": "etcd", "image": DISTROLESS,
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
        },
    });
    let file = node.folder().join("kubelet/static-pods/etcd.json");
    std::fs::write(file, manifest.to_string()).unwrap();
    let agent = node.start_agent().await;
    let pod = agent
        .api()
        .pod_until("kube-system", "etcd-node1", is_running)
        .await;
    assert_eq!(pod["metadata"]["annotations"]["debuglet.io/source"], "static-pod");
    assert_eq!(pod["spec"]["volumes"], json!([{"name": "data", "emptyDir": {}}]));

    // Kubernetes refuses; debuglet's own kubeconfig does not.
    let image = format!("--image={BUSYBOX}");
    let debug = [
        "debug",
        "-n",
        "kube-system",
        "etcd-node1",
        &image,
        "--target=etcd",
        "-c",
        "debugger",
        "--",
        "sleep",
        "3600",
    ];
    let cluster = Kubectl::new(&node, KubectlVersion::V1_36, &plane.kubeconfig());
    let refused = cluster.run(debug).await;
    assert!(refused.stderr.contains("static pods"), "{refused:?}");
    let kubectl = Kubectl::new(&node, KubectlVersion::V1_36, &agent.kubeconfig().await);
    kubectl.run(debug).await.succeeded();
    let running = agent
        .api()
        .pod_until("kube-system", "etcd-node1", |pod| {
            state_of(pod, "debugger") == "running:"
        })
        .await;
    let id = ephemeral_status(&running, "debugger")["containerID"].clone();
    let listed = kubectl
        .run(["get", "pods", "-n", "kube-system"])
        .await
        .succeeded();
    assert!(listed.stdout.contains("?/1"), "{listed:?}");
    let seen = kubectl
        .run([
            "exec",
            "-n",
            "kube-system",
            "etcd-node1",
            "-c",
            "debugger",
            "--",
            "cat",
            "/proc/1/root/srv/greeting.txt",
        ])
        .await
        .succeeded();
    assert!(seen.stdout.contains("without a shell"), "{seen:?}");

    // The pod's own cgroup and log folder, and no file that the kubelet would count.
    let container = id
        .as_str()
        .unwrap()
        .trim_start_matches("containerd://")
        .to_owned();
    let inspected: Value =
        serde_json::from_str(&node.crictl(["inspect", &container]).await.succeeded().stdout).unwrap();
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let cgroup = inspected["info"]["runtimeSpec"]["linux"]["cgroupsPath"]
        .as_str()
        .unwrap();
    assert!(
        cgroup.starts_with(&format!("/kubepods/besteffort/pod{uid}/")),
        "{cgroup}"
    );
    let log = inspected["status"]["logPath"].as_str().unwrap();
    assert!(
        log.ends_with(&format!("kube-system_etcd-node1_{uid}/debugger/debuglet.log")),
        "{log}"
    );

    // A kubelet that is started anew leaves it alone, too: longer than it takes to kill what it does not know.
    drop(kubelet);
    let _kubelet = Kubelet::start(&node, &plane).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let still = agent.api().pod("kube-system", "etcd-node1").await.body;
    assert_eq!(state_of(&still, "debugger"), "running:");
    assert_eq!(ephemeral_status(&still, "debugger")["containerID"], id);

    // Without a control plane there is still somebody to ask.
    drop(plane);
    let second = debug_container("second", &["sleep", "3600"]);
    let answer = agent.api().debug("kube-system", "etcd-node1", &[second]).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    agent
        .api()
        .pod_until("kube-system", "etcd-node1", |pod| {
            state_of(pod, "second") == "running:"
        })
        .await;
}
