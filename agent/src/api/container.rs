//! The container of a served pod that a log, an attach or an exec is about.

use k8s_openapi::api::core::v1::{Container, ContainerState, ContainerStatus, Pod};

use super::status::Failure;
use crate::pod::defaults::as_container;

/// A container of a served pod, of any of its three kinds.
pub(crate) struct ServedContainer {
    /// As the pod's spec says it.
    pub(crate) spec: Container,
    /// As it is now; `None` while nothing is known of it.
    pub(crate) status: Option<ContainerStatus>,
    namespace: String,
    pod: String,
}

impl ServedContainer {
    /// The container `name` of `pod`; an empty name stands for its only container. (Which one of several a person
    /// means, by the pod's annotation or its order, is for the client to say.)
    pub(crate) fn find(pod: &Pod, name: &str) -> Result<ServedContainer, Failure> {
        let metadata = &pod.metadata;
        let (namespace, pod_name) = (
            metadata.namespace.clone().unwrap_or_default(),
            metadata.name.clone().unwrap_or_default(),
        );
        let spec = pod.spec.clone().unwrap_or_default();
        let name = match (name, &spec.containers[..]) {
            ("", [only]) => only.name.clone(),
            ("", several) => {
                let init = spec.init_containers.as_deref().unwrap_or_default();
                let names: Vec<_> = several.iter().chain(init).map(|one| one.name.as_str()).collect();
                let names = names.join(", ");
                let message = format!("{namespace}/{pod_name} has several containers, name one of: {names}");
                return Err(Failure::bad_request(message));
            }
            (name, _) => name.to_owned(),
        };
        let ordinary = spec
            .containers
            .into_iter()
            .chain(spec.init_containers.into_iter().flatten());
        let ephemeral = spec.ephemeral_containers.into_iter().flatten();
        let mut all = ordinary.chain(ephemeral.map(|one| as_container(&one)));
        let Some(spec) = all.find(|container| container.name == name) else {
            // As Kubernetes: it is the request that is wrong, the pod is there.
            let message = format!("{namespace}/{pod_name} has no container {name:?}");
            return Err(Failure::bad_request(message));
        };
        Ok(ServedContainer {
            spec,
            status: status_of(pod, &name).cloned(),
            namespace,
            pod: pod_name,
        })
    }

    /// The runtime's id of the container, which must run. To Kubernetes too it is the request that makes no sense.
    pub(crate) fn running_id(&self) -> Result<&str, Failure> {
        let running = self.status.as_ref().and_then(running_id);
        running.ok_or_else(|| {
            let what = match self.has_ended() {
                true => "has ended",
                false => "does not run",
            };
            Failure::bad_request(self.told(what))
        })
    }

    /// The runtime's id of the container whose log is meant: the newest one that was started, or with `previous`
    /// the one before it.
    pub(crate) fn logged_id(&self, previous: bool) -> Result<&str, Failure> {
        let status = self.status.as_ref();
        let last = status.and_then(|status| terminated_id(status.last_state.as_ref()));
        if previous {
            return last.ok_or_else(|| self.unlogged("did not run before"));
        }
        let newest =
            status.and_then(|status| running_id(status).or_else(|| terminated_id(status.state.as_ref())));
        newest
            .or(last)
            .ok_or_else(|| self.unlogged("has not been started yet"))
    }

    /// Whether it has ended, also where nobody knows under which id it ran.
    pub(crate) fn has_ended(&self) -> bool {
        let state = self.status.as_ref().and_then(|status| status.state.as_ref());
        state.is_some_and(|state| state.terminated.is_some())
    }

    /// Whether `id` is the container that runs now or ran last, not the one before it.
    pub(crate) fn is_newest(&self, id: &str) -> bool {
        self.logged_id(false).is_ok_and(|newest| newest == id)
    }

    /// The answer that there is no log, which to Kubernetes is a request that makes no sense.
    fn unlogged(&self, what: &str) -> Failure {
        Failure::bad_request(self.told(what))
    }

    /// What is so with it, and where it waits for something, for what.
    fn told(&self, what: &str) -> String {
        let waiting = self
            .status
            .as_ref()
            .and_then(|status| status.state.as_ref()?.waiting.as_ref());
        let why = waiting
            .into_iter()
            .flat_map(|waiting| [&waiting.reason, &waiting.message]);
        let mut told = format!("{:?} in {}/{} {what}", self.spec.name, self.namespace, self.pod);
        for why in why.flatten().filter(|why| !why.is_empty()) {
            told.push_str(": ");
            told.push_str(why);
        }
        told
    }
}

/// The status of the container `name`, whatever its kind.
pub(crate) fn status_of<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let kinds = [
        &status.container_statuses,
        &status.init_container_statuses,
        &status.ephemeral_container_statuses,
    ];
    kinds
        .into_iter()
        .flatten()
        .flatten()
        .find(|status| status.name == name)
}

/// The runtime's id of a container that runs.
pub(crate) fn running_id(status: &ContainerStatus) -> Option<&str> {
    status.state.as_ref()?.running.as_ref()?;
    without_runtime(status.container_id.as_deref()?)
}

fn terminated_id(state: Option<&ContainerState>) -> Option<&str> {
    without_runtime(state?.terminated.as_ref()?.container_id.as_deref()?)
}

/// A status writes `containerd://ID`.
fn without_runtime(container_id: &str) -> Option<&str> {
    container_id
        .split_once("://")
        .map(|(_, id)| id)
        .filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(status: &serde_json::Value) -> Pod {
        let pod = json!({
            "metadata": { "namespace": "shop", "name": "cart" },
            "spec": {
                "containers": [{ "name": "web" }],
                "initContainers": [{ "name": "setup" }],
                "ephemeralContainers": [{ "name": "debugger", "tty": true }],
            },
            "status": { "containerStatuses": [status] },
        });
        serde_json::from_value(pod).unwrap()
    }

    fn status(state: &serde_json::Value, last: &serde_json::Value) -> serde_json::Value {
        json!({ "name": "web", "image": "", "imageID": "", "ready": false, "restartCount": 1,
            "containerID": "containerd://new", "state": state, "lastState": last })
    }

    #[test]
    fn without_a_name_the_only_container_is_meant_and_of_several_one_must_be_named() {
        let mut pod = pod(&status(&json!({}), &json!({})));
        assert_eq!(ServedContainer::find(&pod, "").ok().unwrap().spec.name, "web");
        assert_eq!(
            ServedContainer::find(&pod, "debugger").ok().unwrap().spec.tty,
            Some(true)
        );
        let refused = |pod: &Pod, name: &str| ServedContainer::find(pod, name).err().unwrap();
        let unknown = refused(&pod, "nope");
        assert_eq!(unknown.status().code, Some(400));

        let sidecar = Container {
            name: "sidecar".to_owned(),
            ..Container::default()
        };
        pod.spec.get_or_insert_default().containers.push(sidecar);
        let several = refused(&pod, "");
        assert_eq!(several.status().code, Some(400));
        let message = several.status().message.clone().unwrap();
        assert!(message.ends_with("web, sidecar, setup"), "{message}");
    }

    #[test]
    fn a_container_that_does_not_run_makes_a_bad_request_which_is_told_what_it_waits_for() {
        let refused = |state: serde_json::Value| {
            let container = ServedContainer::find(&pod(&status(&state, &json!({}))), "web");
            let refused = container.ok().unwrap().running_id().err().unwrap();
            assert_eq!(refused.status().code, Some(400));
            refused.status().message.clone().unwrap()
        };
        let waiting = json!({ "waiting": { "reason": "ErrImagePull", "message": "no such image" } });
        assert_eq!(
            refused(waiting),
            "\"web\" in shop/cart does not run: ErrImagePull: no such image"
        );
        let ended = json!({ "terminated": { "exitCode": 0, "containerID": "containerd://old" } });
        assert_eq!(refused(ended), "\"web\" in shop/cart has ended");
        assert_eq!(refused(json!({})), "\"web\" in shop/cart does not run");
    }

    #[test]
    fn the_log_is_of_the_newest_container_that_was_started() {
        let ended = |id: &str| json!({ "terminated": { "exitCode": 1, "containerID": format!("containerd://{id}") } });
        let running = json!({ "running": {} });
        let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
        let logged = |state: &serde_json::Value, last: serde_json::Value, previous| {
            let container = ServedContainer::find(&pod(&status(state, &last)), "web")
                .ok()
                .unwrap();
            container.logged_id(previous).map(str::to_owned).ok()
        };
        assert_eq!(logged(&running, ended("old"), false).as_deref(), Some("new"));
        assert_eq!(logged(&running, ended("old"), true).as_deref(), Some("old"));
        assert_eq!(logged(&ended("new"), ended("old"), false).as_deref(), Some("new"));
        assert_eq!(logged(&waiting, ended("new"), false).as_deref(), Some("new"));
        assert_eq!(logged(&waiting, json!({}), false), None);
        let never = ServedContainer::find(&pod(&status(&waiting, &json!({}))), "web")
            .ok()
            .unwrap();
        let refused = never.logged_id(false).err().unwrap();
        assert_eq!(refused.status().code, Some(400), "as Kubernetes answers");
        assert_eq!(logged(&running, json!({}), true), None);
    }
}
