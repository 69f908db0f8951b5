//! In which form a client wants objects: as they are, as a `Table` for people, or their metadata alone. The Accept
//! header says so, and what is said here holds for every resource, for gets, lists and watches.

use axum::extract::{FromRequestParts, Query};
use axum::http::header::ACCEPT;
use axum::http::request::Parts;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, ObjectMeta};
use serde::{Deserialize, Serialize};

use super::resource::Resource;
use super::status::Failure;
use super::table::{IncludedObject, Table};

/// What an answer is asked to look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Representation {
    /// The objects themselves.
    Object,
    /// `Table`.
    Table(MetaVersion, IncludedObject),
    /// `PartialObjectMetadata`.
    Metadata(MetaVersion),
    /// `PartialObjectMetadataList`.
    MetadataList(MetaVersion),
}

/// The version of the group `meta.k8s.io`: its forms are the same in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetaVersion {
    V1,
    V1beta1,
}

impl MetaVersion {
    /// The `apiVersion` of objects of the group.
    pub(crate) fn api_version(self) -> &'static str {
        match self {
            MetaVersion::V1 => "meta.k8s.io/v1",
            MetaVersion::V1beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// What is given in a table's rows beside the cells, where the client does not say: metadata.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TableOptions {
    include_object: String,
}

impl<S: Sync> FromRequestParts<S> for Representation {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Representation, Failure> {
        let accepted = parts.headers.get_all(ACCEPT).iter();
        let accepted: Vec<&str> = accepted.filter_map(|value| value.to_str().ok()).collect();
        let representation = negotiate(&accepted.join(",")).ok_or_else(not_acceptable)?;
        let Representation::Table(version, _) = representation else {
            return Ok(representation);
        };
        let Query(options) = Query::<TableOptions>::try_from_uri(&parts.uri)
            .map_err(|error| Failure::bad_request(error.body_text()))?;
        let included = match options.include_object.as_str() {
            "" | "Metadata" => IncludedObject::Metadata,
            "Object" => IncludedObject::Object,
            "None" => IncludedObject::None,
            other => {
                return Err(Failure::bad_request(format!(
                    "includeObject: {other:?} is none of None, Metadata, Object"
                )));
            }
        };
        Ok(Representation::Table(version, included))
    }
}

fn not_acceptable() -> Failure {
    Failure::not_acceptable(
        "answers are application/json, as they are or as Table, PartialObjectMetadata or PartialObjectMetadataList \
         of meta.k8s.io/v1",
    )
}

/// The first form that can be given, of those that the header allows; the ones it likes best come first.
fn negotiate(header: &str) -> Option<Representation> {
    let mut clauses: Vec<(f32, Option<Representation>)> = header
        .split(',')
        .map(str::trim)
        .filter(|clause| !clause.is_empty())
        .map(read_clause)
        .collect();
    if clauses.is_empty() {
        return Some(Representation::Object);
    }
    clauses.sort_by(|one, other| other.0.total_cmp(&one.0));
    clauses.into_iter().find_map(|(_, representation)| representation)
}

/// How much a client likes one form, and which it is, if it can be given.
fn read_clause(clause: &str) -> (f32, Option<Representation>) {
    let mut parts = clause.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
    let (mut liked, mut form, mut group, mut version) = (1.0, None, "", "");
    for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
        match name {
            "q" => liked = value.parse().unwrap_or(0.0),
            "as" => form = Some(value),
            "g" => group = value,
            "v" => version = value,
            _ => {}
        }
    }
    let json = ["application/json", "application/*", "*/*"].contains(&media_type.as_str());
    let meta_version = match (group, version) {
        ("meta.k8s.io", "v1") => Some(MetaVersion::V1),
        ("meta.k8s.io", "v1beta1") => Some(MetaVersion::V1beta1),
        _ => None,
    };
    let representation = match (form, meta_version) {
        _ if !json || liked <= 0.0 => None,
        (None, _) if group.is_empty() && version.is_empty() => Some(Representation::Object),
        (Some("Table"), Some(version)) => Some(Representation::Table(version, IncludedObject::Metadata)),
        (Some("PartialObjectMetadata"), Some(version)) => Some(Representation::Metadata(version)),
        (Some("PartialObjectMetadataList"), Some(version)) => Some(Representation::MetadataList(version)),
        _ => None,
    };
    (liked, representation)
}

/// An object or a list of them in the form that was asked for, to be written as JSON.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Represented<'a, T> {
    Object(&'a T),
    List(List<&'a T>),
    Table(Table<'a, T>),
    Metadata(PartialMetadata<'a>),
    MetadataList(List<PartialMetadata<'a>>),
}

/// A list as Kubernetes answers it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct List<T> {
    kind: &'static str,
    api_version: &'static str,
    metadata: ListMeta,
    items: Vec<T>,
}

/// An object's metadata in the place of the object.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PartialMetadata<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: &'a ObjectMeta,
}

impl<'a> PartialMetadata<'a> {
    pub(crate) fn of<T: Resource>(object: &'a T, version: MetaVersion) -> PartialMetadata<'a> {
        PartialMetadata {
            kind: "PartialObjectMetadata",
            api_version: version.api_version(),
            metadata: object.metadata(),
        }
    }
}

impl Representation {
    /// Refuses what only a list can be given as.
    pub(crate) fn fits_an_object(self) -> Result<(), Failure> {
        match self {
            Representation::MetadataList(_) => Err(Failure::not_acceptable(
                "PartialObjectMetadataList is for lists: ask for PartialObjectMetadata",
            )),
            _ => Ok(()),
        }
    }

    /// Refuses what only one object can be given as.
    pub(crate) fn fits_a_list(self) -> Result<(), Failure> {
        match self {
            Representation::Metadata(_) => Err(Failure::not_acceptable(
                "PartialObjectMetadata is for one object: ask for PartialObjectMetadataList",
            )),
            _ => Ok(()),
        }
    }

    /// One object; `columns` says whether a table describes its columns (in a watch only the first one does).
    pub(crate) fn object<T: Resource>(self, object: &T, columns: bool, now: Timestamp) -> Represented<'_, T> {
        match self {
            Representation::Object => Represented::Object(object),
            Representation::Table(version, included) => {
                let metadata = ListMeta {
                    resource_version: object.metadata().resource_version.clone(),
                    ..ListMeta::default()
                };
                let table = Table::new(version, metadata, [object], included, now);
                Represented::Table(if columns { table } else { table.without_columns() })
            }
            Representation::Metadata(version) | Representation::MetadataList(version) => {
                Represented::Metadata(PartialMetadata::of(object, version))
            }
        }
    }

    /// A list of objects.
    pub(crate) fn list<'a, T: Resource>(
        self,
        metadata: ListMeta,
        objects: impl Iterator<Item = &'a T>,
        now: Timestamp,
    ) -> Represented<'a, T> {
        match self {
            Representation::Object => Represented::List(List {
                kind: T::LIST_KIND,
                api_version: T::API_VERSION,
                metadata,
                items: objects.collect(),
            }),
            Representation::Table(version, included) => {
                Represented::Table(Table::new(version, metadata, objects, included, now))
            }
            Representation::Metadata(version) | Representation::MetadataList(version) => {
                Represented::MetadataList(List {
                    kind: "PartialObjectMetadataList",
                    api_version: version.api_version(),
                    metadata,
                    items: objects
                        .map(|object| PartialMetadata::of(object, version))
                        .collect(),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_that_can_be_given_is() {
        let table = |version| Some(Representation::Table(version, IncludedObject::Metadata));
        let object = Some(Representation::Object);
        let protobuf = "application/vnd.kubernetes.protobuf";
        for (header, expected) in [
            ("", object),
            ("*/*", object),
            ("application/json, */*", object),
            ("application/json;stream=watch", object),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                table(MetaVersion::V1),
            ),
            (
                "application/json;as=Table;v=v1beta1;g=meta.k8s.io",
                table(MetaVersion::V1beta1),
            ),
            (
                "application/json;as=Table;v=v2;g=meta.k8s.io,application/json",
                object,
            ),
            ("application/json;as=Table;v=v2;g=meta.k8s.io", None),
            ("application/json;as=Chart;v=v1;g=meta.k8s.io", None),
            (
                "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
                Some(Representation::Metadata(MetaVersion::V1)),
            ),
            (
                &format!(
                    "{protobuf};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
                ),
                Some(Representation::MetadataList(MetaVersion::V1)),
            ),
            (&format!("{protobuf},application/json"), object),
            (protobuf, None),
            ("application/yaml", None),
            ("text/html", None),
            ("application/json;q=0", None),
            (
                "application/json;q=0.5, application/json;as=Table;v=v1;g=meta.k8s.io;q=0.9",
                table(MetaVersion::V1),
            ),
        ] {
            assert_eq!(negotiate(header), expected, "{header}");
        }
    }
}
