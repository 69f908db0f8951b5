//! Watches the launch of a debug container, across restarts of the agent.

use super::client::{Client, ClientError, Lines, launch_path, with_query};
use super::failure::Failure;
use super::lost_agent::LostAgent;
use crate::pod::launch::Launch;

/// The watch of one launch.
#[derive(Debug)]
pub(crate) struct LaunchWatch<'a> {
    client: &'a Client,
    path: String,
    lines: Option<Lines>,
    agent: LostAgent,
}

impl<'a> LaunchWatch<'a> {
    /// Nothing is asked for yet.
    pub(crate) fn new(client: &'a Client, namespace: &str, pod: &str, container: &str) -> LaunchWatch<'a> {
        LaunchWatch {
            client,
            path: with_query(
                &launch_path(namespace, pod, container, ""),
                [("watch", "true".to_owned())],
            ),
            lines: None,
            agent: LostAgent::default(),
        }
    }

    /// The launch as it is now, the first time, then each time it has changed. An agent that goes away is waited
    /// for. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Result<Launch, Failure> {
        loop {
            let failure = match self.read().await {
                Ok(Some(launch)) => {
                    self.agent.is_back();
                    return Ok(launch);
                }
                Ok(None) => Failure::new("the agent stopped telling how the container is"),
                // An agent that has just come back may not know its pods yet.
                Err(error) if error.is_lost_agent() || self.agent.is_away() => error.into(),
                Err(error) => return Err(error.into()),
            };
            self.lines = None;
            self.agent.wait(failure).await?;
        }
    }

    /// The next line; none where the agent has ended the watch.
    async fn read(&mut self) -> Result<Option<Launch>, ClientError> {
        let lines = match &mut self.lines {
            Some(lines) => lines,
            None => self.lines.insert(self.client.lines(&self.path).await?),
        };
        lines.next().await
    }
}
