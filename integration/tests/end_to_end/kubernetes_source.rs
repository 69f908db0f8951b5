//! The API server of the node's cluster as a source: what it knows of the pods that the runtime shows, while it is there,
//! away, somebody else, or asks for other credentials.

use std::path::Path;

use integration::kubernetes::{ControlPlane, Kubectl, KubectlVersion, Kubelet};
use integration::{
    Agent, AgentOptions, BUSYBOX, ContainerdVersion, Node, eventually_within, is_running, settles,
};
use serde_json::{Value, json};

/// Longer than the longest pause between two tries to reach the API server.
const BACK_WITHIN: std::time::Duration = std::time::Duration::from_secs(150);

/// An agent that looks for other people's pods, and asks the API server with this kubeconfig.
async fn watching(node: &Node, kubeconfig: &Path) -> Agent {
    let kubeconfig = kubeconfig.display();
    node.start_agent_with(AgentOptions {
        configuration: format!("discovery.enabled = true\nkubernetes.kubeconfig = \"{kubeconfig}\"\n"),
        ..AgentOptions::default()
    })
    .await
}

/// Waits until the agent says this of the API server, and answers all that it says of it.
async fn report_until(agent: &Agent, told: impl Fn(&Value) -> bool) -> Value {
    eventually_within(BACK_WITHIN, "the API server is reported so", async || {
        let report = agent.api().get("/apis/debuglet.io/v1alpha1/node").await.body["kubernetes"].clone();
        if told(&report) { Ok(report) } else { Err(report) }
    })
    .await
}

fn answers(report: &Value) -> bool {
    report["answers"] == true
}

/// A pod with what the runtime does not tell: init containers, names of volumes, ports, values from elsewhere.
fn cart() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "cart", "namespace": "default", "labels": {"app": "cart"}},
        "spec": {
            "nodeName": "node1",
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 1,
            "volumes": [
                {"name": "scratch", "emptyDir": {}},
                {"name": "settings", "configMap": {"name": "settings"}},
                {"name": "tools", "hostPath": {"path": "/usr/share"}},
            ],
            "initContainers": [{"name": "setup", "image": BUSYBOX, "command": ["true"]}],
            "containers": [{
                "name": "main", "image": BUSYBOX, "command": ["sleep", "86400"],
                "ports": [{"name": "http", "containerPort": 8080}],
                "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                "volumeMounts": [
                    {"name": "scratch", "mountPath": "/scratch"},
                    {"name": "settings", "mountPath": "/etc/settings"},
                    {"name": "tools", "mountPath": "/tools", "readOnly": true},
                ],
            }],
        },
    })
}

async fn create(kubectl: &Kubectl<'_>, object: &Value) {
    let object = object.to_string();
    let created = kubectl.run_with_input(["create", "-f", "-"], object.as_bytes());
    created.await.succeeded();
}

fn settings() -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"colour": "green"}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_that_go_back_have_the_pods_listed_anew_and_lose_none() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let plane = ControlPlane::start(&node).await;
    let kubectl = Kubectl::new(&node, KubectlVersion::V1_36, &plane.kubeconfig());
    let kubelet = Kubelet::start(&node, &plane).await;
    create(&kubectl, &settings()).await;
    create(&kubectl, &cart()).await;
    let agent = watching(&node, &plane.node_kubeconfig()).await;
    let is_enriched = |pod: &Value| is_running(pod) && pod["spec"]["initContainers"][0]["name"] == "setup";
    let before = agent.api().pod_until("default", "cart", is_enriched).await;
    kubelet.process().kill().await;
    plane.back_up(&node).await;
    report_until(&agent, answers).await;
    // The versions go up, and the agent's with them.
    for number in 0..50 {
        let note = format!("note={number}");
        kubectl
            .run(["annotate", "--overwrite", "pod", "cart", &note])
            .await
            .succeeded();
    }
    let is_noted = |pod: &Value| pod["metadata"]["annotations"]["note"] == "49";
    agent.api().pod_until("default", "cart", is_noted).await;

    plane.restore(&node).await;
    let is_as_before = |pod: &Value| pod["metadata"]["annotations"]["note"].is_null();
    let restored = agent.api().pod_until("default", "cart", is_as_before).await;
    assert_eq!(restored["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(restored["spec"], before["spec"]);
    assert_eq!(
        restored["status"]["containerStatuses"][0]["containerID"],
        before["status"]["containerStatuses"][0]["containerID"]
    );
    // And what happens from here on is seen.
    kubectl
        .run(["annotate", "pod", "cart", "after=restore"])
        .await
        .succeeded();
    let is_followed = |pod: &Value| pod["metadata"]["annotations"]["after"] == "restore";
    agent.api().pod_until("default", "cart", is_followed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_read_again_when_their_files_change() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let plane = ControlPlane::start(&node).await;
    let folder = node.folder().to_path_buf();
    let current = folder.join("kubelet-client-current.pem");
    let point_at = |file: &Path| {
        let link = folder.join("link");
        std::os::unix::fs::symlink(file, &link).unwrap();
        std::fs::rename(&link, &current).unwrap();
    };

    // The agent is here before there is a kubeconfig.
    let kubeconfig = folder.join("control-plane/kubelet.conf");
    let agent = watching(&node, &kubeconfig).await;
    let missing = report_until(&agent, |report| report["message"] != "").await;
    assert!(
        missing["message"]
            .as_str()
            .unwrap()
            .starts_with("there is no kubeconfig "),
        "{missing}"
    );
    let listed = node.debuglet(["ps"]).await;
    assert!(listed.stderr.contains("there is no kubeconfig"), "{listed:?}");

    point_at(&plane.node_certificate(&node, "first.pem").await);
    let user = json!({"client-certificate": current, "client-key": current});
    plane.kubeconfig_with("kubelet.conf", &user);
    let report = report_until(&agent, answers).await;
    assert_eq!(report["server"], "https://127.0.0.1:6443/");
    let checked = node.debuglet(["check"]).await;
    assert!(checked.stdout.contains("Kubernetes v1.36"), "{checked:?}");

    // The cluster trusts another authority now: the certificate is worth nothing until the kubelet has a new one.
    plane.make_authority(&node).await;
    plane.kill_api_server().await;
    plane.start_api_server(&node).await;
    let refused = report_until(&agent, |report| report["message"] == "Unauthorized").await;
    assert_eq!(refused["answers"], false);
    point_at(&plane.node_certificate(&node, "second.pem").await);
    report_until(&agent, answers).await;
    assert!(!agent.log().contains("PRIVATE KEY"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_come_from_files_and_from_programs_that_are_asked_again_when_they_end() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let plane = ControlPlane::start(&node).await;
    let token = node.folder().join("token");
    std::fs::write(&token, "not-a-token").unwrap();
    let kubeconfig = plane.kubeconfig_with("by-token", &json!({"tokenFile": token}));
    let agent = watching(&node, &kubeconfig).await;
    report_until(&agent, |report| report["message"] == "Unauthorized").await;
    std::fs::write(&token, "node1").unwrap();
    report_until(&agent, answers).await;
    agent.kill().await;

    // A token that has ended already: each time a client is needed the program is asked again.
    let calls = node.folder().join("calls");
    let script = format!(
        r#"echo call >>{}
echo '{{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
"status": {{"token": "node1", "expirationTimestamp": "2020-01-01T00:00:00Z"}}}}'"#,
        calls.display()
    );
    let plugin = json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "sh",
        "args": ["-c", script],
        "interactiveMode": "Never",
    }});
    let agent = watching(&node, &plane.kubeconfig_with("by-program", &plugin)).await;
    report_until(&agent, answers).await;
    let called = || std::fs::read_to_string(&calls).unwrap().lines().count();
    assert!(called() <= 2, "one client serves until it is needed anew");
    plane.kill_api_server().await;
    report_until(&agent, |report| !answers(report)).await;
    assert!(
        settles(async || called() >= 2).await,
        "it was asked {} times",
        called()
    );
    plane.start_api_server(&node).await;
    report_until(&agent, answers).await;
    assert!(called() < 20, "there is a pause between tries: {}", called());
}
