//! The proxy between the agent and containerd: what the tests that hold and break calls stand on.

use std::time::Duration;

use debuglet_proto::v1::{
    ContainerStatusRequest, ListContainersRequest, ListImagesRequest, RemoveContainerRequest, VersionRequest,
};
use integration::{ContainerdVersion, Moment, Node, is_running, sleeping_pod};

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
        let call_held = held.next().await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_method_is_taken_and_not_answered_until_it_may_pass() {
    let node = Node::start(ContainerdVersion::V1_6).await;
    let proxy = node.start_proxy().await;
    let mut runtime = proxy.cri().runtime();
    let images = || async {
        let call = async {
            proxy
                .cri()
                .images()
                .list_images(ListImagesRequest::default())
                .await
        };
        tokio::time::timeout(Duration::from_millis(200), call).await
    };

    proxy.silence("Version");
    let mut silent = tokio::spawn(async move { runtime.version(VersionRequest::default()).await });
    assert!(
        tokio::time::timeout(Duration::from_millis(200), &mut silent)
            .await
            .is_err()
    );
    images().await.expect("another method is answered").unwrap();

    proxy.silence_all();
    assert!(images().await.is_err(), "no method is answered");

    proxy.let_pass();
    silent.await.unwrap().unwrap();
    images().await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_the_runtime_has_done_is_answered_with_an_error() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let proxy = node.start_proxy().await;
    let agent = node.start_agent().await;
    node.write_manifest("web.json", &sleeping_pod("web"));
    agent.api().pod_until("default", "web", is_running).await;
    drop(agent);
    let id = node.cri().containers("main").await.remove(0).id;
    let mut runtime = proxy.cri().runtime();

    proxy.fail(
        "RemoveContainer",
        Moment::After,
        tonic::Code::Internal,
        "disk full",
    );
    for _ in 0..2 {
        let remove = RemoveContainerRequest {
            container_id: id.clone(),
        };
        let status = runtime.remove_container(remove).await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (tonic::Code::Internal, "disk full")
        );
    }
    assert!(
        node.cri().containers("main").await.is_empty(),
        "it was removed all the same"
    );

    proxy.let_pass();
    let remove = RemoveContainerRequest { container_id: id };
    runtime.remove_container(remove).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_fails_for_one_container_alone() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let proxy = node.start_proxy().await;
    let agent = node.start_agent().await;
    for name in ["web", "api"] {
        node.write_manifest(&format!("{name}.json"), &sleeping_pod(name));
        agent.api().pod_until("default", name, is_running).await;
    }
    let containers = node.cri().containers("main").await;
    let [one, other] = containers.as_slice() else {
        panic!("two containers: {containers:?}");
    };
    let mut runtime = proxy.cri().runtime();
    let mut status = async |id: &str| {
        let request = ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: false,
        };
        runtime
            .container_status(request)
            .await
            .map_err(|status| status.code())
    };

    proxy.fail_for("ContainerStatus", &one.id, tonic::Code::Unknown, "no image");

    assert_eq!(status(&one.id).await.unwrap_err(), tonic::Code::Unknown);
    status(&other.id).await.unwrap();
    let listed = ListContainersRequest::default();
    let listed = proxy.cri().runtime().list_containers(listed).await.unwrap();
    assert_eq!(listed.into_inner().containers.len(), 2);
    proxy.let_pass();
    status(&one.id).await.unwrap();
}
