//! Events (core/v1) of the pods of this node: repeated ones are counted, and only the newest are kept. Each takes its
//! place in the one sequence of versions.

use std::collections::VecDeque;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;

use super::changes::{Change, ChangeKind, History};
use super::views::Views;
use crate::pod::container_path::ContainerPath;
use crate::pod::identity::derived_uid;
use crate::pod::visibility::{Audience, Visibility};

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
    /// The container it happened to; none where it is the pod.
    pub(crate) container: Option<ContainerPath>,
}

/// An event that is kept.
#[derive(Clone, Debug)]
struct Kept {
    views: Views<Event>,
    /// As in [`Happening::container`].
    container: Option<ContainerPath>,
}

/// The newest events, the least recently seen first.
#[derive(Debug, Default)]
pub(crate) struct Events {
    events: VecDeque<Kept>,
    made: u64,
}

impl Events {
    /// Counts `happening` on the event that said the same of the same object, or adds a new event; `history` is told. Who
    /// sees it follows from the `visibility` of its pod.
    pub(crate) fn record(
        &mut self,
        pod: &ObjectMeta,
        visibility: &Visibility,
        happening: Happening,
        host: &str,
        now: Timestamp,
        history: &mut History,
    ) {
        let visible = visibility.shows_event(Audience::Cluster, happening.container.as_ref());
        let same = self.events.iter().position(|kept| says(kept, pod, &happening));
        if let Some(kept) = same.and_then(|index| self.events.remove(index)) {
            let mut again = Event::clone(kept.views.whole());
            again.count = Some(again.count.unwrap_or(1).saturating_add(1));
            again.last_timestamp = Some(Time(now));
            let views = changed(again, visible, ChangeKind::Modified, Some(kept.views), history);
            self.events.push_back(Kept { views, ..kept });
            return;
        }
        if self.events.len() == EVENTS
            && let Some(Kept { views, .. }) = self.events.pop_front()
        {
            let visible = views.of(Audience::Cluster).is_some();
            let last = Event::clone(views.whole());
            changed(last, visible, ChangeKind::Deleted, Some(views), history);
        }
        self.made += 1;
        let container = happening.container.clone();
        let event = new_event(pod, happening, host, now, self.made);
        let views = changed(event, visible, ChangeKind::Added, None, history);
        self.events.push_back(Kept { views, container });
    }

    /// Shows the events of a pod to users of the cluster, or hides them, as the pod's new `visibility` says.
    pub(crate) fn show(&mut self, uid: &str, visibility: &Visibility, history: &mut History) {
        for kept in &mut self.events {
            if kept.views.whole().involved_object.uid.as_deref() != Some(uid) {
                continue;
            }
            let visible = visibility.shows_event(Audience::Cluster, kept.container.as_ref());
            if visible == kept.views.of(Audience::Cluster).is_some() {
                continue;
            }
            let version = history.next_version();
            let whole = Arc::clone(kept.views.whole());
            // It is new to users of the cluster. Clients of the node have it already: for them it stays what it is.
            let cluster = visible.then(|| {
                let mut event = Event::clone(&whole);
                event.metadata.resource_version = Some(version.to_string());
                Arc::new(event)
            });
            let views = Views::different(whole, cluster);
            let previous = std::mem::replace(&mut kept.views, views.clone());
            let change = Change::new(version, ChangeKind::Modified, Some(previous), views);
            history.events.push(change);
        }
    }

    /// All events, the least recently seen first.
    pub(crate) fn all(&self) -> Vec<Views<Event>> {
        self.events.iter().map(|kept| kept.views.clone()).collect()
    }
}

/// Whether an event tells of the same happening.
fn says(kept: &Kept, pod: &ObjectMeta, happening: &Happening) -> bool {
    let event = kept.views.whole();
    event.involved_object.uid == pod.uid
        && kept.container == happening.container
        && event.reason.as_deref() == Some(happening.reason)
        && event.message.as_deref() == Some(&happening.message)
        && event.type_.as_deref() == Some(happening.severity.name())
}

/// Gives an event its new version, and the history the change.
fn changed(
    mut event: Event,
    visible: bool,
    kind: ChangeKind,
    previous: Option<Views<Event>>,
    history: &mut History,
) -> Views<Event> {
    let version = history.next_version();
    event.metadata.resource_version = Some(version.to_string());
    let views = Views::visible_if(visible, Arc::new(event));
    history
        .events
        .push(Change::new(version, kind, previous, views.clone()));
    views
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
            field_path: happening.container.as_ref().map(ToString::to_string),
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
            container: Some(ContainerPath::Ordinary("main".to_owned())),
        }
    }

    fn record(events: &mut Events, history: &mut History, messages: &[&str]) {
        for message in messages {
            events.record(
                &pod(),
                &Visibility::Hidden,
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
            .map(|event| {
                (
                    event.whole().message.clone().expect("message"),
                    event.whole().count,
                )
            })
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
                let version = change.object.whole().metadata.resource_version.clone();
                (change.kind, version.expect("a version"))
            })
            .collect();
        let expected = [
            (ChangeKind::Added, "8".to_owned()),
            (ChangeKind::Added, "9".to_owned()),
            (ChangeKind::Modified, "10".to_owned()),
        ];
        assert_eq!(told, expected);
        let uid = |index: usize| changes[index].object.whole().metadata.uid.clone();
        assert!(uid(0) == uid(2) && uid(0) != uid(1));
    }

    #[test]
    fn events_come_and_go_for_users_of_the_cluster_as_their_pod_and_container_do_and_stay_for_the_node() {
        let (mut events, mut history) = (Events::default(), History::starting_at(0));
        record(&mut events, &mut history, &["ordinary"]);
        let ephemeral = Happening {
            container: Some(ContainerPath::Ephemeral("dbg".to_owned())),
            ..happening("ephemeral")
        };
        events.record(
            &pod(),
            &Visibility::Hidden,
            ephemeral,
            "node1",
            Timestamp::UNIX_EPOCH,
            &mut history,
        );
        let visible = |events: &Events, audience| {
            let all = events.all();
            let seen = all.iter().filter_map(|views| views.of(audience));
            seen.filter_map(|event| event.message.clone()).collect::<Vec<_>>()
        };
        let without = |names: &[&str]| Visibility::Visible {
            without: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        for (visibility, expected, changes) in [
            (Visibility::Hidden, vec![], 0),
            (without(&["dbg"]), vec!["ordinary"], 1),
            (without(&[]), vec!["ordinary", "ephemeral"], 1),
            (without(&[]), vec!["ordinary", "ephemeral"], 0),
            (Visibility::Hidden, vec![], 2),
        ] {
            let before = history.version();
            events.show("other", &visibility, &mut history);
            assert_eq!(history.version(), before, "an event of another pod");
            events.show("u1", &visibility, &mut history);
            assert_eq!(visible(&events, Audience::Cluster), expected, "{visibility:?}");
            assert_eq!(visible(&events, Audience::Node), ["ordinary", "ephemeral"]);
            assert_eq!(history.version() - before, changes, "{visibility:?}");
        }
    }

    #[test]
    fn only_the_newest_events_are_kept_and_watchers_see_the_others_go() {
        let (mut events, mut history) = (Events::default(), History::starting_at(0));
        let messages: Vec<String> = (0..EVENTS + 5).map(|index| index.to_string()).collect();
        let messages: Vec<&str> = messages.iter().map(String::as_str).collect();
        record(&mut events, &mut history, &messages);
        assert_eq!(events.all().len(), EVENTS);
        assert_eq!(events.all()[0].whole().message.as_deref(), Some("5"));
        let last_two = history.events.since(history.version() - 2).expect("kept");
        assert_eq!(
            (last_two[0].kind, last_two[1].kind),
            (ChangeKind::Deleted, ChangeKind::Added)
        );
    }
}
