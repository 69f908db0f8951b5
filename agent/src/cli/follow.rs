//! Follows a container's log to its end, across restarts of the agent.

use k8s_openapi::api::core::v1::Pod;

use super::client::{ByteStream, Client, ClientError, pod_path, with_query};
use super::failure::Failure;
use super::lost_agent::LostAgent;
use super::output::write_container_bytes;
use super::pod_lookup::container_status;
use super::stamped_log::StampedLog;

/// A container's log, from its first line on.
#[derive(Debug)]
pub(crate) struct Follower<'a> {
    client: &'a Client,
    namespace: &'a str,
    pod: &'a str,
    container: &'a str,
    log: StampedLog,
    agent: LostAgent,
}

impl<'a> Follower<'a> {
    /// Nothing is read yet.
    pub(crate) fn new(
        client: &'a Client,
        namespace: &'a str,
        pod: &'a str,
        container: &'a str,
    ) -> Follower<'a> {
        Follower {
            client,
            namespace,
            pod,
            container,
            log: StampedLog::default(),
            agent: LostAgent::default(),
        }
    }

    /// Writes the log to stdout until the container has ended.
    pub(crate) async fn copy(&mut self) -> Result<(), Failure> {
        loop {
            let broken = match self.open(true).await {
                Ok(stream) => self.copy_one(stream).await?,
                Err(error) => Some(error),
            };
            let failure = match broken {
                Some(error) if self.may_pass(&error) => Failure::from(error),
                Some(error) => return Err(error.into()),
                // An agent that stops ends its answers properly: the log has ended when the container has.
                None => match self.has_ended().await {
                    Ok(true) => return Ok(()),
                    Ok(false) => Failure::new(format!(
                        "the log of {} breaks off again and again",
                        self.container
                    )),
                    Err(error) if self.may_pass(&error) => Failure::from(error),
                    Err(error) => return Err(error.into()),
                },
            };
            self.log.broke_off();
            self.agent.wait(failure).await?;
        }
    }

    /// Writes what the log of the ended container still has.
    pub(crate) async fn copy_rest(&mut self) -> Result<(), Failure> {
        self.log.broke_off();
        let stream = self.open(false).await?;
        match self.copy_one(stream).await? {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// Whether waiting may help: the agent is away, or has come back and does not know its pods yet.
    fn may_pass(&self, error: &ClientError) -> bool {
        error.is_lost_agent() || self.agent.is_away()
    }

    async fn open(&self, follow: bool) -> Result<ByteStream, ClientError> {
        let query = [
            ("container", self.container.to_owned()),
            ("follow", follow.to_string()),
            ("timestamps", "true".to_owned()),
            ("sinceTime", self.log.since()),
        ];
        let path = with_query(&pod_path(self.namespace, self.pod, "log"), query);
        self.client.bytes(&path).await
    }

    /// Writes what one answer holds; answers what broke it off.
    async fn copy_one(&mut self, mut stream: ByteStream) -> Result<Option<ClientError>, Failure> {
        let mut written = Ok(());
        loop {
            match stream.next().await {
                Ok(Some(bytes)) => self.log.read(&bytes, |part| {
                    if written.is_ok() {
                        written = write_container_bytes(part);
                    }
                }),
                Ok(None) => return Ok(None),
                Err(error) => return Ok(Some(error)),
            }
            self.agent.is_back();
            std::mem::replace(&mut written, Ok(()))?;
        }
    }

    /// Whether the container has ended, as far as the agent knows.
    async fn has_ended(&self) -> Result<bool, ClientError> {
        let pod: Pod = match self.client.get(&pod_path(self.namespace, self.pod, "")).await {
            Ok(pod) => pod,
            // The pod is gone; an agent that has just come back may only not know it yet.
            Err(error) if error.code() == Some(404) => return Ok(!self.agent.is_away()),
            Err(error) => return Err(error),
        };
        let state = container_status(&pod, self.container).and_then(|status| status.state.as_ref());
        Ok(state.is_some_and(|state| state.terminated.is_some()))
    }
}
