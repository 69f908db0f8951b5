//! The targets of a pod's debug containers: where their files are, seen from the debug container (worked out from the
//! target's process, not assumed), and what is told while they do not run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::context::Context;
use crate::pod::observed::{ContainerState, ObservedPod};
use crate::pod::plan::{Held, Plan, TARGET_NOT_RUNNING};
use crate::pod::record::Record;
use crate::runtime::client::Runtime;
use crate::store::events::Severity;
use crate::store::progress::View;

/// When the runtime is asked again that did not say where a target's files are.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// How long a launch is not shown as running because it is not known yet where its target's files are.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);

/// What is known of the targets of one pod's debug containers.
#[derive(Debug, Default)]
pub(super) struct Targets {
    /// By debug container: the target's id, and where its files are.
    found: BTreeMap<String, (String, String)>,
    /// When the runtime was last asked where they are, by debug container, and for which target.
    asked: BTreeMap<String, (String, Instant)>,
    /// The questions under way: the debug container, its target's id, and the answer.
    questions: JoinSet<(String, String, Option<String>)>,
    /// The debug containers that the questions under way are about.
    unanswered: BTreeSet<String>,
    /// What was told of targets that do not run, by debug container.
    told: BTreeMap<String, String>,
}

impl Targets {
    /// Where the files of this debug container's target are.
    pub(super) fn files_at(&self, name: &str) -> Option<String> {
        self.found.get(name).map(|(_, path)| path.clone())
    }

    /// Whether it is being worked out where the files of this debug container's target are. Who waits for the launch
    /// is told both at once.
    pub(super) fn is_asked(&self, name: &str) -> bool {
        self.unanswered.contains(name)
    }

    /// Begins to work out where the targets' files are, once per run of a target. The worker does not wait for it.
    pub(super) fn find(&mut self, runtime: &Runtime, records: &[Record], observed: &ObservedPod) {
        let running = |name: &str| {
            observed
                .newest(name)
                .filter(|container| container.state == ContainerState::Running)
        };
        for record in records {
            let name = &record.spec.name;
            let target = record.spec.target_container_name.as_deref().and_then(running);
            let (Some(target), Some(_)) = (target, running(name)) else {
                continue;
            };
            let known = self
                .found
                .get(name)
                .is_some_and(|(target_id, _)| *target_id == target.id);
            let asked = self
                .asked
                .get(name)
                .is_some_and(|(target_id, at)| *target_id == target.id && at.elapsed() < ASKED_AGAIN_AFTER);
            if known || asked {
                continue;
            }
            self.asked
                .insert(name.clone(), (target.id.clone(), Instant::now()));
            self.unanswered.insert(name.clone());
            let (runtime, name, target_id) = (runtime.clone(), name.clone(), target.id.clone());
            self.questions.spawn(async move {
                let path = timeout(ANSWERED_WITHIN, files_at(&runtime, &target_id)).await;
                (name, target_id, path.ok().flatten())
            });
        }
    }

    /// Takes in an answer; never ready while nothing is asked.
    pub(super) async fn found(&mut self) {
        match self.questions.join_next().await {
            Some(Ok((name, target_id, path))) => {
                self.unanswered.remove(&name);
                if let Some(path) = path {
                    self.found.insert(name, (target_id, path));
                }
            }
            // A question that panicked does not say what it was about; the others' answers are taken in as they come.
            Some(Err(_)) => self.unanswered.clear(),
            None => std::future::pending().await,
        }
    }

    /// An event for each debug container whose target does not run, as a kubelet has one: once for what is the case.
    pub(super) fn tell(
        &mut self,
        context: &Context,
        view: &View,
        plan: &Plan,
        held: &BTreeMap<String, Held>,
    ) {
        for record in &view.records {
            let name = &record.spec.name;
            let waits = plan
                .waiting
                .get(name)
                .filter(|waiting| waiting.reason == TARGET_NOT_RUNNING && !held.contains_key(name));
            match waits {
                Some(waiting) if self.told.get(name) != Some(&waiting.message) => {
                    let text = format!("Error: {}", waiting.message);
                    context.tell(&view.pod, Some(name), Severity::Warning, "Failed", text);
                    self.told.insert(name.clone(), waiting.message.clone());
                }
                Some(_) => {}
                None => {
                    self.told.remove(name);
                }
            }
        }
    }
}

/// What containerd tells of a container's process.
#[derive(Deserialize)]
struct Info {
    pid: u32,
}

/// The target's root folder as a path in the PID namespace that it shares with the debug container:
/// `/proc/1/root` where it is process 1 of its own. `None` where it cannot be told.
#[expect(clippy::disallowed_methods, reason = "/proc is the kernel's")]
async fn files_at(runtime: &Runtime, target_id: &str) -> Option<String> {
    let info: Info = runtime.container_info(target_id).await?;
    let status = Path::new("/proc").join(info.pid.to_string()).join("status");
    let status = tokio::fs::read_to_string(status).await.ok()?;
    Some(format!("/proc/{}/root", innermost_pid(&status)?))
}

/// The process id in the innermost of the namespaces it is in: the last of `NSpid` (proc_pid_status(5)). Under
/// the host's PID namespace it is the only one.
fn innermost_pid(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_target_are_under_its_own_pid_in_the_namespace_that_is_shared() {
        for (nspid, expected) in [
            ("4711\t1", Some(1)),
            ("4711\t17", Some(17)),
            ("4711", Some(4711)),
            ("", None),
        ] {
            let status = format!("Name:\tetcd\nNSpid:\t{nspid}\nVmPeak:\t1 kB\n");
            assert_eq!(innermost_pid(&status), expected, "{nspid:?}");
        }
    }
}
