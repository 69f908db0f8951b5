//! The connection to the runtime, where every call has the limit of its class (`call_limits.rs`): one that is not answered
//! in time is given up and kept in [`Unanswered`], and at the shutdown all are given up but those that must not be cut
//! short. No caller has to think of it, and none can forget it.

use std::error::Error;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::transport::Channel;
use tower::ServiceExt;

use super::call_limits::{CallLimits, Limit, method};
use super::call_object::{Call, asked};
use super::client::MAX_MESSAGE_BYTES;
use super::error::{NoAnswer, Stopping};
use super::unanswered::Unanswered;

type BoxError = Box<dyn Error + Send + Sync>;

/// The longest answer that is gathered, in bytes: one message of the size that is taken (`MAX_MESSAGE_BYTES`), with its
/// frame. What a stream such as `Content/Read` sends beyond it is an error: a registry decides how large a blob is.
const LONGEST_ANSWER_BYTES: usize = MAX_MESSAGE_BYTES + 64 * 1024;

/// What is the same for all calls to one runtime. Shared by its connections.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) limits: CallLimits,
    pub(super) unanswered: Unanswered,
    pub(super) shutdown: CancellationToken,
}

/// For whom a call is made.
#[derive(Clone, Debug, Default)]
pub(super) struct Caller {
    /// `namespace/name` of the pod whose worker asks; empty for everybody else.
    pub(super) pod: Arc<str>,
    /// An HTTP client waits for the answer.
    pub(super) is_client: bool,
}

/// A connection whose calls have limits.
#[derive(Clone, Debug)]
pub(crate) struct BoundedChannel {
    channel: Channel,
    rules: Rules,
    caller: Caller,
}

impl BoundedChannel {
    pub(super) fn new(channel: Channel, rules: Rules, caller: Caller) -> BoundedChannel {
        BoundedChannel {
            channel,
            rules,
            caller,
        }
    }
}

impl Service<Request<Body>> for BoundedChannel {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    /// Always ready: the wait for the connection is part of the call, and counts towards its limit.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let BoundedChannel {
            channel,
            rules,
            caller,
        } = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            // A request is one message, which is there.
            let body = body.collect().await?.to_bytes();
            let path = head.uri.path().to_owned();
            let method = method(&path);
            let asked = asked(&method, &path, &body);
            let request = Request::from_parts(head, Body::new(Full::new(body)));
            let under_way = UnderWay {
                call: asked.call,
                pod: asked.pod.map_or(caller.pod, Arc::from),
                for_client: caller.is_client,
                rules: &rules,
            };
            match rules.limits.of(method.limit, asked.grace, caller.is_client) {
                Some(limit) => under_way.within(limit, whole(channel, request)).await,
                None if method.limit == Limit::Never => {
                    under_way.wait_to_its_end(whole(channel, request)).await
                }
                None => under_way.until_shutdown(begun(channel, request)).await,
            }
        })
    }
}

/// Makes the call; the answer has begun.
async fn begun(mut channel: Channel, request: Request<Body>) -> Result<Response<Body>, BoxError> {
    Ok(channel.ready().await?.call(request).await?)
}

/// Makes the call; the answer is here, to its last byte.
async fn whole(channel: Channel, request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let (head, body) = begun(channel, request).await?.into_parts();
    Ok(Response::from_parts(head, gathered(body).await?))
}

/// A body that is here to its last byte.
///
/// # Errors
///
/// If it breaks off, or is longer than `LONGEST_ANSWER_BYTES`.
async fn gathered(body: Body) -> Result<Body, BoxError> {
    let whole = Limited::new(body, LONGEST_ANSWER_BYTES).collect().await?;
    Ok(Body::new(whole))
}

/// A call that was made.
struct UnderWay<'a> {
    call: Call,
    pod: Arc<str>,
    for_client: bool,
    rules: &'a Rules,
}

impl UnderWay<'_> {
    /// Gives it up after `limit`, and at the shutdown.
    async fn within<T>(
        self,
        limit: Duration,
        answer: impl Future<Output = Result<T, BoxError>>,
    ) -> Result<T, BoxError> {
        let answer = tokio::time::timeout(limit, answer);
        match self.rules.shutdown.run_until_cancelled(answer).await {
            Some(Ok(answer)) => {
                // A connection that broke is no answer.
                if answer.is_ok() {
                    self.rules.unanswered.answered(&self.call);
                }
                answer
            }
            Some(Err(_)) => {
                let unanswered = &self.rules.unanswered;
                match self.for_client {
                    true => unanswered.given_up_for_client(&self.call, limit),
                    false => unanswered.given_up(&self.call, &self.pod, limit),
                }
                Err(NoAnswer::new(self.call.name(), limit).into_status().into())
            }
            None => Err(Stopping.into_status().into()),
        }
    }

    /// Gives it up at the shutdown only.
    async fn until_shutdown<T>(
        self,
        answer: impl Future<Output = Result<T, BoxError>>,
    ) -> Result<T, BoxError> {
        let answer = self.rules.shutdown.run_until_cancelled(answer).await;
        answer.unwrap_or_else(|| Err(Stopping.into_status().into()))
    }

    /// Never gives it up. It is reported where it takes long, and where the shutdown waits for it.
    async fn wait_to_its_end<T>(
        self,
        answer: impl Future<Output = Result<T, BoxError>>,
    ) -> Result<T, BoxError> {
        let Rules {
            limits,
            unanswered,
            shutdown,
        } = self.rules;
        let (mut long, mut told) = (None, false);
        let mut answer = pin!(answer);
        let mut takes_long = pin!(tokio::time::sleep(limits.takes_long()));
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return answer,
                () = &mut takes_long, if long.is_none() => {
                    long = Some(unanswered.takes_long(&self.call, &self.pod, limits.takes_long()));
                }
                () = shutdown.cancelled(), if !told => {
                    told = true;
                    tracing::warn!(
                        pod = &*self.pod,
                        "debuglet stops when the runtime has answered {}: cut short, that call would end what it makes",
                        self.call.name()
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
