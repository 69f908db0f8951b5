//! A debug container with everything that another container has mounted, and volumes by their names, in pods of the
//! manifests folder and of a kubelet.

use integration::kubernetes::{ControlPlane, Kubectl, KubectlVersion, Kubelet, client};
use integration::{
    Agent, AgentOptions, BUSYBOX, ContainerdVersion, Node, debug_container, is_running, sleeping_pod,
    state_of,
};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

on_both_versions!(a_debug_container_sees_what_its_target_has_mounted);

async fn a_debug_container_sees_what_its_target_has_mounted(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    let on_host = node.folder().join("on-host");
    std::fs::create_dir(&on_host).unwrap();
    std::fs::write(on_host.join("file"), "of the host\n").unwrap();
    let mut pod = sleeping_pod("web");
    let spec = &mut pod["spec"];
    spec["volumes"] = json!([
        {"name": "scratch", "emptyDir": {}}, {"name": "host", "hostPath": {"path": on_host}},
    ]);
    let main = &mut spec["containers"][0];
    main["command"] = json!(["sh", "-c", "echo of the pod >/scratch/file; exec sleep 86400"]);
    main["volumeMounts"] = json!([
        {"name": "scratch", "mountPath": "/scratch"}, {"name": "host", "mountPath": "/host", "readOnly": true},
    ]);
    node.write_manifest("web.json", &pod);
    agent.api().pod_until("default", "web", is_running).await;

    let image = format!("--image={BUSYBOX}");
    let look = "cat /scratch/file /host/file; touch /host/new 2>/dev/null || echo only to be read; \
                mount | grep -c ' /etc/hosts '; wc -c </dev/termination-log";
    let said = node
        .debuglet([
            "debug",
            "-q",
            "--attach",
            "--copy-mounts",
            "web",
            &image,
            "-c",
            "looker",
            "--",
            "sh",
            "-c",
            look,
        ])
        .await
        .succeeded();
    assert_eq!(said.stdout, "of the pod\nof the host\nonly to be read\n1\n0\n");
    let described = node.debuglet(["describe", "web"]).await.succeeded();
    assert!(
        described.stdout.contains("Copied Mounts:  of main (volumes)"),
        "{}",
        described.stdout
    );

    // It is written down: also where the agent ends before anything was made, and the target is a newer container by then.
    std::fs::remove_dir_all(&on_host).unwrap();
    let refused = node
        .debuglet([
            "debug",
            "--copy-mounts",
            "web",
            &image,
            "-c",
            "late",
            "--",
            "sleep",
            "3600",
        ])
        .await;
    assert_eq!(refused.code, 1, "{refused:?}");
    let gone = format!(
        "cannot copy the mount /host of container \"main\": {} is not there any more",
        on_host.display()
    );
    assert!(refused.stderr.contains(&gone), "{refused:?}");
    assert!(!on_host.exists(), "and the runtime has not made it");
    let kept = [
        "debug",
        "--copy-mounts=all",
        "--keep",
        "web",
        &image,
        "-c",
        "kept",
        "--",
        "sleep",
        "3600",
    ];
    node.debuglet(kept).await;
    agent.kill().await;
    std::fs::create_dir(&on_host).unwrap();
    let agent = node.start_agent().await;
    let pod = agent
        .api()
        .pod_until("default", "web", |pod| state_of(pod, "kept") == "running:")
        .await;
    let copied: Value = serde_json::from_str(
        pod["metadata"]["annotations"]["debuglet.io/copied-mounts"]
            .as_str()
            .unwrap(),
    )
    .unwrap();
    assert_eq!(copied["kept"], json!({"from": "main", "include": "All"}));
    let seen = node
        .debuglet(["exec", "web", "-c", "kept", "--", "cat", "/scratch/file"])
        .await
        .succeeded();
    assert_eq!(seen.stdout, "of the pod\n");
}

/// What a kubelet mounts for a container is known to the runtime alone: parts of volumes, and the token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_of_volumes_that_a_kubelet_has_set_up_are_copied_and_its_token_where_it_is_asked_for() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let plane = ControlPlane::start(&node).await;
    let _kubelet = Kubelet::start(&node, &plane).await;
    let kubectl = Kubectl::new(&node, KubectlVersion::V1_36, &plane.kubeconfig());
    kubectl
        .run(["create", "configmap", "settings", "--from-literal=colour=blue"])
        .await
        .succeeded();
    kubectl
        .run(["create", "serviceaccount", "default"])
        .await
        .succeeded();
    let pods: Api<Pod> = Api::default_namespaced(client(&node, &plane.kubeconfig()).await);
    let pod = serde_json::from_value(cart()).unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let agent = discovering(&node).await;
    agent.api().pod_until("default", "cart", is_running).await;

    let image = format!("--image={BUSYBOX}");
    let debug = async |copy: &str, command: &str| {
        let words = [
            "debug",
            "-q",
            "--attach",
            "cart",
            "--target=web",
            copy,
            &image,
            "--",
            "sh",
            "-c",
            command,
        ];
        node.debuglet(words).await.succeeded().stdout
    };
    let token = "/var/run/secrets/kubernetes.io/serviceaccount";
    let look = format!("cat /etc/app/colour; echo; ls {token} 2>&1 | tail -n1; grep -c cart /etc/hosts");
    let volumes = debug("--copy-mounts", &look).await;
    assert_eq!(
        volumes,
        format!("blue\nls: {token}: No such file or directory\n1\n")
    );
    let all = debug("--copy-mounts=all", &look).await;
    assert_eq!(all, "blue\ntoken\n1\n");
    let several = node.debuglet(["debug", "cart", "--copy-mounts", &image]).await;
    assert!(several.stderr.contains("it has: web, idle"), "{several:?}");

    // By name, also a volume of which only a part is mounted; and no part of one, as in Kubernetes.
    let mut named = debug_container("named", &["sh", "-c", "cat /settings/colour /scratch/note"]);
    named["volumeMounts"] = json!([
        {"name": "settings", "mountPath": "/settings"}, {"name": "scratch", "mountPath": "/scratch"},
    ]);
    let answer = agent.api().debug("default", "cart", &[named]).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    agent
        .api()
        .pod_until("default", "cart", |pod| {
            state_of(pod, "named") == "terminated:Completed"
        })
        .await;
    let said = node.debuglet(["logs", "cart", "-c", "named"]).await.succeeded();
    assert_eq!(said.stdout, "bluea note\n");
    for (mount, message) in [
        (
            json!({"name": "seting", "mountPath": "/s"}),
            "the pod has no volume \"seting\"; it has kube-api-access, scratch, settings",
        ),
        (
            json!({"name": "settings", "mountPath": "/s", "subPath": "colour"}),
            "subPath",
        ),
    ] {
        let mut refused = debug_container("refused", &["true"]);
        refused["volumeMounts"] = json!([mount]);
        let answer = agent.api().debug("default", "cart", &[refused]).await;
        assert_eq!(answer.status, 422, "{}", answer.body);
        assert!(
            answer.body["message"].as_str().unwrap().contains(message),
            "{}",
            answer.body
        );
    }
}

fn cart() -> Value {
    let container = |name: &str, mounts: Value| {
        json!({
            "name": name, "image": BUSYBOX, "command": ["sh", "-c", "echo a note >/scratch/note; exec sleep 86400"],
            "volumeMounts": mounts,
        })
    };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "cart"},
        "spec": {
            "nodeName": "node1",
            "serviceAccountName": "default",
            "terminationGracePeriodSeconds": 0,
            "volumes": [
                {"name": "settings", "configMap": {"name": "settings"}},
                {"name": "scratch", "emptyDir": {}},
                {"name": "kube-api-access", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
            ],
            "containers": [
                container("web", json!([
                    {"name": "settings", "mountPath": "/etc/app/colour", "subPath": "colour"},
                    {"name": "scratch", "mountPath": "/scratch"},
                    {"name": "kube-api-access", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
                ])),
                container("idle", json!([{"name": "scratch", "mountPath": "/scratch"}])),
            ],
        },
    })
}

/// An agent that looks for other people's pods, and asks nobody but the runtime about them.
async fn discovering(node: &Node) -> Agent {
    node.start_agent_with(AgentOptions {
        configuration: "discovery.enabled = true\nkubernetes.kubeconfig = \"\"\n".to_owned(),
        ..AgentOptions::default()
    })
    .await
}
