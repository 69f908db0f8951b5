//! `integration/setup` where Debian's containerd cannot be installed, and beside others who use its parts. Its functions
//! run with stand-ins for apt and dpkg, which fetch packages that the test has made.

// clippy.toml's allowance covers the tests, not the functions beside them.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

/// The fake apt-get: what it is called with is written to `calls`. Nothing can be installed, and nothing is fetched
/// before the list of packages was.
const APT_GET: &str = r#"#!/bin/sh
echo "$*" >>"$FAKES/calls"
case "$*" in
*update*) touch "$FAKES/updated" ;;
*install*) exit 100 ;;
*download*) [ -e "$FAKES/updated" ] && cp "$FAKES"/debs/*.deb . ;;
esac
"#;

/// A cache of its own, and programs that stand in for the machine's.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Machine {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine { folder };
        let fakes = machine.fakes();
        for folder in ["debs", "package/DEBIAN", "package/usr/bin"] {
            fs::create_dir_all(fakes.join(folder)).unwrap();
        }
        // Nothing is installed.
        for (name, text) in [("apt-get", APT_GET), ("dpkg-query", "#!/bin/sh\nexit 1\n")] {
            let program = fakes.join(name);
            fs::write(&program, text).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(fakes.join("package/usr/bin/containerd"), "").unwrap();
        let control =
            "Package: containerd\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: none\n";
        fs::write(fakes.join("package/DEBIAN/control"), control).unwrap();
        let built = Command::new("dpkg-deb")
            .arg("--build")
            .arg(fakes.join("package"))
            .arg(fakes.join("debs/containerd.deb"))
            .output()
            .unwrap();
        assert!(built.status.success(), "{built:?}");
        machine
    }

    fn fakes(&self) -> PathBuf {
        self.folder.path().join("fakes")
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn containerd(&self) -> PathBuf {
        self.cache().join("debian/usr/bin/containerd")
    }

    /// Starts one function of the script.
    fn start(&self, function: &str) -> Child {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("setup");
        let text = fs::read_to_string(&script).unwrap();
        let (functions, _) = text.split_once("\ncommon=").unwrap();
        let path = format!("{}:{}", self.fakes().display(), std::env::var("PATH").unwrap());
        Command::new("sh")
            .args(["-euc", &format!("{functions}\n{function}")])
            .arg(script)
            .env("PATH", path)
            .env("FAKES", self.fakes())
            .env("DEBUGLET_CACHE", self.cache())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn calls(&self, word: &str) -> usize {
        let calls = fs::read_to_string(self.fakes().join("calls")).unwrap_or_default();
        calls.lines().filter(|call| call.contains(word)).count()
    }
}

fn ended(child: Child) -> Output {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

#[test]
fn what_cannot_be_installed_is_unpacked_once() {
    let machine = Machine::new();
    ended(machine.start("runtime"));
    assert!(machine.containerd().is_file());
    ended(machine.start("runtime"));
    assert_eq!(machine.calls("download"), 1);
    assert_eq!(machine.calls("install -y"), 0, "nothing of the machine changes");
}

#[test]
fn the_list_of_packages_is_fetched_where_nobody_has() {
    let machine = Machine::new();
    let folder = machine.folder.path().join("unpacked");
    ended(machine.start(&format!("unpack {} containerd", folder.display())));
    assert!(folder.join("usr/bin/containerd").is_file());
    assert_eq!((machine.calls("update"), machine.calls("download")), (1, 2));
}

#[test]
fn parts_are_replaced_when_nobody_uses_them_and_by_one_run_alone() {
    let machine = Machine::new();
    fs::create_dir_all(machine.cache()).unwrap();
    // As a test holds it (src/parts.rs).
    let in_use = File::open(machine.cache()).unwrap();
    in_use.lock_shared().unwrap();
    let runs = [machine.start("runtime"), machine.start("runtime")];
    while machine.calls("--simulate") < 2 {
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_millis(300));
    assert!(!machine.containerd().exists(), "it waits");
    drop(in_use);
    for run in runs {
        let told = String::from_utf8(ended(run).stderr).unwrap();
        assert!(told.contains("waiting for those who use"), "{told}");
    }
    assert!(machine.containerd().is_file());
    assert_eq!(
        machine.calls("download"),
        1,
        "the second finds what the first has made"
    );
}
