//! Who is let in by the API server of the node's cluster, and how far: a client on TCP that has no certificate of this
//! node's authority, but a bearer token. Whoever has a certificate, or came by the socket, passes.

use axum::Router;
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request};
use axum::http::header::{AUTHORIZATION, CONNECTION, HeaderValue};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

use super::Context;
use super::attributes::{Asked, needed, wanted};
use super::identity::Identity;
use super::status::Failure;
use crate::kubernetes::cluster_users::{ClusterUsers, ReviewError, User, Wanted};
use crate::pod::source::is_for_cluster_users;

/// In the extensions of the requests of a connection whose client had no certificate: told when one of its tokens was
/// somebody's.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrival(CancellationToken);

impl Arrival {
    /// Returns once its client is known.
    pub(super) async fn known(&self) {
        self.0.cancelled().await;
    }
}

/// `router`, for those who may.
pub(super) fn guarded(context: Arc<Context>, router: Router) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| {
        let context = Arc::clone(&context);
        async move {
            match admitted(&context, request).await {
                Ok(Admitted::All(request)) => next.run(request).await,
                Ok(Admitted::OfCluster(request, pod)) => {
                    let response = next.run(request).await;
                    match pod.filter(|_| response.status().is_success()) {
                        // It may have become unknown meanwhile, and then the answer is not for these eyes.
                        Some(pod) => pod
                            .is_known(&context)
                            .map_or_else(IntoResponse::into_response, |()| response),
                        None => response,
                    }
                }
                Err(failure) => refused(failure),
            }
        }
    }))
}

/// A request that may be served.
enum Admitted {
    /// To whom everything is allowed.
    All(Request),
    /// To a user of the cluster; with the pod that it is about.
    OfCluster(Request, Option<NamedPod>),
}

/// A pod that a request names.
struct NamedPod {
    namespace: String,
    name: String,
}

async fn admitted(context: &Context, request: Request) -> Result<Admitted, Failure> {
    if request.extensions().get::<Identity>().is_some() {
        return Ok(Admitted::All(request));
    }
    let (mut parts, body) = request.into_parts();
    let arrival = parts.extensions.get::<Arrival>().cloned();
    let (Some(users), Some(arrival)) = (&context.cluster_users, arrival) else {
        return Err(unknown());
    };
    let token = token(&parts.headers).ok_or_else(unknown)?;
    let user = users.user(token).await.map_err(of_nobody)?;
    arrival.0.cancel();
    impersonates(&parts.headers)?;
    let wanted = what_is_wanted(&mut parts).await?;
    let pod = named_pod(&wanted);
    for wanted in needed(wanted) {
        check(users, &user, &wanted).await?;
    }
    if let Some(pod) = &pod {
        pod.is_known(context)?;
    }
    parts.extensions.insert(Identity::of_user(user));
    Ok(Admitted::OfCluster(Request::from_parts(parts, body), pod))
}

/// A refusal; who is not known has to connect anew.
fn refused(failure: Failure) -> Response {
    let mut response = failure.into_response();
    if response.status() == StatusCode::UNAUTHORIZED {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response
}

fn unknown() -> Failure {
    Failure::unauthorized("a client certificate of this node, or a bearer token of its cluster, is needed")
}

/// Why nobody is known. Whoever is not is told nothing of the node and its API server: the reason is in the log.
fn of_nobody(error: ReviewError) -> Failure {
    match error {
        ReviewError::NoAnswer { .. } => Failure::unavailable(
            "the kube-apiserver cannot be asked whose bearer token it is; on the node, root's kubeconfig and the socket let \
             in all the same",
            5,
        ),
        error => error.into(),
    }
}

/// The token of `Authorization: Bearer ...`.
fn token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Nobody acts for somebody else here; done as oneself it would be what nobody asked for.
fn impersonates(headers: &HeaderMap) -> Result<(), Failure> {
    let asked = headers
        .keys()
        .any(|name| name.as_str().starts_with("impersonate-"));
    match asked {
        true => Err(Failure::forbidden("impersonation is not served here")),
        false => Ok(()),
    }
}

async fn what_is_wanted(parts: &mut Parts) -> Result<Wanted, Failure> {
    let parameters = RawPathParams::from_request_parts(parts, &()).await.ok();
    // What nothing serves is asked of nobody: each such path would be another question.
    let Some(route) = parts.extensions.get::<MatchedPath>() else {
        return Err(Failure::no_such_path(parts.uri.path()));
    };
    let asked = Asked {
        method: &parts.method,
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or_default(),
        route: route.as_str(),
    };
    if parameters.is_none() && asked.route.contains('{') {
        return Err(Failure::bad_request("the path cannot be read"));
    }
    Ok(wanted(&asked, |name| {
        let mut all = parameters.iter().flatten();
        all.find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
    }))
}

/// Whether the user may; if not, in Kubernetes' words.
pub(super) async fn check(users: &ClusterUsers, user: &User, wanted: &Wanted) -> Result<(), Failure> {
    let verdict = users.may(user, wanted).await?;
    if verdict.allowed {
        return Ok(());
    }
    Err(Failure::denied(&user.name, wanted, &verdict.reason))
}

fn named_pod(wanted: &Wanted) -> Option<NamedPod> {
    let Wanted::Resource(attributes) = wanted else {
        return None;
    };
    let name = attributes.name.clone().filter(|name| !name.is_empty())?;
    (attributes.resource.as_deref() == Some("pods")).then(|| NamedPod {
        namespace: attributes.namespace.clone().unwrap_or_default(),
        name,
    })
}

impl NamedPod {
    /// Whether it can be shown to users of the cluster, see [`is_for_cluster_users`].
    fn is_known(&self, context: &Context) -> Result<(), Failure> {
        match context.store.pod(&self.namespace, &self.name) {
            Some(pod) if !is_for_cluster_users(&pod) => Err(Failure::not_found(
                "pods",
                &self.name,
                format!(
                    "pods {:?} not found: one runs here, but the kube-apiserver is not known to have it, so what is allowed \
                     in the cluster does not count for it",
                    self.name
                ),
            )),
            _ => Ok(()),
        }
    }
}

impl From<ReviewError> for Failure {
    fn from(error: ReviewError) -> Failure {
        match error {
            ReviewError::NotValid => Failure::unauthorized(error.to_string()),
            ReviewError::TooMany | ReviewError::TooFast => Failure::too_many_requests(error.to_string(), 1),
            ReviewError::NoAnswer { .. } => Failure::unavailable(error.to_string(), 5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_follows_the_word_bearer() {
        for (header, expected) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Bearer", None),
            ("Bearer ", Some("")),
            ("Basic abc", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_str(header).expect("a header"));
            assert_eq!(token(&headers), expected, "{header:?}");
        }
        assert_eq!(token(&HeaderMap::new()), None);
    }

    #[tokio::test]
    async fn what_nothing_serves_is_not_found_and_asked_of_nobody() {
        for (path, expected) in [("/api/v1/secrets", Some(404)), ("/wp-login.php", Some(404))] {
            let (mut parts, ()) = axum::http::Request::get(path)
                .body(())
                .expect("a request")
                .into_parts();
            let wanted = what_is_wanted(&mut parts).await;
            let code = wanted.err().and_then(|failure| failure.status().code);
            assert_eq!(code, expected, "{path}");
        }
    }

    #[test]
    fn a_stranger_is_not_told_why_nobody_can_be_asked_and_a_user_is() {
        let error = || ReviewError::NoAnswer {
            reason: "connect to 10.0.0.1:6443 in /etc/debuglet/kubeconfig".to_owned(),
        };
        for (failure, tells) in [(of_nobody(error()), false), (Failure::from(error()), true)] {
            let status = failure.status();
            let message = status.message.as_deref().unwrap_or_default();
            assert_eq!(status.code, Some(503));
            assert_eq!(message.contains("10.0.0.1"), tells, "{message}");
        }
    }

    #[test]
    fn who_wants_to_act_for_another_is_refused() {
        let mut headers = HeaderMap::new();
        assert!(impersonates(&headers).is_ok());
        headers.insert("Impersonate-User", HeaderValue::from_static("root"));
        assert!(impersonates(&headers).is_err());
    }
}
