//! What a debug container needs of the API server: config maps and secrets for its variables, and credentials for its
//! image. debuglet asks with the kubelet's credential, which the Node authorizer holds to what the node's pods refer to.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use integration::kubernetes::{ControlPlane, Kubectl, KubectlVersion, Kubelet};
use integration::{
    AgentOptions, BUSYBOX, ContainerdVersion, Node, debug_container, ephemeral_status, eventually_within,
    is_running, state_of,
};
use serde_json::{Value, json};

/// Longer than the wait between two tries.
const LATER: Duration = Duration::from_secs(60);
const SECRET: &str = "swordfish-7f3a";
const PASSWORD: &str = "open-sesame";
/// `debuglet:open-sesame` (bcrypt), as docker-registry reads it.
const HTPASSWD: &str = "debuglet:$2b$04$97woTu.4HscEs6emSTSPleqgfj4T0qo69Eu/uvqvLL4D3F8OZwtnS\n";
/// busybox, where one has to log in.
const PRIVATE_IMAGE: &str = "127.0.0.1:5001/user-1000:1";

/// The node's registry a second time, where one has to log in.
fn start_private_registry(node: &Node) -> integration::Process {
    let passwords = node.folder().join("htpasswd");
    std::fs::write(&passwords, HTPASSWD).unwrap();
    let mut command = Command::new("docker-registry");
    command
        .arg("serve")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("images/registry.yml"))
        .env(
            "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY",
            node.folder().join("registry"),
        )
        .env("REGISTRY_HTTP_ADDR", "127.0.0.1:5001")
        .env("REGISTRY_AUTH", "htpasswd")
        .env("REGISTRY_AUTH_HTPASSWD_REALM", "private")
        .env("REGISTRY_AUTH_HTPASSWD_PATH", passwords)
        .stdin(Stdio::null());
    node.spawn(command)
}

fn objects() -> Value {
    let login = json!({"username": "debuglet", "password": PASSWORD});
    let config = json!({"auths": {"127.0.0.1:5001": login}}).to_string();
    let secret = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "shop"},
            "stringData": {"password": SECRET},
        })
    };
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
        {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "shop"},
            "data": {"COLOR": "blue", "log.level": "debug"},
        },
        secret("keys"),
        secret("of-others"),
        {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login", "namespace": "shop"},
            "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": config},
        },
        {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {
                "nodeName": "node1", "terminationGracePeriodSeconds": 0,
                "imagePullSecrets": [{"name": "login"}],
                "containers": [{
                    "name": "main", "image": BUSYBOX, "command": ["sh", "-c", "sleep 86400", "$(PASSWORD)"],
                    "envFrom": [{"configMapRef": {"name": "settings"}}],
                    "env": [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "password"}}}],
                }],
            },
        },
    ]})
}

/// A debug container that says what its variables are and ends. No shell: it would drop a name with a dot.
fn teller(name: &str, from: &Value, variables: &Value) -> Value {
    let mut container = debug_container(name, &["env"]);
    container["envFrom"] = from.clone();
    container["env"] = variables.clone();
    container
}

fn of_secret(variable: &str, secret: &str, key: &str) -> Value {
    json!({"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
}

/// Why a debug container waits.
fn why(pod: &Value, name: &str) -> String {
    let waiting = &ephemeral_status(pod, name)["state"]["waiting"];
    let text = |field: &str| waiting[field].as_str().unwrap_or_default();
    format!("{}: {}", text("reason"), text("message"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_debug_container_has_the_objects_of_its_pod_and_a_right_that_is_missing_is_named() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let _registry = start_private_registry(&node);
    let plane = ControlPlane::start(&node).await;
    let _kubelet = Kubelet::start(&node, &plane).await;
    let admin = Kubectl::new(&node, KubectlVersion::V1_36, &plane.kubeconfig());
    let file = admin.file("objects.json", &objects().to_string());
    admin.run(["apply", "-f", &file]).await.succeeded();
    let mut agent = node
        .start_agent_with(AgentOptions {
            configuration: format!(
                "discovery.enabled = true\nkubernetes.kubeconfig = {:?}\n",
                plane.node_kubeconfig().display().to_string()
            ),
            ..AgentOptions::default()
        })
        .await;
    // What the API server says of it is known.
    agent
        .api()
        .pod_until("shop", "web", |pod| {
            is_running(pod) && pod["spec"]["imagePullSecrets"][0]["name"] == "login"
        })
        .await;

    let image_of_others = {
        let mut container = debug_container("private", &["sh", "-c", "echo pulled; sleep 3600"]);
        container["image"] = json!(PRIVATE_IMAGE);
        container
    };
    let containers = [
        teller(
            "teller",
            &json!([{"prefix": "V_", "configMapRef": {"name": "settings"}}]),
            &json!([
                of_secret("V_SECRET", "keys", "password"),
                {"name": "V_BOTH", "value": "$(V_COLOR) $(V_SECRET)"},
                {"name": "V_NOT", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "none", "optional": true}}},
            ]),
        ),
        teller(
            "keyless",
            &json!([]),
            &json!([of_secret("V_KEY", "keys", "no-such-key")]),
        ),
        teller(
            "curious",
            &json!([]),
            &json!([of_secret("V_SECRET", "of-others", "password")]),
        ),
        image_of_others,
    ];
    let answer = agent.api().debug("shop", "web", &containers).await;
    assert_eq!(answer.status, 200, "{}", answer.body);

    agent
        .api()
        .pod_until("shop", "web", |pod| {
            state_of(pod, "teller") == "terminated:Completed" && state_of(pod, "private") == "running:"
        })
        .await;
    let said = node
        .debuglet(["logs", "-n", "shop", "web", "-c", "teller"])
        .await
        .succeeded();
    let mut told: Vec<&str> = said
        .stdout
        .lines()
        .filter(|line| line.starts_with("V_"))
        .collect();
    told.sort_unstable();
    let expected = [
        format!("V_BOTH=blue {SECRET}"),
        "V_COLOR=blue".to_owned(),
        format!("V_SECRET={SECRET}"),
        "V_log.level=debug".to_owned(),
    ];
    assert_eq!(told, expected);

    let pod = agent
        .api()
        .pod_until("shop", "web", |pod| {
            why(pod, "keyless").contains("key") && why(pod, "curious").contains("secret")
        })
        .await;
    assert_eq!(
        why(&pod, "keyless"),
        "CreateContainerConfigError: couldn't find key no-such-key in Secret shop/keys"
    );
    let reason = why(&pod, "curious");
    for words in [
        "CreateContainerConfigError: secret shop/of-others cannot be read",
        "lacks the right to get secrets in namespace \"shop\"",
        "systemd/role-secrets.yaml",
    ] {
        assert!(reason.contains(words), "{reason}");
    }

    // Nothing of what was read is written down or logged.
    let found = node
        .run([
            "grep",
            "-rlE",
            &format!("{SECRET}|{PASSWORD}"),
            &node.folder().join("state").to_string_lossy(),
        ])
        .await;
    assert_eq!(found.stdout, "", "{found:?}");
    let log = agent.log();
    assert!(!log.contains(SECRET) && !log.contains(PASSWORD));
    assert!(agent.process().runs());

    // Once the right is there the container starts by itself.
    for words in [
        &[
            "create",
            "role",
            "-n",
            "shop",
            "secrets",
            "--verb=get",
            "--resource=secrets",
        ][..],
        &[
            "create",
            "rolebinding",
            "-n",
            "shop",
            "secrets",
            "--role=secrets",
            "--user=system:node:node1",
        ],
    ] {
        admin.run(words.iter().copied()).await.succeeded();
    }
    eventually_within(LATER, "the container starts when it may", async || {
        let pod = agent.api().pod("shop", "web").await.body;
        match state_of(&pod, "curious").as_str() {
            "terminated:Completed" => Ok(()),
            _ => Err(why(&pod, "curious")),
        }
    })
    .await;
}
