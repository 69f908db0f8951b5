//! Creating, changing and deleting pods with kubectl, and what it says when that may not be.

use integration::kubernetes::Kubectl;
use integration::{debug_container, state_of};
use serde_json::{Value, json};

use super::{IF_NOT_PRESENT, IMAGE, create, served, served_until};
use crate::server::{Server, pod, pod_that_runs};

on_debuglet_and_kubernetes!(what_is_written);

async fn what_is_written(server: &Server) {
    let kubectl = server.kubectl();
    apply_creates_and_changes(server).await;
    labels_and_annotations_change(&kubectl).await;
    replace_minds_the_version(&kubectl).await;
    patches_of_every_type_add_debug_containers(&kubectl).await;
    an_edited_pod_may_not_grow_debug_containers(&kubectl).await;
    create_says_what_is_wrong(&kubectl).await;
    dry_runs_leave_nothing(&kubectl).await;
    delete_ends_a_pod(server).await;
    run_makes_a_pod_and_removes_it(&kubectl).await;
}

async fn apply_creates_and_changes(server: &Server) {
    let kubectl = server.kubectl();
    let mut app = pod("app");
    assert_eq!(
        apply(&kubectl, &app).await.succeeded().stdout,
        "pod/app created\n"
    );
    kubectl
        .run("wait --for=condition=Ready pod/app --timeout=60s".split(' '))
        .await
        .succeeded();
    assert_eq!(
        apply(&kubectl, &app).await.succeeded().stdout,
        "pod/app unchanged\n"
    );
    app["metadata"]["labels"]["tier"] = "web".into();
    let differ = diff(&kubectl, &app).await;
    assert!(
        differ.code == 1 && differ.stdout.contains("+    tier: web"),
        "{differ:?}"
    );
    assert_eq!(
        apply(&kubectl, &app).await.succeeded().stdout,
        "pod/app configured\n"
    );
    app["metadata"]["labels"].as_object_mut().unwrap().remove("tier");
    apply(&kubectl, &app).await.succeeded();
    assert_eq!(
        served(&kubectl, "app").await["metadata"]["labels"],
        json!({ "app": "app" })
    );

    let mut changed = app.clone();
    changed["spec"]["containers"][0]["command"] = json!(["sleep", "1"]);
    apply(&kubectl, &changed)
        .await
        .failed(1, &["The Pod \"app\" is invalid: spec"]);
    if server.is_debuglet() {
        // Kubernetes would take another image: a stated difference.
        let mut changed = app.clone();
        changed["spec"]["containers"][0]["image"] = "busybox:other".into();
        let words = ["The Pod \"app\" is invalid", "spec.containers[0].image"];
        apply(&kubectl, &changed).await.failed(1, &words);
        let file = kubectl.file("app.json", &app.to_string());
        let on_the_server = kubectl.run(["apply", "--server-side", "-f", &file]).await;
        on_the_server.failed(1, &["server-side apply"]);
    }
}

async fn labels_and_annotations_change(kubectl: &Kubectl<'_>) {
    for (command, said) in [
        ("label pod app a=b", "pod/app labeled\n"),
        ("label pod app a=b", "pod/app not labeled\n"),
        ("label pod app a=c --overwrite", "pod/app labeled\n"),
        ("label pod app a-", "pod/app unlabeled\n"),
        ("annotate pod app note=this", "pod/app annotated\n"),
        ("label pods --all every=one", "pod/app labeled\n"),
    ] {
        let output = kubectl.run(command.split(' ')).await.succeeded();
        assert_eq!(output.stdout, said, "{command}");
    }
    let again = kubectl.run("label pod app every=two".split(' ')).await;
    again.failed(1, &["already has a value"]);
    let bad = kubectl
        .run("label pod app --overwrite every=not/a/value".split(' '))
        .await;
    assert_ne!(bad.code, 0);
    let pod = served(kubectl, "app").await;
    assert_eq!(pod["metadata"]["labels"], json!({ "app": "app", "every": "one" }));
    assert_eq!(pod["metadata"]["annotations"]["note"], "this");
}

async fn replace_minds_the_version(kubectl: &Kubectl<'_>) {
    let old = served(kubectl, "app").await;
    let mut newer = old.clone();
    newer["metadata"]["labels"]["every"] = "replaced".into();
    assert_eq!(
        replace(kubectl, &newer).await.succeeded().stdout,
        "pod/app replaced\n"
    );
    replace(kubectl, &old)
        .await
        .failed(1, &["Error from server (Conflict)"]);
    newer["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("resourceVersion");
    newer["metadata"]["labels"]["every"] = "unconditionally".into();
    replace(kubectl, &newer).await.succeeded();
    let pod = served(kubectl, "app").await;
    assert_eq!(pod["metadata"]["labels"]["every"], "unconditionally");
    assert_eq!(pod["metadata"]["uid"], old["metadata"]["uid"]);
}

async fn patches_of_every_type_add_debug_containers(kubectl: &Kubectl<'_>) {
    let container = |name: &str| debug_container(name, &["sleep", "600"]);
    let strategic = json!({ "spec": { "ephemeralContainers": [container("strategic")] } });
    let json_patch =
        json!([{ "op": "add", "path": "/spec/ephemeralContainers/-", "value": container("json") }]);
    for (kind, patch) in [("strategic", &strategic), ("json", &json_patch)] {
        let output = patch_containers(kubectl, kind, patch).await.succeeded();
        assert_eq!(output.stdout, "pod/app patched\n");
    }
    let mut merge = served(kubectl, "app").await["spec"]["ephemeralContainers"].clone();
    merge.as_array_mut().unwrap().push(container("merge"));
    let merge = json!({ "spec": { "ephemeralContainers": merge } });
    patch_containers(kubectl, "merge", &merge).await.succeeded();
    served_until(kubectl, "app", |pod| {
        ["strategic", "json", "merge"]
            .iter()
            .all(|name| state_of(pod, name) == "running:")
    })
    .await;

    let removing = json!({ "spec": { "ephemeralContainers": [container("merge")] } });
    let removed = patch_containers(kubectl, "merge", &removing).await;
    removed.failed(1, &["The Pod \"app\" is invalid", "spec.ephemeralContainers: "]);
    for (kind, patch) in [
        ("strategic", json!({ "metadata": { "labels": { "p": "1" } } })),
        ("merge", json!({ "metadata": { "labels": { "p": "2" } } })),
        ("json", json!([{ "op": "remove", "path": "/metadata/labels/p" }])),
    ] {
        let kind = format!("--type={kind}");
        let output = kubectl
            .run(["patch", "pod", "app", &kind, "-p", &patch.to_string()])
            .await;
        assert_eq!(output.succeeded().stdout, "pod/app patched\n");
    }
}

async fn an_edited_pod_may_not_grow_debug_containers(kubectl: &Kubectl<'_>) {
    let mut pod = served(kubectl, "app").await;
    let containers = pod["spec"]["ephemeralContainers"].as_array_mut().unwrap();
    containers.push(debug_container("sneaked", &["true"]));
    replace(kubectl, &pod)
        .await
        .failed(1, &["The Pod \"app\" is invalid: spec"]);

    // kubectl calls the editor again after a refusal, and gives up where nothing was changed then.
    let add = r"sed -i '/^  ephemeralContainers:/a\  - {name: sneaked, image: busybox}'";
    let editor = kubectl.file("editor", &format!("#!/bin/sh\ngrep -q sneaked $1 || {add} $1\n"));
    let mut command = kubectl.command(["edit", "pod", "app"]);
    command.env("EDITOR", format!("sh {editor}"));
    let edited = kubectl.node().spawn(command).output().await;
    assert!(edited.stderr.contains("is invalid"), "{edited:?}");
    assert_ne!(edited.code, 0, "{edited:?}");
    let mut command = kubectl.command(["edit", "pod", "app"]);
    command.env("EDITOR", "sed -i s/unconditionally/edited/");
    let edited = kubectl.node().spawn(command).output().await.succeeded();
    assert_eq!(edited.stdout, "pod/app edited\n");
    assert_eq!(
        served(kubectl, "app").await["metadata"]["labels"]["every"],
        "edited"
    );
}

async fn create_says_what_is_wrong(kubectl: &Kubectl<'_>) {
    create_from(kubectl, &pod("app"), &[])
        .await
        .failed(1, &["Error from server (AlreadyExists)", "app"]);
    let mut unknown = pod("unknown");
    unknown["spec"]["colour"] = "red".into();
    create_from(kubectl, &unknown, &[])
        .await
        .failed(1, &["BadRequest", "spec.colour"]);
    create_from(kubectl, &unknown, &["--validate=warn", "--dry-run=server"])
        .await
        .failed(0, &["Warning: ", "spec.colour"]);
    let mut wrong = pod("wrong");
    wrong["spec"]["containers"][0]["name"] = "Main".into();
    wrong["spec"]["containers"][0]["image"] = "".into();
    create_from(kubectl, &wrong, &[]).await.failed(
        1,
        &[
            "The Pod \"wrong\" is invalid",
            "spec.containers[0].name: ",
            "spec.containers[0].image: ",
        ],
    );
    let mut debugged = pod("debugged");
    debugged["spec"]["ephemeralContainers"] = json!([debug_container("dbg", &["true"])]);
    create_from(kubectl, &debugged, &[])
        .await
        .failed(1, &["spec.ephemeralContainers: "]);
}

async fn dry_runs_leave_nothing(kubectl: &Kubectl<'_>) {
    let created = create_from(kubectl, &pod("dry"), &["--dry-run=server"])
        .await
        .succeeded();
    assert_eq!(created.stdout, "pod/dry created (server dry run)\n");
    kubectl.run(["get", "pod", "dry"]).await.failed(1, &["NotFound"]);
    kubectl
        .run("label pod app dry=run --dry-run=server".split(' '))
        .await
        .succeeded();
    kubectl
        .run("delete pod app --dry-run=server".split(' '))
        .await
        .succeeded();
    let pod = served(kubectl, "app").await;
    assert!(
        pod["metadata"]["labels"].get("dry").is_none() && pod["metadata"].get("deletionTimestamp").is_none()
    );
}

async fn delete_ends_a_pod(server: &Server) {
    let kubectl = &server.kubectl();
    // It takes the signal, says so, and ends a moment later.
    let script = "trap 'echo asked; sleep 1; exit 0' TERM; while :; do sleep 0.1; done";
    let mut graceful = pod_that_runs("graceful", script);
    graceful["spec"]["terminationGracePeriodSeconds"] = 600.into();
    create(kubectl, &graceful).await;
    let following = kubectl.spawn(["logs", "-f", "graceful"]);
    let deleted = kubectl.run(["delete", "pod", "graceful"]).await.succeeded();
    assert_eq!(
        deleted.stdout,
        "pod \"graceful\" deleted from default namespace\n"
    );
    kubectl
        .run(["get", "pod", "graceful"])
        .await
        .failed(1, &["NotFound"]);
    assert_eq!(following.output().await.stdout, "asked\n");

    let mut stubborn = pod_that_runs("stubborn", "trap '' TERM; while :; do sleep 0.1; done");
    stubborn["spec"]["terminationGracePeriodSeconds"] = 600.into();
    create(kubectl, &stubborn).await;
    // A kubelet goes on with the grace period that it began with.
    let grace = if server.is_debuglet() { 600 } else { 5 };
    let delete = format!("delete pod stubborn --wait=false --grace-period={grace}");
    kubectl.run(delete.split(' ')).await.succeeded();
    served_until(kubectl, "stubborn", |pod| {
        pod["metadata"]["deletionTimestamp"].is_string()
    })
    .await;
    let listed = kubectl
        .run(["get", "pod", "stubborn", "--no-headers"])
        .await
        .succeeded();
    assert!(listed.stdout.contains("Terminating"), "{listed:?}");
    let waiting = kubectl.spawn("wait --for=delete pod/stubborn --timeout=60s".split(' '));
    kubectl
        .run("delete pod stubborn --now".split(' '))
        .await
        .succeeded();
    waiting.output().await.succeeded();

    create(kubectl, &pod("forced")).await;
    let forced = kubectl
        .run("delete pod forced --force --grace-period=0".split(' '))
        .await
        .succeeded();
    assert!(
        forced.stdout.contains("pod \"forced\" force deleted"),
        "{forced:?}"
    );
    kubectl
        .run(["get", "pod", "forced"])
        .await
        .failed(1, &["NotFound"]);

    create(kubectl, &pod("chosen")).await;
    let chosen = kubectl
        .run("delete pods -l app=chosen".split(' '))
        .await
        .succeeded();
    assert!(chosen.stdout.contains("pod \"chosen\" deleted"), "{chosen:?}");
    kubectl
        .run(["delete", "pod", "nope"])
        .await
        .failed(1, &["NotFound"]);
    kubectl
        .run("delete pod nope --ignore-not-found".split(' '))
        .await
        .succeeded();
}

async fn run_makes_a_pod_and_removes_it(kubectl: &Kubectl<'_>) {
    let here = "--overrides={\"spec\":{\"nodeName\":\"node1\"}}";
    let run = [
        "run",
        "probe",
        IMAGE,
        IF_NOT_PRESENT,
        "--restart=Never",
        "--rm",
        "--attach",
        here,
        "--",
        "sh",
        "-c",
        "sleep 1; echo found; sleep 1",
    ];
    let output = kubectl.run(run).await.succeeded();
    assert!(output.stdout.starts_with("found\n"), "{output:?}");
    kubectl
        .run(["get", "pod", "probe"])
        .await
        .failed(1, &["NotFound"]);
}

async fn apply(kubectl: &Kubectl<'_>, pod: &Value) -> integration::Output {
    let file = kubectl.file("applied.json", &pod.to_string());
    kubectl.run(["apply", "-f", &file]).await
}

async fn diff(kubectl: &Kubectl<'_>, pod: &Value) -> integration::Output {
    let file = kubectl.file("applied.json", &pod.to_string());
    kubectl.run(["diff", "-f", &file]).await
}

async fn replace(kubectl: &Kubectl<'_>, pod: &Value) -> integration::Output {
    let file = kubectl.file("replaced.json", &pod.to_string());
    kubectl.run(["replace", "-f", &file]).await
}

async fn create_from(kubectl: &Kubectl<'_>, pod: &Value, options: &[&str]) -> integration::Output {
    let file = kubectl.file("created.json", &pod.to_string());
    kubectl
        .run(["create", "-f", &file].into_iter().chain(options.iter().copied()))
        .await
}

async fn patch_containers(kubectl: &Kubectl<'_>, kind: &str, patch: &Value) -> integration::Output {
    let (kind, patch) = (format!("--type={kind}"), patch.to_string());
    let subresource = "--subresource=ephemeralcontainers";
    kubectl
        .run(["patch", "pod", "app", subresource, &kind, "-p", &patch])
        .await
}
