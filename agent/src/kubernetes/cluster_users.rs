//! The cluster's own users: who holds a token (TokenReview, `authentication.k8s.io/v1`), and what they may
//! (SubjectAccessReview, `authorization.k8s.io/v1`). The API server is asked; its answers count for some seconds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::Resource;
use kube::api::PostParams;
use kube::core::request::Request;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::warn;

use super::api_server::ApiServer;
use super::recent::{Key, Pace, Paces, Recent};

/// How long a token counts as somebody's, and a right as given, without asking again: for as long as this somebody may
/// go on whose rights were taken.
const GRANTED_FOR: Duration = Duration::from_secs(10);
/// How long a token counts as nobody's, and a right as not given.
const DENIED_FOR: Duration = Duration::from_secs(5);
/// How many answers of each kind are remembered.
const MAX_REMEMBERED: usize = 1024;
/// How many reviews may be under way at once; the next ones wait.
const MAX_REVIEWS: usize = 8;
/// How many of tokens that were nobody's so far may be under way beside those.
const MAX_STRANGERS_REVIEWS: usize = 2;
/// How many may be under way beside those for streams that are open: whether they may go on is not held up by anybody's
/// requests.
const MAX_STREAMS_REVIEWS: usize = 4;
/// How many tokens a second are asked about that were nobody's so far: whoever makes them up must not become a flood at
/// the API server.
const UNKNOWN_TOKENS_PER_SECOND: u32 = 20;
/// How many rights of one user are asked about in a second, and at once; what is remembered is not counted. Names are
/// without end, so what is remembered alone does not keep a user from the API server.
const QUESTIONS_PER_SECOND: u32 = 50;
/// How long a review may take, with its wait for a place.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest token that is asked about, in bytes; a service account's has about 1,000.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// A user of the cluster, as the API server knows him (TokenReview `status.user`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    /// The name.
    pub(crate) name: String,
    /// The UID; may be empty.
    pub(crate) uid: String,
    /// The groups.
    pub(crate) groups: Vec<String>,
    /// Whatever else the authenticator says.
    pub(crate) extra: BTreeMap<String, Vec<String>>,
}

/// Something that somebody wants to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wanted {
    /// With a resource.
    Resource(Box<ResourceAttributes>),
    /// With a path that is no resource's.
    Path(NonResourceAttributes),
}

/// What the API server said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Whether it may be done.
    pub(crate) allowed: bool,
    /// Why, where it is said; may be empty.
    pub(crate) reason: String,
}

/// Why nobody is known, or nothing can be said about rights. No variant carries a token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReviewError {
    /// The token is nobody's.
    #[error("the bearer token is not valid")]
    NotValid,
    /// Too many tokens that are nobody's.
    #[error("too many bearer tokens are being checked: try again")]
    TooMany,
    /// Too many questions about one user's rights.
    #[error("too many different requests of this user are being judged: try again")]
    TooFast,
    /// The API server cannot be asked.
    #[error(
        "the kube-apiserver cannot be asked who may do what ({reason}); on the node, root's kubeconfig and the socket let \
         in all the same"
    )]
    NoAnswer {
        /// Why.
        reason: String,
    },
}

/// What a review is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// A request. A user makes as many as he likes, so these keep to a pace.
    Request,
    /// A stream that is open. These keep to no pace: there is one for each stream and right in the time after which it is
    /// asked about anew.
    Stream,
}

/// The API server's knowledge of its users.
#[derive(Debug)]
pub(crate) struct ClusterUsers {
    api_server: Arc<ApiServer>,
    known: Mutex<Recent<Arc<User>>>,
    unknown: Mutex<Recent<()>>,
    verdicts: Mutex<Recent<Verdict>>,
    places: Semaphore,
    strangers_places: Semaphore,
    streams_places: Semaphore,
    strangers_pace: Mutex<Pace>,
    paces: Mutex<Paces>,
    /// Why nobody could be asked, as it was logged; none since there was an answer.
    logged: Mutex<Option<String>>,
}

impl ClusterUsers {
    /// The users of this API server's cluster.
    pub(crate) fn new(api_server: Arc<ApiServer>) -> ClusterUsers {
        ClusterUsers {
            api_server,
            known: Mutex::new(Recent::new(MAX_REMEMBERED)),
            unknown: Mutex::new(Recent::new(MAX_REMEMBERED)),
            verdicts: Mutex::new(Recent::new(MAX_REMEMBERED)),
            places: Semaphore::new(MAX_REVIEWS),
            strangers_places: Semaphore::new(MAX_STRANGERS_REVIEWS),
            streams_places: Semaphore::new(MAX_STREAMS_REVIEWS),
            strangers_pace: Mutex::new(Pace::new(UNKNOWN_TOKENS_PER_SECOND)),
            paces: Mutex::new(Paces::new(QUESTIONS_PER_SECOND, MAX_REMEMBERED)),
            logged: Mutex::new(None),
        }
    }

    /// Whose token it is.
    pub(crate) async fn user(&self, token: &str) -> Result<Arc<User>, ReviewError> {
        self.user_for(Purpose::Request, token).await
    }

    /// Whether the user may do it.
    pub(crate) async fn may(&self, user: &User, wanted: &Wanted) -> Result<Verdict, ReviewError> {
        self.may_for(Purpose::Request, user, wanted).await
    }

    /// Whether the token, with which a stream was opened, is still somebody's who may do all of this. However many requests
    /// that user or others make, an error says that the API server does not answer.
    pub(crate) async fn still_may(&self, token: &str, needs: &[Wanted]) -> Result<bool, ReviewError> {
        let user = match self.user_for(Purpose::Stream, token).await {
            Err(ReviewError::NotValid) => return Ok(false),
            user => user?,
        };
        for wanted in needs {
            if !self.may_for(Purpose::Stream, &user, wanted).await?.allowed {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn user_for(&self, purpose: Purpose, token: &str) -> Result<Arc<User>, ReviewError> {
        if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
            return Err(ReviewError::NotValid);
        }
        let key: Key = Sha256::digest(token).into();
        let was_known = {
            let known = lock(&self.known);
            if let Some(user) = known.get(&key) {
                return Ok(Arc::clone(user));
            }
            known.has_seen(&key)
        };
        if lock(&self.unknown).get(&key).is_some() {
            return Err(ReviewError::NotValid);
        }
        // Whoever was let in before is not held up by those who guess: neither by their pace nor for a place.
        let places = match purpose {
            Purpose::Stream => &self.streams_places,
            Purpose::Request if was_known => &self.places,
            Purpose::Request if lock(&self.strangers_pace).allows() => &self.strangers_places,
            Purpose::Request => return Err(ReviewError::TooMany),
        };
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: None,
            },
            ..TokenReview::default()
        };
        let status = self.review(&review, places).await?.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true));
        let named = user.filter(|user| user.username.as_ref().is_some_and(|name| !name.is_empty()));
        let Some(user) = named else {
            lock(&self.known).forget(&key);
            lock(&self.unknown).put(key, (), DENIED_FOR);
            return Err(ReviewError::NotValid);
        };
        let user = Arc::new(User {
            name: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        });
        lock(&self.known).put(key, Arc::clone(&user), GRANTED_FOR);
        Ok(user)
    }

    async fn may_for(&self, purpose: Purpose, user: &User, wanted: &Wanted) -> Result<Verdict, ReviewError> {
        let review = question(user, wanted);
        // It consists of texts and lists of them: nothing that JSON could refuse.
        let key: Key = Sha256::digest(serde_json::to_vec(&review.spec).unwrap_or_default()).into();
        if let Some(verdict) = lock(&self.verdicts).get(&key) {
            return Ok(verdict.clone());
        }
        let places = match purpose {
            Purpose::Stream => &self.streams_places,
            Purpose::Request if lock(&self.paces).allow(Sha256::digest(&user.name).into()) => &self.places,
            Purpose::Request => return Err(ReviewError::TooFast),
        };
        let status = self.review(&review, places).await?.status.unwrap_or_default();
        let verdict = Verdict {
            allowed: status.allowed && status.denied != Some(true),
            reason: status.reason.unwrap_or_default(),
        };
        let lasts = if verdict.allowed { GRANTED_FOR } else { DENIED_FOR };
        lock(&self.verdicts).put(key, verdict.clone(), lasts);
        Ok(verdict)
    }

    /// POST of a review. Its answer is read here: the client library logs what it cannot read, and a token is in it.
    async fn review<R>(&self, review: &R, places: &Semaphore) -> Result<R, ReviewError>
    where
        R: Resource<DynamicType = ()> + Serialize + DeserializeOwned,
    {
        let answer = self.asked(review, places).await;
        let reason = match &answer {
            Err(ReviewError::NoAnswer { reason }) => Some(reason.clone()),
            _ => None,
        };
        let mut logged = lock(&self.logged);
        if *logged != reason {
            if let Some(reason) = &reason {
                warn!(reason, "the kube-apiserver cannot be asked about its users");
            }
            *logged = reason;
        }
        drop(logged);
        answer
    }

    async fn asked<R>(&self, review: &R, places: &Semaphore) -> Result<R, ReviewError>
    where
        R: Resource<DynamicType = ()> + Serialize + DeserializeOwned,
    {
        let no_answer = |reason: &dyn std::fmt::Display| ReviewError::NoAnswer {
            reason: reason.to_string(),
        };
        let body = serde_json::to_vec(review).map_err(|_| no_answer(&"the question cannot be written"))?;
        let request = Request::new(R::url_path(&(), None))
            .create(&PostParams::default(), body)
            .map_err(|error| no_answer(&error))?;
        let asked = async {
            let _place = places.acquire().await.map_err(|error| no_answer(&error))?;
            let client = self.api_server.client().await;
            let client = client.map_err(|error| no_answer(&error))?;
            let answer = self.api_server.heard(client.request_text(request).await);
            answer.map_err(|(error, reason)| match error {
                kube::Error::Api(status) if status.code == 403 => no_answer(&format_args!(
                    "debuglet's credential lacks the right to create {}",
                    R::plural(&())
                )),
                _ => no_answer(&reason),
            })
        };
        let text = timeout(REVIEW_TIMEOUT, asked)
            .await
            .map_err(|_| no_answer(&"it does not answer"))??;
        serde_json::from_str(&text).map_err(|_| no_answer(&"the answer is no review"))
    }
}

fn question(user: &User, wanted: &Wanted) -> SubjectAccessReview {
    let (resource_attributes, non_resource_attributes) = match wanted {
        Wanted::Resource(attributes) => (Some((**attributes).clone()), None),
        Wanted::Path(attributes) => (None, Some(attributes.clone())),
    };
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
            groups: Some(user.groups.clone()),
            extra: Some(user.extra.clone()).filter(|extra| !extra.is_empty()),
            resource_attributes,
            non_resource_attributes,
        },
        ..SubjectAccessReview::default()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each holds a map or a number that is whole at every instant.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::KubeconfigSetting;
    use crate::kubernetes::scripted::Scripted;

    /// Those of an API server that cannot be reached.
    fn users(folder: &std::path::Path) -> ClusterUsers {
        let kubeconfig = KubeconfigSetting::File(folder.join("no-such-kubeconfig"));
        ClusterUsers::new(Arc::new(
            ApiServer::configured(&kubeconfig).expect("one is configured"),
        ))
    }

    fn path(number: usize) -> Wanted {
        Wanted::Path(NonResourceAttributes {
            path: Some(format!("/apis/{number}/v1")),
            verb: Some("get".to_owned()),
        })
    }

    fn user(name: &str) -> User {
        User {
            name: name.to_owned(),
            ..User::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_asks_about_so_many_rights_a_second_and_uses_up_nobody_elses() {
        let folder = tempfile::tempdir().expect("a folder");
        let users = users(folder.path());
        let (curious, other) = (user("curious"), user("other"));
        let mut asked = 0;
        for number in 0..QUESTIONS_PER_SECOND as usize * 2 {
            match users.may(&curious, &path(number)).await {
                Err(ReviewError::NoAnswer { .. }) => asked += 1,
                refused => assert_eq!(refused, Err(ReviewError::TooFast)),
            }
        }
        assert_eq!(asked, QUESTIONS_PER_SECOND);
        let verdict = users.may(&other, &path(0)).await;
        assert!(
            matches!(verdict, Err(ReviewError::NoAnswer { .. })),
            "{verdict:?}"
        );
    }

    #[tokio::test]
    async fn whether_a_stream_may_go_on_is_found_out_whatever_number_of_requests_there_is() {
        for (is_somebodys, allowed) in [(true, true), (true, false), (false, true)] {
            let answer = move |_: &axum::http::Method, path: &str| {
                let status = if path.ends_with("/tokenreviews") {
                    json!({"authenticated": is_somebodys, "user": {"username": "jane"}})
                } else {
                    json!({"allowed": allowed})
                };
                (201, json!({"metadata": {}, "spec": {}, "status": status}))
            };
            let api_server = Scripted::start(answer).await;
            let users = ClusterUsers::new(Arc::clone(&api_server.api_server));
            // Others ask for all that may be asked for, and more.
            *lock(&users.paces) = Paces::new(0, MAX_REMEMBERED);
            *lock(&users.strangers_pace) = Pace::new(0);
            let places = [
                users.places.acquire_many(MAX_REVIEWS as u32).await,
                users
                    .strangers_places
                    .acquire_many(MAX_STRANGERS_REVIEWS as u32)
                    .await,
            ];
            let refused = users.may(&user("jane"), &path(0)).await;
            assert_eq!(refused, Err(ReviewError::TooFast));
            assert_eq!(users.user("token").await, Err(ReviewError::TooMany));
            let may = users.still_may("token", &[path(0)]).await;
            assert_eq!(may, Ok(is_somebodys && allowed), "{is_somebodys} {allowed}");
            drop(places);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_guess_hold_up_nobody_who_was_let_in_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let users = users(folder.path());
        let key: Key = Sha256::digest("known").into();
        lock(&users.known).put(key, Arc::new(user("known")), Duration::ZERO);
        let guesses = users.strangers_places.acquire_many(MAX_STRANGERS_REVIEWS as u32);
        let _guesses = guesses.await.expect("all places of strangers");
        let waited =
            |error| matches!(error, ReviewError::NoAnswer { reason } if reason == "it does not answer");
        for (token, expected) in [("guessed", true), ("known", false)] {
            let error = users.user(token).await.expect_err("nobody can be asked");
            assert_eq!(waited(error), expected, "{token}");
        }
        let error = users.may(&user("known"), &path(0)).await;
        assert!(!waited(error.expect_err("nobody can be asked")));
    }
}
