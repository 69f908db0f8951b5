//! A runtime that takes calls and does not answer them, that fails them when it has done what was asked, or that cannot say
//! how things stand: for each CRI method the agent goes on and tells, and when the runtime is well again so are the pods.

use std::collections::BTreeSet;
use std::time::Duration;

use integration::{
    Agent, AgentOptions, BUSYBOX, ContainerdVersion, Moment, Node, Proxy, debug_container, eventually,
    is_running, sleeping_pod, state_of,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

on_both_versions!(
    #[ignore = "needs a machine that makes a sandbox within 10 s; was not yet seen to pass to its end"]
    a_runtime_that_is_silent_in_one_method_holds_up_nothing_else,
    an_agent_whose_runtime_is_silent_stops_when_it_is_told_to,
    a_container_is_started_to_the_end_before_the_agent_stops,
    a_container_whose_status_cannot_be_read_does_not_hide_its_pod,
);

#[ignore = "needs a machine that makes a sandbox within 10 s; was not yet seen to pass to its end"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_fails_after_it_has_done_what_was_asked_is_lived_with() {
    every_method(ContainerdVersion::V2_4, Break::After).await;
}

#[ignore = "needs a machine that makes a sandbox within 10 s; was not yet seen to pass to its end"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_answers_unknown_is_lived_with() {
    every_method(ContainerdVersion::V2_4, Break::Unknown).await;
}

async fn a_runtime_that_is_silent_in_one_method_holds_up_nothing_else(version: ContainerdVersion) {
    every_method(version, Break::Silent).await;
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
}

/// The methods and what makes the agent call them. Whether the agent can tell of its silence: not of a stream that has no
/// first word, nor of a pull, which is shown as one that goes on.
const METHODS: [(&str, By, bool); 23] = [
    ("Version", By::Itself, true),
    ("Status", By::Start, true),
    ("RuntimeConfig", By::Start, true),
    ("Subscribe", By::Start, true),
    ("Publish", By::Start, true),
    ("GetContainerEvents", By::Start, false),
    ("ListPodSandbox", By::Debug("IfNotPresent"), true),
    ("ListContainers", By::Debug("IfNotPresent"), true),
    ("PodSandboxStatus", By::Debug("IfNotPresent"), true),
    ("ContainerStatus", By::Debug("IfNotPresent"), true),
    ("ImageStatus", By::Debug("IfNotPresent"), true),
    ("PullImage", By::Debug("Always"), false),
    ("CreateContainer", By::Debug("IfNotPresent"), true),
    ("StartContainer", By::Debug("IfNotPresent"), true),
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
/// Called by the clean-up of images alone, every five minutes and on a disk that is nearly full: what holds for them is
/// shown on the connection itself (`agent/src/runtime/bounded_channel.rs`).
const OF_THE_CLEAN_UP: [&str; 3] = ["ListImages", "RemoveImage", "ImageFsInfo"];

#[test]
fn every_cri_method_is_broken_here() {
    let proto = include_str!("../../../proto/cri.proto");
    let methods = proto.lines().filter_map(|line| line.trim().strip_prefix("rpc "));
    let methods: BTreeSet<&str> = methods.filter_map(|line| line.split('(').next()).collect();
    let broken = METHODS.iter().map(|(method, ..)| *method);
    let broken = broken.filter(|method| !["Subscribe", "Publish"].contains(method));
    assert_eq!(broken.chain(OF_THE_CLEAN_UP).collect::<BTreeSet<&str>>(), methods);
}

/// The node, and what happens on it.
struct Scene {
    node: Node,
    proxy: Proxy,
    agent: Option<Agent>,
}

impl Scene {
    async fn new(version: ContainerdVersion) -> Scene {
        let node = Node::start(version).await;
        let proxy = node.start_proxy().await;
        let mut scene = Scene {
            node,
            proxy,
            agent: None,
        };
        scene.start_agent("runtime_request_timeout_seconds = 5").await;
        scene.write("bystander", &sleeping_pod("bystander")).await;
        scene
    }

    async fn start_agent(&mut self, configuration: &str) {
        if let Some(agent) = self.agent.take() {
            agent.kill().await;
        }
        let agent = self.node.launch_agent(AgentOptions {
            runtime_socket: Some(self.proxy.socket().to_path_buf()),
            configuration: configuration.to_owned(),
            ..AgentOptions::default()
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

    /// What must be there before the method is broken.
    async fn prepare(&mut self, by: By, name: &str) {
        match by {
            By::Itself | By::Start | By::Pod | By::Restart => {}
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

    async fn act(&mut self, by: By, name: &str) {
        match by {
            By::Itself => {}
            By::Start => self.start_agent("runtime_request_timeout_seconds = 5").await,
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
                let (status, text) = self.client(what, name).await;
                assert_eq!(status, 500, "{what}: {text}");
            }
        }
    }

    /// Asks as a client, who gets an answer in time whatever the runtime does.
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
        let mut answer = vec![0; 4096];
        let read = timeout(Duration::from_secs(60), stream.read(&mut answer)).await;
        let length = read.unwrap_or_else(|_| panic!("no answer to {path}")).unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
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
        }
    }

    /// Answers as always, whatever the runtime does not.
    async fn goes_on(&self, step: &str) {
        let pods = self.agent().api().pods().await;
        let bystander = pods.iter().find(|pod| pod["metadata"]["name"] == "bystander");
        assert!(bystander.is_some_and(is_running), "{step}: {pods:#?}");
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

async fn every_method(version: ContainerdVersion, how: Break) {
    let mut scene = Scene::new(version).await;
    for (number, (method, by, tells)) in METHODS.into_iter().enumerate() {
        if how == Break::After && ["Subscribe", "GetContainerEvents"].contains(&method) {
            // A stream is never done.
            continue;
        }
        let step = format!("{how:?} {method}");
        let name = format!("x{number}");
        scene.prepare(by, &name).await;
        let calls = scene.proxy.calls(method);
        match how {
            Break::Silent => scene.proxy.silence(method),
            Break::After => {
                scene
                    .proxy
                    .fail(method, Moment::After, tonic::Code::Internal, "it is done, though");
            }
            Break::Unknown => scene
                .proxy
                .fail(method, Moment::Before, tonic::Code::Unknown, "who knows"),
        }
        if method == "GetContainerEvents" {
            // Asked for only where containerd's own stream is not there.
            let code = tonic::Code::Unimplemented;
            scene
                .proxy
                .fail("Subscribe", Moment::Before, code, "no such service");
        }
        scene.act(by, &name).await;
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
    let mut scene = Scene::new(version).await;
    scene.write("web", &sleeping_pod("web")).await;
    for running in [true, false] {
        // The limits are the usual ones: an agent that waited for one of them would come too late.
        scene.proxy.let_pass();
        if running {
            scene.start_agent("").await;
            scene.write("before", &sleeping_pod("before")).await;
        }
        scene.proxy.silence_all();
        if !running {
            scene.start_agent("").await;
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
        let stopped = timeout(Duration::from_secs(20), agent.stop()).await;
        assert_eq!(stopped, Ok(0), "running: {running}");
    }
}

async fn a_container_is_started_to_the_end_before_the_agent_stops(version: ContainerdVersion) {
    let mut scene = Scene::new(version).await;
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
        scene.start_agent("").await;
        scene.debug_until(&name, &["running:"]).await;
        assert_eq!(scene.node.cri().containers(&name).await.len(), 1);
    }
}

async fn a_container_whose_status_cannot_be_read_does_not_hide_its_pod(version: ContainerdVersion) {
    let scene = Scene::new(version).await;
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
