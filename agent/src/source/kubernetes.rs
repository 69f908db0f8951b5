//! The pods of this node as the API server knows them: listed and watched by `spec.nodeName`, and merged into the store.
//!
//! A watch that the server ends in good order goes on where it was. After anything else there is a new list: behind the
//! same address may be another server by then, one that was restored from a backup, to which our version means nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use tokio::time::{timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::kubernetes::api_server::{ANSWER_TIMEOUT, ApiServer, Reach};
use crate::kubernetes::back_off::Pauses;
use crate::logging::NEWS;
use crate::store::Store;
use crate::store::kubernetes::KubernetesChange;
use crate::store::node_report::KubernetesReport;

/// How many pods come in one answer.
const PAGE: u32 = 100;
/// How long the server is asked to keep a watch, in seconds; it is ended somewhere between, so that not all nodes begin
/// theirs together.
const WATCH_SECONDS: std::ops::Range<u32> = 240..290;
/// After this long without a word (a server sends a bookmark each minute) a watch is given up.
const SILENCE: Duration = Duration::from_secs(90);
/// How long after the time that it was asked to keep a watch for the server may take to end it.
const LATE: Duration = Duration::from_secs(30);
/// A watch that has lasted as long was one: the failures before it are forgotten.
const LASTED: Duration = Duration::from_secs(10);

/// Why there was no watch, or no more of one.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Failure {
    /// There is no kubeconfig, and need not be one.
    NoServer,
    /// The API server refuses it: a right is missing.
    Refused(String),
    /// It does not answer, or not as it should.
    Failed(String),
}

/// How a watch ended.
#[derive(Debug)]
enum End {
    /// In good order: it can go on at this version.
    At(String),
    /// So that all must be listed anew.
    Lost,
    /// Nothing was heard for too long: what has changed meanwhile may be lost, too.
    Silent,
}

/// Keeps what the store knows from the API server what that says, and the node report what becomes of asking it, until
/// `shutdown`.
pub(crate) async fn run(api_server: Arc<ApiServer>, store: Arc<Store>, shutdown: CancellationToken) {
    let both = async {
        tokio::join!(follow(&api_server, &store), report(&api_server, &store));
    };
    shutdown.run_until_cancelled(both).await;
}

/// Says in the store whether the API server answers.
async fn report(api_server: &ApiServer, store: &Store) {
    let mut reach = api_server.reach();
    loop {
        let now = reach.borrow_and_update().clone();
        let trouble = now.trouble();
        if let Some(reason) = trouble {
            tracing::warn!(target: NEWS, "{}", away(api_server, reason));
        } else if now.answers() {
            tracing::info!(target: NEWS, "the API server {} answers", api_server.address());
        }
        let report = match now {
            Reach::Unknown => KubernetesReport::default(),
            Reach::Answers | Reach::Refuses(_) | Reach::Away(_) => KubernetesReport {
                server: api_server.address(),
                credentials: api_server.described(),
                answers: trouble.is_none(),
                message: trouble.unwrap_or_default().to_owned(),
            },
        };
        store.report_node(|node| node.kubernetes = report);
        if reach.changed().await.is_err() {
            return;
        }
    }
}

/// That the API server cannot be asked, in words.
fn away(api_server: &ApiServer, reason: &str) -> String {
    match api_server.address().as_str() {
        "" => format!("the API server is not known: {reason}"),
        address => format!("the API server {address} cannot be asked: {reason}"),
    }
}

/// Lists and watches, for ever.
async fn follow(api_server: &ApiServer, store: &Store) {
    let mut pauses = Pauses::default();
    let mut version = None;
    loop {
        let began = Instant::now();
        let outcome = watch(api_server, store, version.take()).await;
        let lasted = began.elapsed() > LASTED;
        if lasted {
            pauses = Pauses::default();
        }
        let mut refused = false;
        match outcome {
            Ok(End::At(reached)) if lasted => {
                version = Some(reached);
                continue;
            }
            Ok(_) => {}
            Err(failure) => {
                store.follow_kubernetes(false);
                match failure {
                    Failure::Refused(reason) => {
                        refused = true;
                        api_server.refuses_pods(&reason);
                    }
                    Failure::Failed(reason) => api_server.failed(&reason),
                    Failure::NoServer => {}
                }
            }
        }
        tokio::time::sleep(pauses.after(refused, rand::random())).await;
    }
}

/// What an error of the client library means.
fn failure(api_server: &ApiServer, error: &kube::Error) -> Failure {
    let reason = api_server.saw(error);
    match error {
        kube::Error::Api(status) if status.code == 403 => Failure::Refused(reason),
        _ => Failure::Failed(reason),
    }
}

/// Lists, unless there is a `version` at which a watch was, and watches.
async fn watch(api_server: &ApiServer, store: &Store, version: Option<String>) -> Result<End, Failure> {
    let asking = api_server.client().await.map_err(|error| {
        match error.is_not_there() && api_server.may_be_missing() {
            true => Failure::NoServer,
            false => Failure::Failed(error.to_string()),
        }
    })?;
    let watching = api_server
        .watching_client()
        .await
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let of_node = format!("spec.nodeName={}", store.node_name());
    let version = match version {
        Some(version) => version,
        None => list(api_server, store, &Api::all(asking.clone()), &of_node).await?,
    };

    let seconds = rand::random_range(WATCH_SECONDS);
    let parameters = WatchParams::default().fields(&of_node).timeout(seconds);
    let pods: Api<Pod> = Api::all(watching);
    let begun = timeout(ANSWER_TIMEOUT, pods.watch(&parameters, &version)).await;
    let events = begun
        .map_err(|_| Failure::Failed("it does not begin a watch".to_owned()))?
        .map_err(|error| failure(api_server, &error))?;
    api_server.shows_pods();
    store.follow_kubernetes(true);
    let events = events.map(|event| event.map_err(|error| api_server.saw(&error)));
    let longest = Duration::from_secs(seconds.into()) + LATE;
    let end = read_all(events, version, longest, |change| store.apply_kubernetes(change)).await?;
    if matches!(end, End::Silent) {
        // It is asked over another connection: if it answers, only this one is dead.
        let alive = asking.apiserver_version().await;
        alive.map_err(|error| failure(api_server, &error))?;
        api_server.answered();
    }
    Ok(end)
}

/// Reads a watch that is at this version, and says what changes, until it ends or has lasted for `longest`.
async fn read_all(
    events: impl Stream<Item = Result<WatchEvent<Pod>, String>>,
    mut version: String,
    longest: Duration,
    apply: impl Fn(KubernetesChange),
) -> Result<End, Failure> {
    pin_mut!(events);
    let last = tokio::time::Instant::now() + longest;
    let mut spoke = false;
    loop {
        let until = last.min(tokio::time::Instant::now() + SILENCE);
        let Ok(event) = timeout_at(until, events.next()).await else {
            return Ok(if until == last { End::Lost } else { End::Silent });
        };
        let Some(event) = event else {
            // One that never said a word may be of a server that has not come to our version yet.
            return Ok(if spoke { End::At(version) } else { End::Lost });
        };
        let event = event.map_err(Failure::Failed)?;
        let Some((reached, change)) = read(event)? else {
            return Ok(End::Lost);
        };
        if goes_back(&version, &reached) {
            tracing::warn!("the API server's versions went back from {version} to {reached}: listing anew");
            return Ok(End::Lost);
        }
        version = reached;
        spoke = true;
        if let Some(change) = change {
            apply(change);
        }
    }
}

/// Lists all pods of the node, page by page, and answers the version at which they are this.
async fn list(
    api_server: &ApiServer,
    store: &Store,
    pods: &Api<Pod>,
    of_node: &str,
) -> Result<String, Failure> {
    let mut parameters = ListParams::default().fields(of_node).limit(PAGE);
    let mut all = Vec::new();
    loop {
        let page = pods.list(&parameters).await;
        let page = page.map_err(|error| failure(api_server, &error))?;
        all.extend(page.items.into_iter().map(slim));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => {
                store.apply_kubernetes(KubernetesChange::All(all));
                return Ok(page.metadata.resource_version.unwrap_or_default());
            }
        }
    }
}

/// The version that an event has brought, and what it changes. None where the server has forgotten our version
/// (410), so that all is to be listed anew.
fn read(event: WatchEvent<Pod>) -> Result<Option<(String, Option<KubernetesChange>)>, Failure> {
    let version = |pod: &Pod| pod.metadata.resource_version.clone().unwrap_or_default();
    let told = |pod: Pod, change: fn(Box<Pod>) -> KubernetesChange| {
        Ok(Some((version(&pod), Some(change(Box::new(slim(pod)))))))
    };
    match event {
        WatchEvent::Added(pod) | WatchEvent::Modified(pod) => told(pod, KubernetesChange::Applied),
        WatchEvent::Deleted(pod) => told(pod, KubernetesChange::Gone),
        WatchEvent::Bookmark(bookmark) => Ok(Some((bookmark.metadata.resource_version, None))),
        WatchEvent::Error(status) if status.code == 410 => Ok(None),
        WatchEvent::Error(status) if status.code == 403 => Err(Failure::Refused(status.message.clone())),
        WatchEvent::Error(status) => Err(Failure::Failed(status.message.clone())),
    }
}

/// Without what nobody here reads: who wrote which field is as long as the pod itself.
fn slim(mut pod: Pod) -> Pod {
    pod.metadata.managed_fields = None;
    pod
}

/// Whether a version is older than the one before it: Kubernetes' are numbers that only grow, so this is another history.
fn goes_back(before: &str, now: &str) -> bool {
    match (before.parse::<u64>(), now.parse::<u64>()) {
        (Ok(before), Ok(now)) => now < before,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use serde_json::json;

    use super::*;

    fn bookmark(version: &str) -> WatchEvent<Pod> {
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"resourceVersion": version}});
        serde_json::from_value(json!({"type": "BOOKMARK", "object": object})).expect("an event")
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_says_nothing_is_given_up() {
        let longest = Duration::from_secs(300);
        let began = tokio::time::Instant::now();
        let dead = stream::iter([Ok(bookmark("7"))]).chain(stream::pending());
        let end = read_all(dead, "6".to_owned(), longest, |_| {}).await;
        assert!(matches!(end, Ok(End::Silent)), "{end:?}");
        assert_eq!(began.elapsed().as_secs(), SILENCE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_the_server_does_not_end_is_given_up() {
        let longest = Duration::from_secs(300);
        let began = tokio::time::Instant::now();
        let endless = stream::unfold((), |()| async {
            tokio::time::sleep(SILENCE / 2).await;
            Some((Ok(bookmark("7")), ()))
        });
        let end = read_all(endless, "7".to_owned(), longest, |_| {}).await;
        assert!(matches!(end, Ok(End::Lost)), "{end:?}");
        assert_eq!(began.elapsed().as_secs(), longest.as_secs());
    }

    #[tokio::test]
    async fn a_watch_that_ends_in_good_order_goes_on_where_it_was() {
        let longest = Duration::from_secs(300);
        let ended = stream::iter([Ok(bookmark("7")), Ok(bookmark("9"))]);
        let end = read_all(ended, "6".to_owned(), longest, |_| {}).await;
        assert!(matches!(end, Ok(End::At(version)) if version == "9"));
        let mute = read_all(stream::empty(), "6".to_owned(), longest, |_| {}).await;
        assert!(matches!(mute, Ok(End::Lost)), "{mute:?}");
    }

    #[test]
    fn a_history_whose_versions_go_back_is_another() {
        for (before, now, expected) in [
            ("10", "11", false),
            ("10", "10", false),
            ("10", "9", true),
            ("100", "11", true),
            ("", "11", false),
            ("x", "y", false),
        ] {
            assert_eq!(goes_back(before, now), expected, "{before} {now}");
        }
    }

    #[test]
    fn an_event_brings_its_version_and_a_forgotten_one_asks_for_a_list() {
        let event = |value| serde_json::from_value::<WatchEvent<Pod>>(value).expect("an event");
        let pod = json!({"metadata": {"name": "cart", "resourceVersion": "7", "managedFields": [{}]}});
        let Ok(Some((version, Some(KubernetesChange::Applied(pod))))) =
            read(event(json!({"type": "ADDED", "object": pod})))
        else {
            panic!("a pod was added")
        };
        assert_eq!((version.as_str(), pod.metadata.managed_fields), ("7", None));
        let bookmark = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"resourceVersion": "8"}});
        let read_bookmark = read(event(json!({"type": "BOOKMARK", "object": bookmark})));
        assert!(matches!(read_bookmark, Ok(Some((version, None))) if version == "8"));
        let failure = |code| json!({"type": "ERROR", "object": {"code": code, "message": "why"}});
        assert!(matches!(read(event(failure(410))), Ok(None)));
        let why = "why".to_owned();
        assert_eq!(
            read(event(failure(500))).err(),
            Some(Failure::Failed(why.clone()))
        );
        assert_eq!(read(event(failure(403))).err(), Some(Failure::Refused(why)));
    }
}
