//! Every message here was given by a real containerd for a real failure; the registry's and the image's names are
//! what was asked for then.

use tonic::{Code, Status};

use super::*;

/// Who said it.
const V1: &str = "containerd 1.6.20";
const V2: &str = "containerd 2.4.2";

/// Version, code, message, fault, and what a person reads at the end of the message.
const ANSWERS: &[(&str, Code, &str, Fault, &str)] = &[
    // No such repository, tag or digest.
    (
        V1,
        Code::NotFound,
        r#"failed to pull and unpack image "127.0.0.1:5000/nope:1": failed to resolve reference "127.0.0.1:5000/nope:1": 127.0.0.1:5000/nope:1: not found"#,
        Fault::NotFound,
        "was not found in its registry",
    ),
    (
        V2,
        Code::NotFound,
        r#"failed to pull and unpack image "127.0.0.1:5000/nope:1": failed to resolve image: 127.0.0.1:5000/nope:1: not found"#,
        Fault::NotFound,
        "was not found in its registry",
    ),
    // A reference that only the runtime knows to be bad.
    (
        V1,
        Code::Unknown,
        r#"failed to parse image reference "BAD": invalid reference format: repository name must be lowercase"#,
        Fault::BadReference,
        "repository name must be lowercase",
    ),
    (
        V2,
        Code::Unknown,
        r#"failed to parse image reference "BAD": invalid reference format: repository name (library/BAD) must be lowercase"#,
        Fault::BadReference,
        "must be lowercase",
    ),
    // A registry with passwords: none given, a wrong one.
    (
        V1,
        Code::Unknown,
        r#"failed to pull and unpack image "127.0.0.1:5001/team/busybox:1": failed to resolve reference "127.0.0.1:5001/team/busybox:1": pulling from host 127.0.0.1:5001 failed with status code [manifests 1]: 401 Unauthorized"#,
        Fault::Denied,
        "does not give it out without credentials",
    ),
    (
        V2,
        Code::Unknown,
        r#"failed to pull and unpack image "127.0.0.1:5001/team/busybox:1": failed to resolve image: pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials"#,
        Fault::Denied,
        "does not give it out without credentials",
    ),
    (
        V2,
        Code::Unknown,
        "failed to pull and unpack image \"127.0.0.1:5001/team/busybox:1\": failed to resolve image: unexpected status from HEAD request to http://127.0.0.1:5001/v2/team/busybox/manifests/1: 401 Unauthorized",
        Fault::Denied,
        "does not give it out without credentials",
    ),
    (
        V1,
        Code::Unknown,
        r#"failed to pull and unpack image "127.0.0.1:5002/s403/x:1": failed to resolve reference "127.0.0.1:5002/s403/x:1": pulling from host 127.0.0.1:5002 failed with status code [manifests 1]: 403 Forbidden"#,
        Fault::Denied,
        "does not give it out without credentials",
    ),
    (
        V2,
        Code::Unknown,
        "failed to pull and unpack image \"127.0.0.1:5002/s403/x:1\": failed to resolve image: unexpected status from HEAD request to http://127.0.0.1:5002/v2/s403/x/manifests/1: 403 Forbidden\ndenied: says the registry: no",
        Fault::Denied,
        "does not give it out without credentials",
    ),
    // A registry with tokens.
    (
        V1,
        Code::Unknown,
        r#"failed to pull and unpack image "127.0.0.1:5002/token401/x:1": failed to resolve reference "127.0.0.1:5002/token401/x:1": failed to authorize: failed to fetch anonymous token: unexpected status: 401 Unauthorized"#,
        Fault::Denied,
        "does not give it out without credentials",
    ),
    (
        V2,
        Code::Unknown,
        r#"failed to pull and unpack image "127.0.0.1:5002/tokendenied/x:1": failed to resolve image: failed to authorize: failed to fetch anonymous token: unexpected status from GET request to http://127.0.0.1:5002/token?scope=repository%3Atokendenied%2Fx%3Apull&service=x&x=tokendenied: 403 Forbidden"#,
        Fault::Denied,
        "does not give it out without credentials",
    ),
    (
        V2,
        Code::Unknown,
        r#"failed to pull and unpack image "127.0.0.1:5002/tokenfail/x:1": failed to resolve image: failed to authorize: failed to fetch anonymous token: unexpected status from GET request to http://127.0.0.1:5002/token?scope=repository%3Atokenfail%2Fx%3Apull&service=x&x=tokenfail: 500 Internal Server Error"#,
        Fault::RegistryFailed,
        "failed: 500 Internal Server Error",
    ),
    // Not for this machine, not an image, not all of it.
    (
        V1,
        Code::NotFound,
        r#"failed to pull and unpack image "127.0.0.1:5000/arm:multi": no match for platform in manifest: not found"#,
        Fault::OtherPlatform,
        "this node's kind of machine",
    ),
    (
        V2,
        Code::NotFound,
        "get image config descriptor: no match for platform in manifest sha256:0e580698fc5bbd62e1ca21857f857ad940a43a9baa79b31f02d7f9b1237cf9c3: not found",
        Fault::OtherPlatform,
        "this node's kind of machine",
    ),
    (
        V1,
        Code::Unknown,
        r#"failed to pull and unpack image "127.0.0.1:5000/chart:1": failed to unpack image on snapshotter overlayfs: mismatched image rootfs and manifest layers"#,
        Fault::NotAnImage,
        "is not a container image",
    ),
    (
        V1,
        Code::NotFound,
        r#"failed to pull and unpack image "127.0.0.1:5002/html/x:1": failed to unpack image on snapshotter overlayfs: unexpected media type text/html for sha256:7e537e903df5bfa9c9de2dc590d2646f8b4aa71dd14877bd3e2eceda829a4618: not found"#,
        Fault::NotAnImage,
        "is not a container image",
    ),
    (
        V2,
        Code::NotFound,
        "get image config descriptor: unexpected media type text/html for sha256:7e537e903df5bfa9c9de2dc590d2646f8b4aa71dd14877bd3e2eceda829a4618: not found",
        Fault::NotAnImage,
        "is not a container image",
    ),
    (
        V2,
        Code::NotFound,
        r#"failed to pull and unpack image "127.0.0.1:5000/gap:1": failed to copy: httpReadSeeker: failed open: could not fetch content descriptor sha256:6fe2fd6db88952ec2a7b4206520e54a98827e7edee22222ca84da1e28867025c (application/vnd.oci.image.layer.v1.tar+gzip) from remote: not found"#,
        Fault::Incomplete,
        "is missing in its registry",
    ),
    // Away.
    (
        V1,
        Code::Unknown,
        r#"failed to pull and unpack image "127.0.0.1:5999/x:1": failed to resolve reference "127.0.0.1:5999/x:1": failed to do request: Head "http://127.0.0.1:5999/v2/x/manifests/1": dial tcp 127.0.0.1:5999: connect: connection refused"#,
        Fault::Unreachable,
        "cannot be reached: connection refused",
    ),
    (
        V2,
        Code::Unknown,
        r#"failed to pull and unpack image "10.251.9.9:5000/x:1": failed to resolve image: failed to do request: Head "https://10.251.9.9:5000/v2/x/manifests/1": dial tcp 10.251.9.9:5000: connect: no route to host"#,
        Fault::Unreachable,
        "cannot be reached: no route to host",
    ),
    (
        V2,
        Code::Unknown,
        r#"failed to pull and unpack image "nosuch.example/x:1": failed to resolve image: failed to do request: Head "https://nosuch.example/v2/x/manifests/1": dial tcp: lookup nosuch.example: Temporary failure in name resolution"#,
        Fault::Unreachable,
        "cannot be reached: Temporary failure in name resolution",
    ),
    // Not trusted.
    (
        V1,
        Code::Unknown,
        r#"failed to pull and unpack image "10.251.0.1:5443/busybox:1": failed to resolve reference "10.251.0.1:5443/busybox:1": failed to do request: Head "https://10.251.0.1:5443/v2/busybox/manifests/1": x509: certificate signed by unknown authority"#,
        Fault::Untrusted,
        "certificate signed by unknown authority",
    ),
    (
        V2,
        Code::Unknown,
        r#"failed to pull and unpack image "10.251.0.1:5443/busybox:1": failed to resolve image: failed to do request: Head "https://10.251.0.1:5443/v2/busybox/manifests/1": tls: failed to verify certificate: x509: certificate signed by unknown authority"#,
        Fault::Untrusted,
        "certificate signed by unknown authority",
    ),
    (
        V2,
        Code::Unknown,
        r#"failed to pull and unpack image "127.0.0.1:5002/close/x:1": failed to resolve image: failed to do request: Head "https://127.0.0.1:5002/v2/close/x/manifests/1": tls: first record does not look like a TLS handshake"#,
        Fault::Untrusted,
        "first record does not look like a TLS handshake",
    ),
    // Busy or broken.
    (
        V1,
        Code::Unknown,
        r#"failed to pull and unpack image "127.0.0.1:5002/s429/x:1": failed to resolve reference "127.0.0.1:5002/s429/x:1": pulling from host 127.0.0.1:5002 failed with status code [manifests 1]: 429 Too Many Requests"#,
        Fault::TooManyRequests,
        "takes no more requests for now",
    ),
    (
        V2,
        Code::Unknown,
        r#"failed to pull and unpack image "127.0.0.1:5002/s429/x:1": failed to resolve image: unexpected status from HEAD request to http://127.0.0.1:5002/v2/s429/x/manifests/1: 429 Too Many Requests"#,
        Fault::TooManyRequests,
        "takes no more requests for now",
    ),
    (
        V1,
        Code::Unknown,
        r#"failed to pull and unpack image "127.0.0.1:5002/s503/x:1": failed to resolve reference "127.0.0.1:5002/s503/x:1": pulling from host 127.0.0.1:5002 failed with status code [manifests 1]: 503 Service Unavailable"#,
        Fault::RegistryFailed,
        "failed: 503 Service Unavailable",
    ),
    (
        V2,
        Code::Unknown,
        r#"failed to pull and unpack image "127.0.0.1:5002/s504/x:1": failed to resolve image: unexpected status from HEAD request to http://127.0.0.1:5002/v2/s504/x/manifests/1: 504 Gateway Timeout"#,
        Fault::RegistryFailed,
        "failed: 504 Gateway Timeout",
    ),
    (
        V2,
        Code::DeadlineExceeded,
        r#"failed to pull and unpack image "127.0.0.1:5002/slow/x:1": failed to resolve image: failed to do request: Head "http://127.0.0.1:5002/v2/slow/x/manifests/1": net/http: timeout awaiting response headers"#,
        Fault::Silent,
        "does not answer",
    ),
    // No room.
    (
        V1,
        Code::Unknown,
        r#"failed to pull and unpack image "127.0.0.1:5000/big:1": failed to copy: write /var/lib/containerd/io.containerd.content.v1.content/ingest/ec82ae47099ff4e6c5351ba54004eb862e2f39f1fb155c81a826d2fc7a602286/data: no space left on device"#,
        Fault::DiskFull,
        "has no space left for image \"registry.example/app:1\"",
    ),
    // What has no words of its own.
    (
        V1,
        Code::Unknown,
        r#"failed to pull and unpack image "127.0.0.1:5002/s400/x:1": failed to resolve reference "127.0.0.1:5002/s400/x:1": pulling from host 127.0.0.1:5002 failed with status code [manifests 1]: 400 Bad Request"#,
        Fault::Other,
        "cannot be pulled: pulling from host 127.0.0.1:5002 failed with status code [manifests 1]: 400 Bad Request",
    ),
];

fn image() -> ImageReference {
    ImageReference::parse("registry.example/app:1").unwrap()
}

#[test]
fn every_answer_is_told_by_its_cause() {
    for (version, code, message, fault, end) in ANSWERS {
        let failure = PullFailure::read(&image(), &Status::new(*code, *message), None);
        assert_eq!(failure.fault, *fault, "{version}: {message}");
        assert!(failure.message.ends_with(end), "{version}: {}", failure.message);
    }
}

#[test]
fn no_message_carries_the_steps_of_the_runtime_or_the_code_of_the_call() {
    for (version, code, message, ..) in ANSWERS.iter().filter(|(.., fault, _)| *fault != Fault::Other) {
        let told = PullFailure::read(&image(), &Status::new(*code, *message), None).message;
        for noise in [
            "failed to pull",
            "failed to resolve",
            "rpc error",
            "desc =",
            "http",
            "sha256:",
            "Unknown",
            "\n",
        ] {
            assert!(!told.contains(noise), "{version}: {noise:?} in {told}");
        }
    }
}

#[test]
fn only_what_waiting_cannot_help_is_permanent() {
    for (_, _, message, fault, _) in ANSWERS {
        let permanent = [
            Fault::NotFound,
            Fault::Denied,
            Fault::BadReference,
            Fault::OtherPlatform,
            Fault::NotAnImage,
        ];
        assert_eq!(fault.is_permanent(), permanent.contains(fault), "{message}");
    }
}

#[test]
fn a_refusal_says_whose_credentials_were_used() {
    let status = Status::unknown("unexpected status: 401 Unauthorized");
    let told = PullFailure::read(&image(), &status, Some("registry.example")).message;
    assert!(
        told.ends_with("with the credentials of \"registry.example\""),
        "{told}"
    );
}

#[test]
fn no_image_can_be_named_like_a_failure() {
    for (mark, _) in MARKS {
        assert!(mark.contains(' ') && *mark == mark.to_ascii_lowercase(), "{mark}");
    }
    let status = Status::unknown(
        r#"failed to pull and unpack image "a.io/toomanyrequests:401": failed to resolve image: connection refused"#,
    );
    assert_eq!(
        PullFailure::read(&image(), &status, None).fault,
        Fault::Unreachable
    );
}

#[test]
fn addresses_lose_their_queries() {
    let status = Status::unknown(r#"Get "https://r.example/v2/token?sig=SECRET&scope=a": 418 I'm a teapot?"#);
    let told = PullFailure::read(&image(), &status, None).message;
    assert!(
        !told.contains("SECRET") && told.contains("418 I'm a teapot"),
        "{told}"
    );
}

#[test]
fn cris_own_words_for_a_registry_that_is_away_are_kept() {
    let status = Status::unknown("RegistryUnavailable: pull 1.2.3.4: closed for the night");
    let failure = PullFailure::read(&image(), &status, None);
    assert_eq!(failure.reason(), WaitingReason::RegistryUnavailable);
    assert!(
        failure.message.ends_with("is unavailable: closed for the night"),
        "{}",
        failure.message
    );
}
