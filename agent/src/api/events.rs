//! `events`: what they are selected by, and their table.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use serde_json::{Value, json};

use super::resource::Resource;
use super::selectors::{Field, text};
use super::table::Column;
use crate::pod::age;

impl Resource for Event {
    const FIELDS: &'static [Field<Event>] = &[
        ("metadata.name", |event| text(event.metadata.name.as_ref())),
        ("metadata.namespace", |event| {
            text(event.metadata.namespace.as_ref())
        }),
        ("involvedObject.kind", |event| {
            text(event.involved_object.kind.as_ref())
        }),
        ("involvedObject.namespace", |event| {
            text(event.involved_object.namespace.as_ref())
        }),
        ("involvedObject.name", |event| {
            text(event.involved_object.name.as_ref())
        }),
        ("involvedObject.uid", |event| {
            text(event.involved_object.uid.as_ref())
        }),
        ("involvedObject.apiVersion", |event| {
            text(event.involved_object.api_version.as_ref())
        }),
        ("involvedObject.resourceVersion", |event| {
            text(event.involved_object.resource_version.as_ref())
        }),
        ("involvedObject.fieldPath", |event| {
            text(event.involved_object.field_path.as_ref())
        }),
        ("reason", |event| text(event.reason.as_ref())),
        ("reportingComponent", |event| {
            text(event.reporting_component.as_ref())
        }),
        ("source", |event| {
            let source = event.source.as_ref().and_then(|source| source.component.as_ref());
            text(source.or(event.reporting_component.as_ref()))
        }),
        ("type", |event| text(event.type_.as_ref())),
    ];

    const COLUMNS: &'static [Column] = &[
        Column::new("Last Seen", "How long ago this happened last."),
        Column::new("Type", "Normal, or Warning for trouble."),
        Column::new("Reason", "One word for what happened."),
        Column::new("Object", "What it happened to."),
        Column::new("Subobject", "The part of the object that it happened to.").wide(),
        Column::new("Source", "Who says so.").wide(),
        Column::new("Message", "What happened, in a sentence."),
        Column::new("First Seen", "How long ago this happened first.").wide(),
        Column::new("Count", "How often this happened.").wide(),
        Column::name("The event's name.").wide(),
    ];

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let text = |value: &Option<String>| json!(value.as_deref().unwrap_or_default());
        let event_time = self.event_time.as_ref().map(|time| time.0);
        let first = self.first_timestamp.as_ref().map(|time| time.0).or(event_time);
        let last = self.last_timestamp.as_ref().map(|time| time.0).or(first);
        vec![
            json!(age::since(last, now)),
            text(&self.type_),
            text(&self.reason),
            json!(object(self)),
            text(&self.involved_object.field_path),
            json!(source(self)),
            json!(self.message.as_deref().unwrap_or_default().trim()),
            json!(age::since(first, now)),
            json!(self.count.unwrap_or(1)),
            text(&self.metadata.name),
        ]
    }
}

/// `pod/web`.
fn object(event: &Event) -> String {
    let object = &event.involved_object;
    let kind = object.kind.as_deref().unwrap_or_default().to_lowercase();
    match object.name.as_deref() {
        Some(name) => format!("{kind}/{name}"),
        None => kind,
    }
}

/// `debuglet, node1`.
fn source(event: &Event) -> String {
    let source = event.source.clone().unwrap_or_default();
    let component = source.component.or_else(|| event.reporting_component.clone());
    let host = source.host.or_else(|| event.reporting_instance.clone());
    let parts: Vec<String> = [component, host].into_iter().flatten().collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_row_of_an_event_says_how_long_ago_it_happened_last_and_first() {
        let event: Event = serde_json::from_value(json!({
            "metadata": {"name": "web.1", "namespace": "shop"},
            "involvedObject": {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{main}"},
            "type": "Warning", "reason": "BackOff", "message": " again \n", "count": 3,
            "source": {"component": "debuglet", "host": "node1"},
            "firstTimestamp": "2026-11-21T03:00:00Z", "lastTimestamp": "2026-11-21T03:59:30Z",
        }))
        .expect("an event");
        let now = "2026-11-21T04:00:00Z".parse().expect("a time");
        assert_eq!(
            event.cells(now),
            [
                json!("30s"),
                json!("Warning"),
                json!("BackOff"),
                json!("pod/web"),
                json!("spec.containers{main}"),
                json!("debuglet, node1"),
                json!("again"),
                json!("60m"),
                json!(3),
                json!("web.1"),
            ]
        );
    }
}
