//! What a container, a pod of somebody else or a registry writes reaches a terminal as text, but for logs, whose bytes
//! are the container's.

use std::process::{Command, Stdio};

use integration::{
    Agent, BUSYBOX, ContainerdVersion, ForeignPod, Node, Output, eventually, is_running, sleeping_pod,
};
use serde_json::json;

on_both_versions!(what_containers_and_registries_write_is_shown_as_text);

/// A title and a clipboard (OSC 0 and 52), a screen without what was on it (CSI 2J, also with the CSI of C1), text that
/// is read backwards, and a line that is written over.
const HOSTILE: &str = "\x1b]0;title\x07\x1b]52;c;cm0gLXJmIC8=\x07\x1b[2J\u{9b}2J\u{202e}drow\u{202c}\rover";
/// The same as it is shown.
const SHOWN: &str = r"\x1b]0;title\x07\x1b]52;c;cm0gLXJmIC8=\x07\x1b[2J\u009b2J\u202edrow\u202c\rover";

/// The same in a pod's name, which network plugins let have no semicolon.
const HOSTILE_NAME: &str = "\x1b[2J\u{9b}2J\u{202e}drow\u{202c}\rover";
const SHOWN_NAME: &str = r"\x1b[2J\u009b2J\u202edrow\u202c\rover";

/// The same for the first line of an HTTP answer, which ends at a carriage return.
const HOSTILE_ANSWER: &str = "\x1b]0;title\x07\x1b[2J";
const SHOWN_ANSWER: &str = r"\x1b]0;title\x07\x1b[2J";
/// Where a registry listens that answers so.
const HOSTILE_REGISTRY: &str = "127.0.0.1:5001";

async fn what_containers_and_registries_write_is_shown_as_text(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    let script = "printf '%s\n' \"$TEXT\"; printf %s \"$TEXT\" >/dev/termination-log; exit 1";
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "annotations": {"note": HOSTILE}},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{
                "name": "main",
                "image": BUSYBOX,
                "command": ["sh", "-c", script],
                "args": [HOSTILE],
                "env": [{"name": "TEXT", "value": HOSTILE}],
            }],
        },
    });
    node.write_manifest("web.json", &pod);
    agent
        .api()
        .pod_until("default", "web", |pod| pod["status"]["phase"] == "Failed")
        .await;
    let described = described(&node, "default", "web").await;
    for words in [
        format!("note: {SHOWN}"),
        format!("Message: {SHOWN}"),
        format!("TEXT: {SHOWN}"),
        format!("Last Lines of Its Log: {SHOWN}"),
    ] {
        assert!(described.contains(&words), "{words}: {described}");
    }
    // A log is what the container wrote.
    let log = node.debuglet(["logs", "web"]).await.succeeded();
    assert_eq!(log.stdout, format!("{HOSTILE}\n"));

    somebody_elses_pod(&node, &agent).await;
    what_cannot_be_pulled(&node, &agent).await;

    // The forms for programs hold the same, and control nothing.
    for form in ["json", "yaml"] {
        let listed = text(node.debuglet(["ps", "-o", form]).await.succeeded());
        assert!(listed.contains("title"), "{listed}");
    }
    let listed: serde_json::Value =
        serde_json::from_str(&node.debuglet(["ps", "-o", "json"]).await.succeeded().stdout).unwrap();
    let mut pods = listed["items"].as_array().unwrap().iter();
    assert!(
        pods.any(|pod| pod["metadata"]["annotations"]["note"] == HOSTILE),
        "{listed:#}"
    );
}

/// A pod of crictl's, whose name and annotations nobody has judged.
async fn somebody_elses_pod(node: &Node, agent: &Agent) {
    let name = format!("till{HOSTILE_NAME}");
    let mut config = ForeignPod::config(node, "till", "u-till");
    config.metadata.as_mut().unwrap().name.clone_from(&name);
    config.annotations.insert("note".to_owned(), HOSTILE.to_owned());
    let _pod = ForeignPod::run_sleeping(&node.cri(), config).await;
    eventually("the pod is shown", async || {
        let pods = agent.api().pods().await;
        match pods.iter().any(|pod| pod["metadata"]["namespace"] == "shop") {
            true => Ok(()),
            false => Err(pods),
        }
    })
    .await;
    let listed = text(node.debuglet(["ps", "-o", "wide"]).await.succeeded());
    assert!(listed.contains(&format!("till{SHOWN_NAME}")), "{listed}");
    let described = described(node, "shop", &name).await;
    assert!(
        described.contains(&format!("Name: till{SHOWN_NAME}")),
        "{described}"
    );
    assert!(described.contains(&format!("note: {SHOWN}")), "{described}");
    // A name that is not there is repeated, too.
    let missing = text(node.debuglet(["describe", HOSTILE]).await);
    assert!(missing.contains("there is no pod"), "{missing}");
}

/// A registry that fails, and says why.
async fn what_cannot_be_pulled(node: &Node, agent: &Agent) {
    let answer = node.folder().join("answer");
    let head = format!("HTTP/1.1 500 {HOSTILE_ANSWER}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    std::fs::write(&answer, head).unwrap();
    let mut socat = Command::new("socat");
    socat
        .arg("TCP-LISTEN:5001,bind=127.0.0.1,fork,reuseaddr")
        .arg(format!("SYSTEM:read -r line; cat {}", answer.display()))
        .stdin(Stdio::null());
    let _registry = node.spawn(socat);
    node.write_manifest("cart.json", &sleeping_pod("cart"));
    agent.api().pod_until("default", "cart", is_running).await;
    let image = format!("{HOSTILE_REGISTRY}/x:1");
    let debug = ["debug", "-i", "cart", "-c", "dbg", "--image", &image];

    let mut command = node.debuglet_command(debug);
    command.stdin(Stdio::null());
    let waiting = node.spawn(command);
    eventually("what the registry says is told", async || {
        let told = waiting.stderr();
        if told.contains(SHOWN_ANSWER) {
            Ok(())
        } else {
            Err(told)
        }
    })
    .await;
    waiting.signal(nix::sys::signal::Signal::SIGINT);
    let told = text(waiting.output().await);
    assert!(told.contains("interrupted"), "{told}");

    let mut terminal = node.debuglet_in_terminal(["debug", "-it", "cart", "-c", "dbg-2", "--image", &image]);
    let screen = terminal.shows(SHOWN_ANSWER).await;
    terminal.type_in("\x03");
    terminal.process().ended().await;
    assert!(
        !screen.contains("\x1b]0;") && !screen.contains("\x1b[2J"),
        "{screen:?}"
    );
}

/// The description of a pod, with one blank between two words.
async fn described(node: &Node, namespace: &str, pod: &str) -> String {
    let described = text(
        node.debuglet(["describe", pod, "-n", namespace])
            .await
            .succeeded(),
    );
    described.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// All that a command has written, which holds nothing that controls a terminal or changes the reading direction.
fn text(output: Output) -> String {
    let text = output.stdout + &output.stderr;
    let unseen = |one: char| one != '\n' && (one.is_control() || ('\u{202a}'..='\u{202e}').contains(&one));
    assert!(!text.contains(unseen), "{text:?}");
    text
}
