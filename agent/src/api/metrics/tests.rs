//! What `/metrics` shows, and that it moves.

use std::collections::BTreeMap;
use std::path::PathBuf;

use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, EphemeralContainer, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::super::connection::ReadDuty;
use super::*;
use crate::api::tests::context;
use crate::pod::launch::{Launch, Stage};
use crate::pod::record::Phase;
use crate::runtime::client::Runtime;
use crate::runtime::images::Images;
use crate::store::Store;
use crate::store::disk::Disk;
use crate::store::manifests::{LogDir, ManifestPod};
use crate::store::problems::PanicOf;
use crate::store::progress::Report;
use crate::write_threads::NotRun;

/// The API's router over the pod `default/web`, measured.
struct Node {
    folder: TempDir,
    store: Arc<Store>,
    runtime: Runtime,
    images: Arc<Images>,
    metrics: Arc<Metrics>,
    router: Router,
}

impl Node {
    async fn new() -> Node {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk::open(&folder.path().join("state")).expect("a state folder");
        let (store, _) = Store::load("node1", disk).expect("a store");
        let shutdown = CancellationToken::new();
        let context = Arc::new(context(folder.path(), &store, &shutdown));
        let (images, runtime) = (Arc::clone(&context.images), context.runtime.clone());
        let metrics = Metrics::of(&context);
        let router = metrics.show(super::super::router(context));
        let router = Arc::clone(&metrics)
            .measure(router)
            .layer(axum::Extension(crate::api::identity::Identity::root()));
        let node = Node {
            folder,
            store,
            runtime,
            images,
            metrics,
            router,
        };
        node.manifest().await;
        node
    }

    async fn manifest(&self) {
        let document = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"nodeName": "node1", "containers": [{"name": "main", "image": "docker.io/library/a:1"}]},
        });
        let pod: Pod = serde_json::from_value(document.clone()).expect("a pod");
        let files = BTreeMap::from([(PathBuf::from("web.yaml"), Ok(vec![ManifestPod { pod, document }]))]);
        let logs = LogDir(self.folder.path().join("logs"));
        self.store.apply_manifests(files, logs).await.expect("applied");
    }

    async fn ask(&self, method: &str, path: &str) -> (u16, String) {
        let request = Request::builder().method(method).uri(path);
        let mut request = request.body(axum::body::Body::empty()).expect("a request");
        // As the server does for each connection.
        let duty = ReadDuty::counted_by(self.metrics.watchers());
        request.extensions_mut().insert(duty);
        let response = self.router.clone().oneshot(request).await.expect("an answer");
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (code, String::from_utf8(body.into()).expect("text"))
    }

    /// Every sample by name and labels.
    async fn samples(&self) -> BTreeMap<String, f64> {
        let (code, text) = self.ask("GET", "/metrics").await;
        assert_eq!(code, 200);
        samples(&text)
    }

    fn uid(&self) -> String {
        let pod = self.store.pod("default", "web").expect("a pod");
        pod.metadata.uid.clone().expect("a UID")
    }

    /// Accepts debug containers of these names.
    async fn accept(&self, names: &[&str]) {
        let entry = |name: &&str| EphemeralContainer {
            name: (*name).to_owned(),
            image: Some("docker.io/library/a:1".to_owned()),
            ..EphemeralContainer::default()
        };
        let wanted = crate::store::accept::WantedList {
            containers: names.iter().map(entry).collect(),
            ..Default::default()
        };
        self.store
            .accept(
                &crate::pod::asked_by::AskedBy::root(),
                "default",
                "web",
                wanted,
                crate::store::DryRun::No,
            )
            .await
            .expect("accepted");
    }

    /// Reports as a pod's worker does.
    fn report(&self, container: &str, stage: Stage, reason: &str) {
        let mut launch = Launch::accepted(container);
        launch.stage = stage;
        reason.clone_into(&mut launch.reason);
        let report = Report {
            status: k8s_openapi::api::core::v1::PodStatus::default(),
            launches: BTreeMap::from([(container.to_owned(), launch)]),
            foreign: Default::default(),
        };
        self.store.report(&self.uid(), report);
    }

    async fn end(&self, container: &str, terminated: ContainerStateTerminated) {
        let ended = |_: &Phase| {
            Some(Phase::Ended {
                created: None,
                terminated,
            })
        };
        self.store
            .advance(&self.uid(), container, ended)
            .await
            .expect("ended");
    }
}

/// Reads the text format: `# HELP`, `# TYPE`, and samples of the family named before.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut family = String::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.split(' ');
            assert!(matches!(words.next(), Some("HELP" | "TYPE")), "{line}");
            family = words.next().expect("a name").to_owned();
        } else {
            let (name, value) = line.rsplit_once(' ').expect("a sample");
            assert!(name.starts_with(&family), "{line} in {family}");
            samples.insert(name.to_owned(), value.parse().expect("a number"));
        }
    }
    samples
}

fn started() -> ContainerStateTerminated {
    ContainerStateTerminated {
        started_at: Some(Time(Timestamp::now())),
        ..ContainerStateTerminated::default()
    }
}

#[tokio::test]
async fn every_family_is_there_with_its_type_and_named_by_the_conventions() {
    let node = Node::new().await;
    node.ask("GET", "/livez").await;
    node.accept(&["dbg"]).await;
    node.report("dbg", Stage::Running, "");
    let _ = node
        .runtime
        .runtime()
        .version(debuglet_proto::v1::VersionRequest::default())
        .await;
    let (_, text) = node.ask("GET", "/metrics").await;
    let types: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    let expected = [
        ("debuglet_api_requests_total", "counter"),
        ("debuglet_build_info", "gauge"),
        ("debuglet_image_pull_bytes_total", "counter"),
        ("debuglet_image_pull_duration_seconds", "histogram"),
        ("debuglet_launch_duration_seconds", "histogram"),
        ("debuglet_launches_total", "counter"),
        ("debuglet_runtime_call_duration_seconds", "histogram"),
        ("debuglet_runtime_call_errors_total", "counter"),
        ("debuglet_watchers", "gauge"),
        ("process_cpu_seconds_total", "counter"),
        ("process_max_fds", "gauge"),
        ("process_open_fds", "gauge"),
        ("process_resident_memory_bytes", "gauge"),
        ("process_start_time_seconds", "gauge"),
    ];
    assert_eq!(types, BTreeMap::from(expected));
    for (name, kind) in types {
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
    }
    samples(&text);
}

#[tokio::test]
async fn requests_are_counted_by_verb_resource_and_code_whatever_is_asked() {
    let node = Node::new().await;
    for path in [
        "/api/v1/pods",
        "/api/v1/pods",
        "/api/v1/namespaces/default/pods/none",
        "/a",
        "/b",
    ] {
        node.ask("GET", path).await;
    }
    assert_eq!(node.ask("POST", "/metrics").await.0, 405);
    let samples = node.samples().await;
    let count = |code: u16, resource: &str, verb: &str| {
        samples[&format!(
            "debuglet_api_requests_total{{code=\"{code}\",resource=\"{resource}\",verb=\"{verb}\"}}"
        )]
    };
    assert_eq!(count(200, "pods", "list"), 2.0);
    assert_eq!(count(404, "pods", "get"), 1.0);
    assert_eq!(count(404, "", "get"), 2.0);
    assert_eq!(count(405, "", "create"), 1.0);
}

#[tokio::test]
async fn launches_are_counted_once_by_how_they_came_out() {
    let node = Node::new().await;
    node.accept(&["runs", "quick", "refused", "broken", "unstarted"])
        .await;
    node.report("runs", Stage::Running, "");
    node.report("runs", Stage::Running, "");
    node.end("runs", started()).await;
    node.end("quick", started()).await;
    node.report("refused", Stage::Waiting, "ErrImagePull");
    node.end("refused", ContainerStateTerminated::default()).await;
    let broken = ContainerStateTerminated {
        reason: Some("StartError".to_owned()),
        ..ContainerStateTerminated::default()
    };
    node.end("broken", broken).await;
    node.end("unstarted", ContainerStateTerminated::default()).await;
    let samples = node.samples().await;
    let count = |outcome: &str| samples[&format!("debuglet_launches_total{{outcome=\"{outcome}\"}}")];
    assert_eq!(
        (count("running"), count("failed"), count("stopped")),
        (2.0, 2.0, 1.0)
    );
    // Only of one that was seen to run is it known how long that took.
    assert_eq!(samples["debuglet_launch_duration_seconds_count"], 1.0);
}

#[tokio::test]
async fn calls_to_the_runtime_and_pulls_are_counted() {
    let node = Node::new().await;
    let asked = node
        .runtime
        .runtime()
        .version(debuglet_proto::v1::VersionRequest::default())
        .await;
    assert!(asked.is_err(), "there is no runtime");
    node.images
        .pull_metrics()
        .pulled(std::time::Duration::from_secs(2), 1000);
    let samples = node.samples().await;
    let errors = "debuglet_runtime_call_errors_total{code=\"Unavailable\",method=\"Version\"}";
    assert_eq!(samples[errors], 1.0);
    assert_eq!(
        samples["debuglet_runtime_call_duration_seconds_count{method=\"Version\"}"],
        1.0
    );
    assert_eq!(samples["debuglet_image_pull_bytes_total"], 1000.0);
    assert_eq!(samples["debuglet_image_pull_duration_seconds_sum"], 2.0);
}

#[tokio::test]
async fn panics_are_counted_by_what_panicked() {
    let node = Node::new().await;
    for of in [PanicOf::Step, PanicOf::Step, PanicOf::Worker, PanicOf::Part] {
        node.store.panicked(of, "one", "", "a defect");
    }
    let written = node.store.write_threads().run(|| panic!("a defect")).await;
    let written: Result<(), NotRun> = written;
    assert!(matches!(written, Err(NotRun::Panicked { .. })), "{written:?}");
    let samples = node.samples().await;
    let counted = ["step", "worker", "part", "write"]
        .map(|of| samples[&format!("debuglet_panics_total{{of=\"{of}\"}}")]);
    assert_eq!(counted, [2.0, 1.0, 1.0, 1.0]);
    let problems = node.store.node_report().problems;
    let messages: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(messages, ["a defect", "a write to the disk panicked: a defect"]);
}

#[tokio::test]
async fn the_process_and_the_watchers_are_shown_as_they_are() {
    let node = Node::new().await;
    node.metrics.watchers().inc();
    let samples = node.samples().await;
    assert_eq!(samples["debuglet_watchers"], 1.0);
    assert!(samples["process_resident_memory_bytes"] > 1e6);
    assert!(samples["process_open_fds"] > 3.0);
    assert!(samples["process_max_fds"] >= samples["process_open_fds"]);
    assert!(samples["process_start_time_seconds"] > 1.6e9);
}
