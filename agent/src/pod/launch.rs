//! How far the launch of one debug container has come: what the API's extension group serves as `Launch`,
//! and what `debuglet debug` shows while it waits. Kubernetes has no form for it.

use k8s_openapi::api::core::v1::ContainerStateTerminated;
use serde::{Deserialize, Serialize};

/// The steps of a launch, in the order in which they can come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// On disk; nothing has been done yet.
    Accepted,
    /// The image is on its way; `pull` says how much of it.
    Pulling,
    /// Something stands in the way that may pass: `reason`, `message` and `next` say what.
    Waiting,
    /// The runtime makes and starts the container, and where it runs its target's files are looked for.
    Creating,
    /// The process runs.
    Running,
    /// The process has ended, or the container was stopped before it started.
    Terminated,
}

/// How far the launch of one debug container has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Launch {
    /// The container's name.
    pub(crate) container: String,
    /// How far it is.
    pub(crate) stage: Stage,
    /// A reason in Kubernetes' words (`ErrImagePull`, `CreateContainerError`, `Completed`, ...); empty if none.
    #[serde(default)]
    pub(crate) reason: String,
    /// What happened, in the user's words; empty if there is nothing to say.
    #[serde(default)]
    pub(crate) message: String,
    /// Whether waiting longer cannot help: no such image, access denied, a bad reference, no such target.
    #[serde(default)]
    pub(crate) permanent: bool,
    /// The exit code, once `Terminated`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) exit_code: Option<i32>,
    /// Where the target's files are, seen from the debug container, once `Running` and with a target:
    /// `/proc/1/root`, or the target's own process id under a shared or host PID namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) files_at: Option<String>,
    /// The image's layers while it is pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pull: Option<PullProgress>,
}

impl Launch {
    /// A launch that was just accepted.
    pub(crate) fn accepted(container: &str) -> Launch {
        Launch {
            container: container.to_owned(),
            stage: Stage::Accepted,
            reason: String::new(),
            message: String::new(),
            permanent: false,
            exit_code: None,
            files_at: None,
            pull: None,
        }
    }

    /// Says how it ended.
    pub(crate) fn end(&mut self, terminated: &ContainerStateTerminated) {
        self.stage = Stage::Terminated;
        self.reason = terminated.reason.clone().unwrap_or_default();
        self.message = terminated.message.clone().unwrap_or_default();
        self.permanent = false;
        self.exit_code = Some(terminated.exit_code);
        self.pull = None;
    }
}

/// How much of an image has arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PullProgress {
    /// The image's name, in full.
    pub(crate) image: String,
    /// The registry's host, and its port where one is named.
    pub(crate) registry: String,
    /// One entry per blob on its way or done; the total grows as manifests are read.
    pub(crate) layers: Vec<LayerProgress>,
}

/// How much of one blob has arrived, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerProgress {
    /// The blob's digest.
    pub(crate) digest: String,
    /// Bytes that have arrived.
    pub(crate) offset: u64,
    /// Bytes in all; 0 while unknown.
    pub(crate) total: u64,
}
