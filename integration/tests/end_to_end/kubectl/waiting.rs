//! Commands that wait while the agent is restarted, as at an upgrade.

use integration::kubernetes::Kubectl;
use integration::{ContainerdVersion, Process, eventually, state_of};

use super::{IF_NOT_PRESENT, IMAGE, create, served_until};
use crate::server::{Server, pod, pod_that_runs};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_goes_on_across_a_restart_and_a_watch_ends_cleanly() {
    let mut server = Server::debuglet(ContainerdVersion::V1_6).await;
    create(&server.kubectl(), &pod("app")).await;
    let commands = begin(&server.kubectl()).await;

    server.restart_agent().await;

    let watch = commands.watch.output().await.succeeded();
    assert!(watch.stdout.contains("app "), "{watch:?}");
    assert_eq!(watch.stderr, "");
    let kubectl = server.kubectl();
    kubectl
        .run("label pod app ready=now".split(' '))
        .await
        .succeeded();
    let labelled = commands.labelled.output().await.succeeded();
    assert_eq!(labelled.stdout, "pod/app condition met\n");
    // The target starts: what waits for it does, too.
    kubectl
        .run(["exec", "late", "--", "sh", "-c", LET_TARGET_START])
        .await
        .succeeded();
    served_until(&kubectl, "late", |pod| state_of(pod, "dbg") == "running:").await;
    says(&commands.debug, "tick").await;
    kubectl.run("delete pod app --now".split(' ')).await.succeeded();
    commands.gone.output().await.succeeded();
}

/// Makes the program that the target is to run.
const LET_TARGET_START: &str =
    "cd /scratch; printf '#!/bin/sh\\nexec sleep 86400\\n' > new && chmod +x new && mv new target";

/// Commands under way.
struct Commands {
    watch: Process,
    labelled: Process,
    gone: Process,
    debug: Process,
}

/// Starts them, and waits until each has come to where it waits.
async fn begin(kubectl: &Kubectl<'_>) -> Commands {
    // Its second container is the target. Until the first was asked to let it start it never runs, not even for a moment.
    let mut late = pod_that_runs("late", "sleep 86400");
    let target = serde_json::json!({
        "name": "target",
        "image": "docker.io/library/busybox:latest",
        "imagePullPolicy": "IfNotPresent",
        "command": ["/scratch/target"],
        "volumeMounts": [{ "name": "scratch", "mountPath": "/scratch" }],
    });
    late["spec"]["restartPolicy"] = "Always".into();
    late["spec"]["containers"].as_array_mut().unwrap().push(target);
    let file = kubectl.file("late.json", &late.to_string());
    kubectl.run(["create", "-f", &file]).await.succeeded();
    served_until(kubectl, "late", |pod| {
        pod["status"]["containerStatuses"][1]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    })
    .await;

    let mut debug = kubectl.command([
        "debug",
        "-i",
        "late",
        "-c",
        "dbg",
        IMAGE,
        IF_NOT_PRESENT,
        "--target=target",
        "--",
        "sh",
        "-c",
        "while sleep 0.2; do echo tick; done",
    ]);
    debug.stdin(std::process::Stdio::piped());
    let commands = Commands {
        watch: kubectl.spawn("get pods -w".split(' ')),
        labelled: kubectl.spawn([
            "wait",
            "--for=jsonpath={.metadata.labels.ready}=now",
            "pod/app",
            "--timeout=60s",
        ]),
        gone: kubectl.spawn("wait --for=delete pod/app --timeout=90s".split(' ')),
        debug: kubectl.node().spawn(debug),
    };
    says(&commands.watch, "app ").await;
    served_until(kubectl, "late", |pod| {
        state_of(pod, "dbg") == "waiting:CreateContainerError"
    })
    .await;
    // `wait` says nothing while it waits; it has begun long before kubectl debug has come so far.
    assert!(commands.labelled.runs() && commands.gone.runs());
    commands
}

/// Waits until a process has said the words on standard output.
pub(super) async fn says(process: &Process, words: &str) {
    eventually(&format!("{words:?} is said"), async || {
        let said = process.stdout();
        assert!(
            process.runs() || said.contains(words),
            "it ended: {said}{}",
            process.stderr()
        );
        if said.contains(words) {
            Ok(())
        } else {
            Err((said, process.stderr()))
        }
    })
    .await;
}
