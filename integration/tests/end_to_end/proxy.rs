//! The proxy between the agent and containerd: what the tests that hold and break calls stand on.

use std::time::Duration;

use debuglet_proto::v1::{ListImagesRequest, VersionRequest};
use integration::{ContainerdVersion, Moment, Node};

#[tokio::test(flavor = "multi_thread")]
async fn calls_pass_through_and_are_counted() {
    let node = Node::start(ContainerdVersion::V1_6).await;
    let proxy = node.start_proxy().await;
    let cri = proxy.cri();

    assert_eq!(
        cri.runtime()
            .version(VersionRequest::default())
            .await
            .unwrap()
            .into_inner()
            .runtime_name,
        "containerd"
    );
    let images = cri
        .images()
        .list_images(ListImagesRequest::default())
        .await
        .unwrap()
        .into_inner()
        .images;

    assert!(images.len() >= 3);
    assert_eq!(
        (
            proxy.calls("Version"),
            proxy.calls("ListImages"),
            proxy.calls("PullImage")
        ),
        (1, 1, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_held_before_and_after_the_runtime_answers() {
    let node = Node::start(ContainerdVersion::V1_6).await;
    let proxy = node.start_proxy().await;

    for moment in [Moment::Before, Moment::After] {
        let mut held = proxy.hold("Version", moment);
        let mut runtime = proxy.cri().runtime();
        let mut call = tokio::spawn(async move { runtime.version(VersionRequest::default()).await });
        let call_held = held.recv().await.unwrap();
        assert!(
            tokio::time::timeout(Duration::from_millis(100), &mut call)
                .await
                .is_err()
        );
        drop(call_held);
        call.await.unwrap().unwrap();
        proxy.let_pass();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_fails_once_as_told() {
    let node = Node::start(ContainerdVersion::V1_6).await;
    let proxy = node.start_proxy().await;
    let mut runtime = proxy.cri().runtime();

    proxy.fail_once("Version", tonic::Code::ResourceExhausted, "100 % full");

    let status = runtime.version(VersionRequest::default()).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (tonic::Code::ResourceExhausted, "100 % full")
    );
    runtime.version(VersionRequest::default()).await.unwrap();
}
