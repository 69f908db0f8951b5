//! What is said of each container.

use super::super::containers::terminated;
use super::*;

#[test]
fn a_restarted_container_shows_how_it_ended_before() {
    let failed = exited("main", 1, 3);
    let status = Case::new(one(), [exited("main", 0, 1), running("main", 2), failed]).only();
    assert_eq!(
        status["state"],
        json!({"running": {"startedAt": "1970-01-01T00:00:10Z"}})
    );
    assert_eq!(status["lastState"]["terminated"]["exitCode"], json!(3));
    assert_eq!(
        status["lastState"]["terminated"]["containerID"],
        json!("containerd://main-1")
    );
    assert_eq!(
        (&status["restartCount"], &status["ready"], &status["started"]),
        (&json!(2), &json!(true), &json!(true))
    );
}

#[test]
fn a_container_that_waits_for_its_restart_says_why_and_how_it_ended() {
    let mut case = Case::new(one(), [exited("main", 4, 1)]).waiting("main", "CrashLoopBackOff");
    case.waiting.get_mut("main").expect("waiting").message = "starts again in 40s".into();
    let status = case.only();
    let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "starts again in 40s"}});
    assert_eq!(status["state"], waiting);
    assert_eq!(status["lastState"]["terminated"]["reason"], json!("Error"));
    assert_eq!(
        (&status["restartCount"], &status["ready"]),
        (&json!(4), &json!(false))
    );
}

#[test]
fn a_container_that_was_not_made_yet_waits_for_its_turn_or_says_why_not() {
    assert_eq!(
        Case::new(one(), []).only()["state"],
        json!({"waiting": {"reason": "ContainerCreating"}})
    );
    let mut spec = one();
    spec["initContainers"] = json!([{"name": "init"}]);
    assert_eq!(
        Case::new(spec, []).only()["state"],
        json!({"waiting": {"reason": "PodInitializing"}})
    );
    let status = Case::new(one(), []).waiting("main", "ErrImagePull").only();
    assert_eq!(status["state"], json!({"waiting": {"reason": "ErrImagePull"}}));
    assert_eq!(
        (&status["image"], &status["imageID"], &status["started"]),
        (&json!("busybox"), &json!(""), &json!(false))
    );
    assert!(status.get("containerID").is_none() && status.get("resources").is_none());
}

#[test]
fn a_container_that_ran_and_is_gone_is_lost_and_counts_as_restarted() {
    let before = Case::new(one(), [running("main", 2)]).status();
    let case = Case::new(one(), []).after(before);
    let status = case.only();
    assert_eq!(
        status["lastState"]["terminated"]["reason"],
        json!("ContainerStatusUnknown")
    );
    assert_eq!(status["lastState"]["terminated"]["exitCode"], json!(137));
    assert_eq!(status["restartCount"], json!(3));
    assert_eq!(case.phase(), "Running", "it is to be restarted");
    // And it stays that way, neither counted again nor forgotten.
    let later = Case::new(one(), []).after(case.status());
    assert_eq!(later.only(), status);
}

#[test]
fn an_init_container_that_the_pod_has_come_past_has_completed() {
    let mut spec = one();
    spec["initContainers"] = json!([{"name": "init"}]);
    let status = Case::new(spec, [running("main", 0)]).status();
    let init = &status.init_container_statuses.as_ref().expect("statuses")[0];
    assert!(init.ready);
    assert!(conditions(&status).iter().all(|(_, status, _)| status == "True"));
}

#[test]
fn the_record_of_an_ephemeral_container_has_the_last_word() {
    let mut spec = one();
    spec["ephemeralContainers"] = json!([{"name": "dbg", "image": "busybox"}]);
    let observed = ObservedContainer {
        message: "bye".into(),
        ..exited("dbg", 0, 3)
    };
    let record = terminated(&observed);
    let mut case = Case::new(spec.clone(), [running("main", 0), observed]);
    let of = |case: &Case| {
        case.status()
            .ephemeral_container_statuses
            .expect("statuses")
            .remove(0)
    };
    let as_observed = of(&case);
    case.ended.insert("dbg".into(), record);
    assert_eq!(of(&case), as_observed, "the record says what the runtime said");

    // The runtime forgets it, and the image is known only from the status before.
    let mut forgotten = Case::new(spec, [running("main", 0)])
        .after(case.status())
        .waiting("dbg", "ErrImagePull");
    forgotten.ended = case.ended;
    assert_eq!(of(&forgotten), as_observed);
}

#[test]
fn an_ephemeral_container_that_was_stopped_before_its_start_has_no_id() {
    let mut spec = one();
    spec["ephemeralContainers"] = json!([{"name": "dbg", "image": "busybox"}]);
    let mut case = Case::new(spec, []);
    let stopped = ContainerStateTerminated {
        exit_code: 137,
        reason: Some("Error".into()),
        ..Default::default()
    };
    case.ended.insert("dbg".into(), stopped);
    let status = case
        .status()
        .ephemeral_container_statuses
        .expect("statuses")
        .remove(0);
    assert_eq!((status.image.as_str(), status.container_id), ("busybox", None));
    let ended = status
        .state
        .and_then(|state| state.terminated)
        .expect("terminated");
    assert_eq!(ended.exit_code, 137);
}

#[test]
fn a_created_ephemeral_container_still_waits() {
    let mut spec = one();
    spec["ephemeralContainers"] = json!([{"name": "dbg", "image": "busybox"}]);
    let case = Case::new(spec, [container("dbg", 0, ContainerState::Created)]);
    let status = case
        .status()
        .ephemeral_container_statuses
        .expect("statuses")
        .remove(0);
    let waiting = status.state.and_then(|state| state.waiting).expect("waiting");
    assert_eq!(waiting.reason.as_deref(), Some("ContainerCreating"));
    assert_eq!(status.container_id.as_deref(), Some("containerd://dbg-0"));
}

#[test]
fn containers_are_listed_by_name_and_init_containers_in_their_order() {
    let spec = json!({
        "containers": [{"name": "b"}, {"name": "a"}], "initContainers": [{"name": "z"}, {"name": "y"}],
        "ephemeralContainers": [{"name": "two"}, {"name": "one"}],
    });
    let status = Case::new(spec, []).status();
    let names = |statuses: Option<Vec<ContainerStatus>>| {
        statuses
            .into_iter()
            .flatten()
            .map(|status| status.name)
            .collect::<Vec<_>>()
    };
    assert_eq!(names(status.container_statuses), ["a", "b"]);
    assert_eq!(names(status.init_container_statuses), ["z", "y"]);
    assert_eq!(names(status.ephemeral_container_statuses), ["one", "two"]);
}

#[test]
fn mounts_are_listed_and_say_how_far_they_are_read_only() {
    let mut spec = one();
    spec["containers"][0]["volumeMounts"] = json!([
        {"name": "a", "mountPath": "/a"},
        {"name": "b", "mountPath": "/b", "readOnly": true},
        {"name": "c", "mountPath": "/c", "readOnly": true, "recursiveReadOnly": "IfPossible"},
    ]);
    let mut case = Case::new(spec, []);
    case.node.recursive_read_only = true;
    assert_eq!(
        case.only()["volumeMounts"],
        json!([
            {"name": "a", "mountPath": "/a"},
            {"name": "b", "mountPath": "/b", "readOnly": true, "recursiveReadOnly": "Disabled"},
            {"name": "c", "mountPath": "/c", "readOnly": true, "recursiveReadOnly": "Enabled"},
        ])
    );
}

#[test]
fn resources_of_a_container_are_shown_as_asked_for() {
    let mut spec = one();
    spec["containers"][0]["resources"] = json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}});
    let case = Case::new(spec, [running("main", 0)]);
    let status = case.only();
    assert_eq!(
        status["resources"],
        json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}})
    );
    assert_eq!(status["allocatedResources"], json!({"cpu": "100m"}));
    assert_eq!(case.status().qos_class.as_deref(), Some("Burstable"));
}

#[test]
fn termination_messages_share_the_pods_bound() {
    let containers: Vec<_> = (0..12)
        .map(|number| json!({"name": format!("c{number}")}))
        .collect();
    let ended = (0..12).map(|number| ObservedContainer {
        message: "x".repeat(4096),
        ..exited(&format!("c{number}"), 0, 1)
    });
    let status = Case::new(json!({"containers": containers, "restartPolicy": "Never"}), ended).status();
    for container in status.container_statuses.expect("statuses") {
        let ended = container
            .state
            .and_then(|state| state.terminated)
            .expect("terminated");
        assert_eq!(ended.message.map(|message| message.len()), Some(1024));
    }
}
