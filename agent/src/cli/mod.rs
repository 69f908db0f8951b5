//! The command line: one file per subcommand.

mod attach;
mod check;
mod client;
mod client_error;
mod debug;
mod describe;
mod exec;
mod failure;
mod follow;
mod interrupts;
mod launch_display;
mod launch_watch;
mod logs;
mod lost_agent;
mod pod_lookup;
mod printed;
mod ps;
mod pump;
mod raw_terminal;
mod stamped_log;
mod status_words;
mod stop;
pub(crate) mod stream_client;
mod table;
mod terminal_session;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::config::Config;
use crate::pod::age;
use client::Client;
use failure::Failure;

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
        Err(error) => return usage(&error),
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
            tell_as_is(&failure.lines());
            failure.exit_code.into()
        }
    }
}

/// Prints what clap has to say: help and the version as they are, a complaint in our words' form.
fn usage(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Nobody is left to tell when it cannot be printed.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            USAGE.into()
        }
        _ => {
            let text = error.render().to_string();
            tell_as_is(&format!(
                "debuglet: {}",
                text.strip_prefix("error: ").unwrap_or(&text)
            ));
            USAGE.into()
        }
    }
}

/// Writes to stdout, at once.
fn print(text: &str) -> Result<(), Failure> {
    write_out(text.as_bytes())
}

/// Writes a container's bytes to stdout, at once.
fn write_out(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes)?;
    Ok(stdout.flush()?)
}

/// Tells the user something on stderr, a line of its own; nobody is left to tell when that fails.
fn tell(line: &str) {
    tell_as_is(&format!("{line}\n"));
}

/// Writes to stderr.
fn tell_as_is(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Whether a person watches stderr.
fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal()
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
