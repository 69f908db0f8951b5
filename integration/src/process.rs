//! Processes of a private node.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ExitStatus};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;

/// What `/proc/PID/stat` counts processor time in, on every Linux (USER_HZ is 100).
const MILLISECONDS_PER_TICK: u64 = 10;

/// How long a process may take to end before a test fails.
const END_WITHIN: Duration = Duration::from_secs(120);

/// What a process that has ended wrote, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The exit code; 128 and the signal's number for a killed one, as a shell says it.
    pub code: i32,
    /// Everything on standard output.
    pub stdout: String,
    /// Everything on standard error.
    pub stderr: String,
}

impl Output {
    /// What a process wrote that has to have ended with the code and to have said the words on standard error.
    #[track_caller]
    pub fn failed(self, code: i32, words: &[&str]) -> Output {
        let said = words.iter().all(|word| self.stderr.contains(word));
        assert!(self.code == code && said, "not {code} with {words:?}: {self:#?}");
        self
    }

    /// The output of a process that has to have ended well.
    #[track_caller]
    pub fn succeeded(self) -> Output {
        assert!(
            self.code == 0,
            "exit code {}:\n{}{}",
            self.code,
            self.stdout,
            self.stderr
        );
        self
    }
}

/// A process that runs in a private node. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    stdin: Option<ChildStdin>,
    stdout: PathBuf,
    stderr: PathBuf,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl Process {
    /// Takes over a child whose output goes to the two files.
    pub(crate) fn adopt(name: String, mut child: Child, stdout: PathBuf, stderr: PathBuf) -> Process {
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let stdin = child.stdin.take();
        let (ended, exit) = watch::channel(None);
        // A thread for each: a child that nobody waited for would keep the node's PID namespace from ending.
        std::thread::spawn(move || {
            let status = child.wait().unwrap();
            ended.send_replace(Some(status));
        });
        Process {
            name,
            pid,
            stdin,
            stdout,
            stderr,
            exit,
        }
    }

    /// Its process id, seen from the test.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Its standard input, if it was given a pipe.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.stdin.take()
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// [`Process::stdout`], of any bytes.
    pub fn stdout_bytes(&self) -> Vec<u8> {
        std::fs::read(&self.stdout).unwrap_or_default()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// How much memory it keeps resident, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most memory that it ever kept resident, in bytes.
    pub fn most_resident_bytes(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// How much processor time all its threads have used.
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The name, in brackets, may hold anything; after it the 12th and 13th field are user and system time (proc(5)).
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
        let ticks: u64 = fields
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>().unwrap())
            .sum();
        Duration::from_millis(ticks * MILLISECONDS_PER_TICK)
    }

    fn memory(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
    }

    /// Whether it still runs.
    pub fn runs(&self) -> bool {
        self.exit.borrow().is_none()
    }

    /// Sends it a signal; nothing happens where it has ended.
    pub fn signal(&self, signal: Signal) {
        if self.runs() {
            let _ = kill(self.pid, signal);
        }
    }

    /// Ends it as `kill -9` does, and waits until it is gone.
    pub async fn kill(&self) {
        self.signal(Signal::SIGKILL);
        self.ended().await;
    }

    /// Waits for its end, for two minutes at most, and gives back its exit code.
    pub async fn ended(&self) -> i32 {
        match tokio::time::timeout(END_WITHIN, self.finished()).await {
            Ok(code) => code,
            Err(_) => panic!(
                "waited in vain for {END_WITHIN:?} until {} (process {}) ends; it has written:\n{}{}",
                self.name,
                self.pid(),
                self.stdout(),
                self.stderr()
            ),
        }
    }

    /// Waits for its end, however long it takes, and gives back its exit code.
    pub(crate) async fn finished(&self) -> i32 {
        let mut exit = self.exit.clone();
        let status = exit.wait_for(Option::is_some).await;
        let status = status.expect("the thread that waits for it runs").unwrap();
        status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
    }

    /// Waits for its end, and gives back everything it wrote.
    pub async fn output(self) -> Output {
        let code = self.ended().await;
        Output {
            code,
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
