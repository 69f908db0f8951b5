//! The forms of names: each rule says what is wrong, as the end of a sentence that begins with the name.

/// The most characters of a DNS label (RFC 1123), and of one part of a label's key.
const MAX_LABEL: usize = 63;
/// The most characters of a DNS subdomain (RFC 1123), a sysctl's name, a key of a ConfigMap.
const MAX_SUBDOMAIN: usize = 253;
/// The most characters of a port's name (IANA service name).
const MAX_PORT_NAME: usize = 15;

pub(super) type Rule = Result<(), &'static str>;

/// The name of a container, a volume or a namespace, a host name.
pub(super) fn dns_label(name: &str) -> Rule {
    ensure(
        is_dns_label(name),
        "is not a DNS label: lower case letters, digits and '-', a letter or digit at both ends, at most 63 characters",
    )
}

/// The name of a pod.
pub(super) fn dns_subdomain(name: &str) -> Rule {
    ensure(
        is_dns_subdomain(name),
        "is not a DNS subdomain: lower case letters, digits, '-' and '.', a letter or digit at both ends of each part, at most 253 characters",
    )
}

/// A search domain: a DNS subdomain that may hold underscores.
pub(super) fn search_domain(name: &str) -> Rule {
    dns_subdomain(&name.replace('_', "a")).map_err(|_| "is not a search domain")
}

/// The key of a label or annotation: `name` or `example.com/name`.
pub(super) fn qualified_name(name: &str) -> Rule {
    let (prefix, rest) = match name.split_once('/') {
        Some((prefix, rest)) => (Some(prefix), rest),
        None => (None, name),
    };
    ensure(
        prefix.is_none_or(|prefix| dns_subdomain(prefix).is_ok()) && rest.len() <= MAX_LABEL && is_word(rest),
        "is not a qualified name: letters, digits, '-', '_' and '.', a letter or digit at both ends, at most 63 characters, with an optional DNS subdomain and '/' before it",
    )
}

/// The value of a label.
pub(super) fn label_value(value: &str) -> Rule {
    ensure(
        value.is_empty() || value.len() <= MAX_LABEL && is_word(value),
        "is not a label value: letters, digits, '-', '_' and '.', a letter or digit at both ends, at most 63 characters",
    )
}

/// The name of an environment variable, or the prefix of some.
pub(super) fn environment_name(name: &str) -> Rule {
    ensure(
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| matches!(byte, b' '..=b'~') && byte != b'='),
        "is not the name of an environment variable: printable ASCII characters other than '='",
    )
}

/// A key of a ConfigMap or Secret.
pub(super) fn config_key(key: &str) -> Rule {
    ensure(
        !key.is_empty()
            && key.len() <= MAX_SUBDOMAIN
            && key != "."
            && !key.starts_with("..")
            && key
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')),
        "is not a key: letters, digits, '-', '_' and '.', not beginning with '..', at most 253 characters",
    )
}

/// The name of a container's port.
pub(super) fn port_name(name: &str) -> Rule {
    ensure(
        name.len() <= MAX_PORT_NAME
            && is_dns_label(name)
            && !name.contains("--")
            && name.bytes().any(|byte| byte.is_ascii_lowercase()),
        "is not a port name: lower case letters (at least one), digits and single '-' between them, at most 15 characters",
    )
}

/// The name of a sysctl, its parts parted by dots or slashes.
pub(super) fn sysctl(name: &str) -> Rule {
    let is_part = |part: &str| {
        let is_end =
            |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let bytes = part.as_bytes();
        is_end(bytes.first())
            && is_end(bytes.last())
            && bytes
                .iter()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'))
    };
    ensure(
        name.len() <= MAX_SUBDOMAIN && name.split(['.', '/']).all(is_part),
        "is not the name of a sysctl, such as net.ipv4.ip_forward",
    )
}

/// A path without `..` as one of its parts.
pub(super) fn path_without_steps_back(path: &str) -> Rule {
    ensure(!path.split('/').any(|part| part == ".."), "must not contain '..'")
}

/// A path below the place that it is looked up in.
pub(super) fn descending_path(path: &str) -> Rule {
    ensure(!path.starts_with('/'), "must be a relative path")?;
    path_without_steps_back(path)
}

fn ensure(holds: bool, otherwise: &'static str) -> Rule {
    if holds { Ok(()) } else { Err(otherwise) }
}

/// Whether this is a DNS label (RFC 1123).
pub(crate) fn is_dns_label(name: &str) -> bool {
    name.len() <= MAX_LABEL && is_part(name)
}

/// Whether this is a DNS subdomain (RFC 1123).
pub(crate) fn is_dns_subdomain(name: &str) -> bool {
    name.len() <= MAX_SUBDOMAIN && name.split('.').all(is_part)
}

/// Whether this may be one part of a subdomain, which Kubernetes lets be of any length.
fn is_part(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('-')
        && !name.ends_with('-')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

fn is_word(word: &str) -> bool {
    let is_end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    is_end(word.bytes().next())
        && is_end(word.bytes().last())
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: fn(&str) -> Rule, taken: &[&str], refused: &[&str]) {
        for name in taken {
            assert_eq!(rule(name), Ok(()), "{name:?}");
        }
        for name in refused {
            assert!(rule(name).is_err(), "{name:?} was taken");
        }
    }

    #[test]
    fn names_are_of_the_form_that_kubernetes_asks_for() {
        let long = "a".repeat(64);
        let dotted = ["a"; 127].join(".");
        check(
            dns_label,
            &["a", "a-b", "0a", &long[1..]],
            &["", "A", "-a", "a-", "a.b", "a_b", "ä", &long],
        );
        check(
            dns_subdomain,
            &["a", "a.b-c.d", &dotted],
            &["", ".", "a..b", "a.-b", "A.b", &format!("{dotted}.b")],
        );
        check(
            qualified_name,
            &["a", "A_b.c-d", "example.com/a"],
            &["", "/a", "a/", "a/b/c", "_a", "Example.com/a", &long],
        );
        check(label_value, &["", "a", "A_b.c"], &["-a", "a b", &long]);
        check(
            environment_name,
            &["A", "a.b-c", "1 x"],
            &["", "A=B", "ä", "a\tb"],
        );
        check(
            config_key,
            &["a.b", ".hidden"],
            &["", ".", "..", "..a", "a/b", "a b"],
        );
        check(
            port_name,
            &["http", "a-1"],
            &["", "80", "a--b", "-a", "Http", "a-name-too-long-"],
        );
        check(
            sysctl,
            &[
                "net.ipv4.ip_forward",
                "net/ipv4/conf/eth0.100/x",
                "kernel.shm_rmid_forced",
            ],
            &["", "a..b", "A.b", "a.b-", ".a"],
        );
        check(
            search_domain,
            &["svc.cluster.local", "_tcp.example"],
            &["", "a b"],
        );
        check(descending_path, &["a/b", "..a", ""], &["/a", "..", "a/../b"]);
    }
}
