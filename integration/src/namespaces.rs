//! Starting processes inside a private node.

use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{self, Sender};

use nix::sched::{CloneFlags, setns, unshare};

/// Something to be done in the namespaces.
type Job = Box<dyn FnOnce() + Send>;

/// A thread that has entered a node's namespaces: what it starts runs there, as a child of the test's process,
/// under its ordinary process id; what it connects goes through the node's network.
#[derive(Debug)]
pub(crate) struct Namespaces {
    jobs: Sender<Job>,
    /// The control groups, seen from outside, that the node's processes go to.
    groups: Vec<PathBuf>,
}

impl Namespaces {
    /// Enters the namespaces of the process `pid`.
    pub(crate) fn enter(pid: u32, groups: Vec<PathBuf>) -> Namespaces {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (entered, when_entered) = mpsc::channel();
        std::thread::Builder::new()
            .name("namespaces".to_owned())
            .spawn(move || {
                entered.send(enter(pid)).unwrap();
                for job in inbox {
                    job();
                }
            })
            .unwrap();
        when_entered.recv().unwrap().expect("enter the node's namespaces");
        Namespaces { jobs, groups }
    }

    /// Starts a process in the node.
    pub(crate) fn spawn(&self, mut command: Command) -> std::io::Result<Child> {
        let child = self.run(move || command.spawn())?;
        for group in &self.groups {
            // Fails for a process that has ended already.
            let _ = std::fs::write(group.join("cgroup.procs"), child.id().to_string());
        }
        Ok(child)
    }

    /// Connects to a port of the node's, or to wherever its network leads.
    pub(crate) fn connect(&self, host: String, port: u16) -> std::io::Result<TcpStream> {
        self.run(move || TcpStream::connect((host, port)))
    }

    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (reply, answer) = mpsc::channel();
        let job = move || {
            // Nobody waits for the answer only where the test is over.
            let _ = reply.send(job());
        };
        self.jobs.send(Box::new(job)).unwrap();
        answer.recv().unwrap()
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
