//! The plan of a pod, from a spec in YAML's shape and a few words about what the runtime shows.

use k8s_openapi::api::core::v1::ContainerStateTerminated;
use serde_json::json;

use super::*;
use crate::pod::copied_mounts::{CopyMounts, Include};
use crate::pod::observed::ObservedSandbox;
use crate::pod::record::{CreatedContainer, Origin};

const NOW: Nanoseconds = 1_000_000_000_000;
const SECOND: Nanoseconds = 1_000_000_000;

struct Scene {
    pod: Pod,
    records: Vec<Record>,
    observed: ObservedPod,
    kubernetes: Option<Pod>,
    kubelet_down: bool,
    removal: Option<i64>,
    eviction: Option<i64>,
    volumes_gone: bool,
    forbidden: Option<&'static str>,
    crashes: CrashBackOff,
    held: BTreeMap<String, Held>,
    pulled: BTreeSet<String>,
    busy: BTreeSet<String>,
}

impl Scene {
    fn of(spec: &serde_json::Value) -> Scene {
        let pod = json!({"metadata": {"name": "web", "namespace": "default", "uid": "u1"}, "spec": spec});
        Scene {
            pod: serde_json::from_value(pod).expect("a pod"),
            records: Vec::new(),
            observed: ObservedPod::default(),
            kubernetes: None,
            kubelet_down: false,
            removal: None,
            eviction: None,
            volumes_gone: false,
            forbidden: None,
            crashes: CrashBackOff::default(),
            held: BTreeMap::new(),
            pulled: BTreeSet::new(),
            busy: BTreeSet::new(),
        }
    }

    fn sandbox(mut self, id: &str, attempt: u32, ready: bool) -> Scene {
        let sandbox = ObservedSandbox {
            id: id.to_owned(),
            attempt,
            ours: true,
            ready,
            created_at: NOW,
            ips: Vec::new(),
            runtime_handler: String::new(),
        };
        self.observed.sandboxes.push(sandbox);
        self
    }

    fn container(
        mut self,
        name: &str,
        attempt: u32,
        sandbox: &str,
        state: ContainerState,
        exit_code: i32,
    ) -> Scene {
        self.observed.containers.push(ObservedContainer {
            id: format!("{name}-{attempt}"),
            name: name.to_owned(),
            attempt,
            sandbox_id: sandbox.to_owned(),
            ours: true,
            state,
            created_at: NOW - 20 * SECOND,
            started_at: NOW - 20 * SECOND,
            finished_at: if state == Exited { NOW - SECOND } else { 0 },
            exit_code,
            reason: if exit_code == 0 {
                "Completed".to_owned()
            } else {
                "Error".to_owned()
            },
            message: String::new(),
            image: String::new(),
            image_id: String::new(),
            log_path: String::new(),
        });
        self
    }

    fn ephemeral(mut self, name: &str, target: Option<&str>, phase: Phase) -> Scene {
        let spec = json!({"name": name, "image": "busybox", "targetContainerName": target});
        let spec = serde_json::from_value(spec).expect("an ephemeral container");
        self.records.push(Record {
            spec,
            order: 0,
            origin: Origin::Api,
            asked_by: None,
            copy_mounts: None,
            phase,
        });
        self
    }

    /// Somebody else runs it, and it was found in its newest sandbox.
    fn is_external(&mut self) {
        self.observed.foreign = true;
        self.observed.found_in = self.observed.sandboxes.last().map(|sandbox| sandbox.id.clone());
    }

    fn plan(&self) -> Plan {
        plan(&Situation {
            pod: &self.pod,
            records: &self.records,
            observed: &self.observed,
            removal: self.removal,
            eviction: self.eviction,
            volumes_gone: self.volumes_gone,
            forbidden: self.forbidden,
            kubernetes: self.kubernetes.as_ref(),
            kubelet_down: self.kubelet_down,
            crashes: &self.crashes,
            held: &self.held,
            pulled: &self.pulled,
            busy: &self.busy,
            now: NOW,
        })
    }

    fn actions(&self) -> Vec<String> {
        self.plan().actions.iter().map(said).collect()
    }
}

fn said(action: &Action) -> String {
    match action {
        Action::RunSandbox { attempt, .. } => format!("run sandbox {attempt}"),
        Action::StopSandbox { id } => format!("stop sandbox {id}"),
        Action::RemoveSandbox { id } => format!("remove sandbox {id}"),
        Action::RemoveDeadSandbox { id } => format!("remove dead sandbox {id}"),
        Action::TearDownVolumes => "tear down volumes".to_owned(),
        Action::Launch { name, attempt, .. } => format!("launch {name} {attempt}"),
        Action::Stop {
            id, grace_seconds, ..
        } => format!("stop {id} within {grace_seconds} s"),
        Action::Remove { id, .. } => format!("remove {id}"),
        Action::RemoveDead { id, .. } => format!("remove dead {id}"),
        Action::PullEphemeral { name } => format!("pull for {name}"),
        Action::LaunchEphemeral {
            name,
            target_id: None,
        } => format!("launch {name}"),
        Action::LaunchEphemeral {
            name,
            target_id: Some(id),
        } => format!("launch {name} into {id}"),
        Action::Ephemeral { name, step, refused } => {
            let step = format!("{step:?}");
            let step = step.split([' ', '(']).next().unwrap_or_default().to_owned();
            match refused {
                RefusedEnd::Waits => format!("{step} {name}"),
                RefusedEnd::StandsInMemory => format!("{step} {name}, in memory if need be"),
            }
        }
        Action::HandBack { name } => format!("hand back {name}"),
        Action::Forget => "forget".to_owned(),
    }
}

fn created() -> Phase {
    Phase::Created(CreatedContainer {
        container_id: "dbg-0".to_owned(),
        sandbox_id: "s0".to_owned(),
        log_path: None,
    })
}

fn ended() -> Phase {
    Phase::Ended {
        created: None,
        terminated: ContainerStateTerminated::default(),
    }
}

fn one_container() -> serde_json::Value {
    json!({"containers": [{"name": "main", "image": "i"}]})
}

use ContainerState::{Created, Exited, Running};

#[test]
fn a_new_pod_gets_a_sandbox_and_then_its_containers() {
    let scene = Scene::of(&one_container());
    assert_eq!(scene.actions(), ["run sandbox 0"]);
    assert_eq!(scene.plan().waiting["main"].reason, "ContainerCreating");
    assert_eq!(scene.sandbox("s0", 0, true).actions(), ["launch main 0"]);
}

#[test]
fn init_containers_run_one_after_the_other_before_the_others() {
    let spec = json!({
        "initContainers": [{"name": "one", "image": "i"}, {"name": "two", "image": "i"}],
        "containers": [{"name": "main", "image": "i"}],
    });
    let scene = Scene::of(&spec).sandbox("s0", 0, true);
    assert_eq!(scene.actions(), ["launch one 0"]);
    assert_eq!(scene.plan().waiting["main"].reason, "PodInitializing");
    let scene = scene.container("one", 0, "s0", Running, 0);
    assert!(scene.actions().is_empty());
    let scene = Scene::of(&spec)
        .sandbox("s0", 0, true)
        .container("one", 0, "s0", Exited, 0);
    assert_eq!(scene.actions(), ["launch two 0"]);
    let scene = scene.container("two", 0, "s0", Exited, 0);
    assert_eq!(scene.actions(), ["launch main 0"]);
}

#[test]
fn an_init_container_that_fails_is_tried_again_unless_the_policy_is_never() {
    for (policy, expected) in [
        ("Always", vec!["launch one 1"]),
        ("OnFailure", vec!["launch one 1"]),
        ("Never", vec!["stop sandbox s0"]),
    ] {
        let spec = json!({
            "restartPolicy": policy,
            "initContainers": [{"name": "one", "image": "i"}],
            "containers": [{"name": "main", "image": "i"}],
        });
        let scene = Scene::of(&spec)
            .sandbox("s0", 0, true)
            .container("one", 0, "s0", Exited, 1);
        assert_eq!(scene.actions(), expected, "{policy}");
    }
}

#[test]
fn a_container_that_ended_is_started_again_as_the_restart_policy_says() {
    #[rustfmt::skip]
    let table = [
        ("Always",    0, vec!["launch main 1"]),
        ("Always",    1, vec!["launch main 1"]),
        ("OnFailure", 0, vec!["stop sandbox s0"]),
        ("OnFailure", 1, vec!["launch main 1"]),
        ("Never",     1, vec!["stop sandbox s0"]),
    ];
    for (policy, exit_code, expected) in table {
        let mut spec = one_container();
        spec["restartPolicy"] = json!(policy);
        let scene = Scene::of(&spec)
            .sandbox("s0", 0, true)
            .container("main", 0, "s0", Exited, exit_code);
        assert_eq!(scene.actions(), expected, "{policy} {exit_code}");
    }
}

#[test]
fn a_container_that_keeps_ending_waits_and_the_plan_says_until_when() {
    let mut scene = Scene::of(&one_container())
        .sandbox("s0", 0, true)
        .container("main", 1, "s0", Exited, 1);
    let before = Scene::of(&one_container()).container("main", 0, "s0", Exited, 1);
    scene
        .crashes
        .restarted(&before.observed.containers[0], NOW - 20 * SECOND);
    let plan = scene.plan();
    assert!(plan.actions.is_empty());
    assert_eq!(plan.waiting["main"].reason, "CrashLoopBackOff");
    assert_eq!(plan.wake_at, Some(NOW + 9 * SECOND));
}

#[test]
fn a_sandbox_that_died_is_followed_by_another_with_all_containers_anew() {
    let scene = Scene::of(&one_container())
        .sandbox("s0", 0, false)
        .container("main", 2, "s0", Exited, 137);
    assert_eq!(scene.actions(), ["run sandbox 1"]);
    let scene = scene.sandbox("s1", 1, true);
    assert_eq!(scene.actions(), ["launch main 3"]);
}

#[test]
fn an_ordinary_container_that_was_made_and_not_started_is_made_anew() {
    let scene = Scene::of(&one_container())
        .sandbox("s0", 0, true)
        .container("main", 0, "s0", Created, 0);
    assert_eq!(scene.actions(), ["remove main-0"]);
}

#[test]
fn of_the_ended_containers_of_a_name_only_the_newest_stays() {
    let scene = Scene::of(&one_container())
        .sandbox("s0", 0, true)
        .container("main", 2, "s0", Running, 0)
        .container("main", 1, "s0", Exited, 1)
        .container("main", 0, "s0", Exited, 1);
    assert_eq!(scene.actions(), ["remove dead main-0"]);
}

#[test]
fn a_sandbox_that_keeps_dying_is_made_again_at_a_growing_pace() {
    let mut scene =
        Scene::of(&one_container())
            .sandbox("s0", 0, false)
            .ephemeral("dbg", None, Phase::Accepted);
    assert_eq!(scene.actions(), ["run sandbox 1"], "the first time at once");
    scene
        .crashes
        .sandbox_made(&scene.observed.sandboxes[0].clone(), NOW - SECOND);
    scene.observed.sandboxes[0].created_at = NOW - SECOND;
    let waiting = scene.plan().waiting;
    let messages: Vec<&str> = waiting.values().map(|waiting| waiting.message.as_str()).collect();
    assert!(
        messages.iter().all(|message| !message.contains("back-off")),
        "the sandbox that follows is being made: {messages:?}"
    );
    let mut scene = scene.sandbox("s1", 1, false);
    scene.observed.sandboxes[1].created_at = NOW - SECOND;
    let plan = scene.plan();
    assert_eq!(plan.wake_at, Some(NOW + 9 * SECOND));
    let message = "back-off 10s making the pod's sandbox again, which keeps dying";
    for name in ["main", "dbg"] {
        let waiting = &plan.waiting[name];
        assert_eq!(
            (waiting.reason.as_str(), waiting.message.as_str()),
            ("ContainerCreating", message)
        );
    }
    assert_eq!(
        scene.actions(),
        ["remove dead sandbox s0"],
        "only the newest stays"
    );
    scene.held.insert("s0".to_owned(), held_for_good());
    assert!(scene.actions().is_empty());
    let mut scene = scene.container("main", 0, "s1", Running, 0);
    assert_eq!(
        scene.actions(),
        ["stop sandbox s1"],
        "no container runs on without its sandbox"
    );
    scene.observed.containers[0].state = Exited;
    assert!(scene.actions().is_empty());
    scene.observed.sandboxes[1].created_at = NOW - 10 * SECOND;
    assert_eq!(
        scene.actions(),
        ["run sandbox 2"],
        "a removal that fails holds nothing back"
    );
    // A clock that was set back.
    scene.observed.sandboxes[1].created_at = NOW + 1_000 * SECOND;
    assert_eq!(scene.actions(), ["run sandbox 2"]);
}

#[test]
fn an_old_sandbox_goes_once_it_is_empty() {
    let scene = Scene::of(&one_container())
        .sandbox("s0", 0, false)
        .sandbox("s1", 1, true);
    assert_eq!(
        scene.container("main", 1, "s1", Running, 0).actions(),
        ["remove dead sandbox s0"]
    );
}

#[test]
fn beside_a_kubelet_nothing_ordinary_is_started_and_what_runs_stays() {
    let mut scene = Scene::of(&one_container());
    scene.forbidden = Some("a kubelet runs here");
    assert!(scene.actions().is_empty());
    assert_eq!(scene.plan().waiting["main"].message, "a kubelet runs here");
    let scene = scene.sandbox("s0", 0, true).container("main", 0, "s0", Exited, 1);
    assert!(scene.actions().is_empty());
    let scene = scene.ephemeral("dbg", None, Phase::Accepted);
    assert_eq!(
        scene.actions(),
        ["launch dbg"],
        "a debug container is not an ordinary one"
    );
}

#[test]
fn an_ephemeral_container_starts_where_the_others_crash_or_still_wait() {
    let scene = Scene::of(&one_container())
        .sandbox("s0", 0, true)
        .ephemeral("dbg", None, Phase::Accepted);
    assert_eq!(scene.actions(), ["launch main 0", "launch dbg"]);
    let mut scene = scene;
    scene.busy.insert("main".to_owned());
    assert_eq!(scene.actions(), ["launch dbg"]);
}

#[test]
fn an_ephemeral_container_waits_for_the_sandbox() {
    let scene = Scene::of(&one_container()).ephemeral("dbg", None, Phase::Accepted);
    assert_eq!(scene.actions(), ["run sandbox 0"]);
    assert_eq!(scene.plan().waiting["dbg"].reason, "ContainerCreating");
}

#[test]
fn an_ephemeral_container_joins_its_running_target() {
    let scene = Scene::of(&one_container())
        .sandbox("s0", 0, true)
        .container("main", 3, "s0", Running, 0)
        .ephemeral("dbg", Some("main"), Phase::Accepted);
    assert_eq!(scene.actions(), ["launch dbg into main-3"]);
}

#[test]
fn a_target_that_does_not_run_is_waited_for_with_the_image_pulled_meanwhile() {
    let mut scene = Scene::of(&one_container())
        .sandbox("s0", 0, true)
        .container("main", 7, "s0", Exited, 1)
        .ephemeral("dbg", Some("main"), Phase::Accepted);
    let before = scene.observed.containers[0].clone();
    scene.crashes.restarted(&before, NOW - SECOND);
    let plan = scene.plan();
    assert_eq!(
        plan.actions.iter().map(said).collect::<Vec<_>>(),
        ["pull for dbg"]
    );
    let waiting = &plan.waiting["dbg"];
    assert_eq!(waiting.reason, "CreateContainerError");
    assert_eq!(
        waiting.message,
        "target container \"main\" does not run: it ended at 00:16:39 UTC with exit code 1 (Error, restart 7); \
         it is to start again at 00:16:49 UTC"
    );
    scene.pulled.insert("dbg".to_owned());
    assert!(scene.actions().is_empty());
}

#[test]
fn of_a_target_that_a_kubelet_runs_it_is_told_when_it_is_to_start_again() {
    for (annotation, state) in [
        (
            "kubernetes.io/config.source",
            "; it is to start again at about 00:16:59 UTC",
        ),
        ("io.example/other", ""),
    ] {
        let mut scene = Scene::of(&one_container())
            .sandbox("s0", 0, true)
            .container("main", 2, "s0", Exited, 1)
            .ephemeral("dbg", Some("main"), Phase::Accepted);
        scene.is_external();
        let annotations = scene.pod.metadata.annotations.get_or_insert_default();
        annotations.insert(annotation.to_owned(), "file".to_owned());
        let message = &scene.plan().waiting["dbg"].message;
        let (_, told) = message.split_once("(Error, restart 2)").expect("its end");
        assert_eq!(told, state, "{annotation}");
    }
}

#[test]
fn under_a_shared_or_host_pid_namespace_a_target_is_not_waited_for() {
    for field in ["shareProcessNamespace", "hostPID"] {
        let mut spec = one_container();
        spec[field] = json!(true);
        let scene = Scene::of(&spec)
            .sandbox("s0", 0, true)
            .container("main", 0, "s0", Exited, 1)
            .ephemeral("dbg", Some("main"), Phase::Accepted);
        assert!(scene.actions().contains(&"launch dbg".to_owned()), "{field}");
    }
}

#[test]
fn a_finished_pod_keeps_its_sandbox_while_somebody_debugs_it() {
    let mut spec = one_container();
    spec["restartPolicy"] = json!("Never");
    let finished = || {
        Scene::of(&spec)
            .sandbox("s0", 0, true)
            .container("main", 0, "s0", Exited, 0)
    };
    let debugged = finished()
        .container("dbg", 0, "s0", Running, 0)
        .ephemeral("dbg", None, created());
    assert!(debugged.actions().is_empty());
    let done = finished()
        .container("dbg", 0, "s0", Exited, 0)
        .ephemeral("dbg", None, ended());
    assert_eq!(done.actions(), ["stop sandbox s0"]);
}

#[test]
fn a_finished_pod_without_a_sandbox_says_so_to_a_debug_container_for_good() {
    let mut spec = one_container();
    spec["restartPolicy"] = json!("Never");
    let scene = Scene::of(&spec)
        .sandbox("s0", 0, false)
        .container("main", 0, "s0", Exited, 0)
        .ephemeral("dbg", None, Phase::Accepted);
    let plan = scene.plan();
    assert!(plan.actions.is_empty());
    assert_eq!(plan.waiting["dbg"].reason, "PodFinished");
    assert!(plan.permanent.contains("dbg"));
}

#[test]
fn a_step_that_failed_is_not_tried_before_its_time_and_says_why() {
    let mut scene = Scene::of(&one_container()).sandbox("s0", 0, true);
    let waiting = Waiting {
        reason: "ErrImagePull".to_owned(),
        message: "no".to_owned(),
    };
    let held = Held {
        waiting,
        retry_at: Some(NOW + SECOND),
        permanent: true,
        of_launch: true,
    };
    scene.held.insert("main".to_owned(), held);
    let plan = scene.plan();
    assert!(plan.actions.is_empty());
    assert_eq!(plan.waiting["main"].reason, "ErrImagePull");
    assert_eq!(plan.wake_at, Some(NOW + SECOND));
    scene.held.get_mut("main").expect("held").retry_at = Some(NOW);
    assert_eq!(scene.actions(), ["launch main 0"]);
}

#[test]
fn a_removed_pod_goes_in_order_containers_records_sandboxes_files() {
    let mut scene = Scene::of(&one_container())
        .sandbox("s0", 0, true)
        .container("main", 0, "s0", Running, 0)
        .container("dbg", 0, "s0", Running, 0)
        .ephemeral("dbg", None, created())
        .ephemeral("late", None, Phase::Accepted);
    scene.removal = Some(5);
    assert_eq!(
        scene.actions(),
        ["stop main-0 within 5 s", "stop dbg-0 within 5 s", "EndAs late"],
        "all stop at once, and what never started ends"
    );
    for container in &mut scene.observed.containers {
        container.state = Exited;
    }
    scene.records[1].phase = ended();
    assert_eq!(scene.actions(), ["End dbg"]);
    scene.records[0].phase = ended();
    assert_eq!(scene.actions(), ["stop sandbox s0"]);
    scene.observed.sandboxes[0].ready = false;
    assert_eq!(scene.actions(), ["remove sandbox s0"]);
    scene.observed = ObservedPod::default();
    assert_eq!(scene.actions(), ["forget"]);
}

#[test]
fn the_volumes_of_a_removed_pod_go_before_an_end_that_the_disk_refuses_is_written() {
    let mut scene = Scene::of(&one_container())
        .sandbox("s0", 0, true)
        .container("main", 0, "s0", Exited, 0)
        .container("dbg", 0, "s0", Running, 0)
        .ephemeral("dbg", None, created());
    scene.removal = Some(5);
    // The failure of the write, as the step reports it.
    let held = Held {
        of_launch: false,
        retry_at: Some(NOW + SECOND),
        permanent: false,
        ..held_for_good()
    };
    scene.held.insert("dbg".to_owned(), held);
    let mut scene = {
        assert!(
            scene.actions().is_empty(),
            "its stop is held back too: {:?}",
            scene.actions()
        );
        scene.observed.containers[1].state = Exited;
        scene
    };
    assert_eq!(scene.actions(), ["stop sandbox s0"]);
    scene.observed.sandboxes[0].ready = false;
    assert_eq!(scene.actions(), ["tear down volumes"]);
    scene.volumes_gone = true;
    assert!(
        scene.actions().is_empty(),
        "the containers stay until it is known how they ended"
    );
    assert_eq!(scene.plan().wake_at, Some(NOW + SECOND));
    // What fills the disk may be the container's own files, so the next end is in force without the disk.
    scene.held.clear();
    assert_eq!(scene.actions(), ["End dbg, in memory if need be"]);
    let created = std::mem::replace(&mut scene.records[0].phase, ended());
    assert_eq!(scene.actions(), ["remove sandbox s0"]);

    // An agent that is restarted would start this one again, as no record says that it may have run.
    scene.records[0].phase = Phase::Accepted;
    assert_eq!(scene.actions(), ["End dbg"]);
    let found = scene.observed.containers.remove(1);
    assert_eq!(
        scene.actions(),
        ["EndAs dbg, in memory if need be"],
        "nothing was made"
    );
    scene.records[0].phase = created;
    scene.observed.containers.push(found);

    // An evicted pod stays, and its containers show how it ended.
    scene.removal = None;
    scene.eviction = Some(1);
    assert_eq!(scene.actions(), ["End dbg"]);
    scene.eviction = None;
    scene.removal = Some(5);

    // Of two records one that can be written comes first.
    scene.volumes_gone = false;
    scene.held.insert("dbg".to_owned(), held_for_good());
    scene.held.get_mut("dbg").expect("held").of_launch = false;
    let scene = scene.ephemeral("other", None, Phase::Accepted);
    assert_eq!(scene.actions(), ["EndAs other"]);
}

#[test]
fn an_evicted_pod_ends_with_all_its_containers_loses_its_volumes_and_stays() {
    let mut scene = Scene::of(&one_container())
        .sandbox("s0", 0, true)
        .container("main", 0, "s0", Running, 0)
        .container("dbg", 0, "s0", Running, 0)
        .ephemeral("dbg", None, created())
        .ephemeral("late", None, Phase::Accepted);
    scene.eviction = Some(1);
    assert_eq!(
        scene.actions(),
        ["stop main-0 within 1 s", "stop dbg-0 within 1 s", "EndAs late"]
    );
    for container in &mut scene.observed.containers {
        container.state = Exited;
        container.exit_code = 137;
    }
    scene.records[1].phase = ended();
    assert_eq!(scene.actions(), ["End dbg"]);
    scene.records[0].phase = ended();
    assert_eq!(scene.actions(), ["stop sandbox s0"]);
    scene.observed.sandboxes[0].ready = false;
    assert_eq!(scene.actions(), ["tear down volumes"]);
    scene.volumes_gone = true;
    assert!(
        scene.actions().is_empty(),
        "nothing is started again: {:?}",
        scene.actions()
    );
    scene.removal = Some(5);
    assert_eq!(scene.actions(), ["remove sandbox s0"]);
}

#[test]
fn a_removed_pod_waits_for_the_step_that_is_under_way() {
    let mut scene =
        Scene::of(&one_container())
            .sandbox("s0", 0, true)
            .ephemeral("dbg", None, Phase::Accepted);
    scene.removal = Some(0);
    scene.busy.insert("dbg".to_owned());
    assert!(scene.actions().is_empty());
}

#[test]
fn a_debug_container_that_ends_with_its_target_says_so() {
    let mut scene = Scene::of(&one_container())
        .container("main", 0, "s0", Exited, 3)
        .container("dbg", 0, "s0", Exited, 137)
        .ephemeral("dbg", Some("main"), created());
    let said = |scene: &Scene| {
        target_took_it_along(&scene.records[0], &scene.observed.containers[1], &scene.observed)
    };
    assert_eq!(
        said(&scene).as_deref(),
        Some("It shared the processes of its target \"main\", and ended with it (Error, exit code 3).")
    );
    scene.observed.containers[0].finished_at -= 60 * SECOND;
    assert_eq!(said(&scene), None, "the target ended long before");
}

/// What holds a launch back for good.
fn held_for_good() -> Held {
    let waiting = Waiting {
        reason: "CreateContainerConfigError".to_owned(),
        message: "no".to_owned(),
    };
    Held {
        waiting,
        retry_at: None,
        permanent: true,
        of_launch: true,
    }
}

#[test]
fn a_launch_that_failed_for_good_holds_back_neither_its_stop_nor_the_pods_removal() {
    let mut scene = Scene::of(&one_container())
        .sandbox("s0", 0, true)
        .container("main", 0, "s0", Exited, 0)
        .ephemeral("dbg", None, Phase::Stopping { created: None });
    scene.held.insert("dbg".to_owned(), held_for_good());
    scene.busy.insert("main".to_owned());
    assert_eq!(scene.actions(), ["EndAs dbg"]);
    scene.busy.clear();
    scene.held.insert(SANDBOX.to_owned(), held_for_good());
    scene.removal = Some(0);
    scene.records[0].phase = Phase::Accepted;
    assert_eq!(scene.actions(), ["EndAs dbg"]);
    scene.records[0].phase = ended();
    assert_eq!(scene.actions(), ["stop sandbox s0"]);
}

#[test]
fn somebody_elses_ordinary_container_or_sandbox_is_never_touched() {
    let mut scene = Scene::of(&one_container())
        .sandbox("s0", 0, true)
        .container("main", 0, "s0", Created, 0);
    scene.observed.containers[0].ours = false;
    assert!(scene.actions().is_empty());
    assert_eq!(scene.plan().waiting["main"].reason, "CreateContainerError");
    let mut scene = Scene::of(&one_container()).sandbox("theirs", 7, true);
    scene.observed.sandboxes[0].ours = false;
    assert_eq!(scene.actions(), ["run sandbox 8"]);
    scene.removal = Some(0);
    assert_eq!(scene.actions(), ["forget"]);
}

#[test]
fn a_removal_that_the_runtime_refuses_is_not_tried_again_at_once() {
    let mut scene = Scene::of(&one_container())
        .sandbox("s0", 0, true)
        .container("main", 0, "s0", Created, 0);
    let held = Held {
        retry_at: Some(NOW + SECOND),
        permanent: false,
        of_launch: false,
        ..held_for_good()
    };
    scene.held.insert("main".to_owned(), held);
    assert!(scene.actions().is_empty());
}

#[test]
fn our_debug_container_is_found_by_its_id_beside_another_of_its_name() {
    let mut scene = Scene::of(&one_container())
        .sandbox("s0", 0, true)
        .container("main", 0, "s0", Running, 0)
        .container("dbg", 0, "s0", Exited, 0)
        .container("dbg", 1, "s0", Running, 0)
        .ephemeral("dbg", None, created());
    scene.observed.containers[2].ours = false;
    assert_eq!(scene.actions(), ["End dbg"]);
}

#[test]
fn of_a_pod_that_somebody_else_runs_only_the_debug_containers_are_planned() {
    let mut scene = Scene::of(&one_container()).ephemeral("debugger", None, Phase::Accepted);
    scene.is_external();
    assert!(
        scene.actions().is_empty(),
        "no sandbox of ours is run: {:?}",
        scene.actions()
    );
    let plan = scene.plan();
    assert_eq!(plan.waiting["debugger"].reason, "ContainerCreating");
    assert!(!plan.waiting.contains_key("main"));

    let mut scene = scene.sandbox("s1", 0, true);
    scene.observed.sandboxes[0].ours = false;
    scene.is_external();
    assert_eq!(scene.actions(), ["launch debugger"]);

    // Once it is gone from the runtime: nothing is stopped, the record ends, the pod is forgotten.
    scene.observed.sandboxes.clear();
    scene.removal = Some(0);
    assert_eq!(scene.actions().len(), 1);
    scene.records[0].phase = ended();
    assert_eq!(scene.actions(), ["forget"]);
    // Nor is a sandbox that looks like ours.
    let scene = scene.sandbox("s1", 0, true);
    assert!(scene.observed.sandboxes[0].ours);
    assert_eq!(scene.actions(), ["forget"]);
}

#[test]
fn what_was_taken_over_and_not_made_yet_goes_back_when_the_kubelet_returns() {
    let mut scene =
        Scene::of(&one_container())
            .sandbox("s0", 0, true)
            .ephemeral("dbg", None, Phase::Accepted);
    scene.records[0].origin = Origin::KubeApiserver;
    let name = "dbg".to_owned();
    let plan = scene.plan();
    assert!(plan.actions.contains(&Action::HandBack { name: name.clone() }));
    let launch = Action::LaunchEphemeral {
        name,
        target_id: None,
    };
    assert!(!plan.actions.contains(&launch));
}

#[test]
fn mounts_are_copied_from_a_container_that_was_made_in_this_sandbox_whether_it_runs_or_not() {
    let scene = |container: Option<(&str, ContainerState)>| {
        let mut scene =
            Scene::of(&one_container())
                .sandbox("s1", 1, true)
                .ephemeral("dbg", None, Phase::Accepted);
        scene.is_external();
        scene.records[0].copy_mounts = Some(CopyMounts {
            from: "main".to_owned(),
            include: Include::Volumes,
        });
        match container {
            Some((sandbox, state)) => scene.container("main", 0, sandbox, state, 1),
            None => scene,
        }
    };
    for state in [Created, Running, Exited] {
        assert_eq!(scene(Some(("s1", state))).actions(), ["launch dbg"], "{state:?}");
    }
    for made in [None, Some(("s0", Exited))] {
        let scene = scene(made);
        assert_eq!(scene.actions(), ["pull for dbg"], "{made:?}");
        let waiting = scene.plan().waiting["dbg"].message.clone();
        assert!(
            waiting.contains("\"main\", whose mounts are to be copied"),
            "{waiting}"
        );
    }
}

/// The pod as the API server knows it, with an ephemeral container `dbg`.
fn known() -> Pod {
    let spec = json!({"containers": [], "ephemeralContainers": [{"name": "dbg", "image": "busybox"}]});
    serde_json::from_value(json!({"spec": spec})).expect("a pod")
}

#[test]
fn what_was_taken_over_is_launched_only_while_the_api_server_asks_for_it() {
    let mut scene =
        Scene::of(&one_container())
            .sandbox("s0", 0, true)
            .ephemeral("dbg", None, Phase::Accepted);
    scene.is_external();
    scene.records[0].origin = Origin::KubeApiserver;
    scene.kubelet_down = true;
    scene.kubernetes = Some(known());
    assert_eq!(scene.actions(), ["launch dbg"]);
    scene.kubernetes = None;
    assert_eq!(scene.actions(), ["hand back dbg"]);
}

#[test]
fn of_a_pod_that_is_gone_what_was_taken_over_and_not_made_goes_back_and_is_not_ended() {
    let mut scene = Scene::of(&one_container()).ephemeral("dbg", None, Phase::Accepted);
    scene.is_external();
    scene.removal = Some(0);
    scene.kubelet_down = true;
    scene.kubernetes = Some(known());
    scene.records[0].origin = Origin::KubeApiserver;
    assert_eq!(scene.actions(), ["hand back dbg"]);
    scene.records[0].phase = created();
    assert_eq!(scene.actions(), ["EndAs dbg, in memory if need be"]);
    scene.records.clear();
    assert_eq!(scene.actions(), ["forget"]);
}

#[test]
fn a_debug_container_joins_only_the_sandbox_that_its_external_pod_is_shown_as() {
    let mut scene = Scene::of(&one_container())
        .sandbox("s0", 0, false)
        .sandbox("s1", 1, true)
        .ephemeral("dbg", None, Phase::Accepted);
    scene.is_external();
    assert_eq!(scene.actions(), ["launch dbg"]);
    for shown in [None, Some("s0".to_owned())] {
        scene.observed.found_in = shown;
        assert!(scene.actions().is_empty());
        let message = &scene.plan().waiting["dbg"].message;
        assert_eq!(message, "the pod has a new sandbox, which is being looked at");
    }
    // One that was made in it already is started there.
    let scene = scene.container("dbg", 0, "s1", Created, 0);
    assert_eq!(scene.actions(), ["Start dbg"]);
}

#[test]
fn what_was_stopped_and_never_started_keeps_its_name_where_a_kubelet_would_start_it() {
    let mut scene = Scene::of(&one_container())
        .sandbox("s0", 0, true)
        .container("dbg", 0, "s0", Created, 0)
        .ephemeral("dbg", None, ended());
    scene.is_external();
    assert_eq!(scene.actions(), ["Remove dbg"]);
    scene.kubernetes = Some(known());
    assert!(scene.actions().is_empty());
}
