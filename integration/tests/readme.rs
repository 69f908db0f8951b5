//! Every command that README.md shows in a `console` block, run in its order on a node with the README's own pod, and
//! held against the output that it shows there. The story of the API server is told on a node of its own, by
//! `end_to_end/story.rs`.
// clippy.toml's allowance covers the tests, not the functions beside them.
#![allow(clippy::unwrap_used)]

use integration::kubernetes::{Kubectl, KubectlVersion};
use integration::readme::{STORY, Shell, all_but, blocks, commands};
use integration::{BUSYBOX, ContainerdVersion, Node, is_running};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_readme_shows_is_what_happens() {
    let readme = &all_but(STORY);
    let node = Node::start(ContainerdVersion::V2_4).await;
    node.tag(BUSYBOX, "docker.io/library/busybox:1.37").await;
    let ([manifest], [containers]) = (&blocks(readme, "yaml")[..], &blocks(readme, "json")[..]) else {
        panic!("the README shows one manifest, and one list of ephemeral containers")
    };
    node.write_manifest_text("web.yaml", manifest);
    let agent = node.start_agent().await;
    agent.api().pod_until("default", "web", is_running).await;
    let kubeconfig = agent.kubeconfig().await;
    // The node has a /run of its own, so that paths can be as the README has them.
    let run_dir = kubeconfig.parent().unwrap().to_string_lossy().into_owned();
    node.run(["ln", "-s", &run_dir, "/run/debuglet"])
        .await
        .succeeded();

    let kubectl = Kubectl::new(&node, KubectlVersion::V1_36, &kubeconfig);
    std::fs::write(kubectl.home().join("ec.json"), containers).unwrap();
    let mut shell = Shell::new(&node, kubectl.home());
    for step in &commands(readme) {
        shell.run(step).await;
    }
}
