//! Whether the name that the configuration gives this node is the one that its kubelet has. With another name the API server
//! is asked for the pods and for the Lease of somebody else's node, or of none, and answers in good order.

/// What the API server knows of the node of our name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum KnownNode {
    /// It was not asked, or may not be.
    #[default]
    Unknown,
    /// There is no such Node.
    Missing,
    /// There is, and its kubelet ran on this machine (`status.nodeInfo`) when it reported last.
    There(Machine),
}

/// Which machine it is, and which run of it; each empty where that is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    /// machine-id(5), `status.nodeInfo.machineID`.
    pub(crate) id: String,
    /// The random id of this boot, `status.nodeInfo.bootID`.
    pub(crate) boot: String,
}

impl Machine {
    /// Whether the other one certainly is another machine. A machine that has booted since its kubelet reported last is
    /// known by its id, and a copy of a virtual machine, which may have the id of its original, by its boot.
    fn differs_from(&self, other: &Machine) -> bool {
        let differs = |one: &str, other: &str| !one.is_empty() && !other.is_empty() && one != other;
        differs(&self.id, &other.id) && differs(&self.boot, &other.boot)
    }
}

/// What is wrong with `node_name`, in a sentence for the user; none where nothing is known to be.
///
/// `credential_of` is the node whose credential is used, where it is a node's; `here` is this machine.
pub(crate) fn doubt(
    node_name: &str,
    credential_of: Option<&str>,
    known: &KnownNode,
    here: &Machine,
) -> Option<String> {
    if let Some(other) = credential_of.filter(|other| *other != node_name) {
        return Some(format!(
            "node_name is {node_name:?}, but the credential for the API server is that of node {other:?}: what the API server \
             knows of this node's pods is not seen, and nothing is taken over from its kubelet. Set node_name = {other:?}"
        ));
    }
    match known {
        KnownNode::Missing => Some(format!(
            "The API server has no node {node_name:?}: what it knows of this node's pods is not seen, and nothing is taken \
             over from its kubelet. node_name must be the name that the kubelet has"
        )),
        KnownNode::There(machine) if machine.differs_from(here) => Some(format!(
            "The node {node_name:?} of the API server is another machine: the pods that it knows of are not this node's. \
             node_name must be the name that the kubelet of this machine has"
        )),
        KnownNode::There(_) | KnownNode::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_doubted_when_credential_node_or_machine_say_otherwise() {
        let machine = |id: &str, boot: &str| Machine {
            id: id.to_owned(),
            boot: boot.to_owned(),
        };
        let there = |id: &str, boot: &str| KnownNode::There(machine(id, boot));
        let (missing, unknown) = (KnownNode::Missing, KnownNode::Unknown);
        let node = "node1";
        #[rustfmt::skip]
        let table = [
            ("nothing is known",               None,          unknown.clone(),    None),
            ("its own credential",             Some("node1"), unknown.clone(),    None),
            ("another node's credential",      Some("node2"), unknown,            Some("the credential for the API server is that of node \"node2\"")),
            ("that says more than the Node",   Some("node2"), missing.clone(),    Some("the credential")),
            ("also where the Node is there",   Some("node2"), there("m", "b"),    Some("the credential")),
            ("there is no such Node",          Some("node1"), missing.clone(),    Some("The API server has no node \"node1\"")),
            ("nor for a credential of no node", None,         missing,            Some("The API server has no node \"node1\"")),
            ("this machine",                   None,          there("m", "b"),    None),
            ("booted since",                   None,          there("m", "c"),    None),
            ("a machine id that was made anew", None,         there("n", "b"),    None),
            ("another machine",                None,          there("n", "c"),    Some("is another machine")),
            ("a Node that says nothing",       None,          there("", ""),      None),
            ("a Node that says half of it",    None,          there("n", ""),     None),
        ];
        for (case, credential_of, known, expected) in table {
            let found = doubt(node, credential_of, &known, &machine("m", "b"));
            assert_eq!(found.is_some(), expected.is_some(), "{case}: {found:?}");
            let (found, words) = (found.unwrap_or_default(), expected.unwrap_or_default());
            assert!(found.contains(words), "{case}: {found}");
        }
        let nobody = Machine::default();
        assert_eq!(
            doubt(node, None, &there("n", "c"), &nobody),
            None,
            "nothing is known of this machine"
        );
    }
}
