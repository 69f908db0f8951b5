//! What kubectl shows: discovery, tables, descriptions, events, schemas, rights.

use integration::kubernetes::Kubectl;
use integration::state_of;

use super::{IF_NOT_PRESENT, IMAGE, create, served_until};
use crate::server::{Server, pod};

on_debuglet_and_kubernetes!(what_is_read);

async fn what_is_read(server: &Server) {
    let kubectl = server.kubectl();
    create(&kubectl, &pod("app")).await;
    let debug = [
        "debug",
        "app",
        "-c",
        "dbg",
        IMAGE,
        IF_NOT_PRESENT,
        "--target=main",
        "--",
        "sleep",
        "600",
    ];
    kubectl.run(debug).await.succeeded();
    served_until(&kubectl, "app", |pod| state_of(pod, "dbg") == "running:").await;

    versions_are_told(&kubectl).await;
    resources_are_discovered(server).await;
    pods_are_listed(&kubectl).await;
    selectors_choose(&kubectl).await;
    other_formats_are_printed(&kubectl).await;
    what_runs_in_a_pod_is_described(&kubectl).await;
    events_are_shown(&kubectl).await;
    fields_are_explained(&kubectl).await;
    rights_are_told(server).await;
    namespaces_and_nodes_are_listed(&kubectl).await;
    paths_are_read_raw(&kubectl).await;
    what_is_not_there_is_said(&kubectl).await;
}

async fn versions_are_told(kubectl: &Kubectl<'_>) {
    let version = kubectl.run(["version"]).await.succeeded();
    assert!(version.stdout.contains("Client Version: v1.36."), "{version:?}");
    assert!(version.stdout.contains("Server Version: v1.36"), "{version:?}");
    assert!(!version.stderr.contains("WARNING"), "{version:?}");
}

async fn resources_are_discovered(server: &Server) {
    let kubectl = server.kubectl();
    let listed = kubectl.run(["api-resources", "-o", "name"]).await.succeeded();
    let mut names: Vec<&str> = listed.stdout.lines().collect();
    names.sort_unstable();
    if server.is_debuglet() {
        let core = ["events", "namespaces", "nodes", "pods"];
        assert!(core.iter().all(|name| names.contains(name)), "{names:?}");
        let others: Vec<&str> = names.into_iter().filter(|name| !core.contains(name)).collect();
        let groups = ["authentication.k8s.io", "authorization.k8s.io", "debuglet.io"];
        let known = |name: &&str| groups.iter().any(|group| name.ends_with(&format!(".{group}")));
        assert!(others.iter().all(known), "more than is served: {others:?}");
    } else {
        assert!(names.contains(&"pods") && names.contains(&"secrets"), "{names:?}");
    }
    let wide = kubectl.run(["api-resources", "-o", "wide"]).await.succeeded();
    let pods = wide
        .stdout
        .lines()
        .find(|line| line.starts_with("pods "))
        .unwrap();
    for word in [
        "po", "v1", "true", "Pod", "create", "delete", "get", "list", "patch", "update", "watch",
    ] {
        assert!(pods.contains(word), "{word}: {pods}");
    }
    if server.is_debuglet() {
        let top = kubectl.run(["top", "pods"]).await;
        top.failed(1, &["Metrics API not available"]);
        let secrets = kubectl.run(["get", "secrets"]).await;
        secrets.failed(1, &["the server doesn't have a resource type \"secrets\""]);
    }
}

async fn pods_are_listed(kubectl: &Kubectl<'_>) {
    let pods = kubectl.run(["get", "pods"]).await.succeeded();
    let mut lines = pods.stdout.lines();
    let words =
        |line: Option<&str>| -> Vec<String> { line.unwrap().split_whitespace().map(str::to_owned).collect() };
    assert_eq!(
        words(lines.next()),
        ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    );
    assert_eq!(words(lines.next())[..4], ["app", "1/1", "Running", "0"]);
    assert_eq!(lines.next(), None, "{pods:?}");

    let wide = kubectl.run(["get", "pods", "-o", "wide"]).await.succeeded();
    let mut lines = wide.stdout.lines();
    let head = lines.next().unwrap();
    for column in ["IP", "NODE", "NOMINATED NODE", "READINESS GATES"] {
        assert!(head.contains(column), "{column}: {head}");
    }
    let row = words(lines.next());
    assert!(
        row[5].starts_with("10.99.0.") && row[6..] == ["node1", "<none>", "<none>"],
        "{row:?}"
    );

    let all = kubectl
        .run(["get", "po", "-A", "--show-labels"])
        .await
        .succeeded();
    let mut lines = all.stdout.lines();
    assert_eq!(
        words(lines.next()),
        [
            "NAMESPACE",
            "NAME",
            "READY",
            "STATUS",
            "RESTARTS",
            "AGE",
            "LABELS"
        ]
    );
    assert!(all.stdout.contains("app=app"), "{all:?}");
    let one = kubectl.run(["get", "pod/app", "--no-headers"]).await.succeeded();
    assert_eq!(words(Some(&one.stdout))[..3], ["app", "1/1", "Running"]);
    let sorted = kubectl
        .run(["get", "pods", "--sort-by=.metadata.name", "-L", "app"])
        .await;
    assert!(sorted.succeeded().stdout.contains("APP"));
    let chunked = kubectl.run(["get", "pods", "--chunk-size=1"]).await.succeeded();
    assert_eq!(chunked.stdout.lines().count(), 2);
}

async fn selectors_choose(kubectl: &Kubectl<'_>) {
    for (selector, found) in [
        ("--selector=app=app", true),
        ("--selector=app!=app", false),
        ("--selector=app in (a,app)", true),
        ("--field-selector=status.phase=Running", true),
        ("--field-selector=status.phase=Pending", false),
        ("--field-selector=metadata.name=app,spec.nodeName=node1", true),
        ("--field-selector=metadata.namespace!=default", false),
    ] {
        let pods = kubectl
            .run(["get", "pods", "-o", "name", selector])
            .await
            .succeeded();
        assert_eq!(pods.stdout, if found { "pod/app\n" } else { "" }, "{selector}");
    }
    let unknown = kubectl
        .run(["get", "pods", "--field-selector=spec.color=red"])
        .await;
    unknown.failed(1, &["BadRequest", "spec.color"]);
    let none = kubectl.run(["get", "pods", "-n", "elsewhere"]).await.succeeded();
    assert_eq!(
        (none.stdout.as_str(), none.stderr.as_str()),
        ("", "No resources found in elsewhere namespace.\n")
    );
}

async fn other_formats_are_printed(kubectl: &Kubectl<'_>) {
    let yaml = kubectl.run(["get", "pod", "app", "-o", "yaml"]).await.succeeded();
    assert!(yaml.stdout.starts_with("apiVersion: v1\nkind: Pod\n"), "{yaml:?}");
    let path = "jsonpath={.spec.ephemeralContainers[*].targetContainerName}";
    let target = kubectl.run(["get", "pod", "app", "-o", path]).await.succeeded();
    assert_eq!(target.stdout, "main");
    let columns = "custom-columns=NAME:.metadata.name,DEBUG:.spec.ephemeralContainers[*].name";
    let custom = kubectl.run(["get", "pods", "-o", columns]).await.succeeded();
    assert!(custom.stdout.contains("dbg"), "{custom:?}");
    let status = kubectl
        .run("get pod app --subresource=status -o name".split(' '))
        .await;
    assert_eq!(status.succeeded().stdout, "pod/app\n");
    let containers = kubectl
        .run("get pod app --subresource=ephemeralcontainers -o name".split(' '))
        .await;
    assert_eq!(containers.succeeded().stdout, "pod/app\n");
}

async fn what_runs_in_a_pod_is_described(kubectl: &Kubectl<'_>) {
    let described = kubectl.run(["describe", "pod", "app"]).await.succeeded().stdout;
    let section = described.split("\nEphemeral Containers:").nth(1).unwrap();
    let section = section.split("\nConditions:").next().unwrap();
    for (field, value) in [
        ("Image:", "docker.io/library/busybox:latest"),
        ("State:", "Running"),
        ("Ready:", "False"),
        ("Restart Count:", "0"),
    ] {
        let line = section
            .lines()
            .find(|line| line.trim().starts_with(field))
            .unwrap();
        assert!(line.trim_end().ends_with(value), "{line}");
    }
    assert!(section.contains("containerd://"), "{section}");
    let events = described.split("\nEvents:").nth(1).unwrap();
    for reason in ["Pulled", "Created", "Started"] {
        assert!(events.contains(reason), "{reason}: {events}");
    }
    let node = kubectl.run(["describe", "node", "node1"]).await.succeeded();
    assert!(node.stdout.contains("Hostname"), "{node:?}");
}

async fn events_are_shown(kubectl: &Kubectl<'_>) {
    let events = kubectl.run(["events", "--for", "pod/app"]).await.succeeded();
    let mut lines = events.stdout.lines();
    let head: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["LAST", "SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]);
    assert!(lines.all(|line| line.contains("Pod/app")), "{events:?}");
    let table = kubectl
        .run(["get", "events", "--sort-by=.lastTimestamp"])
        .await
        .succeeded();
    let started = table
        .stdout
        .lines()
        .any(|line| line.contains("Started") && line.contains("pod/app"));
    assert!(started, "{table:?}");
    let wide = kubectl
        .run(["get", "events", "-A", "-o", "wide"])
        .await
        .succeeded();
    let head = wide.stdout.lines().next().unwrap();
    assert!(head.contains("SUBOBJECT") && head.contains("SOURCE"), "{head}");
    let field = "--field-selector=involvedObject.name=app,reason=Started,type=Normal";
    let chosen = kubectl
        .run(["get", "events", field, "-o", "name"])
        .await
        .succeeded();
    assert_eq!(chosen.stdout.lines().count(), 2, "main and dbg: {chosen:?}");
}

async fn fields_are_explained(kubectl: &Kubectl<'_>) {
    let field = kubectl
        .run(["explain", "pod.spec.ephemeralContainers"])
        .await
        .succeeded();
    for words in [
        "KIND:",
        "Pod",
        "VERSION:",
        "v1",
        "<[]EphemeralContainer>",
        "targetContainerName",
        "DESCRIPTION:",
    ] {
        assert!(field.stdout.contains(words), "{words}: {field:?}");
    }
    let deep = kubectl.run([
        "explain",
        "pods.spec.ephemeralContainers.securityContext.capabilities",
        "--recursive",
    ]);
    assert!(deep.await.succeeded().stdout.contains("add"));
    let unknown = kubectl.run(["explain", "pod.spec.nope"]).await;
    unknown.failed(1, &["field \"nope\" does not exist"]);
}

async fn rights_are_told(server: &Server) {
    let kubectl = server.kubectl();
    let can = kubectl
        .run(["auth", "can-i", "patch", "pods/ephemeralcontainers"])
        .await
        .succeeded();
    assert_eq!(can.stdout, "yes\n");
    let list = kubectl.run(["auth", "can-i", "--list"]).await.succeeded();
    assert!(list.stdout.starts_with("Resources "), "{list:?}");
    let who = kubectl.run(["auth", "whoami"]).await.succeeded();
    let user = if server.is_debuglet() {
        "debuglet:root"
    } else {
        "admin"
    };
    assert!(
        who.stdout.contains("Username") && who.stdout.contains(user),
        "{who:?}"
    );
    assert!(who.stdout.contains("system:masters"), "{who:?}");
    if server.is_debuglet() {
        let cannot = kubectl.run(["auth", "can-i", "get", "secrets"]).await;
        assert!(cannot.code == 1 && cannot.stdout.starts_with("no"), "{cannot:?}");
    }
}

async fn namespaces_and_nodes_are_listed(kubectl: &Kubectl<'_>) {
    let namespaces = kubectl.run(["get", "ns"]).await.succeeded();
    let line = namespaces
        .stdout
        .lines()
        .find(|line| line.starts_with("default "))
        .unwrap();
    assert!(line.contains("Active"), "{line}");
    let nodes = kubectl.run(["get", "nodes"]).await.succeeded();
    let mut lines = nodes.stdout.lines();
    let head: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]);
    let row: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(row[..3], ["node1", "Ready", "<none>"]);
    let wide = kubectl
        .run(["get", "node", "node1", "-o", "wide"])
        .await
        .succeeded();
    assert!(wide.stdout.contains("containerd://"), "{wide:?}");
}

async fn paths_are_read_raw(kubectl: &Kubectl<'_>) {
    for path in ["/readyz", "/livez"] {
        let answer = kubectl.run(["get", "--raw", path]).await.succeeded();
        assert_eq!(answer.stdout, "ok");
    }
    let raw = kubectl
        .run(["get", "--raw", "/api/v1/namespaces/default/pods/app"])
        .await
        .succeeded();
    let pod: serde_json::Value = serde_json::from_str(&raw.stdout).unwrap();
    assert_eq!(state_of(&pod, "dbg"), "running:");
    let metrics = kubectl.run(["get", "--raw", "/metrics"]).await.succeeded();
    assert!(
        metrics.stdout.contains("\nprocess_resident_memory_bytes "),
        "no metrics"
    );
    let missing = kubectl.run(["get", "--raw", "/nope"]).await;
    missing.failed(1, &["NotFound"]);
}

async fn what_is_not_there_is_said(kubectl: &Kubectl<'_>) {
    let missing = kubectl.run(["get", "pod", "nope"]).await;
    missing.failed(1, &["Error from server (NotFound): pods \"nope\" not found\n"]);
    let missing = kubectl.run(["debug", "nope", IMAGE]).await;
    missing.failed(1, &["Error from server (NotFound)", "\"nope\""]);
    let missing = kubectl.run(["describe", "pod", "nope"]).await;
    missing.failed(1, &["Error from server (NotFound)", "\"nope\""]);
    let missing = kubectl.run(["logs", "nope"]).await;
    // kubectl says itself in which namespace it looked.
    missing.failed(
        1,
        &["rror from server (NotFound): pods \"nope\" not found in namespace \"default\"\n"],
    );
    let missing = kubectl.run(["logs", "app", "-c", "nope"]).await;
    missing.failed(1, &["container nope is not valid for pod app"]);
    let missing = kubectl.run(["exec", "app", "-c", "nope", "--", "true"]).await;
    missing.failed(1, &["nope"]);
}
