//! exec, logs, cp and port-forward: bytes in and out of containers.

use integration::eventually;
use integration::kubernetes::Kubectl;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::waiting::says;
use super::{create, served_until};
use crate::server::{Server, echoing_pod, pod, pod_that_runs};

on_debuglet_and_kubernetes!(bytes_pass_both_ways);

async fn bytes_pass_both_ways(server: &Server) {
    let kubectl = server.kubectl();
    create(&kubectl, &pod("app")).await;

    exec_keeps_streams_and_exit_codes(&kubectl).await;
    exec_runs_in_a_terminal(&kubectl).await;
    older_streams_are_spoken_too(&kubectl).await;
    files_are_copied_both_ways(&kubectl).await;
    logs_are_read(&kubectl).await;
    logs_of_the_run_before_are_read(&kubectl).await;
    ports_are_forwarded(&kubectl).await;
}

async fn exec_keeps_streams_and_exit_codes(kubectl: &Kubectl<'_>) {
    let output = kubectl.run(["exec", "app", "--", "echo", "x"]).await.succeeded();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("x\n", ""));
    let script = "echo out; echo err >&2; exit 3";
    let output = kubectl
        .run(["exec", "app", "-c", "main", "--", "sh", "-c", script])
        .await;
    assert_eq!(output.stdout, "out\n");
    output.failed(3, &["err\n", "command terminated with exit code 3"]);
    let missing = kubectl.run(["exec", "app", "--", "no-such-program"]).await;
    missing.failed(1, &["no-such-program"]);

    let input: String = (0..200_000).map(|number| format!("{number}\n")).collect();
    let echoed = kubectl
        .run_with_input(["exec", "-i", "app", "--", "cat"], input.as_bytes())
        .await
        .succeeded();
    assert!(
        echoed.stdout == input,
        "{} of {} bytes",
        echoed.stdout.len(),
        input.len()
    );
    let counted = ["exec", "-i", "app", "--", "sh", "-c", "wc -c; echo done"];
    let counted = kubectl.run_with_input(counted, b"12345").await.succeeded();
    assert_eq!(counted.stdout, "5\ndone\n", "the end of the input arrives");
}

async fn exec_runs_in_a_terminal(kubectl: &Kubectl<'_>) {
    let mut terminal = kubectl.terminal(["exec", "-it", "app", "--", "sh"]);
    terminal.shows("# ").await;
    terminal.type_in("stty size; tty\r");
    terminal.shows("24 80").await;
    terminal.shows("/dev/pts/").await;
    terminal.type_in("exit 5\r");
    assert_eq!(terminal.process().ended().await, 5, "{}", terminal.screen());
}

async fn older_streams_are_spoken_too(kubectl: &Kubectl<'_>) {
    let arguments = ["exec", "-i", "app", "--", "sh", "-c", "cat; exit 4"];
    let mut command = kubectl.command(arguments);
    let input = kubectl.file("input", "over SPDY\n");
    command
        .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false")
        .stdin(std::fs::File::open(input).unwrap());
    let output = kubectl.node().spawn(command).output().await;
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (4, "over SPDY\n"),
        "{output:?}"
    );
}

async fn files_are_copied_both_ways(kubectl: &Kubectl<'_>) {
    let bytes: String = (0..300_000).map(|number| format!("{number}.")).collect();
    let file = kubectl.file("there.bin", &bytes);
    kubectl
        .run(["cp", &file, "app:/tmp/here.bin", "-c", "main"])
        .await
        .succeeded();
    let back = kubectl.home().join("back.bin");
    let arguments = ["cp", "app:tmp/here.bin", &back.to_string_lossy()];
    kubectl.run(arguments).await.succeeded();
    assert!(std::fs::read_to_string(&back).unwrap() == bytes);
}

async fn logs_are_read(kubectl: &Kubectl<'_>) {
    let script =
        "for n in 1 2 3 4 5; do echo line $n; done; until [ -e /scratch/go ]; do sleep 0.1; done; echo last";
    create(kubectl, &pod_that_runs("talker", script)).await;
    let all = "line 1\nline 2\nline 3\nline 4\nline 5\n";
    eventually("five lines are logged", async || {
        let logs = kubectl.run(["logs", "talker"]).await;
        if logs.stdout == all { Ok(()) } else { Err(logs) }
    })
    .await;
    for (option, expected) in [
        ("--tail=2", "line 4\nline 5\n"),
        ("--tail=0", ""),
        ("--since=1h", all),
        ("--limit-bytes=7", "line 1\n"),
        ("--all-containers", all),
    ] {
        let logs = kubectl.run(["logs", "talker", option]).await.succeeded();
        assert_eq!(logs.stdout, expected, "{option}");
    }
    let stamped = kubectl
        .run(["logs", "talker", "--timestamps", "--tail=1"])
        .await
        .succeeded();
    let (stamp, line) = stamped.stdout.split_once(' ').unwrap();
    assert!(
        stamp.starts_with("20") && stamp.contains('T') && line == "line 5\n",
        "{stamped:?}"
    );
    let since = kubectl
        .run(["logs", "talker", "--since-time=2100-01-01T00:00:00Z"])
        .await
        .succeeded();
    assert_eq!(since.stdout, "");
    let chosen = kubectl
        .run(["logs", "-l", "app=talker", "--prefix", "--tail=1"])
        .await
        .succeeded();
    assert_eq!(chosen.stdout, "[pod/talker/main] line 5\n");

    let following = kubectl.spawn(["logs", "-f", "talker"]);
    says(&following, "line 5\n").await;
    kubectl
        .run(["exec", "talker", "--", "touch", "/scratch/go"])
        .await
        .succeeded();
    let followed = following.output().await.succeeded();
    assert_eq!(followed.stdout, format!("{all}last\n"), "followed to the end");
}

async fn logs_of_the_run_before_are_read(kubectl: &Kubectl<'_>) {
    let script = "[ -e /scratch/ran ] && { echo second; sleep 600; }; touch /scratch/ran; echo first; exit 1";
    let mut pod = pod_that_runs("restarted", script);
    pod["spec"]["restartPolicy"] = "OnFailure".into();
    let file = kubectl.file("restarted.json", &pod.to_string());
    kubectl.run(["create", "-f", &file]).await.succeeded();
    served_until(kubectl, "restarted", |pod| {
        let status = &pod["status"]["containerStatuses"][0];
        status["restartCount"] == 1 && status["state"]["running"].is_object()
    })
    .await;
    let before = kubectl.run(["logs", "restarted", "--previous"]).await.succeeded();
    assert_eq!(before.stdout, "first\n");
    eventually("the second run has logged its line", async || {
        let now = kubectl.run(["logs", "restarted"]).await.succeeded();
        if now.stdout == "second\n" {
            Ok(())
        } else {
            Err(now)
        }
    })
    .await;
    let none = kubectl.run(["logs", "app", "--previous"]).await;
    none.failed(1, &["Error from server (BadRequest)", "main"]);
}

async fn ports_are_forwarded(kubectl: &Kubectl<'_>) {
    create(kubectl, &echoing_pod("echo")).await;
    let forward = kubectl.spawn(["port-forward", "pod/echo", "18080:8080", "18081:9"]);
    says(&forward, "Forwarding from 127.0.0.1:18081 -> 9").await;
    for words in ["ping\n", "once more\n"] {
        assert_eq!(echoed(kubectl, 18080, words).await, words);
    }
    assert_eq!(echoed(kubectl, 18081, "ping\n").await, "", "nobody listens there");
    let chosen = kubectl.spawn(["port-forward", "pod/echo", ":8080"]);
    says(&chosen, "Forwarding from 127.0.0.1:").await;
    let said = chosen.stdout();
    let port = said
        .trim_start_matches("Forwarding from 127.0.0.1:")
        .split(' ')
        .next()
        .unwrap();
    assert_eq!(echoed(kubectl, port.parse().unwrap(), "ping\n").await, "ping\n");
}

/// What comes back from a port of the node's loopback for a line; nothing where the connection is closed.
async fn echoed(kubectl: &Kubectl<'_>, port: u16, line: &str) -> String {
    let mut connection = kubectl.node().connect(port).await.unwrap();
    connection.write_all(line.as_bytes()).await.unwrap();
    let mut answer = vec![0; line.len()];
    match connection.read_exact(&mut answer).await {
        Ok(_) => String::from_utf8(answer).unwrap(),
        Err(_) => String::new(),
    }
}
