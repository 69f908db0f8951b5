//! What README.md shows, run as a person would: its `console` blocks are commands, what is typed once they run, and the
//! output that is to be seen.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::eventually::eventually;
use crate::node::Node;
use crate::parts;
use crate::process::{Output, Process};

/// What stands for anything in an output that is shown.
const ANYTHING: &str = "...";
/// What stands before what is typed into a debug container's shell.
const SHELL_PROMPT: &str = "/ # ";
/// What a command begins with that sets a variable for those after it.
const EXPORT: &str = "export ";
/// What a command ends with that goes on while those after it run.
const GOES_ON: &str = " &";

/// The README.
const README: &str = include_str!("../../README.md");

/// The heading of the section that tells how an API server is debugged that does not come up.
pub const STORY: &str = "When the API server is down";

/// A command of the README.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    command: String,
    /// What is typed once it runs, in a terminal.
    typed: Vec<String>,
    /// The output that is shown below it.
    shown: Vec<String>,
}

impl Step {
    /// Whether the command says first that it waits for something.
    pub fn shows_that_it_waits(&self) -> bool {
        self.shown
            .first()
            .is_some_and(|line| line.starts_with("Waiting for "))
    }
}

/// The README's sections, each with its heading, without the one of this heading.
pub fn all_but(heading: &str) -> String {
    let others = sections().filter(|section| !is_headed(section, heading));
    others.collect::<Vec<_>>().concat()
}

/// The README's section of this heading.
pub fn section(heading: &str) -> &'static str {
    let found = sections().find(|section| is_headed(section, heading));
    found.unwrap_or_else(|| panic!("the README has no section {heading:?}"))
}

fn sections() -> impl Iterator<Item = &'static str> {
    let starts = README.match_indices("\n## ").map(|(at, _)| at + 1);
    let starts: Vec<usize> = std::iter::once(0).chain(starts).collect();
    let ends: Vec<usize> = starts.iter().skip(1).copied().chain([README.len()]).collect();
    starts
        .into_iter()
        .zip(ends)
        .map(|(start, end)| &README[start..end])
}

fn is_headed(section: &str, heading: &str) -> bool {
    section.lines().next() == Some(&format!("## {heading}"))
}

/// The fenced blocks of this language, in order.
pub fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    text.split(fence.as_str())
        .skip(1)
        .filter_map(|rest| rest.split("\n```").next())
        .collect()
}

/// The commands of the `console` blocks of a text.
pub fn commands(text: &str) -> Vec<Step> {
    let all: Vec<Step> = blocks(text, "console").into_iter().flat_map(steps).collect();
    assert!(!all.is_empty());
    all
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
#[derive(Debug)]
pub struct Shell<'a> {
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

impl<'a> Shell<'a> {
    /// A shell in `folder`, with the programs that the README names: those under test, and what a person's machine
    /// has.
    pub fn new(node: &'a Node, folder: &Path) -> Shell<'a> {
        Shell {
            node,
            programs: programs(node),
            folder: folder.to_path_buf(),
            exports: String::new(),
            going_on: Vec::new(),
        }
    }

    /// Runs a step as a person does, and holds it against what is shown.
    pub async fn run(&mut self, step: &Step) {
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
        println!("$ {}\n{text}", step.command);
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

/// A folder with the programs that the README names.
fn programs(node: &Node) -> PathBuf {
    let programs = node.folder().join("programs");
    std::fs::create_dir(&programs).unwrap();
    symlink(parts::debuglet(), programs.join("debuglet")).unwrap();
    symlink(parts::built("kubernetes/kubectl"), programs.join("kubectl")).unwrap();
    symlink("/bin/busybox", programs.join("wget")).unwrap();
    std::fs::write(programs.join("sudo"), "#!/bin/sh\nexec \"$@\"\n").unwrap();
    std::fs::set_permissions(programs.join("sudo"), std::fs::Permissions::from_mode(0o755)).unwrap();
    programs
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
