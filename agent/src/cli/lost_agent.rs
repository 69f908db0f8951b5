//! Waiting for an agent that went away in the middle of a command: it is restarted or upgraded, and comes back.

use std::time::{Duration, Instant};

use super::failure::Failure;

/// How long an agent that went away is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long to wait before the agent is looked for again.
const PAUSE: Duration = Duration::from_millis(200);

/// Since when the agent has been away.
#[derive(Debug, Default)]
pub(crate) struct LostAgent {
    since: Option<Instant>,
}

impl LostAgent {
    /// The agent has answered.
    pub(crate) fn is_back(&mut self) {
        self.since = None;
    }

    /// Waits a moment before the agent is tried again; after [`PATIENCE`] it gives up with `failure`.
    pub(crate) async fn wait(&mut self, failure: Failure) -> Result<(), Failure> {
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() > PATIENCE {
            return Err(failure);
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    /// Whether the agent is known to be away.
    pub(crate) fn is_away(&self) -> bool {
        self.since.is_some()
    }
}
