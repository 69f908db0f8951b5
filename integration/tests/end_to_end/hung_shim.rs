//! A shim that does not answer in time, as on a machine that has too much to do: containerd then takes the sandbox's process
//! for number 0, and makes a container that cannot be started.

use integration::{ContainerdVersion, Node, debug_container, eventually, is_running, sleeping_pod, state_of};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

on_both_versions!(a_container_that_was_created_while_the_shim_hung_is_made_anew_and_runs);

async fn a_container_that_was_created_while_the_shim_hung_is_made_anew_and_runs(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let proxy = node.start_proxy().await;
    let agent = node.start_agent_behind(&proxy).await;
    node.write_manifest("web.json", &sleeping_pod("web"));
    agent.api().pod_until("default", "web", is_running).await;
    let main = node.cri().containers("main").await.remove(0);
    let shim = shim_of(&main.pod_sandbox_id);

    let creations = proxy.calls("CreateContainer");
    kill(shim, Signal::SIGSTOP).unwrap();
    let container = debug_container("dbg", &["sleep", "86400"]);
    let answer = agent.api().debug("default", "web", &[container]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    eventually("the container was created", async || {
        let calls = proxy.all_calls();
        if proxy.calls("StartContainer") > 1 || proxy.calls("CreateContainer") > creations + 1 {
            Ok(())
        } else {
            Err(calls)
        }
    })
    .await;
    kill(shim, Signal::SIGCONT).unwrap();

    let ended = |pod: &serde_json::Value| {
        let state = state_of(pod, "dbg");
        state == "running:" || state.starts_with("terminated:")
    };
    let pod = agent.api().pod_until("default", "web", ended).await;
    assert_eq!(state_of(&pod, "dbg"), "running:", "{pod:#}");
    assert_eq!(proxy.calls("StartContainer"), 2, "main's and dbg's");
    assert_eq!(node.cri().containers("dbg").await.len(), 1);
}

/// The shim of a sandbox, which is that of its containers too.
fn shim_of(sandbox: &str) -> Pid {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut shims = processes.filter_map(|process| {
        let pid = process.file_name().to_string_lossy().parse().ok()?;
        let command = std::fs::read_to_string(process.path().join("cmdline")).ok()?;
        let mut arguments = command.split('\0');
        let is_shim = arguments.next()?.contains("containerd-shim");
        (is_shim && arguments.any(|argument| argument == sandbox)).then_some(Pid::from_raw(pid))
    });
    shims.next().expect("the shim runs")
}
