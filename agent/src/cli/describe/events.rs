//! The events of a description, oldest first.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;

use super::page::Page;
use crate::cli::age;

/// Writes the table of events.
pub(super) fn write(page: &mut Page, mut events: Vec<Event>, now: Timestamp) {
    if events.is_empty() {
        page.field(0, "Events", "<none>");
        return;
    }
    events.sort_by_key(last_seen);
    page.line(0, "Events:");
    page.cells(1, &["Type", "Reason", "Age", "From", "Message"]);
    page.cells(1, &["----", "------", "----", "----", "-------"]);
    for event in &events {
        let from = event.source.as_ref().and_then(|source| source.component.clone());
        let from = from
            .or_else(|| event.reporting_component.clone())
            .unwrap_or_default();
        let message = event
            .message
            .as_deref()
            .unwrap_or_default()
            .trim()
            .replace(['\n', '\t'], " ");
        let message = match event.involved_object.field_path.as_deref().unwrap_or_default() {
            "" => message,
            field => format!("{field}: {message}"),
        };
        let kind = event.type_.as_deref().unwrap_or_default();
        let reason = event.reason.as_deref().unwrap_or_default();
        let age = event_age(event, now);
        page.cells(1, &[kind, reason, &age, &from, &message]);
    }
}

/// When an event was seen last.
fn last_seen(event: &Event) -> Option<Timestamp> {
    let series = event
        .series
        .as_ref()
        .and_then(|series| series.last_observed_time.as_ref());
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    series.map(|time| time.0).or(last).or_else(|| first_seen(event))
}

/// When an event was seen first.
fn first_seen(event: &Event) -> Option<Timestamp> {
    let first = event.first_timestamp.as_ref().map(|time| time.0);
    event.event_time.as_ref().map(|time| time.0).or(first)
}

/// `8m`, or `12s (x4 over 3m)` of one that repeats.
fn event_age(event: &Event, now: Timestamp) -> String {
    let count = event
        .series
        .as_ref()
        .and_then(|series| series.count)
        .or(event.count);
    let first = age::since(first_seen(event), now);
    match count.unwrap_or(1) {
        ..=1 => first,
        count => format!("{} (x{count} over {first})", age::since(last_seen(event), now)),
    }
}
