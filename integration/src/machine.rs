//! A Debian with systemd and containerd that was really booted, inside a private node: as near as a machine of tests
//! comes to a node of kind.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::containerd::ContainerdVersion;
use crate::eventually::eventually;
use crate::node::Node;
use crate::process::{Output, Process};

const CONTAINERD_CONFIGURATION: &str = r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "127.0.0.1:5000/pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
"#;

/// A Debian that was booted inside a private node, and ends with it.
#[derive(Debug)]
pub struct Machine {
    /// Its first process, as the test sees it.
    leader: i32,
    _nspawn: Process,
}

/// The files of a machine that is to boot: a layer on top of the Debian's own.
#[derive(Debug)]
pub struct Files(PathBuf);

impl Files {
    /// Makes the layer, with what containerd needs in it.
    pub fn of(node: &Node, hostname: &str) -> Files {
        let files = Files(node.folder().join("machine/files"));
        files.write("etc/containerd/config.toml", CONTAINERD_CONFIGURATION);
        let network = node.folder().join("cni/pods.conflist");
        files.copy(&network, "etc/cni/net.d/pods.conflist");
        files.write("etc/hostname", &format!("{hostname}\n"));
        files
    }

    /// Where a file of the machine is until it boots; its folder is made.
    pub fn at(&self, path: &str) -> PathBuf {
        let path = self.0.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// Writes a file.
    pub fn write(&self, path: &str, text: &str) {
        std::fs::write(self.at(path), text).unwrap();
    }

    /// Copies a file or a program.
    pub fn copy(&self, from: &Path, path: &str) {
        std::fs::copy(from, self.at(path)).unwrap();
    }

    /// Puts another containerd in the place of the Debian's own.
    pub fn containerd(&self, version: ContainerdVersion) {
        let folder = version.shims();
        for program in ["containerd", "containerd-shim-runc-v2", "ctr"] {
            self.copy(&folder.join(program), &format!("usr/bin/{program}"));
        }
    }

    /// Writes a unit of systemd that starts when the machine boots.
    pub fn enable(&self, name: &str, unit: &str) {
        let path = format!("etc/systemd/system/{name}");
        self.write(&path, unit);
        let wanted = self.at(&format!("etc/systemd/system/multi-user.target.wants/{name}"));
        std::os::unix::fs::symlink(format!("/{path}"), wanted).unwrap();
    }
}

impl Machine {
    /// Boots a Debian with containerd and these files.
    pub async fn boot(node: &Node, files: &Files) -> Machine {
        let layers = node.folder().join("machine");
        let (files, root) = (&files.0, layers.join("root"));
        for folder in [&root, &layers.join("work")] {
            std::fs::create_dir_all(folder).unwrap();
        }
        let on_disk = |name: &str| {
            let folder = layers.join(name);
            std::fs::create_dir_all(&folder).unwrap();
            format!("--bind={}:/var/lib/{name}", folder.display())
        };
        let base = base();
        let (base, work) = (base.display(), layers.join("work"));
        let options = format!(
            "lowerdir={base},upperdir={},workdir={}",
            files.display(),
            work.display()
        );
        let root = root.to_str().unwrap();
        node.run(["mount", "-t", "overlay", "-o", &options, "overlay", root])
            .await
            .succeeded();

        let mut nspawn = Command::new("systemd-nspawn");
        nspawn
            .args([
                "--directory",
                root,
                "--boot",
                "--register=no",
                "--keep-unit",
                "--capability=all",
            ])
            // runc makes a keyring for each session.
            .arg("--system-call-filter=add_key keyctl request_key bpf")
            .arg("--bind=/sys/fs/cgroup")
            // containerd's own layers cannot lie on a layered file system, and a kubelet wants to know its disk.
            .arg(on_disk("containerd"))
            .arg(on_disk("kubelet"))
            // Where a kubelet reads of processes that the kernel killed.
            .arg("--bind=/dev/kmsg")
            // The network plugins switch forwarding on, in a network namespace that is the node's; a kubelet looks after
            // a few settings of the kernel, as in every private node.
            .env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "yes")
            .stdin(Stdio::null());
        let nspawn = node.spawn(nspawn);
        let pid = nspawn.pid();
        // Other processes come and go before it while the machine is set up.
        let leader = eventually("the machine has a first process", async || {
            let children = format!("/proc/{pid}/task/{pid}/children");
            let children = std::fs::read_to_string(children).unwrap_or_default();
            let mut ids = children.split_whitespace().filter_map(|id| id.parse().ok());
            ids.find(|id| is_systemd(*id)).ok_or_else(|| nspawn.stderr())
        })
        .await;
        let machine = Machine {
            leader,
            _nspawn: nspawn,
        };
        eventually("the machine has booted", async || {
            match machine.run(["systemctl", "is-system-running"]) {
                booted if booted.code == 0 => Ok(()),
                other => Err((other, machine.run(["systemctl", "--failed", "--no-pager"]))),
            }
        })
        .await;
        machine
    }

    /// Runs a command in the machine to its end.
    pub fn run<'a>(&self, command: impl IntoIterator<Item = &'a str>) -> Output {
        let mut way_in = self.way_in().into_iter();
        let output = Command::new(way_in.next().unwrap())
            .args(way_in)
            .args(command)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The first words of a command that runs the rest of it in the machine.
    pub fn way_in(&self) -> Vec<String> {
        let leader = self.leader.to_string();
        let words = [
            "nsenter", "--target", &leader, "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--",
        ];
        words.map(str::to_owned).to_vec()
    }
}

/// Whether the process is a systemd.
fn is_systemd(id: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| name.trim_end() == "systemd")
}

/// The Debian that a machine is made of.
fn base() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/root");
    let made = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
    assert!(made.status.success(), "no Debian to boot");
    PathBuf::from(String::from_utf8(made.stdout).unwrap().trim())
}
