//! The node as it is served: made anew from its facts and the report whenever one of them says something new.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use super::changes::{Change, ChangeKind};
use super::node_report::NodeReport;
use super::views::Views;
use super::{Inner, Store};
use crate::pod::node::Node;
use crate::pod::node_object::{RuntimeState, node_object};

impl Store {
    /// Takes what was found out about this machine.
    pub(crate) fn set_node_facts(&self, facts: &Node) {
        let mut inner = self.lock();
        inner.facts = facts.clone();
        self.announce_node(inner.publish_node());
    }

    /// Changes the node report.
    pub(crate) fn report_node(&self, change: impl FnOnce(&mut NodeReport)) {
        let mut inner = self.lock();
        change(&mut inner.report);
        self.announce_node(inner.publish_node());
    }

    fn announce_node(&self, published: Option<u64>) {
        if let Some(version) = published {
            self.announce(version);
        }
    }
}

impl Inner {
    /// Gives the node a new version if it has changed.
    pub(super) fn publish_node(&mut self) -> Option<u64> {
        let runtime = RuntimeState {
            name: &self.report.runtime.name,
            version: &self.report.runtime.version,
            ready: self.report.runtime.ready,
            message: &self.report.runtime.message,
        };
        let mut node = node_object(&self.facts, &runtime, &self.node, Timestamp::now());
        node.metadata.resource_version = self.node.metadata.resource_version.clone();
        if node == *self.node {
            return None;
        }
        let version = self.history.next_version();
        node.metadata.resource_version = Some(version.to_string());
        let previous = std::mem::replace(&mut self.node, Arc::new(node));
        let change = Change::new(
            version,
            ChangeKind::Modified,
            Some(Views::same(previous)),
            Views::same(Arc::clone(&self.node)),
        );
        self.history.nodes.push(change);
        Some(version)
    }
}
