//! The tasks of the agent that run until the shutdown. One that panics does nothing any more, which is shown.

use std::sync::Arc;

use tokio::task::{JoinHandle, JoinSet};

use crate::panic_message;
use crate::store::Store;
use crate::store::problems::PanicOf;

/// Owns the tasks of the agent, from their start until each has ended.
#[derive(Debug)]
pub(super) struct Tasks {
    store: Arc<Store>,
    /// One for each of them, which waits for its end.
    waiting: JoinSet<()>,
}

impl Tasks {
    /// No tasks yet. Their panics become problems in `store`.
    pub(super) fn new(store: Arc<Store>) -> Tasks {
        Tasks {
            store,
            waiting: JoinSet::new(),
        }
    }

    /// Takes over a task. `part` says what it does, for the log and the problem.
    pub(super) fn own(&mut self, part: &'static str, task: JoinHandle<()>) {
        let store = Arc::clone(&self.store);
        self.waiting.spawn(async move {
            let Err(error) = task.await else { return };
            let message = panic_message::of_task(error);
            let message = format!("{part} panicked, and does nothing until debuglet is restarted: {message}");
            tracing::error!("{message}");
            store.panicked(PanicOf::Part, part, "", message);
        });
    }

    /// Returns once all of them have ended, which they do after the shutdown has begun.
    pub(super) async fn ended(mut self) {
        while self.waiting.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::Disk;
    use crate::store::problems::ProblemKind;

    #[tokio::test]
    async fn a_task_that_panics_is_a_problem_until_the_agent_ends_and_one_that_ends_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::load("node1", Disk::open(folder.path()).unwrap())
            .unwrap()
            .0;
        let mut tasks = Tasks::new(Arc::clone(&store));
        tasks.own("the first", tokio::spawn(async {}));
        tasks.own("the second", tokio::spawn(async { panic!("a defect") }));
        tasks.ended().await;
        store.withdraw_old_panics();
        let problems = store.node_report().problems;
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].object, "the second");
        assert!(problems[0].message.ends_with("a defect"), "{problems:?}");
        assert_eq!(store.unready(), [ProblemKind::Panicked]);
    }
}
