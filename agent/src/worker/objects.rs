//! What a container needs of the API server at its launch: the objects that its variables come from, and the credentials
//! for its image. Read at each launch, and dropped with it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::context::Context;
use super::step::Outcome;
use crate::kubernetes::back_off::Growth;
use crate::kubernetes::objects::ReadError;
use crate::pod::discovered::Owner;
use crate::pod::objects::{NoObjects, Objects, needed};
use crate::pod::observed::Nanoseconds;
use crate::runtime::pull_secrets::PullSecrets;
use crate::store::events::Severity;

/// The objects that the variables of a container come from, for a pod that `owner` runs; debuglet where there is none.
pub(super) async fn objects(
    context: &Context,
    pod: &Pod,
    container: &Container,
    owner: Option<Owner>,
) -> Result<Objects, ReadError> {
    let wanted = needed(container);
    let reason = match (owner, &context.api_server) {
        (None, _) => NoObjects::Own,
        (Some(Owner::StaticPod), _) => NoObjects::StaticPod,
        (Some(Owner::Cri), _) => NoObjects::Cri,
        (Some(Owner::Kubelet), None) => NoObjects::NoApiServer,
        (Some(Owner::Kubelet), Some(api_server)) => {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            return api_server.objects(namespace, wanted).await.map(Objects::read);
        }
    };
    Ok(Objects::none(reason))
}

/// The container cannot be configured yet, for the `tries`th time in a row, counted from 0.
pub(super) fn not_configured(message: impl Into<String>, tries: u32) -> Outcome {
    let wait = Growth::REFUSAL.wait(tries).as_nanos();
    let wait = Nanoseconds::try_from(wait).unwrap_or(Nanoseconds::MAX);
    Outcome::failed("CreateContainerConfigError", message, wait)
}

/// The credentials of a pod's `imagePullSecrets`. Like a kubelet it goes on without one that cannot be had, and says so.
pub(super) async fn pull_secrets(context: &Context, pod: &Pod, container: &str) -> Option<Arc<PullSecrets>> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let names = names_of_pull_secrets(pod);
    if names.is_empty() {
        return None;
    }
    let mut secrets = PullSecrets::default();
    let mut missing = Vec::new();
    for name in names {
        let read = match &context.api_server {
            Some(api_server) => match api_server.secret(namespace, name).await {
                Ok(Some(secret)) => secrets.add(namespace, name, &secret),
                Ok(None) => Err(format!("secret {name:?} not found")),
                Err(error) => Err(error.to_string()),
            },
            None => Err(format!(
                "secret {namespace}/{name} cannot be read: {}",
                NoObjects::NoApiServer
            )),
        };
        missing.extend(read.err());
    }
    if !missing.is_empty() {
        let message = format!(
            "Some of the pod's imagePullSecrets are not used: {}; a pull may be denied",
            missing.join("; ")
        );
        context.tell(
            pod,
            Some(container),
            Severity::Warning,
            "FailedToRetrieveImagePullSecret",
            message,
        );
    }
    Some(Arc::new(secrets))
}

/// The names of a pod's pull secrets, each once.
pub(super) fn names_of_pull_secrets(pod: &Pod) -> std::collections::BTreeSet<&str> {
    let secrets = pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter());
    let names = secrets.flatten().map(|secret| secret.name.as_str());
    names.filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pull_secret_counts_once_and_a_nameless_one_not() {
        let pod = serde_json::from_value(serde_json::json!({
            "spec": {"containers": [], "imagePullSecrets": [{"name": "b"}, {"name": ""}, {"name": "a"}, {"name": "b"}]},
        }));
        let names = names_of_pull_secrets(pod.as_ref().expect("a pod"))
            .into_iter()
            .collect::<Vec<_>>();
        assert_eq!(names, ["a", "b"]);
    }
}
