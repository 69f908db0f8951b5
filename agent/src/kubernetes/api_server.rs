//! One API server, for everyone who speaks to it: the client, made anew when what it was made from has changed, and
//! whether it answers.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Client;
use tokio::sync::watch;

use super::credential_files::CredentialFiles;
use super::credentials::{self, Credentials, CredentialsError};
use super::failure::{Verdict, verdict, words};
use crate::config::KubeconfigSetting;

/// How long a connection to it may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may be silent before a request counts as not answered.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long before they end credentials are got anew.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_secs(60);
/// How long they are used at least: a program that gives expired ones is not run for every request.
const USE_AT_LEAST: SignedDuration = SignedDuration::from_secs(10);

/// For how long a program that gave no credentials is not run again, whoever asks.
const NOT_RUN_AGAIN: Duration = Duration::from_secs(5);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiServerError {
    /// There are no credentials.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// They make no client.
    #[error("cannot make a client of the API server from {from}: {}", words(source))]
    Client {
        /// Where the credentials come from.
        from: String,
        /// What is wrong.
        source: kube::Error,
    },
}

impl ApiServerError {
    /// Whether there is simply no kubeconfig, which where none was asked for is no trouble.
    pub(crate) fn is_not_there(&self) -> bool {
        matches!(self, Self::Credentials(CredentialsError::NotThere { .. }))
    }

    fn is_of_exec_plugin(&self) -> bool {
        matches!(self, Self::Credentials(CredentialsError::ExecPlugin { .. }))
    }
}

/// Whether the API server answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Nobody has asked yet, or there is nobody to ask: the kubelet's kubeconfig is not there.
    #[default]
    Unknown,
    /// It did when it was last asked.
    Answers,
    /// It did not, for this reason.
    Away(String),
}

/// The API server of this node's cluster.
pub(crate) struct ApiServer {
    kubeconfig: KubeconfigSetting,
    made: Mutex<Option<Made>>,
    /// Held by the one who makes clients, while the others wait for what comes of it: a program for credentials, which may
    /// ask a person, is run once for all. In it is how it failed last.
    making: tokio::sync::Mutex<Option<(Instant, Arc<ApiServerError>)>>,
    address: Mutex<String>,
    reach: watch::Sender<Reach>,
}

/// Clients, and what they were made from.
#[derive(Clone)]
struct Made {
    asking: Client,
    watching: Client,
    files: CredentialFiles,
    /// Until when they can be used.
    until: Option<Timestamp>,
}

impl fmt::Debug for ApiServer {
    /// Without the clients, which hold credentials.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ApiServer")
            .field("kubeconfig", &self.kubeconfig)
            .field("reach", &*self.reach.borrow())
            .finish_non_exhaustive()
    }
}

impl ApiServer {
    /// The one that the configuration names; none where it names none. Whether its kubeconfig is there is looked at when
    /// a client is asked for: a node may join its cluster later.
    pub(crate) fn configured(setting: &KubeconfigSetting) -> Option<ApiServer> {
        if *setting == KubeconfigSetting::Off {
            return None;
        }
        Some(ApiServer {
            kubeconfig: setting.clone(),
            made: Mutex::new(None),
            making: tokio::sync::Mutex::new(None),
            address: Mutex::default(),
            reach: watch::Sender::new(Reach::Unknown),
        })
    }

    /// A client for requests, which fail when they are not answered in time. To be asked for anew each time: one is made
    /// from what the files say now.
    pub(crate) async fn client(&self) -> Result<Client, Arc<ApiServerError>> {
        Ok(self.made().await?.asking)
    }

    /// A client for watches, which may be silent as long as they like.
    pub(crate) async fn watching_client(&self) -> Result<Client, Arc<ApiServerError>> {
        Ok(self.made().await?.watching)
    }

    /// Where it is, `https://...`; empty until a kubeconfig was read.
    pub(crate) fn address(&self) -> String {
        lock(&self.address).clone()
    }

    /// Where address and credentials come from, in words.
    pub(crate) fn described(&self) -> String {
        credentials::kubeconfig_of(&self.kubeconfig)
            .map_or_else(|| "in-cluster".to_owned(), |file| file.display().to_string())
    }

    /// Whether a kubeconfig that is not there is no trouble: nobody has asked for one.
    pub(crate) fn may_be_missing(&self) -> bool {
        self.kubeconfig == KubeconfigSetting::Kubelet
    }

    /// Whether it answers, and when that changes.
    pub(crate) fn reach(&self) -> watch::Receiver<Reach> {
        self.reach.subscribe()
    }

    /// Says that it has answered.
    pub(crate) fn answered(&self) {
        self.set(Reach::Answers);
    }

    /// Says that it has not answered, and why.
    pub(crate) fn failed(&self, reason: &str) {
        self.set(Reach::Away(reason.to_owned()));
    }

    /// Takes in how a request to it ended; with an error, also says why in one line.
    pub(crate) fn heard<T>(&self, answer: Result<T, kube::Error>) -> Result<T, (kube::Error, String)> {
        match answer {
            Ok(answer) => {
                self.answered();
                Ok(answer)
            }
            Err(error) => {
                let reason = self.saw(&error);
                Err((error, reason))
            }
        }
    }

    /// Takes in how a request to it failed, and says why in one line. A refusal is an answer, too; one because of the
    /// credentials has them read anew.
    pub(crate) fn saw(&self, error: &kube::Error) -> String {
        let reason = words(error);
        match verdict(error) {
            Verdict::Answered => self.answered(),
            Verdict::Refused => {
                *lock(&self.made) = None;
                self.failed(&reason);
            }
            Verdict::Away => self.failed(&reason),
        }
        reason
    }

    fn set(&self, reach: Reach) {
        self.reach.send_if_modified(|current| {
            let changed = *current != reach;
            *current = reach;
            changed
        });
    }

    async fn made(&self) -> Result<Made, Arc<ApiServerError>> {
        if let Some(kept) = self.kept() {
            return Ok(kept);
        }
        let mut failure = self.making.lock().await;
        if let Some(kept) = self.kept() {
            return Ok(kept);
        }
        if let Some((at, error)) = &*failure
            && at.elapsed() < NOT_RUN_AGAIN
        {
            return Err(Arc::clone(error));
        }
        let made = self.make().await.map_err(Arc::new);
        *failure = match &made {
            Err(error) if error.is_of_exec_plugin() => Some((Instant::now(), Arc::clone(error))),
            _ => None,
        };
        made
    }

    fn kept(&self) -> Option<Made> {
        let kept = lock(&self.made).clone();
        kept.filter(Made::is_fresh)
    }

    async fn make(&self) -> Result<Made, ApiServerError> {
        let credentials = credentials::read(&self.kubeconfig).await?;
        *lock(&self.address) = credentials.config.cluster_url.to_string();
        let made = Made::from(credentials).map_err(|source| ApiServerError::Client {
            from: self.described(),
            source,
        })?;
        *lock(&self.made) = Some(made.clone());
        Ok(made)
    }
}

impl Made {
    fn from(credentials: Credentials) -> Result<Made, kube::Error> {
        let mut config = credentials.config;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = None;
        let watching = Client::try_from(config.clone())?;
        config.read_timeout = Some(ANSWER_TIMEOUT);
        config.reset_reader_on_write = true;
        let at_least = Timestamp::now().saturating_add(USE_AT_LEAST).ok();
        let renewal = |end: Timestamp| end.saturating_sub(RENEW_BEFORE).ok().max(at_least);
        Ok(Made {
            asking: Client::try_from(config)?,
            watching,
            files: credentials.files,
            until: credentials.expire.and_then(renewal),
        })
    }

    fn is_fresh(&self) -> bool {
        self.until.is_none_or(|until| Timestamp::now() < until) && self.files.are_unchanged()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn write(file: &Path, server: &str) {
        let text = format!(
            r#"{{"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{{"name": "c", "cluster": {{"server": "{server}"}}}}],
            "users": [{{"name": "u", "user": {{"token": "SECRET"}}}}],
            "contexts": [{{"name": "c", "context": {{"cluster": "c", "user": "u"}}}}]}}"#
        );
        std::fs::write(file, text).expect("written");
    }

    #[tokio::test]
    async fn a_kubeconfig_may_come_later_and_is_read_anew_when_it_changes() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("kubelet.conf");
        let server = ApiServer::configured(&KubeconfigSetting::File(file.clone())).expect("a server");
        let error = server.client().await.err().expect("no kubeconfig");
        assert!(error.is_not_there(), "{error}");
        write(&file, "https://10.0.0.1:6443");
        server.client().await.expect("a client");
        assert_eq!(server.address(), "https://10.0.0.1:6443/");
        write(&file, "https://10.0.0.20:6443");
        server.watching_client().await.expect("a client");
        assert_eq!(server.address(), "https://10.0.0.20:6443/");
        assert!(!format!("{server:?}").contains("SECRET"));
    }

    #[tokio::test]
    async fn a_program_for_credentials_is_run_once_for_all_who_wait_for_it() {
        let good = r#"{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "t"}}"#;
        for (answer, is_good) in [(format!("echo '{good}'"), true), ("exit 3".to_owned(), false)] {
            let folder = tempfile::tempdir().expect("a folder");
            let (file, runs) = (folder.path().join("kubeconfig"), folder.path().join("runs"));
            let script = format!("echo >> {}; {answer}", runs.display());
            let kubeconfig = serde_json::json!({
                "apiVersion": "v1", "kind": "Config", "current-context": "c",
                "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443"}}],
                "users": [{"name": "u", "user": {"exec": {
                    "apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", script],
                    "interactiveMode": "Never",
                }}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            });
            std::fs::write(&file, kubeconfig.to_string()).expect("written");
            let server = ApiServer::configured(&KubeconfigSetting::File(file)).expect("a server");
            let (one, other, third) =
                tokio::join!(server.client(), server.watching_client(), server.client());
            assert_eq!(
                [
                    one.is_ok(),
                    other.is_ok(),
                    third.is_ok(),
                    server.client().await.is_ok()
                ],
                [is_good; 4]
            );
            assert_eq!(
                std::fs::read_to_string(&runs).expect("it was run"),
                "\n",
                "{answer}"
            );
        }
    }

    #[tokio::test]
    async fn one_that_answers_anybody_is_not_away() {
        let server = ApiServer::configured(&KubeconfigSetting::Kubelet).expect("a server");
        server.failed("a lost connection");
        assert!(server.heard(Ok(())).is_ok());
        assert_eq!(*server.reach().borrow(), Reach::Answers);
    }

    #[tokio::test]
    async fn whose_credentials_are_refused_reads_them_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("kubeconfig");
        write(&file, "https://10.0.0.1:6443");
        let server = ApiServer::configured(&KubeconfigSetting::File(file)).expect("a server");
        server.client().await.expect("a client");
        let refused = |code| {
            let status = kube::core::Status {
                code,
                message: "no".to_owned(),
                ..kube::core::Status::default()
            };
            kube::Error::Api(Box::new(status))
        };
        server.saw(&refused(403));
        assert!(lock(&server.made).is_some());
        assert_eq!(*server.reach().borrow(), Reach::Answers);
        server.saw(&refused(401));
        assert!(lock(&server.made).is_none());
        assert_eq!(*server.reach().borrow(), Reach::Away("no".to_owned()));
    }

    #[test]
    fn only_a_configuration_that_says_so_has_no_server() {
        assert!(ApiServer::configured(&KubeconfigSetting::Off).is_none());
        assert!(ApiServer::configured(&KubeconfigSetting::Kubelet).is_some());
    }
}
