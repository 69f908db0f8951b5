//! The command line: one file per subcommand.

mod attach;
mod check;
mod client;
mod client_error;
mod debug;
mod describe;
mod document;
mod exec;
mod failure;
mod follow;
mod interrupts;
mod launch_display;
mod launch_watch;
mod logs;
mod lost_agent;
mod output;
mod pod_lookup;
mod printed;
mod ps;
mod pull_bar;
mod pump;
mod raw_terminal;
mod stamped_log;
mod status_words;
mod stop;
pub(crate) mod stream_client;
mod table;
mod terminal_session;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::config::Config;
use crate::pod::age;
use crate::visible::visible;
use client::Client;
use failure::Failure;
use output::{print_help, tell_lines};

/// The exit code of a command line that cannot be understood, as shells and clap have it.
const USAGE: u8 = 2;

#[derive(Debug, Parser)]
#[command(
    name = "debuglet",
    bin_name = "debuglet",
    version,
    about = "Runs Kubernetes ephemeral debug containers in any pod on this node",
    after_help = "Examples:\n  \
        debuglet ps\n  \
        debuglet debug -it etcd-node1 -n kube-system --image=busybox --target=etcd\n  \
        debuglet describe etcd-node1 -n kube-system\n  \
        debuglet check\n\n\
        kubectl works too, as root:\n  \
        KUBECONFIG=/run/debuglet/kubeconfig kubectl get pods",
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
struct Arguments {
    /// The agent's configuration, where it is not /etc/debuglet/config.toml
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "DEBUGLET_CONFIG",
        hide_env_values = true
    )]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent: what the other commands, and kubectl, talk to
    #[command(after_help = "Example:\n  debuglet agent --config /etc/debuglet/config.toml")]
    Agent,
    /// Run a debug container in a pod
    Debug(Box<debug::Arguments>),
    /// List the pods of this node
    Ps(ps::Arguments),
    /// Show everything about a pod, its debug containers and its events
    Describe(describe::Arguments),
    /// Print what a container wrote
    Logs(logs::Arguments),
    /// Attach to a running container
    Attach(attach::Arguments),
    /// Run a command in a running container
    Exec(exec::Arguments),
    /// Stop a debug container, for good
    Stop(stop::Arguments),
    /// Say what this node has and lacks
    #[command(after_help = "Example:\n  debuglet check && echo this node is fit")]
    Check(check::Arguments),
}

/// The pod that a command is about.
#[derive(Debug, Args)]
struct PodArgument {
    /// The pod, as NAME or pod/NAME
    #[arg(value_name = "POD")]
    pod: String,
    /// The pod's namespace
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    namespace: String,
}

impl PodArgument {
    /// The pod's namespace and name.
    fn parse(&self) -> Result<(&str, &str), Failure> {
        Ok((&self.namespace, pod_lookup::pod_name(&self.pod)?))
    }
}

/// Parses the arguments and hands over to the subcommand.
pub(crate) fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error, std::env::args_os()),
    };
    match arguments.command {
        Command::Check(check) => check::run(arguments.config.as_deref(), &check),
        Command::Agent => match Config::load(arguments.config.as_deref()) {
            Ok(config) => crate::agent::run(config),
            Err(error) => end(Err(Failure::new(error.to_string()))),
        },
        command => end(talk_to_agent(arguments.config.as_deref(), command)),
    }
}

/// Runs a command that talks to the agent.
fn talk_to_agent(config: Option<&Path>, command: Command) -> Result<u8, Failure> {
    let config = Config::load(config).map_err(|error| Failure::new(error.to_string()))?;
    let client = Client::new(config.socket());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot wait for the agent: {error}")))?;
    let ended = runtime.block_on(async {
        match command {
            Command::Debug(arguments) => debug::run(&client, *arguments).await,
            Command::Ps(arguments) => ps::run(&client, arguments).await.map(|()| 0),
            Command::Describe(arguments) => describe::run(&client, arguments).await.map(|()| 0),
            Command::Logs(arguments) => logs::run(&client, arguments).await.map(|()| 0),
            Command::Attach(arguments) => attach::run(&client, arguments).await,
            Command::Exec(arguments) => exec::run(&client, arguments).await,
            Command::Stop(arguments) => stop::run(&client, arguments).await.map(|()| 0),
            Command::Agent | Command::Check(_) => Ok(0),
        }
    });
    // A thread that still reads a stdin without an end would hold up the process for ever.
    runtime.shutdown_background();
    ended
}

/// The process' exit code; a failure is printed.
fn end(ended: Result<u8, Failure>) -> ExitCode {
    match ended {
        Ok(code) => code.into(),
        Err(failure) => {
            tell_lines(&failure.lines());
            failure.exit_code.into()
        }
    }
}

/// Prints what clap says about the words of the command line: help and the version as they are, a complaint in the
/// form of ours.
fn usage(error: &clap::Error, words: impl Iterator<Item = OsString>) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            print_help(error);
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            print_help(error);
            USAGE.into()
        }
        _ => {
            tell_lines(&format!("debuglet: {}", complaint(error, words)));
            USAGE.into()
        }
    }
}

/// What clap complains of. It repeats words of the command line and drops what it takes for colours in them, so it is
/// asked again about words in which everything can be seen.
fn complaint(error: &clap::Error, words: impl Iterator<Item = OsString>) -> String {
    let words = words.map(|word| visible(&word.to_string_lossy()).into_owned());
    let again = Arguments::try_parse_from(words).err();
    let text = again
        .filter(|again| again.kind() == error.kind())
        .map_or_else(|| error.render().to_string(), |again| again.render().to_string());
    text.strip_prefix("error: ").unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_complaint_shows_the_words_it_is_about() {
        for (word, shown) in [
            ("\x1b]0;title\x07web", r"'\x1b]0;title\x07web'"),
            ("a\u{9b}2J\rb", r"'a\u009b2J\rb'"),
            ("plain", "'plain'"),
        ] {
            let words = ["debuglet", "ps", word];
            let error = Arguments::try_parse_from(words).unwrap_err();
            let complaint = complaint(&error, words.map(OsString::from).into_iter());
            let first = complaint.lines().next().unwrap();
            assert_eq!(first, format!("unexpected argument {shown} found"));
        }
    }

    #[test]
    fn every_subcommand_has_an_example_in_its_help() {
        for subcommand in Arguments::command().get_subcommands() {
            let help = subcommand
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(help.contains("Example"), "{}", subcommand.get_name());
        }
    }

    #[test]
    fn flags_are_taken_as_kubectl_takes_them() {
        for line in [
            "debug -it etcd -n kube-system --image=busybox --target=etcd",
            "debug pod/etcd --image busybox -c dbg --env A=1 --env B=2 --profile=netadmin -- sh -c id",
            "debug etcd -q --image=b --image-pull-policy=Never --attach=false --keep --custom f.yaml",
            "debug etcd -i --image=b --attach --arguments-only -- -v",
            "ps",
            "ps -n kube-system -o wide",
            "logs etcd -c dbg -f -p --tail=5 --since=5m --timestamps",
            "attach etcd -it -c dbg",
            "exec -it etcd -c dbg -- sh",
            "stop etcd -c dbg",
            "describe etcd --config /x.toml",
            "--config /x.toml check",
        ] {
            let parsed = Arguments::try_parse_from(["debuglet"].into_iter().chain(line.split(' ')));
            assert!(parsed.is_ok(), "{line}: {:?}", parsed.err());
        }
        for line in ["debug etcd", "exec etcd", "stop etcd", "ps -o table"] {
            let parsed = Arguments::try_parse_from(["debuglet"].into_iter().chain(line.split(' ')));
            assert!(parsed.is_err(), "{line}");
        }
    }
}
