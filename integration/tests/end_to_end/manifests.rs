//! Pods of the manifests folder.

use integration::{ContainerdVersion, DISTROLESS, Node, debug_container, is_running, sleeping_pod, state_of};
use serde_json::{Value, json};

on_both_versions!(
    a_pod_of_the_folder_runs_and_goes_with_its_file,
    ephemeral_containers_of_a_manifest_are_started
);

async fn a_pod_of_the_folder_runs_and_goes_with_its_file(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;

    // The folder appears only now.
    node.write_manifest_text(
        "greeter.yaml",
        &format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: greeter\nspec:\n  terminationGracePeriodSeconds: 1\n  \
             containers:\n  - name: greeter\n    image: {DISTROLESS}\n"
        ),
    );
    let pod = agent.api().pod_until("default", "greeter", is_running).await;

    let address = pod["status"]["podIP"].as_str().unwrap();
    // The program listens a moment after its start.
    integration::eventually("the pod greets", async || {
        let greeting = node.run(["busybox", "nc", "-w", "5", address, "8080"]).await;
        if greeting.stdout == "Hello from an image without a shell.\n" {
            Ok(())
        } else {
            Err(greeting)
        }
    })
    .await;
    assert_eq!(pod["metadata"]["annotations"]["debuglet.io/source"], "manifest");

    node.remove_manifest("greeter.yaml");
    integration::eventually("the pod and its sandbox are gone", async || {
        let served = agent.api().pod("default", "greeter").await;
        let listed = node.crictl(["pods", "--quiet"]).await.succeeded().stdout;
        if served.status == 404 && listed.is_empty() {
            Ok(())
        } else {
            Err((served, listed))
        }
    })
    .await;
}

async fn ephemeral_containers_of_a_manifest_are_started(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    let mut pod = sleeping_pod("edited");
    node.write_manifest("edited.json", &pod);
    let before = agent.api().pod_until("default", "edited", is_running).await;

    pod["spec"]["ephemeralContainers"] = json!([debug_container("dbg", &["sleep", "600"])]);
    node.write_manifest("edited.json", &pod);
    let after = agent
        .api()
        .pod_until("default", "edited", |pod| state_of(pod, "dbg") == "running:")
        .await;

    assert_eq!(
        before["metadata"]["uid"], after["metadata"]["uid"],
        "the same pod"
    );
    // The same entry on the API is the same entry; another one is not.
    let same = agent
        .api()
        .debug("default", "edited", &[debug_container("dbg", &["sleep", "600"])])
        .await;
    assert_eq!(same.status, 200, "{same:?}");
    let other = agent
        .api()
        .debug("default", "edited", &[debug_container("dbg", &["sleep", "6"])])
        .await;
    assert_eq!(
        (other.status, &other.body["reason"]),
        (422, &json!("Invalid")),
        "{other:?}"
    );
    assert_eq!(node.cri().containers("dbg").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_manifest_is_reported_and_changes_nothing_else() {
    let node = Node::start(ContainerdVersion::V1_6).await;
    let agent = node.start_agent().await;
    node.write_manifest("good.json", &sleeping_pod("good"));
    let good = agent.api().pod_until("default", "good", is_running).await;

    let mut bad_name = sleeping_pod("not_a_label");
    bad_name["metadata"]["name"] = json!("not_a_label");
    let mut bad_image = sleeping_pod("bad-image");
    bad_image["spec"]["containers"][0]["image"] = json!("Not A Reference");
    node.write_manifest_text("tab.yaml", "apiVersion: v1\nkind: Pod\nmetadata:\n\tname: tab\n");
    node.write_manifest_text("large.yaml", &"# ten megabytes\n".repeat(10 * 1024 * 1024 / 16));
    node.write_manifest("twice.json", &sleeping_pod("good"));
    node.write_manifest("name.json", &bad_name);
    node.write_manifest("image.json", &bad_image);

    let files = ["tab.yaml", "large.yaml", "twice.json", "name.json", "image.json"];
    let problems = integration::eventually("every bad file is reported", async || {
        let report = agent.api().get("/apis/debuglet.io/v1alpha1/node").await.body;
        let problems = report["manifests"]["problems"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let told = |file: &str| {
            problems
                .iter()
                .any(|problem| problem["file"].as_str().unwrap().ends_with(file))
        };
        if files.iter().all(|file| told(file)) {
            Ok(problems)
        } else {
            Err(problems)
        }
    })
    .await;

    for problem in &problems {
        assert!(problem["message"].as_str().unwrap().len() > 10, "{problem}");
    }
    let listed = node.debuglet(["ps"]).await;
    assert!(
        files
            .iter()
            .all(|file| listed.stdout.contains(file) || listed.stderr.contains(file)),
        "{listed:?}"
    );
    // A pod that has no good version is shown as failed, with the field.
    let refused = |pod: &Value| {
        let message = pod["status"]["message"].as_str().unwrap_or_default();
        pod["status"]["phase"] == "Failed"
            && message.contains("spec.containers[0].image")
            && message.contains("Not A Reference")
    };
    agent.api().pod_until("default", "bad-image", refused).await;
    let still = agent.api().pod("default", "good").await.body;
    assert_eq!(
        still["status"]["containerStatuses"],
        good["status"]["containerStatuses"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_good_version_of_a_file_keeps_running() {
    let node = Node::start(ContainerdVersion::V1_6).await;
    let agent = node.start_agent().await;
    node.write_manifest("kept.json", &sleeping_pod("kept"));
    let before = agent.api().pod_until("default", "kept", is_running).await;

    node.write_manifest_text("kept.json", "{ half a fi");
    integration::eventually("the half-written file is reported", async || {
        let report = agent.api().get("/apis/debuglet.io/v1alpha1/node").await.body;
        let problems = report["manifests"]["problems"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        if problems.is_empty() { Err(report) } else { Ok(()) }
    })
    .await;
    let during = agent.api().pod("default", "kept").await.body;
    assert_eq!(
        during["status"]["containerStatuses"],
        before["status"]["containerStatuses"]
    );

    // Any change but to comments and ephemeral containers makes a new pod.
    let mut changed = sleeping_pod("kept");
    changed["spec"]["containers"][0]["command"] = json!(["sleep", "86401"]);
    node.write_manifest("kept.json", &changed);
    agent
        .api()
        .pod_until("default", "kept", |pod| {
            pod["metadata"]["uid"] != before["metadata"]["uid"] && is_running(pod)
        })
        .await;
}
