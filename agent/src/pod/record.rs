//! The record of one ephemeral container's launch: what must be on disk before each step, so that its process
//! is started at most once (see "At most once" in `agent/ARCHITECTURE.md`).

use std::collections::HashMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{ContainerStateTerminated, EphemeralContainer};
use serde::{Deserialize, Serialize};

use super::asked_by::AskedBy;
use super::copied_mounts::CopyMounts;

/// Where an ephemeral container was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Origin {
    /// In the pod's manifest.
    Manifest,
    /// On the node-local API (which the CLI uses).
    Api,
    /// On the API server, and taken over from a kubelet that is down.
    KubeApiserver,
}

/// The container that a launch made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CreatedContainer {
    /// The runtime's id.
    pub(crate) container_id: String,
    /// The sandbox it was made in.
    pub(crate) sandbox_id: String,
    /// The file on the host that its output goes to. In somebody else's pod that follows from how its sandbox was asked
    /// for, which nobody can tell any more once it is gone. None in records that were written before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) log_path: Option<PathBuf>,
}

/// How far a launch has come, as far as the disk knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "lowercase")]
pub(crate) enum Phase {
    /// To be launched: StartContainer was not called.
    Accepted,
    /// The container exists, and StartContainer is called once by who wrote this, or was called: it may have run.
    Created(CreatedContainer),
    /// A stop was accepted: nothing is started any more.
    Stopping {
        /// What was created before, if anything.
        created: Option<CreatedContainer>,
    },
    /// Over; this is its last status.
    Ended {
        /// What was created, if anything.
        created: Option<CreatedContainer>,
        /// The final status, for ever.
        terminated: ContainerStateTerminated,
    },
}

/// One ephemeral container that was accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// The spec as accepted, with every default filled in.
    pub(crate) spec: EphemeralContainer,
    /// Its place among the pod's ephemeral containers: their list is sorted by it. It is no index: numbers may be left out,
    /// and what comes before the first has a lower one.
    #[serde(default)]
    pub(crate) order: i64,
    /// Where it was asked for first.
    pub(crate) origin: Origin,
    /// Who asked for it. None in records that were written before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) asked_by: Option<AskedBy>,
    /// Whose mounts it is to have beside its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) copy_mounts: Option<CopyMounts>,
    /// How far it has come.
    #[serde(flatten)]
    pub(crate) phase: Phase,
}

/// The order of a record that comes after all of `records`, which are sorted by theirs.
pub(crate) fn next_order(records: &[Record]) -> i64 {
    records.last().map_or(0, |last| last.order.saturating_add(1))
}

/// Sorts records as `names` are, and gives them orders that say so. One that `is_kept`, which the disk has, keeps its order
/// where that fits, so that little has to be written anew: nothing where new ones come first or last.
pub(crate) fn arrange<'a>(
    records: &mut [Record],
    names: impl Iterator<Item = &'a str>,
    is_kept: impl Fn(&Record) -> bool,
) {
    let places: HashMap<&str, usize> = names.zip(0..).collect();
    records.sort_by_key(|record| {
        let place = places.get(record.spec.name.as_str()).copied();
        place.unwrap_or(usize::MAX)
    });
    if let Some(first) = records.iter().position(is_kept) {
        let (new, kept) = records.split_at_mut(first);
        let before = kept.first().map_or(0, |kept| kept.order);
        for (distance, record) in (1..).zip(new.iter_mut().rev()) {
            record.order = before.saturating_sub(distance);
        }
    }
    number(records);
}

/// Makes the orders of records those of a list that stands as it is: each higher than the one before.
pub(crate) fn number(records: &mut [Record]) {
    let mut lowest = i64::MIN;
    for record in records {
        record.order = record.order.max(lowest);
        lowest = record.order.saturating_add(1);
    }
}

impl Record {
    /// The container that was created for it, as far as the disk knows.
    pub(crate) fn created(&self) -> Option<&CreatedContainer> {
        match &self.phase {
            Phase::Accepted => None,
            Phase::Created(created) => Some(created),
            Phase::Stopping { created } | Phase::Ended { created, .. } => created.as_ref(),
        }
    }
}
