//! `namespaces`: what they are selected by, and their table.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use serde_json::{Value, json};

use super::resource::Resource;
use super::selectors::{Field, text};
use super::table::Column;
use crate::pod::age;

impl Resource for Namespace {
    const FIELDS: &'static [Field<Namespace>] = &[
        ("metadata.name", |namespace| {
            text(namespace.metadata.name.as_ref())
        }),
        ("status.phase", phase),
    ];

    const COLUMNS: &'static [Column] = &[
        Column::name("The namespace's name."),
        Column::new("Status", "Whether the namespace is there to stay."),
        Column::new("Age", "How long there has been a pod in the namespace."),
    ];

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let created = self.metadata.creation_timestamp.as_ref().map(|time| time.0);
        vec![
            json!(self.metadata.name.as_deref().unwrap_or_default()),
            json!(phase(self)),
            json!(age::since(created, now)),
        ]
    }
}

fn phase(namespace: &Namespace) -> &str {
    text(namespace.status.as_ref().and_then(|status| status.phase.as_ref()))
}
