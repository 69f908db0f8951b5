//! Sandboxes and containers that carry debuglet's label and that this agent has no record of: its state folder was lost,
//! restored from before, or moved, or the file of a pod cannot be read. They run on; nothing is done about them unless
//! somebody asks for it.

use super::identity::PodKey;
use super::observed::ContainerState;

/// A sandbox that debuglet made, as the runtime lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnSandbox {
    /// The runtime's id.
    pub(crate) id: String,
    /// Whose sandbox it says it is.
    pub(crate) pod: PodKey,
    /// Whether it is ready.
    pub(crate) ready: bool,
}

/// A container that debuglet made, as the runtime lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnContainer {
    /// The runtime's id.
    pub(crate) id: String,
    /// Its name in its pod.
    pub(crate) name: String,
    /// Whose container its labels say it is.
    pub(crate) pod: PodKey,
    /// The sandbox it is in.
    pub(crate) sandbox_id: String,
    /// Where it stands.
    pub(crate) state: ContainerState,
    /// How long it may take to end by itself, in seconds.
    pub(crate) grace_seconds: i64,
}

/// What is left over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leftover {
    /// A sandbox, with the containers that debuglet made in it.
    Sandbox {
        /// The sandbox.
        sandbox: OwnSandbox,
        /// Its containers.
        containers: Vec<OwnContainer>,
    },
    /// A container in a pod that is known, or that somebody else runs.
    Container(OwnContainer),
}

impl Leftover {
    /// The runtime's id.
    pub(crate) fn id(&self) -> &str {
        match self {
            Leftover::Sandbox { sandbox, .. } => &sandbox.id,
            Leftover::Container(container) => &container.id,
        }
    }

    /// Whose it says it is.
    pub(crate) fn pod(&self) -> &PodKey {
        match self {
            Leftover::Sandbox { sandbox, .. } => &sandbox.pod,
            Leftover::Container(container) => &container.pod,
        }
    }

    /// What it is, and what can be done about it, in one sentence or two. `namesake` says whether another pod of the name
    /// is known.
    pub(crate) fn message(&self, namesake: bool) -> String {
        let what = match self {
            Leftover::Sandbox { sandbox, containers } => {
                let state = if sandbox.ready { "runs" } else { "is stopped" };
                let listed: Vec<String> = containers.iter().map(in_words).collect();
                let with = match listed.as_slice() {
                    [] => String::new(),
                    listed => format!(" with {}", listed.join(", ")),
                };
                format!("a sandbox of debuglet's {state}{with}, and this agent has no record of its pod")
            }
            Leftover::Container(container) => format!(
                "debuglet's {} is there, and this agent has no record of it",
                in_words(container)
            ),
        };
        let beside = match self {
            Leftover::Sandbox { .. } if namesake => "; the pod of that name here is another one",
            _ => "",
        };
        format!(
            "{what}{beside}. To stop and remove it: debuglet stop --leftover {}",
            short(self.id())
        )
    }
}

/// As much of an id as crictl shows.
fn short(id: &str) -> &str {
    id.get(..13).unwrap_or(id)
}

fn in_words(container: &OwnContainer) -> String {
    let state = match container.state {
        ContainerState::Created => "created",
        ContainerState::Running => "running",
        ContainerState::Exited => "exited",
        ContainerState::Unknown => "in an unknown state",
    };
    format!("container {:?} ({state})", container.name)
}

/// What is left over of all that debuglet made.
///
/// `knows_pod` says whether debuglet runs the pod with a UID, `knows_container` whether the pod with a UID, whoever runs it,
/// has a container of a name that debuglet would have made.
pub(crate) fn leftovers(
    sandboxes: Vec<OwnSandbox>,
    containers: Vec<OwnContainer>,
    knows_pod: impl Fn(&str) -> bool,
    knows_container: impl Fn(&str, &str) -> bool,
) -> Vec<Leftover> {
    let lost: Vec<OwnSandbox> = sandboxes
        .into_iter()
        .filter(|sandbox| !knows_pod(&sandbox.pod.uid))
        .collect();
    let (inside, elsewhere): (Vec<_>, Vec<_>) = containers
        .into_iter()
        .partition(|container| lost.iter().any(|sandbox| sandbox.id == container.sandbox_id));
    let alone = elsewhere
        .into_iter()
        .filter(|container| !knows_container(&container.pod.uid, &container.name))
        .map(Leftover::Container);
    let with_containers = |sandbox: OwnSandbox| Leftover::Sandbox {
        containers: inside
            .iter()
            .filter(|container| container.sandbox_id == sandbox.id)
            .cloned()
            .collect(),
        sandbox,
    };
    lost.into_iter().map(with_containers).chain(alone).collect()
}

/// The one of them that `id` names, in full or by its beginning.
pub(crate) fn named<'a>(leftovers: &'a [Leftover], id: &str) -> Result<&'a Leftover, NotNamed> {
    let mut begin_so = leftovers.iter().filter(|leftover| leftover.id().starts_with(id));
    match (begin_so.next(), begin_so.next()) {
        _ if id.is_empty() => Err(NotNamed::None),
        (None, _) => Err(NotNamed::None),
        (Some(leftover), None) => Ok(leftover),
        (Some(_), Some(_)) => Err(NotNamed::Several),
    }
}

/// Why an id names nothing that is left over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotNamed {
    /// Nothing has it.
    #[error("no sandbox or container of debuglet's that it has no record of has this id")]
    None,
    /// The beginning of an id is that of several.
    #[error("several have an id that begins so")]
    Several,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, uid: &str) -> PodKey {
        PodKey {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
        }
    }

    fn sandbox(id: &str, uid: &str) -> OwnSandbox {
        OwnSandbox {
            id: id.to_owned(),
            pod: key("cart", uid),
            ready: true,
        }
    }

    fn container(id: &str, name: &str, uid: &str, sandbox_id: &str) -> OwnContainer {
        OwnContainer {
            id: id.to_owned(),
            name: name.to_owned(),
            pod: key("cart", uid),
            sandbox_id: sandbox_id.to_owned(),
            state: ContainerState::Running,
            grace_seconds: 30,
        }
    }

    fn found(sandboxes: Vec<OwnSandbox>, containers: Vec<OwnContainer>) -> Vec<Leftover> {
        // A pod of ours with one debug container that is known, and somebody else's with one.
        let knows_container = |uid: &str, name: &str| match uid {
            "ours" => ["main", "dbg"].contains(&name),
            "theirs" => name == "dbg",
            _ => false,
        };
        leftovers(sandboxes, containers, |uid| uid == "ours", knows_container)
    }

    #[test]
    fn what_is_known_is_not_left_over() {
        let containers = vec![
            container("c1", "main", "ours", "s1"),
            container("c2", "dbg", "ours", "s1"),
            container("c3", "dbg", "theirs", "s2"),
        ];
        assert_eq!(found(vec![sandbox("s1", "ours")], containers), []);
    }

    #[test]
    fn a_lost_pod_is_its_sandbox_with_what_debuglet_made_in_it() {
        let (lost, main) = (sandbox("s1", "lost"), container("c1", "main", "lost", "s1"));
        let expected = Leftover::Sandbox {
            sandbox: lost.clone(),
            containers: vec![main.clone()],
        };
        let text = expected.message(true);
        assert_eq!(found(vec![lost], vec![main]), [expected]);
        assert_eq!(
            text,
            "a sandbox of debuglet's runs with container \"main\" (running), and this agent has no record of its pod; the pod \
             of that name here is another one. To stop and remove it: debuglet stop --leftover s1"
        );
    }

    #[test]
    fn a_lost_record_leaves_its_container_over_whoever_runs_the_pod() {
        for uid in ["ours", "theirs", "never-seen"] {
            let lost = container("c1", "old", uid, "s9");
            assert_eq!(
                found(vec![], vec![lost.clone()]),
                [Leftover::Container(lost)],
                "{uid}"
            );
        }
        let text = Leftover::Container(container("0123456789abcdef", "old", "theirs", "s9")).message(true);
        assert_eq!(
            text,
            "debuglet's container \"old\" (running) is there, and this agent has no record of it. To stop and remove it: \
             debuglet stop --leftover 0123456789abc"
        );
    }

    #[test]
    fn an_id_may_be_cut_short_and_names_only_what_is_left_over() {
        let leftovers = [
            Leftover::Container(container("abc1", "a", "u", "s")),
            Leftover::Container(container("abd2", "b", "u", "s")),
        ];
        assert_eq!(named(&leftovers, "abc").map(Leftover::id), Ok("abc1"));
        assert_eq!(named(&leftovers, "abd2").map(Leftover::id), Ok("abd2"));
        assert_eq!(named(&leftovers, "ab"), Err(NotNamed::Several));
        assert_eq!(named(&leftovers, "abd23"), Err(NotNamed::None));
        assert_eq!(named(&leftovers, ""), Err(NotNamed::None));
    }
}
