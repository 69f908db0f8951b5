//! exec and attach through the agent's API and the runtime's streaming server: of the command line, and of kubectl,
//! which speaks SPDY where it is old or told to.

use std::fs::File;
use std::process::Stdio;

use integration::{ContainerdVersion, Node, TcpFront, is_running, sleeping_pod};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

on_both_versions!(
    exec_keeps_the_streams_apart_and_gives_the_exit_code,
    the_end_of_standard_input_reaches_the_process,
    kubectl_runs_commands_over_every_protocol_that_it_speaks,
    kubectl_attaches_over_every_protocol_that_it_speaks,
    a_runtime_that_dies_and_an_agent_that_stops_end_their_sessions,
    what_asks_for_no_upgrade_is_refused_with_a_status,
    a_spdy_client_is_told_the_protocol_and_never_an_address,
);

/// A kubectl, and whether it uses WebSockets.
const KUBECTLS: [(&str, &str); 3] = [
    ("kubernetes", "true"),
    ("kubernetes", "false"),
    ("kubectl-1.20", ""),
];

fn kubectl(
    front: &TcpFront,
    (version, web_sockets): (&str, &str),
    words: &[&str],
) -> tokio::process::Command {
    let mut command = front.kubectl(version, words);
    command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", web_sockets);
    command
}

async fn node_with_web(version: ContainerdVersion) -> (Node, integration::Agent) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    node.write_manifest("web.json", &sleeping_pod("web"));
    agent.api().pod_until("default", "web", is_running).await;
    (node, agent)
}

async fn exec_keeps_the_streams_apart_and_gives_the_exit_code(version: ContainerdVersion) {
    let (node, _agent) = node_with_web(version).await;
    let script = "echo out; echo err >&2; exit 3";
    let output = node.debuglet(["exec", "web", "--", "sh", "-c", script]).await;
    assert_eq!((output.code, output.stdout.as_str()), (3, "out\n"));
    assert!(output.stderr.starts_with("err\n"), "{}", output.stderr);
}

async fn the_end_of_standard_input_reaches_the_process(version: ContainerdVersion) {
    let (node, _agent) = node_with_web(version).await;
    let file = node.folder().join("input");
    std::fs::write(&file, "hello").unwrap();
    let mut command = node.debuglet_command(["exec", "-i", "web", "--", "sh", "-c", "wc -c; echo done"]);
    command.stdin(File::open(&file).unwrap());
    let output = node.spawn(command).output().await.succeeded();
    assert_eq!(output.stdout, "5\ndone\n");
}

async fn kubectl_runs_commands_over_every_protocol_that_it_speaks(version: ContainerdVersion) {
    let (node, agent) = node_with_web(version).await;
    let front = TcpFront::start(&agent).await;
    let input = node.folder().join("input");
    std::fs::write(&input, vec![b'x'; 300_000]).unwrap();
    for client in KUBECTLS {
        let script = "echo out; echo err >&2; exit 3";
        let words = ["exec", "web", "--", "sh", "-c", script];
        let output = kubectl(&front, client, &words).output().await.unwrap();
        assert_eq!(output.status.code(), Some(3), "{client:?}");
        assert_eq!(output.stdout, b"out\n", "{client:?}");
        assert!(output.stderr.starts_with(b"err\n"), "{client:?}");

        // The end of the input reaches the process, and what it says after that reaches the client.
        let mut command = kubectl(&front, client, &["exec", "-i", "web", "--", "wc", "-c"]);
        command.stdin(File::open(&input).unwrap());
        let output = command.output().await.unwrap();
        assert_eq!(output.stdout, b"300000\n", "{client:?}");
    }
}

async fn kubectl_attaches_over_every_protocol_that_it_speaks(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    let mut pod = sleeping_pod("echo");
    pod["spec"]["containers"][0]["stdin"] = true.into();
    let script = "while read line; do echo got $line; done";
    pod["spec"]["containers"][0]["command"] = json!(["sh", "-c", script]);
    node.write_manifest("echo.json", &pod);
    agent.api().pod_until("default", "echo", is_running).await;
    let front = TcpFront::start(&agent).await;
    for client in KUBECTLS {
        let mut command = kubectl(&front, client, &["attach", "-i", "echo", "-c", "main"]);
        command.stdin(Stdio::piped());
        let mut child = TcpFront::spawn(command);
        let mut stdin = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        stdin.write_all(b"words\n").await.unwrap();
        let line = lines.next_line().await.unwrap();
        assert_eq!(line.as_deref(), Some("got words"), "{client:?}");
    }
}

async fn a_runtime_that_dies_and_an_agent_that_stops_end_their_sessions(version: ContainerdVersion) {
    let (node, agent) = node_with_web(version).await;
    let front = TcpFront::start(&agent).await;
    let start = async || {
        let mut sessions = Vec::new();
        for client in KUBECTLS {
            let words = ["exec", "web", "--", "sh", "-c", "echo started; sleep 1000"];
            let mut child = TcpFront::spawn(kubectl(&front, client, &words));
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let line = lines.next_line().await.unwrap();
            assert_eq!(line.as_deref(), Some("started"), "{client:?}");
            sessions.push(child);
        }
        sessions
    };

    let sessions = start().await;
    node.kill_containerd().await;
    for session in sessions {
        session.wait_with_output().await.unwrap();
    }

    node.start_containerd().await;
    agent.api().pod_until("default", "web", is_running).await;
    let sessions = start().await;
    assert_eq!(agent.stop().await, 0);
    for session in sessions {
        session.wait_with_output().await.unwrap();
    }
}

async fn what_asks_for_no_upgrade_is_refused_with_a_status(version: ContainerdVersion) {
    let (_node, agent) = node_with_web(version).await;
    for path in [
        "exec?command=sh&stdout=1",
        "attach?stdout=1",
        "portforward?ports=80",
    ] {
        let path = format!("/api/v1/namespaces/default/pods/web/{path}");
        for answer in [
            agent.api().get(&path).await,
            agent.api().send("POST", &path, "", &json!({})).await,
        ] {
            assert_eq!(
                (answer.status, &answer.body["reason"]),
                (400, &json!("BadRequest")),
                "{path}"
            );
            assert_eq!(answer.body["kind"], "Status");
        }
    }
}

async fn a_spdy_client_is_told_the_protocol_and_never_an_address(version: ContainerdVersion) {
    let (_node, agent) = node_with_web(version).await;
    let answer = async |protocols: &[&str]| {
        let mut stream = UnixStream::connect(agent.api().socket()).await.unwrap();
        let path = "/api/v1/namespaces/default/pods/web/exec?command=true&stdout=1";
        let mut request =
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n");
        for protocol in protocols {
            request.push_str(&format!("X-Stream-Protocol-Version: {protocol}\r\n"));
        }
        stream
            .write_all(format!("{request}\r\n").as_bytes())
            .await
            .unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap().to_ascii_lowercase()
    };
    let chosen = answer(&["v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"]).await;
    assert!(chosen.starts_with("http/1.1 101 "), "{chosen}");
    assert!(
        chosen.contains("\r\nx-stream-protocol-version: v4.channel.k8s.io\r\n"),
        "{chosen}"
    );
    assert!(chosen.contains("\r\nupgrade: spdy/3.1\r\n"), "{chosen}");
    let refused = answer(&["v5.channel.k8s.io"]).await;
    assert!(refused.starts_with("http/1.1 403 "), "{refused}");
    for told in [chosen, refused] {
        assert!(
            !told.contains("location") && !told.contains("127.0.0.1"),
            "{told}"
        );
    }
}
