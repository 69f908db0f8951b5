//! Events (core/v1) of the pods of this node: repeated ones are counted, and only the newest are kept.

use std::collections::VecDeque;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;

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
    /// Counts `happening` on the event that said the same of the same object, or adds a new event.
    /// `version` becomes its `resourceVersion`.
    pub(crate) fn record(
        &mut self,
        pod: &ObjectMeta,
        happening: Happening,
        host: &str,
        now: Timestamp,
        version: u64,
    ) {
        let Happening {
            severity,
            reason,
            message,
            field_path,
        } = happening;
        let severity = match severity {
            Severity::Normal => "Normal",
            Severity::Warning => "Warning",
        };
        let same = self.events.iter().position(|event| {
            event.involved_object.uid == pod.uid
                && event.involved_object.field_path == field_path
                && event.reason.as_deref() == Some(reason)
                && event.message.as_deref() == Some(&message)
                && event.type_.as_deref() == Some(severity)
        });
        if let Some(event) = same.and_then(|index| self.events.remove(index)) {
            let mut event = Arc::unwrap_or_clone(event);
            event.count = Some(event.count.unwrap_or(1).saturating_add(1));
            event.last_timestamp = Some(Time(now));
            event.metadata.resource_version = Some(version.to_string());
            self.events.push_back(Arc::new(event));
            return;
        }
        self.made += 1;
        let name = pod.name.clone().unwrap_or_default();
        let event = Event {
            metadata: ObjectMeta {
                // The time and a counter, as client-go names events: unique, and in the order they came.
                name: Some(format!(
                    "{name}.{:x}{:04x}",
                    now.as_nanosecond(),
                    self.made & 0xffff
                )),
                namespace: pod.namespace.clone(),
                creation_timestamp: Some(Time(now)),
                resource_version: Some(version.to_string()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.name.clone(),
                namespace: pod.namespace.clone(),
                uid: pod.uid.clone(),
                field_path,
                resource_version: None,
            },
            type_: Some(severity.to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message),
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
        };
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(Arc::new(event));
    }

    /// All events, the least recently seen first.
    pub(crate) fn all(&self) -> Vec<Arc<Event>> {
        self.events.iter().cloned().collect()
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

    #[test]
    fn a_repeated_event_is_counted_and_moves_to_the_end() {
        let mut events = Events::default();
        events.record(&pod(), happening("a"), "node1", Timestamp::UNIX_EPOCH, 1);
        events.record(&pod(), happening("b"), "node1", Timestamp::UNIX_EPOCH, 2);
        events.record(&pod(), happening("a"), "node1", Timestamp::UNIX_EPOCH, 3);
        let seen: Vec<_> = events
            .all()
            .iter()
            .map(|event| (event.message.clone().expect("message"), event.count))
            .collect();
        assert_eq!(seen, [("b".to_owned(), Some(1)), ("a".to_owned(), Some(2))]);
    }

    #[test]
    fn only_the_newest_events_are_kept() {
        let mut events = Events::default();
        for index in 0..EVENTS + 5 {
            events.record(
                &pod(),
                happening(&index.to_string()),
                "node1",
                Timestamp::UNIX_EPOCH,
                index as u64,
            );
        }
        assert_eq!(events.all().len(), EVENTS);
        assert_eq!(events.all()[0].message.as_deref(), Some("5"));
    }
}
