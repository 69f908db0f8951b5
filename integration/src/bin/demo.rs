//! The main job, shown: what `integration/demo` runs.

#![allow(clippy::unwrap_used)]

use integration::{BUSYBOX, ContainerdVersion, DISTROLESS, Node, is_running};
use serde_json::json;

#[tokio::main]
async fn main() {
    let keep = std::env::args()
        .nth(1)
        .is_some_and(|argument| argument == "--keep");

    say("A private node with containerd 1.6 and a registry, and the agent on it.");
    let node = Node::start(ContainerdVersion::V1_6).await;
    let agent = node.start_agent().await;

    say("A pod whose image has one program and no shell, from the manifests folder.");
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "greeter" },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{ "name": "greeter", "image": DISTROLESS }],
        },
    });
    node.write_manifest("greeter.json", &pod);
    agent.api().pod_until("default", "greeter", is_running).await;
    run(&node, &["ps"]).await;

    say("A debug container in it: the target's processes, and its files through /proc/1/root.");
    let look = "ps -o pid,args; cat /proc/1/root/srv/greeting.txt";
    let image = ["--image", BUSYBOX];
    run(
        &node,
        &[
            "debug",
            "greeter",
            "-c",
            "debugger",
            "--attach",
            image[0],
            image[1],
            "--target=greeter",
            "--",
            "sh",
            "-c",
            look,
        ],
    )
    .await;
    run(&node, &["describe", "greeter"]).await;

    if keep {
        say("It is up until Ctrl-C. In another terminal:");
        let program = std::env::current_exe().unwrap().with_file_name("debuglet");
        println!(
            "  export DEBUGLET_CONFIG={}/debuglet.toml PATH=$PATH:{}",
            node.folder().display(),
            program.parent().unwrap().display()
        );
        println!("  debuglet debug -it greeter --image={BUSYBOX} --target=greeter -- sh");
        println!("  debuglet ps");
        println!("  debuglet logs -f greeter -c greeter");
        println!("  debuglet check");
        tokio::signal::ctrl_c().await.unwrap();
        say("Taken down.");
    }
}

fn say(what: &str) {
    println!("\n# {what}");
}

/// Runs a command of debuglet's and shows it as in a terminal.
async fn run(node: &Node, arguments: &[&str]) {
    let shown = arguments.iter().map(|word| {
        if word.contains(' ') {
            format!("'{word}'")
        } else {
            (*word).to_owned()
        }
    });
    println!("$ debuglet {}", shown.collect::<Vec<_>>().join(" "));
    let output = node.debuglet(arguments.iter().copied()).await;
    print!("{}{}", output.stderr, output.stdout);
    if output.code != 0 {
        eprintln!("exit code {}", output.code);
        std::process::exit(1);
    }
}
