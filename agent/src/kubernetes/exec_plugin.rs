//! Credentials from a program that a kubeconfig names (client.authentication.k8s.io, `ExecCredential`). It is run here and
//! not by the client library, because its time and its output are to have bounds, and because what it prints is secret
//! and must get into no error.

use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::jiff::Timestamp;
use kube::config::{AuthInfo, ExecConfig, ExecInteractiveMode};
use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// A program that has not answered by then does not: some ask a service in the network.
const TIMEOUT: Duration = Duration::from_secs(30);
/// No token and no certificate is longer, in bytes.
const MAX_OUTPUT: u64 = 1024 * 1024;

/// Why the program gave no credentials. Its own words are on the agent's standard error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecPluginError {
    /// The kubeconfig names none, or one that must ask a person.
    #[error("the kubeconfig's exec plugin cannot be run: {0}")]
    Unfit(&'static str),
    /// It cannot be started.
    #[error("cannot run the exec plugin {command}: {source}")]
    Start {
        /// The program.
        command: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// It was killed for taking too long.
    #[error("the exec plugin {command} has not answered within {} s", TIMEOUT.as_secs())]
    TooSlow {
        /// The program.
        command: String,
    },
    /// It ended otherwise than well.
    #[error("the exec plugin {command} failed: {status}")]
    Failed {
        /// The program.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// It said something else than credentials.
    #[error("the exec plugin {command} gave no ExecCredential with a token or a client certificate")]
    NoCredential {
        /// The program.
        command: String,
    },
}

/// What of an `ExecCredential` is read.
#[derive(Deserialize)]
struct ExecCredential {
    status: Option<ExecCredentialStatus>,
}

/// `ExecCredential.status`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExecCredentialStatus {
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
    expiration_timestamp: Option<Timestamp>,
}

/// Runs the program that `user` names, if any, and puts what it gives into `user`; answers until when that holds, where
/// it says so.
pub(super) async fn fill_in(user: &mut AuthInfo) -> Result<Option<Timestamp>, ExecPluginError> {
    let Some(plugin) = user.exec.take() else {
        return Ok(None);
    };
    let status = run(&plugin, TIMEOUT).await?;
    user.token = status.token.map(Into::into);
    if let (Some(certificate), Some(key)) = (status.client_certificate_data, status.client_key_data) {
        user.client_certificate_data = Some(STANDARD.encode(certificate));
        user.client_key_data = Some(STANDARD.encode(key).into());
    }
    Ok(status.expiration_timestamp)
}

async fn run(plugin: &ExecConfig, timeout: Duration) -> Result<ExecCredentialStatus, ExecPluginError> {
    let name = plugin
        .command
        .clone()
        .ok_or(ExecPluginError::Unfit("it has no command"))?;
    if plugin.interactive_mode == Some(ExecInteractiveMode::Always) {
        return Err(ExecPluginError::Unfit("it must ask somebody at a terminal"));
    }
    let start = |source| ExecPluginError::Start {
        command: name.clone(),
        source,
    };
    let mut child = Command::new(&name)
        .args(plugin.args.iter().flatten())
        .envs(environment(plugin))
        .env("KUBERNETES_EXEC_INFO", exec_info(plugin))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    let stdout = child.stdout.take();
    let answer = async {
        let mut said = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(MAX_OUTPUT).read_to_end(&mut said).await?;
        }
        Ok((child.wait().await?, said))
    };
    let answered = tokio::time::timeout(timeout, answer).await;
    let Ok(answered) = answered else {
        return Err(ExecPluginError::TooSlow { command: name });
    };
    let (status, said) = answered.map_err(start)?;
    if !status.success() {
        return Err(ExecPluginError::Failed {
            command: name,
            status,
        });
    }
    let credential = serde_json::from_slice::<ExecCredential>(&said).ok();
    let given = |status: &ExecCredentialStatus| {
        status.token.is_some() || status.client_certificate_data.is_some() && status.client_key_data.is_some()
    };
    credential
        .and_then(|credential| credential.status)
        .filter(given)
        .ok_or(ExecPluginError::NoCredential { command: name })
}

/// `exec.env`: a list of objects with `name` and `value`.
fn environment(plugin: &ExecConfig) -> impl Iterator<Item = (&String, &String)> {
    let variables = plugin.env.iter().flatten();
    variables.filter_map(|variable| Some((variable.get("name")?, variable.get("value")?)))
}

/// What the program is told: which version of the answer is wanted, that nobody can be asked, and, where it wants to
/// know, which cluster it is for.
fn exec_info(plugin: &ExecConfig) -> String {
    let version = plugin.api_version.as_deref();
    json!({
        "apiVersion": version.unwrap_or("client.authentication.k8s.io/v1"),
        "kind": "ExecCredential",
        "spec": { "interactive": false, "cluster": plugin.cluster },
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(script: &str) -> ExecConfig {
        let fields = json!({
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": "sh",
            "args": ["-c", script],
            "env": [{"name": "GREETING", "value": "hello"}],
        });
        serde_json::from_value(fields).expect("an exec plugin")
    }

    async fn filled_in(script: &str) -> Result<(AuthInfo, Option<Timestamp>), ExecPluginError> {
        let mut user = AuthInfo {
            exec: Some(plugin(script)),
            ..AuthInfo::default()
        };
        let expires = fill_in(&mut user).await?;
        assert!(user.exec.is_none(), "the client library is not to run it again");
        Ok((user, expires))
    }

    /// A secret as it goes onto the wire.
    fn shown(user: &AuthInfo) -> serde_json::Value {
        serde_json::to_value(user).expect("JSON")
    }

    #[tokio::test]
    async fn a_token_and_how_long_it_holds_are_taken() {
        let script =
            r#"echo '{"status": {"token": "'$GREETING'", "expirationTimestamp": "2026-11-22T00:00:00Z"}}'"#;
        let (user, expires) = filled_in(script).await.expect("credentials");
        assert_eq!(shown(&user)["token"], "hello");
        assert_eq!(
            expires.map(|time| time.to_string()).as_deref(),
            Some("2026-11-22T00:00:00Z")
        );
    }

    #[tokio::test]
    async fn a_client_certificate_is_taken_with_its_key() {
        let script = r#"echo '{"status": {"clientCertificateData": "CERT", "clientKeyData": "KEY"}}'"#;
        let (user, expires) = filled_in(script).await.expect("credentials");
        let shown = shown(&user);
        assert_eq!(
            (&shown["client-certificate-data"], &shown["client-key-data"]),
            (&json!(STANDARD.encode("CERT")), &json!(STANDARD.encode("KEY")))
        );
        assert_eq!(expires, None);
    }

    #[tokio::test]
    async fn it_is_told_that_nobody_can_be_asked() {
        let told: serde_json::Value = serde_json::from_str(&exec_info(&plugin(""))).expect("JSON");
        assert_eq!(told["apiVersion"], "client.authentication.k8s.io/v1");
        assert_eq!(told["spec"]["interactive"], false);
    }

    #[tokio::test]
    async fn what_it_prints_is_in_no_error() {
        for (script, words) in [
            ("echo SECRET; exit 3", "the exec plugin sh failed: exit status: 3"),
            ("echo SECRET", "the exec plugin sh gave no ExecCredential"),
            (
                r#"echo '{"status": {"clientCertificateData": "SECRET"}}'"#,
                "the exec plugin sh gave no ExecCredential",
            ),
        ] {
            let error = filled_in(script).await.expect_err("no credentials");
            let text = format!("{error} {error:?}");
            assert!(text.starts_with(words), "{text}");
            assert!(!text.contains("SECRET"), "{text}");
        }
    }

    #[tokio::test]
    async fn one_that_does_not_answer_or_cannot_be_run_is_named() {
        let slow = run(&plugin("exec sleep 600"), Duration::from_millis(50)).await;
        assert!(
            matches!(&slow, Err(ExecPluginError::TooSlow { command }) if command == "sh"),
            "{:?}",
            slow.err()
        );
        let mut missing = plugin("");
        missing.command = Some("/nonexistent/plugin".to_owned());
        let error = run(&missing, TIMEOUT).await.err().expect("an error").to_string();
        assert!(
            error.starts_with("cannot run the exec plugin /nonexistent/plugin: "),
            "{error}"
        );
    }
}
