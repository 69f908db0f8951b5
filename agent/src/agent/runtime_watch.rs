//! Asks the runtime whether it is there, at the start until it is and then now and again: what the node report and the
//! node's Ready condition say. (Workers need no telling: what they ask of it fails, and they try again.)

use std::sync::Arc;
use std::time::Duration;

use debuglet_proto::v1::{VersionRequest, VersionResponse};
use tokio_util::sync::CancellationToken;

use super::node_facts::FactsWatch;
use crate::logging::NEWS;
use crate::runtime::client::Runtime;
use crate::runtime::error::{NoAnswer, RuntimeError, is_silence};
use crate::store::Store;
use crate::store::problems::ProblemKind;

/// How long a runtime that does not answer yet is given between two questions.
const RETRY: Duration = Duration::from_secs(1);
/// How often one that has answered is asked again.
const INTERVAL: Duration = Duration::from_secs(10);
/// A runtime that takes longer than this to say its version is not ready.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks until the runtime answers; false where the agent is to stop first.
pub(super) async fn wait(runtime: &Runtime, store: &Store, shutdown: &CancellationToken) -> bool {
    let mut told = false;
    loop {
        let Some(asked) = shutdown.run_until_cancelled(look(runtime, store)).await else {
            return false;
        };
        match asked {
            Ok(version) => {
                tracing::info!("{} {} answers", version.runtime_name, version.runtime_version);
                return true;
            }
            Err(error) if !told => {
                tracing::warn!("{error}; waiting for it");
                told = true;
            }
            Err(_) => {}
        }
        let pause = tokio::time::sleep(RETRY);
        if shutdown.run_until_cancelled(pause).await.is_none() {
            return false;
        }
    }
}

/// Asks now and again until `shutdown`; keeps the facts of a runtime that answers up to date.
pub(super) async fn run(
    runtime: Runtime,
    store: Arc<Store>,
    mut facts: FactsWatch,
    shutdown: CancellationToken,
) {
    let mut answers = true;
    loop {
        let look = async {
            tokio::time::sleep(INTERVAL).await;
            let asked = look(&runtime, &store).await;
            if asked.is_ok() {
                facts.look(Duration::MAX).await;
            }
            asked
        };
        let Some(asked) = shutdown.run_until_cancelled(look).await else {
            return;
        };
        match &asked {
            Ok(_) if !answers => tracing::info!(target: NEWS, "the runtime answers again"),
            Err(error) if answers => tracing::warn!(target: NEWS, "{error}"),
            _ => {}
        }
        answers = asked.is_ok();
    }
}

/// Asks once, and reports what comes of it.
async fn look(runtime: &Runtime, store: &Store) -> Result<VersionResponse, RuntimeError> {
    let request = VersionRequest {
        version: "v1".to_owned(),
    };
    let mut client = runtime.runtime();
    let asked = tokio::time::timeout(TIMEOUT, client.version(request)).await;
    let answer = asked.unwrap_or_else(|_| Err(NoAnswer::new("Version".to_owned(), TIMEOUT).into_status()));
    if answer.as_ref().is_err_and(is_silence) {
        // A connection that nobody reads any more, though the runtime is there, would be silent for ever.
        runtime.renew_connection();
    }
    let socket = runtime.socket().display().to_string();
    match answer {
        Ok(answer) => {
            let version = answer.into_inner();
            store.solved(ProblemKind::RuntimeNotReady, &socket);
            store.report_node(|report| {
                report.runtime.name.clone_from(&version.runtime_name);
                report.runtime.version.clone_from(&version.runtime_version);
                report.runtime.ready = true;
                report.runtime.message.clear();
            });
            Ok(version)
        }
        Err(status) => {
            let error = RuntimeError::new("ask the runtime at", &socket, &status);
            let message = format!("The runtime at {socket} is not ready: {error}");
            store.problem(ProblemKind::RuntimeNotReady, socket, "", message);
            store.report_node(|report| {
                report.runtime.ready = false;
                report.runtime.message = error.to_string();
            });
            Err(error)
        }
    }
}
