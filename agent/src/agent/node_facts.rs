//! What pods take from the node and its runtime: asked for at the start, and again while the runtime has not answered, and
//! when another process serves its socket, which may be another version or have another configuration.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::pod::cgroup::CgroupDriver;
use crate::runtime::client::Runtime;
use crate::runtime::instance::instance;
use crate::runtime::node_facts::NodeFacts;
use crate::store::Store;

/// How long the pods wait for the runtime's first answer; until a later one they are as on a runtime that says nothing. It is
/// shorter than clients wait for the first look at the pods (`agent.rs`), who would be told that none of them runs.
const FIRST_ANSWER: Duration = Duration::from_secs(3);

/// The facts, kept up to date by whoever calls [`FactsWatch::look`]. The task that watches the runtime owns it.
pub(super) struct FactsWatch {
    runtime: Runtime,
    store: Arc<Store>,
    /// What the configuration says of it.
    cgroup_driver: Option<CgroupDriver>,
    facts: watch::Sender<Arc<NodeFacts>>,
    /// The runtime that was asked.
    instance: String,
    /// Whether it has answered all.
    complete: bool,
    /// Why it has not, as the log has it.
    logged: Option<String>,
}

impl FactsWatch {
    /// Asks for the first time.
    pub(super) async fn start(
        runtime: Runtime,
        store: Arc<Store>,
        cgroup_driver: Option<CgroupDriver>,
    ) -> (FactsWatch, watch::Receiver<Arc<NodeFacts>>) {
        let (facts, receiver) = watch::channel(Arc::default());
        let mut watch = FactsWatch {
            runtime,
            store,
            cgroup_driver,
            facts,
            instance: String::new(),
            complete: false,
            logged: None,
        };
        watch.look(FIRST_ANSWER).await;
        (watch, receiver)
    }

    /// Asks again where there may be something new. The runtime is waited for no longer than `limit`.
    pub(super) async fn look(&mut self, limit: Duration) {
        let instance = instance(self.runtime.socket()).await;
        if self.complete && instance == self.instance {
            return;
        }
        let name = self.store.node_name();
        let (facts, failure) = self.runtime.node_facts(name, self.cgroup_driver, limit).await;
        let why = failure.as_ref().filter(|error| !error.is_logged());
        let why = why.map(ToString::to_string);
        if let Some(why) = why.as_ref().filter(|why| self.logged.as_ref() != Some(why)) {
            tracing::warn!("{why}; it is asked again, and taken for none until then");
        }
        self.logged = why;
        // A runtime that was known and does not answer now is as it was.
        if failure.is_none() || self.instance.is_empty() {
            self.store.set_node_facts(&facts.node);
            let facts = Arc::new(facts);
            self.facts.send_if_modified(|known| {
                let changed = **known != *facts;
                *known = Arc::clone(&facts);
                changed
            });
        }
        self.complete = failure.is_none();
        if self.complete {
            self.instance = instance;
        }
    }
}
