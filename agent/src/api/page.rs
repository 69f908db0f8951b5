//! A list, whole or in pieces. Its later pieces are of the version of the first one: what has changed since is taken
//! back by the history, for as long as that reaches.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use serde::{Deserialize, Serialize};

use super::list_options::{ListOptions, Wanted};
use super::resource::{Resource, Selection, reached};
use super::status::Failure;
use crate::pod::visibility::Audience;
use crate::store::Store;
use crate::store::changes::{Change, ChangeKind};
use crate::store::served::place;

/// Where an object stands in a list: namespace, name, UID.
type Place = (String, String, String);

/// A piece of a list.
pub(crate) struct Page<T> {
    /// The version, and how the list goes on.
    pub(crate) metadata: ListMeta,
    /// The objects by namespace and name.
    pub(crate) objects: Vec<Arc<T>>,
}

/// How a list goes on. Clients give it back as it is.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Continuation {
    /// The version of the first piece; none: whatever is newest, as the first one's is not known any more.
    version: Option<u64>,
    /// The last object of the piece before.
    after: Place,
}

impl Continuation {
    fn write(&self) -> String {
        // Numbers and strings can always be written.
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    fn parse(token: &str) -> Option<Continuation> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

/// The piece of a list that the options ask for.
pub(crate) fn page<T: Resource>(
    store: &Store,
    selection: &Selection<T>,
    options: &ListOptions,
) -> Result<Page<T>, Failure> {
    if options.continuation.is_empty() {
        let (version, objects) = state(store, selection.audience(), options.wanted()?)?;
        return Ok(piece(version, objects, None, selection, options.limit()));
    }
    if options.version()?.is_some() {
        return Err(Failure::bad_request(
            "resourceVersion: a list that is continued has its version already",
        ));
    }
    let continuation = Continuation::parse(&options.continuation)
        .ok_or_else(|| Failure::bad_request("continue: it is not what a list has answered"))?;
    let wanted = continuation.version.map_or(Wanted::Newest, Wanted::Exact);
    let (version, objects) = state(store, selection.audience(), wanted).map_err(|_| {
        let fresh = Continuation {
            version: None,
            after: continuation.after.clone(),
        };
        Failure::expired_list(fresh.write())
    })?;
    Ok(piece(
        version,
        objects,
        Some(continuation.after),
        selection,
        options.limit(),
    ))
}

/// All objects that `audience` sees, or saw, as they are or were, and the version of that.
fn state<T: Resource>(
    store: &Store,
    audience: Audience,
    wanted: Wanted,
) -> Result<(u64, Vec<Arc<T>>), Failure> {
    let (newest, objects) = store.list::<T>(audience);
    match wanted {
        Wanted::Newest => Ok((newest, objects)),
        Wanted::NotOlderThan(version) => reached(version, newest).map(|()| (newest, objects)),
        Wanted::Exact(version) => {
            reached(version, newest)?;
            let (_, mut changes) = store.changes::<T>(version)?;
            changes.retain(|change| change.version <= newest);
            Ok((version, as_they_were(audience, objects, &changes)))
        }
    }
}

/// The objects that `audience` saw before these changes.
fn as_they_were<T: Resource>(audience: Audience, objects: Vec<Arc<T>>, changes: &[Change<T>]) -> Vec<Arc<T>> {
    if changes.is_empty() {
        return objects;
    }
    let mut by_place: BTreeMap<Place, Arc<T>> = objects
        .into_iter()
        .map(|object| (place_of(&*object), object))
        .collect();
    for change in changes.iter().rev() {
        let previous = change.previous.as_ref().and_then(|views| views.of(audience));
        match (previous, change.kind) {
            (Some(previous), ChangeKind::Modified | ChangeKind::Deleted) => {
                by_place.insert(place_of(&**previous), Arc::clone(previous));
            }
            _ => {
                by_place.remove(&place_of(&**change.object.whole()));
            }
        }
    }
    by_place.into_values().collect()
}

fn place_of<T: Resource>(object: &T) -> Place {
    let (namespace, name, uid) = place(object);
    (namespace.to_owned(), name.to_owned(), uid.to_owned())
}

fn piece<T: Resource>(
    version: u64,
    objects: Vec<Arc<T>>,
    after: Option<Place>,
    selection: &Selection<T>,
    limit: Option<usize>,
) -> Page<T> {
    let comes_later = |object: &T| {
        after
            .as_ref()
            .is_none_or(|(namespace, name, uid)| place(object) > (namespace.as_str(), name, uid))
    };
    let mut objects: Vec<Arc<T>> = objects
        .into_iter()
        .filter(|object| comes_later(object) && selection.selects(object))
        .collect();
    let mut metadata = ListMeta {
        resource_version: Some(version.to_string()),
        ..ListMeta::default()
    };
    if let Some(limit) = limit
        && objects.len() > limit
    {
        let rest = objects.len() - limit;
        objects.truncate(limit);
        let last = objects.last().map(|last| Continuation {
            version: Some(version),
            after: place_of(&**last),
        });
        metadata.continue_ = last.map(|last| last.write());
        if !selection.has_selector() {
            metadata.remaining_item_count = i64::try_from(rest).ok();
        }
    }
    Page { metadata, objects }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;
    use crate::store::views::Views;

    fn pod(name: &str, version: u64) -> Arc<Pod> {
        Arc::new(Pod {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                resource_version: Some(version.to_string()),
                ..ObjectMeta::default()
            },
            ..Pod::default()
        })
    }

    #[test]
    fn a_list_can_be_taken_back_by_its_changes() {
        let shown = |name, version| Views::same(pod(name, version));
        let hidden = |name, version| Views::different(pod(name, version), None);
        let changes = [
            Change::new(5, ChangeKind::Added, None, shown("new", 5)),
            Change::new(6, ChangeKind::Modified, Some(hidden("web", 2)), shown("web", 6)),
            Change::new(7, ChangeKind::Modified, Some(shown("web", 6)), shown("web", 7)),
            Change::new(8, ChangeKind::Deleted, Some(shown("old", 3)), shown("old", 8)),
        ];
        let now = vec![pod("new", 5), pod("stays", 1), pod("web", 7)];
        let names = |audience: Audience, from: usize| -> Vec<(String, String)> {
            as_they_were(audience, now.clone(), &changes[from..])
                .iter()
                .map(|pod| {
                    let metadata = pod.metadata.clone();
                    (
                        metadata.name.unwrap_or_default(),
                        metadata.resource_version.unwrap_or_default(),
                    )
                })
                .collect()
        };
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs
                .iter()
                .map(|(name, version)| ((*name).to_owned(), (*version).to_owned()))
                .collect()
        };
        for audience in [Audience::Node, Audience::Cluster] {
            let newest = [("new", "5"), ("stays", "1"), ("web", "7")];
            assert_eq!(names(audience, 4), pairs(&newest));
            let before_the_end = [("new", "5"), ("old", "3"), ("stays", "1"), ("web", "7")];
            assert_eq!(names(audience, 3), pairs(&before_the_end));
        }
        let first = [("old", "3"), ("stays", "1"), ("web", "2")];
        assert_eq!(names(Audience::Node, 0), pairs(&first));
        assert_eq!(names(Audience::Cluster, 0), pairs(&first[..2]), "it was hidden");
    }

    #[test]
    fn a_continuation_reads_back_and_anything_else_does_not() {
        let continuation = Continuation {
            version: Some(7),
            after: ("shop".to_owned(), "cart".to_owned(), "u1".to_owned()),
        };
        assert_eq!(Continuation::parse(&continuation.write()), Some(continuation));
        for token in ["", "x", "eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ"] {
            assert_eq!(Continuation::parse(token), None, "{token}");
        }
    }
}
