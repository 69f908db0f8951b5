//! Whether the API server of the node's cluster answers.

use super::Finding;
use crate::config::{Config, KUBELET_KUBECONFIG};
use crate::kubernetes::api_server::ApiServer;
use crate::kubernetes::node_name::NodeName;

/// Asks the API server for its version, and what it says of the node's name. A node without one is as fit as any.
pub(super) async fn look(config: &Config) -> Vec<Finding> {
    let Some(api_server) = ApiServer::configured(&config.kubernetes.kubeconfig) else {
        return vec![Finding::ok("cluster", "none: kubernetes.kubeconfig is off")];
    };
    let mut findings = vec![version(&api_server).await];
    if api_server.reach().borrow().answers()
        && let NodeName::Doubted(doubt) = api_server.node_name(&config.node_name).await
    {
        findings.push(Finding::warn("cluster", doubt));
    }
    findings
}

async fn version(api_server: &ApiServer) -> Finding {
    let client = match api_server.client().await {
        Ok(client) => client,
        Err(error) if error.is_not_there() && api_server.may_be_missing() => {
            return Finding::ok("cluster", format!("none: there is no {KUBELET_KUBECONFIG}"));
        }
        Err(error) => return Finding::warn("cluster", error.to_string()),
    };
    let address = api_server.address();
    let asked = client.apiserver_version().await;
    match api_server.heard(asked) {
        Ok(version) => Finding::ok(
            "cluster",
            format!(
                "Kubernetes {} at {address}, by {}",
                version.git_version,
                api_server.described()
            ),
        ),
        Err((error, reason)) => {
            let what = match error {
                kube::Error::Api(_) => "answers, and refuses",
                _ => "does not answer",
            };
            Finding::warn("cluster", format!("{address} {what}: {reason}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;
    use crate::config::KubeconfigSetting;

    #[tokio::test]
    async fn a_node_without_a_cluster_is_fit_and_one_whose_server_is_away_is_warned() {
        let mut config = Config::load(None).expect("defaults");
        config.kubernetes.kubeconfig = KubeconfigSetting::Off;
        assert_eq!(look(&config).await[0].level, Level::Ok);

        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("kubeconfig");
        config.kubernetes.kubeconfig = KubeconfigSetting::File(file.clone());
        let [finding] = &look(&config).await[..] else {
            panic!("one finding")
        };
        assert_eq!(finding.level, Level::Warn);
        assert!(finding.message.contains("there is no kubeconfig"), "{finding:?}");

        // Bound and never accepted from: what listened there is gone when it is asked.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a port")
            .port();
        let text = format!(
            "{{\"clusters\": [{{\"name\": \"c\", \"cluster\": {{\"server\": \"http://127.0.0.1:{port}\"}}}}], \
             \"contexts\": [{{\"name\": \"c\", \"context\": {{\"cluster\": \"c\"}}}}], \"current-context\": \"c\"}}"
        );
        std::fs::write(&file, text).expect("written");
        let [finding] = &look(&config).await[..] else {
            panic!("one finding")
        };
        assert_eq!(finding.level, Level::Warn);
        assert!(
            finding.message.contains("does not answer: Connection refused"),
            "{finding:?}"
        );
    }
}
