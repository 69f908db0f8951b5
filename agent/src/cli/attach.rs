//! `debuglet attach`: goes on with a container that runs.

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::PodArgument;
use super::client::Client;
use super::failure::Failure;
use super::launch_watch::LaunchWatch;
use super::output::tell;
use super::pod_lookup::{ChosenContainer, choose_container, debug_container_names, find_pod, full_name};
use super::pump::{Streams, pump, stream_failure, stream_path};
use super::stream_client::open;
use super::terminal_session::{History, TerminalSession};
use crate::pod::defaults::as_container;
use crate::pod::launch::Stage;

/// How long the end of a container may take to be reported after that of its output.
const END_REPORTED: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
#[command(
    after_help = "Without -c, the newest debug container that runs; without one, the pod's container.\n\
    Without -i and -t, a container that has a terminal gets this one.\n\n\
    Example:\n  debuglet attach etcd-node1 -n kube-system -c debugger-8f2lq"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    pod: PodArgument,
    /// The container
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Hand standard input to the container
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Use this terminal as the container's
    #[arg(short, long)]
    tty: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

/// Attaches; the exit code is that of a debug container that ends meanwhile.
pub(super) async fn run(client: &Client, arguments: Arguments) -> Result<u8, Failure> {
    let (namespace, name) = arguments.pod.parse()?;
    let pod = find_pod(client, namespace, name).await?;
    let chosen = choose(&pod, arguments.container.as_deref())?;
    if !chosen.note.is_empty() && !arguments.quiet {
        tell(&chosen.note);
    }
    let spec = container_spec(&pod, &chosen.name);
    let streams = streams(&arguments, &spec, std::io::stdin().is_terminal());
    if arguments.tty && !streams.tty && !arguments.quiet {
        tell("Going on without -t: standard input is not a terminal, or the container has none.");
    }
    if arguments.stdin && !streams.stdin {
        return Err(Failure::new(format!(
            "{} of {} has no standard input to attach to",
            chosen.name,
            full_name(&pod)
        ))
        .hint("Without -i its output is shown."));
    }
    if streams.tty {
        let mut session = TerminalSession::new(client, namespace, name, &chosen.name, History::LastLine);
        session.run(streams.stdin).await?;
        let code = exit_code(client, namespace, name, &chosen.name).await;
        session.print_rest().await?;
        Ok(code)
    } else {
        let path = stream_path(namespace, name, "attach", &chosen.name, &[], streams);
        let session = open(client.socket(), &path).await.map_err(stream_failure)?;
        pump(session, streams).await?;
        Ok(exit_code(client, namespace, name, &chosen.name).await)
    }
}

/// The exit code of a debug container whose output has ended; 0 of one that goes on all the same, and of an ordinary
/// container, which has no launch and may start again.
async fn exit_code(client: &Client, namespace: &str, pod: &str, container: &str) -> u8 {
    let mut watch = LaunchWatch::new(client, namespace, pod, container);
    let ended = async {
        loop {
            match watch.next().await {
                Ok(launch) if launch.stage == Stage::Terminated => return launch.exit_code,
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    };
    let code = tokio::time::timeout(END_REPORTED, ended).await.ok().flatten();
    u8::try_from(code.unwrap_or(0) & 0xff).unwrap_or(1)
}

/// The container: the one asked for, else the newest debug container that runs, else the pod's.
fn choose(pod: &Pod, asked: Option<&str>) -> Result<ChosenContainer, Failure> {
    let running = |name: &String| {
        let status = super::pod_lookup::container_status(pod, name);
        status
            .and_then(|status| status.state.as_ref())
            .is_some_and(|state| state.running.is_some())
    };
    match debug_container_names(pod).into_iter().rfind(running) {
        Some(name) if asked.is_none() => Ok(ChosenContainer {
            note: format!("Attaching to {name}."),
            name,
        }),
        _ => choose_container(pod, asked),
    }
}

/// The container's spec, whatever sort it is.
fn container_spec(pod: &Pod, name: &str) -> Container {
    let spec = pod.spec.clone().unwrap_or_default();
    let debug = spec.ephemeral_containers.unwrap_or_default();
    spec.containers
        .into_iter()
        .chain(spec.init_containers.unwrap_or_default())
        .chain(debug.iter().map(as_container))
        .find(|container| container.name == name)
        .unwrap_or_default()
}

/// What the session carries: what the flags say, as far as the container has it.
fn streams(arguments: &Arguments, spec: &Container, terminal: bool) -> Streams {
    let (has_stdin, has_tty) = (spec.stdin == Some(true), spec.tty == Some(true));
    let as_it_is = !arguments.stdin && !arguments.tty;
    let tty = has_tty && terminal && (arguments.tty || as_it_is);
    Streams {
        stdin: has_stdin && (arguments.stdin || (as_it_is && tty)),
        output: true,
        tty,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        let state = |name: &str, state: &str| {
            json!({"name": name, "image": "b", "imageID": "", "ready": false, "restartCount": 0,
                   "state": {state: {"exitCode": 0}}})
        };
        serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": "cart"},
            "spec": {"containers": [{"name": "cart"}],
                     "ephemeralContainers": [{"name": "one", "image": "b", "stdin": true, "tty": true},
                                             {"name": "two", "image": "b"}, {"name": "three", "image": "b"}]},
            "status": {"ephemeralContainerStatuses": [
                state("one", "running"), state("two", "running"), state("three", "terminated")]},
        }))
        .unwrap()
    }

    fn flags(stdin: bool, tty: bool) -> Arguments {
        Arguments {
            pod: PodArgument {
                pod: "cart".into(),
                namespace: "shop".into(),
            },
            container: None,
            stdin,
            tty,
            quiet: false,
        }
    }

    #[test]
    fn the_newest_debug_container_that_runs_is_meant() {
        assert_eq!(choose(&pod(), None).unwrap().name, "two");
        assert_eq!(choose(&pod(), Some("cart")).unwrap().name, "cart");
        let mut pod = pod();
        pod.status = None;
        assert_eq!(choose(&pod, None).unwrap().name, "cart");
    }

    #[test]
    fn a_container_with_a_terminal_gets_ours_unless_the_flags_say_otherwise() {
        let with_terminal = container_spec(&pod(), "one");
        let without = container_spec(&pod(), "two");
        for (arguments, spec, terminal, stdin, tty) in [
            (flags(false, false), &with_terminal, true, true, true),
            (flags(false, false), &with_terminal, false, false, false),
            (flags(true, true), &with_terminal, true, true, true),
            (flags(true, true), &with_terminal, false, true, false),
            (flags(true, false), &with_terminal, true, true, false),
            (flags(true, true), &without, true, false, false),
        ] {
            let streams = streams(&arguments, spec, terminal);
            assert_eq!((streams.stdin, streams.tty), (stdin, tty), "{arguments:?}");
        }
    }
}
