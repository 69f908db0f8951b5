use serde_json::{Value, json};

use super::*;

fn status_of(pod: Value) -> String {
    pod_line(&serde_json::from_value(pod).unwrap()).status
}

fn with_containers(states: &Value) -> Value {
    let statuses: Vec<Value> = states
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .map(|(index, state)| {
            json!({"name": format!("c{index}"), "image": "i", "imageID": "", "restartCount": 2,
                   "ready": state.get("running").is_some(), "state": state})
        })
        .collect();
    let containers: Vec<Value> = (0..statuses.len())
        .map(|index| json!({"name": format!("c{index}")}))
        .collect();
    json!({
        "metadata": {"name": "p"},
        "spec": {"containers": containers},
        "status": {"phase": "Running", "containerStatuses": statuses,
                   "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn with_init(state: &Value) -> Value {
    json!({
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]},
        "status": {"phase": "Pending", "initContainerStatuses": [
            {"name": "i", "image": "i", "imageID": "", "restartCount": 0, "ready": false, "state": state}
        ]},
    })
}

#[test]
fn the_word_is_the_phase_unless_a_container_has_more_to_say() {
    let running = json!({"running": {}});
    let completed = json!({"terminated": {"exitCode": 0, "reason": "Completed"}});
    let failed = json!({"terminated": {"exitCode": 1, "reason": "Error"}});
    let looping = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    for (states, word) in [
        (json!([running]), "Running"),
        (json!([running, looping]), "CrashLoopBackOff"),
        (json!([completed]), "Completed"),
        (json!([completed, failed]), "Error"),
        (json!([completed, running]), "Running"),
        (
            json!([{"waiting": {"reason": "ContainerCreating"}}]),
            "ContainerCreating",
        ),
        (
            json!([{"waiting": {"reason": "PodInitializing"}}]),
            "PodInitializing",
        ),
        (
            json!([{"waiting": {"reason": "ImagePullBackOff"}}, looping]),
            "ImagePullBackOff",
        ),
        (json!([{"waiting": {}}]), "Running"),
        (json!([{"terminated": {"exitCode": 3}}]), "ExitCode:3"),
        (
            json!([{"terminated": {"exitCode": 137, "signal": 9}}]),
            "Signal:9",
        ),
    ] {
        assert_eq!(status_of(with_containers(&states)), word, "{states}");
    }
    let pod = json!({"metadata": {}, "status": {"phase": "Failed", "reason": "NotSupported"}});
    assert_eq!(status_of(pod), "NotSupported");
}

#[test]
fn ready_counts_what_is_ready_of_all() {
    let pod = with_containers(&json!([{"running": {}}, {"waiting": {"reason": "ContainerCreating"}}]));
    let line = pod_line(&serde_json::from_value(pod).unwrap());
    assert_eq!((line.ready, line.total, line.restarts.count), (1, 2, 4));
}

#[test]
fn an_init_container_in_the_way_is_named() {
    assert_eq!(status_of(with_init(&json!({"running": {}}))), "Init:0/1");
    for (state, word) in [
        (json!({"waiting": {"reason": "PodInitializing"}}), "Init:0/1"),
        (
            json!({"waiting": {"reason": "CrashLoopBackOff"}}),
            "Init:CrashLoopBackOff",
        ),
        (json!({"terminated": {"exitCode": 2}}), "Init:ExitCode:2"),
        (
            json!({"terminated": {"exitCode": 137, "signal": 9}}),
            "Init:Signal:9",
        ),
        (json!({"terminated": {"exitCode": 0}}), "Pending"),
    ] {
        assert_eq!(status_of(with_init(&state)), word, "{state}");
    }
    assert_eq!(
        status_of(with_init(
            &json!({"terminated": {"exitCode": 1, "reason": "Error"}})
        )),
        "Init:Error"
    );
}

#[test]
fn a_sidecar_counts_among_the_containers() {
    let pod = json!({
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]},
        "status": {"phase": "Running",
            "initContainerStatuses": [{"name": "s", "image": "i", "imageID": "", "restartCount": 0,
                                        "ready": true, "started": true, "state": {"running": {}}}],
            "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "restartCount": 0,
                                   "ready": true, "state": {"running": {}}}]},
    });
    let line = pod_line(&serde_json::from_value(pod).unwrap());
    assert_eq!((line.ready, line.total, line.status.as_str()), (2, 2, "Running"));
}

#[test]
fn a_pod_that_is_being_removed_is_terminating() {
    let mut pod = with_containers(&json!([{"running": {}}]));
    pod["metadata"]["deletionTimestamp"] = "2026-11-21T03:00:00Z".into();
    assert_eq!(status_of(pod), "Terminating");
}

#[test]
fn of_somebody_elses_pod_it_is_not_known_what_is_ready() {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {},
        "spec": {"containers": [{"name": "init"}, {"name": "main"}]},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "Unknown", "reason": RUN_BY_SOMEBODY_ELSE}],
            "containerStatuses": [
                {"name": "init", "image": "i", "imageID": "", "restartCount": 0, "ready": false,
                 "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
                {"name": "main", "image": "i", "imageID": "", "restartCount": 0, "ready": false,
                 "state": {"running": {}}},
            ],
        },
    }))
    .unwrap();
    let line = pod_line(&pod);
    assert_eq!((line.ready().as_str(), line.status.as_str()), ("?/2", "Running"));
}

#[test]
fn one_that_completed_beside_one_that_runs_and_is_not_ready_is_not_ready() {
    let mut pod = with_containers(&json!([
        {"terminated": {"exitCode": 0, "reason": "Completed"}},
        {"running": {}},
    ]));
    pod["status"]["conditions"] = json!([{"type": "Ready", "status": "False"}]);
    assert_eq!(status_of(pod), "NotReady");
}

#[test]
fn a_pod_that_is_over_does_not_terminate_and_one_on_a_lost_node_is_unknown() {
    for (status, word) in [
        (json!({"phase": "Succeeded"}), "Succeeded"),
        (json!({"phase": "Running", "reason": "NodeLost"}), "Unknown"),
        (json!({"phase": "Running", "reason": "Evicted"}), "Terminating"),
    ] {
        let pod = json!({"metadata": {"deletionTimestamp": "2026-11-21T03:00:00Z"}, "status": status});
        assert_eq!(status_of(pod), word, "{status}");
    }
}

#[test]
fn a_pod_that_is_held_back_from_scheduling_says_so() {
    let pod = json!({"metadata": {}, "status": {"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}});
    assert_eq!(status_of(pod), "SchedulingGated");
}

#[test]
fn restarts_say_when_the_last_one_was() {
    let now: Timestamp = "2026-11-21T04:00:00Z".parse().unwrap();
    let mut pod = with_containers(&json!([{"running": {}}, {"running": {}}]));
    let restarts = |pod: &Value| pod_line(&serde_json::from_value(pod.clone()).unwrap()).restarts(now);
    assert_eq!(restarts(&pod), "4");
    for (index, finished) in ["2026-11-21T03:00:00Z", "2026-11-21T03:58:00Z"]
        .iter()
        .enumerate()
    {
        pod["status"]["containerStatuses"][index]["lastState"] =
            json!({"terminated": {"exitCode": 1, "finishedAt": finished}});
    }
    assert_eq!(restarts(&pod), "4 (2m ago)");
    for index in 0..2 {
        pod["status"]["containerStatuses"][index]["restartCount"] = json!(0);
    }
    assert_eq!(restarts(&pod), "0");
}

#[test]
fn while_a_pod_is_initialized_all_restarts_count_and_later_those_of_sidecars() {
    let init = |name: &str, count: i32, state: Value| json!({"name": name, "image": "i", "imageID": "", "restartCount": count, "ready": false, "state": state});
    let mut pod = json!({
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c"}],
            "initContainers": [{"name": "s", "restartPolicy": "Always"}, {"name": "i"}]},
        "status": {"phase": "Pending", "initContainerStatuses": [
            init("s", 1, json!({"terminated": {"exitCode": 0}})), init("i", 2, json!({"running": {}}))],
            "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "restartCount": 4, "ready": true,
                "state": {"running": {}}}]},
    });
    let count = |pod: &Value| {
        pod_line(&serde_json::from_value(pod.clone()).unwrap())
            .restarts
            .count
    };
    assert_eq!(count(&pod), 3);
    pod["status"]["conditions"] = json!([{"type": "Initialized", "status": "True"}]);
    assert_eq!(count(&pod), 5);
}

#[test]
fn the_wide_columns_say_none_where_there_is_nothing() {
    let pod: Pod = serde_json::from_value(json!({"metadata": {}})).unwrap();
    assert_eq!(
        (pod_ip(&pod), node_name(&pod), nominated_node(&pod)),
        ("<none>", "<none>", "<none>")
    );
    assert_eq!(readiness_gates(&pod), "<none>");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {}, "spec": {"containers": [], "nodeName": "node1",
            "readinessGates": [{"conditionType": "a"}, {"conditionType": "b"}]},
        "status": {"podIPs": [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}],
            "conditions": [{"type": "a", "status": "True"}, {"type": "b", "status": "False"}]},
    }))
    .unwrap();
    assert_eq!((pod_ip(&pod), node_name(&pod)), ("10.0.0.7", "node1"));
    assert_eq!(readiness_gates(&pod), "1/2");
}

#[test]
fn every_state_is_shown_as_by_a_kube_apiserver() {
    let reference: Value = serde_json::from_str(include_str!("../reference/pod_rows.json")).unwrap();
    let now: Timestamp = reference["now"].as_str().unwrap().parse().unwrap();
    let rows = reference["rows"].as_array().unwrap();
    assert!(!rows.is_empty());
    for row in rows {
        let pod: Pod = serde_json::from_value(row.clone()).unwrap();
        let line = pod_line(&pod);
        let cells = [
            line.ready(),
            line.status.clone(),
            line.restarts(now),
            pod_ip(&pod).to_owned(),
            node_name(&pod).to_owned(),
            nominated_node(&pod).to_owned(),
            readiness_gates(&pod),
        ];
        assert_eq!(json!(cells), row["cells"], "{row}");
    }
}
