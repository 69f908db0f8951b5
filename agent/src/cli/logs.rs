//! `debuglet logs`: what a container wrote.

use std::time::Duration;

use clap::Args;

use super::PodArgument;
use super::client::{Client, pod_path, with_query};
use super::failure::Failure;
use super::output::{tell, write_container_bytes};
use super::pod_lookup::{choose_container, find_pod};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    debuglet logs etcd-node1 -n kube-system\n  \
    debuglet logs etcd-node1 -n kube-system -c debugger-8f2lq -f\n  \
    debuglet logs cart --tail=20 --since=5m --timestamps")]
pub(super) struct Arguments {
    #[command(flatten)]
    pod: PodArgument,
    /// The container
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Go on as the container writes
    #[arg(short, long)]
    follow: bool,
    /// What the container wrote before its last restart
    #[arg(short, long)]
    previous: bool,
    /// Only so many of the newest lines; -1 for all
    #[arg(long, value_name = "LINES", default_value_t = -1, allow_negative_numbers = true,
          value_parser = clap::value_parser!(i64).range(-1..))]
    tail: i64,
    /// Only what is newer than this, for example 30s, 5m or 2h
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    since: Option<Duration>,
    /// When each line was written
    #[arg(long)]
    timestamps: bool,
}

/// Reads a duration as kubectl takes it: `90s`, `5m`, `1h30m`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration: jiff::SignedDuration = text.parse().map_err(|_| "write it as 30s, 5m or 2h".to_owned())?;
    match Duration::try_from(duration) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("it must be more than nothing".into()),
    }
}

/// Copies the log to stdout.
pub(super) async fn run(client: &Client, arguments: Arguments) -> Result<(), Failure> {
    let (namespace, name) = arguments.pod.parse()?;
    let pod = find_pod(client, namespace, name).await?;
    let container = choose_container(&pod, arguments.container.as_deref())?;
    if !container.note.is_empty() {
        tell(&container.note);
    }
    let path = log_path(namespace, name, &container.name, &arguments);
    let mut log = client.bytes(&path).await?;
    while let Some(bytes) = log.next().await? {
        write_container_bytes(&bytes)?;
    }
    Ok(())
}

/// The log's path, with what is asked of it.
fn log_path(namespace: &str, pod: &str, container: &str, arguments: &Arguments) -> String {
    let flag = |set: bool| if set { "true".into() } else { String::new() };
    // Kubernetes takes whole seconds: more rather than less.
    let since = arguments
        .since
        .map(|since| since.as_secs() + u64::from(since.subsec_nanos() > 0));
    with_query(
        &pod_path(namespace, pod, "log"),
        [
            ("container", container.to_owned()),
            ("follow", flag(arguments.follow)),
            ("previous", flag(arguments.previous)),
            (
                "tailLines",
                if arguments.tail < 0 {
                    String::new()
                } else {
                    arguments.tail.to_string()
                },
            ),
            (
                "sinceSeconds",
                since.map(|seconds| seconds.to_string()).unwrap_or_default(),
            ),
            ("timestamps", flag(arguments.timestamps)),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_of_the_log_is_in_its_path() {
        let mut arguments = Arguments {
            pod: PodArgument {
                pod: "etcd".into(),
                namespace: "kube-system".into(),
            },
            container: None,
            follow: true,
            previous: false,
            tail: 5,
            since: Some(Duration::from_millis(1500)),
            timestamps: true,
        };
        assert_eq!(
            log_path("kube-system", "etcd", "dbg", &arguments),
            "/api/v1/namespaces/kube-system/pods/etcd/log\
             ?container=dbg&follow=true&tailLines=5&sinceSeconds=2&timestamps=true"
        );
        arguments.tail = -1;
        assert!(!log_path("kube-system", "etcd", "dbg", &arguments).contains("tailLines"));
    }

    #[test]
    fn durations_are_written_as_kubectl_has_them() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        for wrong in ["5", "yesterday", "-5m", "0s", ""] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
