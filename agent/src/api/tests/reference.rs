//! The writes that were recorded from API servers, sent to this one: the same codes, reasons, causes and fields.

use super::*;

/// What a request of the older form is asked as.
const OLD_KUBECTL: &str = "kubectl/v1.20.2 (linux/amd64) kubernetes/faecb19";

const PODS: &str = "/api/v1/namespaces/default/pods";

fn recorded(text: &str) -> serde_json::Map<String, Value> {
    let mut reference: Value = serde_json::from_str(text).expect("JSON");
    reference["cases"]
        .as_object_mut()
        .map(std::mem::take)
        .expect("cases")
}

fn merge(into: &mut Value, from: &Value) {
    for (key, value) in from.as_object().into_iter().flatten() {
        into[key] = value.clone();
    }
}

fn append(pod: &mut Value, containers: &Value) {
    let list = &mut pod["spec"]["ephemeralContainers"];
    let mut all = list.as_array().cloned().unwrap_or_default();
    all.extend(containers.as_array().into_iter().flatten().cloned());
    *list = Value::Array(all);
}

/// Code, reason, causes and kind, as they were recorded.
fn expected(case: &Value) -> Value {
    json!([case["code"], case["reason"], case["causes"], case["kind"]])
}

/// Code, reason, causes without their words, and what the details say it is about.
fn given(code: u16, answer: &Value) -> Value {
    if code < 300 {
        return json!([code, null, [], null]);
    }
    let causes = answer["details"]["causes"].as_array().into_iter().flatten();
    let causes: Vec<Value> = causes
        .map(|cause| json!({"reason": cause["reason"], "field": cause["field"]}))
        .collect();
    json!([code, answer["reason"], causes, answer["details"]["kind"]])
}

#[tokio::test]
async fn writes_are_answered_as_an_api_server_answered_them() {
    let text = include_str!("../reference/answers.json");
    let reference: Value = serde_json::from_str(text).expect("JSON");
    let node = Node::start().await;
    let cases = recorded(text);
    assert_eq!(cases.len(), 28);
    for (case_name, case) in &cases {
        let name = format!("case-{}", case_name.to_lowercase());
        let mut sample = reference["samplePod"].clone();
        sample["metadata"]["name"] = json!(name);
        merge(&mut sample["spec"], &case["podSpec"]);
        let (code, _) = node.request("POST", PODS, JSON, &sample).await;
        assert_eq!(code, 201, "{name}");

        let path = format!("{PODS}/{name}");
        let subresource = format!("{path}/ephemeralcontainers");
        let mut last = (0, Value::Null);
        for step in case["steps"].as_array().expect("steps") {
            let (_, mut pod) = node.get(&path).await;
            append(&mut pod, &step["containers"]);
            merge(&mut pod["spec"], &step["spec"]);
            merge(&mut pod["metadata"], &step["meta"]);
            if step.get("set").is_some() {
                merge(&mut pod["spec"]["ephemeralContainers"][0], &step["set"]);
            }
            if step["edit"] == "remove" {
                pod["spec"]["ephemeralContainers"] = json!([]);
            }
            last = match (step["via"].as_str(), step.get("patch"), step.get("raw")) {
                (Some("pod"), ..) => node.request("PUT", &path, JSON, &pod).await,
                (Some("create"), ..) => {
                    let mut new = sample.clone();
                    new["metadata"]["name"] = json!(format!("{name}-new"));
                    append(&mut new, &step["containers"]);
                    node.request("POST", PODS, JSON, &new).await
                }
                (_, Some(patch), _) => {
                    let media_type = step["ctype"].as_str().expect("a type");
                    node.request("PATCH", &subresource, media_type, patch).await
                }
                (_, _, Some(raw)) => node.request("PUT", &subresource, JSON, raw).await,
                _ => node.request("PUT", &subresource, JSON, &pod).await,
            };
        }
        let (code, answer) = last;
        assert_eq!(given(code, &answer), expected(case), "{name}: {answer}");
        if code == 200 {
            assert_eq!(answer["kind"], "Pod", "{name}");
            assert_eq!(answer["metadata"].get("labels"), None, "{name}");
            assert_eq!(answer["spec"].get("activeDeadlineSeconds"), None, "{name}");
            for container in answer["spec"]["ephemeralContainers"].as_array().expect("a list") {
                assert_eq!(
                    container["terminationMessagePath"], "/dev/termination-log",
                    "{name}"
                );
            }
        }
    }
}

/// Whether an answer is the recorded one, where `...` stands for any value; the recorder left out `apiVersion`.
fn assert_like(case: &str, recorded: &Value, mut answer: Value) {
    let fields = answer.as_object_mut().expect("an object");
    assert_eq!(fields.shift_remove("apiVersion"), Some(json!("v1")), "{case}");
    for (key, value) in recorded["metadata"].as_object().into_iter().flatten() {
        let given = &mut answer["metadata"][key];
        if value == "..." && given.as_str().is_some_and(|text| !text.is_empty()) {
            *given = json!("...");
        }
    }
    assert_eq!(answer, *recorded, "{case}");
}

#[tokio::test]
async fn the_older_form_is_answered_as_an_api_server_of_its_time_answered_it() {
    let node = Node::start().await;
    let cases = recorded(include_str!("../reference/alpha.json"));
    assert_eq!(cases.len(), 14);
    for (case_name, case) in &cases {
        let name = format!("al-{case_name}");
        let pod = json!({
            "metadata": {"name": name},
            "spec": {"containers": [{"name": "main", "image": "busybox"}]},
        });
        assert_eq!(node.request("POST", PODS, JSON, &pod).await.0, 201, "{name}");
        let mut last = (0, Value::Null);
        for step in case["steps"].as_array().expect("steps") {
            let pod = step["pod"].as_str().unwrap_or(&name);
            let path = format!("{PODS}/{pod}/ephemeralcontainers");
            let method = step["method"].as_str().expect("a method");
            last = node.request_of(OLD_KUBECTL, method, &path, &step["body"]).await;
        }
        let (code, answer) = last;
        assert_eq!(
            (json!(code), &answer["kind"]),
            (case["code"].clone(), &case["kind"]),
            "{name}"
        );
        if code == 200 {
            assert_like(&name, &case["answer"], answer);
        } else {
            let mut case = case.clone();
            case["kind"] = answer["details"]["kind"].clone();
            assert_eq!(given(code, &answer), expected(&case), "{name}: {answer}");
        }
    }
}

#[tokio::test]
async fn strategic_patches_come_to_the_lists_that_an_api_server_made_of_them() {
    let node = Node::start().await;
    let reference: Value = serde_json::from_str(include_str!("../reference/patches.json")).expect("JSON");
    let cases = reference["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 62);
    let names_of = |list: &Value| -> Vec<String> {
        let names = list.as_array().into_iter().flatten().filter_map(Value::as_str);
        names.map(str::to_owned).collect()
    };
    for (number, case) in cases.iter().enumerate() {
        let name = format!("patch-{number}");
        let pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "main", "image": "busybox"}]}});
        assert_eq!(node.request("POST", PODS, JSON, &pod).await.0, 201, "{name}");
        let path = format!("{PODS}/{name}/ephemeralcontainers");
        let before: Vec<Value> = names_of(&case["before"])
            .into_iter()
            .map(|name| json!({"name": name, "image": "busybox"}))
            .collect();
        let patch = json!({"spec": {"ephemeralContainers": before}});
        assert_eq!(
            node.request("PATCH", &path, STRATEGIC, &patch).await.0,
            200,
            "{name}"
        );

        let (code, answer) = node.request("PATCH", &path, STRATEGIC, &case["patch"]).await;
        let expected = case.get("ours").unwrap_or(&case["code"]);
        assert_eq!(json!(code), *expected, "{case}: {answer}");
        let (_, pod) = node.get(&format!("{PODS}/{name}")).await;
        if code == 200 {
            assert_eq!(json!(names(&answer)), case["after"], "{case}");
            assert_eq!(names(&pod), names(&answer), "{case}");
        } else {
            assert_eq!(json!(names(&pod)), case["before"], "{case}");
        }
    }
}

#[tokio::test]
async fn a_client_of_today_and_one_of_then_write_the_same_list() {
    let node = Node::start().await;
    let older = json!({"ephemeralContainers": [debugger("one")]});
    let (code, answer) = node.request_of("curl/8.5.0", "PATCH", EPHEMERAL, &older).await;
    assert_eq!((code, &answer["kind"]), (200, &json!("EphemeralContainers")));
    let newer = json!({"spec": {"ephemeralContainers": [debugger("two")]}});
    let (code, answer) = node.request_of(OLD_KUBECTL, "PATCH", EPHEMERAL, &newer).await;
    assert_eq!((code, names(&answer)), (200, vec!["two", "one"]));

    // kubectl 1.20 debug: read, append, put back.
    let (_, mut list) = node.request_of(OLD_KUBECTL, "GET", EPHEMERAL, &Value::Null).await;
    assert_eq!(list["ephemeralContainers"].as_array().map(Vec::len), Some(2));
    list["ephemeralContainers"]
        .as_array_mut()
        .expect("a list")
        .push(debugger("three"));
    let (code, answer) = node.request_of(OLD_KUBECTL, "PUT", EPHEMERAL, &list).await;
    assert_eq!(
        (code, answer["ephemeralContainers"].as_array().map(Vec::len)),
        (200, Some(3))
    );
    let (_, pod) = node
        .request_of("kubectl/v1.36.3", "GET", EPHEMERAL, &Value::Null)
        .await;
    assert_eq!(
        (&pod["kind"], names(&pod)),
        (&json!("Pod"), vec!["two", "one", "three"])
    );
}
