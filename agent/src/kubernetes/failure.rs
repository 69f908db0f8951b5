//! What the client library's errors mean: did the API server answer, why not, and are the credentials to blame.

use std::error::Error;

/// What the user name of a node's credential begins with; the node's name follows (Node authorization).
pub(crate) const NODE_USER: &str = "system:node:";

/// What a failed request tells of the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has answered, though not with what was asked for.
    Answered,
    /// It knows our credentials no more, or the connection was refused because of a certificate.
    Refused,
    /// It has not answered.
    Away,
}

/// Judges an error.
pub(super) fn verdict(error: &kube::Error) -> Verdict {
    match error {
        kube::Error::Api(status) if status.code == 401 => Verdict::Refused,
        kube::Error::Api(_) => Verdict::Answered,
        error if causes(error).any(is_of_tls) => Verdict::Refused,
        _ => Verdict::Away,
    }
}

/// Why a request failed, in one line: the server's own words, else the innermost cause, as those around it name steps
/// of the client library.
pub(super) fn words(error: &kube::Error) -> String {
    let innermost = || causes(error).last().map(ToString::to_string).unwrap_or_default();
    match error {
        kube::Error::Api(status) if status.message.is_empty() => format!("it answered {}", status.code),
        kube::Error::Api(status) => status.message.clone(),
        _ => innermost(),
    }
}

/// Whether a 403 with this message is an authorizer's, who lacks a right (`User "..." cannot get resource "..."`, or
/// `cannot get path "..."`). An admission plugin, which refuses what it was shown, and not who shows it, answers with the
/// same code and reason, and other words.
pub(crate) fn is_missing_right(message: &str) -> bool {
    let after = message.split_once("\" cannot ").map_or("", |(_, after)| after);
    let what = after.split_once(' ').map_or("", |(_, what)| what);
    what.starts_with("resource \"") || what.starts_with("path \"")
}

/// Whether an authorizer's 403 with this message was for a node's credential (`User "system:node:NAME" cannot ...`).
pub(super) fn is_of_a_nodes_credential(message: &str) -> bool {
    is_missing_right(message) && message.contains(&format!("User \"{NODE_USER}"))
}

/// The error and what caused it, outermost first.
fn causes<'a>(error: &'a kube::Error) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let outermost: &'a (dyn Error + 'static) = error;
    std::iter::successors(Some(outermost), |error: &&'a (dyn Error + 'static)| {
        let error: &'a (dyn Error + 'static) = *error;
        error.source()
    })
}

/// Whether an error is one of TLS, also where it is packed into one of a connection.
fn is_of_tls(error: &(dyn Error + 'static)) -> bool {
    match error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref)
    {
        Some(packed) => packed.is::<rustls::Error>(),
        None => error.is::<rustls::Error>(),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use kube::core::Status;

    use super::*;

    fn status(code: u16, message: &str) -> kube::Error {
        let status = Status {
            code,
            message: message.to_owned(),
            ..Status::default()
        };
        kube::Error::Api(Box::new(status))
    }

    #[test]
    fn a_missing_right_is_told_from_an_admission_plugins_refusal() {
        for (message, expected) in [
            (
                "pods \"web\" is forbidden: User \"system:node:node1\" cannot patch resource \"pods/status\" in API group \
                 \"\" in the namespace \"shop\"",
                true,
            ),
            ("forbidden: User \"x\" cannot get path \"/version\"", true),
            (
                "pods \"web\" is forbidden: violates PodSecurity \"restricted:latest\"",
                false,
            ),
            (
                "pods \"web\" is forbidden: node \"node1\" can only update pod status",
                false,
            ),
            (
                "admission webhook \"policy.example\" denied the request: you cannot do this",
                false,
            ),
            ("", false),
        ] {
            assert_eq!(is_missing_right(message), expected, "{message}");
        }
    }

    #[test]
    fn an_answer_is_an_answer_and_credentials_are_to_blame_for_401_and_for_tls() {
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateExpired);
        let alert = io::Error::new(io::ErrorKind::InvalidData, alert);
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        for (error, expected, said) in [
            (status(403, "not yours"), Verdict::Answered, "not yours"),
            (status(503, ""), Verdict::Answered, "it answered 503"),
            (status(401, "Unauthorized"), Verdict::Refused, "Unauthorized"),
            (
                kube::Error::Service(alert.into()),
                Verdict::Refused,
                "received fatal alert: CertificateExpired",
            ),
            (
                kube::Error::Service(refused.into()),
                Verdict::Away,
                "connection refused",
            ),
        ] {
            assert_eq!(verdict(&error), expected, "{error}");
            assert!(words(&error).contains(said), "{}", words(&error));
        }
    }
}
