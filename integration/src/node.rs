//! A private node: PID, mount, network, control group, UTS and IPC namespaces of its own, in which containerd,
//! a registry and the agent run with everything they keep in one folder. Its end, however it comes about,
//! takes every process, mount, network device, control group and file along.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use debuglet_proto::v1::{ImageSpec, ListImagesRequest, PullImageRequest, VersionRequest};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::agent::{Agent, AgentOptions};
use crate::containerd::{ContainerdVersion, network};
use crate::cri::Cri;
use crate::eventually::eventually;
use crate::images::{BUSYBOX, DISTROLESS, PAUSE};
use crate::namespaces::Namespaces;
use crate::parts;
use crate::process::{Output, Process};
use crate::proxy::Proxy;
use crate::terminal::{Terminal, set_size};

/// The variables that a process in a node has of the test's.
const ENVIRONMENT: [&str; 6] = ["PATH", "HOME", "LANG", "TERM", "RUST_BACKTRACE", "DEBUGLET_LOG"];

/// A private node with a running containerd and a registry on its 127.0.0.1:5000.
#[derive(Debug)]
pub struct Node {
    version: ContainerdVersion,
    place: Place,
    containerd: Mutex<Option<Process>>,
    _registry: Process,
}

/// The namespaces and the folder. Shared with what runs in them.
#[derive(Clone, Debug)]
pub(crate) struct Place(Arc<PlaceInner>);

#[derive(Debug)]
struct PlaceInner {
    folder: PathBuf,
    namespaces: Namespaces,
    /// The shell that runs outside.sh; holding its standard input open is what keeps the node alive.
    outside: Mutex<Child>,
    started: AtomicUsize,
}

impl Node {
    /// Makes a node, starts its containerd and registry, and pulls the images that every node has.
    pub async fn start(version: ContainerdVersion) -> Node {
        let place = Place::make();
        std::fs::create_dir(place.folder().join("cni")).unwrap();
        std::fs::write(place.folder().join("cni/pods.conflist"), network(place.folder())).unwrap();
        std::fs::write(
            place.folder().join("containerd.toml"),
            version.configuration(place.folder()),
        )
        .unwrap();
        let registry = start_registry(&place);
        let node = Node {
            version,
            place,
            containerd: Mutex::new(None),
            _registry: registry,
        };
        node.start_containerd().await;
        for image in [PAUSE, BUSYBOX, DISTROLESS] {
            node.pull(image).await;
        }
        node.tag(BUSYBOX, "docker.io/library/busybox:latest").await;
        node
    }

    /// Which containerd it runs.
    pub fn version(&self) -> ContainerdVersion {
        self.version
    }

    /// Its namespaces and folder, for what outlives a borrow of it.
    pub(crate) fn place(&self) -> Place {
        self.place.clone()
    }

    /// The folder that holds everything of this node.
    pub fn folder(&self) -> &Path {
        self.place.folder()
    }

    /// containerd's socket.
    pub fn runtime_socket(&self) -> PathBuf {
        self.folder().join("containerd.sock")
    }

    /// A bare CRI connection to containerd.
    pub fn cri(&self) -> Cri {
        Cri::connect_lazy(&self.runtime_socket())
    }

    /// Starts containerd, and waits until it answers.
    pub async fn start_containerd(&self) {
        let mut command = Command::new(self.version.program());
        command.arg("--config").arg(self.folder().join("containerd.toml"));
        let path = format!(
            "{}:{}:/usr/sbin:/usr/bin:/sbin:/bin",
            self.version.shims().display(),
            parts::debian("usr/sbin").display()
        );
        command.env("PATH", path);
        let process = self.place.spawn(quiet(command), "containerd");
        *self.containerd.lock().unwrap() = Some(process);
        eventually("containerd answers", async || {
            self.cri().runtime().version(VersionRequest::default()).await
        })
        .await;
    }

    /// Ends containerd as `kill -9` does; its containers go on.
    pub async fn kill_containerd(&self) {
        let process = self.containerd.lock().unwrap().take();
        process.expect("containerd runs").kill().await;
    }

    /// Ends containerd and every container as a loss of power does, with what they kept in memory only. Starts
    /// nothing again; an agent and a kubelet are to be killed before.
    pub async fn lose_power(&self) {
        self.kill_containerd().await;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/node/lose_power.sh");
        let [script, folder] = [&script, self.folder()].map(|path| path.to_str().unwrap());
        self.run(["sh", script, folder]).await.succeeded();
    }

    /// Pulls an image over CRI.
    pub async fn pull(&self, image: &str) {
        let image = ImageSpec {
            image: image.to_owned(),
            ..Default::default()
        };
        eventually("the registry serves the image", async || {
            let request = PullImageRequest {
                image: Some(image.clone()),
                ..Default::default()
            };
            self.cri().images().pull_image(request).await
        })
        .await;
    }

    /// Gives an image one more name, and waits until CRI knows it.
    pub async fn tag(&self, image: &str, name: &str) {
        self.ctr(["images", "tag", "--force", image, name])
            .await
            .succeeded();
        eventually("CRI lists the new name", async || {
            let listed = self
                .cri()
                .images()
                .list_images(ListImagesRequest::default())
                .await
                .unwrap()
                .into_inner();
            let names: Vec<String> = listed
                .images
                .into_iter()
                .flat_map(|image| image.repo_tags)
                .collect();
            if names.iter().any(|known| known == name) {
                Ok(())
            } else {
                Err(names)
            }
        })
        .await;
    }

    /// Makes an image of one program and no shell, named `name`: an archive for `ctr images import`.
    pub async fn pack_program(&self, archive: &Path, name: &str, program: &Path) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/node/one_program.sh");
        let [script, archive, program] = [&script, archive, program].map(|path| path.to_str().unwrap());
        self.run(["sh", script, archive, name, program]).await.succeeded();
    }

    /// Runs `ctr` in containerd's namespace of Kubernetes.
    pub async fn ctr<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Output {
        let mut command = Command::new(self.version.ctr());
        command
            .arg("--address")
            .arg(self.runtime_socket())
            .args(["--namespace", "k8s.io"])
            .args(arguments);
        self.place.spawn(quiet(command), "ctr").output().await
    }

    /// Runs `crictl`.
    pub async fn crictl<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Output {
        let mut command = Command::new(parts::built("kubernetes/crictl"));
        command
            // Its own is two seconds.
            .args(["--timeout", "60s"])
            .arg("--runtime-endpoint")
            .arg(format!("unix://{}", self.runtime_socket().display()))
            .args(arguments);
        self.place.spawn(quiet(command), "crictl").output().await
    }

    /// Runs any program in the node.
    pub async fn run<'a>(&self, command: impl IntoIterator<Item = &'a str>) -> Output {
        let mut words = command.into_iter();
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words);
        self.spawn(quiet(command)).output().await
    }

    /// Mounts a tmpfs of this size (`2m`) at a folder of the node's folder, as the node sees it: a small disk.
    pub async fn mount_memory(&self, folder: &str, size: &str) {
        let folder = self.folder().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        let size = format!("size={size}");
        let mount = [
            "mount",
            "-t",
            "tmpfs",
            "-o",
            &size,
            "memory",
            folder.to_str().unwrap(),
        ];
        self.run(mount).await.succeeded();
    }

    /// Mounts a file system at a folder that exists, whose server never answers. It ends with the process that is given
    /// back, beside the folder.
    pub async fn mount_dead_server(&self, folder: &Path) -> (Process, PathBuf) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/node/dead_server.py");
        let mut command = Command::new("/usr/bin/python3");
        command.arg(script).arg(folder);
        let server = self.spawn(quiet(command));
        eventually("the file system is mounted", async || {
            if server.stdout().contains("mounted") {
                Ok(())
            } else {
                Err((server.runs(), server.stderr()))
            }
        })
        .await;
        (server, folder.to_path_buf())
    }

    /// Starts any program in the node.
    pub fn spawn(&self, command: Command) -> Process {
        let name = Path::new(command.get_program())
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        self.place.spawn(command, &name)
    }

    /// Starts any program in the node, with standard output to a pipe of the caller's.
    pub fn spawn_with_stdout(&self, command: Command, stdout: std::io::PipeWriter) -> Process {
        self.place.spawn_with_stdout(command, "piped", stdout)
    }

    /// Connects to a port of the node's loopback.
    pub async fn connect(&self, port: u16) -> std::io::Result<TcpStream> {
        self.place.connect("127.0.0.1".to_owned(), port).await
    }

    /// Starts a proxy to containerd, whose socket an agent can be given for containerd's.
    pub async fn start_proxy(&self) -> Proxy {
        Proxy::start(&self.folder().join("proxy.sock"), &self.runtime_socket())
    }

    /// Starts the agent with its folders in the node's, and waits until it is ready.
    pub async fn start_agent(&self) -> Agent {
        self.start_agent_with(AgentOptions::default()).await
    }

    /// [`Node::start_agent`], not quite as usual.
    pub async fn start_agent_with(&self, options: AgentOptions) -> Agent {
        let agent = Agent::start(&self.place, &self.runtime_socket(), options);
        agent.ready().await;
        agent
    }

    /// [`Node::start_agent`], with a proxy in the place of containerd.
    pub async fn start_agent_behind(&self, proxy: &Proxy) -> Agent {
        self.start_agent_with(AgentOptions {
            runtime_socket: Some(proxy.socket().to_path_buf()),
            ..AgentOptions::default()
        })
        .await
    }

    /// Starts the agent without waiting for anything.
    pub fn launch_agent(&self, options: AgentOptions) -> Agent {
        Agent::start(&self.place, &self.runtime_socket(), options)
    }

    /// Writes a file of the manifests folder in one step, as `mv` does.
    pub fn write_manifest(&self, file: &str, pod: &Value) {
        self.write_manifest_text(file, &serde_json::to_string_pretty(pod).unwrap());
    }

    /// [`Node::write_manifest`], of any text.
    pub fn write_manifest_text(&self, file: &str, text: &str) {
        let folder = self.manifests();
        std::fs::create_dir_all(&folder).unwrap();
        let draft = self.folder().join("manifest-draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(&draft, folder.join(file)).unwrap();
    }

    /// Removes a file of the manifests folder.
    pub fn remove_manifest(&self, file: &str) {
        std::fs::remove_file(self.manifests().join(file)).unwrap();
    }

    /// The manifests folder of the node's agent.
    pub fn manifests(&self) -> PathBuf {
        self.folder().join("manifests")
    }

    /// Runs a `debuglet` command to its end, without a terminal and without input.
    pub async fn debuglet<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Output {
        self.spawn(self.debuglet_command(arguments)).output().await
    }

    /// A `debuglet` command that finds the node's agent, to be changed and given to [`Node::spawn`].
    pub fn debuglet_command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(parts::debuglet());
        command
            .args(arguments)
            .env("DEBUGLET_CONFIG", self.folder().join("debuglet.toml"));
        quiet(command)
    }

    /// Starts a `debuglet` command in a terminal of 80 columns and 24 rows.
    pub fn debuglet_in_terminal<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Terminal {
        self.terminal(&self.debuglet_command(arguments))
    }

    /// Starts a command in a terminal of 80 columns and 24 rows.
    pub fn terminal(&self, command: &Command) -> Terminal {
        let ends = nix::pty::openpty(None, None).unwrap();
        let device = nix::unistd::ttyname(&ends.slave)
            .unwrap()
            .to_string_lossy()
            .into_owned();
        set_size(&device, 80, 24);
        // setsid makes it the controlling terminal, which is what Ctrl-C and a change of size need.
        let mut session = Command::new("setsid");
        session
            .arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                session.env(name, value);
            }
        }
        session.env("TERM", "xterm");
        let far = || Stdio::from(ends.slave.try_clone().unwrap());
        session.stdin(far()).stdout(far()).stderr(far());
        let process = self.place.adopt("terminal", session);
        Terminal::new(process, ends.master.into(), device)
    }
}

impl Place {
    /// Makes the namespaces and the folder.
    fn make() -> Place {
        // Short, as the path of a socket may have 107 bytes.
        let folder = tempfile::Builder::new().prefix("node-").tempdir_in(parent());
        let folder = folder.unwrap().keep();
        std::fs::create_dir(folder.join("output")).unwrap();
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/node");
        let mut outside = Command::new("sh")
            .arg(scripts.join("outside.sh"))
            .arg(&folder)
            .arg(scripts.join("inside.sh"))
            .args(parts::needed_folders())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(outside.stdout.take().unwrap())
            .read_line(&mut said)
            .unwrap();
        let pid = said
            .strip_prefix("ready ")
            .unwrap_or_else(|| panic!("no private node; is this root? {said}"));
        let groups = std::fs::read_to_string(folder.join("cgroups")).unwrap();
        let groups = groups.split_whitespace().map(PathBuf::from).collect();
        let namespaces = Namespaces::enter(pid.trim().parse().unwrap(), groups);
        Place(Arc::new(PlaceInner {
            folder,
            namespaces,
            outside: Mutex::new(outside),
            started: AtomicUsize::new(0),
        }))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// Connects from inside the node.
    pub(crate) async fn connect(&self, host: String, port: u16) -> std::io::Result<TcpStream> {
        let place = self.clone();
        let connected = tokio::task::spawn_blocking(move || place.0.namespaces.connect(host, port));
        let stream = connected.await.expect("the node's thread runs")?;
        stream.set_nonblocking(true)?;
        // As every client library does: else a request of two pieces waits for an acknowledgement in between.
        stream.set_nodelay(true)?;
        TcpStream::from_std(stream)
    }

    /// Starts a process whose output goes to files.
    pub(crate) fn spawn(&self, mut command: Command, name: &str) -> Process {
        let (stdout, stderr) = self.output_files(name);
        command
            .stdout(std::fs::File::create(&stdout).unwrap())
            .stderr(std::fs::File::create(&stderr).unwrap());
        self.start(command, name, stdout, stderr)
    }

    /// Starts a process whose standard output goes to a pipe, and its errors to a file.
    pub(crate) fn spawn_with_stdout(
        &self,
        mut command: Command,
        name: &str,
        pipe: std::io::PipeWriter,
    ) -> Process {
        let (stdout, stderr) = self.output_files(name);
        command
            .stdout(pipe)
            .stderr(std::fs::File::create(&stderr).unwrap());
        self.start(command, name, stdout, stderr)
    }

    /// Starts a process whose output goes where the command says.
    pub(crate) fn adopt(&self, name: &str, command: Command) -> Process {
        let (stdout, stderr) = self.output_files(name);
        self.start(command, name, stdout, stderr)
    }

    /// Starts a process with the environment of the test, and with its standard streams where the command says no other.
    pub(crate) fn start_as_it_is(&self, command: Command) -> Process {
        let (stdout, stderr) = self.output_files("command");
        self.spawned(command, "command", stdout, stderr)
    }

    fn output_files(&self, name: &str) -> (PathBuf, PathBuf) {
        let number = self.0.started.fetch_add(1, Ordering::Relaxed);
        let file = |stream: &str| {
            self.folder()
                .join("output")
                .join(format!("{number}-{name}.{stream}"))
        };
        (file("stdout"), file("stderr"))
    }

    fn start(&self, mut command: Command, name: &str, stdout: PathBuf, stderr: PathBuf) -> Process {
        take_environment_away(&mut command);
        self.spawned(command, name, stdout, stderr)
    }

    fn spawned(&self, command: Command, name: &str, stdout: PathBuf, stderr: PathBuf) -> Process {
        let child = self
            .0
            .namespaces
            .spawn(command)
            .unwrap_or_else(|error| panic!("start {name}: {error}"));
        Process::adopt(name.to_owned(), child, stdout, stderr)
    }
}

impl Drop for PlaceInner {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show_logs(&self.folder);
        }
        let mut outside = self.outside.lock().unwrap();
        drop(outside.stdin.take());
        let _ = outside.wait();
    }
}

/// What the agent and containerd said last, for whoever reads why a test failed.
fn show_logs(folder: &Path) {
    let Ok(files) = folder.join("output").read_dir() else {
        return;
    };
    for path in files.flatten().map(|file| file.path()) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.ends_with("stderr") && (name.contains("agent") || name.contains("containerd")) {
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            eprintln!(
                "--- {name}\n{}",
                lines[lines.len().saturating_sub(60)..].join("\n")
            );
        }
    }
}

fn start_registry(place: &Place) -> Process {
    // Every node has the storage to itself: hard links, as nothing in it is ever changed in place.
    let storage = place.folder().join("registry");
    let copied = |how: &str| {
        Command::new("cp")
            .args([how, "--no-target-directory"])
            .arg(parts::built("registry/storage"))
            .arg(&storage)
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    };
    // The parts and the node may lie on different file systems, which share no files.
    assert!(
        copied("-al") || copied("-a"),
        "copy the registry's storage to {}",
        storage.display()
    );
    let mut command = Command::new("docker-registry");
    command
        .arg("serve")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("images/registry.yml"))
        .env("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", storage);
    place.spawn(quiet(command), "registry")
}

/// The folder for nodes' folders: the one for temporary files, unless a node covers that with its own (inside.sh).
fn parent() -> PathBuf {
    let folder = std::env::temp_dir();
    let covered = ["/run", "/var", "/etc"];
    match covered.iter().any(|covered| folder.starts_with(covered)) {
        true => PathBuf::from("/tmp"),
        false => folder,
    }
}

/// Leaves a command only what was set for it and [`ENVIRONMENT`]: the test's own tells where a cluster, a proxy or a
/// runtime of the machine's is.
fn take_environment_away(command: &mut Command) {
    let set: Vec<(OsString, OsString)> = command
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect();
    command.env_clear();
    for name in ENVIRONMENT {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.envs(set);
}

/// Without standard input.
fn quiet(mut command: Command) -> Command {
    command.stdin(Stdio::null());
    command
}
