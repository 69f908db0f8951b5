//! The agent under test, in a private node.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::api::Api;
use crate::eventually::eventually;
use crate::node::Place;
use crate::parts;
use crate::process::Process;

/// Where an agent listens with TLS, unless it is configured otherwise.
const PORT: u16 = 10260;

/// How an agent is started, where it is not as usual.
#[derive(Clone, Debug, Default)]
pub struct AgentOptions {
    /// Another socket than containerd's own, such as a proxy's.
    pub runtime_socket: Option<PathBuf>,
    /// A program and its first arguments that run the agent, such as a tracer.
    pub under: Vec<String>,
    /// Lines for the configuration file, above its tables.
    pub configuration: String,
}

/// A running agent. Killed when dropped; its containers go on.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    api: Api,
    place: Place,
}

impl Agent {
    /// Writes the node's configuration file and starts `debuglet agent` on it.
    pub(crate) fn start(place: &Place, containerd: &Path, options: AgentOptions) -> Agent {
        let folder = place.folder();
        let file = folder.join("debuglet.toml");
        let runtime = options.runtime_socket.as_deref().unwrap_or(containerd);
        std::fs::write(&file, configuration(folder, runtime, &options.configuration)).unwrap();

        let words = options
            .under
            .into_iter()
            .chain([parts::debuglet().to_string_lossy().into_owned()]);
        let mut words = words.chain(["agent".to_owned(), "--config".to_owned()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).arg(file).stdin(Stdio::null());
        let process = place.spawn(command, "agent");
        Agent {
            process,
            api: Api::new(&folder.join("run/debuglet.sock")),
            place: place.clone(),
        }
    }

    /// Its API.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// The kubeconfig that it writes for root, once whom it names can be reached.
    pub async fn kubeconfig(&self) -> PathBuf {
        let file = self.place.folder().join("run/kubeconfig");
        eventually("the kubeconfig names who listens", async || {
            std::fs::metadata(&file)?;
            self.place.connect("127.0.0.1".to_owned(), PORT).await
        })
        .await;
        file
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Waits until it answers.
    pub async fn ready(&self) {
        eventually("the agent answers", async || {
            assert!(self.process.runs(), "the agent ended:\n{}", self.log());
            match self.api.try_get("/livez").await {
                Ok(answer) if answer.status == 200 => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }

    /// Everything it has logged so far.
    pub fn log(&self) -> String {
        format!("{}{}", self.process.stdout(), self.process.stderr())
    }

    /// Ends it as `kill -9` does.
    pub async fn kill(self) {
        self.process.kill().await;
    }

    /// Asks it to stop, and gives back its exit code.
    pub async fn stop(self) -> i32 {
        self.process.signal(Signal::SIGTERM);
        self.process.ended().await
    }

    /// How much memory it keeps resident, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.process.resident_bytes()
    }
}

fn configuration(folder: &Path, runtime: &Path, more: &str) -> String {
    let (folder, runtime) = (folder.display(), runtime.display());
    format!(
        r#"node_name = "node1"
runtime_endpoint = "unix://{runtime}"
state_dir = "{folder}/state"
run_dir = "{folder}/run"
log_dir = "{folder}/logs"
{more}
[manifests]
path = "{folder}/manifests"
[registry]
auth_file = "{folder}/registry-auth.json"
"#
    )
}
