//! Every command that README.md shows in a `console` block, run in its order on a node with the README's own pod, and
//! held against the output that it shows there.
// clippy.toml's allowance covers the tests, not the functions beside them.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use integration::{BUSYBOX, ContainerdVersion, Node, Output, is_running};

/// What stands for anything in an output that is shown.
const ANYTHING: &str = "...";
/// What stands before what is typed into a debug container's shell.
const SHELL_PROMPT: &str = "/ # ";

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

/// Runs a step as a person does, with `programs` first in the path. stderr is with stdout, as on a screen.
async fn run(node: &Node, programs: &Path, step: &Step) -> Output {
    let mut command = Command::new("sh");
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
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    command.args(["-c", &line]).env("PATH", path);
    command
        .env("DEBUGLET_CONFIG", node.folder().join("debuglet.toml"))
        .stdin(Stdio::null());
    node.spawn(command).output().await
}

#[tokio::test]
async fn what_the_readme_shows_is_what_happens() {
    let readme = include_str!("../../README.md");
    let node = Node::start(ContainerdVersion::V2_4).await;
    node.tag(BUSYBOX, "docker.io/library/busybox:1.37").await;
    let programs = node.folder().join("programs");
    std::fs::create_dir(&programs).unwrap();
    symlink(node.debuglet_command([]).get_program(), programs.join("debuglet")).unwrap();
    std::fs::write(programs.join("sudo"), "#!/bin/sh\nexec \"$@\"\n").unwrap();
    std::fs::set_permissions(programs.join("sudo"), std::fs::Permissions::from_mode(0o755)).unwrap();

    let [manifest] = blocks(readme, "yaml")[..] else {
        panic!("the README shows one manifest")
    };
    node.write_manifest_text("web.yaml", manifest);
    let agent = node.start_agent().await;
    agent.api().pod_until("default", "web", is_running).await;

    let all: Vec<Step> = blocks(readme, "console").into_iter().flat_map(steps).collect();
    assert!(!all.is_empty());
    for step in all {
        let output = run(&node, &programs, &step).await;
        let text = format!("{}{}", output.stdout, output.stderr);
        assert_eq!(output.code, 0, "{}:\n{text}", step.command);
        assert!(
            is_as_shown(&step.shown, &text),
            "{}:\n{text}\nis not:\n{}",
            step.command,
            step.shown.join("\n")
        );
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
