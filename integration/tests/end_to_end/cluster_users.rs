//! The cluster's own users on debuglet's port: who they are and what they may is for the real kube-apiserver to say, under
//! RBAC. debuglet asks with the kubelet's credential.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use integration::kubernetes::{ControlPlane, Kubectl, KubectlVersion, Kubelet};
use integration::{
    Agent, AgentOptions, BUSYBOX, ContainerdVersion, ForeignPod, Node, debug_container, eventually,
    eventually_within, is_running, sleeping_pod, state_of,
};
use serde_json::{Value, json};

/// Where root's debug container listens.
const PORT_OF_ROOT: u16 = 8099;

/// Longer than a right is remembered, and than the API server's watch takes on a busy machine.
const LATER: Duration = Duration::from_secs(60);

/// A pod for the kubelet, in `namespace`.
fn web(namespace: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {
            "nodeName": "node1", "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": BUSYBOX, "command": ["sleep", "86400"]}],
        },
    })
}

/// May work with pods, and debug where `groups` has debuglet's own.
fn role(name: &str, groups: &[&str]) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": name, "namespace": "shop"},
        "rules": [{
            "apiGroups": groups,
            "resources": [
                "pods", "pods/ephemeralcontainers", "pods/log", "pods/exec", "pods/attach", "pods/portforward",
            ],
            "verbs": ["get", "list", "watch", "create", "patch"],
        }],
    })
}

/// A kubeconfig for a service account of `shop` on debuglet's port, with [`role`].
async fn user_of(node: &Node, admin: &Kubectl<'_>, name: &str, groups: &[&str]) -> PathBuf {
    user_with(node, admin, name, &role(name, groups)).await
}

/// The same with this role.
async fn user_with(node: &Node, admin: &Kubectl<'_>, name: &str, role: &Value) -> PathBuf {
    let file = admin.file(&format!("{name}.json"), &role.to_string());
    admin.run(["apply", "-f", &file]).await.succeeded();
    account_bound_to(node, admin, name, &format!("--role={name}")).await
}

/// The same with the role that the README names.
async fn user_with_the_readmes_role(node: &Node, admin: &Kubectl<'_>, name: &str) -> PathBuf {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd/clusterrole-debugger.yaml");
    let file = file.to_string_lossy();
    admin.run(["apply", "-f", &file]).await.succeeded();
    account_bound_to(node, admin, name, "--clusterrole=debuglet-debugger").await
}

async fn account_bound_to(node: &Node, admin: &Kubectl<'_>, name: &str, role: &str) -> PathBuf {
    admin
        .run(["create", "serviceaccount", "-n", "shop", name])
        .await
        .succeeded();
    let account = format!("--serviceaccount=shop:{name}");
    admin
        .run(["create", "rolebinding", "-n", "shop", name, role, &account])
        .await
        .succeeded();
    let token = admin
        .run(["create", "token", "-n", "shop", name])
        .await
        .succeeded();
    kubeconfig(node.folder(), name, token.stdout.trim())
}

/// A kubeconfig with this token, which knows debuglet by its certificate.
pub(crate) fn kubeconfig(folder: &Path, name: &str, token: &str) -> PathBuf {
    let authority = folder.join("state/pki/ca.crt");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {
            "server": "https://127.0.0.1:10260", "certificate-authority": authority,
        }}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    // A folder for each: kubectl keeps what it has discovered beside it.
    let folder = folder.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("kubeconfig");
    std::fs::write(&file, config.to_string()).unwrap();
    file
}

async fn agent_for_users(node: &Node, kubeconfig: &Path) -> Agent {
    node.start_agent_with(AgentOptions {
        configuration: format!(
            "discovery.enabled = true\napi.cluster_users = true\nkubernetes.kubeconfig = {:?}\n",
            kubeconfig.display().to_string()
        ),
        // A proxy for the way out of a company's network, which the agent does not take to the API server.
        under: ["env", "HTTPS_PROXY=http://127.0.0.1:9"]
            .map(str::to_owned)
            .to_vec(),
        ..AgentOptions::default()
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_debugs_where_the_cluster_lets_him_and_nowhere_else_and_root_does_when_it_is_down() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let plane = ControlPlane::start(&node).await;
    let _kubelet = Kubelet::start(&node, &plane).await;
    let admin = Kubectl::new(&node, KubectlVersion::V1_36, &plane.kubeconfig());
    for namespace in ["shop", "bank"] {
        admin.run(["create", "namespace", namespace]).await.succeeded();
        let file = admin.file(&format!("{namespace}.json"), &web(namespace).to_string());
        admin.run(["apply", "-f", &file]).await.succeeded();
    }
    let agent = agent_for_users(&node, &plane.node_kubeconfig()).await;
    let root = Kubectl::new(&node, KubectlVersion::V1_36, &agent.kubeconfig().await);
    for namespace in ["shop", "bank"] {
        agent.api().pod_until(namespace, "web", is_running).await;
    }
    let debugger = user_of(&node, &admin, "debugger", &["", "debuglet.io"]).await;
    let user = Kubectl::new(&node, KubectlVersion::V1_36, &debugger);

    let who = user.run(["auth", "whoami", "-o", "json"]).await.succeeded();
    let who: Value = serde_json::from_str(&who.stdout).unwrap();
    assert_eq!(
        who["status"]["userInfo"]["username"],
        "system:serviceaccount:shop:debugger"
    );
    let image = format!("--image={BUSYBOX}");
    let debug = |namespace: &'static str, name: &'static str| {
        [
            "debug", "-n", namespace, "web", &image, "-c", name, "--", "sh", "-c",
        ]
        .map(str::to_owned)
        .into_iter()
        .chain(["echo from inside; sleep 3600".to_owned()])
        .collect::<Vec<_>>()
    };
    let words = debug("shop", "debugger");
    // Until the API server's watch has told what the pod is, there is none for users of the cluster.
    eventually_within(LATER, "the user's debug container is taken", async || {
        let output = user.run(words.iter().map(String::as_str)).await;
        if output.code == 0 { Ok(()) } else { Err(output) }
    })
    .await;
    agent
        .api()
        .pod_until("shop", "web", |pod| state_of(pod, "debugger") == "running:")
        .await;
    let said = user
        .run(["exec", "-n", "shop", "web", "-c", "debugger", "--", "echo", "in"])
        .await;
    assert_eq!(said.succeeded().stdout, "in\n");
    eventually("the user reads the log", async || {
        let said = user
            .run(["logs", "-n", "shop", "web", "-c", "debugger"])
            .await
            .succeeded();
        if said.stdout == "from inside\n" {
            Ok(())
        } else {
            Err(said)
        }
    })
    .await;
    let listed = user.run(["get", "pods", "-n", "shop"]).await.succeeded();
    assert!(listed.stdout.contains("web"), "{listed:?}");

    // Nowhere else, and nothing else.
    let words = debug("bank", "debugger");
    let refused = user.run(words.iter().map(String::as_str)).await;
    let expected = r#"pods "web" is forbidden: User "system:serviceaccount:shop:debugger" cannot get resource "pods" in API group "" in the namespace "bank""#;
    assert!(
        refused.code != 0 && refused.stderr.contains(expected),
        "{refused:?}"
    );
    for words in [
        &["get", "pods", "-A"][..],
        &["get", "nodes"],
        &["delete", "pod", "-n", "shop", "web"],
        &["get", "--raw", "/metrics"],
        &["get", "--raw", "/apis/debuglet.io/v1alpha1/node"],
        &[
            "get",
            "--raw",
            "/api/v1/namespaces/shop/pods/..%2f..%2fbank%2fpods%2fweb",
        ],
        &["get", "--raw", "/api/v1/namespaces/shop%2fpods%2fweb/pods/web"],
        &["get", "pods", "-n", "shop", "--as=root"],
    ] {
        let refused = user.run(words.iter().copied()).await;
        assert!(
            refused.code != 0 && (refused.stderr.contains("orbidden") || refused.stderr.contains("NotFound")),
            "{words:?}: {refused:?}"
        );
        assert_eq!(refused.stdout, "", "{words:?}");
    }
    for (namespace, may) in [("shop", "yes"), ("bank", "no")] {
        let said = user
            .run([
                "auth",
                "can-i",
                "patch",
                "pods",
                "--subresource=ephemeralcontainers",
                "-n",
                namespace,
            ])
            .await;
        assert!(said.stdout.starts_with(may), "{namespace}: {said:?}");
    }

    // Kubernetes' own rights alone do not let anybody past its admission control.
    let reader = user_of(&node, &admin, "reader", &[""]).await;
    let reader = Kubectl::new(&node, KubectlVersion::V1_36, &reader);
    let words = debug("shop", "second");
    let refused = reader.run(words.iter().map(String::as_str)).await;
    assert!(
        refused.code != 0
            && refused
                .stderr
                .contains(r#"cannot patch resource "pods/ephemeralcontainers" in API group "debuglet.io""#),
        "{refused:?}"
    );

    // Nor into a shell: exec would be judged there, too.
    let refused = reader
        .run(["exec", "-n", "shop", "web", "-c", "main", "--", "echo", "in"])
        .await;
    assert!(
        refused.code != 0
            && refused
                .stderr
                .contains(r#"cannot create resource "pods/exec" in API group "debuglet.io""#),
        "{refused:?}"
    );

    // A token of nobody's.
    let stranger = kubeconfig(node.folder(), "stranger", "made-up");
    let stranger = Kubectl::new(&node, KubectlVersion::V1_36, &stranger);
    let refused = stranger
        .run(["get", "--raw", "/api/v1/namespaces/shop/pods"])
        .await;
    assert!(
        refused.code != 0 && refused.stderr.contains("the bearer token is not valid"),
        "{refused:?}"
    );

    // With the API server down nobody can be asked about the cluster's users, and root is let in as ever.
    drop(plane);
    eventually_within(LATER, "what was granted is forgotten", async || {
        let output = user.run(["get", "--raw", "/api/v1/namespaces/shop/pods"]).await;
        if output.code != 0 && output.stderr.contains("kube-apiserver cannot be asked") {
            Ok(())
        } else {
            Err(output)
        }
    })
    .await;
    let words = debug("bank", "of-root");
    root.run(words.iter().map(String::as_str)).await.succeeded();
    agent
        .api()
        .pod_until("bank", "web", |pod| state_of(pod, "of-root") == "running:")
        .await;
}

/// An agent on a node without a kubelet, whose API server has the pod `shop/web`: it runs as a kubelet runs it. Beside it
/// runs what the API server does not have: `shop/look` of another client of the runtime, and `vault/vault` of a manifest.
/// The latter is there first: beside a kubelet's pod the agent starts none of its own.
async fn agent_with_hidden_pods(node: &Node, plane: &ControlPlane, admin: &Kubectl<'_>) -> Agent {
    let mut vault = sleeping_pod("vault");
    vault["metadata"]["namespace"] = json!("vault");
    node.write_manifest("vault.json", &vault);
    let agent = agent_for_users(node, &plane.node_kubeconfig()).await;
    agent.api().pod_until("vault", "vault", is_running).await;
    admin.run(["create", "namespace", "shop"]).await.succeeded();
    let file = admin.file("web.json", &web("shop").to_string());
    admin.run(["apply", "-f", &file]).await.succeeded();
    let uid = admin
        .run([
            "get",
            "pod",
            "-n",
            "shop",
            "web",
            "-o",
            "jsonpath={.metadata.uid}",
        ])
        .await
        .succeeded();
    let mut config = ForeignPod::config(node, "web", uid.stdout.trim());
    let source = ("kubernetes.io/config.source".to_owned(), "api".to_owned());
    config.annotations = [source].into();
    ForeignPod::run_sleeping(&node.cri(), config).await;
    ForeignPod::run_sleeping(&node.cri(), ForeignPod::config(node, "look", "u-look")).await;
    for pod in ["web", "look"] {
        agent.api().pod_until("shop", pod, is_running).await;
    }
    agent
}

/// Whatever kubectl shows of a pod or a container that it does not find itself: the server is asked for streams to it.
async fn streams_to_what_is_hidden_are_as_to_what_is_not_there(user: &Kubectl<'_>) {
    let _proxy = user.spawn(["proxy", "--port=8001", "--disable-filter"]);
    eventually("kubectl passes requests on", async || {
        user.node().connect(8001).await
    })
    .await;
    for (method, protocol) in [("GET", "websocket"), ("GET", "SPDY/3.1"), ("POST", "SPDY/3.1")] {
        for (hidden, not_there) in [
            ("web/exec?container=of-root", "web/exec?container=nothing"),
            ("web/attach?container=of-root", "web/attach?container=nothing"),
            ("look/exec?container=main", "nothing/exec?container=main"),
            ("look/attach?container=main", "nothing/attach?container=main"),
            ("look/portforward?ports=80", "nothing/portforward?ports=80"),
        ] {
            let (code, text) = stream(user.node(), method, hidden, protocol).await;
            let (expected, same) = stream(user.node(), method, not_there, protocol).await;
            let plain = |text: &str| text.replace("of-root", "nothing").replace("look", "nothing");
            assert_eq!(
                (code, plain(&text)),
                (expected, same),
                "{method} {hidden} {protocol}"
            );
            assert!(
                [400, 404].contains(&code),
                "{method} {hidden} {protocol}: {code} {text}"
            );
        }
        for seen in ["web/attach?container=of-user", "web/portforward?ports=80"] {
            let (code, text) = stream(user.node(), method, seen, protocol).await;
            assert_eq!(code, 101, "{method} {seen} {protocol}: {text}");
        }
    }
}

/// The answer to a request for a stream to a pod of `shop`, by `kubectl proxy`.
async fn stream(node: &Node, method: &str, path: &str, protocol: &str) -> (u16, String) {
    let connection = TokioIo::new(node.connect(8001).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(connection).await.unwrap();
    let passing = tokio::spawn(connection.with_upgrades());
    let request = hyper::Request::builder()
        .method(method)
        .uri(format!("/api/v1/namespaces/shop/pods/{path}&command=id&stdout=1"))
        .header("host", "127.0.0.1:8001")
        .header("connection", "Upgrade")
        .header("upgrade", protocol)
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-protocol", "v4.channel.k8s.io")
        .header("x-stream-protocol-version", "v4.channel.k8s.io")
        .header("x-stream-protocol-version", "portforward.k8s.io")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let code = response.status().as_u16();
    let body = match code {
        101 => Bytes::new(),
        _ => response.into_body().collect().await.unwrap().to_bytes(),
    };
    passing.abort();
    (code, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_the_node_has_is_neither_seen_nor_reached_by_users_of_the_cluster() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let plane = ControlPlane::start(&node).await;
    let admin = Kubectl::new(&node, KubectlVersion::V1_36, &plane.kubeconfig());
    let agent = agent_with_hidden_pods(&node, &plane, &admin).await;
    let kubeconfig = user_with_the_readmes_role(&node, &admin, "debugger").await;
    let reads_namespaces = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "namespaces"},
        "rules": [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "list", "watch"]}],
    });
    let file = admin.file("namespaces.json", &reads_namespaces.to_string());
    admin.run(["apply", "-f", &file]).await.succeeded();
    admin
        .run([
            "create",
            "clusterrolebinding",
            "namespaces",
            "--clusterrole=namespaces",
            "--serviceaccount=shop:debugger",
        ])
        .await
        .succeeded();
    let user = Kubectl::new(&node, KubectlVersion::V1_36, &kubeconfig);
    eventually_within(
        LATER,
        "the API server's pod is shown, and rights are there",
        async || {
            let output = user.run(["get", "pod,event", "-n", "shop"]).await;
            let listed = output.code == 0 && output.stdout.contains("web");
            listed.then_some(()).ok_or(output)
        },
    )
    .await;

    // root asks for a privileged container over the socket, the user for one of his own.
    let serve = format!("while true; do echo served by root | nc -l -p {PORT_OF_ROOT}; done");
    let mut privileged = debug_container("of-root", &["sh", "-c", &serve]);
    privileged["securityContext"] = json!({"privileged": true});
    let asked = agent.api().debug("shop", "web", &[privileged]).await;
    assert_eq!(asked.status, 200, "{asked:?}");
    let asked = agent
        .api()
        .debug("shop", "look", &[debug_container("of-root", &["sleep", "86400"])])
        .await;
    assert_eq!(asked.status, 200, "{asked:?}");
    let image = format!("--image={BUSYBOX}");
    let words = [
        "debug", "-n", "shop", "web", &image, "-c", "of-user", "--", "sleep", "86400",
    ];
    user.run(words).await.succeeded();
    for name in ["of-root", "of-user"] {
        agent
            .api()
            .pod_until("shop", "web", |pod| state_of(pod, name) == "running:")
            .await;
    }

    // Nor is it told to the API server, whose users read its events. Those of root's container came first.
    eventually_within(LATER, "events of the user's container are told", async || {
        let events = admin.run(["get", "events", "-n", "shop", "-o", "json"]).await;
        for hidden in ["of-root", "look", "vault"] {
            assert!(!events.stdout.contains(hidden), "{hidden}: {}", events.stdout);
        }
        let told = [
            "EphemeralContainerRequested",
            "Started",
            "spec.ephemeralContainers{of-user}",
        ]
        .iter()
        .all(|word| events.stdout.contains(word));
        if told { Ok(()) } else { Err(events) }
    })
    .await;

    // Nothing of it is in what he reads.
    let root = Kubectl::new(&node, KubectlVersion::V1_36, &agent.kubeconfig().await);
    let all = root
        .run(["get", "events", "-n", "shop", "-o", "name"])
        .await
        .succeeded();
    let hidden_event = all
        .stdout
        .lines()
        .find(|name| name.contains("look."))
        .unwrap()
        .to_owned();
    for words in [
        &["get", "pods", "-n", "shop"][..],
        &["get", "pods", "-n", "shop", "-o", "yaml"],
        &["get", "pods", "-n", "shop", "--field-selector=metadata.name=look"],
        &["get", "events", "-n", "shop"],
        &["get", "events", "-n", "shop", "-o", "yaml"],
        &["describe", "pod", "-n", "shop", "web"],
        &["get", "namespaces", "-o", "yaml"],
        &[
            "get",
            "--raw",
            "/api/v1/namespaces/shop/pods?watch=true&timeoutSeconds=2",
        ],
        &[
            "get",
            "--raw",
            "/api/v1/namespaces/shop/events?watch=true&timeoutSeconds=2",
        ],
        &["get", "--raw", "/api/v1/namespaces?watch=true&timeoutSeconds=2"],
    ] {
        let read = user.run(words.iter().copied()).await.succeeded();
        for hidden in ["of-root", "look", "vault"] {
            assert!(
                !read.stdout.contains(hidden),
                "{words:?} {hidden}: {}",
                read.stdout
            );
        }
        let whole = root.run(words.iter().copied()).await.succeeded();
        let seen = ["of-root", "look", "vault"]
            .iter()
            .any(|hidden| whole.stdout.contains(hidden));
        assert!(seen, "root sees it: {words:?}: {}", whole.stdout);
    }
    let seen = user
        .run(["get", "pod", "-n", "shop", "web", "-o", "yaml"])
        .await
        .succeeded();
    assert!(seen.stdout.contains("name: of-user"), "{}", seen.stdout);
    for words in [
        &["get", "pod", "-n", "shop", "look"][..],
        &["get", "-n", "shop", hidden_event.as_str()],
        &["get", "namespace", "vault"],
        &["logs", "-n", "shop", "web", "-c", "of-root"],
        &["logs", "-n", "shop", "look", "-c", "main"],
        // Of a container that it does not see kubectl asks for no log.
        &[
            "get",
            "--raw",
            "/api/v1/namespaces/shop/pods/web/log?container=of-root",
        ],
        &["exec", "-n", "shop", "web", "-c", "of-root", "--", "echo", "in"],
        &["exec", "-n", "shop", "look", "-c", "main", "--", "echo", "in"],
        &["attach", "-n", "shop", "web", "-c", "of-root"],
        &[
            "get",
            "--raw",
            "/apis/debuglet.io/v1alpha1/namespaces/shop/pods/web/launches/of-root",
        ],
        &[
            "get",
            "--raw",
            "/apis/debuglet.io/v1alpha1/namespaces/shop/pods/look/launches/of-root",
        ],
    ] {
        let refused = user.run(words.iter().copied()).await;
        assert!(
            refused.code != 0 && !refused.stderr.contains("orbidden") && refused.stdout.is_empty(),
            "{words:?}: {refused:?}"
        );
    }
    streams_to_what_is_hidden_are_as_to_what_is_not_there(&user).await;
    let stop = "/apis/debuglet.io/v1alpha1/namespaces/shop/pods/web/launches/of-root/stop";
    let refused = user.run(["create", "--raw", stop, "-f", "/dev/null"]).await;
    assert!(refused.code != 0, "{refused:?}");
    agent
        .api()
        .pod_until("shop", "web", |pod| state_of(pod, "of-root") == "running:")
        .await;
    // What he asked for is his.
    let said = user
        .run(["exec", "-n", "shop", "web", "-c", "of-user", "--", "echo", "in"])
        .await;
    assert_eq!(said.succeeded().stdout, "in\n");
    // The network is the pod's: whoever may forward its ports reaches whatever listens there, as from his own container.
    let port = format!(":{PORT_OF_ROOT}");
    let forward = user.spawn(["port-forward", "-n", "shop", "pod/web", &port]);
    let local: u16 = eventually_within(LATER, "a port is forwarded", async || {
        let said = forward.stdout();
        let line = said.strip_prefix("Forwarding from 127.0.0.1:");
        let local = line.and_then(|line| line.split_once(' ')?.0.parse().ok());
        local.ok_or((said, forward.stderr()))
    })
    .await;
    let mut stream = node.connect(local).await.unwrap();
    let mut served = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut served)
        .await
        .unwrap();
    assert_eq!(served, "served by root\n");
    forward.kill().await;
    let address = format!("127.0.0.1:{PORT_OF_ROOT}");
    let (host, port) = address.split_once(':').unwrap();
    let said = user
        .run([
            "exec", "-n", "shop", "web", "-c", "of-user", "--", "nc", host, port,
        ])
        .await;
    assert_eq!(said.succeeded().stdout, "served by root\n");

    // Who did it is told to root: in the pod, in events, and in one line of the log.
    let described = node.debuglet(["describe", "web", "-n", "shop"]).await.succeeded();
    for who in [
        "debuglet:root, over the socket",
        "system:serviceaccount:shop:debugger, as a user of the cluster",
    ] {
        assert_eq!(
            described
                .stdout
                .matches(&format!("Requested By:   {who}"))
                .count(),
            1,
            "{}",
            described.stdout
        );
        let event = format!("was asked for by {who}");
        assert!(described.stdout.contains(&event), "{}", described.stdout);
    }
    let log = agent.log();
    let line = |words: &[&str]| {
        log.lines()
            .filter(|line| words.iter().all(|word| line.contains(word)))
            .count()
    };
    let who = "system:serviceaccount:shop:debugger";
    assert_eq!(
        line(&[who, "create pods/exec", "shop/web", "of-user", "101", "cluster"]),
        2,
        "{log}"
    );
    assert_eq!(
        line(&[who, "get pods/log", "shop/web", "of-root", "400"]),
        1,
        "{log}"
    );
    assert_eq!(
        line(&[
            who,
            "patch pods/ephemeralcontainers",
            "shop/web",
            "of-user",
            "200"
        ]),
        1,
        "{log}"
    );
    assert_eq!(
        line(&[
            "debuglet:root",
            "patch pods/ephemeralcontainers",
            "shop/web",
            "of-root",
            "socket"
        ]),
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_to_one_name_are_enough_for_it_nobody_acts_for_another_and_a_right_that_goes_ends_its_streams()
{
    let node = Node::start(ContainerdVersion::V2_4).await;
    let plane = ControlPlane::start(&node).await;
    let admin = Kubectl::new(&node, KubectlVersion::V1_36, &plane.kubeconfig());
    let agent = agent_with_hidden_pods(&node, &plane, &admin).await;
    let named = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "named", "namespace": "shop"},
        "rules": [{
            "apiGroups": [""], "resources": ["pods"], "resourceNames": ["web"], "verbs": ["get", "list", "watch"],
        }],
    });
    let kubeconfig = user_with(&node, &admin, "named", &named).await;
    let user = Kubectl::new(&node, KubectlVersion::V1_36, &kubeconfig);
    eventually_within(LATER, "the pod is shown, and the right is there", async || {
        let output = user.run(["get", "pod", "-n", "shop", "web"]).await;
        if output.code == 0 { Ok(()) } else { Err(output) }
    })
    .await;

    // Lists and watches of that name, as `kubectl get -w` and `kubectl wait` ask for them, and of no other.
    let watching = user.spawn(["get", "pod", "-n", "shop", "web", "-w"]);
    user.run([
        "wait",
        "-n",
        "shop",
        "pod/web",
        "--for=jsonpath={.status.phase}=Running",
        "--timeout=20s",
    ])
    .await
    .succeeded();
    let listed = user
        .run([
            "get",
            "pods",
            "-n",
            "shop",
            "--field-selector=metadata.name=web",
            "-o",
            "name",
        ])
        .await
        .succeeded();
    assert_eq!(listed.stdout, "pod/web\n");
    for selector in ["metadata.name=look", "metadata.name!=web", "status.phase=Running"] {
        let refused = user
            .run([
                "get",
                "pods",
                "-n",
                "shop",
                &format!("--field-selector={selector}"),
            ])
            .await;
        assert!(
            refused.code != 0 && refused.stderr.contains("orbidden"),
            "{selector}: {refused:?}"
        );
    }

    // Impersonation is refused whoever asks, and kubectl shows why.
    let root = Kubectl::new(&node, KubectlVersion::V1_36, &agent.kubeconfig().await);
    for words in [
        &["get", "pods", "-A", "--as=jane"][..],
        &["auth", "can-i", "delete", "pods", "--as=jane"],
        &[
            "delete",
            "pod",
            "-n",
            "vault",
            "vault",
            "--as=jane",
            "--as-group=staff",
        ],
        &["get", "pod", "-n", "shop", "web", "--as=jane", "--as-uid=7"],
        &["get", "--raw", "/api/v1/namespaces/shop/pods/web", "--as=jane"],
        &["debug", "-n", "shop", "web", "--image=busybox", "--as=jane"],
        &["exec", "-n", "shop", "web", "--as=jane", "--", "true"],
        &["version", "--as=jane"],
    ] {
        for kubectl in [&root, &user] {
            let refused = kubectl.run(words.iter().copied()).await;
            assert!(
                refused.code != 0 && refused.stderr.contains("impersonation is not served here"),
                "{words:?}: {refused:?}"
            );
        }
    }
    agent.api().pod_until("vault", "vault", is_running).await;

    // What lasts ends with the right to it.
    let kubeconfig = user_of(&node, &admin, "debugger", &["", "debuglet.io"]).await;
    let debugger = Kubectl::new(&node, KubectlVersion::V1_36, &kubeconfig);
    let exec = ["exec", "-n", "shop", "web", "-c", "main", "--", "sleep", "3600"];
    eventually_within(LATER, "the rights are there", async || {
        let output = debugger.run(["exec", "-n", "shop", "web", "--", "true"]).await;
        if output.code == 0 { Ok(()) } else { Err(output) }
    })
    .await;
    let streams = [
        debugger.spawn(exec),
        debugger.spawn(["logs", "-f", "-n", "shop", "web"]),
        debugger.spawn(["get", "--raw", "/api/v1/namespaces/shop/pods?watch=true"]),
    ];
    let kept = root.spawn(exec);
    tokio::time::sleep(Duration::from_secs(2)).await;
    for stream in &streams {
        assert!(stream.runs(), "{stream:?}");
    }
    admin
        .run(["delete", "rolebinding", "-n", "shop", "debugger"])
        .await
        .succeeded();
    for stream in streams {
        stream.ended().await;
    }
    assert!(kept.runs(), "root's goes on: {kept:?}");
    assert!(
        watching.runs() && watching.stdout().contains("web"),
        "{watching:?}"
    );
    watching.kill().await;

    // And with the sight of the pod: the API server forgets it, and it runs on.
    let account = "--serviceaccount=shop:debugger";
    admin
        .run([
            "create",
            "rolebinding",
            "-n",
            "shop",
            "debugger",
            "--role=debugger",
            account,
        ])
        .await
        .succeeded();
    eventually_within(LATER, "the rights are there again", async || {
        let output = debugger.run(["exec", "-n", "shop", "web", "--", "true"]).await;
        if output.code == 0 { Ok(()) } else { Err(output) }
    })
    .await;
    let sessions = [
        debugger.spawn(exec),
        debugger.spawn(["attach", "-n", "shop", "web", "-c", "main"]),
        debugger.spawn(["port-forward", "-n", "shop", "pod/web", "8090:80"]),
    ];
    // Nothing listens there: a connection would end the session.
    eventually("the port is forwarded", async || {
        let said = sessions[2].stdout();
        match said.contains("Forwarding from") {
            true => Ok(()),
            false => Err(said),
        }
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    for session in &sessions {
        assert!(session.runs(), "{session:?}");
    }
    admin
        .run([
            "delete",
            "pod",
            "-n",
            "shop",
            "web",
            "--force",
            "--grace-period=0",
        ])
        .await
        .succeeded();
    for session in sessions {
        session.ended().await;
    }
    assert!(kept.runs(), "root's goes on: {kept:?}");
    agent.api().pod_until("shop", "web", is_running).await;
    kept.kill().await;
}
