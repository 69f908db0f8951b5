//! The agent's API on a TCP port of the test's loopback, for clients that know no Unix sockets.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::task::{AbortHandle, JoinSet};

use crate::agent::Agent;
use crate::parts;

/// Passes bytes on to the agent's socket until it is dropped.
#[derive(Debug)]
pub struct TcpFront {
    address: SocketAddr,
    accepting: AbortHandle,
}

impl TcpFront {
    /// A port for the API of `agent`, or of the agent that takes its place.
    pub async fn start(agent: &Agent) -> TcpFront {
        let socket = agent.api().socket().to_path_buf();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = tokio::spawn(accept(listener, socket)).abort_handle();
        TcpFront { address, accepting }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// kubectl of one of the versions in the parts' folder (`kubernetes`, `kubectl-1.20`) with its words.
    pub fn kubectl(&self, version: &str, words: &[&str]) -> Command {
        let mut command = Command::new(parts::built(version).join("kubectl"));
        command
            .args(["--server", &self.url(), "--cache-dir=/nonexistent"])
            .args(words)
            .env("KUBECONFIG", "/dev/null")
            // Somebody's own aliases and defaults (.kube/kuberc) are none of a test's.
            .env("HOME", "/nonexistent")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Starts a command whose output is to be read as it comes.
    pub fn spawn(mut command: Command) -> Child {
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

impl Drop for TcpFront {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, socket: PathBuf) {
    // Dropped with this task: so no connection outlives the front.
    let mut connections = JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        let socket = socket.clone();
        connections.spawn(async move {
            if let Ok(mut agent) = UnixStream::connect(socket).await {
                let _ = copy_bidirectional(&mut client, &mut agent).await;
            }
        });
    }
}
