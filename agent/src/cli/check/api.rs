//! The agent, what is wrong on its node as it says, and whether kubectl reaches it.

use std::path::Path;

use super::super::client::{Client, NODE_REPORT};
use super::Finding;
use crate::config::Config;
use crate::store::node_report::{ApiReport, NodeReport};
use crate::store::problems::Problem;

/// Whether the agent runs, what problems it has, and whether its API can be reached with TLS.
pub(super) async fn look(config: &Config) -> Vec<Finding> {
    let report: Result<NodeReport, _> = Client::new(config.socket()).get(NODE_REPORT).await;
    match report {
        Ok(report) => {
            let mut findings = vec![Finding::ok("agent", format!("debuglet {} runs", report.version))];
            findings.extend(report.problems.iter().map(problem));
            findings.push(served(config, &report.api));
            findings
        }
        Err(error) => vec![
            Finding::warn("agent", format!("{error}. {}", error.hint()).trim_end()),
            to_be_served(config),
        ],
    }
}

/// Something that is wrong on the node. What the agent's work needs is judged by itself, so it is never a failure.
fn problem(problem: &Problem) -> Finding {
    let message = match problem.pod.as_str() {
        "" => problem.message.clone(),
        pod => format!("{pod}: {}", problem.message),
    };
    Finding::warn("problem", message)
}

/// What the agent says of its listener.
#[expect(
    clippy::disallowed_methods,
    reason = "a command reads what its user may read, and holds up nobody else"
)]
fn served(config: &Config, report: &ApiReport) -> Finding {
    match (config.api.listen, report) {
        (None, report) if report.listen.is_empty() => off(config),
        (Some(_), report) if report.listen.is_empty() => Finding::warn(
            "api",
            "the agent does not listen with TLS: its configuration is another, or was changed after its start",
        ),
        (_, report) if !report.ready => Finding::warn("api", format!("no TLS: {}", report.message)),
        (_, report) if !Path::new(&report.kubeconfig).exists() => Finding::warn(
            "api",
            format!("{} is gone; a restart of the agent writes it", report.kubeconfig),
        ),
        (_, report) => Finding::ok(
            "api",
            format!(
                "{}, for kubectl with KUBECONFIG={}",
                report.listen, report.kubeconfig
            ),
        ),
    }
}

/// Whether an agent could listen.
fn to_be_served(config: &Config) -> Finding {
    let Some(listen) = config.api.listen else {
        return off(config);
    };
    match std::net::TcpListener::bind(listen) {
        Ok(_) => Finding::ok("api", format!("{listen} is free")),
        Err(error) => Finding::warn("api", format!("cannot listen on {listen}: {error}")),
    }
}

fn off(config: &Config) -> Finding {
    let socket = config.socket();
    Finding::ok("api", format!("{} only: api.listen is off", socket.display()))
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn config(run_dir: &Path) -> Config {
        let mut config = Config::load(None).expect("defaults");
        config.run_dir = run_dir.to_path_buf();
        config
    }

    #[tokio::test]
    async fn an_agent_that_does_not_run_is_a_warning() {
        let folder = tempfile::tempdir().expect("a folder");
        let findings = look(&config(folder.path())).await;
        assert_eq!((findings[0].topic, findings[0].level), ("agent", Level::Warn));
    }

    #[test]
    fn a_listener_is_shown_with_its_kubeconfig_and_its_trouble() {
        let folder = tempfile::tempdir().expect("a folder");
        let kubeconfig = folder.path().join("kubeconfig");
        let mut config = config(folder.path());
        let report = ApiReport {
            listen: "https://127.0.0.1:10260".to_owned(),
            kubeconfig: kubeconfig.display().to_string(),
            ready: true,
            message: String::new(),
        };
        assert_eq!(served(&config, &report).level, Level::Warn, "no kubeconfig");
        std::fs::write(&kubeconfig, "").expect("written");
        let finding = served(&config, &report);
        assert_eq!(finding.level, Level::Ok);
        assert!(
            finding.message.starts_with("https://127.0.0.1:10260, "),
            "{finding:?}"
        );
        let trouble = ApiReport {
            ready: false,
            message: "cannot listen on 127.0.0.1:10260".to_owned(),
            ..report
        };
        let finding = served(&config, &trouble);
        assert_eq!(
            (finding.level, finding.message.as_str()),
            (Level::Warn, "no TLS: cannot listen on 127.0.0.1:10260")
        );
        assert_eq!(served(&config, &ApiReport::default()).level, Level::Warn);
        config.api.listen = None;
        assert_eq!(served(&config, &ApiReport::default()).level, Level::Ok);
    }

    #[test]
    fn a_problem_is_a_warning_that_names_its_pod() {
        let told: Problem = serde_json::from_value(serde_json::json!({
            "kind": "Leftover", "object": "4f0c", "pod": "shop/cart", "message": "no record", "since": "2026-11-29T10:00:00Z",
        }))
        .expect("a problem");
        let finding = problem(&told);
        assert_eq!(
            (finding.level, finding.message.as_str()),
            (Level::Warn, "shop/cart: no record")
        );
    }

    #[test]
    fn a_port_that_is_taken_is_a_warning_before_the_agent_is_started() {
        let folder = tempfile::tempdir().expect("a folder");
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut config = config(folder.path());
        config.api.listen = Some(taken.local_addr().expect("its address"));
        assert_eq!(to_be_served(&config).level, Level::Warn);
        config.api.listen = Some(([127, 0, 0, 1], 0).into());
        assert_eq!(to_be_served(&config).level, Level::Ok);
    }
}
