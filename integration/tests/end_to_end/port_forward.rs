//! Ports of pods, forwarded for the clients that people use: kubectl, which tunnels SPDY or speaks it, and kube-rs,
//! which speaks the WebSocket's channels.

use std::time::Duration;

use integration::{Agent, ContainerdVersion, Node, TcpFront, is_running, sleeping_pod};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, Config};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout};

on_both_versions!(
    every_form_of_forwarding_reaches_pods_and_pods_of_the_host_network,
    a_port_that_nobody_listens_on_is_told_and_the_others_go_on,
);

/// How a kubectl forwards.
const FORMS: [(&str, &str); 3] = [
    ("kubernetes", "true"),
    ("kubernetes", "false"),
    ("kubectl-1.20", ""),
];

async fn node_with_servers(version: ContainerdVersion) -> (Node, Agent, TcpFront) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    for (name, port) in [("web", 8080), ("hostweb", 8081)] {
        let mut pod = sleeping_pod(name);
        let script =
            format!("mkdir /www; echo hello from {name} >/www/index.html; httpd -f -p {port} -h /www");
        pod["spec"]["containers"][0]["command"] = serde_json::json!(["sh", "-c", script]);
        pod["spec"]["hostNetwork"] = (name == "hostweb").into();
        node.write_manifest(&format!("{name}.json"), &pod);
    }
    for name in ["web", "hostweb"] {
        agent.api().pod_until("default", name, is_running).await;
    }
    let front = TcpFront::start(&agent).await;
    (node, agent, front)
}

/// Starts to forward to the pod's port; gives the port on this side.
async fn forward(
    front: &TcpFront,
    (kubectl, web_sockets): (&str, &str),
    pod: &str,
    port: u16,
) -> (Child, Lines<BufReader<ChildStdout>>, u16) {
    let words = ["port-forward", &format!("pod/{pod}"), &format!(":{port}")];
    let mut command = front.kubectl(kubectl, &words);
    command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", web_sockets);
    let mut child = TcpFront::spawn(command);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().unwrap_or_default();
    let local = line
        .strip_prefix("Forwarding from 127.0.0.1:")
        .and_then(|rest| rest.split_once(' '))
        .unwrap_or_else(|| panic!("not a forwarded port: {line:?}"));
    let local = local.0.parse().unwrap();
    (child, lines, local)
}

/// What the server at the other end answers.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    match ended {
        Ok(read) => read.unwrap_or_else(|error| panic!("{error} after {answer:?}")),
        Err(_) => panic!("waited in vain until the server closes; it has answered {answer:?}"),
    };
    answer
}

async fn every_form_of_forwarding_reaches_pods_and_pods_of_the_host_network(version: ContainerdVersion) {
    let (_node, _agent, front) = node_with_servers(version).await;
    for form in FORMS {
        for (pod, port) in [("web", 8080), ("hostweb", 8081)] {
            let (_child, _lines, local) = forward(&front, form, pod, port).await;
            // Several connections over one session, one after the other and side by side.
            for _ in 0..3 {
                let one = TcpStream::connect(("127.0.0.1", local)).await.unwrap();
                let other = TcpStream::connect(("127.0.0.1", local)).await.unwrap();
                let (one, other) = tokio::join!(ask(one), ask(other));
                for answer in [one, other] {
                    assert!(
                        answer.ends_with(&format!("hello from {pod}\n")),
                        "{form:?}: {answer}"
                    );
                }
            }
        }
    }
}

async fn a_port_that_nobody_listens_on_is_told_and_the_others_go_on(version: ContainerdVersion) {
    let (_node, _agent, front) = node_with_servers(version).await;

    let config = Config::new(front.url().parse().unwrap());
    let pods: Api<Pod> = Api::namespaced(Client::try_from(config).unwrap(), "default");
    let mut forwarder = pods.portforward("web", &[8099, 8080]).await.unwrap();
    let error = forwarder.take_error(8099).unwrap().await.unwrap();
    assert!(error.contains("refused"), "{error}");
    let answer = ask(forwarder.take_stream(8080).unwrap()).await;
    assert!(answer.ends_with("hello from web\n"), "{answer}");

    // kubectl 1.20 goes on after an error; newer ones give up by themselves.
    let (mut child, _lines, local) = forward(&front, FORMS[2], "web", 8099).await;
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    for _ in 0..2 {
        let mut refused = TcpStream::connect(("127.0.0.1", local)).await.unwrap();
        refused.write_all(b"x").await.unwrap();
        let line = stderr.next_line().await.unwrap().unwrap();
        assert!(line.contains("refused"), "{line}");
    }
}
