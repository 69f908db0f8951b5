//! A runtime that takes calls and does not answer them, that fails them when it has done what was asked, or that cannot say
//! how things stand: for each CRI method the agent goes on and tells, and when the runtime is well again so are the pods.

use std::collections::BTreeSet;
use std::time::Duration;

use debuglet_proto::v1::{ImageSpec, ImageStatusRequest};
use futures_util::future::join_all;
use integration::{
    Agent, AgentOptions, BUSYBOX, ContainerdVersion, DISTROLESS, Moment, Node, Proxy, debug_container,
    eventually, in_time, is_running, sleeping_pod, state_of,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

on_both_versions!(
    a_runtime_that_is_silent_about_the_node_and_its_images_holds_up_nothing_else,
    a_runtime_that_is_silent_in_one_step_of_a_launch_holds_up_nothing_else,
    a_runtime_that_is_silent_about_what_runs_holds_up_nothing_else,
    an_agent_whose_runtime_is_silent_stops_when_it_is_told_to,
    a_container_is_started_to_the_end_before_the_agent_stops,
    a_container_whose_status_cannot_be_read_does_not_hide_its_pod,
);

async fn a_runtime_that_is_silent_about_the_node_and_its_images_holds_up_nothing_else(
    version: ContainerdVersion,
) {
    break_each(version, Break::Silent, &OF_THE_NODE).await;
}

async fn a_runtime_that_is_silent_in_one_step_of_a_launch_holds_up_nothing_else(version: ContainerdVersion) {
    break_each(version, Break::Silent, &OF_A_LAUNCH).await;
}

async fn a_runtime_that_is_silent_about_what_runs_holds_up_nothing_else(version: ContainerdVersion) {
    break_each(version, Break::Silent, &OF_WHAT_RUNS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_fails_after_it_has_done_what_was_asked_is_lived_with() {
    break_each(ContainerdVersion::V2_4, Break::After, &methods()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_answers_unknown_is_lived_with() {
    break_each(ContainerdVersion::V2_4, Break::Unknown, &methods()).await;
}

/// How a method is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    Silent,
    After,
    Unknown,
}

/// What makes the agent call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// It is called again and again.
    Itself,
    /// The agent starts.
    Start,
    /// A pod's manifest comes.
    Pod,
    /// It goes.
    Removal,
    /// A debug container is asked for, with this pull policy.
    Debug(&'static str),
    /// It is stopped.
    Stop,
    /// A container that ends is started anew.
    Restart,
    /// A client asks for a path: of a stream, or the one that has a log written out.
    Client(&'static str),
    /// Images are cleaned up, which debug builds do every second where a test wants it.
    CleanUp,
}

/// A method, what makes the agent call it, and whether the agent can tell of its silence: not of a stream that has no first
/// word, nor of a pull, which is shown as one that goes on.
type Row = (&'static str, By, bool);

const OF_THE_NODE: [Row; 9] = [
    ("Version", By::Itself, true),
    ("Status", By::Start, true),
    ("RuntimeConfig", By::Start, true),
    ("Subscribe", By::Start, true),
    ("Publish", By::Start, true),
    ("GetContainerEvents", By::Start, false),
    ("ListImages", By::CleanUp, true),
    ("ImageFsInfo", By::CleanUp, true),
    ("RemoveImage", By::CleanUp, true),
];
const OF_A_LAUNCH: [Row; 8] = [
    ("ListPodSandbox", By::Debug("IfNotPresent"), true),
    ("ListContainers", By::Debug("IfNotPresent"), true),
    ("PodSandboxStatus", By::Debug("IfNotPresent"), true),
    ("ContainerStatus", By::Debug("IfNotPresent"), true),
    ("ImageStatus", By::Debug("IfNotPresent"), true),
    ("PullImage", By::Debug("Always"), false),
    ("CreateContainer", By::Debug("IfNotPresent"), true),
    ("StartContainer", By::Debug("IfNotPresent"), true),
];
const OF_WHAT_RUNS: [Row; 9] = [
    ("StopContainer", By::Stop, true),
    ("RunPodSandbox", By::Pod, true),
    ("StopPodSandbox", By::Removal, true),
    ("RemovePodSandbox", By::Removal, true),
    ("RemoveContainer", By::Restart, true),
    ("ReopenContainerLog", By::Client("flushlog"), true),
    ("Exec", By::Client("exec"), true),
    ("Attach", By::Client("attach"), true),
    ("PortForward", By::Client("portforward"), true),
];

fn methods() -> Vec<Row> {
    [&OF_THE_NODE[..], &OF_A_LAUNCH, &OF_WHAT_RUNS].concat()
}

/// For silence: an HTTP client is waited for 8 s and everybody else for this long, but for a sandbox that is made, which has
/// twice the time. Long enough for what the runtime does answer on a machine with other work.
const SHORT_LIMIT: &str = "runtime_request_timeout_seconds = 10";
/// What the runtime says that fails when it has done what was asked, and that does not know.
const DONE: &str = "it is done, though";
const WHO_KNOWS: &str = "who knows";

#[test]
fn every_cri_method_is_broken_here() {
    let proto = include_str!("../../../proto/cri.proto");
    let methods = proto.lines().filter_map(|line| line.trim().strip_prefix("rpc "));
    let methods: BTreeSet<&str> = methods.filter_map(|line| line.split('(').next()).collect();
    let broken = self::methods().into_iter().map(|(method, ..)| method);
    let broken = broken.filter(|method| !["Subscribe", "Publish"].contains(method));
    assert_eq!(broken.collect::<BTreeSet<&str>>(), methods);
}

/// The node, and what happens on it.
struct Scene {
    node: Node,
    proxy: Proxy,
    agent: Option<Agent>,
    /// Lines for the agent's configuration.
    configuration: &'static str,
}

impl Scene {
    async fn new(version: ContainerdVersion, configuration: &'static str) -> Scene {
        let node = Node::start(version).await;
        let proxy = node.start_proxy().await;
        let mut scene = Scene {
            node,
            proxy,
            agent: None,
            configuration,
        };
        scene.start_agent(&[]).await;
        scene.write("bystander", &sleeping_pod("bystander")).await;
        scene
    }

    /// Starts the agent, under a program where one is given, in the place of the one that runs.
    async fn start_agent(&mut self, under: &[&str]) {
        if let Some(agent) = self.agent.take() {
            agent.kill().await;
        }
        let agent = self.node.launch_agent(AgentOptions {
            runtime_socket: Some(self.proxy.socket().to_path_buf()),
            configuration: self.configuration.to_owned(),
            under: under.iter().map(ToString::to_string).collect(),
        });
        eventually("the agent answers", async || agent.api().try_get("/livez").await).await;
        self.agent = Some(agent);
    }

    fn agent(&self) -> &Agent {
        self.agent.as_ref().unwrap()
    }

    async fn write(&self, name: &str, pod: &Value) {
        self.node.write_manifest(&format!("{name}.json"), pod);
        self.agent().api().pod_until("default", name, is_running).await;
    }

    async fn debug(&self, name: &str, pull: &str) {
        let mut container = debug_container(name, &["sleep", "86400"]);
        if pull == "Always" {
            // Of the node's own registry.
            container["image"] = json!(BUSYBOX);
        }
        container["imagePullPolicy"] = json!(pull);
        let answer = self.agent().api().debug("default", "web", &[container]).await;
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
    }

    async fn debug_until(&self, name: &str, states: &[&str]) {
        let told = |pod: &Value| states.iter().any(|state| state_of(pod, name).starts_with(state));
        self.agent().api().pod_until("default", "web", told).await;
    }

    /// Shows the agent a disk of the images that is full.
    async fn fill_image_disk(&self) {
        let folder = self.node.folder().join("image-disk");
        if !folder.exists() {
            self.node.mount_memory("image-disk", "1m").await;
            let file = format!("of={}", folder.join("file").display());
            let fill = ["dd", "if=/dev/zero", &file, "bs=1024", "count=1000"];
            self.node.run(fill).await.succeeded();
        }
        self.proxy.show_image_disk_at(&folder);
    }

    /// The runtime's id of the image that nobody uses; `None` where it is gone.
    async fn unused_image(&self) -> Option<String> {
        let image = ImageSpec {
            image: DISTROLESS.to_owned(),
            ..ImageSpec::default()
        };
        let request = ImageStatusRequest {
            image: Some(image),
            verbose: false,
        };
        let answer = self.node.cri().images().image_status(request).await.unwrap();
        answer.into_inner().image.map(|image| image.id)
    }

    /// Has the agent know that it pulled the unused image long ago, and clean up every second.
    async fn clean_up(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.kill().await;
        }
        let id = self.unused_image().await.expect("it was pulled");
        let pulled = json!({ DISTROLESS: { "id": id, "pulledAt": "2026-01-01T00:00:00Z" } });
        std::fs::write(
            self.node.folder().join("state/pulled-images.json"),
            pulled.to_string(),
        )
        .unwrap();
        self.start_agent(&["env", "DEBUGLET_TEST_CLEAN_UP_SECONDS=1"])
            .await;
    }

    /// What must be there before the method is broken.
    async fn prepare(&mut self, by: By, name: &str) {
        match by {
            By::Itself | By::Start | By::Pod | By::Restart => {}
            By::CleanUp => {
                self.node.pull(DISTROLESS).await;
                self.fill_image_disk().await;
            }
            By::Removal => self.write(name, &sleeping_pod(name)).await,
            By::Debug(_) | By::Stop | By::Client(_) => {
                self.write("web", &sleeping_pod("web")).await;
                if !matches!(by, By::Debug(_)) {
                    self.debug(name, "IfNotPresent").await;
                    self.debug_until(name, &["running:"]).await;
                }
            }
        }
    }

    async fn act(&mut self, by: By, name: &str, how: Break) {
        match by {
            By::Itself => {}
            By::Start => self.start_agent(&[]).await,
            By::CleanUp => self.clean_up().await,
            By::Pod => self
                .node
                .write_manifest(&format!("{name}.json"), &sleeping_pod(name)),
            By::Removal => self.node.remove_manifest(&format!("{name}.json")),
            By::Debug(pull) => self.debug(name, pull).await,
            By::Stop => {
                let answer = self.agent().api().stop("default", "web", name).await;
                assert_eq!(answer.status, 200, "{answer:?}");
            }
            By::Restart => {
                let mut pod = sleeping_pod(name);
                pod["spec"]["containers"][0]["command"] = json!(["true"]);
                self.node.write_manifest(&format!("{name}.json"), &pod);
            }
            By::Client(what) => {
                // Of a silent runtime the client hears when its own limit is over, which is below 10 s.
                let reason = match how {
                    Break::Silent => "within 8 s",
                    Break::After => DONE,
                    Break::Unknown => WHO_KNOWS,
                };
                let (status, text) = self.client(what, name).await;
                assert!(status == 500 && text.contains(reason), "{what}: {text}");
            }
        }
    }

    /// Asks as a client, and gives back the status and the whole answer.
    async fn client(&self, what: &str, container: &str) -> (u16, String) {
        let path = match what {
            "flushlog" => {
                format!(
                    "/apis/debuglet.io/v1alpha1/namespaces/default/pods/web/launches/{container}/flushlog"
                )
            }
            "exec" => format!(
                "/api/v1/namespaces/default/pods/web/exec?container={container}&command=true&stdout=1"
            ),
            "attach" => format!("/api/v1/namespaces/default/pods/web/attach?container={container}&stdout=1"),
            _ => "/api/v1/namespaces/default/pods/web/portforward".to_owned(),
        };
        let (upgrade, protocol) = match what {
            "flushlog" => ("", ""),
            "portforward" => (
                "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n",
                "portforward.k8s.io",
            ),
            _ => (
                "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n",
                "v4.channel.k8s.io",
            ),
        };
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: debuglet\r\nContent-Length: 0\r\n{upgrade}\
             X-Stream-Protocol-Version: {protocol}\r\n\r\n"
        );
        let mut stream = UnixStream::connect(self.agent().api().socket()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let what = format!("{path} is answered");
        while !is_whole(&answer) {
            let read = stream.read_buf(&mut answer);
            if in_time(&what, read, || self.agent().log()).await.unwrap() == 0 {
                break;
            }
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        (status.unwrap_or_default(), answer)
    }

    /// Whether what was begun has come to where it was to come. `lost` is where nobody could say what became of it.
    async fn recovered(&mut self, by: By, name: &str, lost: bool) {
        match by {
            By::Itself | By::Start => self.write(name, &sleeping_pod(name)).await,
            By::Pod => drop(self.agent().api().pod_until("default", name, is_running).await),
            By::Removal => {
                eventually("the pod is gone", async || {
                    let answer = self.agent().api().pod("default", name).await;
                    if answer.status == 404 { Ok(()) } else { Err(answer) }
                })
                .await;
            }
            By::Debug(_) if lost => self.debug_until(name, &["running:", "terminated:"]).await,
            By::Debug(_) => self.debug_until(name, &["running:"]).await,
            By::Stop => self.debug_until(name, &["terminated:"]).await,
            By::Restart => {
                let calls = self.proxy.calls("RemoveContainer");
                eventually("dead containers are removed again", async || {
                    let more = self.proxy.calls("RemoveContainer");
                    let left = self.node.cri().containers("main").await;
                    if more > calls || left.len() <= 4 {
                        Ok(())
                    } else {
                        Err(left)
                    }
                })
                .await;
                self.node.remove_manifest(&format!("{name}.json"));
            }
            By::Client(what) => {
                let (status, text) = self.client(what, name).await;
                assert!([101, 200].contains(&status), "{what}: {text}");
            }
            By::CleanUp => {
                self.fill_image_disk().await;
                eventually("the unused image is gone", async || {
                    let kept = std::fs::read_to_string(self.node.folder().join("state/pulled-images.json"));
                    match (self.unused_image().await, kept.unwrap()) {
                        (None, kept) if !kept.contains(DISTROLESS) => Ok(()),
                        other => Err(other),
                    }
                })
                .await;
            }
        }
    }

    /// Answers as always, whatever the runtime does not.
    async fn goes_on(&self, step: &str) {
        // An agent that has just started may not have looked at it yet.
        self.agent()
            .api()
            .pod_until("default", "bystander", is_running)
            .await;
        let log = "/api/v1/namespaces/default/pods/bystander/log";
        assert_eq!(self.agent().api().get(log).await.status, 200, "{step}");
        for command in [&["ps"][..], &["describe", "bystander"]] {
            let output = self.node.debuglet(command.iter().copied()).await;
            assert_eq!(output.code, 0, "{step}: {command:?}: {output:?}");
        }
    }

    async fn tells(&self, method: &str) {
        eventually(&format!("the silence of {method} is told"), async || {
            let output = self.node.debuglet(["ps"]).await;
            let told = format!("{}{}", output.stdout, output.stderr);
            let ready = self.agent().api().get("/readyz").await;
            if told.contains(method) && ready.status == 500 {
                Ok(())
            } else {
                Err((told, ready))
            }
        })
        .await;
    }
}

/// Whether this is all of an answer that ends where its head says, or the head of one that says nothing of its end.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    length.is_none_or(|length| body.len() >= length.parse::<usize>().unwrap())
}

/// Breaks each of the methods. What takes long is waiting, so the methods are shared out among this many nodes.
async fn break_each(version: ContainerdVersion, how: Break, methods: &[Row]) {
    const NODES: usize = 3;
    let shares = methods.chunks(methods.len().div_ceil(NODES));
    join_all(shares.map(|share| break_in_turn(version, how, share))).await;
}

/// Breaks the methods in turn on a node of their own: the agent goes on and tells of it, and when the method is whole again,
/// what was begun comes to its end.
async fn break_in_turn(version: ContainerdVersion, how: Break, methods: &[Row]) {
    let limit = match how {
        Break::Silent => SHORT_LIMIT,
        Break::After | Break::Unknown => "",
    };
    let mut scene = Scene::new(version, limit).await;
    for (number, &(method, by, tells)) in methods.iter().enumerate() {
        if how == Break::After && ["Subscribe", "GetContainerEvents"].contains(&method) {
            // A stream is never done.
            continue;
        }
        let step = format!("{how:?} {method}");
        // Shown where the test fails.
        println!("{step}");
        let name = format!("x{number}");
        scene.prepare(by, &name).await;
        let calls = scene.proxy.calls(method);
        match how {
            Break::Silent => scene.proxy.silence(method),
            Break::After => {
                scene
                    .proxy
                    .fail(method, Moment::After, tonic::Code::Internal, DONE);
            }
            Break::Unknown => scene
                .proxy
                .fail(method, Moment::Before, tonic::Code::Unknown, WHO_KNOWS),
        }
        if method == "GetContainerEvents" {
            // Asked for only where containerd's own stream is not there.
            let code = tonic::Code::Unimplemented;
            scene
                .proxy
                .fail("Subscribe", Moment::Before, code, "no such service");
        }
        scene.act(by, &name, how).await;
        eventually(&format!("{method} is called"), async || {
            if scene.proxy.calls(method) > calls {
                Ok(())
            } else {
                Err(scene.proxy.all_calls())
            }
        })
        .await;
        if how == Break::Silent && tells {
            scene.tells(method).await;
        }
        scene.goes_on(&step).await;

        scene.proxy.let_pass();
        let lost = (method, how) == ("StartContainer", Break::Unknown);
        scene.recovered(by, &name, lost).await;
        eventually(&format!("{step}: it is ready again"), async || {
            let ready = scene.agent().api().get("/readyz").await;
            if ready.status == 200 {
                Ok(())
            } else {
                Err((ready, scene.agent().log()))
            }
        })
        .await;
    }
}

async fn an_agent_whose_runtime_is_silent_stops_when_it_is_told_to(version: ContainerdVersion) {
    let mut scene = Scene::new(version, "").await;
    scene.write("web", &sleeping_pod("web")).await;
    for running in [true, false] {
        // The limits are the usual ones: an agent that waited for one of them would come too late.
        scene.proxy.let_pass();
        if running {
            scene.start_agent(&[]).await;
            scene.write("before", &sleeping_pod("before")).await;
        }
        scene.proxy.silence_all();
        if !running {
            scene.start_agent(&[]).await;
        }
        if running {
            let calls = scene.proxy.all_calls().values().sum::<usize>();
            // Each waits for the runtime in another place: a launch, a removal, a pod, a client.
            scene.debug("dbg", "Always").await;
            scene.node.remove_manifest("before.json");
            scene.node.write_manifest("new.json", &sleeping_pod("new"));
            eventually("it waits for the runtime", async || {
                let now = scene.proxy.all_calls();
                if now.values().sum::<usize>() >= calls + 4 {
                    Ok(())
                } else {
                    Err(now)
                }
            })
            .await;
        }
        let agent = scene.agent.take().unwrap();
        // Sooner than any limit of a call to the runtime is over: the shortest, but for those of clients, is 30 s. An agent
        // on a machine without other work takes less than 5 s.
        let stopped = timeout(Duration::from_secs(20), agent.stop()).await;
        assert_eq!(stopped, Ok(0), "running: {running}");
    }
}

/// The disk of a log is given up after 30 s, and a removal of logs after 60 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_does_not_answer_does_not_hold_up_the_end_of_the_agent() {
    let mut scene = Scene::new(ContainerdVersion::V2_4, "").await;
    for name in ["web", "linked", "before"] {
        scene.write(name, &sleeping_pod(name)).await;
    }
    let pod = scene.agent().api().pod("default", "web").await.body;
    let logs = format!("logs/default_web_{}", pod["metadata"]["uid"].as_str().unwrap());
    let mut servers = Vec::new();
    for folder in [&*logs, "containers"] {
        let folder = scene.node.folder().join(folder);
        servers.push(scene.node.mount_dead_server(&folder).await);
    }
    // Each waits in another place: for the folder of a log, for the link to a log of a container that was created, and for
    // the removal of such a link.
    scene.debug("dbg", "IfNotPresent").await;
    let container = debug_container("dbg", &["sleep", "86400"]);
    let answer = scene.agent().api().debug("default", "linked", &[container]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    scene.node.remove_manifest("before.json");
    let agent = scene.agent.as_mut().unwrap().process().pid();
    let mut looks = 0;
    eventually("all three wait for the disk", async || {
        let tasks = std::fs::read_dir(format!("/proc/{agent}/task"))
            .unwrap()
            .flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        let names: Vec<String> = names.collect();
        let waiting = names.iter().filter(|name| name.starts_with("untrusted-file"));
        looks = if waiting.count() >= 3 { looks + 1 } else { 0 };
        // What does not wait has ended by the next look.
        if looks >= 10 { Ok(()) } else { Err(names) }
    })
    .await;
    let agent = scene.agent.take().unwrap();
    let stopped = timeout(Duration::from_secs(20), agent.stop()).await;
    assert_eq!(stopped, Ok(0));

    // What was begun is done by the next agent.
    for (server, folder) in servers {
        server.kill().await;
        let unmount = ["umount", "--lazy", folder.to_str().unwrap()];
        scene.node.run(unmount).await.succeeded();
    }
    scene.start_agent(&[]).await;
    scene.debug_until("dbg", &["running:"]).await;
    let runs = |pod: &Value| state_of(pod, "dbg") == "running:";
    scene.agent().api().pod_until("default", "linked", runs).await;
    scene.recovered(By::Removal, "before", false).await;
}

async fn a_container_is_started_to_the_end_before_the_agent_stops(version: ContainerdVersion) {
    let mut scene = Scene::new(version, "").await;
    scene.write("web", &sleeping_pod("web")).await;
    for method in ["CreateContainer", "StartContainer"] {
        let name = format!("dbg-{}", method.to_lowercase());
        let calls = scene.proxy.calls(method);
        scene.proxy.silence(method);
        scene.debug(&name, "IfNotPresent").await;
        eventually("the call is made", async || {
            if scene.proxy.calls(method) > calls {
                Ok(())
            } else {
                Err(scene.proxy.all_calls())
            }
        })
        .await;
        let agent = scene.agent.take().unwrap();
        let log = scene.node.folder().join("output");
        let mut stopping = tokio::spawn(agent.stop());
        eventually("the log says what is waited for", async || {
            let files = std::fs::read_dir(&log).unwrap().flatten();
            let texts: Vec<String> = files
                .filter(|file| file.file_name().to_string_lossy().contains("agent"))
                .filter_map(|file| std::fs::read_to_string(file.path()).ok())
                .collect();
            let told = |text: &String| {
                text.contains("debuglet stops when the runtime has answered")
                    && text.contains(method)
                    && text.contains("default/web")
            };
            if texts.iter().any(told) {
                Ok(())
            } else {
                Err(texts)
            }
        })
        .await;
        assert!(
            timeout(Duration::from_millis(500), &mut stopping).await.is_err(),
            "it waits"
        );

        scene.proxy.let_pass();
        assert_eq!(stopping.await.unwrap(), 0);
        scene.start_agent(&[]).await;
        scene.debug_until(&name, &["running:"]).await;
        assert_eq!(scene.node.cri().containers(&name).await.len(), 1);
    }
}

async fn a_container_whose_status_cannot_be_read_does_not_hide_its_pod(version: ContainerdVersion) {
    let scene = Scene::new(version, "").await;
    scene.write("web", &sleeping_pod("web")).await;
    scene.debug("broken", "IfNotPresent").await;
    scene.debug_until("broken", &["running:"]).await;
    let id = scene.node.cri().containers("broken").await.remove(0).id;

    let code = tonic::Code::Unknown;
    scene
        .proxy
        .fail_for("ContainerStatus", &id, code, "image store is corrupt");
    scene.debug("whole", "IfNotPresent").await;
    scene.debug_until("whole", &["running:"]).await;
    scene.debug_until("broken", &["running:"]).await;
    eventually("it is told", async || {
        let output = scene.node.debuglet(["ps"]).await;
        let told = format!("{}{}", output.stdout, output.stderr);
        if told.contains("image store is corrupt") {
            Ok(())
        } else {
            Err(told)
        }
    })
    .await;
    let answer = scene.agent().api().stop("default", "web", "whole").await;
    assert_eq!(answer.status, 200);
    scene.debug_until("whole", &["terminated:"]).await;

    // How it ends is not known, and is known again when the runtime is well.
    let stop = scene.agent().api().stop("default", "web", "broken").await;
    assert_eq!(stop.status, 200);
    let ended = async || {
        let listed = scene.node.cri().containers("broken").await;
        let exited = debuglet_proto::v1::ContainerState::ContainerExited;
        if listed[0].state() == exited {
            Ok(())
        } else {
            Err(listed)
        }
    };
    eventually("it was stopped", ended).await;
    scene.proxy.let_pass();
    let served = scene.agent().api().pod_until("default", "web", |pod| {
        state_of(pod, "broken").starts_with("terminated:")
    });
    assert_eq!(state_of(&served.await, "broken"), "terminated:Error");
    eventually("the problem is over", async || {
        let output = scene.node.debuglet(["ps"]).await;
        let told = format!("{}{}", output.stdout, output.stderr);
        if told.contains("image store is corrupt") {
            Err(told)
        } else {
            Ok(())
        }
    })
    .await;
}
