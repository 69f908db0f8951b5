//! kubectl 1.20, which knows ephemeral containers in their alpha form only.

use integration::kubernetes::{Kubectl, KubectlVersion};
use integration::{ContainerdVersion, eventually, state_of};
use serde_json::{Value, json};

use super::{IMAGE, create, served_until};
use crate::server::{Server, pod};

on_both_versions!(the_alpha_form_and_the_old_streams_work);

async fn the_alpha_form_and_the_old_streams_work(version: ContainerdVersion) {
    let server = Server::debuglet(version).await;
    let kubectl = Kubectl::new(&server.node, KubectlVersion::V1_20, server.kubeconfig());
    let version = kubectl.run(["version", "--short"]).await.succeeded();
    assert!(version.stdout.contains("Client Version: v1.20"), "{version:?}");
    create(&server.kubectl(), &pod("example-pod")).await;

    the_raw_list_is_replaced(&kubectl).await;
    debug_adds_one_after_the_other(&kubectl).await;
    what_runs_is_shown(&kubectl).await;
    commands_and_logs_pass(&kubectl).await;
    a_terminal_is_attached(&kubectl).await;
    pods_come_and_go(&kubectl).await;
}

async fn the_raw_list_is_replaced(kubectl: &Kubectl<'_>) {
    let containers = json!({
        "apiVersion": "v1",
        "kind": "EphemeralContainers",
        "metadata": { "name": "example-pod" },
        "ephemeralContainers": [{
            "name": "debugger",
            "image": "docker.io/library/busybox:latest",
            "imagePullPolicy": "IfNotPresent",
            "command": ["sh"],
            "stdin": true,
            "tty": true,
            "targetContainerName": "main",
        }],
    });
    let file = kubectl.file("ec.json", &containers.to_string());
    let path = "/api/v1/namespaces/default/pods/example-pod/ephemeralcontainers";
    let answer = kubectl
        .run(["replace", "--raw", path, "-f", &file])
        .await
        .succeeded();
    let answer: Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(
        (&answer["kind"], &answer["apiVersion"]),
        (&json!("EphemeralContainers"), &json!("v1"))
    );
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        assert!(answer["metadata"][field].is_string(), "{field}: {answer:#}");
    }
    assert_eq!(
        answer["ephemeralContainers"][0]["terminationMessagePolicy"],
        "File"
    );
    served_until(kubectl, "example-pod", |pod| {
        state_of(pod, "debugger") == "running:"
    })
    .await;

    let read = kubectl.run(["get", "--raw", path]).await.succeeded();
    let read: Value = serde_json::from_str(&read.stdout).unwrap();
    assert_eq!(read["ephemeralContainers"], answer["ephemeralContainers"]);
    let mut none = containers;
    none["ephemeralContainers"] = json!([]);
    let file = kubectl.file("none.json", &none.to_string());
    let removed = kubectl.run(["replace", "--raw", path, "-f", &file]).await;
    removed.failed(1, &["ephemeralContainers"]);
}

async fn debug_adds_one_after_the_other(kubectl: &Kubectl<'_>) {
    for name in ["first", "second"] {
        let container = format!("--container={name}");
        let debug = [
            "debug",
            "example-pod",
            &container,
            IMAGE,
            "--image-pull-policy=IfNotPresent",
            "--attach=false",
            "--",
            "sleep",
            "600",
        ];
        kubectl.run(debug).await.succeeded();
        // It reads the list, appends, and writes it back: a change of the pod in between would be a conflict.
        served_until(kubectl, "example-pod", |pod| state_of(pod, name) == "running:").await;
    }
}

async fn what_runs_is_shown(kubectl: &Kubectl<'_>) {
    let pods = kubectl.run(["get", "pods", "-o", "wide"]).await.succeeded();
    assert!(
        pods.stdout.contains("example-pod") && pods.stdout.contains("1/1"),
        "{pods:?}"
    );
    let described = kubectl
        .run(["describe", "pod", "example-pod"])
        .await
        .succeeded()
        .stdout;
    let section = described.split("\nEphemeral Containers:").nth(1).unwrap();
    for words in [
        "debugger:",
        "first:",
        "second:",
        "Running",
        "Ready:",
        "False",
        "Restart Count:",
    ] {
        assert!(section.contains(words), "{words}: {described}");
    }
}

async fn commands_and_logs_pass(kubectl: &Kubectl<'_>) {
    let script = "cat; echo err >&2; exit 3";
    let arguments = [
        "exec",
        "-i",
        "example-pod",
        "-c",
        "first",
        "--",
        "sh",
        "-c",
        script,
    ];
    let output = kubectl.run_with_input(arguments, b"in and out\n").await;
    assert_eq!(output.stdout, "in and out\n");
    output.failed(3, &["err\n"]);
    let debug = [
        "debug",
        "example-pod",
        "--container=talker",
        IMAGE,
        "--image-pull-policy=IfNotPresent",
        "--attach=false",
        "--",
        "echo",
        "words",
    ];
    kubectl.run(debug).await.succeeded();
    served_until(kubectl, "example-pod", |pod| {
        state_of(pod, "talker") == "terminated:Completed"
    })
    .await;
    let logs = kubectl
        .run(["logs", "example-pod", "-c", "talker", "--tail=1"])
        .await
        .succeeded();
    assert_eq!(logs.stdout, "words\n");
}

async fn a_terminal_is_attached(kubectl: &Kubectl<'_>) {
    let mut terminal = kubectl.terminal(["attach", "-it", "example-pod", "-c", "debugger"]);
    eventually("the shell answers", async || {
        terminal.type_in("stty size\r");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let screen = terminal.screen();
        if screen.contains("24 80") {
            Ok(())
        } else {
            Err(screen)
        }
    })
    .await;
    terminal.type_in("exit\r");
    assert_eq!(terminal.process().ended().await, 0, "{}", terminal.screen());
}

async fn pods_come_and_go(kubectl: &Kubectl<'_>) {
    let file = kubectl.file("other.json", &pod("other").to_string());
    kubectl.run(["apply", "-f", &file]).await.succeeded();
    kubectl
        .run("wait --for=condition=Ready pod/other --timeout=60s".split(' '))
        .await
        .succeeded();
    kubectl.run("label pod other a=b".split(' ')).await.succeeded();
    let events = kubectl.run(["get", "events"]).await.succeeded();
    assert!(events.stdout.contains("Started"), "{events:?}");
    kubectl.run("delete pod other".split(' ')).await.succeeded();
    kubectl
        .run(["get", "pod", "other"])
        .await
        .failed(1, &["NotFound"]);
}
