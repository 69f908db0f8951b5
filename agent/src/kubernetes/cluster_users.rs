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

use super::api_server::ApiServer;
use super::recent::{Key, Pace, Recent};

/// How long a token counts as somebody's, and a right as given, without asking again: for as long as this somebody may
/// go on whose rights were taken.
const GRANTED_FOR: Duration = Duration::from_secs(10);
/// How long a token counts as nobody's, and a right as not given.
const DENIED_FOR: Duration = Duration::from_secs(5);
/// How many answers of each kind are remembered.
const MAX_REMEMBERED: usize = 1024;
/// How many reviews may be under way at once; the next ones wait.
const MAX_REVIEWS: usize = 8;
/// How many tokens a second are asked about that were nobody's so far: whoever makes them up must not become a flood at
/// the API server.
const UNKNOWN_TOKENS_PER_SECOND: u32 = 20;
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

/// The API server's knowledge of its users.
#[derive(Debug)]
pub(crate) struct ClusterUsers {
    api_server: Arc<ApiServer>,
    known: Mutex<Recent<Arc<User>>>,
    unknown: Mutex<Recent<()>>,
    verdicts: Mutex<Recent<Verdict>>,
    places: Semaphore,
    pace: Mutex<Pace>,
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
            pace: Mutex::new(Pace::new(UNKNOWN_TOKENS_PER_SECOND)),
        }
    }

    /// Whose token it is.
    pub(crate) async fn user(&self, token: &str) -> Result<Arc<User>, ReviewError> {
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
        // Whoever was let in before is not held up by those who guess.
        if !was_known && !lock(&self.pace).allows() {
            return Err(ReviewError::TooMany);
        }
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: None,
            },
            ..TokenReview::default()
        };
        let status = self.review(&review).await?.status.unwrap_or_default();
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

    /// Whether the user may do it.
    pub(crate) async fn may(&self, user: &User, wanted: &Wanted) -> Result<Verdict, ReviewError> {
        let review = question(user, wanted);
        // It consists of texts and lists of them: nothing that JSON could refuse.
        let key: Key = Sha256::digest(serde_json::to_vec(&review.spec).unwrap_or_default()).into();
        if let Some(verdict) = lock(&self.verdicts).get(&key) {
            return Ok(verdict.clone());
        }
        let status = self.review(&review).await?.status.unwrap_or_default();
        let verdict = Verdict {
            allowed: status.allowed && status.denied != Some(true),
            reason: status.reason.unwrap_or_default(),
        };
        let lasts = if verdict.allowed { GRANTED_FOR } else { DENIED_FOR };
        lock(&self.verdicts).put(key, verdict.clone(), lasts);
        Ok(verdict)
    }

    /// POST of a review. Its answer is read here: the client library logs what it cannot read, and a token is in it.
    async fn review<R>(&self, review: &R) -> Result<R, ReviewError>
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
            let _place = self.places.acquire().await.map_err(|error| no_answer(&error))?;
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
