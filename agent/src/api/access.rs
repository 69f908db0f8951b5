//! Who is let in by the API server of the node's cluster, and how far: a client on TCP that has no certificate of this
//! node's authority, but a bearer token. Whoever has a certificate, or came by the socket, passes. What users of the cluster
//! see of what they may read is for `pod/visibility.rs` to say; nobody may act for somebody else.

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
use super::attributes::{Asked, needed, parameter_of, wanted};
use super::audit;
use super::connection::Place;
use super::identity::Identity;
use super::reached::Reached;
use super::status::Failure;
use super::stream_end::{Standing, StreamEnd};
use crate::kubernetes::cluster_users::{ClusterUsers, ReviewError, User, Wanted};

/// What kubectl asks for before anything else, and for `kubectl version`.
const DISCOVERY: [&str; 3] = ["/api", "/apis", "/version"];

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

/// `router`, for those who may; what they do is in the log.
pub(super) fn guarded(context: Arc<Context>, router: Router) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| {
        let context = Arc::clone(&context);
        async move { Box::pin(served(context, request, next)).await }
    }))
}

async fn served(context: Arc<Context>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let caller = match caller(&context, &parts).await {
        Ok(caller) => caller,
        Err(failure) => return refused(failure),
    };
    let wanted = what_is_wanted(&mut parts).await;
    let line = match &wanted {
        Ok((wanted, container)) => audit::Line::of(&caller.identity, wanted, container.clone()),
        Err(_) => None,
    };
    let needs = match admitted(&context, &parts.headers, &caller, wanted).await {
        Ok(needs) => needs,
        Err(failure) => {
            let response = match DISCOVERY.contains(&parts.uri.path()) {
                true => failure.for_discovery(),
                false => refused(failure),
            };
            if let Some(line) = line {
                line.write(&response);
            }
            return response;
        }
    };
    let end = StreamEnd::new(&context.shutdown);
    parts.extensions.insert(caller.identity);
    parts.extensions.insert(end.clone());
    let place = parts.extensions.remove::<Place>();
    let handled = next.run(Request::from_parts(parts, body));
    let mut response = match line {
        Some(line) if line.is_write => to_its_end(place, line, handled).await,
        line => {
            let response = handled.await;
            if let Some(line) = line {
                line.write(&response);
            }
            response
        }
    };
    if let Some(token) = caller.token {
        let held = Arc::new(Held {
            context,
            token,
            needs,
            reached: response.extensions_mut().remove::<Reached>(),
        });
        response = end.bind(response, move || {
            let held = Arc::clone(&held);
            async move { held.standing().await }
        });
    }
    response
}

/// The answer to a write, which goes on without its client: hyper drops what it does for a connection with that. Its task
/// has the connection's place until then, so that the shutdown waits for it and no client has more under way than places.
async fn to_its_end(
    place: Option<Place>,
    line: audit::Line,
    handled: impl Future<Output = Response> + Send + 'static,
) -> Response {
    let write = async move {
        let _place = place;
        let response = handled.await;
        line.write(&response);
        response
    };
    match tokio::spawn(write).await {
        Ok(response) => response,
        Err(error) => {
            Failure::internal(format!("the write did not come to its end: {error}")).into_response()
        }
    }
}

/// Who asks.
struct Caller {
    identity: Identity,
    /// The bearer token of a user of the cluster.
    token: Option<String>,
}

async fn caller(context: &Context, parts: &Parts) -> Result<Caller, Failure> {
    if let Some(identity) = parts.extensions.get::<Identity>() {
        return Ok(Caller {
            identity: identity.clone(),
            token: None,
        });
    }
    let arrival = parts.extensions.get::<Arrival>();
    let (Some(users), Some(arrival)) = (&context.cluster_users, arrival) else {
        return Err(unknown());
    };
    let token = token(&parts.headers).ok_or_else(unknown)?;
    let user = users.user(token).await.map_err(of_nobody)?;
    arrival.0.cancel();
    Ok(Caller {
        identity: Identity::of_user(user),
        token: Some(token.to_owned()),
    })
}

/// Whether the request may be served; answers the rights that it needed.
async fn admitted(
    context: &Context,
    headers: &HeaderMap,
    caller: &Caller,
    wanted: Result<(Wanted, Option<String>), Failure>,
) -> Result<Vec<Wanted>, Failure> {
    impersonates(headers)?;
    let Some(user) = &caller.identity.of_cluster else {
        // Whom the node itself lets in may do everything; what is not served is for the router to say.
        return Ok(Vec::new());
    };
    let users = context.cluster_users.as_ref().ok_or_else(unknown)?;
    let (wanted, _) = wanted?;
    let needs = needed(wanted);
    for wanted in &needs {
        check(users, user, wanted).await?;
    }
    Ok(needs)
}

/// What a stream of a user of the cluster was opened with.
struct Held {
    context: Arc<Context>,
    /// The user's bearer token.
    token: String,
    /// The rights that it needed.
    needs: Vec<Wanted>,
    /// What a session is with. Watches and logs see for themselves what their user no longer sees.
    reached: Option<Reached>,
}

impl Held {
    /// Whether the user still has the rights, and sees what the session is with.
    async fn standing(&self) -> Standing {
        let Some(users) = &self.context.cluster_users else {
            return Standing::Lost;
        };
        let is_seen = |reached: &Reached| reached.is_seen(&self.context.store);
        if !self.reached.as_ref().is_none_or(is_seen) {
            return Standing::Lost;
        }
        match users.still_may(&self.token, &self.needs).await {
            Ok(true) => Standing::Granted,
            Ok(false) => Standing::Lost,
            Err(_) => Standing::Unknown,
        }
    }
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

/// Nobody acts for somebody else here, root neither: done as oneself it would be what nobody asked for.
fn impersonates(headers: &HeaderMap) -> Result<(), Failure> {
    let header = headers
        .keys()
        .find(|name| name.as_str().starts_with("impersonate-"));
    match header {
        Some(header) => Err(Failure::forbidden(format!(
            "impersonation is not served here: everybody acts for themselves, and the request has the header {header}; \
             with kubectl, leave out --as, --as-group, --as-uid and --as-user-extra"
        ))),
        None => Ok(()),
    }
}

/// What a request wants to do, and the container that its path or query names.
async fn what_is_wanted(parts: &mut Parts) -> Result<(Wanted, Option<String>), Failure> {
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
    let parameter = |name: &str| {
        let mut all = parameters.iter().flatten();
        all.find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
    };
    let container = parameter("container").or_else(|| parameter_of(asked.query, "container"));
    Ok((wanted(&asked, parameter), container))
}

/// Whether the user may; if not, in Kubernetes' words.
pub(super) async fn check(users: &ClusterUsers, user: &User, wanted: &Wanted) -> Result<(), Failure> {
    let verdict = users.may(user, wanted).await?;
    if verdict.allowed {
        return Ok(());
    }
    Err(Failure::denied(&user.name, wanted, &verdict.reason))
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
        for header in [
            "Impersonate-User",
            "Impersonate-Group",
            "Impersonate-Uid",
            "Impersonate-Extra-scopes",
        ] {
            let mut headers = HeaderMap::new();
            assert!(impersonates(&headers).is_ok());
            let name = axum::http::HeaderName::from_bytes(header.as_bytes()).expect("a header");
            headers.insert(name, HeaderValue::from_static("root"));
            let failure = impersonates(&headers).expect_err(header);
            assert_eq!(failure.status().code, Some(403), "{header}");
        }
    }
}
