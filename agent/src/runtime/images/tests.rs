//! The rules of waiting: how pulls are shared and held back. The image service is scripted, because its failures
//! must come when the test says so; what containerd really answers is in the tests of `pull_error`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use debuglet_proto::v1::image_service_server::{ImageService, ImageServiceServer};
use debuglet_proto::v1::*;
use tokio::sync::Notify;
use tonic::{Request, Response};

use super::*;
use crate::worker::image_garbage::remove_images;
use crate::write_threads::WriteThreads;

const IMAGE: &str = "registry.example/app:1";
const ID: &str = "sha256:3d4f";

/// An image service whose pulls wait to be let go and then end as scripted; without script they succeed.
#[derive(Default)]
struct Script {
    pulls: AtomicUsize,
    failures: Mutex<VecDeque<Status>>,
    present: Mutex<bool>,
    /// Whether a pull waits for `go`.
    held: bool,
    go: Notify,
    asked_with: Mutex<Vec<String>>,
}

#[derive(Clone)]
struct Service(Arc<Script>);

#[tonic::async_trait]
impl ImageService for Service {
    async fn image_status(
        &self,
        _: Request<ImageStatusRequest>,
    ) -> Result<Response<ImageStatusResponse>, Status> {
        let present = *self.0.present.lock().unwrap();
        let image = present.then(|| Image {
            id: ID.to_owned(),
            repo_digests: vec![
                "other.example/app@sha256:aa".to_owned(),
                "registry.example/app@sha256:bb".to_owned(),
            ],
            size: 42,
            uid: Some(Int64Value { value: 1000 }),
            ..Image::default()
        });
        Ok(Response::new(ImageStatusResponse {
            image,
            ..ImageStatusResponse::default()
        }))
    }

    async fn pull_image(
        &self,
        request: Request<PullImageRequest>,
    ) -> Result<Response<PullImageResponse>, Status> {
        let auth = request.into_inner().auth;
        self.0
            .asked_with
            .lock()
            .unwrap()
            .push(auth.map_or_else(String::new, |auth| auth.username));
        self.0.pulls.fetch_add(1, Ordering::SeqCst);
        if self.0.held {
            self.0.go.notified().await;
        }
        if let Some(failure) = self.0.failures.lock().unwrap().pop_front() {
            return Err(failure);
        }
        *self.0.present.lock().unwrap() = true;
        Ok(Response::new(PullImageResponse {
            image_ref: ID.to_owned(),
        }))
    }

    async fn list_images(
        &self,
        _: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        Ok(Response::new(ListImagesResponse::default()))
    }

    async fn remove_image(
        &self,
        _: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn image_fs_info(
        &self,
        _: Request<ImageFsInfoRequest>,
    ) -> Result<Response<ImageFsInfoResponse>, Status> {
        Ok(Response::new(ImageFsInfoResponse::default()))
    }
}

fn pulled_images(folder: &std::path::Path) -> PulledImages {
    PulledImages::load(folder, Arc::new(WriteThreads::new().unwrap()))
}

/// The scripted service on a socket, and the images that are asked of it.
struct Node {
    script: Arc<Script>,
    images: Arc<Images>,
    folder: tempfile::TempDir,
    told: Mutex<Vec<&'static str>>,
}

impl Node {
    fn new(script: Script) -> Node {
        let script = Arc::new(script);
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("runtime.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let service = ImageServiceServer::new(Service(script.clone()));
        let incoming = futures_util::stream::unfold(listener, async |listener| {
            let stream = listener.accept().await.map(|(stream, _)| stream);
            Some((stream, listener))
        });
        tokio::spawn(tonic::transport::Server::builder().serve_with_incoming(service, incoming));
        let images = Images::new(
            Runtime::alone(&socket),
            folder.path().join("auth.json"),
            Arc::new(pulled_images(folder.path())),
            CancellationToken::new(),
        );
        Node {
            script,
            images,
            folder,
            told: Mutex::default(),
        }
    }

    fn failing<const N: usize>(messages: [&str; N]) -> Node {
        let failures = messages.into_iter().map(Status::unknown).collect();
        Node::new(Script {
            failures: Mutex::new(failures),
            ..Script::default()
        })
    }

    async fn ensure(&self, policy: PullPolicy) -> Result<ResolvedImage, ImageError> {
        let request = request(policy);
        let tell = |event: ImageEvent| self.told.lock().unwrap().push(event.reason);
        self.images.ensure(&request, &tell).await
    }

    fn pulls(&self) -> usize {
        self.script.pulls.load(Ordering::SeqCst)
    }

    fn told(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.told.lock().unwrap())
    }
}

fn request(policy: PullPolicy) -> ImageRequest {
    ImageRequest {
        image: IMAGE.to_owned(),
        policy,
        runtime_handler: String::new(),
        secrets: None,
    }
}

const REFUSED: &str = "dial tcp 192.0.2.1:443: connect: connection refused";
const DENIED: &str = "failed to fetch: unexpected status: 401 Unauthorized";

#[tokio::test]
async fn an_absent_image_is_pulled_and_a_present_one_is_not() {
    let node = Node::new(Script::default());
    let pulled = node.ensure(PullPolicy::IfNotPresent).await.unwrap();
    assert_eq!(
        (pulled.id.as_str(), pulled.image_ref.as_str()),
        (ID, "registry.example/app@sha256:bb")
    );
    assert_eq!(
        (pulled.uid, pulled.size, pulled.pulled.is_some()),
        (Some(1000), 42, true)
    );
    assert_eq!(node.told(), ["Pulling", "Pulled"]);
    let present = node.ensure(PullPolicy::IfNotPresent).await.unwrap();
    assert_eq!(
        present,
        ResolvedImage {
            pulled: None,
            ..pulled
        }
    );
    assert_eq!((node.told(), node.pulls()), (vec!["Pulled"], 1));
    node.ensure(PullPolicy::Always).await.unwrap();
    assert_eq!(node.pulls(), 2);
    assert!(pulled_images(node.folder.path()).all().contains_key(IMAGE));
}

#[tokio::test]
async fn an_image_that_the_runtime_has_no_more_is_forgotten_also_while_its_disk_has_room() {
    let node = Node::new(Script::default());
    node.ensure(PullPolicy::Always).await.unwrap();
    let pulled = pulled_images(node.folder.path());
    let runtime = Runtime::alone(&node.folder.path().join("runtime.sock"));
    let removed = remove_images(&runtime, &pulled).await.unwrap();
    assert_eq!(removed, Vec::<String>::new());
    assert!(pulled.all().is_empty());
    assert!(
        pulled_images(node.folder.path()).all().is_empty(),
        "nor is it in the file"
    );
}

#[tokio::test]
async fn a_pull_that_panics_fails_and_the_image_can_be_pulled_again() {
    let node = Node::new(Script::default());
    tokio::time::pause();
    node.images.panics.store(true, Ordering::Relaxed);
    let error = node.ensure(PullPolicy::IfNotPresent).await.unwrap_err();
    assert!(error.message.contains("panicked"), "{error}");
    tokio::time::advance(FIRST_BACK_OFF).await;
    node.ensure(PullPolicy::IfNotPresent).await.unwrap();
    assert_eq!(node.pulls(), 1);
}

#[tokio::test]
async fn an_absent_image_that_is_never_pulled_is_an_error() {
    let node = Node::new(Script::default());
    let error = node.ensure(PullPolicy::Never).await.unwrap_err();
    assert_eq!(error.reason, WaitingReason::ErrImageNeverPull);
    assert_eq!((node.told(), node.pulls()), (vec!["ErrImageNeverPull"], 0));
    *node.script.present.lock().unwrap() = true;
    node.ensure(PullPolicy::Never).await.unwrap();
}

#[tokio::test]
async fn a_bad_reference_is_refused_without_asking_the_runtime() {
    let node = Node::new(Script::default());
    let request = ImageRequest {
        image: "Not An Image".to_owned(),
        ..request(PullPolicy::Always)
    };
    let error = node.images.ensure(&request, &|_| {}).await.unwrap_err();
    assert_eq!(
        (error.reason, error.permanent, error.retry_at),
        (WaitingReason::InvalidImageName, true, None)
    );
    assert_eq!(node.pulls(), 0);
}

#[tokio::test]
async fn always_fails_with_the_registry_also_when_the_image_is_present() {
    let node = Node::failing([REFUSED]);
    *node.script.present.lock().unwrap() = true;
    let error = node.ensure(PullPolicy::Always).await.unwrap_err();
    assert_eq!(
        (error.reason, error.permanent),
        (WaitingReason::ErrImagePull, false)
    );
    node.ensure(PullPolicy::IfNotPresent).await.unwrap();
}

#[tokio::test]
async fn any_number_of_waiters_share_one_pull() {
    let node = Node::new(Script {
        held: true,
        ..Script::default()
    });
    let all = futures_util::future::join_all((0..20).map(|_| node.ensure(PullPolicy::Always)));
    let let_go = async {
        while node.pulls() == 0 {
            tokio::task::yield_now().await;
        }
        node.script.go.notify_one();
    };
    let (ended, ()) = tokio::join!(all, let_go);
    assert!(ended.iter().all(Result::is_ok));
    assert_eq!(node.pulls(), 1);
}

#[tokio::test]
async fn a_pull_goes_on_when_nobody_waits_any_more() {
    let node = Node::new(Script {
        held: true,
        ..Script::default()
    });
    tokio::select! {
        _ = node.ensure(PullPolicy::Always) => panic!("the pull is held"),
        () = async { while node.pulls() == 0 { tokio::task::yield_now().await } } => {}
    }
    node.script.go.notify_one();
    while !*node.script.present.lock().unwrap() {
        tokio::task::yield_now().await;
    }
    node.ensure(PullPolicy::Never).await.unwrap();
    assert_eq!(node.pulls(), 1);
}

#[tokio::test]
async fn stopping_ends_the_wait() {
    let node = Node::new(Script {
        held: true,
        ..Script::default()
    });
    let stop = async {
        while node.pulls() == 0 {
            tokio::task::yield_now().await;
        }
        node.images.stopping.cancel();
    };
    let (ended, ()) = tokio::join!(node.ensure(PullPolicy::Always), stop);
    assert!(!ended.unwrap_err().permanent);
}

#[tokio::test]
async fn failures_hold_the_next_pull_back_for_10_s_doubling_to_5_min_until_one_succeeds() {
    let node = Node::failing([REFUSED; 8]);
    tokio::time::pause();
    for (number, wait) in [10, 20, 40, 80, 160, 300, 300].into_iter().enumerate() {
        let error = node.ensure(PullPolicy::IfNotPresent).await.unwrap_err();
        assert_eq!(error.reason, WaitingReason::ErrImagePull);
        assert_eq!(
            (node.told(), node.pulls()),
            (vec!["Pulling", "Failed"], number + 1)
        );
        tokio::time::advance(Duration::from_secs(wait - 1)).await;
        let error = node.ensure(PullPolicy::IfNotPresent).await.unwrap_err();
        assert_eq!(error.reason, WaitingReason::ImagePullBackOff, "after {wait} s");
        assert!(
            error.retry_at.is_some() && error.message.contains("connection refused"),
            "{error}"
        );
        assert_eq!((node.told(), node.pulls()), (vec!["BackOff"], number + 1));
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    node.script.failures.lock().unwrap().clear();
    node.ensure(PullPolicy::IfNotPresent).await.unwrap();
    node.script
        .failures
        .lock()
        .unwrap()
        .push_back(Status::unknown(REFUSED));
    assert!(node.ensure(PullPolicy::Always).await.is_err());
    tokio::time::advance(Duration::from_secs(10)).await;
    node.ensure(PullPolicy::Always).await.unwrap();
}

#[tokio::test]
async fn an_old_failure_is_forgotten() {
    let node = Node::failing([REFUSED; 3]);
    tokio::time::pause();
    assert!(node.ensure(PullPolicy::Always).await.is_err());
    tokio::time::advance(Duration::from_secs(10)).await;
    assert!(node.ensure(PullPolicy::Always).await.is_err());
    tokio::time::advance(FORGOTTEN_AFTER).await;
    assert!(node.ensure(PullPolicy::Always).await.is_err());
    tokio::time::advance(Duration::from_secs(10)).await;
    node.ensure(PullPolicy::Always).await.unwrap();
}

fn with_credentials(node: &Node) {
    let auth = r#"{"auths":{
        "registry.example":{"username":"registry","password":"secret-1"},
        "registry.example/app":{"username":"app","password":"secret-2"},
        "other.example":{"username":"other","password":"secret-3"}}}"#;
    std::fs::write(node.folder.path().join("auth.json"), auth).unwrap();
}

#[tokio::test]
async fn credentials_that_fit_are_tried_in_order_and_then_none() {
    let node = Node::failing([DENIED, DENIED]);
    with_credentials(&node);
    node.ensure(PullPolicy::Always).await.unwrap();
    assert_eq!(*node.script.asked_with.lock().unwrap(), ["app", "registry", ""]);
}

#[tokio::test]
async fn a_refusal_names_the_entry_that_fits_best_and_no_secret() {
    let node = Node::failing([DENIED; 3]);
    with_credentials(&node);
    let error = node.ensure(PullPolicy::Always).await.unwrap_err();
    assert!(
        error.permanent && error.message.contains("\"registry.example/app\""),
        "{error}"
    );
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    assert_eq!(node.pulls(), 3);
}

#[tokio::test]
async fn a_registry_that_is_away_is_not_asked_again_with_other_credentials() {
    let node = Node::failing([REFUSED]);
    with_credentials(&node);
    assert!(node.ensure(PullPolicy::Always).await.is_err());
    assert_eq!(node.pulls(), 1);
}
