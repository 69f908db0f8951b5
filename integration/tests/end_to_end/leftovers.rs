//! What debuglet made and has no record of, because its state folder was lost: it is shown, and ended on purpose only.

use integration::{
    Agent, ContainerdVersion, ForeignPod, Node, debug_container, eventually, is_running, sleeping_pod,
    state_of,
};
use serde_json::{Value, json};

on_both_versions!(what_is_left_of_a_lost_state_folder_is_shown_and_can_be_stopped_and_removed);

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn what_is_left_of_a_lost_state_folder_is_shown_and_can_be_stopped_and_removed(
    version: ContainerdVersion,
) {
    let node = Node::start(version).await;
    let external = ForeignPod::run_sleeping(&node.cri(), ForeignPod::config(&node, "till", "u-till")).await;
    node.write_manifest("kept.json", &sleeping_pod("kept"));
    let agent = node.start_agent().await;
    create(&agent, "cart").await;
    let mut debugger = debug_container("dbg", &["sleep", "3600"]);
    debugger["securityContext"] = json!({"privileged": true});
    agent.api().pod_until("shop", "till", is_running).await;
    let answer = agent.api().debug("shop", "till", &[debugger]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let runs = |pod: &Value| state_of(pod, "dbg") == "running:";
    agent.api().pod_until("shop", "till", runs).await;
    let kept = agent.api().pod_until("default", "kept", is_running).await;
    assert_eq!(leftovers(&node).await, Vec::<String>::new());

    agent.kill().await;
    std::fs::remove_dir_all(node.folder().join("state")).unwrap();
    let agent = node.start_agent().await;
    let adopted = agent.api().pod_until("default", "kept", is_running).await;
    assert_eq!(adopted["metadata"]["uid"], kept["metadata"]["uid"]);
    eventually("both are shown", async || {
        let lines = leftovers(&node).await;
        (lines.len() == 2).then_some(()).ok_or(lines)
    })
    .await;
    create(&agent, "cart").await;
    eventually("the new pod is told from the old one", async || {
        let lines = leftovers(&node).await;
        let told = lines
            .iter()
            .any(|line| line.contains("the pod of that name here is another one"));
        told.then_some(()).ok_or(lines)
    })
    .await;
    let shown = leftovers(&node).await;
    let sandbox = id_of(
        &shown,
        "default/cart: a sandbox of debuglet's runs with container \"main\" (running)",
    );
    let container = id_of(
        &shown,
        "shop/till: debuglet's container \"dbg\" (running) is there",
    );
    let described = node
        .debuglet(["describe", "-n", "shop", "till"])
        .await
        .succeeded();
    assert!(described.stdout.contains(&container), "{}", described.stdout);
    let checked = node.debuglet(["check"]).await.stdout;
    assert!(
        checked.contains(&container) && checked.contains(&sandbox),
        "{checked}"
    );

    // What somebody else runs, and what is known, is not ended like this.
    let mains = node.cri().containers("main").await;
    for main in mains
        .iter()
        .filter(|main| !main.pod_sandbox_id.starts_with(&sandbox))
    {
        let refused = node
            .debuglet(["stop", "--leftover", &main.id])
            .await
            .failed(1, &["has this id"]);
        assert!(refused.stdout.is_empty());
    }
    let ended = node
        .debuglet(["stop", "--leftover", &container])
        .await
        .succeeded();
    assert!(
        ended.stdout.starts_with("container dbg of shop/till ("),
        "{}",
        ended.stdout
    );
    let ended = node.debuglet(["stop", "--leftover", &sandbox]).await.succeeded();
    assert!(
        ended.stdout.starts_with("the sandbox of default/cart ("),
        "{}",
        ended.stdout
    );
    assert_eq!(leftovers(&node).await, Vec::<String>::new());
    assert_eq!(node.cri().containers("dbg").await.len(), 0);
    let sandboxes = node.crictl(["pods", "-q"]).await.succeeded().stdout;
    assert_eq!(
        sandboxes.lines().count(),
        3,
        "kept, till and the new cart: {sandboxes}"
    );
    assert!(!sandboxes.contains(&sandbox));
    agent.api().pod_until("shop", "till", is_running).await;
    agent.api().pod_until("default", "cart", is_running).await;
    drop(external);
}

async fn create(agent: &Agent, name: &str) {
    let answer = agent
        .api()
        .send("POST", PODS, "application/json", &sleeping_pod(name))
        .await;
    assert_eq!(answer.status, 201, "{answer:?}");
    agent.api().pod_until("default", name, is_running).await;
}

/// What `debuglet ps` says of what is left over.
async fn leftovers(node: &Node) -> Vec<String> {
    let said = node.debuglet(["ps"]).await.succeeded().stderr;
    let lines = said.lines().filter(|line| line.contains("--leftover"));
    lines.map(str::to_owned).collect()
}

/// The id in the command of the line that begins so.
fn id_of(lines: &[String], beginning: &str) -> String {
    let line = lines.iter().find(|line| line.contains(beginning));
    let line = line.unwrap_or_else(|| panic!("no line begins with {beginning:?}: {lines:#?}"));
    line.rsplit(' ').next().unwrap().to_owned()
}
