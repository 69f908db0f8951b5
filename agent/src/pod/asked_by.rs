//! Who asked for something, and how they came in: kept in records, and told in events and in the log.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use super::record::Record;
use super::visibility::Audience;

/// Says on a served pod who asked for its ephemeral containers: a JSON object of [`AskedBy`] by name.
pub(crate) const ANNOTATION: &str = "debuglet.io/asked-by";

/// How many characters of a name are kept: an authenticator may make a user's as long as it likes.
const NAME_CHARACTERS: usize = 256;

/// How somebody came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum WayIn {
    /// Over the Unix socket.
    Socket,
    /// Over TLS, with a certificate of the node's authority.
    Certificate,
    /// Over TLS, with a bearer token that the cluster's API server knows.
    Cluster,
    /// By a file of the manifests folder.
    Manifest,
    /// By the cluster's API server, which knows who asked there.
    ApiServer,
}

/// Who asked for something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AskedBy {
    /// The user's name, fit to be shown: bounded, and control characters are escaped. Empty where nobody came in person.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) user: String,
    /// How the user came in.
    pub(crate) way_in: WayIn,
}

impl AskedBy {
    /// `user`, who came in this way. Names are hostile input: whoever configures an authenticator chooses them.
    pub(crate) fn new(user: &str, way_in: WayIn) -> AskedBy {
        AskedBy {
            user: shown(user),
            way_in,
        }
    }

    /// root of this node.
    #[cfg(test)]
    pub(crate) fn root() -> AskedBy {
        AskedBy::new("debuglet:root", WayIn::Socket)
    }

    /// What they may see.
    pub(crate) fn audience(&self) -> Audience {
        match self.way_in {
            WayIn::Cluster => Audience::Cluster,
            WayIn::Socket | WayIn::Certificate | WayIn::Manifest | WayIn::ApiServer => Audience::Node,
        }
    }
}

impl fmt::Display for AskedBy {
    /// `debuglet:root, over the socket`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way_in = match self.way_in {
            WayIn::Socket => "over the socket",
            WayIn::Certificate => "with a certificate of the node",
            WayIn::Cluster => "as a user of the cluster",
            WayIn::Manifest => "in a manifest of the node",
            WayIn::ApiServer => "at the cluster's API server",
        };
        match self.user.as_str() {
            "" => formatter.write_str(way_in),
            user => write!(formatter, "{user}, {way_in}"),
        }
    }
}

/// A name that somebody else chose, fit to be shown: control characters are escaped, those that change the direction of text
/// too, and it is cut where it is long.
pub(crate) fn shown(user: &str) -> String {
    let mut shown = String::new();
    for (index, character) in user.chars().enumerate() {
        if index == NAME_CHARACTERS {
            shown.push_str("...");
            break;
        }
        let changes_direction = matches!(character, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || changes_direction || matches!(character, '\u{2028}' | '\u{2029}') {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Writes into the annotations of a pod that is served who asked for the ephemeral containers of these records.
pub(crate) fn annotate<'a>(metadata: &mut ObjectMeta, records: impl Iterator<Item = &'a Record>) {
    let asked: BTreeMap<&str, &AskedBy> = records
        .filter_map(|record| Some((record.spec.name.as_str(), record.asked_by.as_ref()?)))
        .collect();
    if asked.is_empty() {
        return;
    }
    // Names and texts: nothing that JSON could refuse.
    let text = serde_json::to_string(&asked).unwrap_or_default();
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(ANNOTATION.to_owned(), text);
}

/// What [`annotate`] wrote, by ephemeral container.
pub(crate) fn annotated(pod: &Pod) -> BTreeMap<String, AskedBy> {
    let annotations = pod.metadata.annotations.as_ref();
    let text = annotations.and_then(|annotations| annotations.get(ANNOTATION));
    text.and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_name_is_bounded_and_has_no_control_characters() {
        let long = "x".repeat(NAME_CHARACTERS + 1);
        let cut = format!("{}...", "x".repeat(NAME_CHARACTERS));
        for (user, expected) in [
            ("system:serviceaccount:shop:dev", "system:serviceaccount:shop:dev"),
            ("jane\n2026 root", "jane\\u{a}2026 root"),
            ("\u{1b}[2Jjane", "\\u{1b}[2Jjane"),
            ("jane\u{202e}toor", "jane\\u{202e}toor"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("j\u{e4}ne", "j\u{e4}ne"),
            (&long, &cut),
        ] {
            assert_eq!(AskedBy::new(user, WayIn::Cluster).user, expected);
        }
    }

    #[test]
    fn who_asked_reads_as_it_was_written() {
        for (user, way_in, expected) in [
            (
                "debuglet:root",
                WayIn::Socket,
                r#"{"user":"debuglet:root","wayIn":"socket"}"#,
            ),
            ("", WayIn::ApiServer, r#"{"wayIn":"apiServer"}"#),
        ] {
            let asked_by = AskedBy::new(user, way_in);
            let text = serde_json::to_string(&asked_by).expect("JSON");
            assert_eq!(text, expected);
            assert_eq!(serde_json::from_str::<AskedBy>(&text).expect("who"), asked_by);
        }
    }
}
