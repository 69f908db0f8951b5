//! The clients of the API server: one is made anew when what it was made from has changed. One task makes it for all who
//! ask, and goes on when they give up waiting: an exec plugin may take longer than any of them has patience.

use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Client;
use tokio_util::task::AbortOnDropHandle;

use super::api_server::{ANSWER_TIMEOUT, ApiServerError};
use super::credential_files::CredentialFiles;
use super::credentials::{self, Credentials};
use crate::config::KubeconfigSetting;

/// How long a connection to it may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long before they end credentials are got anew.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_secs(60);
/// How long they are used at least: a program that gives expired ones is not run for every request.
const USE_AT_LEAST: SignedDuration = SignedDuration::from_secs(10);
/// For how long a program that gave no credentials is not run again, whoever asks.
const NOT_RUN_AGAIN: Duration = Duration::from_secs(5);

/// Clients, and what they were made from.
pub(super) struct Made {
    /// For requests, which fail when they are not answered in time.
    pub(super) asking: Client,
    /// For watches, which may be silent as long as they like.
    pub(super) watching: Client,
    /// Whom the client certificate names, where there is one.
    pub(super) certificate_user: Option<String>,
    files: CredentialFiles,
    /// Until when they can be used.
    until: Option<Timestamp>,
}

/// What comes of making them, for all who wait for it.
type Outcome = Result<Arc<Made>, Arc<ApiServerError>>;

/// Makes clients and keeps them. Dropped, it ends the task that is making some.
pub(super) struct Clients {
    kubeconfig: KubeconfigSetting,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// What is used while it is fresh.
    made: Option<Arc<Made>>,
    /// The task that makes new ones.
    making: Option<Shared<BoxFuture<'static, Outcome>>>,
    /// When an exec plugin failed last, and how.
    failed: Option<(Instant, Arc<ApiServerError>)>,
    /// Where the API server is, as it was read last.
    address: String,
}

impl fmt::Debug for Clients {
    /// Without the clients, which hold credentials.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Clients")
            .field("kubeconfig", &self.kubeconfig)
            .finish_non_exhaustive()
    }
}

impl Clients {
    /// Those that this setting leads to. Nothing is read yet.
    pub(super) fn new(kubeconfig: KubeconfigSetting) -> Clients {
        Clients {
            kubeconfig,
            state: Arc::default(),
        }
    }

    /// Clients that are made from what the files say now. Whoever gives up waiting for them ends nothing.
    ///
    /// # Errors
    /// There are no credentials, or they make no client. How an exec plugin failed is answered for [`NOT_RUN_AGAIN`].
    pub(super) async fn get(&self) -> Outcome {
        let seen = lock(&self.state).made.clone();
        if let Some(made) = &seen
            && made.is_fresh().await
        {
            return Ok(Arc::clone(made));
        }
        let making = {
            let mut state = lock(&self.state);
            // Somebody else who saw the same may have had new ones made by now.
            if let Some(made) = &state.made
                && seen.is_none_or(|seen| !Arc::ptr_eq(&seen, made))
            {
                return Ok(Arc::clone(made));
            }
            if let Some((at, error)) = &state.failed
                && at.elapsed() < NOT_RUN_AGAIN
            {
                return Err(Arc::clone(error));
            }
            // One that is over without a word in the state has panicked.
            let under_way = state.making.clone().filter(|making| making.peek().is_none());
            let making = under_way.unwrap_or_else(|| self.begin());
            state.making = Some(making.clone());
            making
        };
        making.await
    }

    /// Forgets the clients: their credentials are refused.
    pub(super) fn forget(&self) {
        lock(&self.state).made = None;
    }

    /// Whether there are clients now.
    #[cfg(test)]
    pub(super) fn are_there(&self) -> bool {
        lock(&self.state).made.is_some()
    }

    /// Where the API server is; empty until that was read.
    pub(super) fn address(&self) -> String {
        lock(&self.state).address.clone()
    }

    /// Where address and credentials are read from.
    pub(super) fn kubeconfig(&self) -> &KubeconfigSetting {
        &self.kubeconfig
    }

    /// The task that makes them, owned by those who wait for it and by the state.
    fn begin(&self) -> Shared<BoxFuture<'static, Outcome>> {
        let making = make(self.kubeconfig.clone(), Arc::downgrade(&self.state));
        let task = AbortOnDropHandle::new(tokio::spawn(making));
        let outcome = async move {
            let ended = task.await;
            ended.unwrap_or_else(|panic| Err(Arc::new(ApiServerError::Panicked(panic.to_string()))))
        };
        outcome.boxed().shared()
    }
}

/// Makes clients, and puts what comes of it into the state, if that is still there.
async fn make(kubeconfig: KubeconfigSetting, state: Weak<Mutex<State>>) -> Outcome {
    let made = match credentials::read(&kubeconfig).await {
        Ok(credentials) => {
            if let Some(state) = state.upgrade() {
                lock(&state).address = credentials.config.cluster_url.to_string();
            }
            // It reads the files of a client certificate.
            match tokio::task::spawn_blocking(|| Made::from(credentials)).await {
                Ok(made) => made.map_err(|source| ApiServerError::Client {
                    from: credentials::described(&kubeconfig),
                    source,
                }),
                Err(panic) => Err(ApiServerError::Panicked(panic.to_string())),
            }
        }
        Err(error) => Err(error.into()),
    };
    let outcome = made.map(Arc::new).map_err(Arc::new);
    if let Some(state) = state.upgrade() {
        let mut state = lock(&state);
        state.making = None;
        state.failed = match &outcome {
            Err(error) if error.is_of_exec_plugin() => Some((Instant::now(), Arc::clone(error))),
            _ => None,
        };
        state.made = outcome.as_ref().ok().cloned();
    }
    outcome
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
            certificate_user: credentials.certificate_user,
            files: credentials.files,
            until: credentials.expire.and_then(renewal),
        })
    }

    async fn is_fresh(&self) -> bool {
        self.until.is_none_or(|until| Timestamp::now() < until) && self.files.are_unchanged().await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clients whose kubeconfig has an exec plugin that notes each run, in the file that is answered too, and then does what
    /// `script` says.
    fn with_plugin(folder: &std::path::Path, script: &str) -> (Clients, std::path::PathBuf) {
        let (file, runs) = (folder.join("kubeconfig"), folder.join("runs"));
        let script = format!("echo >> {}; {script}", runs.display());
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
        (Clients::new(KubeconfigSetting::File(file)), runs)
    }

    const GOOD: &str = r#"echo '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "t"}}'"#;

    fn runs(file: &std::path::Path) -> usize {
        std::fs::read_to_string(file).unwrap_or_default().lines().count()
    }

    #[tokio::test]
    async fn a_program_for_credentials_is_run_once_for_all_who_wait_for_it() {
        for (script, is_good) in [(GOOD, true), ("exit 3", false)] {
            let folder = tempfile::tempdir().expect("a folder");
            let (clients, file) = with_plugin(folder.path(), script);
            let (one, other, third) = tokio::join!(clients.get(), clients.get(), clients.get());
            let good = [
                one.is_ok(),
                other.is_ok(),
                third.is_ok(),
                clients.get().await.is_ok(),
            ];
            assert_eq!((good, runs(&file)), ([is_good; 4], 1), "{script}");
        }
    }

    #[tokio::test]
    async fn a_program_that_is_slower_than_all_who_ask_is_run_once_and_ends() {
        let folder = tempfile::tempdir().expect("a folder");
        let (clients, file) = with_plugin(folder.path(), &format!("sleep 2.5; {GOOD}"));
        let mut gave_up = 0;
        while tokio::time::timeout(Duration::from_secs(1), clients.get())
            .await
            .is_err()
        {
            gave_up += 1;
        }
        assert!(gave_up >= 1, "somebody gave up while the program ran");
        assert_eq!(runs(&file), 1);
        assert!(clients.are_there());
    }

    #[tokio::test]
    async fn a_program_that_nobody_needs_any_more_is_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let (clients, file) = with_plugin(
            folder.path(),
            &format!("echo $$ >> {}/pid; exec sleep 600", folder.path().display()),
        );
        let asked = tokio::time::timeout(Duration::from_millis(200), clients.get()).await;
        assert!(asked.is_err());
        let pid = loop {
            match std::fs::read_to_string(folder.path().join("pid")) {
                Ok(pid) if pid.ends_with('\n') => break pid.trim().to_owned(),
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        assert_eq!(runs(&file), 1);
        drop(clients);
        let status = format!("/proc/{pid}/status");
        let lives = || {
            let status = std::fs::read_to_string(&status).unwrap_or_default();
            !status.is_empty() && !status.contains("State:\tZ")
        };
        while lives() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
