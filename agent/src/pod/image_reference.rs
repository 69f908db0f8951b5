//! The name of an image, read as containerd and docker read it: `busybox` is
//! `docker.io/library/busybox:latest`.

use std::fmt;

/// The registry of names that name none.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Another name of the default registry, from docker's early days.
const LEGACY_DEFAULT_REGISTRY: &str = "index.docker.io";
/// Where the default registry keeps the images that have no owner in their name.
const OFFICIAL_IMAGES: &str = "library/";
/// The tag of names that have neither tag nor digest.
const DEFAULT_TAG: &str = "latest";
/// The most bytes of registry and path together.
const MAX_NAME_LENGTH: usize = 255;
/// The most characters of a tag.
const MAX_TAG_LENGTH: usize = 128;

/// An image's name in full.
///
/// Its `Display` is the normalised form, which every runtime takes: `docker.io/library/busybox:latest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageReference {
    /// The registry's host, with its port where one is named: `docker.io`, `127.0.0.1:5000`.
    registry: String,
    /// The path in the registry: `library/busybox`.
    path: String,
    /// The tag; `latest` where the name has neither tag nor digest.
    tag: Option<String>,
    /// The digest: `sha256:...`.
    digest: Option<String>,
}

/// The text is not the name of an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reference:?} is not an image reference: {reason}")]
pub(crate) struct InvalidImageReference {
    /// The text as given.
    pub(crate) reference: String,
    /// What is wrong with it.
    pub(crate) reason: &'static str,
}

impl ImageReference {
    /// Reads a name as a pod's `image` field has it.
    pub(crate) fn parse(reference: &str) -> Result<ImageReference, InvalidImageReference> {
        parse(reference).map_err(|reason| InvalidImageReference {
            reference: reference.to_owned(),
            reason,
        })
    }

    /// The registry's host, with its port where one is named: the key of its credentials.
    pub(crate) fn registry(&self) -> &str {
        &self.registry
    }

    /// Registry and path, without tag and digest: `docker.io/library/busybox`.
    pub(crate) fn repository(&self) -> String {
        format!("{}/{}", self.registry, self.path)
    }

    /// The tag, if there is one: a name with only a digest has none.
    pub(crate) fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.registry, self.path)?;
        if let Some(tag) = &self.tag {
            write!(formatter, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(formatter, "@{digest}")?;
        }
        Ok(())
    }
}

/// The pull policy of a container that states none (`imagePullPolicy`): `Always` where the tag is `latest` or
/// left out, else `IfNotPresent`. So it is also for a name that cannot be read, which fails later.
pub(crate) fn default_pull_policy(image: &str) -> &'static str {
    match ImageReference::parse(image) {
        Ok(reference) if reference.tag() == Some(DEFAULT_TAG) => "Always",
        _ => "IfNotPresent",
    }
}

fn parse(reference: &str) -> Result<ImageReference, &'static str> {
    if reference.is_empty() {
        return Err("it is empty");
    }
    if reference.len() == 64 && is_hex(reference) {
        return Err("it looks like an image's id; name the image instead");
    }
    let (registry, remainder) = split_registry(reference);
    // A digest comes last; what is before it may have a tag of its own.
    let (name_and_tag, digest) = match remainder.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (remainder, None),
    };
    let (path, tag) = match name_and_tag.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (name_and_tag, None),
    };
    if path.chars().any(|character| character.is_ascii_uppercase()) {
        return Err("the repository must be in lower case");
    }
    if !is_registry(registry) {
        return Err("the registry is not a host name or address with an optional port");
    }
    let path = match (registry, path) {
        (DEFAULT_REGISTRY, path) if !path.contains('/') => format!("{OFFICIAL_IMAGES}{path}"),
        _ => path.to_owned(),
    };
    if !path.split('/').all(is_path_component) {
        return Err(
            "the repository may hold lower case letters, digits and single separators (. _ __ -) between them",
        );
    }
    if registry.len() + 1 + path.len() > MAX_NAME_LENGTH {
        return Err("the name is longer than 255 characters");
    }
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(
            "the tag may hold letters, digits, _ . and -, begins with none of . and -, and has at most 128 characters",
        );
    }
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Err("the digest is not of the form sha256:<64 hexadecimal digits>");
    }
    let tag = match (tag, digest) {
        (None, None) => Some(DEFAULT_TAG),
        (tag, _) => tag,
    };
    Ok(ImageReference {
        registry: registry.to_owned(),
        path,
        tag: tag.map(str::to_owned),
        digest: digest.map(str::to_owned),
    })
}

/// The first part is a registry when it cannot be a part of a path: it has a dot, a port or an upper case letter, or is `localhost`.
fn split_registry(reference: &str) -> (&str, &str) {
    match reference.split_once('/') {
        Some((LEGACY_DEFAULT_REGISTRY, rest)) => (DEFAULT_REGISTRY, rest),
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.chars().any(|character| character.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, reference),
    }
}

fn is_registry(registry: &str) -> bool {
    if let Some(rest) = registry.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        return !address.is_empty()
            && address.chars().all(|c| c.is_ascii_hexdigit() || c == ':')
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = match registry.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (registry, None),
    };
    port.is_none_or(is_port) && host.split('.').all(is_host_component)
}

fn is_port(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_host_component(component: &str) -> bool {
    !component.is_empty()
        && !component.starts_with('-')
        && !component.ends_with('-')
        && component
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_path_component(component: &str) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    is_letter(first)
        && is_letter(last)
        && bytes
            .iter()
            .all(|byte| is_letter(byte) || matches!(byte, b'.' | b'_' | b'-'))
        && bytes
            .split(is_letter)
            .all(|run| matches!(run, b"" | b"." | b"_" | b"__") || run.iter().all(|byte| *byte == b'-'))
}

fn is_tag(tag: &str) -> bool {
    !tag.is_empty()
        && tag.len() <= MAX_TAG_LENGTH
        && !tag.starts_with(['.', '-'])
        && tag
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    let length = match digest.split_once(':') {
        Some(("sha256", _)) => 64,
        Some(("sha384", _)) => 96,
        Some(("sha512", _)) => 128,
        _ => return false,
    };
    digest
        .split_once(':')
        .is_some_and(|(_, hex)| hex.len() == length && is_hex(hex))
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:f5ba4a6f5b8174294bd5a818bfec667c5bd3ae4e9b983009b4a104c7cb0ad8fb";

    #[test]
    fn a_name_is_completed_as_docker_completes_it() {
        for (given, registry, normalised) in [
            ("busybox", "docker.io", "docker.io/library/busybox:latest"),
            ("busybox:1.37", "docker.io", "docker.io/library/busybox:1.37"),
            (
                "docker.io/busybox",
                "docker.io",
                "docker.io/library/busybox:latest",
            ),
            (
                "index.docker.io/library/busybox",
                "docker.io",
                "docker.io/library/busybox:latest",
            ),
            ("bitnami/etcd:3", "docker.io", "docker.io/bitnami/etcd:3"),
            ("127.0.0.1:5000/nope:1", "127.0.0.1:5000", "127.0.0.1:5000/nope:1"),
            ("localhost/a/b", "localhost", "localhost/a/b:latest"),
            ("localhost:5000/a", "localhost:5000", "localhost:5000/a:latest"),
            ("[::1]:5000/a:x", "[::1]:5000", "[::1]:5000/a:x"),
            ("Registry/a", "Registry", "Registry/a:latest"),
            (
                "registry.k8s.io/e2e-test-images/busybox:1.37.0-1",
                "registry.k8s.io",
                "registry.k8s.io/e2e-test-images/busybox:1.37.0-1",
            ),
        ] {
            let reference = ImageReference::parse(given).unwrap();
            assert_eq!(reference.registry(), registry, "{given}");
            assert_eq!(reference.to_string(), normalised, "{given}");
            assert_eq!(
                ImageReference::parse(normalised).unwrap(),
                reference,
                "{given}: normalising twice"
            );
        }
    }

    #[test]
    fn a_digest_needs_no_tag_and_keeps_one() {
        let plain = ImageReference::parse(&format!("busybox@{DIGEST}")).unwrap();
        assert_eq!(plain.to_string(), format!("docker.io/library/busybox@{DIGEST}"));
        assert_eq!((plain.tag(), plain.digest.as_deref()), (None, Some(DIGEST)));
        let tagged = ImageReference::parse(&format!("example.com:8/a:1@{DIGEST}")).unwrap();
        assert_eq!(
            (tagged.tag(), tagged.digest.as_deref()),
            (Some("1"), Some(DIGEST))
        );
        assert_eq!(tagged.repository(), "example.com:8/a");
    }

    #[test]
    fn what_is_not_a_reference_is_refused() {
        let identifier = DIGEST.trim_start_matches("sha256:");
        for text in [
            "",
            " ",
            "Busybox",
            "a b",
            "busybox:",
            "busybox:-1",
            "busybox:a b",
            "/busybox",
            "busybox/",
            "a//b",
            "a___b",
            "-a",
            "a-",
            "a..b",
            "https://example.com/a",
            "example.com:x/a",
            "example.com:/a",
            "busybox@",
            "busybox@sha256:abc",
            "busybox@md5:00000000000000000000000000000000",
            "-example.com/a",
            "[::1/a",
            "busybox:1:2",
            identifier,
        ] {
            assert!(ImageReference::parse(text).is_err(), "{text:?} was taken");
        }
        assert!(ImageReference::parse(&"a".repeat(300)).is_err());
        assert!(ImageReference::parse("a--b/c__d.e").is_ok());
    }

    #[test]
    fn the_default_pull_policy_goes_by_the_tag() {
        for (image, policy) in [
            ("busybox", "Always"),
            ("busybox:latest", "Always"),
            ("busybox:1", "IfNotPresent"),
            (&format!("busybox@{DIGEST}"), "IfNotPresent"),
            (&format!("busybox:latest@{DIGEST}"), "Always"),
            ("Not An Image", "IfNotPresent"),
        ] {
            assert_eq!(default_pull_policy(image), policy, "{image}");
        }
    }
}
