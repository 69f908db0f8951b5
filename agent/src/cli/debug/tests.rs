use super::*;
use clap::Parser;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

fn pod() -> Pod {
    serde_json::from_value(json!({
        "metadata": {"namespace": "shop", "name": "cart-x2lqp"},
        "spec": {"containers": [{"name": "cart"}, {"name": "envoy"}],
                 "ephemeralContainers": [{"name": "old", "image": "b"}]},
    }))
    .unwrap()
}

fn launch(value: Value) -> Launch {
    serde_json::from_value(value).unwrap()
}

/// What a run with these flags says of a launch that has ended.
fn ended(flags: &[&str], launch: Launch) -> Result<Launch, Failure> {
    let arguments = Line::try_parse_from([&["debug", "cart-x2lqp", "--image=b"], flags].concat())
        .unwrap()
        .arguments;
    let client = Client::new("/nowhere".into());
    let run = DebugRun {
        client: &client,
        namespace: "shop",
        pod: "cart-x2lqp",
        container: "debugger-c4kzt",
        arguments: &arguments,
    };
    run.ended_already(launch)
}

#[test]
fn an_unknown_target_is_answered_with_what_the_pod_has() {
    assert_eq!(check_target(&pod(), Some("envoy")), Ok(()));
    assert_eq!(check_target(&pod(), None), Ok(()));
    assert_eq!(
        check_target(&pod(), Some("carts")).unwrap_err().lines(),
        "debuglet: shop/cart-x2lqp has no container \"carts\" to target; it has: cart, envoy\n"
    );
}

#[test]
fn a_target_of_a_pod_without_containers_is_answered_in_words() {
    let mut empty = pod();
    empty.spec.as_mut().unwrap().containers.clear();
    assert_eq!(
        check_target(&empty, Some("cart")).unwrap_err().lines(),
        "debuglet: shop/cart-x2lqp has no container \"cart\" to target; it has no containers at all\n"
    );
}

#[test]
fn a_container_is_added_behind_those_that_are_there() {
    let container = serde_json::from_value(json!({"name": "new", "image": "b"})).unwrap();
    let patch = addition(&pod(), &container);
    assert_eq!(
        patch["spec"]["$setElementOrder/ephemeralContainers"],
        json!([{"name": "old"}, {"name": "new"}])
    );
    assert_eq!(patch["spec"]["ephemeralContainers"].as_array().unwrap().len(), 1);
}

#[test]
fn mounts_are_copied_from_the_target_or_the_only_container() {
    let copied = |pod: &Pod, flags: &[&str]| {
        let line = [&["debug", "cart-x2lqp", "--image=b"], flags].concat();
        copy_mounts(pod, &Line::try_parse_from(line).unwrap().arguments)
    };
    let from = |name: &str| {
        let copy: CopyMounts = serde_json::from_value(json!({"from": name})).unwrap();
        Ok(Some(copy))
    };
    assert_eq!(copied(&pod(), &[]), Ok(None));
    assert_eq!(
        copied(&pod(), &["--copy-mounts", "--target=envoy"]),
        from("envoy")
    );
    assert_eq!(
        copied(&pod(), &["--copy-mounts"]).unwrap_err().message,
        "shop/cart-x2lqp has several containers, and --copy-mounts is told none; it has: cart, envoy"
    );
    let mut single = pod();
    single.spec.as_mut().unwrap().containers.truncate(1);
    assert_eq!(copied(&single, &["--copy-mounts"]), from("cart"));
}

#[test]
fn a_name_that_the_pod_has_already_is_refused() {
    assert!(container_name(&pod(), None).unwrap().starts_with("debugger-"));
    assert_eq!(container_name(&pod(), Some("new")), Ok("new".into()));
    for taken in ["old", "cart"] {
        assert!(
            container_name(&pod(), Some(taken))
                .unwrap_err()
                .message
                .ends_with("already")
        );
    }
}

#[test]
fn a_container_that_ended_at_once_has_run() {
    let exited = launch(
        json!({"container": "debugger-c4kzt", "stage": "Terminated", "reason": "Error", "exitCode": 3}),
    );
    assert_eq!(exit_code(&ended(&[], exited).unwrap()), 3);
}

#[test]
fn a_command_that_cannot_start_is_a_failure_with_its_exit_code_where_attached() {
    let broken = launch(
        json!({"container": "debugger-c4kzt", "stage": "Terminated", "reason": "StartError",
                               "message": "exec: \"nosuch\": not found in $PATH.", "exitCode": 128}),
    );
    let failure = ended(&["-i"], broken.clone()).unwrap_err();
    assert_eq!(
        failure.lines(),
        "debuglet: cannot start debugger-c4kzt in shop/cart-x2lqp: exec: \"nosuch\": not found in $PATH (StartError)\n"
    );
    assert_eq!(failure.exit_code, 128);
    assert_eq!(ended(&[], broken).unwrap_err().exit_code, 1);
}

#[test]
fn of_a_container_that_may_have_run_nobody_says_that_it_did_not_start() {
    let unclear = launch(json!({
        "container": "debugger-c4kzt", "stage": "Terminated", "reason": "ContainerStatusUnknown", "exitCode": 137,
        "message": "The runtime answered an error to StartContainer and does not say whether the container ran.",
    }));
    let failure = ended(&["-i"], unclear.clone()).unwrap_err();
    assert_eq!(
        failure.lines(),
        "debuglet: it is not known whether debugger-c4kzt in shop/cart-x2lqp ran: The runtime answered an error to \
         StartContainer and does not say whether the container ran (ContainerStatusUnknown)\n  \
         It is not started again. What it wrote, if anything: debuglet logs cart-x2lqp -n shop -c debugger-c4kzt\n"
    );
    assert_eq!(failure.exit_code, 137);
    assert_eq!(ended(&[], unclear).unwrap_err().exit_code, 1);
}

#[test]
fn an_exit_code_is_what_a_process_can_have() {
    for (code, expected) in [
        (Some(0), 0),
        (Some(3), 3),
        (Some(255), 255),
        (Some(-1), 255),
        (None, 1),
    ] {
        let mut launch = launch(json!({"container": "c", "stage": "Terminated"}));
        launch.exit_code = code;
        assert_eq!(exit_code(&launch), expected);
    }
}

#[test]
fn an_end_that_was_not_the_containers_own_doing_is_told() {
    for (reason, message, words) in [
        ("Completed", "", ""),
        ("Completed", "written by the container", ""),
        ("Error", "", ""),
        ("Error", "It ended with its target.", "It ended with its target."),
        ("OOMKilled", "", "OOMKilled"),
        (
            "ContainerStatusUnknown",
            "It may have run.",
            "It may have run (ContainerStatusUnknown)",
        ),
    ] {
        let launch =
            launch(json!({"container": "c", "stage": "Terminated", "reason": reason, "message": message}));
        assert_eq!(end_words(&launch), words, "{reason}");
    }
}
