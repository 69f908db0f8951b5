//! Starting processes inside a private node.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{self, Sender};

use nix::sched::{CloneFlags, setns, unshare};

/// One process to start, and where the started one is expected.
type Request = (Command, Sender<std::io::Result<Child>>);

/// A thread that has entered a node's namespaces: what it starts runs there, as a child of the test's process,
/// under its ordinary process id.
#[derive(Debug)]
pub(crate) struct Namespaces {
    requests: Sender<Request>,
    /// The control groups, seen from outside, that the node's processes go to.
    groups: Vec<PathBuf>,
}

impl Namespaces {
    /// Enters the namespaces of the process `pid`.
    pub(crate) fn enter(pid: u32, groups: Vec<PathBuf>) -> Namespaces {
        let (requests, inbox) = mpsc::channel::<Request>();
        let (entered, when_entered) = mpsc::channel();
        std::thread::Builder::new()
            .name("namespaces".to_owned())
            .spawn(move || {
                entered.send(enter(pid)).unwrap();
                for (mut command, reply) in inbox {
                    // Nobody waits for the answer only where the test is over.
                    let _ = reply.send(command.spawn());
                }
            })
            .unwrap();
        when_entered.recv().unwrap().expect("enter the node's namespaces");
        Namespaces { requests, groups }
    }

    /// Starts a process in the node.
    pub(crate) fn spawn(&self, command: Command) -> std::io::Result<Child> {
        let (reply, answer) = mpsc::channel();
        self.requests.send((command, reply)).unwrap();
        let child = answer.recv().unwrap()?;
        for group in &self.groups {
            // Fails for a process that has ended already.
            let _ = std::fs::write(group.join("cgroup.procs"), child.id().to_string());
        }
        Ok(child)
    }
}

fn enter(pid: u32) -> nix::Result<()> {
    let open = |name: &str| {
        let path = Path::new("/proc").join(pid.to_string()).join("ns").join(name);
        File::open(path).map_err(|_| nix::errno::Errno::ESRCH)
    };
    let spaces = ["net", "ipc", "uts", "cgroup", "pid", "mnt"].map(open);
    // A thread that shares its working directory with others may not enter a mount namespace.
    unshare(CloneFlags::CLONE_FS)?;
    for space in spaces {
        setns(space?, CloneFlags::empty())?;
    }
    Ok(())
}
