use super::super::observed::{ContainerState, ObservedContainer, ObservedSandbox};
use super::*;
use serde_json::{Value, json};

mod containers;
mod reference;

const SECOND: i64 = 1_000_000_000;
const SANDBOX: &str = "sandbox-1";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn container(name: &str, attempt: u32, state: ContainerState) -> ObservedContainer {
    ObservedContainer {
        id: format!("{name}-{attempt}"),
        name: name.into(),
        attempt,
        sandbox_id: SANDBOX.into(),
        ours: true,
        state,
        created_at: i64::from(attempt) * 100 * SECOND,
        started_at: 10 * SECOND + 999,
        finished_at: if state == ContainerState::Exited {
            20 * SECOND
        } else {
            0
        },
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        image: "registry/busybox:1".into(),
        image_id: "registry/busybox@sha256:1".into(),
        log_path: String::new(),
    }
}

fn running(name: &str, attempt: u32) -> ObservedContainer {
    container(name, attempt, ContainerState::Running)
}

fn exited(name: &str, attempt: u32, exit_code: i32) -> ObservedContainer {
    ObservedContainer {
        exit_code,
        ..container(name, attempt, ContainerState::Exited)
    }
}

fn waits(name: &str, reason: &str) -> (String, Waiting) {
    let waiting = Waiting {
        reason: reason.into(),
        message: String::new(),
    };
    (name.into(), waiting)
}

/// Everything that a status follows from, to be changed by a test before it asks for it.
struct Case {
    pod: Pod,
    observed: ObservedPod,
    waiting: BTreeMap<String, Waiting>,
    ended: BTreeMap<String, ContainerStateTerminated>,
    previous: Option<PodStatus>,
    evicted: Option<Eviction>,
    node: Node,
    now: Timestamp,
}

impl Case {
    fn new(spec: Value, containers: impl IntoIterator<Item = ObservedContainer>) -> Case {
        let pod = json!({"metadata": {"name": "web", "namespace": "shop", "uid": "u-1"}, "spec": spec});
        Case {
            pod: serde_json::from_value(pod).expect("a pod"),
            observed: ObservedPod {
                foreign: false,
                found_in: None,
                unread: BTreeMap::new(),
                sandboxes: vec![ObservedSandbox {
                    id: SANDBOX.into(),
                    attempt: 0,
                    ours: true,
                    ready: true,
                    created_at: SECOND,
                    ips: vec!["10.0.0.2".into(), "fd00::2".into()],
                    runtime_handler: String::new(),
                }],
                containers: containers.into_iter().collect(),
            },
            waiting: BTreeMap::new(),
            ended: BTreeMap::new(),
            evicted: None,
            previous: None,
            node: Node {
                ips: vec!["192.0.2.7".into()],
                ..Node::default()
            },
            now: at(1000),
        }
    }

    fn waiting(mut self, name: &str, reason: &str) -> Case {
        self.waiting.extend([waits(name, reason)]);
        self
    }

    fn after(mut self, previous: PodStatus) -> Case {
        self.previous = Some(previous);
        self
    }

    fn status(&self) -> PodStatus {
        pod_status(&StatusContext {
            pod: &self.pod,
            observed: &self.observed,
            waiting: &self.waiting,
            ended: &self.ended,
            known: None,
            theirs: &BTreeMap::new(),
            previous: self.previous.as_ref(),
            node: &self.node,
            evicted: self.evicted.as_ref(),
            start_time: at(5),
            now: self.now,
        })
    }

    fn phase(&self) -> String {
        self.status().phase.expect("a phase")
    }

    /// The status of the only ordinary container, as JSON.
    fn only(&self) -> Value {
        let statuses = self.status().container_statuses.expect("statuses");
        assert_eq!(statuses.len(), 1);
        serde_json::to_value(&statuses[0]).expect("JSON")
    }
}

/// The pod's conditions: name, status and reason.
fn conditions(status: &PodStatus) -> Vec<(String, String, String)> {
    let conditions = status.conditions.iter().flatten();
    conditions
        .map(|condition| {
            let reason = condition.reason.clone().unwrap_or_default();
            (condition.type_.clone(), condition.status.clone(), reason)
        })
        .collect()
}

fn one() -> Value {
    json!({"containers": [{"name": "main", "image": "busybox"}], "restartPolicy": "Always"})
}

#[test]
fn the_conditions_come_in_a_kubelets_order() {
    let names: Vec<_> = conditions(&Case::new(one(), []).status())
        .into_iter()
        .map(|(name, ..)| name)
        .collect();
    assert_eq!(
        names,
        [
            "PodReadyToStartContainers",
            "Initialized",
            "Ready",
            "ContainersReady",
            "PodScheduled"
        ]
    );
}

#[test]
fn the_phase_follows_from_the_ordinary_containers_and_the_restart_policy() {
    for (policy, containers, waiting, phase) in [
        ("Always", vec![], None, "Pending"),
        (
            "Always",
            vec![container("a", 0, ContainerState::Created), running("b", 0)],
            None,
            "Pending",
        ),
        ("Always", vec![running("a", 0)], None, "Pending"),
        ("Always", vec![running("a", 0), running("b", 0)], None, "Running"),
        (
            "Always",
            vec![running("a", 0), exited("b", 0, 1)],
            Some("b"),
            "Running",
        ),
        (
            "Always",
            vec![exited("a", 0, 0), exited("b", 0, 1)],
            None,
            "Running",
        ),
        (
            "OnFailure",
            vec![exited("a", 0, 0), exited("b", 0, 1)],
            Some("b"),
            "Running",
        ),
        (
            "OnFailure",
            vec![exited("a", 0, 0), exited("b", 0, 0)],
            None,
            "Succeeded",
        ),
        (
            "Never",
            vec![exited("a", 0, 0), exited("b", 0, 0)],
            None,
            "Succeeded",
        ),
        (
            "Never",
            vec![exited("a", 0, 0), exited("b", 0, 1)],
            None,
            "Failed",
        ),
        ("Never", vec![running("a", 0), exited("b", 0, 1)], None, "Running"),
    ] {
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}], "restartPolicy": policy});
        let mut case = Case::new(spec, containers.clone());
        if let Some(name) = waiting {
            case = case.waiting(name, "CrashLoopBackOff");
        }
        assert_eq!(case.phase(), phase, "{policy} {containers:?}");
    }
}

#[test]
fn an_init_container_holds_the_phase_until_it_succeeded() {
    for (policy, init, main, phase) in [
        ("Always", vec![], vec![], "Pending"),
        ("Always", vec![running("init", 0)], vec![], "Pending"),
        ("Always", vec![exited("init", 0, 1)], vec![], "Pending"),
        ("OnFailure", vec![exited("init", 0, 1)], vec![], "Pending"),
        ("Never", vec![exited("init", 0, 1)], vec![], "Failed"),
        ("Always", vec![exited("init", 0, 0)], vec![], "Pending"),
        (
            "Always",
            vec![exited("init", 0, 0)],
            vec![running("main", 0)],
            "Running",
        ),
        ("Always", vec![], vec![running("main", 0)], "Running"),
    ] {
        let spec = json!({
            "initContainers": [{"name": "init"}], "containers": [{"name": "main"}], "restartPolicy": policy,
        });
        let case = Case::new(spec, init.clone().into_iter().chain(main.clone()));
        assert_eq!(case.phase(), phase, "{policy} {init:?} {main:?}");
    }
}

#[test]
fn ephemeral_containers_change_neither_phase_nor_readiness() {
    let mut spec = one();
    spec["ephemeralContainers"] = json!([{"name": "dbg", "image": "busybox"}]);
    for ephemeral in [vec![], vec![running("dbg", 0)], vec![exited("dbg", 0, 1)]] {
        let case = Case::new(
            spec.clone(),
            ephemeral.clone().into_iter().chain([running("main", 0)]),
        );
        let status = case.waiting("dbg", "ErrImagePull").status();
        assert_eq!(status.phase.as_deref(), Some("Running"), "{ephemeral:?}");
        assert!(
            conditions(&status).iter().all(|(_, status, _)| status == "True"),
            "{ephemeral:?}"
        );
    }
}

#[test]
fn what_is_over_stays_over_when_the_runtime_forgets_it() {
    let spec = json!({"containers": [{"name": "main"}], "restartPolicy": "Never"});
    let over = Case::new(spec.clone(), [exited("main", 0, 1)]).status();
    assert_eq!(over.phase.as_deref(), Some("Failed"));
    let later = Case::new(spec, []).after(over).status();
    assert_eq!(later.phase.as_deref(), Some("Failed"));
    let state = later
        .container_statuses
        .expect("statuses")
        .remove(0)
        .state
        .expect("a state");
    assert_eq!(state.terminated.map(|terminated| terminated.exit_code), Some(1));
}

#[test]
fn a_condition_keeps_its_time_while_it_does_not_change() {
    let first = Case::new(one(), []).status();
    let mut case = Case::new(one(), [running("main", 0)]).after(first);
    case.now = at(2000);
    let status = case.status();
    let times = status.conditions.iter().flatten().map(|condition| {
        let time = condition.last_transition_time.as_ref().expect("a time");
        (condition.type_.as_str(), time.0.as_second())
    });
    assert_eq!(
        times.collect::<Vec<_>>(),
        [
            ("PodReadyToStartContainers", 1000),
            ("Initialized", 1000),
            ("Ready", 2000),
            ("ContainersReady", 2000),
            ("PodScheduled", 1000),
        ]
    );
}

#[test]
fn what_is_not_ready_is_named() {
    let spec = json!({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]});
    let status = Case::new(spec, [running("i", 0)]).status();
    let find = |name: &str| {
        let condition = status
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.type_ == name);
        let condition = condition.expect(name);
        (
            condition.reason.clone().unwrap_or_default(),
            condition.message.clone().unwrap_or_default(),
        )
    };
    assert_eq!(
        find("Ready"),
        (
            "ContainersNotReady".into(),
            "containers with unready status: [a b]".into()
        )
    );
    assert_eq!(
        find("Initialized"),
        (
            "ContainersNotInitialized".into(),
            "containers with incomplete status: [i]".into()
        )
    );
}

#[test]
fn of_a_pod_that_somebody_else_runs_it_is_not_known_whether_it_is_ready() {
    let mut case = Case::new(one(), [running("main", 0)]);
    case.observed.foreign = true;
    let status = case.status();
    let unknown: Vec<String> = conditions(&status)
        .into_iter()
        .filter(|(_, status, _)| status == "Unknown")
        .map(|(name, _, _)| name)
        .collect();
    assert_eq!(unknown, ["Initialized", "Ready", "ContainersReady"]);
    assert_eq!(status.phase.as_deref(), Some("Running"));
    let container = &status.container_statuses.expect("one")[0];
    assert_eq!((container.ready, container.started), (false, None));
}

#[test]
fn a_pod_that_is_over_is_not_ready_and_says_so() {
    for (exit_code, reason) in [(0, "PodCompleted"), (1, "PodFailed")] {
        let spec = json!({"containers": [{"name": "main"}], "restartPolicy": "Never"});
        let status = Case::new(spec, [exited("main", 0, exit_code)]).status();
        let ready = conditions(&status)
            .into_iter()
            .find(|(name, ..)| name == "Ready")
            .expect("a condition");
        assert_eq!((ready.1.as_str(), ready.2.as_str()), ("False", reason));
    }
}

#[test]
fn a_pod_without_a_ready_sandbox_is_not_ready_to_start_containers() {
    let find = |case: &Case| conditions(&case.status())[0].1.clone();
    let mut case = Case::new(one(), []);
    assert_eq!(find(&case), "True");
    case.observed.sandboxes[0].ips.clear();
    assert_eq!(find(&case), "False", "no address yet");
    case.pod.spec.as_mut().expect("a spec").host_network = Some(true);
    assert_eq!(find(&case), "True", "the host's network needs none");
    case.observed.sandboxes[0].ready = false;
    assert_eq!(find(&case), "False");
}

#[test]
fn addresses_are_the_sandboxs_or_the_last_known_or_the_nodes() {
    let mut case = Case::new(one(), []);
    let ips = |case: &Case| {
        let status = case.status();
        let ips = status
            .pod_ips
            .into_iter()
            .flatten()
            .map(|pod_ip| pod_ip.ip)
            .collect::<Vec<_>>();
        assert_eq!(status.pod_ip.as_ref(), ips.first());
        ips
    };
    assert_eq!(ips(&case), ["10.0.0.2", "fd00::2"]);
    assert_eq!(case.status().host_ip.as_deref(), Some("192.0.2.7"));
    let before = case.status();
    case.observed.sandboxes[0].ready = false;
    assert!(ips(&case).is_empty());
    case = case.after(before);
    assert_eq!(ips(&case), ["10.0.0.2", "fd00::2"]);
    case.pod.spec.as_mut().expect("a spec").host_network = Some(true);
    assert_eq!(ips(&case), ["192.0.2.7"]);
}

#[test]
fn a_refused_pod_has_failed_and_says_why() {
    let case = Case::new(one(), []);
    let status = refused(
        &case.pod,
        "NotSupported",
        "spec.containers[0].livenessProbe is not supported",
        at(5),
    );
    let status = serde_json::to_value(&status).expect("JSON");
    assert_eq!(
        status,
        json!({
            "phase": "Failed", "reason": "NotSupported",
            "message": "spec.containers[0].livenessProbe is not supported",
            "qosClass": "BestEffort", "startTime": "1970-01-01T00:00:05Z",
        })
    );
}

#[test]
fn an_evicted_pod_has_failed_once_nothing_of_it_runs_and_says_why() {
    let spec = json!({"restartPolicy": "Always", "containers": [{"name": "app", "image": "i"}]});
    let mut case = Case::new(spec, [running("app", 0)]);
    case.evicted = Some(Eviction {
        message: "too much".to_owned(),
        since: at(900),
    });
    assert_eq!(case.phase(), "Running");
    case.observed.containers = vec![exited("app", 0, 137)];
    for _ in 0..2 {
        let status = case.status();
        assert_eq!(status.phase.as_deref(), Some("Failed"));
        assert_eq!(status.reason.as_deref(), Some("Evicted"));
        assert_eq!(status.message.as_deref(), Some("too much"));
        let ready = status
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.type_ == "Ready");
        assert_eq!(ready.and_then(|ready| ready.reason.as_deref()), Some("PodFailed"));
        // After a restart of the agent nothing is known but that it was evicted.
        case.observed.containers.clear();
    }
}
