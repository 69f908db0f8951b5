//! Every status that a kubelet reported for the ephemeral containers of `reference/accepted.json`.

use super::*;

/// What an API server stored, and how a kubelet reported it, see the files' `about`.
const ACCEPTED: &str = include_str!("../../reference/accepted.json");
const REPORTED: &str = include_str!("../../reference/status.json");

fn time_of(text: &Value) -> i64 {
    let text = text.as_str().expect("a time");
    text.parse::<Timestamp>().expect(text).as_second() * SECOND
}

/// The runtime's view of an ephemeral container that a kubelet reported so.
fn observed_from(reported: &Value, message: Option<&str>) -> Option<ObservedContainer> {
    let id = reported
        .get("containerID")?
        .as_str()?
        .strip_prefix("containerd://")?;
    let state = &reported["state"];
    let ended = [&state["terminated"], &reported["lastState"]["terminated"]];
    let ended = ended.into_iter().find(|ended| ended.is_object());
    let kind = if ended.is_some() {
        ContainerState::Exited
    } else {
        ContainerState::Running
    };
    let name = reported["name"].as_str()?;
    let mut container = ObservedContainer {
        id: id.into(),
        image: reported["image"].as_str()?.into(),
        image_id: reported["imageID"].as_str()?.into(),
        message: message.unwrap_or_default().into(),
        ..container(name, 0, kind)
    };
    match ended {
        Some(ended) => {
            container.started_at = time_of(&ended["startedAt"]);
            container.finished_at = time_of(&ended["finishedAt"]);
            container.exit_code = i32::try_from(ended["exitCode"].as_i64()?).ok()?;
            container.reason = ended["reason"].as_str()?.into();
        }
        None => container.started_at = time_of(&state["running"]["startedAt"]),
    }
    Some(container)
}

#[test]
fn ephemeral_containers_are_reported_as_by_a_kubelet() {
    let accepted: Value = serde_json::from_str(ACCEPTED).expect("the accepted cases");
    let reported: Value = serde_json::from_str(REPORTED).expect("the reported cases");
    let cases = reported["cases"].as_object().expect("cases");
    assert_eq!(cases.len(), 19);
    for (name, reported) in cases {
        let mut spec = accepted["samplePod"]["spec"].clone();
        for (field, value) in accepted["cases"][name]["podSpec"].as_object().expect("a spec") {
            spec[field] = value.clone();
        }
        spec["ephemeralContainers"] = accepted["cases"][name]["stored"].clone();
        let mut case = Case::new(spec, [running("main", 0)]);
        if name == "target-crashed" {
            let bad = ObservedContainer {
                reason: "StartError".into(),
                ..exited("bad", 0, 128)
            };
            case.observed.containers.push(bad);
            case = case.waiting("bad", "RunContainerError");
        }
        let message = reported
            .get("terminationMessages")
            .and_then(|messages| messages[0].as_str());
        let mut expected = reported["statuses"].clone();
        for status in expected.as_array_mut().expect("statuses") {
            case.observed.containers.extend(observed_from(status, message));
            // A command that cannot be started has ended: a kubelet shows that only after its own restart.
            if name == "command-not-found" {
                status["state"] = status["lastState"].take();
                status["lastState"] = json!({});
            } else if let Some(reason) = status["state"]["waiting"]["reason"].as_str() {
                case.waiting
                    .extend([waits(status["name"].as_str().expect("a name"), reason)]);
            }
            if let Some(message) = message {
                status["state"]["terminated"]["message"] = json!(message);
            }
        }
        let status = case.status();
        let statuses = serde_json::to_value(&status.ephemeral_container_statuses).expect("JSON");
        assert_eq!(statuses, expected, "{name}");
        assert_eq!(json!(status.phase), reported["phase"], "{name}");
        let names = conditions(&status)
            .into_iter()
            .map(|(name, status, _)| (name, Value::String(status)));
        assert_eq!(
            Value::Object(names.collect()),
            reported["podConditions"],
            "{name}"
        );
    }
}
