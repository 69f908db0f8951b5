//! Ephemeral containers for a pod that the cluster's API server has, too: they are for it to take, and for the kubelet to
//! start, while it answers and our rights reach. Otherwise they are accepted here, and run here.
//!
//! The order is safe whatever is lost on the way. Nothing is accepted here before the API server has answered, or was
//! given up; and it may have taken what it was given up for. Then the name stands in both places, for one container: who
//! creates it second, a kubelet or debuglet, finds the name taken in the runtime, and leaves it to the first.

use k8s_openapi::api::core::v1::{EphemeralContainer, Pod};

use crate::api::Context;
use crate::api::status::Failure;
use crate::kubernetes::ephemeral_containers::{Addition, AdditionError};
use crate::pod::asked_by::AskedBy;
use crate::pod::container_path::ContainerPath;
use crate::pod::same_container::same;
use crate::store::DryRun;
use crate::store::accept::{AcceptError, WantedList, requested};
use crate::store::events::{Happening, Severity};
use crate::store::kubernetes::KubernetesChange;

/// What came of it.
pub(super) enum Through {
    /// The API server has taken them; what the client is to be warned of.
    Taken(Vec<String>),
    /// They are for this node: because there is nobody else, or for this reason.
    Local(Option<Local>),
}

/// Containers that are for this node alone, and why.
pub(super) struct Local {
    uid: String,
    names: Vec<String>,
    reason: AdditionError,
}

/// Why nothing came of it.
pub(super) enum Refusal {
    /// The list cannot be accepted, here or there.
    Judged(AcceptError),
    /// The API server refuses it.
    Passed(Failure),
}

/// Has the API server take what a list adds to a pod of its own. Of a dry run it only says what it thinks.
pub(super) async fn write_through(
    context: &Context,
    asked_by: &AskedBy,
    namespace: &str,
    name: &str,
    wanted: &WantedList,
    dry_run: DryRun,
) -> Result<Through, Refusal> {
    let Some(api_server) = &context.api_server else {
        return Ok(Through::Local(None));
    };
    // The API server has no form for that, and a kubelet would make another container of it.
    if !wanted.copy_mounts.is_empty() {
        return Ok(Through::Local(None));
    }
    let store = &context.store;
    let new = store.new_containers(asked_by, namespace, name, wanted.clone());
    let Some(new) = new.await.map_err(Refusal::Judged)? else {
        return Ok(Through::Local(None));
    };
    let addition = Addition {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        behind: store.names_in_api_server(&new.uid),
        uid: new.uid,
        containers: new.containers,
    };
    let dry = dry_run == DryRun::All;
    match api_server.add_ephemeral_containers(&addition, dry).await {
        Ok(_) if dry => Ok(Through::Local(None)),
        Ok(pod) => {
            let warnings = changed(&addition.containers, &pod);
            // As if the watch had brought it: the client finds there what it has just been told of.
            store.apply_kubernetes(KubernetesChange::Written(Box::new(pod)));
            // The API server has seen debuglet's credential only.
            for container in &addition.containers {
                store.record_event(&addition.uid, requested(asked_by, container.name.clone()));
            }
            Ok(Through::Taken(warnings))
        }
        Err(AdditionError::Refused(status)) => Err(Refusal::Passed(Failure::passed_on(&status))),
        Err(reason) => Ok(Through::Local(Some(Local {
            uid: addition.uid,
            names: addition
                .containers
                .into_iter()
                .map(|container| container.name)
                .collect(),
            reason,
        }))),
    }
}

impl Local {
    /// What the client is warned of.
    pub(super) fn warning(&self) -> String {
        let names = self.names.join(", ");
        format!(
            "{names}: for this node alone, the cluster is not told of it yet: {}",
            self.reason
        )
    }

    /// Tells of it on the pod, once it is accepted.
    pub(super) fn record(&self, context: &Context) {
        for name in &self.names {
            let happening = Happening {
                severity: Severity::Warning,
                reason: "LocalEphemeralContainer",
                message: format!(
                    "Ephemeral container {name} runs on this node alone, the cluster is not told of it yet: {}",
                    self.reason
                ),
                container: Some(ContainerPath::Ephemeral(name.clone())),
            };
            context.store.record_event(&self.uid, happening);
        }
    }
}

/// Warnings about what the API server has taken otherwise than it was asked to: an admission plugin has changed it, or
/// somebody else was there first with the same name.
fn changed(asked: &[EphemeralContainer], pod: &Pod) -> Vec<String> {
    let spec = pod.spec.as_ref();
    let taken = || {
        spec.and_then(|spec| spec.ephemeral_containers.as_ref())
            .into_iter()
            .flatten()
    };
    asked
        .iter()
        .filter(|asked| !taken().any(|taken| taken.name == asked.name && same(taken, asked)))
        .map(|asked| {
            format!(
                "{}: the API server has it otherwise than it was asked for",
                asked.name
            )
        })
        .collect()
}
