//! The private node itself: what it gives, and that nothing of it stays behind.

use std::path::{Path, PathBuf};

use integration::{BusyMachine, ContainerdVersion, DISTROLESS, Node, needed_folders};

on_both_versions!(
    its_end_takes_everything_along,
    commands_run_in_its_namespaces,
    it_has_nothing_that_the_machine_runs_or_is_set_up_for,
);

async fn its_end_takes_everything_along(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let ctr = node
        .ctr([
            "run",
            "--detach",
            "--cgroup",
            "/kubepods/leftover",
            DISTROLESS,
            "leftover",
        ])
        .await;
    ctr.succeeded();
    let folder = node.folder().to_path_buf();
    let mark = folder.to_string_lossy().into_owned();
    let groups = control_groups(&folder);
    assert!(!groups.is_empty() && groups.iter().all(|group| group.exists()));
    assert!(
        processes_that_mention(&mark).len() >= 2,
        "containerd and its shim run"
    );

    drop(node);

    assert_eq!(processes_that_mention(&mark), Vec::<String>::new());
    assert!(!folder.exists());
    assert!(groups.iter().all(|group| !group.exists()), "{groups:?}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&mark));
}

async fn commands_run_in_its_namespaces(version: ContainerdVersion) {
    let node = Node::start(version).await;

    let shown = node
        .run(["ip", "-brief", "address", "show", "dev", "eth0"])
        .await
        .succeeded();
    assert!(shown.stdout.contains("10.88.0.1/24"), "{shown:?}");
    assert_eq!(node.run(["hostname"]).await.stdout, "node1\n");
    assert_eq!(node.run(["sh", "-c", "exit 3"]).await.code, 3);
    let version = node.crictl(["version"]).await.succeeded();
    assert!(version.stdout.contains("RuntimeName:  containerd"), "{version:?}");
}

async fn it_has_nothing_that_the_machine_runs_or_is_set_up_for(version: ContainerdVersion) {
    let node = Node::start(version).await;

    let folders = "ls -d /run/netns/* /run/docker* /run/debuglet /var/lib/kubelet /var/lib/docker /var/log/pods \
        /etc/kubernetes /etc/crictl.yaml /etc/containerd /etc/debuglet";
    let found = node.run(["sh", "-c", folders]).await;
    assert_eq!(found.stdout, "");
    // What is mounted is to be reached where it is said to be.
    let mounts = "cut -d' ' -f5 /proc/self/mountinfo | grep -E '^/(run|var|etc)/'";
    let found = node.run(["sh", "-c", mounts]).await;
    let needed = needed_folders();
    let is_needed = |mount: &&str| needed.iter().any(|folder| Path::new(mount).starts_with(folder));
    let found: Vec<&str> = found.stdout.lines().filter(|mount| !is_needed(mount)).collect();
    assert_eq!(found, Vec::<&str>::new());
    let found = node.run(["env"]).await.succeeded();
    let of_the_machine = ["KUBE", "CONTAINER", "_PROXY", "NOTIFY_SOCKET"];
    assert!(
        !of_the_machine.iter().any(|name| found.stdout.contains(name)),
        "{found:?}"
    );
    let taken = [5000, 10248, 10250, 10260, 6443, 2379].map(|port| node.connect(port));
    let answers = futures_util::future::join_all(taken).await;
    let open: Vec<bool> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(
        open,
        [true, false, false, false, false, false],
        "the registry alone"
    );
}

/// Tests that once failed on machines with other work to do, or look at what such a machine has.
const ON_A_BUSY_MACHINE: [&str; 6] = [
    "private_node::on_containerd_1_6::it_has_nothing_that_the_machine_runs_or_is_set_up_for",
    "private_node::on_containerd_2_4::its_end_takes_everything_along",
    "kubelet_life::on_containerd_1_6::\
     after_a_loss_of_power_the_static_pod_comes_back_and_its_debug_containers_do_not",
    "kubelet_life::on_containerd_2_4::\
     after_a_loss_of_power_the_static_pod_comes_back_and_its_debug_containers_do_not",
    "discovery::on_containerd_1_6::a_pod_of_crictl_is_found_debugged_and_goes_with_its_sandbox",
    "command_line::on_containerd_2_4::ps_and_describe_show_debug_containers",
];

/// Tests that run the program under test and the parts in a node.
const ON_ITS_MOUNTS: [&str; 2] = [
    "private_node::on_containerd_2_4::it_has_nothing_that_the_machine_runs_or_is_set_up_for",
    "command_line::on_containerd_2_4::ps_and_describe_show_debug_containers",
];

#[tokio::test(flavor = "multi_thread")]
async fn on_a_machine_with_other_work_to_do_tests_see_an_empty_one() {
    if BusyMachine::is_here() {
        // `integration/busy-machine` runs the tests: these are among them.
        return;
    }
    let program = std::env::current_exe().unwrap();
    let listed = std::process::Command::new(&program)
        .arg("--list")
        .output()
        .unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let unknown = |name: &&&str| !listed.contains(&format!("{name}: test"));
    assert_eq!(
        ON_A_BUSY_MACHINE.iter().chain(&ON_ITS_MOUNTS).find(unknown),
        None,
        "a test of another name"
    );

    let machine = BusyMachine::start().await;
    let mut tests = std::process::Command::new(program);
    tests
        .args(["--exact", "--test-threads=1"])
        .args(ON_A_BUSY_MACHINE)
        .stdin(std::process::Stdio::null());

    assert_eq!(machine.run(tests).await, 0, "what failed is told above");

    // Once more from a checkout and parts that are mounts of the machine's own, where a node has its own folders.
    let mut tests = BusyMachine::from_its_mounts(&std::env::current_exe().unwrap());
    tests
        .args(["--exact", "--test-threads=1"])
        .args(ON_ITS_MOUNTS)
        .stdin(std::process::Stdio::null());
    assert_eq!(machine.run(tests).await, 0, "what failed is told above");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_test_leaves_nothing_behind() {
    // The part of a test that is killed: it makes a node, says where, and sleeps.
    if let Some(report) = std::env::var_os("DEBUGLET_TEST_TO_BE_KILLED") {
        let node = Node::start(ContainerdVersion::V1_6).await;
        std::fs::write(report, node.folder().to_str().unwrap()).unwrap();
        std::future::pending::<()>().await;
    }
    let report = tempfile::NamedTempFile::new().unwrap();
    let mut test = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "private_node::a_killed_test_leaves_nothing_behind"])
        .env("DEBUGLET_TEST_TO_BE_KILLED", report.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let folder = integration::eventually("the other test has its node", async || {
        let folder = std::fs::read_to_string(report.path()).unwrap();
        if folder.is_empty() {
            Err("nothing yet")
        } else {
            Ok(PathBuf::from(folder))
        }
    })
    .await;
    let groups = control_groups(&folder);

    test.kill().unwrap();
    test.wait().unwrap();

    integration::eventually("everything of the node is gone", async || {
        let left = processes_that_mention(&folder.to_string_lossy());
        let groups: Vec<_> = groups.iter().filter(|group| group.exists()).collect();
        if left.is_empty() && groups.is_empty() && !folder.exists() {
            Ok(())
        } else {
            Err((left, groups.len()))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_types_shows_and_changes_its_size() {
    let node = Node::start(ContainerdVersion::V1_6).await;
    let mut command = std::process::Command::new("sh");
    command.args([
        "-c",
        "trap 'stty size' WINCH; stty size; while ! read line; do :; done; echo got $line; exit 4",
    ]);

    let mut terminal = node.terminal(&command);
    terminal.shows("24 80").await;
    terminal.resize(100, 30);
    terminal.shows("30 100").await;
    terminal.type_in("words\r");
    terminal.shows("got words").await;

    assert_eq!(terminal.process().ended().await, 4);
}

/// The node's control groups, as its folder lists them.
fn control_groups(folder: &Path) -> Vec<PathBuf> {
    let groups = std::fs::read_to_string(folder.join("cgroups")).unwrap();
    groups.split_whitespace().map(PathBuf::from).collect()
}

/// The command lines, of every process on the machine, in which the text occurs.
fn processes_that_mention(text: &str) -> Vec<String> {
    let command_line = |entry: std::io::Result<std::fs::DirEntry>| {
        let bytes = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&bytes).replace('\0', " "))
    };
    let all = std::fs::read_dir("/proc").unwrap().filter_map(command_line);
    all.filter(|line| line.contains(text)).collect()
}
