//! `debuglet exec`: runs a command in a container that runs already.

use std::io::IsTerminal;

use clap::Args;

use super::PodArgument;
use super::client::Client;
use super::failure::Failure;
use super::output::tell;
use super::pod_lookup::{choose_container, find_pod};
use super::pump::{Streams, pump, stream_failure, stream_path};
use super::stream_client::open;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    debuglet exec etcd-node1 -n kube-system -c debugger-8f2lq -- ps\n  \
    debuglet exec -it cart -- sh\n  \
    tar c . | debuglet exec -i cart -- tar x -C /tmp\n\n\
    The exit code is the command's.")]
pub(super) struct Arguments {
    #[command(flatten)]
    pod: PodArgument,
    /// The container
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Hand standard input to the command
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
    /// The command
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs the command; the exit code is its.
pub(super) async fn run(client: &Client, arguments: Arguments) -> Result<u8, Failure> {
    let (namespace, name) = arguments.pod.parse()?;
    let pod = find_pod(client, namespace, name).await?;
    let container = choose_container(&pod, arguments.container.as_deref())?;
    if !container.note.is_empty() && !arguments.quiet {
        tell(&container.note);
    }
    let terminal = arguments.tty && std::io::stdin().is_terminal();
    if arguments.tty && !terminal && !arguments.quiet {
        tell("Going on without -t: standard input is not a terminal.");
    }
    let streams = Streams {
        stdin: arguments.stdin,
        output: true,
        tty: terminal,
    };
    let path = stream_path(
        namespace,
        name,
        "exec",
        &container.name,
        &arguments.command,
        streams,
    );
    let session = open(client.socket(), &path).await.map_err(stream_failure)?;
    let code = pump(session, streams).await?;
    Ok(u8::try_from(code & 0xff).unwrap_or(1))
}
