//! The ephemeral containers that a real API server accepted, and what a real kubelet made of them: here they
//! have to come out the same, but for what is knowingly better.

use debuglet_proto::v1::ContainerStatusRequest;
use integration::{Agent, ContainerdVersion, Node, ephemeral_status, is_running, sleeping_pod, state_of};
use serde_json::{Map, Value, json};

on_both_versions!(
    each_case_goes_as_with_a_kubelet,
    the_runtime_is_asked_for_what_a_kubelet_asks_for
);

async fn each_case_goes_as_with_a_kubelet(version: ContainerdVersion) {
    let accepted = cases(include_str!("../../../agent/src/pod/reference/accepted.json"));
    let reported = cases(include_str!("../../../agent/src/pod/reference/status.json"));
    let seen = cases(include_str!("../data/seen.json"));
    assert_eq!(accepted.len(), 19);
    let node = Node::start(version).await;
    let agent = node.start_agent().await;

    let mut failures = Vec::new();
    for (case, facts) in &accepted {
        let pod = start_pod(&node, &agent, case, &facts["podSpec"]).await;
        let answer = agent
            .api()
            .debug("default", &pod, facts["asked"].as_array().unwrap())
            .await;
        assert_eq!(answer.status, 200, "{case}: {answer:?}");
        let (expected, events) = as_expected(case, &reported[case], &seen[case]);
        let wanted = comparable(&expected, &expected);
        let mut seen = json!(null);
        let mut told: Vec<String> = Vec::new();
        // What a case comes to is reached in steps: the difference counts that stays. The runtime can tell that a container
        // runs before it has answered StartContainer, so the event may come after the status.
        let reached = integration::settles(async || {
            seen = agent.api().pod("default", &pod).await.body;
            let shown = agent.api().events("default", &pod).await;
            told = shown.iter().filter_map(event).collect();
            comparable(&seen["status"], &expected) == wanted
                && events.iter().all(|event| told.contains(event))
        })
        .await;
        if !reached {
            failures.push(format!(
                "{case}: status {:#}\nexpected {wanted:#}\nevents {told:?}\nexpected {events:?}",
                comparable(&seen["status"], &expected)
            ));
        }
        if seen["spec"]["ephemeralContainers"] != facts["stored"] {
            failures.push(format!(
                "{case}: stored {:#}",
                seen["spec"]["ephemeralContainers"]
            ));
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {}:\n{}",
        failures.len(),
        accepted.len(),
        failures.join("\n")
    );
}

/// What this case must come to: as a kubelet reported it, but where debuglet is knowingly better.
fn as_expected(case: &str, reported: &Value, seen: &Value) -> (Value, Vec<String>) {
    let mut expected = reported.clone();
    if case == "command-not-found" {
        // A kubelet leaves it at RunContainerError, and shows what happened only as its last state.
        let status = &mut expected["statuses"][0];
        status["state"] = json!({ "terminated": status["lastState"]["terminated"].clone() });
        status["lastState"] = json!({});
    }
    for (index, message) in reported["terminationMessages"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        expected["statuses"][index]["state"]["terminated"]["message"] = message.clone();
    }
    let events = seen["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event.as_str().unwrap().to_owned());
    (expected, events.collect())
}

/// The parts of a status that are the same in every run, as the reference lists them.
fn comparable(status: &Value, expected: &Value) -> Value {
    let statuses = status["statuses"]
        .as_array()
        .or(status["ephemeralContainerStatuses"].as_array());
    let statuses: Vec<Value> = statuses
        .into_iter()
        .flatten()
        .cloned()
        .map(without_what_varies)
        .collect();
    let conditions = match status["podConditions"].as_object() {
        Some(conditions) => conditions.clone(),
        None => {
            let all = status["conditions"].as_array().into_iter().flatten();
            let pair = |condition: &Value| {
                (
                    condition["type"].as_str().unwrap().to_owned(),
                    condition["status"].clone(),
                )
            };
            all.map(pair)
                .filter(|(kind, _)| expected["podConditions"].get(kind).is_some())
                .collect()
        }
    };
    let conditions: std::collections::BTreeMap<_, _> = conditions.into_iter().collect();
    json!({ "phase": status["phase"], "conditions": conditions, "statuses": statuses })
}

fn without_what_varies(mut status: Value) -> Value {
    for time_or_id in ["containerID", "imageID"] {
        if let Some(value) = status.get_mut(time_or_id).filter(|value| *value != "") {
            *value = json!("given");
        }
    }
    // The image has two names in the runtime, which may give back either.
    if status["image"] == "docker.io/library/busybox:latest" {
        status["image"] = json!(integration::BUSYBOX);
    }
    let started = status["state"]["terminated"]["reason"] != "StartError";
    for (_, state) in status["state"].as_object_mut().unwrap() {
        for varying in ["startedAt", "finishedAt", "containerID"] {
            if let Some(value) = state.get_mut(varying) {
                *value = json!("given");
            }
        }
        let ended = state.get("exitCode").is_some();
        // Messages are compared where the container wrote them.
        if !ended || !started {
            state.as_object_mut().unwrap().remove("message");
        }
        if state["reason"] == "ImagePullBackOff" {
            state["reason"] = json!("ErrImagePull");
        }
    }
    status
}

/// An event about an ephemeral container, as `type reason container`.
fn event(event: &Value) -> Option<String> {
    let container = event["involvedObject"]["fieldPath"]
        .as_str()?
        .strip_prefix("spec.ephemeralContainers{")?;
    let text = |field: &str| event[field].as_str().unwrap_or_default();
    Some(format!(
        "{} {} {}",
        text("type"),
        text("reason"),
        container.trim_end_matches('}')
    ))
}

async fn the_runtime_is_asked_for_what_a_kubelet_asks_for(version: ContainerdVersion) {
    let asked = cases(include_str!(
        "../../../agent/src/pod/reference/container_config.json"
    ));
    let node = Node::start(version).await;
    let agent = node.start_agent().await;

    let mut failures = Vec::new();
    for (case, facts) in &asked {
        let pod = start_pod(&node, &agent, case, &facts["podSpec"]).await;
        let answer = agent
            .api()
            .debug("default", &pod, std::slice::from_ref(&facts["asked"]))
            .await;
        assert_eq!(answer.status, 200, "{case}: {answer:?}");
        let served = agent
            .api()
            .pod_until("default", &pod, |pod| state_of(pod, "dbg") == "running:")
            .await;

        let container_id = ephemeral_status(&served, "dbg")["containerID"].as_str().unwrap();
        let container_id = container_id.trim_start_matches("containerd://").to_owned();
        let request = ContainerStatusRequest {
            container_id,
            verbose: true,
        };
        let answer = node
            .cri()
            .runtime()
            .container_status(request)
            .await
            .unwrap()
            .into_inner();
        let info: Value = serde_json::from_str(&answer.info["info"]).unwrap();
        let mut config = info["config"].clone();
        let mut expected = facts["config"].clone();
        make_symbolic(&mut config, &mut expected, &served);
        if config != expected {
            failures.push(format!("{case}: {config:#}\nexpected {expected:#}"));
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {}:\n{}",
        failures.len(),
        asked.len(),
        failures.join("\n")
    );
}

/// Puts what differs in every run out of both: ids, paths, addresses, and what debuglet adds of its own.
fn make_symbolic(config: &mut Value, expected: &mut Value, pod: &Value) {
    let annotations = config["annotations"].as_object_mut().unwrap();
    assert!(
        annotations.shift_remove("io.kubernetes.container.hash").is_some(),
        "the hash that a kubelet compares"
    );
    for own in ["labels", "annotations"] {
        config[own]
            .as_object_mut()
            .unwrap()
            .retain(|name, _| !name.starts_with("io.debuglet."));
    }
    for label in ["io.kubernetes.pod.uid", "io.kubernetes.pod.name"] {
        let value = match label {
            "io.kubernetes.pod.uid" => &pod["metadata"]["uid"],
            _ => &pod["metadata"]["name"],
        };
        assert_eq!(&config["labels"][label], value);
        expected["labels"][label] = value.clone();
    }
    let image = config["image"]["image"].as_str().unwrap();
    assert!(
        image.starts_with("sha256:"),
        "an image id, so that no tag can move under it: {image}"
    );
    // 2.4 keeps the name that was asked for beside it.
    config["image"] = expected["image"].clone();
    for mounts in [config["mounts"].as_array_mut(), expected["mounts"].as_array_mut()] {
        for mount in mounts.into_iter().flatten() {
            assert!(mount["host_path"].as_str().unwrap().starts_with('/'));
            mount["host_path"] = json!("/");
        }
    }
    for envs in [config["envs"].as_array_mut(), expected["envs"].as_array_mut()] {
        for variable in envs.into_iter().flatten() {
            match variable["key"].as_str().unwrap() {
                "IP" => variable["value"] = json!("10.99.0.0"),
                "POD" => variable["value"] = pod["metadata"]["name"].clone(),
                _ => {}
            }
        }
    }
    // The page sizes are the machine's.
    for linux in [&mut config["linux"], &mut expected["linux"]] {
        linux["resources"]
            .as_object_mut()
            .unwrap()
            .shift_remove("hugepage_limits");
        if linux["security_context"]["namespace_options"]
            .get("target_id")
            .is_some()
        {
            linux["security_context"]["namespace_options"]["target_id"] = json!("the target");
        }
    }
    sort(config);
    sort(expected);
}

/// Makes objects with the same fields equal to look at.
fn sort(value: &mut Value) {
    if let Some(object) = value.as_object_mut() {
        object.sort_keys();
        object.values_mut().for_each(sort);
    }
}

/// Runs the sample pod, with the fields of this case.
async fn start_pod(node: &Node, agent: &Agent, case: &str, fields: &Value) -> String {
    let name = format!("i-{case}");
    let mut pod = sleeping_pod(&name);
    for (field, value) in fields.as_object().unwrap() {
        pod["spec"][field] = value.clone();
    }
    node.write_manifest(&format!("{name}.json"), &pod);
    agent
        .api()
        .pod_until("default", &name, |pod| {
            // The container that cannot start is what one case is about.
            is_running(pod)
                || pod["status"]["containerStatuses"][1]["state"]["waiting"].is_object()
                || pod["status"]["containerStatuses"][1]["state"]["terminated"].is_object()
        })
        .await;
    name
}

fn cases(text: &str) -> Map<String, Value> {
    serde_json::from_str::<Value>(text).unwrap()["cases"]
        .as_object()
        .unwrap()
        .clone()
}
