//! What the runtime says of one pod, in the few words that the rules need.

use std::collections::BTreeMap;

use super::record::Record;

/// A moment, in nanoseconds since the Unix epoch, as CRI gives it; 0 means that it has not come yet.
pub(crate) type Nanoseconds = i64;

/// Everything of one pod that the runtime lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ObservedPod {
    /// All sandboxes, newest attempt first.
    pub(crate) sandboxes: Vec<ObservedSandbox>,
    /// All containers of all these sandboxes, per name the newest attempt first.
    pub(crate) containers: Vec<ObservedContainer>,
    /// Whether somebody else runs the pod: then debug containers join a sandbox that is not ours.
    pub(crate) foreign: bool,
    /// Of a pod that somebody else runs, the sandbox that it was found in, and is shown as.
    pub(crate) found_in: Option<String>,
    /// The sandboxes and containers of which only the runtime's list is known, by id, and why: their status could not be
    /// read.
    pub(crate) unread: BTreeMap<String, String>,
}

impl ObservedPod {
    /// The pod's ready sandbox: of several the highest attempt counts.
    pub(crate) fn ready_sandbox(&self) -> Option<&ObservedSandbox> {
        self.sandboxes
            .iter()
            .filter(|sandbox| sandbox.ready && (sandbox.ours || self.foreign))
            .max_by_key(|sandbox| (sandbox.attempt, sandbox.created_at, &sandbox.id))
    }

    /// The ready sandbox, if containers may join it. Of a pod that somebody else runs that is the one that it is shown as,
    /// and no other: what a user saw is what is debugged.
    pub(crate) fn sandbox_to_join(&self) -> Option<&ObservedSandbox> {
        self.ready_sandbox()
            .filter(|sandbox| !self.foreign || self.found_in.as_ref() == Some(&sandbox.id))
    }

    /// The container of an ephemeral container's record: the one that was created for it, if that is there, else the
    /// newest of its name.
    pub(crate) fn of_record(&self, record: &Record) -> Option<&ObservedContainer> {
        record
            .created()
            .and_then(|created| {
                self.containers
                    .iter()
                    .find(|container| container.id == created.container_id)
            })
            .or_else(|| self.newest(&record.spec.name))
    }

    /// The newest container of this name.
    pub(crate) fn newest(&self, name: &str) -> Option<&ObservedContainer> {
        self.containers
            .iter()
            .filter(|container| container.name == name)
            .max_by_key(|container| (container.attempt, container.created_at))
    }
}

impl ObservedPod {
    /// The containers that somebody else made under the name of one that was made for a record here.
    pub(crate) fn second_attempts(&self, records: &[Record]) -> Vec<&ObservedContainer> {
        let was_made = |name: &String| {
            let of_name = |record: &&Record| record.spec.name == *name;
            let ours = |container: &ObservedContainer| container.ours && container.name == *name;
            let made = |record: &Record| record.created().is_some() || self.containers.iter().any(ours);
            records.iter().find(of_name).is_some_and(made)
        };
        let containers = self.containers.iter();
        containers
            .filter(|container| !container.ours && was_made(&container.name))
            .collect()
    }
}

/// One pod sandbox (CRI `PodSandboxStatus`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObservedSandbox {
    /// The runtime's id.
    pub(crate) id: String,
    /// `metadata.attempt`.
    pub(crate) attempt: u32,
    /// Whether it carries our origin label: only then may it be touched.
    pub(crate) ours: bool,
    /// Whether it is `SANDBOX_READY`.
    pub(crate) ready: bool,
    /// When it was created.
    pub(crate) created_at: Nanoseconds,
    /// Its addresses, the primary one first; none on the host's network.
    pub(crate) ips: Vec<String>,
    /// The CRI runtime handler that runs it (the pod's runtime class); empty for the default.
    pub(crate) runtime_handler: String,
}

/// The state of a container (CRI `ContainerState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContainerState {
    /// Made, never started.
    Created,
    /// Its process runs.
    Running,
    /// Its process has ended, or could not be started.
    Exited,
    /// The runtime does not know.
    Unknown,
}

/// One container (CRI `ContainerStatus`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObservedContainer {
    /// The runtime's id.
    pub(crate) id: String,
    /// `metadata.name`: the container's name in the pod's spec.
    pub(crate) name: String,
    /// `metadata.attempt`: how often a container of this name was made before.
    pub(crate) attempt: u32,
    /// The sandbox it is in.
    pub(crate) sandbox_id: String,
    /// Whether it carries our origin label: only then may it be touched.
    pub(crate) ours: bool,
    /// Where it stands.
    pub(crate) state: ContainerState,
    /// When it was created.
    pub(crate) created_at: Nanoseconds,
    /// When its process started.
    pub(crate) started_at: Nanoseconds,
    /// When its process ended.
    pub(crate) finished_at: Nanoseconds,
    /// The exit code, once exited.
    pub(crate) exit_code: i32,
    /// CRI's reason: `Completed`, `Error`, `OOMKilled`, `StartError`, ...
    pub(crate) reason: String,
    /// The runtime's own words, and the termination message once exited.
    pub(crate) message: String,
    /// The image's name, as the runtime resolved it.
    pub(crate) image: String,
    /// The image's digest reference: a Kubernetes status' `imageID`.
    pub(crate) image_id: String,
    /// The file on the host that its output goes to; empty where it has none.
    pub(crate) log_path: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::record::{CreatedContainer, Origin, Phase};
    use super::*;

    fn container(name: &str, attempt: u32, ours: bool) -> ObservedContainer {
        ObservedContainer {
            id: format!("{name}-{attempt}"),
            name: name.to_owned(),
            attempt,
            sandbox_id: "s1".to_owned(),
            ours,
            state: ContainerState::Running,
            created_at: 1,
            started_at: 1,
            finished_at: 0,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: String::new(),
            image_id: String::new(),
            log_path: String::new(),
        }
    }

    #[test]
    fn somebody_elses_container_counts_as_a_second_one_only_where_ours_was_made() {
        let made = || {
            Phase::Created(CreatedContainer {
                container_id: "dbg-0".to_owned(),
                sandbox_id: "s1".to_owned(),
                log_path: None,
            })
        };
        #[rustfmt::skip]
        let table = [
            ("ours alone",                       made(),          vec![container("dbg", 0, true)],                             0),
            ("ours, and another of the name",    made(),          vec![container("dbg", 0, true), container("dbg", 1, false)], 1),
            ("ours has gone",                    made(),          vec![container("dbg", 1, false)],                            1),
            ("ours, not recorded yet",           Phase::Accepted, vec![container("dbg", 0, true), container("dbg", 1, false)], 1),
            ("theirs alone",                     Phase::Accepted, vec![container("dbg", 0, false)],                            0),
            ("another name",                     made(),          vec![container("dbg", 0, true), container("app", 0, false)], 0),
        ];
        for (case, phase, containers, expected) in table {
            let spec = serde_json::from_value(json!({"name": "dbg"})).expect("a container");
            let records = [Record {
                spec,
                order: 0,
                origin: Origin::KubeApiserver,
                asked_by: None,
                copy_mounts: None,
                phase,
            }];
            let observed = ObservedPod {
                containers,
                ..ObservedPod::default()
            };
            assert_eq!(observed.second_attempts(&records).len(), expected, "{case}");
        }
    }
}
