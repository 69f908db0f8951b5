//! What a worker reports: the pod's status, and how far each launch has come.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodStatus};
use k8s_openapi::jiff::Timestamp;

use super::target::Targets;
use crate::pod::launch::{Launch, Stage};
use crate::pod::node::Node;
use crate::pod::observed::{ContainerState, ObservedContainer, ObservedPod};
use crate::pod::plan::Plan;
use crate::pod::record::{Phase, Record};
use crate::pod::status::{self, StatusContext, Waiting};
use crate::store::progress::{Report, View};

/// A kubelet's reasons for waiting that no patience ends.
const NEVER_BETTER: [&str; 2] = ["ErrImageNeverPull", "InvalidImageName"];

/// What a report is made from.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    /// The node.
    pub(super) node: &'a Node,
    /// What is wanted of the pod, and its last status.
    pub(super) view: &'a View,
    /// The pod with its ephemeral containers.
    pub(super) pod: &'a Pod,
    /// What the runtime shows.
    pub(super) observed: &'a ObservedPod,
    /// What is to be done, and what is waited for.
    pub(super) plan: &'a Plan,
    /// The containers whose image is on its way.
    pub(super) pulling: &'a BTreeSet<&'a str>,
    /// The containers with a step under way.
    pub(super) starting: &'a BTreeSet<String>,
    /// What is known of the targets of its debug containers.
    pub(super) targets: &'a Targets,
}

/// Makes the report.
pub(super) fn report(facts: &Facts<'_>) -> Report {
    let now = Timestamp::now();
    let ended: BTreeMap<String, ContainerStateTerminated> = facts
        .view
        .records
        .iter()
        .filter_map(|record| match &record.phase {
            Phase::Ended { terminated, .. } => Some((record.spec.name.clone(), terminated.clone())),
            _ => None,
        })
        .collect();
    let created = facts
        .pod
        .metadata
        .creation_timestamp
        .as_ref()
        .map_or(now, |time| time.0);
    let settled = settled(facts);
    let known = facts.view.kubernetes.as_ref().and_then(|pod| pod.status.as_ref());
    let status = status::pod_status(&StatusContext {
        pod: facts.pod,
        observed: &settled,
        waiting: &facts.plan.waiting,
        ended: &ended,
        known: known.filter(|_| facts.view.is_current),
        theirs: &known.map_or_else(BTreeMap::new, |known| theirs(facts, known)),
        previous: Some(&facts.view.status),
        node: facts.node,
        evicted: facts.view.evicted.as_ref(),
        start_time: created,
        now,
    });
    let own = facts.view.records.iter();
    let own = own.map(|record| (record.spec.name.clone(), launch(facts, record)));
    let theirs = facts.view.theirs.iter();
    let theirs = theirs.map(|one| (one.name.clone(), their_launch(facts, &one.name)));
    let launches = own.chain(theirs).collect();
    let foreign = facts
        .view
        .records
        .iter()
        .map(|record| &record.spec.name)
        .filter(|name| facts.observed.newest(name).is_some_and(|found| !found.ours))
        .cloned()
        .collect();
    Report {
        status,
        launches,
        foreign,
    }
}

/// What the API server said of the kubelet's ephemeral containers.
fn theirs(facts: &Facts<'_>, known: &PodStatus) -> BTreeMap<String, ContainerStatus> {
    let is_theirs = |status: &&ContainerStatus| facts.view.theirs.iter().any(|one| one.name == status.name);
    let told = known.ephemeral_container_statuses.iter().flatten();
    told.filter(is_theirs)
        .map(|status| (status.name.clone(), status.clone()))
        .collect()
}

/// What the runtime shows, but for ephemeral containers whose end is seen and not written down yet: how they ended is
/// told once, whole and for ever. Until then they stand as before.
fn settled(facts: &Facts<'_>) -> ObservedPod {
    let mut observed = facts.observed.clone();
    let ending = |container: &ObservedContainer| {
        let mut records = facts.view.records.iter();
        container.ours
            && container.state == ContainerState::Exited
            && records.any(|record| {
                record.spec.name == container.name && !matches!(record.phase, Phase::Ended { .. })
            })
    };
    // One that could not be started never ran.
    observed
        .containers
        .retain(|container| !ending(container) || container.started_at > 0);
    for container in observed
        .containers
        .iter_mut()
        .filter(|container| ending(container))
    {
        container.state = ContainerState::Running;
        container.finished_at = 0;
    }
    observed
}

fn launch(facts: &Facts<'_>, record: &Record) -> Launch {
    let name = record.spec.name.as_str();
    let mut launch = Launch::accepted(name);
    if let Phase::Ended { terminated, .. } = &record.phase {
        launch.end(terminated);
        return launch;
    }
    match facts.observed.of_record(record) {
        Some(found) if found.state == ContainerState::Running && facts.targets.is_asked(name) => {
            launch.stage = Stage::Creating;
            return launch;
        }
        Some(found) if found.state == ContainerState::Running => {
            launch.stage = Stage::Running;
            launch.files_at = facts.targets.files_at(name);
            return launch;
        }
        // Somebody else's: there is no record of its end to wait for.
        Some(found) if found.state == ContainerState::Exited && !found.ours => {
            launch.end(&status::containers::terminated(found));
            return launch;
        }
        found => launch.stage = stage(facts, name, found),
    }
    if let Some(Waiting { reason, message }) = facts.plan.waiting.get(name)
        && launch.stage == Stage::Waiting
    {
        launch.reason.clone_from(reason);
        launch.message.clone_from(message);
        launch.permanent = facts.plan.permanent.contains(name);
    }
    launch
}

/// How far the kubelet has come with an ephemeral container of the API server's: the runtime shows it, and what stands in
/// its way the kubelet says on the API's pod.
fn their_launch(facts: &Facts<'_>, name: &str) -> Launch {
    let mut launch = Launch::accepted(name);
    match facts.observed.newest(name) {
        Some(found) if found.state == ContainerState::Exited => {
            launch.end(&status::containers::terminated(found));
        }
        Some(found) if found.state == ContainerState::Running => launch.stage = Stage::Running,
        Some(_) => launch.stage = Stage::Creating,
        None => {
            let known = facts.view.kubernetes.as_ref();
            let statuses = known.and_then(|pod| pod.status.as_ref()?.ephemeral_container_statuses.as_ref());
            let mut statuses = statuses.into_iter().flatten();
            let status = statuses.find(|status| status.name == name);
            let waiting = status.and_then(|status| status.state.as_ref()?.waiting.as_ref());
            if let Some(waiting) = waiting
                && waiting.reason.as_deref() != Some("ContainerCreating")
            {
                launch.stage = Stage::Waiting;
                launch.reason = waiting.reason.clone().unwrap_or_default();
                launch.message = waiting.message.clone().unwrap_or_default();
                launch.permanent = NEVER_BETTER.contains(&launch.reason.as_str());
            }
        }
    }
    launch
}

fn stage(facts: &Facts<'_>, name: &str, found: Option<&ObservedContainer>) -> Stage {
    let obstacle = facts
        .plan
        .waiting
        .get(name)
        .is_some_and(|waiting| waiting.reason != "ContainerCreating" || !waiting.message.is_empty());
    if facts.pulling.contains(name) {
        Stage::Pulling
    } else if obstacle {
        Stage::Waiting
    } else if found.is_some() || facts.starting.contains(name) {
        Stage::Creating
    } else {
        Stage::Accepted
    }
}
