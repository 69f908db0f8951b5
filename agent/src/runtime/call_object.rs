//! What a call to the runtime is about, read from its request: for those who are told that it is not answered.

use std::time::Duration;

use debuglet_proto::v1::{
    CreateContainerRequest, PodSandboxMetadata, RunPodSandboxRequest, StopContainerRequest,
};
use prost::Message;

use super::call_limits::{Limit, Method, Names};

/// The head of a message in gRPC: whether it is compressed, and its length.
const FRAME_HEAD: usize = 5;
/// How much of an id is told, as crictl does.
const SHOWN_OF_ID: usize = 13;

/// One call, by what it is about. Two calls of one method about one object are the same to whoever is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Call {
    /// `ContainerStatus`.
    pub(crate) method: String,
    /// `container 3fa1...`; empty where it is about the node.
    pub(crate) object: String,
}

impl Call {
    /// A call in words: `ContainerStatus of container 3fa1c09be2d41`.
    pub(crate) fn name(&self) -> String {
        if self.object.is_empty() {
            self.method.clone()
        } else {
            format!("{} of {}", self.method, self.object)
        }
    }
}

/// The call of one request, `namespace/name` of the pod that it makes something for where the request says that, and the
/// grace of a stop.
pub(super) struct Asked {
    pub(super) call: Call,
    pub(super) pod: Option<String>,
    pub(super) grace: Duration,
}

/// What all requests about one container or sandbox begin with: its id is their first field.
#[derive(Clone, PartialEq, Message)]
struct OfObject {
    #[prost(string, tag = "1")]
    id: String,
}

/// What all requests about one image begin with.
#[derive(Clone, PartialEq, Message)]
struct OfImage {
    #[prost(message, optional, tag = "1")]
    image: Option<OfObject>,
}

/// Reads the body of a request. What cannot be read names nothing: the call is made all the same.
pub(super) fn asked(method: &Method, path: &str, body: &[u8]) -> Asked {
    let message = body.get(FRAME_HEAD..).unwrap_or_default();
    let (object, pod) = match method.names {
        Names::Nothing => (String::new(), None),
        Names::Container => (format!("container {}", id(message)), None),
        Names::Sandbox => (format!("sandbox {}", id(message)), None),
        Names::Image => {
            let image = OfImage::decode(message).unwrap_or_default().image;
            (format!("image {}", image.unwrap_or_default().id), None)
        }
        Names::NewSandbox => {
            let request = RunPodSandboxRequest::decode(message).unwrap_or_default();
            let metadata = request.config.and_then(|config| config.metadata);
            let pod = metadata.map(pod_name).unwrap_or_default();
            (format!("the sandbox of pod {pod}"), Some(pod))
        }
        Names::NewContainer => {
            let request = CreateContainerRequest::decode(message).unwrap_or_default();
            let container = request.config.and_then(|config| config.metadata);
            let pod = request.sandbox_config.and_then(|config| config.metadata);
            let (name, pod) = (
                container.unwrap_or_default().name,
                pod.map(pod_name).unwrap_or_default(),
            );
            (format!("container {name} of pod {pod}"), Some(pod))
        }
    };
    let grace = if method.limit == Limit::Stop {
        let seconds = StopContainerRequest::decode(message).unwrap_or_default().timeout;
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    } else {
        Duration::ZERO
    };
    // `CreateContainer` of `/runtime.v1.RuntimeService/CreateContainer`.
    let method = path.rsplit('/').next().unwrap_or_default().to_owned();
    Asked {
        call: Call { method, object },
        pod,
        grace,
    }
}

fn id(message: &[u8]) -> String {
    let id = OfObject::decode(message).unwrap_or_default().id;
    id.chars().take(SHOWN_OF_ID).collect()
}

fn pod_name(metadata: PodSandboxMetadata) -> String {
    format!("{}/{}", metadata.namespace, metadata.name)
}

#[cfg(test)]
mod tests {
    use debuglet_proto::v1::{
        ContainerConfig, ContainerMetadata, ExecRequest, ImageSpec, ListContainersRequest, PodSandboxConfig,
        PullImageRequest, StopPodSandboxRequest,
    };

    use super::super::call_limits::method;
    use super::*;

    fn read(path: &str, request: &impl Message) -> (String, Option<String>, u64) {
        let mut body = vec![0; FRAME_HEAD];
        request.encode(&mut body).unwrap();
        let asked = asked(&method(path), path, &body);
        (asked.call.name(), asked.pod, asked.grace.as_secs())
    }

    #[test]
    fn a_call_is_named_by_its_object_and_a_new_one_by_its_pod() {
        let id = "3fa1c09be2d41aaaaaaaaaaaaaaa".to_owned();
        let metadata = Some(PodSandboxMetadata {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            ..PodSandboxMetadata::default()
        });
        let sandbox = Some(PodSandboxConfig {
            metadata,
            ..PodSandboxConfig::default()
        });
        let of = |method: &str| format!("/runtime.v1.RuntimeService/{method}");
        let stop = StopContainerRequest {
            container_id: id.clone(),
            timeout: 30,
        };
        assert_eq!(
            read(&of("StopContainer"), &stop),
            ("StopContainer of container 3fa1c09be2d41".to_owned(), None, 30)
        );
        let exec = ExecRequest {
            container_id: id.clone(),
            ..ExecRequest::default()
        };
        assert_eq!(read(&of("Exec"), &exec).0, "Exec of container 3fa1c09be2d41");
        let stop = StopPodSandboxRequest { pod_sandbox_id: id };
        assert_eq!(
            read(&of("StopPodSandbox"), &stop).0,
            "StopPodSandbox of sandbox 3fa1c09be2d41"
        );
        let list = ListContainersRequest::default();
        assert_eq!(read(&of("ListContainers"), &list).0, "ListContainers");
        let run = RunPodSandboxRequest {
            config: sandbox.clone(),
            ..RunPodSandboxRequest::default()
        };
        assert_eq!(
            read(&of("RunPodSandbox"), &run),
            (
                "RunPodSandbox of the sandbox of pod shop/web".to_owned(),
                Some("shop/web".to_owned()),
                0
            )
        );
        let metadata = Some(ContainerMetadata {
            name: "look".to_owned(),
            ..ContainerMetadata::default()
        });
        let create = CreateContainerRequest {
            config: Some(ContainerConfig {
                metadata,
                ..ContainerConfig::default()
            }),
            sandbox_config: sandbox,
            ..CreateContainerRequest::default()
        };
        assert_eq!(
            read(&of("CreateContainer"), &create),
            (
                "CreateContainer of container look of pod shop/web".to_owned(),
                Some("shop/web".to_owned()),
                0
            )
        );
        let pull = PullImageRequest {
            image: Some(ImageSpec {
                image: "busybox".to_owned(),
                ..ImageSpec::default()
            }),
            ..PullImageRequest::default()
        };
        assert_eq!(
            read("/runtime.v1.ImageService/PullImage", &pull).0,
            "PullImage of image busybox"
        );
    }

    #[test]
    fn a_request_that_cannot_be_read_names_nothing() {
        let path = "/runtime.v1.RuntimeService/ContainerStatus";
        for body in [&[][..], &[0, 0, 0], &[0, 0, 0, 0, 3, 0xff, 0xff, 0xff]] {
            assert_eq!(
                asked(&method(path), path, body).call.name(),
                "ContainerStatus of container "
            );
        }
    }
}
