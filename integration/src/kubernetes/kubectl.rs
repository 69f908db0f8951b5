//! The real kubectl, in a private node.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::node::Node;
use crate::parts;
use crate::process::{Output, Process};
use crate::terminal::Terminal;

/// Which kubectl.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KubectlVersion {
    /// 1.20, which knows ephemeral containers in their alpha form only.
    V1_20,
    /// 1.36, of today.
    V1_36,
}

impl KubectlVersion {
    fn program(self) -> PathBuf {
        match self {
            KubectlVersion::V1_20 => parts::built("kubectl-1.20/kubectl"),
            KubectlVersion::V1_36 => parts::built("kubernetes/kubectl"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            KubectlVersion::V1_20 => "1.20",
            KubectlVersion::V1_36 => "1.36",
        }
    }
}

/// kubectl with a kubeconfig, and with a home folder of its own, as it keeps what it has discovered there.
#[derive(Clone, Debug)]
pub struct Kubectl<'a> {
    node: &'a Node,
    program: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl<'a> Kubectl<'a> {
    /// The kubectl of a version that runs in `node` and speaks to whom `kubeconfig` names.
    pub fn new(node: &'a Node, version: KubectlVersion, kubeconfig: &Path) -> Kubectl<'a> {
        let server = kubeconfig.parent().unwrap().file_name().unwrap();
        let home = format!("home-{}-{}", version.name(), server.to_string_lossy());
        let home = node.folder().join(home);
        std::fs::create_dir_all(&home).unwrap();
        Kubectl {
            node,
            program: version.program(),
            kubeconfig: kubeconfig.to_path_buf(),
            home,
        }
    }

    /// The node it runs in.
    pub fn node(&self) -> &'a Node {
        self.node
    }

    /// Its home folder, for files that commands are to read and write.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Runs a command to its end, without a terminal and without input.
    pub async fn run<'b>(&self, arguments: impl IntoIterator<Item = &'b str>) -> Output {
        self.spawn(arguments).output().await
    }

    /// [`Kubectl::run`], with input that then ends.
    pub async fn run_with_input<'b>(
        &self,
        arguments: impl IntoIterator<Item = &'b str>,
        input: &[u8],
    ) -> Output {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped());
        let mut process = self.node.spawn(command);
        let mut stdin = process.stdin().unwrap();
        let input = input.to_vec();
        // A thread, as the pipe may fill; a command that ends early leaves it broken.
        std::thread::spawn(move || {
            let _ = stdin.write_all(&input);
        });
        process.output().await
    }

    /// Starts a command without a terminal and without input.
    pub fn spawn<'b>(&self, arguments: impl IntoIterator<Item = &'b str>) -> Process {
        self.node.spawn(self.command(arguments))
    }

    /// Starts a command in a terminal of 80 columns and 24 rows.
    pub fn terminal<'b>(&self, arguments: impl IntoIterator<Item = &'b str>) -> Terminal {
        self.node.terminal(&self.command(arguments))
    }

    /// Writes a file beside its others, and gives back its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.home.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_string_lossy().into_owned()
    }

    /// A command to be changed and given to [`Node::spawn`].
    pub fn command<'b>(&self, arguments: impl IntoIterator<Item = &'b str>) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("HOME", &self.home)
            // Where an edit that was refused is left.
            .env("TMPDIR", &self.home)
            .env("KUBECONFIG", &self.kubeconfig)
            .current_dir(&self.home)
            .stdin(Stdio::null());
        command
    }
}
