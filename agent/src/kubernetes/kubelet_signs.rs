//! The signs of life that a kubelet shows on its node: a process of its name, and its health port. Looking costs some
//! file reads and a connection on loopback, so that it can be done every few seconds. What the signs count for is decided in
//! `pod/kubelet_life.rs`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::listening_sockets::owners;
use crate::pod::kubelet_life::{HealthPort, Process};

/// The name of the process, as in `/proc/PID/comm`.
pub(crate) const PROCESS_NAME: &str = "kubelet";
/// Where a kubelet answers `/healthz` (KubeletConfiguration, default of `healthzPort`). k3s and others that carry the
/// kubelet in a process of another name answer here too.
pub(crate) const HEALTH_PORT: u16 = 10248;

/// Loopback answers at once or not at all.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);
/// The user whose sockets can be a kubelet's.
const ROOT: u32 = 0;

/// Where the signs are looked for.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Where proc(5) is mounted.
    pub(crate) proc: PathBuf,
    /// The addresses that the health port may be bound to. The default of `healthzBindAddress` is the first one; one that is
    /// bound to all addresses answers at both.
    pub(crate) health: [SocketAddr; 2],
}

impl Default for Place {
    fn default() -> Place {
        let at = |address: IpAddr| SocketAddr::new(address, HEALTH_PORT);
        Place {
            proc: PathBuf::from("/proc"),
            health: [at(Ipv4Addr::LOCALHOST.into()), at(Ipv6Addr::LOCALHOST.into())],
        }
    }
}

/// What one look at the node showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KubeletSigns {
    /// The process id of a process named kubelet.
    pub(crate) process: Option<u32>,
    /// Whether /proc hides processes from us, a kubelet's too.
    pub(crate) processes_hidden: bool,
    /// Who answers at the health port.
    pub(crate) port: HealthPort,
}

impl KubeletSigns {
    /// What was seen of its process.
    pub(crate) fn process(self) -> Process {
        match self.process {
            Some(_) => Process::Seen,
            None if self.processes_hidden => Process::Hidden,
            None => Process::Absent,
        }
    }
}

/// Looks for both.
pub(crate) async fn look(place: &Place) -> KubeletSigns {
    let proc = place.proc.clone();
    let processes =
        tokio::task::spawn_blocking(move || (processes_named_kubelet(&proc), hides_processes(&proc)));
    let port = health_port(place).await;
    let (named, processes_hidden) = processes.await.unwrap_or_default();
    KubeletSigns {
        process: named.first().copied(),
        processes_hidden,
        port,
    }
}

/// Whether processes of root's are hidden from us. Every namespace of processes has a first one, and where /proc is
/// mounted with `hidepid`, that is hidden from whoever has fewer capabilities than it: so is a kubelet.
#[expect(
    clippy::disallowed_methods,
    reason = "/proc is the kernel's; on a thread that may block"
)]
fn hides_processes(proc: &Path) -> bool {
    proc.join("self").exists() && fs::read_to_string(proc.join("1/comm")).is_err()
}

/// The ids of the live processes named kubelet that share our PID namespace and run as our user: one in a namespace
/// below is another node's (kind), and one of another user cannot be this node's.
#[expect(
    clippy::disallowed_methods,
    reason = "/proc is the kernel's; on a thread that may block"
)]
pub(crate) fn processes_named_kubelet(proc: &Path) -> Vec<u32> {
    // A process may end while we look: what cannot be read is not there.
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let user = nix::unistd::geteuid().as_raw();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|id: &u32| {
            let folder = proc.join(id.to_string());
            // `comm` is the cheap one to read, and neither file asks for a right to trace the process.
            fs::read_to_string(folder.join("comm")).is_ok_and(|name| name.trim_end() == PROCESS_NAME)
                && fs::read_to_string(folder.join("status"))
                    .is_ok_and(|status| is_live_and_beside_us(&status, user))
        })
        .collect()
}

/// Whether `/proc/PID/status` tells of a process that is no zombie, has `user` as its effective user, and no PID
/// namespace of its own (proc(5): `NSpid` holds one id per namespace, ours first).
fn is_live_and_beside_us(status: &str, user: u32) -> bool {
    let field = |name: &str| {
        status.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key == name).then(|| value.split_whitespace().collect::<Vec<_>>())
        })
    };
    let state = field("State").unwrap_or_default();
    let users = field("Uid").unwrap_or_default();
    let ids = field("NSpid").unwrap_or_default();
    !matches!(state.first(), None | Some(&"Z" | &"X"))
        && users.get(1).and_then(|effective| effective.parse().ok()) == Some(user)
        && ids.len() == 1
}

/// Who answers at the health port. Where different users listen at its addresses, root counts.
async fn health_port(place: &Place) -> HealthPort {
    let mut found = HealthPort::Silent;
    for address in place.health {
        if !health_port_answers(address).await {
            continue;
        }
        let proc = place.proc.clone();
        // It may have been closed since it answered: then nobody can tell whose it was.
        let owners = tokio::task::spawn_blocking(move || owners(&proc, address)).await;
        let owners = owners.unwrap_or_default();
        match owners.iter().find(|owner| **owner != ROOT) {
            None if !owners.is_empty() => return HealthPort::OfRoot,
            other => found = HealthPort::OfOther(other.copied()),
        }
    }
    found
}

/// Whether something at `address` answers `/healthz` as a kubelet does.
async fn health_port_answers(address: SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream
            .write_all(format!("GET /healthz HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())
            .await?;
        let mut status_line = [0; 12];
        stream.read_exact(&mut status_line).await?;
        Ok::<_, std::io::Error>(is_health_answer(&status_line))
    };
    matches!(tokio::time::timeout(HEALTH_TIMEOUT, ask).await, Ok(Ok(true)))
}

/// Whether these are the first bytes of a health answer: a sick kubelet (500) is a kubelet too.
fn is_health_answer(start: &[u8]) -> bool {
    start.starts_with(b"HTTP/1.") && (start.ends_with(b" 200") || start.ends_with(b" 500"))
}

/// A place of a test's own, on which nothing that runs beside the test is seen.
#[cfg(test)]
pub(crate) mod private {
    use super::*;

    /// A /proc without processes, and a health port at `health`, where the test may listen or not.
    pub(crate) fn place(folder: &Path, health: SocketAddr) -> Place {
        Place {
            proc: folder.to_path_buf(),
            health: [health, SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 1)],
        }
    }

    /// Adds a kubelet's process to a /proc.
    pub(crate) fn add_kubelet(proc: &Path) {
        let user = nix::unistd::geteuid();
        let process = proc.join("77");
        fs::create_dir(&process).expect("a folder");
        fs::write(process.join("comm"), PROCESS_NAME).expect("written");
        let status = format!("State:\tS (sleeping)\nUid:\t{user}\t{user}\t{user}\t{user}\nNSpid:\t77\n");
        fs::write(process.join("status"), status).expect("written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    const STATUS: &str = "Name:\tkubelet\nState:\tS (sleeping)\nUid:\t0\t0\t0\t0\nNSpid:\t812\n";

    #[test]
    fn only_a_live_process_of_our_namespace_and_user_counts() {
        assert!(is_live_and_beside_us(STATUS, 0));
        assert!(!is_live_and_beside_us(STATUS, 1000), "another user's");
        assert!(!is_live_and_beside_us(
            &STATUS.replace("S (sleeping)", "Z (zombie)"),
            0
        ));
        assert!(
            !is_live_and_beside_us(&STATUS.replace("812", "812\t1"), 0),
            "another node's"
        );
        assert!(!is_live_and_beside_us("", 0));
    }

    /// A process named kubelet that ends with the test.
    struct FakeKubelet {
        child: Child,
        _folder: tempfile::TempDir,
    }

    impl FakeKubelet {
        fn start(wrapper: &[&str]) -> FakeKubelet {
            let folder = tempfile::tempdir().expect("a folder");
            let program = folder.path().join(PROCESS_NAME);
            fs::copy("/bin/sleep", &program).expect("a copy of sleep");
            let mut words: Vec<String> = wrapper.iter().map(|word| (*word).to_owned()).collect();
            words.extend([program.display().to_string(), "600".to_owned()]);
            let child = Command::new(&words[0])
                .args(&words[1..])
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("a process");
            FakeKubelet {
                child,
                _folder: folder,
            }
        }

        /// The process that carries the name: the child, or what the wrapper started.
        fn named(&self) -> Option<u32> {
            let id = self.child.id();
            let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
            let candidates = children.split_whitespace().filter_map(|id| id.parse().ok());
            std::iter::once(id).chain(candidates).find(|id| {
                fs::read_to_string(format!("/proc/{id}/comm"))
                    .is_ok_and(|name| name.trim_end() == PROCESS_NAME)
            })
        }

        fn wait_until_named(&self) -> u32 {
            loop {
                match self.named() {
                    Some(id) => return id,
                    None => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        }
    }

    impl Drop for FakeKubelet {
        fn drop(&mut self) {
            if let Some(id) = self.named() {
                let id = nix::unistd::Pid::from_raw(id.try_into().expect("an id"));
                nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGKILL).expect("our process");
            }
            self.child.wait().expect("its end");
        }
    }

    #[test]
    fn a_process_named_kubelet_is_found_and_forgotten_when_it_ends() {
        let kubelet = FakeKubelet::start(&[]);
        let id = kubelet.wait_until_named();
        assert!(processes_named_kubelet(Path::new("/proc")).contains(&id));
        drop(kubelet);
        assert!(!processes_named_kubelet(Path::new("/proc")).contains(&id));
    }

    #[test]
    fn a_kubelet_in_a_pid_namespace_below_is_another_nodes() {
        let kubelet = FakeKubelet::start(&["unshare", "--user", "--map-root-user", "--pid", "--fork"]);
        let id = kubelet.wait_until_named();
        assert!(!processes_named_kubelet(Path::new("/proc")).contains(&id));
    }

    #[tokio::test]
    async fn the_health_port_must_answer_as_a_kubelet_does() {
        for (answer, is_kubelet) in [
            ("HTTP/1.0 200 OK\r\n\r\nok", true),
            ("HTTP/1.1 500 Internal Server Error\r\n\r\n", true),
            ("HTTP/1.1 404 Not Found\r\n\r\n", false),
            ("SSH-2.0-OpenSSH_9\r\n", false),
            ("", false),
        ] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
                .await
                .expect("a port");
            let address = listener.local_addr().expect("its address");
            let server = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.expect("a caller");
                let mut request = [0; 256];
                let length = stream.read(&mut request).await.expect("a request");
                assert!(request[..length].starts_with(b"GET /healthz HTTP/1."));
                stream.write_all(answer.as_bytes()).await.expect("an answer");
            });
            assert_eq!(health_port_answers(address).await, is_kubelet, "{answer}");
            server.await.expect("the server");
            assert!(!health_port_answers(address).await, "nobody listens any more");
        }
    }

    /// Answers `/healthz` at a port of its own until it is dropped. The socket is `user`'s: to change that takes the same
    /// right as to be that user.
    struct Listener {
        address: SocketAddr,
        serving: tokio::task::JoinHandle<()>,
    }

    impl Listener {
        async fn start(user: u32) -> Listener {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
                .await
                .expect("a port");
            nix::unistd::fchown(&listener, Some(nix::unistd::Uid::from_raw(user)), None)
                .expect("root gives it away");
            let address = listener.local_addr().expect("its address");
            let serving = tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let mut request = [0; 256];
                    let _ = stream.read(&mut request).await;
                    let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nok").await;
                }
            });
            Listener { address, serving }
        }

        async fn stop(self) {
            self.serving.abort();
            let ended = self.serving.await;
            assert!(ended.is_err_and(|error| error.is_cancelled()));
        }
    }

    #[tokio::test]
    async fn the_health_port_tells_whose_it_is() {
        let closed = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 1);
        for (user, expected) in [
            (ROOT, HealthPort::OfRoot),
            (1000, HealthPort::OfOther(Some(1000))),
        ] {
            let listener = Listener::start(user).await;
            let mut place = Place {
                health: [listener.address, closed],
                ..Place::default()
            };
            assert_eq!(health_port(&place).await, expected);
            place.proc = PathBuf::from("/nonexistent");
            let untold = HealthPort::OfOther(None);
            assert_eq!(health_port(&place).await, untold, "no table to look it up in");
            listener.stop().await;
            assert_eq!(health_port(&place).await, HealthPort::Silent);
        }
        let (unprivileged, root) = (Listener::start(1000).await, Listener::start(ROOT).await);
        let both = Place {
            health: [unprivileged.address, root.address],
            ..Place::default()
        };
        assert_eq!(health_port(&both).await, HealthPort::OfRoot);
    }
}
