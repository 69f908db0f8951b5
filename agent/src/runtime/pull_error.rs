//! Why an image is not there, in words for a person: the runtime's answer to a failed pull names every layer of
//! software it went through, and says in the middle whether waiting can help.

use crate::pod::image_reference::ImageReference;
use crate::pod::observed::Nanoseconds;

/// A container's waiting reason while its image is missing, in the kubelet's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitingReason {
    /// The last pull failed.
    ErrImagePull,
    /// The last pull failed, and the next is not due yet.
    ImagePullBackOff,
    /// The policy is `Never` and the image is not on the node.
    ErrImageNeverPull,
    /// The name is not an image reference.
    InvalidImageName,
    /// The runtime did not say whether it has the image.
    ImageInspectError,
    /// The runtime said, in CRI's own words, that the registry is away (containerd never does).
    RegistryUnavailable,
}

impl WaitingReason {
    /// The `reason` of a `ContainerStateWaiting`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            WaitingReason::ErrImagePull => "ErrImagePull",
            WaitingReason::ImagePullBackOff => "ImagePullBackOff",
            WaitingReason::ErrImageNeverPull => "ErrImageNeverPull",
            WaitingReason::InvalidImageName => "InvalidImageName",
            WaitingReason::ImageInspectError => "ImageInspectError",
            WaitingReason::RegistryUnavailable => "RegistryUnavailable",
        }
    }
}

/// An image could not be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ImageError {
    /// The image as the pod's spec names it.
    pub(crate) image: String,
    /// The container's waiting reason.
    pub(crate) reason: WaitingReason,
    /// What happened, for a person: the image, the registry, and why. Never a secret.
    pub(crate) message: String,
    /// Whether waiting longer cannot help: no such image, access denied, a bad reference.
    pub(crate) permanent: bool,
    /// When the next pull may begin; `None` where there will be none (`Never`, a bad reference).
    pub(crate) retry_at: Option<Nanoseconds>,
}

/// What a failed pull failed of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The registry has no such repository, tag or digest.
    NotFound,
    /// The registry wants other credentials.
    Denied,
    /// The runtime cannot read the reference.
    BadReference,
    /// The image exists, for other kinds of machines.
    OtherPlatform,
    /// What the registry has there is not an image this runtime can run.
    NotAnImage,
    /// The registry's host cannot be found or does not accept connections.
    Unreachable,
    /// The registry is there and says nothing.
    Silent,
    /// The registry has too much to do, with us or with all.
    TooManyRequests,
    /// The registry failed (5xx).
    RegistryFailed,
    /// The registry's certificate is not trusted, or it speaks no TLS.
    Untrusted,
    /// The node's disk is full.
    DiskFull,
    /// The runtime went away in between.
    RuntimeAway,
    /// CRI's `RegistryUnavailable`.
    RegistryUnavailable,
    /// CRI's `SignatureValidationFailed`.
    BadSignature,
    /// Something else.
    Other,
}

impl Fault {
    /// Whether pulling again later cannot help.
    pub(crate) fn is_permanent(self) -> bool {
        matches!(
            self,
            Fault::NotFound | Fault::Denied | Fault::BadReference | Fault::OtherPlatform | Fault::NotAnImage
        )
    }

    /// Whether other credentials could change the answer: registries hide what they do not give as not found.
    pub(crate) fn may_depend_on_credentials(self) -> bool {
        matches!(self, Fault::Denied | Fault::NotFound)
    }
}

/// A failed pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PullFailure {
    /// The kind of failure.
    pub(crate) fault: Fault,
    /// For a person: a sentence without its full stop.
    pub(crate) message: String,
}

impl PullFailure {
    /// Reads the runtime's answer to PullImage.
    ///
    /// `entry` is the entry of the auth file whose credentials were used.
    pub(crate) fn read(image: &ImageReference, status: &tonic::Status, entry: Option<&str>) -> PullFailure {
        let fault = match is_local(status) {
            true => Fault::RuntimeAway,
            false => classify(status.code(), status.message()),
        };
        let registry = image.registry();
        let detail = innermost(status.message());
        let message = match fault {
            Fault::NotFound => format!("image \"{image}\" was not found in its registry"),
            Fault::Denied => {
                let with = entry.map_or_else(
                    || "without credentials".to_owned(),
                    |entry| format!("with the credentials of entry \"{entry}\""),
                );
                format!(
                    "registry {registry} gives no access to image \"{image}\" {with}, or has no such image"
                )
            }
            Fault::BadReference => {
                format!("the runtime cannot read \"{image}\" as the name of an image: {detail}")
            }
            Fault::OtherPlatform => format!("image \"{image}\" is not made for this node's kind of machine"),
            Fault::NotAnImage => {
                format!("what registry {registry} has as \"{image}\" is no image that can be run: {detail}")
            }
            Fault::Unreachable => {
                format!("registry {registry} of image \"{image}\" cannot be reached: {detail}")
            }
            Fault::Silent => format!("registry {registry} of image \"{image}\" does not answer"),
            Fault::TooManyRequests => {
                format!("registry {registry} of image \"{image}\" takes no more requests for now")
            }
            Fault::RegistryFailed => format!("registry {registry} of image \"{image}\" failed: {detail}"),
            Fault::Untrusted => {
                format!("no trusted connection to registry {registry} of image \"{image}\": {detail}")
            }
            Fault::DiskFull => format!("there is no space left on the node for image \"{image}\""),
            Fault::RuntimeAway => format!("the runtime went away while it pulled image \"{image}\""),
            Fault::RegistryUnavailable => {
                format!("registry {registry} of image \"{image}\" is unavailable: {detail}")
            }
            Fault::BadSignature => format!("the signature of image \"{image}\" is not valid: {detail}"),
            Fault::Other => format!("image \"{image}\" cannot be pulled: {detail}"),
        };
        PullFailure { fault, message }
    }

    /// The waiting reason right after the failure.
    pub(crate) fn reason(&self) -> WaitingReason {
        match self.fault {
            Fault::RegistryUnavailable => WaitingReason::RegistryUnavailable,
            Fault::BadReference => WaitingReason::InvalidImageName,
            _ => WaitingReason::ErrImagePull,
        }
    }
}

/// The marks by which a fault is known, in the order of looking: the first that is found in the message counts.
/// They are words of containerd's resolver (1.6 and 2.x), of Go's network stack and of the distribution
/// specification; each has its real message in the tests.
const MARKS: &[(&str, Fault)] = &[
    ("signaturevalidationfailed", Fault::BadSignature),
    ("registryunavailable", Fault::RegistryUnavailable),
    ("no space left on device", Fault::DiskFull),
    ("disk quota exceeded", Fault::DiskFull),
    ("failed to parse image reference", Fault::BadReference),
    ("invalid reference format", Fault::BadReference),
    ("no match for platform", Fault::OtherPlatform),
    ("toomanyrequests", Fault::TooManyRequests),
    ("too many requests", Fault::TooManyRequests),
    ("x509: ", Fault::Untrusted),
    ("tls: ", Fault::Untrusted),
    ("server gave http response to https client", Fault::Untrusted),
    ("connection refused", Fault::Unreachable),
    ("no such host", Fault::Unreachable),
    ("server misbehaving", Fault::Unreachable),
    ("temporary failure in name resolution", Fault::Unreachable),
    ("no route to host", Fault::Unreachable),
    ("network is unreachable", Fault::Unreachable),
    ("host is down", Fault::Unreachable),
    ("connection reset by peer", Fault::Unreachable),
    ("i/o timeout", Fault::Silent),
    ("tls handshake timeout", Fault::Silent),
    ("client.timeout exceeded", Fault::Silent),
    ("deadline exceeded", Fault::Silent),
    ("context canceled", Fault::Silent),
    ("500 internal server error", Fault::RegistryFailed),
    ("502 bad gateway", Fault::RegistryFailed),
    ("503 service unavailable", Fault::RegistryFailed),
    ("504 gateway timeout", Fault::RegistryFailed),
    ("401 unauthorized", Fault::Denied),
    ("403 forbidden", Fault::Denied),
    ("authorization failed", Fault::Denied),
    ("insufficient_scope", Fault::Denied),
    ("pull access denied", Fault::Denied),
    ("no basic auth credentials", Fault::Denied),
    ("unexpected media type", Fault::NotAnImage),
    ("manifest unknown", Fault::NotFound),
    ("not found", Fault::NotFound),
];

fn classify(code: tonic::Code, message: &str) -> Fault {
    let text = message.to_ascii_lowercase();
    if let Some((_, fault)) = MARKS.iter().find(|(mark, _)| text.contains(mark)) {
        return *fault;
    }
    match code {
        tonic::Code::NotFound => Fault::NotFound,
        tonic::Code::PermissionDenied | tonic::Code::Unauthenticated => Fault::Denied,
        tonic::Code::DeadlineExceeded | tonic::Code::Cancelled => Fault::Silent,
        tonic::Code::Unavailable => Fault::RegistryFailed,
        _ => Fault::Other,
    }
}

/// The part of a runtime's message that says why: every layer puts its own step before a colon, the reason comes last.
fn innermost(message: &str) -> String {
    // Steps that containerd names; what follows them is nearer to the cause.
    const STEPS: &[&str] = &[
        "failed to do request: ",
        "failed to resolve image: ",
        "failed to authorize: ",
        "failed to extract layer",
        "failed to copy: ",
        "desc = ",
    ];
    let mut rest = message;
    for step in STEPS {
        if let Some((_, after)) = rest.rsplit_once(step) {
            rest = after;
        }
    }
    without_queries(rest.trim())
}

/// Leaves out the query of every address: it can carry a token of the registry's.
fn without_queries(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut in_query = false;
    for character in text.chars() {
        match character {
            '?' => in_query = true,
            '"' | '\'' | ' ' | '\n' => in_query = false,
            _ => {}
        }
        if !in_query {
            clean.push(character);
        }
    }
    clean
}

/// Whether the connection to the runtime failed: what the runtime itself answers has no source.
fn is_local(status: &tonic::Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// The reason that a call to the runtime failed with, without gRPC's own words.
pub(crate) fn cause(status: &tonic::Status) -> String {
    if is_local(status) {
        "it cannot be reached".to_owned()
    } else {
        innermost(status.message())
    }
}
