//! One served object as each audience sees it.

use std::sync::Arc;

use crate::pod::visibility::Audience;

/// An object as clients of the node see it, and as users of the cluster do. There is no way to make one without saying
/// what the latter see, so each kind that is served has to answer that.
#[derive(Debug, Default)]
pub(crate) struct Views<T> {
    node: Arc<T>,
    /// None where the object is hidden; the same `Arc` where both see the same.
    cluster: Option<Arc<T>>,
}

impl<T> Views<T> {
    /// Both see the same.
    pub(crate) fn same(object: Arc<T>) -> Views<T> {
        Views {
            cluster: Some(Arc::clone(&object)),
            node: object,
        }
    }

    /// Both see the same, where users of the cluster see it at all.
    pub(crate) fn visible_if(visible: bool, object: Arc<T>) -> Views<T> {
        Views {
            cluster: visible.then(|| Arc::clone(&object)),
            node: object,
        }
    }

    /// Each sees something of its own; `cluster` is none where the object is hidden.
    pub(crate) fn different(node: Arc<T>, cluster: Option<Arc<T>>) -> Views<T> {
        Views { node, cluster }
    }

    /// The object as `audience` sees it; none where it is hidden.
    pub(crate) fn of(&self, audience: Audience) -> Option<&Arc<T>> {
        match audience {
            Audience::Node => Some(&self.node),
            Audience::Cluster => self.cluster.as_ref(),
        }
    }

    /// The object as the node's own clients see it: all of it.
    pub(crate) fn whole(&self) -> &Arc<T> {
        &self.node
    }

    /// Whether users of the cluster see the very object that clients of the node see.
    pub(crate) fn are_the_same(&self) -> bool {
        self.cluster
            .as_ref()
            .is_some_and(|cluster| Arc::ptr_eq(cluster, &self.node))
    }
}

impl<T> Clone for Views<T> {
    fn clone(&self) -> Views<T> {
        Views {
            node: Arc::clone(&self.node),
            cluster: self.cluster.clone(),
        }
    }
}
