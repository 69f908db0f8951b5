//! What the API server tells of a pod that somebody else runs, and the runtime does not: whether it is ready. It counts
//! where it is about the very containers that run here.

use k8s_openapi::api::core::v1::{ContainerStatus, PodSpec, PodStatus};

use super::containers::is_sidecar;

/// Takes over the readiness of the containers from the status `known` to the API server, and leaves it open where that
/// says nothing about the container that runs. Answers `known` if it speaks of the whole pod as it is now.
pub(super) fn take_readiness<'a>(
    known: Option<&'a PodStatus>,
    spec: &PodSpec,
    init_containers: &mut [ContainerStatus],
    containers: &mut [ContainerStatus],
) -> Option<&'a PodStatus> {
    let is_sidecar = |status: &ContainerStatus| {
        let mut all = spec.init_containers.iter().flatten();
        all.any(|container| container.name == status.name && is_sidecar(container))
    };
    let of_init = known.and_then(|known| known.init_container_statuses.as_deref());
    let of_ordinary = known.and_then(|known| known.container_statuses.as_deref());
    let mut whole = true;
    let sidecars = init_containers.iter_mut().filter(|status| is_sidecar(status));
    let all = sidecars
        .map(|status| (status, of_init))
        .chain(containers.iter_mut().map(|status| (status, of_ordinary)));
    for (status, known) in all {
        let told = known
            .unwrap_or_default()
            .iter()
            .find(|known| known.name == status.name && known.container_id == status.container_id);
        (status.ready, status.started) = told.map_or((false, None), |told| (told.ready, told.started));
        whole &= told.is_some();
    }
    known.filter(|_| whole)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn statuses(value: &Value) -> Vec<ContainerStatus> {
        let list = value.as_array().expect("a list").iter().map(|status| {
            let mut status = status.clone();
            for (field, default) in [
                ("image", json!("")),
                ("imageID", json!("")),
                ("restartCount", json!(0)),
            ] {
                status[field] = default;
            }
            serde_json::from_value(status).expect("a status")
        });
        list.collect()
    }

    #[test]
    fn readiness_is_told_of_the_container_that_runs_and_of_no_other() {
        let spec = json!({
            "initContainers": [{"name": "setup"}, {"name": "proxy", "restartPolicy": "Always"}],
            "containers": [{"name": "main"}],
        });
        let spec: PodSpec = serde_json::from_value(spec).expect("a spec");
        let known = PodStatus {
            init_container_statuses: Some(statuses(&json!([
                {"name": "proxy", "containerID": "c://p", "ready": true, "started": true},
            ]))),
            container_statuses: Some(statuses(&json!([
                {"name": "main", "containerID": "c://1", "ready": true, "started": true},
            ]))),
            ..PodStatus::default()
        };
        for (what, known, id, ready) in [
            ("this one", Some(&known), "c://1", true),
            ("the one before", Some(&known), "c://2", false),
            ("nothing is known", None, "c://1", false),
        ] {
            let mut init = statuses(&json!([
                {"name": "setup", "containerID": "c://s", "ready": true},
                {"name": "proxy", "containerID": "c://p", "ready": true},
            ]));
            let mut ordinary = statuses(&json!([{"name": "main", "containerID": id, "ready": true}]));
            let told = take_readiness(known, &spec, &mut init, &mut ordinary);
            assert_eq!(told.is_some(), ready, "{what}");
            assert_eq!(ordinary[0].ready, ready, "{what}");
            assert_eq!(ordinary[0].started, ready.then_some(true), "{what}");
            assert!(init[0].ready, "{what}: it succeeded, as the runtime tells");
            assert_eq!(init[1].ready, known.is_some(), "{what}");
        }
    }
}
