//! The query of a list or a watch, Kubernetes' `ListOptions`: read, and checked by the rules of kube-apiserver.

use serde::{Deserialize, Deserializer};

use super::request::flag;
use super::status::Failure;
use crate::pod::field_error::{Cause, FieldError};

/// At this version and no other.
const EXACT: &str = "Exact";
/// At this version or a newer one.
const NOT_OLDER_THAN: &str = "NotOlderThan";

/// The query parameters of a list or a watch; empty where they are not given.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ListOptions {
    /// Follow the changes instead of answering a list.
    #[serde(deserialize_with = "flag")]
    pub(crate) watch: bool,
    /// Where a watch goes on, or how old a list may be; `0`: whatever is there.
    pub(crate) resource_version: String,
    /// `Exact`, `NotOlderThan`.
    pub(crate) resource_version_match: String,
    /// Seconds after which a watch ends.
    pub(crate) timeout_seconds: Option<i64>,
    /// How many objects a list may have.
    pub(crate) limit: Option<i64>,
    /// Where a list goes on: what the list before it answered.
    #[serde(rename = "continue")]
    pub(crate) continuation: String,
    /// `metadata.name=web,status.phase!=Running`.
    pub(crate) field_selector: String,
    /// `app=web,tier in (front,back)`.
    pub(crate) label_selector: String,
    /// A watch may be told the newest version now and then.
    #[serde(deserialize_with = "flag")]
    pub(crate) allow_watch_bookmarks: bool,
    /// Whether a watch begins with the present state, and a bookmark after it.
    #[serde(deserialize_with = "optional_flag")]
    pub(crate) send_initial_events: Option<bool>,
}

/// Which state of a list is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The newest there is.
    Newest,
    /// The newest, which must not be older than this version.
    NotOlderThan(u64),
    /// That of this version.
    Exact(u64),
}

impl ListOptions {
    /// Refuses what makes no sense together, with a cause for each field.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let errors = if self.watch {
            self.watch_errors()
        } else {
            self.list_errors()
        };
        if errors.is_empty() {
            return Ok(());
        }
        Err(Failure::invalid("ListOptions", "", &errors))
    }

    fn list_errors(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut forbidden = |field: &str, message: &str| {
            errors.push(FieldError::new(field, Cause::Forbidden, message));
        };
        const MATCH: &str = "resourceVersionMatch";
        let matching = self.resource_version_match.as_str();
        if !matching.is_empty() && self.resource_version.is_empty() {
            forbidden(MATCH, "it needs a resourceVersion");
        }
        if !matching.is_empty() && !self.continuation.is_empty() {
            forbidden(MATCH, "a list that is continued has its version already");
        }
        if matching == EXACT && self.resource_version == "0" {
            forbidden(
                MATCH,
                "resourceVersion 0 stands for any version, not for one exactly",
            );
        }
        if self.send_initial_events.is_some() {
            forbidden("sendInitialEvents", "it is for watches");
        }
        if !["", EXACT, NOT_OLDER_THAN].contains(&matching) {
            let message = format!("{matching:?} is neither {EXACT} nor {NOT_OLDER_THAN}");
            errors.push(FieldError::new(MATCH, Cause::NotSupported, message));
        }
        errors
    }

    fn watch_errors(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut error = |cause: Cause, message: &str| {
            errors.push(FieldError::new("resourceVersionMatch", cause, message));
        };
        let matching = self.resource_version_match.as_str();
        if self.send_initial_events.is_some() && matching != NOT_OLDER_THAN {
            error(Cause::Forbidden, "sendInitialEvents needs it to be NotOlderThan");
        }
        if !matching.is_empty() {
            if self.send_initial_events.is_none() {
                error(Cause::Forbidden, "a watch takes it with sendInitialEvents only");
            }
            if matching != NOT_OLDER_THAN {
                error(Cause::NotSupported, "a watch knows NotOlderThan only");
            }
            if !self.continuation.is_empty() {
                error(
                    Cause::Forbidden,
                    "a list that is continued has its version already",
                );
            }
        }
        errors
    }

    /// The version that is asked for; none where any will do.
    pub(crate) fn version(&self) -> Result<Option<u64>, Failure> {
        version(&self.resource_version)
    }

    /// Which state of a list that is not continued is asked for.
    pub(crate) fn wanted(&self) -> Result<Wanted, Failure> {
        Ok(match (self.version()?, self.resource_version_match.as_str()) {
            (None, _) => Wanted::Newest,
            (Some(version), EXACT) => Wanted::Exact(version),
            // What kube-apiserver does where nothing is said: a list in pieces is of one version.
            (Some(version), "") if self.limit().is_some() => Wanted::Exact(version),
            (Some(version), _) => Wanted::NotOlderThan(version),
        })
    }

    /// How many objects the list may have; kube-apiserver gives all of them to those who take any version.
    pub(crate) fn limit(&self) -> Option<usize> {
        let limit = self.limit.and_then(|limit| usize::try_from(limit).ok());
        limit.filter(|limit| *limit > 0 && self.resource_version != "0")
    }
}

/// The query parameters of a get.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct GetOptions {
    resource_version: String,
}

impl GetOptions {
    /// The version that the object must not be older than.
    pub(crate) fn version(&self) -> Result<Option<u64>, Failure> {
        version(&self.resource_version)
    }
}

fn version(text: &str) -> Result<Option<u64>, Failure> {
    match text {
        "" | "0" => Ok(None),
        version => version
            .parse()
            .map(Some)
            .map_err(|_| Failure::bad_request(format!("resourceVersion: {version:?} is not a version"))),
    }
}

fn optional_flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    flag(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(query: &str) -> ListOptions {
        let uri = format!("/?{query}").parse().expect("an address");
        let axum::extract::Query(options) =
            axum::extract::Query::try_from_uri(&uri).expect("parameters that can be read");
        options
    }

    #[test]
    fn options_that_make_no_sense_together_are_refused_with_their_field() {
        let version_match = "resourceVersionMatch";
        for (query, expected) in [
            ("", vec![]),
            ("resourceVersion=5&resourceVersionMatch=Exact", vec![]),
            ("resourceVersion=0&resourceVersionMatch=NotOlderThan", vec![]),
            (
                "resourceVersionMatch=Exact",
                vec![(version_match, Cause::Forbidden)],
            ),
            (
                "resourceVersion=0&resourceVersionMatch=Exact",
                vec![(version_match, Cause::Forbidden)],
            ),
            (
                "resourceVersion=5&resourceVersionMatch=Any",
                vec![(version_match, Cause::NotSupported)],
            ),
            (
                "resourceVersion=5&resourceVersionMatch=Exact&continue=x",
                vec![(version_match, Cause::Forbidden)],
            ),
            (
                "sendInitialEvents=false",
                vec![("sendInitialEvents", Cause::Forbidden)],
            ),
            (
                "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
                vec![],
            ),
            (
                "watch=true&sendInitialEvents=true",
                vec![(version_match, Cause::Forbidden)],
            ),
            (
                "watch=true&resourceVersionMatch=NotOlderThan",
                vec![(version_match, Cause::Forbidden)],
            ),
            (
                "watch=true&sendInitialEvents=true&resourceVersionMatch=Exact",
                vec![
                    (version_match, Cause::Forbidden),
                    (version_match, Cause::NotSupported),
                ],
            ),
        ] {
            let options = options(query);
            let errors = if options.watch {
                options.watch_errors()
            } else {
                options.list_errors()
            };
            let told: Vec<(&str, Cause)> = errors
                .iter()
                .map(|error| (error.field.as_str(), error.cause))
                .collect();
            assert_eq!(told, expected, "{query}");
        }
    }

    #[test]
    fn a_list_is_of_any_version_of_one_or_of_none_older_than_one() {
        for (query, expected) in [
            ("", Wanted::Newest),
            ("resourceVersion=0&limit=5", Wanted::Newest),
            ("resourceVersion=7", Wanted::NotOlderThan(7)),
            ("resourceVersion=7&limit=5", Wanted::Exact(7)),
            (
                "resourceVersion=7&limit=5&resourceVersionMatch=NotOlderThan",
                Wanted::NotOlderThan(7),
            ),
            ("resourceVersion=7&resourceVersionMatch=Exact", Wanted::Exact(7)),
        ] {
            assert_eq!(options(query).wanted().expect("a version"), expected, "{query}");
        }
        assert!(options("resourceVersion=x").wanted().is_err());
    }

    #[test]
    fn who_takes_any_version_gets_the_whole_list() {
        assert_eq!(options("limit=5").limit(), Some(5));
        assert_eq!(options("limit=5&resourceVersion=0").limit(), None);
        assert_eq!(options("limit=0").limit(), None);
        assert_eq!(options("limit=-1").limit(), None);
    }
}
