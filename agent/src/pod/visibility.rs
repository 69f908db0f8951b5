//! Who may see what of a pod: the one place that decides it for pods, containers, launches, events and namespaces.
//!
//! Users of the node's cluster have rights to what their API server has. What only this node has is not theirs, though it
//! may be in a namespace that is named like one of theirs.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;

use super::container_path::ContainerPath;
use super::discovered::union::{Place, place};
use super::record::{Origin, Record};
use super::source::Source;

/// Who reads what the API serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// A client that this node itself lets in: over the socket, or with a certificate of its authority. It sees everything.
    Node,
    /// A user of the node's cluster. It sees what is [`Visibility::Visible`], as far as its rights go.
    Cluster,
}

/// What of one pod users of the cluster may see, as far as their rights go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Visibility {
    /// Nothing of it.
    Hidden,
    /// The pod, without the ephemeral containers that are asked for here under these names.
    Visible {
        /// The hidden names. The API server may have another container of such a name: that one is visible.
        without: BTreeSet<String>,
    },
}

impl Visibility {
    /// The visibility of a pod of this source with these records; `known` is the pod as the API server knows it.
    ///
    /// A pod is visible if the API server knows it or if it was created over this API. An external pod that the API server
    /// does not know may be of another client, and its spec may show values of Secrets that a kubelet has filled in.
    pub(crate) fn of(source: &Source, known: Option<&Pod>, records: &[Record]) -> Visibility {
        let visible = match source {
            Source::Api => true,
            Source::Discovered(_) => known.is_some(),
            Source::Manifest(_) => false,
        };
        if !visible {
            return Visibility::Hidden;
        }
        let hidden = records.iter().filter(|record| !is_visible(record, known));
        Visibility::Visible {
            without: hidden.map(|record| record.spec.name.clone()).collect(),
        }
    }

    /// Whether `audience` sees the pod.
    pub(crate) fn shows_pod(&self, audience: Audience) -> bool {
        audience == Audience::Node || *self != Visibility::Hidden
    }

    /// Whether `audience` sees the container that the record of this name is about, its launch and its log.
    pub(crate) fn shows_record(&self, audience: Audience, name: &str) -> bool {
        audience == Audience::Node
            || match self {
                Visibility::Hidden => false,
                Visibility::Visible { without } => !without.contains(name),
            }
    }

    /// Whether `audience` sees an event of the pod, or of this container of it.
    pub(crate) fn shows_event(&self, audience: Audience, container: Option<&ContainerPath>) -> bool {
        match container {
            Some(ContainerPath::Ephemeral(name)) => self.shows_record(audience, name),
            Some(ContainerPath::Ordinary(_) | ContainerPath::Init(_)) | None => self.shows_pod(audience),
        }
    }
}

/// Whether users of the cluster see the container of a record in a pod that they see: one of them asked for it, or the API
/// server has it. A record that does not say who asked is from before that was kept: it counts as the node's own.
fn is_visible(record: &Record, known: Option<&Pod>) -> bool {
    let asked_by_user = record
        .asked_by
        .as_ref()
        .is_some_and(|asked_by| asked_by.audience() == Audience::Cluster);
    asked_by_user
        || record.origin == Origin::KubeApiserver
        || known.is_some_and(|known| place(record, known) == Place::Both)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::asked_by::{AskedBy, WayIn};
    use crate::pod::discovered::Owner;
    use crate::pod::record::Phase;

    fn record(name: &str, origin: Origin, way_in: Option<WayIn>) -> Record {
        Record {
            spec: serde_json::from_value(json!({"name": name, "image": "busybox:1"})).expect("a container"),
            order: 0,
            origin,
            asked_by: way_in.map(|way_in| AskedBy::new("someone", way_in)),
            copy_mounts: None,
            phase: Phase::Accepted,
        }
    }

    fn known(containers: &serde_json::Value) -> Pod {
        let pod = json!({"spec": {"containers": [], "ephemeralContainers": containers}});
        serde_json::from_value(pod).expect("a pod")
    }

    #[test]
    fn users_of_the_cluster_see_the_pods_that_the_api_server_knows_and_those_created_over_the_api() {
        let known = Pod::default();
        for (source, known, expected) in [
            (Source::Api, None, true),
            (
                Source::Manifest("/etc/debuglet/manifests/a.yaml".into()),
                None,
                false,
            ),
            (Source::Discovered(Owner::Kubelet), Some(&known), true),
            (Source::Discovered(Owner::Kubelet), None, false),
            (Source::Discovered(Owner::StaticPod), Some(&known), true),
            (Source::Discovered(Owner::StaticPod), None, false),
            (Source::Discovered(Owner::Cri), None, false),
        ] {
            let visibility = Visibility::of(&source, known, &[]);
            assert_eq!(
                visibility.shows_pod(Audience::Cluster),
                expected,
                "{source:?} {known:?}"
            );
            assert_eq!(
                visibility.shows_event(Audience::Cluster, None),
                expected,
                "{source:?}"
            );
            assert!(visibility.shows_pod(Audience::Node), "{source:?}");
        }
    }

    #[test]
    fn users_of_the_cluster_see_the_containers_that_one_of_them_asked_for_and_those_that_the_api_server_has()
    {
        use Origin::{Api, KubeApiserver};
        let (same, other) = (
            json!([{"name": "dbg", "image": "busybox:1"}]),
            json!([{"name": "dbg", "image": "busybox:2"}]),
        );
        for (origin, way_in, in_api_server, expected) in [
            (Api, Some(WayIn::Cluster), json!([]), true),
            (Api, Some(WayIn::Socket), json!([]), false),
            (Api, Some(WayIn::Certificate), json!([]), false),
            (Api, None, json!([]), false),
            (Api, Some(WayIn::Socket), same.clone(), true),
            (Api, None, same, true),
            (Api, Some(WayIn::Socket), other, false),
            (KubeApiserver, Some(WayIn::ApiServer), json!([]), true),
            (KubeApiserver, None, json!([]), true),
        ] {
            let known = known(&in_api_server);
            let records = [record("dbg", origin, way_in)];
            let source = Source::Discovered(Owner::Kubelet);
            let visibility = Visibility::of(&source, Some(&known), &records);
            let path = ContainerPath::Ephemeral("dbg".to_owned());
            for (audience, expected) in [(Audience::Cluster, expected), (Audience::Node, true)] {
                let what = format!("{origin:?} {way_in:?} {in_api_server} {audience:?}");
                assert_eq!(visibility.shows_record(audience, "dbg"), expected, "{what}");
                assert_eq!(visibility.shows_event(audience, Some(&path)), expected, "{what}");
                assert!(visibility.shows_pod(audience), "{what}");
            }
            // An ordinary container of that name is another one.
            let path = ContainerPath::Ordinary("dbg".to_owned());
            assert!(visibility.shows_event(Audience::Cluster, Some(&path)));
        }
    }

    #[test]
    fn nothing_of_a_hidden_pod_is_visible_whoever_asked_for_it() {
        let records = [record("dbg", Origin::Manifest, Some(WayIn::Manifest))];
        let hidden = Visibility::of(&Source::Manifest("a.yaml".into()), None, &records);
        let path = ContainerPath::Ordinary("main".to_owned());
        assert!(!hidden.shows_record(Audience::Cluster, "dbg"));
        assert!(!hidden.shows_event(Audience::Cluster, Some(&path)));
    }
}
