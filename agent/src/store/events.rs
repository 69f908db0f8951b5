//! Events (core/v1) of the pods of this node: repeated ones are counted, and only the newest are kept. Each takes its
//! place in the one sequence of versions.

use std::collections::VecDeque;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;

use super::changes::{Change, ChangeKind, History};
use crate::pod::identity::derived_uid;

/// How many events are kept for all pods together; the one that was seen least recently makes room.
const EVENTS: usize = 1000;

/// The `source.component` of every event.
pub(crate) const COMPONENT: &str = "debuglet";

/// Whether an event tells of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// `Normal`.
    Normal,
    /// `Warning`.
    Warning,
}

impl Severity {
    /// The event's `type`.
    fn name(self) -> &'static str {
        match self {
            Severity::Normal => "Normal",
            Severity::Warning => "Warning",
        }
    }
}

/// What happened to a pod or to one of its containers.
#[derive(Clone, Debug)]
pub(crate) struct Happening {
    /// Whether it is trouble.
    pub(crate) severity: Severity,
    /// The kubelet's reason: `Pulled`, `Created`, `Started`, `Failed`, `BackOff`, ...
    pub(crate) reason: &'static str,
    /// A sentence.
    pub(crate) message: String,
    /// The container it happened to, as `involvedObject.fieldPath`: `spec.ephemeralContainers{NAME}`.
    pub(crate) field_path: Option<String>,
}

/// The newest events, the least recently seen first.
#[derive(Debug, Default)]
pub(crate) struct Events {
    events: VecDeque<Arc<Event>>,
    made: u64,
}

impl Events {
    /// Counts `happening` on the event that said the same of the same object, or adds a new event; `history` is told.
    pub(crate) fn record(
        &mut self,
        pod: &ObjectMeta,
        happening: Happening,
        host: &str,
        now: Timestamp,
        history: &mut History,
    ) {
        let same = self.events.iter().position(|event| says(event, pod, &happening));
        if let Some(event) = same.and_then(|index| self.events.remove(index)) {
            let mut again = Event::clone(&event);
            again.count = Some(event.count.unwrap_or(1).saturating_add(1));
            again.last_timestamp = Some(Time(now));
            self.events
                .push_back(changed(again, ChangeKind::Modified, Some(event), history));
            return;
        }
        if self.events.len() == EVENTS
            && let Some(oldest) = self.events.pop_front()
        {
            changed(Event::clone(&oldest), ChangeKind::Deleted, Some(oldest), history);
        }
        self.made += 1;
        let event = new_event(pod, happening, host, now, self.made);
        self.events
            .push_back(changed(event, ChangeKind::Added, None, history));
    }

    /// All events, the least recently seen first.
    pub(crate) fn all(&self) -> Vec<Arc<Event>> {
        self.events.iter().cloned().collect()
    }
}

/// Whether `event` tells of the same happening.
fn says(event: &Event, pod: &ObjectMeta, happening: &Happening) -> bool {
    event.involved_object.uid == pod.uid
        && event.involved_object.field_path == happening.field_path
        && event.reason.as_deref() == Some(happening.reason)
        && event.message.as_deref() == Some(&happening.message)
        && event.type_.as_deref() == Some(happening.severity.name())
}

/// Gives an event its new version, and the history the change.
fn changed(
    mut event: Event,
    kind: ChangeKind,
    previous: Option<Arc<Event>>,
    history: &mut History,
) -> Arc<Event> {
    let version = history.next_version();
    event.metadata.resource_version = Some(version.to_string());
    let event = Arc::new(event);
    let change = Change::new(version, kind, previous, Arc::clone(&event));
    history.events.push(change);
    event
}

fn new_event(pod: &ObjectMeta, happening: Happening, host: &str, now: Timestamp, number: u64) -> Event {
    // The time and a counter, as client-go names events: unique, and in the order they came.
    let pod_name = pod.name.as_deref().unwrap_or_default();
    let name = format!("{pod_name}.{:x}{:04x}", now.as_nanosecond(), number & 0xffff);
    let namespace = pod.namespace.as_deref().unwrap_or_default();
    Event {
        metadata: ObjectMeta {
            uid: Some(derived_uid(&["event", namespace, &name])),
            name: Some(name),
            namespace: pod.namespace.clone(),
            creation_timestamp: Some(Time(now)),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: pod.name.clone(),
            namespace: pod.namespace.clone(),
            uid: pod.uid.clone(),
            field_path: happening.field_path,
            resource_version: None,
        },
        type_: Some(happening.severity.name().to_owned()),
        reason: Some(happening.reason.to_owned()),
        message: Some(happening.message),
        source: Some(EventSource {
            component: Some(COMPONENT.to_owned()),
            host: Some(host.to_owned()),
        }),
        reporting_component: Some(COMPONENT.to_owned()),
        reporting_instance: Some(host.to_owned()),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> ObjectMeta {
        ObjectMeta {
            name: Some("web".to_owned()),
            namespace: Some("default".to_owned()),
            uid: Some("u1".to_owned()),
            ..ObjectMeta::default()
        }
    }

    fn happening(message: &str) -> Happening {
        Happening {
            severity: Severity::Warning,
            reason: "BackOff",
            message: message.to_owned(),
            field_path: Some("spec.containers{main}".to_owned()),
        }
    }

    fn record(events: &mut Events, history: &mut History, messages: &[&str]) {
        for message in messages {
            events.record(
                &pod(),
                happening(message),
                "node1",
                Timestamp::UNIX_EPOCH,
                history,
            );
        }
    }

    #[test]
    fn a_repeated_event_is_counted_and_moves_to_the_end() {
        let (mut events, mut history) = (Events::default(), History::starting_at(0));
        record(&mut events, &mut history, &["a", "b", "a"]);
        let seen: Vec<_> = events
            .all()
            .iter()
            .map(|event| (event.message.clone().expect("message"), event.count))
            .collect();
        assert_eq!(seen, [("b".to_owned(), Some(1)), ("a".to_owned(), Some(2))]);
    }

    #[test]
    fn every_event_is_a_change_under_a_version_of_its_own() {
        let (mut events, mut history) = (Events::default(), History::starting_at(7));
        record(&mut events, &mut history, &["a", "b", "a"]);
        let changes = history.events.since(7).expect("kept");
        let told: Vec<_> = changes
            .iter()
            .map(|change| {
                let version = change.object.metadata.resource_version.clone();
                (change.kind, version.expect("a version"))
            })
            .collect();
        let expected = [
            (ChangeKind::Added, "8".to_owned()),
            (ChangeKind::Added, "9".to_owned()),
            (ChangeKind::Modified, "10".to_owned()),
        ];
        assert_eq!(told, expected);
        let uid = |index: usize| changes[index].object.metadata.uid.clone();
        assert!(uid(0) == uid(2) && uid(0) != uid(1));
    }

    #[test]
    fn only_the_newest_events_are_kept_and_watchers_see_the_others_go() {
        let (mut events, mut history) = (Events::default(), History::starting_at(0));
        let messages: Vec<String> = (0..EVENTS + 5).map(|index| index.to_string()).collect();
        let messages: Vec<&str> = messages.iter().map(String::as_str).collect();
        record(&mut events, &mut history, &messages);
        assert_eq!(events.all().len(), EVENTS);
        assert_eq!(events.all()[0].message.as_deref(), Some("5"));
        let last_two = history.events.since(history.version() - 2).expect("kept");
        assert_eq!(
            (last_two[0].kind, last_two[1].kind),
            (ChangeKind::Deleted, ChangeKind::Added)
        );
    }
}
