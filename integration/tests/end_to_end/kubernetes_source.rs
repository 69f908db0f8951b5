//! The API server of the node's cluster as a source: what it knows of the pods that the runtime shows, while it is there,
//! away, somebody else, or asks for other credentials.

use std::path::Path;

use integration::kubernetes::{ControlPlane, Kubectl, KubectlVersion, Kubelet};
use integration::{
    Agent, AgentOptions, BUSYBOX, ContainerdVersion, DISTROLESS, Node, debug_container, eventually,
    eventually_within, is_running, settles, sleeping_pod, state_of,
};
use serde_json::{Value, json};

use crate::kubelet::is_reported;

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

fn readiness(pod: &Value) -> &Value {
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
    &ready.unwrap()["status"]
}

fn spec_from(pod: &Value) -> &str {
    pod["metadata"]["annotations"]["debuglet.io/spec-from"]
        .as_str()
        .unwrap_or_default()
}

/// The pods of this name that the agent shows.
async fn of_name(agent: &Agent, name: &str) -> usize {
    let pods = agent.api().pods().await;
    pods.iter().filter(|pod| pod["metadata"]["name"] == name).count()
}

/// A static pod with a volume whose name the runtime does not tell.
fn etcd() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "etcd", "namespace": "kube-system", "labels": {"tier": "control-plane"}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "volumes": [{"name": "data", "hostPath": {"path": "/usr/share"}}],
            "containers": [{
                "name": "etcd", "image": DISTROLESS,
                "ports": [{"name": "peer", "containerPort": 2380}],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
        },
    })
}

fn write_static_pod(node: &Node, pod: &Value) {
    let folder = node.folder().join("kubelet/static-pods");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("etcd.json"), pod.to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_api_server_knows_of_a_pod_is_shown_with_its_sandbox_and_says_how_old_it_is() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let plane = ControlPlane::start(&node).await;
    let kubectl = Kubectl::new(&node, KubectlVersion::V1_36, &plane.kubeconfig());
    write_static_pod(&node, &etcd());
    let _kubelet = Kubelet::start(&node, &plane).await;
    create(&kubectl, &settings()).await;
    create(&kubectl, &cart()).await;
    let agent = watching(&node, &plane.node_kubeconfig()).await;

    // The API's pod.
    let is_ready = |pod: &Value| is_running(pod) && readiness(pod) == "True";
    let pod = agent.api().pod_until("default", "cart", is_ready).await;
    assert_eq!(spec_from(&pod), "API server");
    assert_eq!(pod["metadata"]["labels"], json!({"app": "cart"}));
    let spec = &pod["spec"];
    assert_eq!(spec["containers"].as_array().unwrap().len(), 1);
    assert_eq!(spec["initContainers"][0]["name"], "setup");
    assert_eq!(spec["containers"][0]["ports"][0]["name"], "http");
    let of_pod = &spec["containers"][0]["env"][0]["valueFrom"]["fieldRef"];
    assert_eq!(of_pod["fieldPath"], "status.podIP");
    let status = &pod["status"];
    assert_eq!(
        status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"],
        0
    );
    assert_eq!(status["containerStatuses"][0]["ready"], true);
    let uid = kubectl
        .run(["get", "pod", "cart", "-o", "jsonpath={.metadata.uid}"])
        .await;
    assert_eq!(
        pod["metadata"]["uid"].as_str(),
        Some(uid.succeeded().stdout.as_str())
    );
    assert_eq!(of_name(&agent, "cart").await, 1);

    // The mirror pod is the static pod, under the UID that it has in the runtime.
    let mirror = agent.api().pod_until("kube-system", "etcd-node1", is_ready).await;
    let annotations = &mirror["metadata"]["annotations"];
    assert_eq!(
        mirror["metadata"]["uid"],
        annotations["kubernetes.io/config.mirror"]
    );
    assert_eq!(annotations["debuglet.io/source"], "static-pod");
    assert_eq!(mirror["spec"]["volumes"][0]["name"], "data");
    assert_eq!(of_name(&agent, "etcd-node1").await, 1);

    // Volumes go by the names of the spec, mounted in a container or not.
    let look = "cat /settings/colour; touch /scratch/seen; ls /tools | wc -l";
    let mut debugger = debug_container("debugger", &["sh", "-c", look]);
    debugger["volumeMounts"] = json!([
        {"name": "settings", "mountPath": "/settings"},
        {"name": "scratch", "mountPath": "/scratch"},
        {"name": "tools", "mountPath": "/tools"},
    ]);
    let answer = agent.api().debug("default", "cart", &[debugger]).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let has_ended = |pod: &Value| state_of(pod, "debugger").starts_with("terminated");
    agent.api().pod_until("default", "cart", has_ended).await;
    let said = node
        .debuglet(["logs", "cart", "-c", "debugger"])
        .await
        .succeeded();
    assert!(said.stdout.starts_with("green"), "{said:?}");
    let seen = node
        .debuglet(["exec", "cart", "-c", "main", "--", "ls", "/scratch"])
        .await;
    assert_eq!(seen.succeeded().stdout, "seen\n");

    // An ephemeral container of the kubelet's is shown, and is not ours to stop.
    let image = format!("--image={BUSYBOX}");
    let debug = ["debug", "cart", &image, "-c", "theirs", "--", "sleep", "3600"];
    kubectl.run(debug).await.succeeded();
    let runs = |pod: &Value| state_of(pod, "theirs") == "running:";
    agent.api().pod_until("default", "cart", runs).await;
    let inside = node
        .debuglet(["exec", "cart", "-c", "theirs", "--", "echo", "inside"])
        .await;
    assert_eq!(inside.succeeded().stdout, "inside\n");
    let stopped = node.debuglet(["stop", "cart", "theirs"]).await;
    assert_ne!(stopped.code, 0, "{stopped:?}");
    let described = node.debuglet(["describe", "cart"]).await.succeeded().stdout;
    assert!(described.contains("Spec:       API server\n"), "{described}");

    // Away: what was known stays, and says since when; nobody knows whether it is ready.
    plane.kill_api_server().await;
    let is_old = |pod: &Value| spec_from(pod).starts_with("API server as of ") && readiness(pod) == "Unknown";
    let old = agent.api().pod_until("default", "cart", is_old).await;
    assert_eq!(old["spec"]["initContainers"], spec["initContainers"]);
    let listed = node.debuglet(["ps"]).await.succeeded();
    assert!(listed.stdout.contains("?/1"), "{listed:?}");
    assert!(
        listed.stderr.contains("Nothing is known from the API server"),
        "{listed:?}"
    );
    let described = node.debuglet(["describe", "cart"]).await.succeeded().stdout;
    assert!(described.contains("Readiness:  not known"), "{described}");
    plane.start_api_server(&node).await;
    let is_new = |pod: &Value| spec_from(pod) == "API server" && readiness(pod) == "True";
    let back = eventually_within(BACK_WITHIN, "it is heard of again", async || {
        let pod = agent.api().pod("default", "cart").await.body;
        if is_new(&pod) { Ok(pod) } else { Err(pod) }
    });
    assert_eq!(state_of(&back.await, "theirs"), "running:");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_api_server_the_kubelets_manifest_tells_what_a_static_pod_is() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let plane = ControlPlane::start(&node).await;
    let agent = node.start_agent().await;
    write_static_pod(&node, &etcd());
    let kubelet = Kubelet::start(&node, &plane).await;
    let file = node.folder().join("kubelet/static-pods/etcd.json");
    let from_file = format!("manifest {}", file.display());
    let is_described = |pod: &Value| is_running(pod) && spec_from(pod) == from_file;
    let pod = agent
        .api()
        .pod_until("kube-system", "etcd-node1", is_described)
        .await;
    assert_eq!(pod["spec"]["volumes"][0]["name"], "data");
    assert_eq!(pod["spec"]["containers"][0]["ports"][0]["name"], "peer");
    assert_eq!(pod["metadata"]["labels"], json!({"tier": "control-plane"}));
    assert_eq!(readiness(&pod), "Unknown", "a manifest does not tell");

    // A volume of the node has a name now.
    let mut debugger = debug_container("debugger", &["sh", "-c", "ls /data | wc -l"]);
    debugger["volumeMounts"] = json!([{"name": "data", "mountPath": "/data", "readOnly": true}]);
    let answer = agent.api().debug("kube-system", "etcd-node1", &[debugger]).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let has_ended = |pod: &Value| state_of(pod, "debugger") == "terminated:Completed";
    agent
        .api()
        .pod_until("kube-system", "etcd-node1", has_ended)
        .await;

    // A manifest that asks for something else describes the pod that comes of it, and not this one.
    drop(kubelet);
    let mut newer = etcd();
    newer["spec"]["containers"][0]["env"] = json!([{"name": "VERSION", "value": "2"}]);
    write_static_pod(&node, &newer);
    agent.kill().await;
    let agent = node.start_agent().await;
    let is_found = |pod: &Value| is_running(pod) && spec_from(pod) == "runtime";
    let pod = agent.api().pod_until("kube-system", "etcd-node1", is_found).await;
    assert_eq!(pod["spec"]["volumes"][0]["name"], "unnamed-0");
    let described = node
        .debuglet(["describe", "etcd-node1", "-n", "kube-system"])
        .await;
    assert!(described.stdout.contains("made up"), "{described:?}");
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

    point_at(&plane.node_certificate(&node, "first.pem", "node1").await);
    let user = json!({"client-certificate": current, "client-key": current});
    plane.kubeconfig_with("kubelet.conf", &user);
    let report = report_until(&agent, answers).await;
    assert_eq!(report["server"], "https://127.0.0.1:6443/");
    // Anybody may ask for the version once the API server has made the roles that it comes with.
    eventually("the version is told", async || {
        let checked = node.debuglet(["check"]).await;
        if checked.stdout.contains("Kubernetes v1.36") {
            Ok(())
        } else {
            Err(checked)
        }
    })
    .await;

    // The cluster trusts another authority now: the certificate is worth nothing until the kubelet has a new one.
    plane.make_authority(&node).await;
    plane.kill_api_server().await;
    plane.start_api_server(&node).await;
    let refused = report_until(&agent, |report| report["message"] == "Unauthorized").await;
    assert_eq!(refused["answers"], false);
    point_at(&plane.node_certificate(&node, "second.pem", "node1").await);
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

/// The lines of the agent's log at this level that hold all of these words.
fn lines<'a>(log: &'a str, level: &str, words: &[&str]) -> Vec<&'a str> {
    let level = format!("\"level\":\"{level}\"");
    log.lines()
        .filter(|line| line.contains(&level) && words.iter().all(|words| line.contains(words)))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_api_server_and_runtime_are_away_the_log_says_once_what_failed_and_where() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let kubeconfig = node.folder().join("kubeconfig");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:6443"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    std::fs::write(&kubeconfig, text.to_string()).unwrap();
    node.write_manifest("pod.json", &sleeping_pod("web"));
    let agent = watching(&node, &kubeconfig).await;
    agent.api().pod_until("default", "web", is_running).await;
    node.kill_containerd().await;
    eventually("the log says that the runtime is away", async || {
        let log = agent.log();
        match lines(&log, "WARN", &["containerd.sock"]).is_empty() {
            true => Err(log),
            false => Ok(()),
        }
    })
    .await;
    // Many tries.
    tokio::time::sleep(std::time::Duration::from_secs(15)).await;
    let log = agent.log();
    let api_server = [
        "the API server http://127.0.0.1:6443/ cannot be asked: ",
        "refused",
    ];
    assert_eq!(lines(&log, "WARN", &api_server).len(), 1, "{log}");
    assert!(!log.contains("failed with error"), "{log}");
    let mut said = std::collections::BTreeSet::new();
    for line in log.lines() {
        let Ok(mut line) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        if line["level"] == "WARN" || line["level"] == "ERROR" {
            line["timestamp"].take();
            assert!(said.insert(line.to_string()), "it is said twice: {line}\n{log}");
        }
    }
    node.start_containerd().await;
    eventually("the log says that the runtime is back", async || {
        let log = agent.log();
        match lines(&log, "INFO", &["the runtime answers again"]).is_empty() {
            true => Err(log),
            false => Ok(()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_another_nodes_or_nobodys_is_reported_and_nothing_is_taken_over_under_it() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let plane = ControlPlane::start(&node).await;
    let kubectl = Kubectl::new(&node, KubectlVersion::V1_36, &plane.kubeconfig());
    // The node's configuration says "node1". The cluster has another node of that name, or none.
    let doubted = async |agent: &Agent, words: &str| {
        is_reported(&node, agent, words).await;
        let checked = node.debuglet(["check"]).await;
        assert!(checked.stdout.contains(words), "{checked:?}");
    };
    let agent = watching(&node, &plane.kubeconfig()).await;
    doubted(&agent, "The API server has no node \"node1\"").await;
    doubted(&agent, "no Lease of a node \"node1\"").await;

    let other = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"},
        "status": {"nodeInfo": {
            "machineID": "another", "bootID": "another", "architecture": "amd64", "containerRuntimeVersion": "",
            "kernelVersion": "", "kubeProxyVersion": "", "kubeletVersion": "", "operatingSystem": "linux",
            "osImage": "", "systemUUID": "",
        }},
    });
    create(&kubectl, &other).await;
    let patch = other.to_string();
    let status = [
        "patch",
        "node",
        "node1",
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ];
    kubectl.run(status).await.succeeded();
    doubted(&agent, "The node \"node1\" of the API server is another machine").await;
    agent.kill().await;

    // The credential is that of a node with another name.
    let own = plane.node_certificate(&node, "node2.pem", "node2").await;
    let kubeconfig = plane.kubeconfig_with("node2", &json!({"client-certificate": own, "client-key": own}));
    let agent = watching(&node, &kubeconfig).await;
    doubted(
        &agent,
        "the credential for the API server is that of node \"node2\"",
    )
    .await;
}
