//! `kubectl debug`, in all its profiles, with pipes and in a terminal, and what it says when it may not.

use std::io::Write;
use std::process::Stdio;

use integration::kubernetes::Kubectl;
use integration::{eventually, state_of};
use serde_json::{Value, json};

use super::{IF_NOT_PRESENT, IMAGE, create, served_until};
use crate::server::{Server, pod};

on_debuglet_and_kubernetes!(pods_are_debugged);

async fn pods_are_debugged(server: &Server) {
    let kubectl = server.kubectl();
    create(&kubectl, &pod("app")).await;

    each_profile_gives_its_security_context(&kubectl).await;
    a_target_shares_its_processes(&kubectl).await;
    piped_input_and_output_pass(&kubectl).await;
    a_shell_runs_in_a_terminal(&kubectl).await;
    a_terminal_is_attached_to_again(&kubectl).await;
    a_container_spec_of_ones_own_is_merged_in(&kubectl).await;
    what_may_not_be_is_refused(&kubectl).await;
    if server.is_debuglet() {
        a_copy_of_the_pod_is_refused_with_what_would_do(&kubectl).await;
    }
    an_image_that_is_not_there_is_waited_for(&kubectl).await;
}

async fn each_profile_gives_its_security_context(kubectl: &Kubectl<'_>) {
    let profiles = [
        (
            "general",
            json!({ "capabilities": { "add": ["SYS_PTRACE"] } }),
            "running:",
        ),
        ("baseline", Value::Null, "running:"),
        (
            "netadmin",
            json!({ "capabilities": { "add": ["NET_ADMIN", "NET_RAW"] } }),
            "running:",
        ),
        ("sysadmin", json!({ "privileged": true }), "running:"),
        (
            "restricted",
            json!({
                "allowPrivilegeEscalation": false,
                "capabilities": { "drop": ["ALL"] },
                "runAsNonRoot": true,
                "seccompProfile": { "type": "RuntimeDefault" },
            }),
            // busybox's user is root.
            "waiting:CreateContainerConfigError",
        ),
    ];
    for (profile, _, _) in &profiles {
        let (name, option) = (format!("of-{profile}"), format!("--profile={profile}"));
        let debug = [
            "debug",
            "app",
            "-c",
            &name,
            IMAGE,
            IF_NOT_PRESENT,
            &option,
            "--",
            "sleep",
            "600",
        ];
        kubectl.run(debug).await.succeeded();
    }
    let settled = |pod: &Value| {
        let reached = |profile: &str, state: &str| state_of(pod, &format!("of-{profile}")) == state;
        profiles.iter().all(|(profile, _, state)| reached(profile, state))
    };
    let pod = served_until(kubectl, "app", settled).await;
    let containers = pod["spec"]["ephemeralContainers"].as_array().unwrap();
    for ((profile, context, _), container) in profiles.iter().zip(containers) {
        assert_eq!(container["name"], format!("of-{profile}"));
        assert_eq!(&container["securityContext"], context, "{profile}");
    }
    let status = "grep CapEff /proc/self/status";
    let sysadmin = kubectl
        .run(["exec", "app", "-c", "of-sysadmin", "--", "sh", "-c", status])
        .await
        .succeeded();
    let main = kubectl
        .run(["exec", "app", "-c", "main", "--", "sh", "-c", status])
        .await
        .succeeded();
    assert_ne!(sysadmin.stdout, main.stdout, "privileged and not");
}

async fn a_target_shares_its_processes(kubectl: &Kubectl<'_>) {
    let debug = [
        "debug",
        "app",
        "-c",
        "targeting",
        IMAGE,
        IF_NOT_PRESENT,
        "--target=main",
        "--",
        "sleep",
        "600",
    ];
    let said = kubectl.run(debug).await.succeeded();
    assert!(said.stdout.contains("Targeting container \"main\""), "{said:?}");
    served_until(kubectl, "app", |pod| state_of(pod, "targeting") == "running:").await;
    let first = ["exec", "app", "-c", "targeting", "--", "cat", "/proc/1/cmdline"];
    let first = kubectl.run(first).await.succeeded();
    assert_eq!(first.stdout, "sleep\u{0}86400\u{0}", "main's process");
}

async fn piped_input_and_output_pass(kubectl: &Kubectl<'_>) {
    // kubectl attaches once the container runs, and shows nothing of before.
    let script = "read line; echo got $line; read line; echo got $line";
    let mut command = kubectl.command([
        "debug",
        "-i",
        "app",
        "-c",
        "piped",
        IMAGE,
        IF_NOT_PRESENT,
        "--",
        "sh",
        "-c",
        script,
    ]);
    command.stdin(Stdio::piped());
    let mut process = kubectl.node().spawn(command);
    let mut stdin = process.stdin().unwrap();
    for word in ["one", "two"] {
        writeln!(stdin, "{word}").unwrap();
        eventually("the answer comes back", async || {
            let said = process.stdout();
            if said.contains(&format!("got {word}\n")) {
                Ok(())
            } else {
                Err((said, process.stderr()))
            }
        })
        .await;
    }
    let output = process.output().await.succeeded();
    assert_eq!(output.stdout, "got one\ngot two\n");
    served_until(kubectl, "app", |pod| {
        state_of(pod, "piped") == "terminated:Completed"
    })
    .await;
}

async fn a_shell_runs_in_a_terminal(kubectl: &Kubectl<'_>) {
    let mut terminal = kubectl.terminal([
        "debug",
        "-it",
        "app",
        "-c",
        "shell",
        IMAGE,
        IF_NOT_PRESENT,
        "--",
        "sh",
    ]);
    terminal.shows("try pressing enter").await;
    terminal.type_in("\r");
    terminal.shows("# ").await;
    terminal.type_in("stty size\r");
    terminal.shows("24 80").await;
    terminal.resize(100, 30);
    eventually("the new size is inside", async || {
        terminal.type_in("stty size\r");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let screen = terminal.screen();
        if screen.contains("30 100") {
            Ok(())
        } else {
            Err(screen)
        }
    })
    .await;
    assert!(terminal.modes().contains("-icanon"), "raw while attached");
    terminal.type_in("exit 3\r");
    // kubectl debug does not take over the exit code.
    assert_eq!(terminal.process().ended().await, 0, "{}", terminal.screen());
    assert!(!terminal.modes().contains("-icanon"), "restored");
    let pod = served_until(kubectl, "app", |pod| state_of(pod, "shell") == "terminated:Error").await;
    let status = integration::ephemeral_status(&pod, "shell");
    assert_eq!(status["state"]["terminated"]["exitCode"], 3);
}

async fn a_terminal_is_attached_to_again(kubectl: &Kubectl<'_>) {
    let mut first = kubectl.terminal([
        "debug",
        "-it",
        "app",
        "-c",
        "again",
        IMAGE,
        IF_NOT_PRESENT,
        "--",
        "sh",
    ]);
    first.shows("try pressing enter").await;
    first.type_in("\r");
    first.shows("# ").await;
    first.type_in("kept=here\r");
    first.shows("kept=here").await;
    first.process().kill().await;

    let mut second = kubectl.terminal(["attach", "-it", "app", "-c", "again"]);
    eventually("the same shell answers", async || {
        second.type_in("echo still $kept\r");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let screen = second.screen();
        if screen.contains("still here") {
            Ok(())
        } else {
            Err(screen)
        }
    })
    .await;
    second.type_in("exit\r");
    assert_eq!(second.process().ended().await, 0, "{}", second.screen());
}

async fn a_container_spec_of_ones_own_is_merged_in(kubectl: &Kubectl<'_>) {
    let file = kubectl.file(
        "custom.json",
        &json!({ "env": [{ "name": "WHO", "value": "custom" }], "workingDir": "/tmp" }).to_string(),
    );
    let custom = format!("--custom={file}");
    let debug = [
        "debug",
        "app",
        "-c",
        "custom",
        IMAGE,
        IF_NOT_PRESENT,
        &custom,
        "--env=MORE=1",
        "--",
        "sh",
        "-c",
        "echo $WHO $MORE $PWD",
    ];
    kubectl.run(debug).await.succeeded();
    served_until(kubectl, "app", |pod| {
        state_of(pod, "custom") == "terminated:Completed"
    })
    .await;
    let logs = kubectl.run(["logs", "app", "-c", "custom"]).await.succeeded();
    assert_eq!(logs.stdout, "custom 1 /tmp\n");
}

async fn what_may_not_be_is_refused(kubectl: &Kubectl<'_>) {
    for (name, more, words) in [
        ("main", "--", "].name: "),
        ("Bad_Name", "--", "].name: "),
        ("piped", "--", "spec.ephemeralContainers: "),
        ("off-target", "--target=nope", "].targetContainerName: "),
    ] {
        let refused = kubectl.run(["debug", "app", "-c", name, IMAGE, more]).await;
        refused.failed(1, &["The Pod \"app\" is invalid", words]);
    }
    let no_image = kubectl.run(["debug", "app"]).await;
    no_image.failed(1, &["--image"]);
}

/// kubectl sends a copy in protobuf, which is not read: what it says of that must say what is.
async fn a_copy_of_the_pod_is_refused_with_what_would_do(kubectl: &Kubectl<'_>) {
    let copy = kubectl.run(["debug", "app", "--copy-to=copy", IMAGE]).await;
    copy.failed(1, &["protobuf", "application/json"]);
}

async fn an_image_that_is_not_there_is_waited_for(kubectl: &Kubectl<'_>) {
    let image = "--image=127.0.0.1:5000/nope:1";
    kubectl
        .run(["debug", "app", "-c", "no-image", image])
        .await
        .succeeded();
    let pod = served_until(kubectl, "app", |pod| {
        ["waiting:ErrImagePull", "waiting:ImagePullBackOff"].contains(&state_of(pod, "no-image").as_str())
    })
    .await;
    assert_eq!(pod["status"]["phase"], "Running");
    let warnings = kubectl
        .run(["events", "--for", "pod/app", "--types=Warning"])
        .await
        .succeeded();
    assert!(warnings.stdout.contains("127.0.0.1:5000/nope:1"), "{warnings:?}");
}
