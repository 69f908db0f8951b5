//! `debuglet check`: what this node has and lacks. It asks the node itself, so that it works without a running agent.

mod api;
mod cluster;
mod hidden_processes;
mod host;
mod runtime;

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::document::json;
use super::end;
use super::failure::Failure;
use super::output::{Colour, print, print_spans};
use super::table::columns;
use crate::config::Config;

/// The space between two columns.
const GAP: usize = 2;
/// The exit code when something that is required is missing.
const UNFIT: u8 = 1;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How to print it, where a table is not wanted
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Output>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Json,
}

/// How well something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// It is as it should be.
    Ok,
    /// The agent works, but not all that it is for, or not for long.
    Warn,
    /// The agent cannot do its work.
    Fail,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        }
    }

    fn colour(self) -> Colour {
        match self {
            Level::Ok => Colour::Green,
            Level::Warn => Colour::Yellow,
            Level::Fail => Colour::Red,
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    level: Level,
    /// One word for what was looked at.
    topic: &'static str,
    /// What was found, and what to do about it.
    message: String,
}

impl Finding {
    fn ok(topic: &'static str, message: impl Into<String>) -> Finding {
        Finding::new(Level::Ok, topic, message)
    }

    fn warn(topic: &'static str, message: impl Into<String>) -> Finding {
        Finding::new(Level::Warn, topic, message)
    }

    fn fail(topic: &'static str, message: impl Into<String>) -> Finding {
        Finding::new(Level::Fail, topic, message)
    }

    fn new(level: Level, topic: &'static str, message: impl Into<String>) -> Finding {
        // One line per finding: messages of a runtime may have more.
        let message = message.into().replace('\n', " ");
        Finding {
            level,
            topic,
            message,
        }
    }
}

/// The report as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeCheck<'a> {
    kind: &'static str,
    api_version: &'static str,
    findings: &'a [Finding],
}

/// Prints one line per finding; fails when something that is required is missing.
pub(super) fn run(config: Option<&Path>, arguments: &Arguments) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let findings = match (Config::load(config), runtime) {
        (Err(refused), _) => vec![Finding::fail("config", refused.to_string())],
        (Ok(_), Err(error)) => {
            return end(Err(Failure::new(format!("cannot wait for the runtime: {error}"))));
        }
        (Ok(config), Ok(runtime)) => runtime.block_on(look(&config)),
    };
    let printed = match arguments.output {
        Some(Output::Json) => json(&node_check(&findings)).and_then(|text| print(&text)),
        None => print_lines(&findings),
    };
    end(printed.map(|()| if is_fit(&findings) { 0 } else { UNFIT }))
}

/// Looks at everything.
async fn look(config: &Config) -> Vec<Finding> {
    let mut findings = vec![host::permissions()];
    findings.extend(runtime::look(config).await);
    findings.extend(hidden_processes::look(&config.socket()));
    findings.extend(api::look(config).await);
    findings.extend(cluster::look(config).await);
    findings.extend(host::folders(config));
    findings.extend(host::disks(config));
    findings.extend(host::registry(config).await);
    findings
}

fn is_fit(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.level != Level::Fail)
}

fn node_check(findings: &[Finding]) -> NodeCheck<'_> {
    NodeCheck {
        kind: "NodeCheck",
        api_version: "debuglet.io/v1alpha1",
        findings,
    }
}

fn lines(findings: &[Finding]) -> String {
    let row = |finding: &Finding| {
        let level = finding.level.word().to_owned();
        vec![level, finding.topic.to_owned(), finding.message.clone()]
    };
    let rows: Vec<Vec<String>> = findings.iter().map(row).collect();
    columns(&rows, GAP)
}

/// Prints one line per finding, each level in its colour.
fn print_lines(findings: &[Finding]) -> Result<(), Failure> {
    let text = lines(findings);
    let spans = text.lines().zip(findings).flat_map(|(line, finding)| {
        let (word, rest) = line.split_at(finding.level.word().len());
        [(Some(finding.level.colour()), word), (None, rest), (None, "\n")]
    });
    print_spans(&spans.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Vec<Finding> {
        vec![
            Finding::ok("runtime", "containerd 2.4.2"),
            Finding::warn("disk", "3 % left"),
            Finding::fail("logs", "not writable"),
        ]
    }

    #[test]
    fn the_report_is_in_columns() {
        let plain = "ok    runtime  containerd 2.4.2\nwarn  disk     3 % left\nFAIL  logs     not writable\n";
        assert_eq!(lines(&findings()), plain);
    }

    #[test]
    fn a_warning_leaves_a_node_fit_and_a_failure_does_not() {
        assert!(is_fit(&findings()[..2]));
        assert!(!is_fit(&findings()));
    }

    #[test]
    fn a_message_of_two_lines_keeps_each_finding_on_one() {
        let findings = [Finding::ok("a", "one\ntwo"), Finding::ok("b", "three")];
        assert_eq!(lines(&findings).lines().count(), 2);
    }

    #[test]
    fn the_report_as_json_names_its_kind() {
        let report: serde_json::Value =
            serde_json::from_str(&json(&node_check(&findings())).unwrap()).unwrap();
        assert_eq!(report["kind"], "NodeCheck");
        assert_eq!(report["findings"][2]["level"], "fail");
        assert_eq!(report["findings"][2]["topic"], "logs");
    }

    #[test]
    fn a_configuration_that_is_refused_is_the_only_finding() {
        let arguments = Arguments { output: None };
        let code = run(Some(Path::new("/nonexistent/config.toml")), &arguments);
        assert_eq!(code, ExitCode::from(UNFIT));
    }
}
