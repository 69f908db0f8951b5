//! Adding ephemeral containers to a pod of the API server: PATCH of `pods/ephemeralcontainers` (KEP-277).

use std::time::Duration;

use k8s_openapi::api::core::v1::{EphemeralContainer, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::Status;
use serde_json::{Value, json};

use super::api_server::{ApiServer, Reach};
use super::failure::is_missing_right;

/// How long the API server may take, when it answered when it was last asked. A client waits for this.
const ANSWER: Duration = Duration::from_secs(5);
/// The same of one that did not: whoever comes to a node whose API server is away does not come to wait for it.
const ANSWER_OF_ONE_AWAY: Duration = Duration::from_secs(1);
/// How often it is asked where a connection breaks: one that was kept from before may be dead.
const TRIES: usize = 2;

/// Ephemeral containers for a pod of the API server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Addition {
    /// The pod's namespace.
    pub(crate) namespace: String,
    /// The pod's name.
    pub(crate) name: String,
    /// The UID that it must have.
    pub(crate) uid: String,
    /// The names of those that the pod has there, in their order, as far as is known: what is new comes behind them.
    pub(crate) behind: Vec<String>,
    /// The containers, none of which the pod has, with their defaults.
    pub(crate) containers: Vec<EphemeralContainer>,
}

/// Why they were not added, as far as is known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdditionError {
    /// 401, or 403 of an authorizer: it is not for us to do.
    #[error("the API server does not let debuglet add ephemeral containers: {0}")]
    NotAllowed(String),
    /// 404: it does not know the pod.
    #[error("the API server does not know the pod")]
    NoSuchPod,
    /// It judged the containers, or which pod is meant (409), and refused them.
    #[error("the API server refuses it: {}", .0.message)]
    Refused(Box<Status>),
    /// No answer, or none that means anything. What was asked for may have been done.
    #[error("the API server does not answer: {0}")]
    NoAnswer(String),
}

impl ApiServer {
    /// Adds ephemeral containers to a pod; answers the pod as it is then.
    ///
    /// It can be repeated. The patch names the pod's UID, so that no namesake gets them, and no version: the list is
    /// merged by name, and of what has come there meanwhile nothing can be changed by it, as the API server refuses
    /// changes of ephemeral containers. Where the answer is lost, the same patch says what was done.
    pub(crate) async fn add_ephemeral_containers(
        &self,
        addition: &Addition,
        dry_run: bool,
    ) -> Result<Pod, AdditionError> {
        let away = matches!(*self.reach().borrow(), Reach::Away(_));
        let within = if away { ANSWER_OF_ONE_AWAY } else { ANSWER };
        let asked = async {
            let mut tries = 1..=TRIES;
            loop {
                tries.next();
                match self.patch(addition, dry_run).await {
                    Err(AdditionError::NoAnswer(_)) if !tries.is_empty() => {}
                    answer => return answer,
                }
            }
        };
        tokio::time::timeout(within, asked).await.unwrap_or_else(|_| {
            let seconds = within.as_secs();
            Err(AdditionError::NoAnswer(format!(
                "nothing came within {seconds} s"
            )))
        })
    }

    async fn patch(&self, addition: &Addition, dry_run: bool) -> Result<Pod, AdditionError> {
        let client = self
            .client()
            .await
            .map_err(|error| AdditionError::NoAnswer(error.to_string()))?;
        let pods: Api<Pod> = Api::namespaced(client, &addition.namespace);
        let patch = patch(addition);
        let parameters = PatchParams {
            dry_run,
            field_manager: Some("debuglet".to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Strategic(patch);
        let patched = pods.patch_ephemeral_containers(&addition.name, &parameters, &patch);
        self.heard(patched.await)
            .map_err(|(error, words)| meaning(error, words))
    }
}

/// The strategic merge patch. What is new comes last, as `kubectl debug` adds it: an API server puts it first where no
/// directive says what it comes behind. One that names what is gone, or leaves out what has come, does no harm
/// (`api/reference/patches.json`).
fn patch(addition: &Addition) -> Value {
    let new = addition.containers.iter().map(|container| &container.name);
    let names = addition.behind.iter().chain(new);
    let order: Vec<Value> = names.map(|name| json!({"name": name})).collect();
    json!({
        "metadata": {"uid": addition.uid},
        "spec": {"ephemeralContainers": addition.containers, "$setElementOrder/ephemeralContainers": order},
    })
}

/// What an error means, which says this in words.
fn meaning(error: kube::Error, words: String) -> AdditionError {
    let kube::Error::Api(status) = error else {
        return AdditionError::NoAnswer(words);
    };
    match status.code {
        401 => AdditionError::NotAllowed(words),
        403 if is_missing_right(&words) => AdditionError::NotAllowed(words),
        404 => AdditionError::NoSuchPod,
        // Too many requests: it has judged nothing.
        429 => AdditionError::NoAnswer(words),
        400..500 => AdditionError::Refused(status),
        _ => AdditionError::NoAnswer(words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: u16, message: &str) -> String {
        let status = Status {
            code,
            message: message.to_owned(),
            ..Status::default()
        };
        let meant = meaning(kube::Error::Api(Box::new(status)), message.to_owned());
        format!("{meant:?}")
            .split(['(', ' '])
            .next()
            .unwrap_or_default()
            .to_owned()
    }

    #[test]
    fn what_is_added_comes_behind_what_the_api_server_is_known_to_have() {
        let container = |name: &str| EphemeralContainer {
            name: name.to_owned(),
            ..EphemeralContainer::default()
        };
        let addition = Addition {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            uid: "u1".to_owned(),
            behind: vec!["b".to_owned(), "a".to_owned()],
            containers: vec![container("y"), container("x")],
        };
        let expected = json!({
            "metadata": {"uid": "u1"},
            "spec": {
                "$setElementOrder/ephemeralContainers": [{"name": "b"}, {"name": "a"}, {"name": "y"}, {"name": "x"}],
                "ephemeralContainers": [{"name": "y"}, {"name": "x"}],
            },
        });
        assert_eq!(patch(&addition), expected);
    }

    #[test]
    fn a_missing_right_a_refusal_and_no_answer_are_three_things() {
        let right = "pods \"web\" is forbidden: User \"system:node:node1\" cannot patch resource \
                     \"pods/ephemeralcontainers\" in API group \"\" in the namespace \"shop\"";
        let policy = "pods \"web\" is forbidden: violates PodSecurity \"restricted:latest\"";
        for (code, message, expected) in [
            (401, "Unauthorized", "NotAllowed"),
            (403, right, "NotAllowed"),
            (403, policy, "Refused"),
            (404, "pods \"web\" not found", "NoSuchPod"),
            (409, "Precondition failed: UID in precondition", "Refused"),
            (422, "Pod \"web\" is invalid", "Refused"),
            (429, "too many requests", "NoAnswer"),
            (500, "etcdserver: request timed out", "NoAnswer"),
            (503, "apiserver is shutting down", "NoAnswer"),
        ] {
            assert_eq!(answered(code, message), expected, "{code} {message}");
        }
    }
}
