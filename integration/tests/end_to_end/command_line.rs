//! The `debuglet` command, as a person uses it.

use std::fs::File;

use integration::{
    Agent, BUSYBOX, ContainerdVersion, Node, debug_container, is_running, sleeping_pod, state_of,
};

on_both_versions!(
    a_shell_prompts_without_enter_and_its_exit_code_comes_back,
    piped_input_reaches_the_container_and_every_line_comes_back,
    a_megabyte_of_output_arrives_whole_and_in_order,
    an_attach_says_that_what_was_written_before_cannot_be_read_and_goes_on,
    exec_pipes_a_hundred_megabytes_both_ways,
    ps_and_describe_show_debug_containers,
    logs_show_what_a_container_wrote,
    stop_ends_a_debug_container_for_good,
);

async fn a_shell_prompts_without_enter_and_its_exit_code_comes_back(version: ContainerdVersion) {
    let (node, _agent) = node_with_pod(version).await;

    let mut terminal = node.debuglet_in_terminal(["debug", "-it", "web", "--image", BUSYBOX, "--", "sh"]);
    terminal.shows("~ # ").await;
    terminal.type_in("stty size\r");
    terminal.shows("24 80").await;
    terminal.resize(100, 30);
    integration::eventually("the new size is inside", async || {
        terminal.type_in("stty size\r");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        if terminal.screen().contains("30 100") {
            Ok(())
        } else {
            Err(terminal.screen())
        }
    })
    .await;
    let modes = terminal.modes();
    assert!(modes.contains("-icanon"), "raw while attached: {modes}");
    terminal.type_in("exit 3\r");

    assert_eq!(terminal.process().ended().await, 3, "{}", terminal.screen());
    assert!(!terminal.modes().contains("-icanon"), "restored");
}

async fn an_attach_says_that_what_was_written_before_cannot_be_read_and_goes_on(version: ContainerdVersion) {
    let (node, agent) = node_with_pod(version).await;
    let mut shell = debug_container("shell", &["sh"]);
    shell["stdin"] = true.into();
    shell["tty"] = true.into();
    let asked = agent.api().debug("default", "web", &[shell]).await;
    assert_eq!(asked.status, 200, "{asked:?}");
    agent
        .api()
        .pod_until("default", "web", |pod| state_of(pod, "shell") == "running:")
        .await;
    // Its log is where the agent looks for one, and is nothing that can be read as one.
    let replace =
        "for log in $(find \"$0\" -path '*/shell/0.log'); do rm \"$log\"; mkdir \"$log\"; echo found; done";
    let replaced = node
        .run(["sh", "-euc", replace, node.folder().to_str().unwrap()])
        .await;
    assert_eq!(replaced.succeeded().stdout, "found\n");

    let mut terminal = node.debuglet_in_terminal(["attach", "-it", "web", "-c", "shell"]);
    terminal
        .shows("What the container wrote before cannot be read: ")
        .await;
    terminal.type_in("echo $((6 * 7)) is; exit 3\r");
    terminal.shows("42 is").await;
    terminal.process().ended().await;
}

async fn piped_input_reaches_the_container_and_every_line_comes_back(version: ContainerdVersion) {
    let (node, _agent) = node_with_pod(version).await;
    let input: String = (0..20_000).map(|number| format!("line {number}\n")).collect();
    std::fs::write(node.folder().join("input"), &input).unwrap();

    // As below: 1.6 loses some of what is written right before the end.
    let fixed = [
        "debug",
        "-i",
        "web",
        "--image",
        BUSYBOX,
        "--quiet",
        "--",
        "sh",
        "-c",
        "cat; sleep 1",
    ];
    let mut command = node.debuglet_command(fixed);
    command.stdin(File::open(node.folder().join("input")).unwrap());
    let output = node.spawn(command).output().await.succeeded();

    assert!(
        output.stdout == input,
        "{} of {} bytes",
        output.stdout.len(),
        input.len()
    );
}

async fn a_megabyte_of_output_arrives_whole_and_in_order(version: ContainerdVersion) {
    let (node, _agent) = node_with_pod(version).await;

    // containerd 1.6 itself loses, on its way to the log, some of what is written right before the end.
    let script = "seq 150000; sleep 1";
    let fixed = [
        "debug", "web", "--attach", "--image", BUSYBOX, "--", "sh", "-c", script,
    ];
    let output = node.debuglet(fixed).await.succeeded();

    let expected: String = (1..=150_000).map(|number| format!("{number}\n")).collect();
    assert!(
        output.stdout == expected,
        "{} of {} bytes",
        output.stdout.len(),
        expected.len()
    );
}

async fn exec_pipes_a_hundred_megabytes_both_ways(version: ContainerdVersion) {
    let (node, _agent) = node_with_pod(version).await;
    let (input, size) = (node.folder().join("input"), 100 << 20);
    // Bytes that do not repeat in any block's length, so that a lost or doubled piece shows.
    let bytes: Vec<u8> = (0..size as u64)
        .map(|index| (index.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8)
        .collect();
    std::fs::write(&input, &bytes).unwrap();

    let mut command = node.debuglet_command(["exec", "-i", "web", "-c", "main", "--", "cat"]);
    command.stdin(File::open(&input).unwrap());
    let process = node.spawn(command);
    assert_eq!(process.ended().await, 0, "{}", process.stderr());

    let back = process.stdout_bytes();
    assert!(back == bytes, "{} of {size} bytes", back.len());
}

async fn ps_and_describe_show_debug_containers(version: ContainerdVersion) {
    let (node, agent) = node_with_pod(version).await;
    agent
        .api()
        .debug("default", "web", &[debug_container("dbg", &["sleep", "600"])])
        .await;
    agent
        .api()
        .pod_until("default", "web", |pod| state_of(pod, "dbg") == "running:")
        .await;

    let listed = node.debuglet(["ps"]).await.succeeded().stdout;
    let row = listed
        .lines()
        .find(|line| line.contains("web"))
        .unwrap_or_else(|| panic!("{listed}"));
    for word in ["default", "1/1", "Running", "1 running", "manifest"] {
        assert!(row.contains(word), "{word}: {row}");
    }
    let described = node.debuglet(["describe", "web"]).await.succeeded().stdout;
    let section = described
        .split("Ephemeral Containers:")
        .nth(1)
        .unwrap_or_else(|| panic!("{described}"));
    for words in ["dbg:", "Running", "Ready:", "False", "Restart Count:", "Started"] {
        assert!(section.contains(words), "{words}: {described}");
    }
    let elsewhere = node.debuglet(["describe", "web", "-n", "kube-system"]).await;
    assert_ne!(elsewhere.code, 0);
    assert!(
        elsewhere.stderr.contains("default"),
        "where it is: {}",
        elsewhere.stderr
    );
}

async fn logs_show_what_a_container_wrote(version: ContainerdVersion) {
    let (node, agent) = node_with_pod(version).await;
    // Output and errors take two ways into the log: only a pause settles which comes last.
    let lines = "for n in 1 2 3; do echo out $n; echo err $n >&2; done";
    let script = &format!("{lines}; sleep 1; printf partial; sleep 1");
    agent
        .api()
        .debug("default", "web", &[debug_container("dbg", &["sh", "-c", script])])
        .await;
    agent
        .api()
        .pod_until("default", "web", |pod| {
            state_of(pod, "dbg") == "terminated:Completed"
        })
        .await;

    let logs = node.debuglet(["logs", "web", "-c", "dbg"]).await.succeeded();
    let mut lines: Vec<&str> = logs.stdout.lines().collect();
    assert_eq!(lines.last(), Some(&"partial"));
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["err 1", "err 2", "err 3", "out 1", "out 2", "out 3", "partial"]
    );
    let tail = node
        .debuglet(["logs", "web", "-c", "dbg", "--tail=1"])
        .await
        .succeeded();
    assert_eq!(tail.stdout, "partial");
}

async fn stop_ends_a_debug_container_for_good(version: ContainerdVersion) {
    let (node, agent) = node_with_pod(version).await;
    agent
        .api()
        .debug("default", "web", &[debug_container("dbg", &["sleep", "600"])])
        .await;
    agent
        .api()
        .pod_until("default", "web", |pod| state_of(pod, "dbg") == "running:")
        .await;

    node.debuglet(["stop", "web", "-c", "dbg"]).await.succeeded();

    agent
        .api()
        .pod_until("default", "web", |pod| {
            state_of(pod, "dbg").starts_with("terminated:")
        })
        .await;
    assert_eq!(agent.stop().await, 0);
    let agent = node.start_agent().await;
    let pod = agent.api().pod_until("default", "web", is_running).await;
    assert!(state_of(&pod, "dbg").starts_with("terminated:"), "{pod:#}");
    let ordinary = node.debuglet(["stop", "web", "-c", "main"]).await;
    assert_ne!(
        ordinary.code, 0,
        "an ordinary container is not debuglet's to stop"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_is_told_at_once_and_stopped() {
    let (node, agent) = node_with_pod(ContainerdVersion::V2_4).await;

    let image = "127.0.0.1:5000/busibox:1";
    let output = node
        .debuglet(["debug", "web", "-c", "dbg", "--image", image])
        .await;
    assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{output:?}");
    assert!(
        output.stderr.contains(image) && output.stderr.contains("ErrImagePull"),
        "{output:?}"
    );
    agent
        .api()
        .pod_until("default", "web", |pod| {
            state_of(pod, "dbg").starts_with("terminated:")
        })
        .await;

    let output = node
        .debuglet(["debug", "web", "--image", BUSYBOX, "--target", "wen"])
        .await;
    assert_ne!(output.code, 0);
    assert!(
        output.stderr.contains("wen") && output.stderr.contains("main"),
        "what it has: {output:?}"
    );
    let output = node
        .debuglet(["debug", "web", "--image", "Not A Reference"])
        .await;
    assert_ne!(output.code, 0);
    assert!(output.stderr.contains("Not A Reference"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debug_command_lives_through_a_restart_of_the_agent() {
    let (node, agent) = node_with_pod(ContainerdVersion::V2_4).await;
    let script = "n=0; while [ $n -lt 40 ]; do echo line $n; n=$((n + 1)); sleep 0.1; done";
    let command = node.debuglet_command([
        "debug", "web", "--attach", "--image", BUSYBOX, "--", "sh", "-c", script,
    ]);
    let command = node.spawn(command);
    integration::eventually("the first lines are there", async || {
        if command.stdout().contains("line 3\n") {
            Ok(())
        } else {
            Err((command.stdout(), command.stderr()))
        }
    })
    .await;

    agent.kill().await;
    let _agent = node.start_agent().await;

    let output = command.output().await.succeeded();
    let expected: String = (0..40).map(|number| format!("line {number}\n")).collect();
    assert_eq!(output.stdout, expected, "every line, once and in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_agent_it_says_so() {
    let node = Node::start(ContainerdVersion::V1_6).await;
    let agent = node.start_agent().await;
    agent.stop().await;

    let output = node.debuglet(["ps"]).await;

    assert_ne!(output.code, 0);
    assert!(output.stderr.contains("debuglet.sock"), "{output:?}");
}

/// A node with a running agent and the sample pod `web`.
async fn node_with_pod(version: ContainerdVersion) -> (Node, Agent) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    node.write_manifest("web.json", &sleeping_pod("web"));
    agent.api().pod_until("default", "web", is_running).await;
    (node, agent)
}
