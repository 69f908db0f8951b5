//! `debuglet stop`: ends a debug container for good, or what debuglet made and has no record of.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde::Deserialize;

use super::client::{Client, launch_path, leftover_path};
use super::failure::Failure;
use super::output::{print_line, tell};
use super::pod_lookup::{debug_container_names, explain_missing, find_pod, pod_name};
use crate::pod::launch::{Launch, Stage};

#[derive(Debug, Args)]
#[command(
    after_help = "It gets the pod's grace period to end in, and is never started again; one that still waits\n\
    is never started at all.\n\n\
    Where the state folder was lost, \"debuglet ps\" shows the sandboxes and containers that debuglet has made and\n\
    has no record of. --leftover stops and removes one of them; its logs stay.\n\n\
    Examples:\n  debuglet stop etcd-node1 -n kube-system -c debugger-8f2lq\n  debuglet stop --leftover 4f0c1a9d7e21b"
)]
pub(super) struct Arguments {
    /// The pod, as NAME or pod/NAME
    #[arg(value_name = "POD", required_unless_present = "leftover")]
    pod: Option<String>,
    /// The pod's namespace
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    namespace: String,
    /// The debug container
    #[arg(short, long, value_name = "NAME", required_unless_present = "leftover")]
    container: Option<String>,
    /// Instead of a debug container of a pod: what debuglet made and has no record of, by the beginning of its id
    #[arg(long, value_name = "ID", conflicts_with_all = ["pod", "namespace", "container"],
          value_parser = NonEmptyStringValueParser::new())]
    leftover: Option<String>,
}

/// Stops what is meant, or says why that is not done.
pub(super) async fn run(client: &Client, arguments: Arguments) -> Result<(), Failure> {
    if let Some(id) = &arguments.leftover {
        return end_leftover(client, id).await;
    }
    let namespace = arguments.namespace.as_str();
    let name = pod_name(arguments.pod.as_deref().unwrap_or_default())?;
    let container = arguments.container.as_deref().unwrap_or_default();
    let path = launch_path(namespace, name, container, "stop");
    match client.post::<Launch>(&path).await {
        Ok((launch, warnings)) => {
            warnings.iter().for_each(|warning| tell(warning));
            let outcome = outcome(launch.stage, !warnings.is_empty());
            print_line(&format!("{container} in {namespace}/{name} {outcome}"))
        }
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

/// What was ended.
#[derive(Debug, Deserialize)]
struct Ended {
    id: String,
    pod: String,
    container: Option<String>,
}

/// Stops and removes what debuglet made and has no record of.
async fn end_leftover(client: &Client, id: &str) -> Result<(), Failure> {
    let ended: Ended = client.delete(&leftover_path(id)).await?;
    let what = match &ended.container {
        Some(container) => format!("container {container}"),
        None => "the sandbox".to_owned(),
    };
    print_line(&format!(
        "{what} of {} ({}) is stopped and removed; its logs stay.",
        ended.pod, ended.id
    ))
}

/// What the stop has brought about so far. One that is not written down holds until the agent is restarted.
fn outcome(stage: Stage, unwritten: bool) -> &'static str {
    match (stage, unwritten) {
        (Stage::Terminated, _) => "has ended and will not start again.",
        (Stage::Running, _) => "is told to end, with the pod's grace, and will not start again.",
        // Its process may run already: the agent shows that only once the runtime has answered.
        (Stage::Accepted | Stage::Creating, false) => {
            "ends, with the pod's grace if it has started, and will not start again."
        }
        (Stage::Accepted | Stage::Creating, true) => {
            "ends, with the pod's grace if it has started, and will not start while this agent runs."
        }
        (Stage::Pulling | Stage::Waiting, false) => "will not start any more.",
        (Stage::Pulling | Stage::Waiting, true) => "will not start while this agent runs.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_have_started_is_said_not_to_start_any_more() {
        for (stage, may_run) in [
            (Stage::Accepted, true),
            (Stage::Pulling, false),
            (Stage::Waiting, false),
            (Stage::Creating, true),
            (Stage::Running, true),
            (Stage::Terminated, true),
        ] {
            let said = outcome(stage, false);
            assert_eq!(
                said.ends_with("will not start again."),
                may_run,
                "{stage:?}: {said}"
            );
        }
    }
}
