//! Ephemeral containers that are asked for on the node, in pods of a real API server that a real kubelet runs: written
//! through where the credential's rights reach, local where they do not or nobody answers, appended afterwards.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use integration::kubernetes::{ControlPlane, Kubectl, KubectlVersion, Kubelet, RefusingFront};
use integration::{
    Agent, AgentOptions, BUSYBOX, ContainerdVersion, Node, debug_container, ephemeral_status, eventually,
    sleeping_pod, state_of,
};
use serde_json::{Value, json};

/// The label of every container that debuglet made.
const ORIGIN: &str = "io.debuglet.origin";
const EPHEMERAL: &str = "/api/v1/namespaces/default/pods/cart/ephemeralcontainers";

/// A node with a control plane, a kubelet, and the pod `default/cart`.
struct Cluster {
    plane: ControlPlane,
    /// None where the test has taken it, to end it.
    kubelet: Option<Kubelet>,
    node: Node,
}

impl Cluster {
    async fn start() -> Cluster {
        let node = Node::start(ContainerdVersion::V2_4).await;
        let plane = ControlPlane::start(&node).await;
        let kubelet = Kubelet::start(&node, &plane).await;
        let cluster = Cluster {
            plane,
            kubelet: Some(kubelet),
            node,
        };
        let mut cart = sleeping_pod("cart");
        cart["spec"]["nodeName"] = json!("node1");
        let kubectl = cluster.kubectl();
        let file = kubectl.file("cart.json", &cart.to_string());
        kubectl.run(["create", "-f", &file]).await.succeeded();
        cluster
            .until("the pod runs", |pod| pod["status"]["phase"] == "Running")
            .await;
        cluster
    }

    /// The administrator's, of the real API server.
    fn kubectl(&self) -> Kubectl<'_> {
        Kubectl::new(&self.node, KubectlVersion::V1_36, &self.plane.kubeconfig())
    }

    /// The pod as the API server has it.
    async fn pod(&self) -> Value {
        let output = self.kubectl().run(["get", "pod", "cart", "-o", "json"]).await;
        serde_json::from_str(&output.succeeded().stdout).unwrap()
    }

    async fn until(&self, what: &str, told: impl Fn(&Value) -> bool) -> Value {
        eventually(what, async || {
            let pod = self.pod().await;
            if told(&pod) { Ok(pod) } else { Err(pod) }
        })
        .await
    }

    /// An agent with this credential, once it has heard of the pod from the API server.
    async fn agent(&self, kubeconfig: &std::path::Path) -> Agent {
        let agent = self
            .node
            .start_agent_with(AgentOptions {
                configuration: format!("kubernetes.kubeconfig = {:?}\n", kubeconfig.display().to_string()),
                ..AgentOptions::default()
            })
            .await;
        // What no runtime tells.
        let heard = |pod: &Value| pod["spec"]["schedulerName"].is_string();
        agent.api().pod_until("default", "cart", heard).await;
        agent
    }

    /// Who made the containers of this name: `debuglet`, or `kubelet`.
    async fn makers(&self, name: &str) -> Vec<&'static str> {
        let made = self.node.cri().containers(name).await;
        let maker = |ours: bool| if ours { "debuglet" } else { "kubelet" };
        made.iter()
            .map(|container| maker(container.labels.contains_key(ORIGIN)))
            .collect()
    }
}

/// The names of its ephemeral containers, in their order.
fn names(pod: &Value) -> Vec<&str> {
    let list = pod["spec"]["ephemeralContainers"].as_array();
    let names = list.into_iter().flatten().filter_map(|one| one["name"].as_str());
    names.collect()
}

async fn event(agent: &Agent, reason: &str) -> Value {
    eventually(&format!("there is an event {reason}"), async || {
        let events = agent.api().events("default", "cart").await;
        let found = events.iter().find(|event| event["reason"] == reason);
        found.cloned().ok_or(events)
    })
    .await
}

async fn patch(agent: &Agent, query: &str, container: &Value) -> integration::Answer {
    let body = json!({"spec": {"ephemeralContainers": [container]}});
    let path = format!("{EPHEMERAL}{query}");
    agent
        .api()
        .send("PATCH", &path, "application/strategic-merge-patch+json", &body)
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_role_lets_containers_be_written_through_and_appended_when_the_api_server_is_back() {
    let cluster = Cluster::start().await;
    let agent = cluster
        .agent(&cluster.plane.debuglet_kubeconfig(&cluster.node).await)
        .await;
    let node = &cluster.node;

    // kubectl, which knows the node's API only: the kubelet starts it, and nobody else.
    let local = Kubectl::new(node, KubectlVersion::V1_36, &agent.kubeconfig().await);
    let image = format!("--image={BUSYBOX}");
    let asked = ["debug", "cart", &image, "-c", "first", "--", "sleep", "3600"];
    let said = local.run(asked).await.succeeded();
    assert!(!said.stderr.contains("Warning"), "{said:?}");
    let pod = cluster
        .until("the kubelet runs it", |pod| state_of(pod, "first") == "running:")
        .await;
    assert_eq!(names(&pod), ["first"]);
    assert_eq!(cluster.makers("first").await, ["kubelet"]);

    // The command line follows what the kubelet starts, from its first output.
    let command = [
        "debug", "cart", &image, "--attach", "-c", "second", "--", "echo", "hello",
    ];
    let said = node.debuglet(command).await.succeeded();
    assert_eq!(said.stdout, "hello\n", "{said:?}");
    assert_eq!(cluster.makers("second").await, ["kubelet"]);

    // What is only tried leaves nothing behind.
    let tried = patch(&agent, "?dryRun=All", &debug_container("tried", &["true"])).await;
    assert_eq!(tried.status, 200, "{tried:?}");
    assert!(names(&tried.body).contains(&"tried"));
    assert_eq!(names(&cluster.pod().await), ["first", "second"]);

    // What the cluster's policy refuses is refused here in its words, and does not run here instead.
    let policy = "pod-security.kubernetes.io/enforce=baseline";
    let kubectl = cluster.kubectl();
    kubectl
        .run(["label", "namespace", "default", policy])
        .await
        .succeeded();
    let mut privileged = debug_container("privileged", &["sleep", "3600"]);
    privileged["securityContext"] = json!({"privileged": true});
    let refused = patch(&agent, "", &privileged).await;
    assert_eq!(
        (refused.status, &refused.body["reason"]),
        (403, &json!("Forbidden"))
    );
    assert!(
        refused.body["message"].as_str().unwrap().contains("PodSecurity"),
        "{refused:?}"
    );
    let pod = agent.api().pod("default", "cart").await.body;
    assert_eq!(names(&pod), ["first", "second"]);
    let no_policy = "pod-security.kubernetes.io/enforce-";
    kubectl
        .run(["label", "namespace", "default", no_policy])
        .await
        .succeeded();

    // The API server ends while somebody works in a debug container.
    let script = "echo begin; read line; echo \"heard $line\"";
    let mut session = node.debuglet_command([
        "debug", "cart", "-i", &image, "-c", "session", "--", "sh", "-c", script,
    ]);
    session.stdin(Stdio::piped());
    let mut session = node.spawn(session);
    eventually("the session has begun", async || {
        let said = session.stdout();
        if said == "begin\n" {
            Ok(())
        } else {
            Err((said, session.stderr()))
        }
    })
    .await;
    cluster.plane.kill_api_server().await;
    let mut stdin = session.stdin().unwrap();
    stdin.write_all(b"you\n").unwrap();
    drop(stdin);
    let said = session.output().await.succeeded();
    assert_eq!(said.stdout, "begin\nheard you\n");

    // Without it debug containers run all the same, here.
    let command = ["debug", "cart", &image, "-c", "local", "--", "sleep", "3600"];
    let said = node.debuglet(command).await.succeeded();
    assert!(said.stderr.contains("for this node alone"), "{said:?}");
    let running = |pod: &Value| state_of(pod, "local") == "running:";
    let pod = agent.api().pod_until("default", "cart", running).await;
    let id = ephemeral_status(&pod, "local")["containerID"].clone();
    assert_eq!(cluster.makers("local").await, ["debuglet"]);
    event(&agent, "LocalEphemeralContainer").await;

    // Once it is back it is told, and the kubelet takes the container as its own, and starts no second.
    cluster.plane.start_api_server(&cluster.node).await;
    let known = |pod: &Value| ephemeral_status(pod, "local")["containerID"].is_string();
    let pod = cluster.until("the kubelet shows the container", known).await;
    assert_eq!(names(&pod), ["first", "second", "session", "local"]);
    assert_eq!(ephemeral_status(&pod, "local")["containerID"], id);
    assert_eq!(state_of(&pod, "local"), "running:");
    assert_eq!(cluster.makers("local").await, ["debuglet"]);
    event(&agent, "EphemeralContainerAppended").await;
    for name in ["first", "second", "session"] {
        assert_eq!(cluster.makers(name).await, ["kubelet"], "{name}");
    }
}

/// For how long an API server that has just started may refuse everything.
const WITHOUT_ROLES: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_refuses_everything_for_its_first_seconds_is_soon_told_everything() {
    let mut cluster = Cluster::start().await;
    let kubelet = cluster.kubelet.take().expect("it runs");
    let front = RefusingFront::start(&cluster.node, &cluster.plane.kubeconfig()).await;
    let options = AgentOptions {
        configuration: format!(
            "kubernetes.kubeconfig = {:?}\nkubernetes.kubelet_down_seconds = 3\n",
            front.kubeconfig().display().to_string()
        ),
        ..AgentOptions::default()
    };
    front.refuse_for(WITHOUT_ROLES);
    let agent = cluster.node.start_agent_with(options).await;
    agent
        .api()
        .pod_until("default", "cart", |pod| pod["status"]["phase"] == "Running")
        .await;
    let local = debug_container("local", &["sleep", "3600"]);
    let answer = patch(&agent, "", &local).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let from = |pod: &Value| pod["metadata"]["annotations"]["debuglet.io/spec-from"] == "API server";
    agent.api().pod_until("default", "cart", from).await;

    // It refuses once more, while there is something of every kind to tell.
    front.refuse_for(WITHOUT_ROLES);
    cluster
        .until("the container is appended", |pod| names(pod) == ["local"])
        .await;
    let kubectl = cluster.kubectl();
    let told = async |reason: &str| {
        eventually(&format!("an event {reason} is in the API server"), async || {
            let field = format!("--field-selector=reason={reason},reportingComponent=debuglet");
            let output = kubectl.run(["get", "events", &field, "-o", "name"]).await;
            if output.stdout.is_empty() {
                Err((output, agent.log()))
            } else {
                Ok(())
            }
        })
        .await;
    };
    told("Started").await;

    // What is started in the place of a kubelet that is down is reported, too. Without a Lease nothing is.
    eventually("the kubelet has a Lease", async || {
        let lease = ["get", "lease", "-n", "kube-node-lease", "node1"];
        let said = kubectl.run(lease).await;
        if said.code == 0 { Ok(()) } else { Err(said) }
    })
    .await;
    kubelet.process().kill().await;
    let image = format!("--image={BUSYBOX}");
    let asked = ["debug", "cart", &image, "-c", "taken", "--", "sleep", "3600"];
    front.refuse_for(WITHOUT_ROLES);
    kubectl.run(asked).await.succeeded();
    let running = |pod: &Value| state_of(pod, "taken") == "running:";
    agent.api().pod_until("default", "cart", running).await;
    cluster.until("its state is reported", running).await;
    assert_eq!(cluster.makers("taken").await, ["debuglet"]);
    told("TakenOver").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_kubelets_credential_containers_are_local_and_a_name_that_means_two_things_is_reported() {
    let cluster = Cluster::start().await;
    let agent = cluster.agent(&cluster.plane.node_kubeconfig()).await;
    let image = format!("--image={BUSYBOX}");
    let command = ["debug", "cart", &image, "-c", "mine", "--", "sleep", "3600"];
    let said = cluster.node.debuglet(command).await.succeeded();
    assert!(said.stderr.contains("does not let debuglet add"), "{said:?}");
    let running = |pod: &Value| state_of(pod, "mine") == "running:";
    let pod = agent.api().pod_until("default", "cart", running).await;
    let id = ephemeral_status(&pod, "mine")["containerID"].clone();
    assert_eq!(cluster.makers("mine").await, ["debuglet"]);
    let told = event(&agent, "LocalEphemeralContainer").await;
    assert_eq!(
        told["involvedObject"]["fieldPath"],
        "spec.ephemeralContainers{mine}"
    );
    assert!(names(&cluster.pod().await).is_empty());

    // Somebody asks the cluster for another container of that name.
    let asked = ["debug", "cart", &image, "-c", "mine", "--", "sleep", "1800"];
    cluster.kubectl().run(asked).await.succeeded();
    let told = event(&agent, "EphemeralContainerConflict").await;
    assert_eq!(told["type"], "Warning");
    let pod = agent.api().pod("default", "cart").await.body;
    assert_eq!(
        pod["spec"]["ephemeralContainers"][0]["command"],
        json!(["sleep", "3600"])
    );
    assert_eq!(ephemeral_status(&pod, "mine")["containerID"], id);
    // The kubelet finds the name taken.
    cluster
        .until("the kubelet shows the container that it found", |pod| {
            ephemeral_status(pod, "mine")["containerID"] == id
        })
        .await;
    assert_eq!(cluster.makers("mine").await, ["debuglet"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_roles_give_the_rights_that_are_used_and_no_other() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let plane = ControlPlane::start(&node).await;
    plane.debuglet_kubeconfig(&node).await;
    let kubectl = Kubectl::new(&node, KubectlVersion::V1_36, &plane.kubeconfig());
    let can = async |namespace: &str, verb: &str, resource: &str, subresource: &str| {
        let subresource = format!("--subresource={subresource}");
        let output = kubectl
            .run([
                "auth",
                "can-i",
                "--as=system:serviceaccount:kube-system:debuglet",
                "-n",
                namespace,
                verb,
                resource,
                &subresource,
            ])
            .await;
        output.stdout.trim() == "yes"
    };
    for (namespace, verb, resource, subresource) in [
        ("shop", "list", "pods", ""),
        ("shop", "watch", "pods", ""),
        ("shop", "patch", "pods", "ephemeralcontainers"),
        ("shop", "create", "events", ""),
        ("shop", "patch", "events", ""),
    ] {
        // The API server does not know of a new role at once.
        eventually(
            &format!("{verb} {resource} {subresource} is allowed"),
            async || match can(namespace, verb, resource, subresource).await {
                true => Ok(()),
                false => Err("no"),
            },
        )
        .await;
    }
    for (namespace, verb, resource, subresource) in [
        ("shop", "get", "pods", ""),
        ("shop", "create", "pods", ""),
        ("shop", "patch", "pods", ""),
        ("shop", "patch", "pods", "status"),
        ("shop", "delete", "pods", ""),
        ("shop", "create", "pods", "exec"),
        ("shop", "create", "pods", "eviction"),
        ("shop", "update", "pods", "ephemeralcontainers"),
        ("shop", "update", "pods", "status"),
        ("shop", "list", "events", ""),
        ("shop", "get", "configmaps", ""),
        ("shop", "get", "secrets", ""),
        ("shop", "create", "serviceaccounts", "token"),
        ("shop", "get", "leases.coordination.k8s.io", ""),
        ("kube-node-lease", "get", "leases.coordination.k8s.io", ""),
        ("kube-node-lease", "update", "leases.coordination.k8s.io", ""),
        ("", "get", "nodes", ""),
        ("", "create", "tokenreviews.authentication.k8s.io", ""),
        ("", "create", "subjectaccessreviews.authorization.k8s.io", ""),
    ] {
        assert!(
            !can(namespace, verb, resource, subresource).await,
            "{verb} {resource} {subresource}"
        );
    }

    // Those that are optional add what they say, and where they are applied.
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd");
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    kubectl.run(["create", "namespace", "shop"]).await.succeeded();
    kubectl
        .run(["apply", "-n", "shop", "-f", &file("role-secrets.yaml")])
        .await
        .succeeded();
    for name in ["clusterrole-reviews.yaml", "clusterrole-take-over.yaml"] {
        kubectl.run(["apply", "-f", &file(name)]).await.succeeded();
    }
    for (namespace, verb, resource, subresource, expected) in [
        ("shop", "get", "configmaps", "", true),
        ("shop", "get", "secrets", "", true),
        ("shop", "list", "secrets", "", false),
        ("default", "get", "configmaps", "", false),
        ("default", "get", "secrets", "", false),
        ("", "create", "tokenreviews.authentication.k8s.io", "", true),
        (
            "",
            "create",
            "subjectaccessreviews.authorization.k8s.io",
            "",
            true,
        ),
        ("shop", "get", "pods", "", true),
        ("shop", "patch", "pods", "status", true),
        ("shop", "update", "pods", "status", false),
        ("shop", "patch", "pods", "", false),
        ("kube-node-lease", "get", "leases.coordination.k8s.io", "", true),
        (
            "kube-node-lease",
            "update",
            "leases.coordination.k8s.io",
            "",
            false,
        ),
        ("shop", "get", "leases.coordination.k8s.io", "", false),
    ] {
        let answer = eventually("the new rights are known", async || {
            let answer = can(namespace, verb, resource, subresource).await;
            if answer == expected {
                Ok(answer)
            } else {
                Err(answer)
            }
        })
        .await;
        assert_eq!(answer, expected, "{namespace} {verb} {resource}");
    }
}
