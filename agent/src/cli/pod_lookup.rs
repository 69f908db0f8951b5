//! Finding the pod and the container that a command names, and what exists instead where they do not.

use k8s_openapi::List;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::client::{Client, ClientError, pod_path, pods_path};
use super::failure::Failure;
use crate::pod::container_names::it_has;

/// The annotation that names the container which a command means when it names none.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// How many names an error lists at most.
const MAX_NAMES: usize = 5;

/// How like an existing name a wrong one must be to be taken for a slip of it, from 0 to 1 (Jaro-Winkler).
const SIMILAR_ENOUGH: f64 = 0.8;

/// The pod's name in what the user typed, which may be `pod/NAME` as kubectl has it.
pub(crate) fn pod_name(typed: &str) -> Result<&str, Failure> {
    let name = match typed.split_once('/') {
        None => typed,
        Some(("pod" | "pods" | "po", name)) => name,
        Some(("node" | "nodes" | "no", node)) => {
            return Err(Failure::new(format!(
                "cannot debug the node {node}: debuglet runs debug containers in pods that exist, it makes no pods"
            ))
            .hint("The node's own tools are at hand here: run them in this shell."));
        }
        Some((kind, _)) => {
            return Err(Failure::new(format!(
                "cannot take {typed:?} for a pod: {kind:?} is not something that debuglet knows"
            ))
            .hint("Name the pod, as NAME or pod/NAME."));
        }
    };
    if name.is_empty() {
        return Err(Failure::new(format!("{typed:?} names no pod")).hint("\"debuglet ps\" lists the pods."));
    }
    Ok(name)
}

/// The pod that a command names; where it is not there, says what is.
pub(crate) async fn find_pod(client: &Client, namespace: &str, name: &str) -> Result<Pod, Failure> {
    match client.get(&pod_path(namespace, name, "")).await {
        Ok(pod) => Ok(pod),
        Err(error) if error.code() == Some(404) => {
            let pods: List<Pod> = client.get(&pods_path(None)).await?;
            Err(no_such_pod(&pods.items, namespace, name))
        }
        Err(error) => Err(error.into()),
    }
}

/// A 404 of anything below a pod: when the pod itself is missing, say that; else keep the agent's words.
pub(crate) async fn explain_missing(
    client: &Client,
    namespace: &str,
    name: &str,
    error: ClientError,
) -> Failure {
    if error.code() == Some(404)
        && let Err(failure) = find_pod(client, namespace, name).await
    {
        return failure;
    }
    error.into()
}

/// What to say of a pod that does not exist: where one of its name is, or which ones come close.
fn no_such_pod(pods: &[Pod], namespace: &str, name: &str) -> Failure {
    let key = |pod: &Pod| {
        (
            pod.metadata.namespace.clone().unwrap_or_default(),
            pod.metadata.name.clone().unwrap_or_default(),
        )
    };
    let elsewhere: Vec<String> = pods
        .iter()
        .map(key)
        .filter(|(_, existing)| existing == name)
        .map(|(place, _)| place)
        .collect();
    if let Some(first) = elsewhere.first() {
        return Failure::new(format!(
            "there is no pod {name:?} in namespace {namespace}; it is in {}",
            listed(&elsewhere)
        ))
        .hint(format!("Say which namespace is meant: -n {first}"));
    }
    let mut close: Vec<(f64, String)> = pods
        .iter()
        .map(key)
        .map(|(place, existing)| {
            // A pod of a controller is often named by the start that the user chose.
            let likeness = match existing.starts_with(name) {
                true => 1.0,
                false => strsim::jaro_winkler(name, &existing),
            };
            (likeness, place, existing)
        })
        .filter(|(likeness, _, _)| *likeness >= SIMILAR_ENOUGH)
        .map(|(likeness, place, existing)| match place == namespace {
            true => (likeness, existing),
            false => (likeness, format!("{existing} (-n {place})")),
        })
        .collect();
    close.sort_by(|one, other| other.0.total_cmp(&one.0).then_with(|| one.1.cmp(&other.1)));
    let close: Vec<String> = close.into_iter().map(|(_, shown)| shown).collect();
    let failure = Failure::new(format!(
        "there is no pod {name:?} in namespace {namespace} on this node"
    ));
    if !close.is_empty() {
        return failure.hint(format!("Like it: {}", listed(&close)));
    }
    match pods.is_empty() {
        true => failure.hint("There are no pods on this node yet."),
        false => failure.hint("\"debuglet ps\" lists the pods of all namespaces."),
    }
}

/// Names for a sentence, cut after [`MAX_NAMES`].
fn listed(names: &[String]) -> String {
    match names.len() > MAX_NAMES {
        true => format!(
            "{} and {} more",
            names[..MAX_NAMES].join(", "),
            names.len() - MAX_NAMES
        ),
        false => names.join(", "),
    }
}

/// `NAMESPACE/NAME` of a pod.
pub(crate) fn full_name(pod: &Pod) -> String {
    format!(
        "{}/{}",
        pod.metadata.namespace.as_deref().unwrap_or_default(),
        pod.metadata.name.as_deref().unwrap_or_default()
    )
}

/// The names of a pod's ordinary containers.
pub(crate) fn container_names(pod: &Pod) -> Vec<String> {
    let spec = pod.spec.as_ref();
    spec.map(|spec| {
        spec.containers
            .iter()
            .map(|container| container.name.clone())
            .collect()
    })
    .unwrap_or_default()
}

/// The names of a pod's init containers.
pub(crate) fn init_container_names(pod: &Pod) -> Vec<String> {
    let init = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_ref());
    init.map(|all| all.iter().map(|container| container.name.clone()).collect())
        .unwrap_or_default()
}

/// The names of a pod's debug containers.
pub(crate) fn debug_container_names(pod: &Pod) -> Vec<String> {
    let debug = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.ephemeral_containers.as_ref());
    debug
        .map(|all| all.iter().map(|container| container.name.clone()).collect())
        .unwrap_or_default()
}

/// The names of everything that runs in a pod.
pub(crate) fn all_names(pod: &Pod) -> Vec<String> {
    let mut names = container_names(pod);
    names.extend(init_container_names(pod));
    names.extend(debug_container_names(pod));
    names
}

/// The status of one of a pod's containers, of whatever sort.
pub(crate) fn container_status<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    [
        &status.container_statuses,
        &status.init_container_statuses,
        &status.ephemeral_container_statuses,
    ]
    .into_iter()
    .flatten()
    .flatten()
    .find(|status| status.name == name)
}

/// The container that a command means, and a note for stderr where that had to be guessed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ChosenContainer {
    /// Its name.
    pub(crate) name: String,
    /// What to tell the user about the choice; empty if there was none to make.
    pub(crate) note: String,
}

/// Chooses the container: the one asked for, else the only one, else the one that the pod's annotation names, else
/// the first.
pub(crate) fn choose_container(pod: &Pod, asked: Option<&str>) -> Result<ChosenContainer, Failure> {
    let pod_name = full_name(pod);
    let chosen = |name: &str, note: String| ChosenContainer {
        name: name.to_owned(),
        note,
    };
    if let Some(asked) = asked {
        let all = all_names(pod);
        return match all.iter().any(|name| name == asked) {
            true => Ok(chosen(asked, String::new())),
            false => Err(Failure::new(format!(
                "{pod_name} has no container {asked:?}; {}",
                it_has(&all)
            ))),
        };
    }
    let ordinary = container_names(pod);
    let annotated = pod
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(DEFAULT_CONTAINER))
        .filter(|name| all_names(pod).contains(name));
    match (ordinary.as_slice(), annotated) {
        (_, Some(name)) => Ok(chosen(name, String::new())),
        ([only], None) => Ok(chosen(only, String::new())),
        ([first, ..], None) => Ok(chosen(
            first,
            format!(
                "Taking container {first} of {}; -c names another.",
                all_names(pod).join(", ")
            ),
        )),
        ([], None) => Err(
            Failure::new(format!("nothing is known of {pod_name}'s containers"))
                .hint("Name the container with -c."),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(namespace: &str, name: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"namespace": namespace, "name": name}})).unwrap()
    }

    fn pod_of(containers: &[&str]) -> Pod {
        let containers: Vec<_> = containers.iter().map(|name| json!({"name": name})).collect();
        serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": "cart"},
            "spec": {"containers": containers, "ephemeralContainers": [{"name": "dbg", "image": "b"}]},
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_is_named_as_kubectl_has_it() {
        assert_eq!(pod_name("etcd"), Ok("etcd"));
        assert_eq!(pod_name("pod/etcd"), Ok("etcd"));
        assert_eq!(pod_name("pods/etcd"), Ok("etcd"));
        assert!(
            pod_name("node/n1")
                .unwrap_err()
                .message
                .starts_with("cannot debug the node n1")
        );
        assert!(pod_name("deploy/x").is_err());
        assert!(pod_name("pod/").is_err());
    }

    #[test]
    fn a_pod_of_another_namespace_is_said_to_be_there() {
        let failure = no_such_pod(&[pod("kube-system", "etcd-node1")], "default", "etcd-node1");
        assert_eq!(
            failure.lines(),
            "debuglet: there is no pod \"etcd-node1\" in namespace default; it is in kube-system\n  \
             Say which namespace is meant: -n kube-system\n"
        );
    }

    #[test]
    fn an_unknown_pod_is_answered_with_those_like_it() {
        let pods = [
            pod("shop", "cart-7c9f6d4b9d-x2lqp"),
            pod("shop", "web"),
            pod("other", "carts"),
        ];
        let failure = no_such_pod(&pods, "shop", "cart");
        assert_eq!(
            failure.lines(),
            "debuglet: there is no pod \"cart\" in namespace shop on this node\n  \
             Like it: cart-7c9f6d4b9d-x2lqp, carts (-n other)\n"
        );
        let failure = no_such_pod(&[], "shop", "cart");
        assert_eq!(failure.hint, "There are no pods on this node yet.");
    }

    #[test]
    fn a_long_list_of_names_is_cut() {
        let names: Vec<String> = (1..=7).map(|number| format!("n{number}")).collect();
        assert_eq!(listed(&names), "n1, n2, n3, n4, n5 and 2 more");
    }

    #[test]
    fn the_container_asked_for_must_exist() {
        let pod = pod_of(&["cart", "envoy"]);
        assert_eq!(choose_container(&pod, Some("envoy")).unwrap().name, "envoy");
        assert_eq!(choose_container(&pod, Some("dbg")).unwrap().name, "dbg");
        assert_eq!(
            choose_container(&pod, Some("carts")).unwrap_err().message,
            "shop/cart has no container \"carts\"; it has: cart, envoy, dbg"
        );
        assert_eq!(
            choose_container(&self::pod("shop", "cart"), Some("cart"))
                .unwrap_err()
                .message,
            "shop/cart has no container \"cart\"; it has no containers at all"
        );
    }

    #[test]
    fn one_container_is_taken_silently_and_of_several_the_first_with_a_note() {
        let chosen = choose_container(&pod_of(&["cart"]), None).unwrap();
        assert_eq!((chosen.name.as_str(), chosen.note.as_str()), ("cart", ""));
        let chosen = choose_container(&pod_of(&["cart", "envoy"]), None).unwrap();
        assert_eq!(chosen.name, "cart");
        assert_eq!(
            chosen.note,
            "Taking container cart of cart, envoy, dbg; -c names another."
        );
    }

    #[test]
    fn the_default_container_annotation_is_followed() {
        let mut pod = pod_of(&["cart", "envoy"]);
        pod.metadata.annotations = Some([(DEFAULT_CONTAINER.to_owned(), "envoy".to_owned())].into());
        let chosen = choose_container(&pod, None).unwrap();
        assert_eq!((chosen.name.as_str(), chosen.note.as_str()), ("envoy", ""));
    }
}
