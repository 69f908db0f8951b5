//! Every command that README.md shows in a `console` block, run in its order on a node with the README's own pod, and
//! held against the output that it shows there.
// clippy.toml's allowance covers the tests, not the functions beside them.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use integration::kubernetes::{Kubectl, KubectlVersion};
use integration::{BUSYBOX, ContainerdVersion, Node, Output, Process, eventually, is_running};

/// What stands for anything in an output that is shown.
const ANYTHING: &str = "...";
/// What stands before what is typed into a debug container's shell.
const SHELL_PROMPT: &str = "/ # ";
/// What a command begins with that sets a variable for those after it.
const EXPORT: &str = "export ";
/// What a command ends with that goes on while those after it run.
const GOES_ON: &str = " &";

/// A command of the README.
#[derive(Debug, Default, PartialEq, Eq)]
struct Step {
    command: String,
    /// What is typed once it runs, in a terminal.
    typed: Vec<String>,
    /// The output that is shown below it.
    shown: Vec<String>,
}

/// The fenced blocks of this language, in order.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    text.split(fence.as_str())
        .skip(1)
        .filter_map(|rest| rest.split("\n```").next())
        .collect()
}

/// The commands of a `console` block.
fn steps(block: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in block.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step {
                command: command.to_owned(),
                ..Step::default()
            });
            continue;
        }
        let step = steps.last_mut().expect("a block begins with a command");
        match line.strip_prefix(SHELL_PROMPT) {
            Some(typed) => step.typed.push(typed.to_owned()),
            None => step.shown.push(line.to_owned()),
        }
    }
    steps
}

/// Whether an output is the one that is shown, where columns may have other widths.
fn is_as_shown(shown: &[String], output: &str) -> bool {
    let shown = plain(shown.iter().map(String::as_str));
    let output = plain(output.lines());
    let mut parts = shown.split(ANYTHING);
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = output.strip_prefix(first) else {
        return false;
    };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.is_empty()
}

/// The lines with one blank between two words.
fn plain<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let lines = lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("\n")
}

/// What a person's shell has, from one command to the next.
struct Shell<'a> {
    node: &'a Node,
    /// The folder that is first in the path.
    programs: PathBuf,
    /// Where the README's own files are.
    folder: PathBuf,
    /// Every variable that was set, as commands.
    exports: String,
    /// What goes on.
    going_on: Vec<Process>,
}

impl Shell<'_> {
    /// Runs a step as a person does, and holds it against what is shown.
    async fn run(&mut self, step: &Step) {
        if step.command.starts_with(EXPORT) {
            assert!(step.shown.is_empty(), "{}: nothing to show", step.command);
            self.exports += &format!("{}; ", step.command);
        } else if let Some(command) = step.command.strip_suffix(GOES_ON) {
            let process = self.start(&format!("exec {command} 2>&1 </dev/null"));
            eventually(command, async || {
                let text = process.stdout();
                if is_as_shown(&step.shown, &text) {
                    Ok(())
                } else {
                    Err(text)
                }
            })
            .await;
            self.going_on.push(process);
        } else {
            self.run_to_its_end(step).await;
        }
    }

    async fn run_to_its_end(&self, step: &Step) {
        // stderr is with stdout, as on a screen.
        let line = if step.typed.is_empty() {
            format!("{{ {}; }} 2>&1 </dev/null", step.command)
        } else {
            // A terminal, whose echo of what is typed is not of interest.
            let typed = step.typed.join("\\n");
            format!(
                "printf '{typed}\\n' | script --quiet --return --echo never --command '{}' /dev/null",
                step.command
            )
        };
        let Output { code, stdout, stderr } = self.start(&line).output().await;
        let text = format!("{stdout}{stderr}");
        assert_eq!(code, 0, "{}:\n{text}", step.command);
        assert!(
            is_as_shown(&step.shown, &text),
            "{}:\n{text}\nis not:\n{}",
            step.command,
            step.shown.join("\n")
        );
    }

    fn start(&self, line: &str) -> Process {
        let mut command = Command::new("sh");
        let path = format!("{}:{}", self.programs.display(), std::env::var("PATH").unwrap());
        command
            .args(["-c", &format!("{}{line}", self.exports)])
            .env("PATH", path)
            .env("HOME", &self.folder)
            .env("DEBUGLET_CONFIG", self.node.folder().join("debuglet.toml"))
            .current_dir(&self.folder)
            .stdin(Stdio::null());
        self.node.spawn(command)
    }
}

/// A folder with the programs that the README names: those under test, and what a person's machine has.
fn programs(node: &Node, kubectl: &Path) -> PathBuf {
    let programs = node.folder().join("programs");
    std::fs::create_dir(&programs).unwrap();
    symlink(node.debuglet_command([]).get_program(), programs.join("debuglet")).unwrap();
    symlink(kubectl, programs.join("kubectl")).unwrap();
    symlink("/bin/busybox", programs.join("wget")).unwrap();
    std::fs::write(programs.join("sudo"), "#!/bin/sh\nexec \"$@\"\n").unwrap();
    std::fs::set_permissions(programs.join("sudo"), std::fs::Permissions::from_mode(0o755)).unwrap();
    programs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_readme_shows_is_what_happens() {
    let readme = include_str!("../../README.md");
    let node = Node::start(ContainerdVersion::V2_4).await;
    node.tag(BUSYBOX, "docker.io/library/busybox:1.37").await;
    let ([manifest], [containers]) = (&blocks(readme, "yaml")[..], &blocks(readme, "json")[..]) else {
        panic!("the README shows one manifest, and one list of ephemeral containers")
    };
    node.write_manifest_text("web.yaml", manifest);
    let agent = node.start_agent().await;
    agent.api().pod_until("default", "web", is_running).await;
    let kubeconfig = agent.kubeconfig().await;
    // The node has a /run of its own, so that paths can be as the README has them.
    let run_dir = kubeconfig.parent().unwrap().to_string_lossy().into_owned();
    node.run(["ln", "-s", &run_dir, "/run/debuglet"])
        .await
        .succeeded();

    let kubectl = Kubectl::new(&node, KubectlVersion::V1_36, &kubeconfig);
    std::fs::write(kubectl.home().join("ec.json"), containers).unwrap();
    let mut shell = Shell {
        node: &node,
        programs: programs(&node, Path::new(kubectl.command([]).get_program())),
        folder: kubectl.home().to_path_buf(),
        exports: String::new(),
        going_on: Vec::new(),
    };
    let all: Vec<Step> = blocks(readme, "console").into_iter().flat_map(steps).collect();
    assert!(!all.is_empty());
    for step in &all {
        shell.run(step).await;
    }
}

#[test]
fn an_output_is_as_shown_but_for_widths_and_dots() {
    let shown = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(is_as_shown(&shown("A  B\n1 ..."), "A       B\n1       2"));
    assert!(is_as_shown(&shown("...\nlast"), "one\ntwo\nlast\n"));
    assert!(is_as_shown(&shown("..."), ""));
    assert!(!is_as_shown(&shown("A\n..."), "B\nA\n"));
    assert!(!is_as_shown(&shown("A"), "A\nB"));
}

#[test]
fn a_console_block_is_commands_with_what_is_typed_and_shown() {
    let found = steps("$ a\none\n$ b -it\n/ # exit\n...");
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        found[0],
        Step {
            command: "a".into(),
            typed: vec![],
            shown: owned(&["one"])
        }
    );
    assert_eq!(
        found[1],
        Step {
            command: "b -it".into(),
            typed: owned(&["exit"]),
            shown: owned(&["..."])
        }
    );
}
