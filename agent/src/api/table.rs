//! `meta.k8s.io` Tables: what kubectl prints without knowing what it prints.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use serde::Serialize;
use serde_json::Value;

use super::representation::{MetaVersion, PartialMetadata};
use super::resource::Resource;

/// What stands in a row beside its cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IncludedObject {
    /// Nothing.
    None,
    /// The object's metadata.
    Metadata,
    /// The whole object.
    Object,
}

/// A column, as a table describes it.
#[derive(Debug, Serialize)]
pub(crate) struct Column {
    name: &'static str,
    r#type: &'static str,
    format: &'static str,
    description: &'static str,
    priority: u8,
}

impl Column {
    /// The column that names the object.
    pub(crate) const fn name(description: &'static str) -> Column {
        Column {
            format: "name",
            ..Column::new("Name", description)
        }
    }

    /// A column that is always shown.
    pub(crate) const fn new(name: &'static str, description: &'static str) -> Column {
        Column {
            name,
            r#type: "string",
            format: "",
            description,
            priority: 0,
        }
    }

    /// The same column, shown with `-o wide` only.
    pub(crate) const fn wide(self) -> Column {
        Column { priority: 1, ..self }
    }
}

/// A table of objects.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Table<'a, T> {
    kind: &'static str,
    api_version: &'static str,
    metadata: ListMeta,
    column_definitions: Option<&'static [Column]>,
    rows: Vec<Row<'a, T>>,
}

#[derive(Serialize)]
struct Row<'a, T> {
    cells: Vec<Value>,
    object: Included<'a, T>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Included<'a, T> {
    None,
    Metadata(PartialMetadata<'a>),
    Object(&'a T),
}

impl<'a, T: Resource> Table<'a, T> {
    /// A row for each object, its ages as of `now`.
    pub(crate) fn new(
        version: MetaVersion,
        metadata: ListMeta,
        objects: impl IntoIterator<Item = &'a T>,
        included: IncludedObject,
        now: Timestamp,
    ) -> Table<'a, T> {
        let row = |object: &'a T| Row {
            cells: object.cells(now),
            object: match included {
                IncludedObject::None => Included::None,
                IncludedObject::Metadata => Included::Metadata(PartialMetadata::of(object, version)),
                IncludedObject::Object => Included::Object(object),
            },
        };
        Table {
            kind: "Table",
            api_version: version.api_version(),
            metadata,
            column_definitions: Some(T::COLUMNS),
            rows: objects.into_iter().map(row).collect(),
        }
    }

    /// For a client that was told the columns before.
    pub(crate) fn without_columns(self) -> Table<'a, T> {
        Table {
            column_definitions: None,
            ..self
        }
    }
}
