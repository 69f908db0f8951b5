//! `debuglet stop`: ends a debug container for good.

use clap::Args;

use super::client::{Client, launch_path};
use super::failure::Failure;
use super::pod_lookup::{debug_container_names, explain_missing, find_pod};
use super::{PodArgument, print};
use crate::pod::launch::{Launch, Stage};

#[derive(Debug, Args)]
#[command(
    after_help = "It gets the pod's grace period to end in, and is never started again; one that still waits\n\
    is never started at all.\n\n\
    Example:\n  debuglet stop etcd-node1 -n kube-system -c debugger-8f2lq"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    pod: PodArgument,
    /// The debug container
    #[arg(short, long, value_name = "NAME")]
    container: String,
}

/// Stops the container, or says why that is not done.
pub(super) async fn run(client: &Client, arguments: Arguments) -> Result<(), Failure> {
    let (namespace, name) = arguments.pod.parse()?;
    let container = &arguments.container;
    let path = launch_path(namespace, name, container, "stop");
    match client.post::<Launch>(&path).await {
        Ok(launch) => print(&format!(
            "{container} in {namespace}/{name} {}\n",
            outcome(launch.stage)
        )),
        Err(error) => {
            let missing = error.code() == Some(404);
            let failure = explain_missing(client, namespace, name, error).await;
            if !missing || !failure.hint.is_empty() {
                return Err(failure);
            }
            let pod = find_pod(client, namespace, name).await?;
            Err(match debug_container_names(&pod).as_slice() {
                [] => failure.hint("The pod has no debug containers."),
                names => failure.hint(format!("The pod's debug containers: {}", names.join(", "))),
            })
        }
    }
}

/// What the stop has brought about so far.
fn outcome(stage: Stage) -> &'static str {
    match stage {
        Stage::Terminated => "has ended and will not start again.",
        Stage::Running => "is told to end, with the pod's grace, and will not start again.",
        _ => "will not start any more.",
    }
}
