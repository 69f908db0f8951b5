//! One API server, for everyone who speaks to it: its clients, and whether it answers.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::watch;

use super::clients::Clients;
use super::credentials::{self, CredentialsError};
use super::failure::{Verdict, verdict, words};
use crate::config::KubeconfigSetting;

/// How long it may be silent before a request counts as not answered.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

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
    /// Making it has failed in a way that nobody foresaw.
    #[error("a client of the API server could not be made: {0}")]
    Panicked(String),
}

impl ApiServerError {
    /// Whether there is simply no kubeconfig, which where none was asked for is no trouble.
    pub(crate) fn is_not_there(&self) -> bool {
        matches!(self, Self::Credentials(CredentialsError::NotThere { .. }))
    }

    /// Whether an exec plugin has failed.
    pub(super) fn is_of_exec_plugin(&self) -> bool {
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
    /// It does, and does not let us see the node's pods, for this reason.
    Refuses(String),
    /// It did not, for this reason.
    Away(String),
}

impl Reach {
    /// Whether it answered when it was last asked, if only to refuse.
    pub(crate) fn answers(&self) -> bool {
        matches!(self, Reach::Answers | Reach::Refuses(_))
    }

    /// Why nothing is known of the node's pods.
    pub(crate) fn trouble(&self) -> Option<&str> {
        match self {
            Reach::Refuses(reason) | Reach::Away(reason) => Some(reason),
            Reach::Unknown | Reach::Answers => None,
        }
    }
}

/// The API server of this node's cluster.
#[derive(Debug)]
pub(crate) struct ApiServer {
    clients: Clients,
    reach: watch::Sender<Reach>,
}

impl ApiServer {
    /// The one that the configuration names; none where it names none. Whether its kubeconfig is there is looked at when
    /// a client is asked for: a node may join its cluster later.
    pub(crate) fn configured(setting: &KubeconfigSetting) -> Option<ApiServer> {
        if *setting == KubeconfigSetting::Off {
            return None;
        }
        Some(ApiServer {
            clients: Clients::new(setting.clone()),
            reach: watch::Sender::new(Reach::Unknown),
        })
    }

    /// A client for requests, which fail when they are not answered in time. To be asked for anew each time: one is made
    /// from what the files say now.
    pub(crate) async fn client(&self) -> Result<Client, Arc<ApiServerError>> {
        Ok(self.clients.get().await?.asking.clone())
    }

    /// A client for watches, which may be silent as long as they like.
    pub(crate) async fn watching_client(&self) -> Result<Client, Arc<ApiServerError>> {
        Ok(self.clients.get().await?.watching.clone())
    }

    /// Whom the client certificate names, where the credentials are one.
    pub(super) async fn user_by_certificate(&self) -> Option<String> {
        self.clients.get().await.ok()?.certificate_user.clone()
    }

    /// Where it is, `https://...`; empty until a kubeconfig was read.
    pub(crate) fn address(&self) -> String {
        self.clients.address()
    }

    /// Where address and credentials come from, in words.
    pub(crate) fn described(&self) -> String {
        credentials::described(self.clients.kubeconfig())
    }

    /// Whether a kubeconfig that is not there is no trouble: nobody has asked for one.
    pub(crate) fn may_be_missing(&self) -> bool {
        *self.clients.kubeconfig() == KubeconfigSetting::Kubelet
    }

    /// Whether it answers, and when that changes.
    pub(crate) fn reach(&self) -> watch::Receiver<Reach> {
        self.reach.subscribe()
    }

    /// Says that it has answered. One that refuses the pods goes on to do so until they are seen.
    pub(crate) fn answered(&self) {
        self.reach.send_if_modified(|reach| {
            let changed = !reach.answers();
            if changed {
                *reach = Reach::Answers;
            }
            changed
        });
    }

    /// Says that it lets us see the node's pods.
    pub(crate) fn shows_pods(&self) {
        self.set(Reach::Answers);
    }

    /// Says that it does not let us see the node's pods, and why.
    pub(crate) fn refuses_pods(&self, reason: &str) {
        self.set(Reach::Refuses(reason.to_owned()));
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
                self.clients.forget();
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
    async fn one_that_answers_anybody_is_not_away() {
        let server = ApiServer::configured(&KubeconfigSetting::Kubelet).expect("a server");
        server.failed("a lost connection");
        assert!(server.heard(Ok(())).is_ok());
        assert_eq!(*server.reach().borrow(), Reach::Answers);
    }

    #[tokio::test]
    async fn one_that_refuses_the_pods_does_so_until_they_are_seen_whatever_else_it_answers() {
        let server = ApiServer::configured(&KubeconfigSetting::Kubelet).expect("a server");
        server.refuses_pods("no");
        assert!(server.heard(Ok(())).is_ok());
        assert_eq!(*server.reach().borrow(), Reach::Refuses("no".to_owned()));
        assert!(server.reach().borrow().answers());
        server.shows_pods();
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
        assert!(server.clients.are_there());
        assert_eq!(*server.reach().borrow(), Reach::Answers);
        server.saw(&refused(401));
        assert!(!server.clients.are_there());
        assert_eq!(*server.reach().borrow(), Reach::Away("no".to_owned()));
    }

    #[test]
    fn only_a_configuration_that_says_so_has_no_server() {
        assert!(ApiServer::configured(&KubeconfigSetting::Off).is_none());
        assert!(ApiServer::configured(&KubeconfigSetting::Kubelet).is_some());
    }
}
