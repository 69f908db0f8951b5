//! The cluster's own users on debuglet's port: who they are and what they may is for the real kube-apiserver to say, under
//! RBAC. debuglet asks with the kubelet's credential.

use std::path::{Path, PathBuf};
use std::time::Duration;

use integration::kubernetes::{ControlPlane, Kubectl, KubectlVersion, Kubelet};
use integration::{
    Agent, AgentOptions, BUSYBOX, ContainerdVersion, Node, eventually_within, is_running, state_of,
};
use serde_json::{Value, json};

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
            "resources": ["pods", "pods/ephemeralcontainers", "pods/log", "pods/exec", "pods/attach"],
            "verbs": ["get", "list", "watch", "create", "patch"],
        }],
    })
}

/// A kubeconfig for a service account of `shop` on debuglet's port.
async fn user_of(node: &Node, admin: &Kubectl<'_>, name: &str, groups: &[&str]) -> PathBuf {
    admin
        .run(["create", "serviceaccount", "-n", "shop", name])
        .await
        .succeeded();
    let file = admin.file(&format!("{name}.json"), &role(name, groups).to_string());
    admin.run(["apply", "-f", &file]).await.succeeded();
    let (role, account) = (format!("--role={name}"), format!("--serviceaccount=shop:{name}"));
    admin
        .run(["create", "rolebinding", "-n", "shop", name, &role, &account])
        .await
        .succeeded();
    let token = admin
        .run(["create", "token", "-n", "shop", name])
        .await
        .succeeded();
    kubeconfig(node.folder(), name, token.stdout.trim())
}

/// A kubeconfig with this token, which knows debuglet by its certificate.
fn kubeconfig(folder: &Path, name: &str, token: &str) -> PathBuf {
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
    let said = user
        .run(["logs", "-n", "shop", "web", "-c", "debugger"])
        .await
        .succeeded();
    assert_eq!(said.stdout, "from inside\n");
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
