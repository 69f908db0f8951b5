//! A debug container is what a kubelet would have made of the same spec, in the pods of a kubelet: made both ways,
//! the configurations that reached the runtime and what the runtime made of them are compared field by field.

use std::collections::BTreeMap;

use debuglet_proto::v1::{Container, ContainerStatusRequest};
use integration::kubernetes::{ControlPlane, Kubectl, KubectlVersion, Kubelet, client};
use integration::{Agent, AgentOptions, ContainerdVersion, Node, USER_1000, eventually};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

on_both_versions!(a_debug_container_is_what_a_kubelet_makes_of_the_same_spec);

/// What a container of the comparison is called after it was made by the kubelet; by an agent that knows of the pod what
/// the runtime tells; by one that knows what the API server tells, too.
const MAKERS: [&str; 3] = ["kubelet", "runtime", "cluster"];

/// A pod, and the ephemeral containers that are compared in it: fields that go on top of one that sleeps.
struct Case {
    pod: &'static str,
    namespace: &'static str,
    spec: Value,
    containers: Vec<Value>,
}

fn cases() -> Vec<Case> {
    let case = |pod, spec, containers| Case {
        pod,
        namespace: "default",
        spec,
        containers,
    };
    let targeting = || json!({"targetContainerName": "main"});
    let requests = |resources: Value| json!({"containers": [{"resources": resources}]});
    vec![
        case(
            "plain",
            json!({"hostAliases": [{"ip": "10.1.2.3", "hostnames": ["alias"]}]}),
            of_a_plain_pod(),
        ),
        case(
            "on-host-network",
            json!({"hostNetwork": true}),
            vec![json!({}), targeting()],
        ),
        case(
            "shared-processes",
            json!({"shareProcessNamespace": true}),
            vec![json!({}), targeting()],
        ),
        case(
            "host-processes",
            json!({"hostPID": true, "hostIPC": true}),
            vec![targeting()],
        ),
        case(
            "secured",
            json!({"securityContext": {
                "runAsUser": 1234, "runAsGroup": 3000, "fsGroup": 55, "supplementalGroups": [77],
                "supplementalGroupsPolicy": "Merge", "seccompProfile": {"type": "RuntimeDefault"},
                "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
            }}),
            vec![
                json!({}),
                json!({"securityContext": {"runAsUser": 0, "seccompProfile": {"type": "RuntimeDefault"}}}),
            ],
        ),
        case(
            "filtered",
            json!({"securityContext": {
                "seccompProfile": {"type": "Localhost", "localhostProfile": "allow.json"},
            }}),
            vec![json!({})],
        ),
        case(
            "burstable",
            requests(json!({"requests": {"memory": "16Mi", "cpu": "10m"}})),
            vec![json!({})],
        ),
        case(
            "guaranteed",
            requests(json!({"limits": {"memory": "64Mi", "cpu": "50m"}})),
            vec![json!({})],
        ),
        Case {
            pod: "critical",
            namespace: "kube-system",
            spec: json!({"priorityClassName": "system-node-critical", "terminationGracePeriodSeconds": 7}),
            containers: vec![json!({})],
        },
    ]
}

fn of_a_plain_pod() -> Vec<Value> {
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    vec![
        json!({}),
        json!({"targetContainerName": "main"}),
        json!({"securityContext": {"privileged": true}}),
        json!({"securityContext": {
            "capabilities": {"add": ["SYS_PTRACE"], "drop": ["NET_RAW"]},
            "runAsUser": 1000, "runAsGroup": 1000, "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false, "seccompProfile": {"type": "RuntimeDefault"},
        }}),
        json!({"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "allow.json"}}}),
        json!({
            "command": ["sh", "-c"], "args": ["echo $(A); exec sleep 3600"], "workingDir": "/tmp",
            "env": [
                {"name": "A", "value": "1"},
                {"name": "B", "value": "$(A)-$(NOPE)-$$(A)"},
                field("POD", "metadata.name"),
                field("POD_NAMESPACE", "metadata.namespace"),
                field("POD_UID", "metadata.uid"),
                field("APP", "metadata.labels['app']"),
                field("NOTE", "metadata.annotations['note']"),
                field("IP", "status.podIP"),
                field("HOST", "status.hostIP"),
                field("NODE", "spec.nodeName"),
            ],
        }),
        json!({"volumeMounts": [
            {"name": "scratch", "mountPath": "/scratch"},
            {"name": "scratch", "mountPath": "/only-read", "readOnly": true, "mountPropagation": "HostToContainer"},
            {"name": "settings", "mountPath": "/settings"},
            {"name": "password", "mountPath": "/password"},
            {"name": "together", "mountPath": "/together"},
        ]}),
        json!({"stdin": true, "tty": true, "command": ["sh"]}),
        json!({"stdin": true, "stdinOnce": true, "command": ["cat"]}),
        json!({"terminationMessagePath": "/tmp/last-words", "terminationMessagePolicy": "FallbackToLogsOnError"}),
        json!({"terminationMessagePath": "/etc/hosts"}),
        json!({"image": USER_1000}),
        json!({"image": USER_1000, "securityContext": {"runAsNonRoot": true}}),
    ]
}

/// The pod of a case: `main` sleeps with every volume mounted.
fn pod(case: &Case) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": case.pod, "labels": {"app": "compared"}, "annotations": {"note": "a note"}},
        "spec": {
            "nodeName": "node1",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "main",
                "image": "docker.io/library/busybox:latest",
                "imagePullPolicy": "IfNotPresent",
                "command": ["sleep", "86400"],
            }],
        },
    });
    if case.pod == "plain" {
        let spec = &mut pod["spec"];
        spec["volumes"] = json!([
            {"name": "scratch", "emptyDir": {}},
            {"name": "settings", "configMap": {"name": "settings"}},
            {"name": "password", "secret": {"secretName": "password"}},
            {"name": "together", "projected": {"sources": [
                {"configMap": {"name": "settings"}}, {"secret": {"name": "password"}},
            ]}},
        ]);
        spec["containers"][0]["volumeMounts"] = json!([
            {"name": "scratch", "mountPath": "/scratch"},
            {"name": "settings", "mountPath": "/settings"},
            {"name": "password", "mountPath": "/password"},
            {"name": "together", "mountPath": "/together"},
        ]);
    }
    merge(&mut pod["spec"], &case.spec);
    pod
}

/// Puts `over` on top of `value`: field by field, and of the only container of a pod too.
fn merge(value: &mut Value, over: &Value) {
    match (value, over) {
        (Value::Object(fields), Value::Object(over)) => {
            for (field, over) in over {
                merge(fields.entry(field).or_insert(Value::Null), over);
            }
        }
        (Value::Array(elements), Value::Array(over)) if elements[0].is_object() => {
            merge(&mut elements[0], &over[0]);
        }
        (value, over) => *value = over.clone(),
    }
}

/// The name of a case's container, of the same length whoever makes it.
fn name(maker: &str, index: usize) -> String {
    format!("by-{maker}-{index:02}")
}

/// The ephemeral containers of a case, as one maker is to make them.
fn containers(case: &Case, maker: &str) -> Vec<Value> {
    let numbered = case.containers.iter().enumerate();
    let container = |(index, fields): (usize, &Value)| {
        let mut container = json!({
            "name": name(maker, index),
            "image": "docker.io/library/busybox:latest",
            "imagePullPolicy": "IfNotPresent",
            "command": ["sleep", "3600"],
        });
        merge(&mut container, fields);
        container
    };
    numbered.map(container).collect()
}

async fn a_debug_container_is_what_a_kubelet_makes_of_the_same_spec(version: ContainerdVersion) {
    let node = Node::start(version).await;
    wait_for_shims(&node).await;
    let plane = ControlPlane::start(&node).await;
    let _kubelet = Kubelet::start(&node, &plane).await;
    let profiles = node.folder().join("kubelet/root/seccomp");
    std::fs::create_dir_all(&profiles).unwrap();
    let allow = json!({"defaultAction": "SCMP_ACT_ALLOW"}).to_string();
    std::fs::write(profiles.join("allow.json"), allow).unwrap();
    let kubectl = Kubectl::new(&node, KubectlVersion::V1_36, &plane.kubeconfig());
    for made in [
        ["create", "configmap", "settings", "--from-literal=colour=blue"],
        ["create", "secret", "generic", "password"],
    ] {
        kubectl.run(made).await.succeeded();
    }
    let cluster = client(&node, &plane.kubeconfig()).await;
    let cases = cases();
    for case in &cases {
        let pods: Api<Pod> = Api::namespaced(cluster.clone(), case.namespace);
        let pod = serde_json::from_value(pod(case)).unwrap();
        pods.create(&PostParams::default(), &pod).await.unwrap();
    }
    for case in &cases {
        running(&node, case.pod, "main").await;
    }

    for case in &cases {
        let pods: Api<Pod> = Api::namespaced(cluster.clone(), case.namespace);
        let patch = Patch::Strategic(json!({"spec": {"ephemeralContainers": containers(case, MAKERS[0])}}));
        let parameters = PatchParams::default();
        pods.patch_ephemeral_containers(case.pod, &parameters, &patch)
            .await
            .unwrap();
    }
    let knows_the_runtime = agent(&node, "").await;
    add_all(&knows_the_runtime, &cases, MAKERS[1]).await;
    wait_for_all(&node, &cases, &MAKERS[..2]).await;
    knows_the_runtime.kill().await;
    let knows_the_cluster = agent(&node, &plane.node_kubeconfig().to_string_lossy()).await;
    eventually("the agent has read the API server's pods", async || {
        let pod = knows_the_cluster.api().pod("default", "plain").await.body;
        if pod["spec"]["restartPolicy"] == "Always" {
            Ok(())
        } else {
            Err(pod)
        }
    })
    .await;
    add_all(&knows_the_cluster, &cases, MAKERS[2]).await;
    wait_for_all(&node, &cases, &MAKERS).await;

    let mut differences = Vec::new();
    for case in &cases {
        for index in 0..case.containers.len() {
            let expected = seen(&node, case, &name(MAKERS[0], index)).await;
            for maker in &MAKERS[1..] {
                let actual = seen(&node, case, &name(maker, index)).await;
                let place = format!("{} {} by {maker}: ", case.pod, case.containers[index]);
                compare(&place, &expected, &actual, &mut differences);
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Has containerd wait for its shims for a minute. After its usual 2 s it makes containers that cannot be started, and a
/// kubelet leaves it at that: on a busy machine it would leave nothing to compare with.
async fn wait_for_shims(node: &Node) {
    let file = node.folder().join("containerd.toml");
    let mut configuration = std::fs::read_to_string(&file).unwrap();
    configuration.push_str("[timeouts]\n  \"io.containerd.timeout.task.state\" = \"1m\"\n");
    std::fs::write(&file, configuration).unwrap();
    node.kill_containerd().await;
    node.start_containerd().await;
}

async fn agent(node: &Node, kubeconfig: &str) -> Agent {
    node.start_agent_with(AgentOptions {
        configuration: format!("discovery.enabled = true\nkubernetes.kubeconfig = {kubeconfig:?}\n"),
        ..AgentOptions::default()
    })
    .await
}

async fn add_all(agent: &Agent, cases: &[Case], maker: &str) {
    for case in cases {
        agent.api().pod_until(case.namespace, case.pod, |_| true).await;
        let answer = agent
            .api()
            .debug(case.namespace, case.pod, &containers(case, maker))
            .await;
        assert_eq!(answer.status, 200, "{}: {}", case.pod, answer.body);
    }
}

async fn wait_for_all(node: &Node, cases: &[Case], makers: &[&str]) {
    for case in cases {
        for maker in makers {
            for index in 0..case.containers.len() {
                running(node, case.pod, &name(maker, index)).await;
            }
        }
    }
}

/// The pod's container of this name, once it runs.
async fn running(node: &Node, pod: &str, name: &str) -> Container {
    const RUNNING: i32 = debuglet_proto::v1::ContainerState::ContainerRunning as i32;
    eventually(&format!("{name} runs in {pod}"), async || {
        let containers = node.cri().containers(name).await;
        let of_pod = |container: &&Container| container.labels["io.kubernetes.pod.name"] == pod;
        let Some(container) = containers.iter().find(of_pod) else {
            return Err(None);
        };
        if container.state == RUNNING {
            return Ok(container.clone());
        }
        let request = ContainerStatusRequest {
            container_id: container.id.clone(),
            verbose: false,
        };
        let status = node.cri().runtime().container_status(request).await;
        Err(status.ok().and_then(|status| status.into_inner().status))
    })
    .await
}

/// What was asked of the runtime for a container, and what it made of it, without what may differ: names, our origin
/// label, the host paths of the container's own files, its log file's name, the service variables.
async fn seen(node: &Node, case: &Case, name: &str) -> Value {
    let container = running(node, case.pod, name).await;
    let request = ContainerStatusRequest {
        container_id: container.id.clone(),
        verbose: true,
    };
    let status = node
        .cri()
        .runtime()
        .container_status(request)
        .await
        .unwrap()
        .into_inner();
    let info = status.info["info"]
        .replace(name, "NAME")
        .replace(&container.id, "ID");
    let info: Value = serde_json::from_str(&info).unwrap();
    let (mut config, mut spec) = (info["config"].clone(), info["runtimeSpec"].clone());

    let message_path = config["annotations"]["io.kubernetes.container.terminationMessagePath"].clone();
    let own_file = |path: &Value| *path == message_path;
    for mount in elements(&mut config["mounts"]) {
        if own_file(&mount["container_path"]) {
            mount["host_path"] = json!("OWN FILE");
        }
    }
    for mount in elements(&mut spec["mounts"]) {
        if own_file(&mount["destination"]) {
            mount["source"] = json!("OWN FILE");
        }
    }
    if let Some(labels) = config["labels"].as_object_mut() {
        labels.remove("io.debuglet.origin");
    }
    // It follows from the name, which has to differ.
    let annotations = config["annotations"].as_object_mut().unwrap();
    assert!(annotations.remove("io.kubernetes.container.hash").is_some());
    if let Some(path) = config["log_path"].as_str() {
        let folder = path.rsplit_once('/').unwrap().0.to_owned();
        config["log_path"] = json!(folder);
    }
    let service = |variable: &str| variable.starts_with("KUBERNETES_");
    if let Some(variables) = config["envs"].as_array_mut() {
        variables.retain(|variable| !service(variable["key"].as_str().unwrap()));
        variables.sort_by_key(Value::to_string);
    }
    if config["envs"] == json!([]) {
        config["envs"] = Value::Null;
    }
    let variables = spec["process"]["env"].as_array_mut().unwrap();
    variables.retain(|variable| !service(variable.as_str().unwrap()));
    // A kubelet has them in no order.
    variables.sort_by_key(Value::to_string);
    json!({"config": config, "runtimeSpec": spec})
}

fn elements(list: &mut Value) -> impl Iterator<Item = &mut Value> {
    list.as_array_mut().into_iter().flatten()
}

/// Every field in which the two differ; a field that is not there is as good as null.
fn compare(place: &str, expected: &Value, actual: &Value, differences: &mut Vec<String>) {
    let fields = |value: &Value| -> BTreeMap<String, Value> {
        match value {
            Value::Object(fields) => fields.clone().into_iter().collect(),
            Value::Array(elements) => elements
                .iter()
                .enumerate()
                .map(|(index, element)| (format!("{index:03}"), element.clone()))
                .collect(),
            _ => BTreeMap::new(),
        }
    };
    let (expected_fields, actual_fields) = (fields(expected), fields(actual));
    if expected_fields.is_empty() || actual_fields.is_empty() {
        if expected != actual {
            differences.push(format!("{place}: {expected} expected, {actual} found"));
        }
        return;
    }
    for field in expected_fields.keys().chain(
        actual_fields
            .keys()
            .filter(|field| !expected_fields.contains_key(*field)),
    ) {
        let value = |fields: &BTreeMap<String, Value>| fields.get(field).cloned().unwrap_or(Value::Null);
        let place = format!("{place}/{field}");
        compare(
            &place,
            &value(&expected_fields),
            &value(&actual_fields),
            differences,
        );
    }
}
