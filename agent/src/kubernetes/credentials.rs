//! Where the API server is, and who we are to it: read from a kubeconfig and the files that it names, or from what a pod
//! of a cluster has mounted.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::jiff::Timestamp;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig, KubeconfigError};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::runtime::Handle;

use super::credential_files::CredentialFiles;
use super::exec_plugin::{self, ExecPluginError};
use crate::config::{KUBELET_KUBECONFIG, KubeconfigSetting};

/// What a pod of a cluster has mounted to reach its API server (`ServiceAccount` admission).
const IN_CLUSTER_FILES: [&str; 2] = [
    "/var/run/secrets/kubernetes.io/serviceaccount/token",
    "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
];

/// Why there are no credentials. It names files and never what is in them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialsError {
    /// There is no kubeconfig.
    #[error("there is no kubeconfig {}", file.display())]
    NotThere {
        /// The file.
        file: PathBuf,
    },
    /// What is in the file is no kubeconfig: the parser's own words would show it.
    #[error("{} is not a kubeconfig", file.display())]
    NotAKubeconfig {
        /// The file.
        file: PathBuf,
    },
    /// The kubeconfig, or a file that it names, cannot be read.
    #[error("cannot use the kubeconfig {}: {source}", file.display())]
    Kubeconfig {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        source: KubeconfigError,
    },
    /// The program that the kubeconfig names gives none.
    #[error("cannot use the kubeconfig {}: {source}", file.display())]
    ExecPlugin {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        source: ExecPluginError,
    },
    /// This is not a pod of a cluster.
    #[error("cannot find the API server from within: {0}")]
    InCluster(#[source] kube::config::InClusterError),
    /// The thread that reads them ended before it had: the agent is shutting down, or it panicked.
    #[error("the credentials were not read: {0}")]
    Interrupted(#[source] tokio::task::JoinError),
}

/// What a client is made from.
pub(super) struct Credentials {
    /// Address and credentials.
    pub(super) config: kube::Config,
    /// What they were read from.
    pub(super) files: CredentialFiles,
    /// When they end, where that is known.
    pub(super) expire: Option<Timestamp>,
    /// Whom the client certificate names, where there is one.
    pub(super) certificate_user: Option<String>,
}

/// The kubeconfig that is meant; none within a cluster.
pub(super) fn kubeconfig_of(setting: &KubeconfigSetting) -> Option<&Path> {
    match setting {
        KubeconfigSetting::InCluster => None,
        KubeconfigSetting::File(file) => Some(file),
        KubeconfigSetting::Kubelet | KubeconfigSetting::Off => Some(Path::new(KUBELET_KUBECONFIG)),
    }
}

/// Where address and credentials come from, in words.
pub(super) fn described(setting: &KubeconfigSetting) -> String {
    kubeconfig_of(setting).map_or_else(|| "in-cluster".to_owned(), |file| file.display().to_string())
}

/// Reads them as they are now, on threads that may block.
pub(super) async fn read(setting: &KubeconfigSetting) -> Result<Credentials, CredentialsError> {
    match kubeconfig_of(setting) {
        Some(file) => from_file(file).await,
        None => blocking(within_cluster).await,
    }
}

/// Runs what reads files, on a thread that may block.
async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, CredentialsError> + Send + 'static,
) -> Result<T, CredentialsError> {
    let read = tokio::task::spawn_blocking(read).await;
    read.map_err(CredentialsError::Interrupted)?
}

fn within_cluster() -> Result<Credentials, CredentialsError> {
    let mut files = CredentialFiles::default();
    for file in IN_CLUSTER_FILES {
        files.look_at(Path::new(file));
    }
    Ok(Credentials {
        config: kube::Config::incluster().map_err(CredentialsError::InCluster)?,
        files,
        expire: None,
        certificate_user: None,
    })
}

async fn from_file(file: &Path) -> Result<Credentials, CredentialsError> {
    let from = file.to_path_buf();
    let (mut kubeconfig, files) = blocking(move || {
        let mut files = CredentialFiles::default();
        files.look_at(&from);
        let kubeconfig = Kubeconfig::read_from(&from).map_err(|source| refused(&from, source))?;
        for named in files_in(&kubeconfig) {
            files.look_at(Path::new(&named));
        }
        Ok((kubeconfig, files))
    })
    .await?;
    let expire = ask_plugin(&mut kubeconfig)
        .await
        .map_err(|source| CredentialsError::ExecPlugin {
            file: file.to_path_buf(),
            source,
        })?;
    let from = file.to_path_buf();
    let mut clusters = kubeconfig
        .clusters
        .iter()
        .filter_map(|named| named.cluster.as_ref());
    let names_proxy = clusters.any(|cluster| cluster.proxy_url.is_some());
    blocking(move || {
        // It reads the files that the kubeconfig names, and waits for nothing.
        let options = KubeConfigOptions::default();
        let made = Handle::current().block_on(kube::Config::from_custom_kubeconfig(kubeconfig, &options));
        let mut config = made.map_err(|source| refused(&from, source))?;
        if !names_proxy {
            // One that the environment names, HTTPS_PROXY, is for the way to other networks.
            config.proxy_url = None;
        }
        Ok(Credentials {
            certificate_user: certificate_user(&config.auth_info),
            config,
            files,
            expire,
        })
    })
    .await
}

/// The common name in the client certificate, which is the user's name (x509 authentication).
#[expect(
    clippy::disallowed_methods,
    reason = "the configuration names this file of the node's owner; on a thread that may block"
)]
fn certificate_user(user: &AuthInfo) -> Option<String> {
    let pem = match (&user.client_certificate_data, &user.client_certificate) {
        (Some(data), _) => STANDARD.decode(data).ok()?,
        (None, Some(file)) => std::fs::read(file).ok()?,
        (None, None) => return None,
    };
    let certificate = CertificateDer::from_pem_slice(&pem).ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?;
    Some(name.as_str().ok()?.to_owned())
}

fn refused(file: &Path, source: KubeconfigError) -> CredentialsError {
    let file = file.to_path_buf();
    match source {
        KubeconfigError::ReadConfig(error, _) if error.kind() == std::io::ErrorKind::NotFound => {
            CredentialsError::NotThere { file }
        }
        KubeconfigError::Parse(_) => CredentialsError::NotAKubeconfig { file },
        source => CredentialsError::Kubeconfig { file, source },
    }
}

/// The files that a kubeconfig names.
fn files_in(kubeconfig: &Kubeconfig) -> Vec<String> {
    let clusters = kubeconfig
        .clusters
        .iter()
        .filter_map(|named| named.cluster.as_ref());
    let authorities = clusters.filter_map(|cluster| cluster.certificate_authority.clone());
    let users = kubeconfig
        .auth_infos
        .iter()
        .filter_map(|named| named.auth_info.as_ref());
    let of_users = users.flat_map(|user| {
        [&user.client_certificate, &user.client_key, &user.token_file]
            .into_iter()
            .flatten()
            .cloned()
    });
    authorities.chain(of_users).collect()
}

/// Runs the exec plugin of the user of the current context, if that has one.
async fn ask_plugin(kubeconfig: &mut Kubeconfig) -> Result<Option<Timestamp>, ExecPluginError> {
    let current = kubeconfig.current_context.clone();
    let named = kubeconfig
        .contexts
        .iter()
        .find(|context| Some(&context.name) == current.as_ref());
    let Some(context) = named.and_then(|named| named.context.clone()) else {
        return Ok(None);
    };
    let cluster = kubeconfig
        .clusters
        .iter()
        .find(|cluster| cluster.name == context.cluster)
        .and_then(|named| named.cluster.clone());
    let user = kubeconfig
        .auth_infos
        .iter_mut()
        .find(|user| Some(&user.name) == context.user.as_ref())
        .and_then(|named| named.auth_info.as_mut());
    let Some(user) = user else { return Ok(None) };
    if let (Some(plugin), Some(cluster)) = (&mut user.exec, cluster)
        && plugin.provide_cluster_info
    {
        // Without its authority where that cannot be read: making the client says so.
        plugin.cluster = (&cluster).try_into().ok();
    }
    exec_plugin::fill_in(user).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig(user: &str) -> String {
        format!(
            r#"{{"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{{"name": "c", "cluster": {{"server": "https://10.0.0.1:6443"}}}}],
            "users": [{{"name": "u", "user": {user}}}],
            "contexts": [{{"name": "c", "context": {{"cluster": "c", "user": "u"}}}}]}}"#
        )
    }

    async fn read_text(folder: &Path, text: &str) -> Result<Credentials, CredentialsError> {
        let file = folder.join("kubeconfig");
        std::fs::write(&file, text).expect("written");
        read(&KubeconfigSetting::File(file)).await
    }

    #[tokio::test]
    async fn a_file_that_the_kubeconfig_names_is_looked_at_too() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("token"), "one").expect("written");
        let text = kubeconfig(r#"{"tokenFile": "token"}"#);
        let credentials = read_text(folder.path(), &text).await.expect("credentials");
        assert_eq!(credentials.config.cluster_url, "https://10.0.0.1:6443/");
        assert!(credentials.files.are_unchanged().await);
        std::fs::write(folder.path().join("token"), "another").expect("written");
        assert!(!credentials.files.are_unchanged().await);
    }

    #[tokio::test]
    async fn a_plugin_is_asked_for_the_user_of_the_current_context() {
        let folder = tempfile::tempdir().expect("a folder");
        let plugin = r#"{"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "echo",
            "args": ["{\"status\": {\"token\": \"t\", \"expirationTimestamp\": \"2026-11-22T00:00:00Z\"}}"]}}"#;
        let credentials = read_text(folder.path(), &kubeconfig(plugin)).await;
        let credentials = credentials.expect("credentials");
        assert!(credentials.expire.is_some());
        assert!(credentials.config.auth_info.token.is_some());
    }

    #[tokio::test]
    async fn a_client_certificate_names_its_user_in_a_file_and_within_the_kubeconfig() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut wanted = rcgen::CertificateParams::default();
        let name = &mut wanted.distinguished_name;
        name.push(rcgen::DnType::OrganizationName, "system:nodes");
        name.push(rcgen::DnType::CommonName, "system:node:node1");
        let certificate = wanted.self_signed(&key).expect("a certificate").pem();
        // A kubelet keeps both in one file.
        let both = format!("{certificate}{}", key.serialize_pem());
        std::fs::write(folder.path().join("client.pem"), &both).expect("written");
        let data = STANDARD.encode(&both);
        for (user, expected) in [
            (
                r#"{"client-certificate": "client.pem", "client-key": "client.pem"}"#.to_owned(),
                Some("system:node:node1"),
            ),
            (
                format!(r#"{{"client-certificate-data": "{data}", "client-key-data": "{data}"}}"#),
                Some("system:node:node1"),
            ),
            (r#"{"token": "t"}"#.to_owned(), None),
        ] {
            let credentials = read_text(folder.path(), &kubeconfig(&user)).await;
            let credentials = credentials.expect("credentials");
            assert_eq!(credentials.certificate_user.as_deref(), expected);
        }
    }

    #[tokio::test]
    async fn what_is_wrong_names_the_file_and_shows_nothing_of_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("kubeconfig");
        let missing = read(&KubeconfigSetting::File(file.clone())).await.err();
        assert_eq!(
            missing.expect("an error").to_string(),
            format!("there is no kubeconfig {}", file.display())
        );
        for text in [
            "users: [{name: u, user: {token: [SECRET]}}]",
            "SECRET",
            "users: {SECRET",
            &kubeconfig(r#"{"client-key-data": "SECRET!", "client-certificate-data": "SECRET!"}"#)
                .replace("\"c\", \"user\"", "\"SECRE\", \"user\""),
        ] {
            let error = read_text(folder.path(), text).await.err().expect("an error");
            let words = format!("{error} {error:?}");
            assert!(words.contains("kubeconfig"), "{words}");
            assert!(!words.contains("SECRET"), "{words}");
        }
    }
}
