//! Ends the agent in the middle of its work on the disk, with strace.

use std::process::{Command, Stdio};

use integration::{Agent, Node, Process, eventually};

/// Has the agent killed at its `nth` call of one of `calls` from now on; traced on return.
pub(crate) async fn kill_at(node: &Node, agent: &mut Agent, calls: &str, nth: usize) -> Process {
    let pid = agent.process().pid().to_string();
    let mut tracer = Command::new("strace");
    tracer.args(["-f", "-qq", "-e", &format!("trace={calls}"), "-e"]);
    tracer.arg(format!("inject={calls}:signal=KILL:when={nth}"));
    tracer.args(["-p", &inner_pid(&pid)]).stdin(Stdio::null());
    let tracer = node.spawn(tracer);
    eventually("the agent is traced", async || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        if status.contains("TracerPid:\t0") {
            Err(tracer.stderr())
        } else {
            Ok(())
        }
    })
    .await;
    tracer
}

/// A process's id inside the node: the last of its `NSpid`.
fn inner_pid(pid: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .unwrap();
    line.split_whitespace().last().unwrap().to_owned()
}
