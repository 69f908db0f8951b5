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
    /// The registry has the image and lacks a part of it.
    Incomplete,
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
        let (reason, detail) = (reason(status.message()), detail(status.message()));
        let message = match fault {
            Fault::NotFound => format!("image \"{image}\" was not found in its registry"),
            Fault::Denied => {
                let with = entry.map_or_else(
                    || "without credentials".to_owned(),
                    |entry| format!("with the credentials of \"{entry}\""),
                );
                format!("image \"{image}\" does not exist, or its registry does not give it out {with}")
            }
            Fault::BadReference => format!("\"{image}\" is no name of an image to the runtime: {reason}"),
            Fault::OtherPlatform => format!("image \"{image}\" is not made for this node's kind of machine"),
            Fault::NotAnImage => format!("what the registry has as \"{image}\" is not a container image"),
            Fault::Incomplete => format!("a part of image \"{image}\" is missing in its registry"),
            Fault::Unreachable => format!("the registry of image \"{image}\" cannot be reached: {reason}"),
            Fault::Silent => format!("the registry of image \"{image}\" does not answer"),
            Fault::TooManyRequests => {
                format!("the registry of image \"{image}\" takes no more requests for now")
            }
            Fault::RegistryFailed => format!("the registry of image \"{image}\" failed: {reason}"),
            Fault::Untrusted => {
                format!("no trusted connection to the registry of image \"{image}\": {reason}")
            }
            Fault::DiskFull => format!("the node has no space left for image \"{image}\""),
            Fault::RuntimeAway => format!("the runtime went away while it pulled image \"{image}\""),
            Fault::RegistryUnavailable => {
                format!("the registry of image \"{image}\" is unavailable: {reason}")
            }
            Fault::BadSignature => format!("the signature of image \"{image}\" is not valid: {reason}"),
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

/// The marks by which a fault is known; the first of this list that is found in the message counts. They are words
/// of containerd's resolver (1.6 and 2.x), of Go's network stack, of CRI and of the distribution specification.
/// Each holds a space, so that no image's name can hold one.
const MARKS: &[(&str, Fault)] = &[
    ("signaturevalidationfailed: ", Fault::BadSignature),
    ("registryunavailable: ", Fault::RegistryUnavailable),
    ("no space left on device", Fault::DiskFull),
    ("disk quota exceeded", Fault::DiskFull),
    ("failed to parse image reference", Fault::BadReference),
    ("invalid reference format", Fault::BadReference),
    ("no match for platform", Fault::OtherPlatform),
    ("mismatched image rootfs", Fault::NotAnImage),
    ("unexpected media type", Fault::NotAnImage),
    ("could not fetch content descriptor", Fault::Incomplete),
    ("toomanyrequests: ", Fault::TooManyRequests),
    ("429 too many requests", Fault::TooManyRequests),
    ("tls handshake timeout", Fault::Silent),
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
    ("deadline exceeded", Fault::Silent),
    ("timeout exceeded", Fault::Silent),
    ("timeout awaiting response", Fault::Silent),
    ("context canceled", Fault::Silent),
    ("500 internal server error", Fault::RegistryFailed),
    ("502 bad gateway", Fault::RegistryFailed),
    ("503 service unavailable", Fault::RegistryFailed),
    ("504 gateway timeout", Fault::RegistryFailed),
    ("401 unauthorized", Fault::Denied),
    ("403 forbidden", Fault::Denied),
    ("authorization failed", Fault::Denied),
    ("pull access denied", Fault::Denied),
    ("manifest unknown", Fault::NotFound),
    (" not found", Fault::NotFound),
];

fn classify(code: tonic::Code, message: &str) -> Fault {
    // What follows the first line is the registry's own text, which may say anything.
    let text = first_line(message).to_ascii_lowercase();
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

/// The end of a runtime's message: every layer puts its own step and a colon before the reason.
fn reason(message: &str) -> &str {
    let line = first_line(message);
    line.rsplit_once(": ").map_or(line, |(_, reason)| reason)
}

/// A runtime's message without the steps in front that name the image once more.
fn detail(message: &str) -> String {
    let mut rest = first_line(message);
    for step in [
        "failed to pull and unpack image \"",
        "failed to resolve reference \"",
    ] {
        if let Some((_, after)) = rest.strip_prefix(step).and_then(|named| named.split_once("\": ")) {
            rest = after;
        }
    }
    without_queries(rest)
}

fn first_line(message: &str) -> &str {
    message.trim().lines().next().unwrap_or_default()
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
        detail(status.message())
    }
}

#[cfg(test)]
mod tests;
