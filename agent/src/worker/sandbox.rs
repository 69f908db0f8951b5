//! The pod's sandbox: volumes and network before anything runs, and the end of both.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use debuglet_proto::v1::{RemovePodSandboxRequest, RunPodSandboxRequest, StopPodSandboxRequest};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::cgroup_folders;
use super::context::{Context, pod_name};
use super::files;
use super::garbage;
use super::step::{Outcome, RETRY_AFTER, RETRY_SLOWLY};
use super::volumes;
use crate::pod::cgroup::{CgroupDriver, cgroup_parent};
use crate::pod::discovered::Owner;
use crate::pod::discovered::joining::log_file;
use crate::pod::log_names::log_folder;
use crate::pod::resources::qos_class;
use crate::pod::sandbox_config::{SandboxContext, sandbox_config};
use crate::runtime::error::RuntimeError;
use crate::runtime::logs;
use crate::store::events::Severity;
use crate::store::progress::AdvanceError;

/// Mounts and makes what the pod's volumes need; finds what is there already. For one container only those that it mounts:
/// a debug container can start where a volume of the pod's lies on a server that is down.
pub(crate) async fn prepare_volumes(
    context: &Context,
    pod: &Pod,
    container: Option<&Container>,
) -> Result<BTreeMap<String, PathBuf>, Outcome> {
    let pod_dir = context
        .store
        .pod_dir(pod.metadata.uid.as_deref().unwrap_or_default());
    volumes::prepare(pod, container, &pod_dir).await.map_err(|error| {
        context.tell(pod, None, Severity::Warning, "FailedMount", error.to_string());
        Outcome::failed("ContainerCreating", error.to_string(), RETRY_SLOWLY)
    })
}

/// Runs a sandbox of this attempt. `dead` are the ids of earlier ones: what is left of them is ended first.
pub(crate) async fn run(context: &Context, pod: &Pod, attempt: u32, dead: &[String]) -> Outcome {
    if let Err(outcome) = prepare_volumes(context, pod, None).await {
        return outcome;
    }
    for id in dead {
        if let Outcome::Failed(held) = stop(context, id).await {
            return Outcome::Failed(held);
        }
    }
    let facts = context.facts();
    let config = sandbox_config(&SandboxContext {
        pod,
        attempt,
        node: &facts.node,
        cgroup_driver: facts.cgroup_driver,
        log_dir: &context.log_dir,
    });
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            context.tell(
                pod,
                None,
                Severity::Warning,
                "FailedCreatePodSandBox",
                error.to_string(),
            );
            return Outcome::failed_for_good("ContainerCreating", error.to_string());
        }
    };
    if let Err(error) = logs::make_pod_folder(&context.log_dir, &log_folder(pod)).await {
        let logs = context.log_dir.join(log_folder(pod));
        let message = format!("cannot create the log folder {}: {error}", logs.display());
        context.tell(
            pod,
            None,
            Severity::Warning,
            "FailedCreatePodSandBox",
            message.clone(),
        );
        return Outcome::failed("ContainerCreating", message, RETRY_SLOWLY);
    }
    let request = RunPodSandboxRequest {
        config: Some(config),
        runtime_handler: String::new(),
    };
    match context.runtime.runtime().run_pod_sandbox(request).await {
        Ok(_) => Outcome::Done,
        Err(status) => {
            let error = RuntimeError::new("run the sandbox of", pod_name(pod), &status);
            context.tell(
                pod,
                None,
                Severity::Warning,
                "FailedCreatePodSandBox",
                error.to_string(),
            );
            Outcome::failed("ContainerCreating", error.to_string(), RETRY_AFTER)
        }
    }
}

/// Stops a sandbox and everything in it; one that is gone is stopped.
pub(crate) async fn stop(context: &Context, id: &str) -> Outcome {
    let request = StopPodSandboxRequest {
        pod_sandbox_id: id.to_owned(),
    };
    match context.runtime.runtime().stop_pod_sandbox(request).await {
        Ok(_) => Outcome::Done,
        Err(status) => Outcome::done_if_gone(&RuntimeError::new("stop sandbox", id, &status), "Terminating"),
    }
}

/// Removes a sandbox and its containers; one that is gone is removed.
pub(crate) async fn remove(context: &Context, id: &str) -> Outcome {
    let request = RemovePodSandboxRequest {
        pod_sandbox_id: id.to_owned(),
    };
    match context.runtime.runtime().remove_pod_sandbox(request).await {
        Ok(_) => Outcome::Done,
        Err(status) => {
            Outcome::done_if_gone(&RuntimeError::new("remove sandbox", id, &status), "Terminating")
        }
    }
}

/// Removes a sandbox that died, perhaps without anybody having stopped it: then its network is still there, and the
/// runtime refuses to remove it.
pub(crate) async fn stop_and_remove(context: &Context, id: &str) -> Outcome {
    match stop(context, id).await {
        Outcome::Done => remove(context, id).await,
        failed => failed,
    }
}

/// Takes away the volumes of a pod in which nothing runs any more, and its `/etc/hosts`.
pub(crate) async fn tear_down_volumes(context: &Context, pod: &Pod) -> Outcome {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    remove_files(context, pod, files::remove_hosts).await;
    match volumes::tear_down(&context.store.pod_dir(uid)).await {
        Ok(()) => Outcome::VolumesGone,
        Err(error) => {
            tracing::warn!(pod = pod_name(pod), "{error}");
            Outcome::failed("Terminating", error.to_string(), RETRY_SLOWLY)
        }
    }
}

/// Cleans up after a pod of which nothing is left in the runtime: its volumes, its logs, its place in the store.
pub(crate) async fn forget(context: &Context, pod: &Pod) -> Outcome {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    if let failed @ Outcome::Failed(_) = tear_down_volumes(context, pod).await {
        return failed;
    }
    remove_cgroup(context, pod).await;
    remove_files(context, pod, files::remove).await;
    if let Err(error) = garbage::remove_logs(&context.log_dir, &log_folder(pod)).await {
        tracing::warn!(pod = pod_name(pod), "cannot remove its logs: {error}");
    }
    bury(context, uid).await
}

/// Cleans up after a pod that somebody else ran: only what debuglet made for its containers, which are given by their
/// names and the paths of their logs.
pub(crate) async fn forget_foreign(
    context: &Context,
    pod: &Pod,
    created: Vec<(String, Option<PathBuf>)>,
) -> Outcome {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    remove_files(context, pod, files::remove).await;
    let log_file = log_file(Owner::of(&pod.metadata.annotations.clone().unwrap_or_default()));
    let folder = context.log_dir.join(log_folder(pod));
    // Where the record does not say, it is where it is in pods whose sandbox says nothing else.
    let by_rule = |name: &str| folder.join(name).join(log_file);
    let own_logs = created
        .into_iter()
        .map(|(name, kept)| kept.unwrap_or_else(|| by_rule(&name)));
    if let Err(error) = garbage::remove_own_logs(&context.log_dir, own_logs).await {
        tracing::warn!(
            pod = pod_name(pod),
            "cannot remove its debug containers' logs: {error}"
        );
    }
    bury(context, uid).await
}

/// Has `remove` remove some of the files in the pod's folder. What stays is told in the log and holds back nothing.
async fn remove_files(context: &Context, pod: &Pod, remove: fn(&Path) -> io::Result<()>) {
    let pod_dir = context
        .store
        .pod_dir(pod.metadata.uid.as_deref().unwrap_or_default());
    let removed = tokio::task::spawn_blocking(move || remove(&pod_dir)).await;
    if let Ok(Err(error)) = removed {
        tracing::warn!(
            pod = pod_name(pod),
            "cannot remove what its containers wrote: {error}"
        );
    }
}

async fn bury(context: &Context, uid: &str) -> Outcome {
    match std::sync::Arc::clone(&context.store).forget(uid).await {
        Ok(()) | Err(AdvanceError::Gone) => Outcome::Forgotten,
        Err(AdvanceError::Stays) => Outcome::Done,
        Err(error) => Outcome::failed("Terminating", error.to_string(), RETRY_SLOWLY),
    }
}

async fn remove_cgroup(context: &Context, pod: &Pod) {
    let class = pod.spec.as_ref().and_then(|spec| qos_class(spec).ok());
    let cgroup_driver = context.facts().cgroup_driver;
    if let (CgroupDriver::Cgroupfs, Some(class)) = (cgroup_driver, class) {
        let group = cgroup_parent(
            cgroup_driver,
            class,
            pod.metadata.uid.as_deref().unwrap_or_default(),
        );
        // Nothing hangs on it: the thread is only lost when the process ends.
        let _ = tokio::task::spawn_blocking(move || cgroup_folders::remove(&group)).await;
    }
}
