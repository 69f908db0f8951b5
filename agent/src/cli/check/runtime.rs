//! What the runtime is and can do, and what else uses it.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use containerd_client::services::v1::version_client::VersionClient;
use debuglet_proto::v1::{GetEventsRequest, StatusRequest, VersionRequest};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use tonic::{Code, Status};

use super::Finding;
use crate::config::{CgroupDriverSetting, Config};
use crate::kubernetes::api_server::ApiServer;
use crate::kubernetes::kubelet::Kubelet;
use crate::pod::cgroup::CgroupDriver;
use crate::runtime::client::Runtime;
use crate::source::kubelet;

/// A runtime that takes longer to say who it is does not work.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The CRI version that the agent speaks.
const CRI_VERSION: &str = "v1";
/// The runtime that is tested.
const CONTAINERD: &str = "containerd";
/// Where cgroups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Looks at the runtime, its events, a kubelet beside us, and the cgroups.
pub(super) async fn look(config: &Config) -> Vec<Finding> {
    let runtime = Runtime::alone(&config.runtime_endpoint);
    let (version, name) = version(&runtime).await;
    let Some(name) = name else {
        // Without a runtime the rest can only be known in part.
        let mut findings = vec![version];
        findings.extend(kubelet(config, &runtime).await);
        findings.push(cgroups(config, None));
        return findings;
    };
    let mut findings = vec![version, readiness(&runtime).await, events(&runtime, &name).await];
    findings.extend(kubelet(config, &runtime).await);
    findings.push(cgroups(config, in_time(runtime.cgroup_driver()).await.ok()));
    findings
}

/// Which runtime it is; its name too, where it answers.
async fn version(runtime: &Runtime) -> (Finding, Option<String>) {
    let socket = runtime.socket();
    let mut client = runtime.runtime();
    let request = VersionRequest {
        version: CRI_VERSION.to_owned(),
    };
    let answer = match in_time(client.version(request)).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return (Finding::fail("runtime", unreachable(socket, &status)), None),
    };
    // containerd's packages say "v2.4.2", "1.6.20~ds1".
    let version = answer.runtime_version.trim_start_matches('v');
    let found = format!("{} {version} at {}", answer.runtime_name, socket.display());
    let finding = if answer.runtime_api_version != CRI_VERSION {
        let other = answer.runtime_api_version;
        Finding::fail(
            "runtime",
            format!("{found} speaks CRI {other}, and {CRI_VERSION} is needed"),
        )
    } else if answer.runtime_name != CONTAINERD || !is_tested(version) {
        let message = format!("{found}, CRI {CRI_VERSION}; containerd 1.6 and later is what is tested");
        Finding::warn("runtime", message)
    } else {
        Finding::ok("runtime", format!("{found}, CRI {CRI_VERSION}"))
    };
    (finding, Some(answer.runtime_name))
}

/// Whether a version of containerd is 1.6 or later.
fn is_tested(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let (major, minor) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    (major, minor) >= (1, 6)
}

/// Why nobody answers at the socket, and what can be done.
fn unreachable(socket: &Path, status: &Status) -> String {
    let socket_is = match std::os::unix::net::UnixStream::connect(socket) {
        Ok(_) if status.code() == Code::Unimplemented => {
            "answers, but not CRI v1: in containerd's config.toml take \"cri\" out of disabled_plugins"
                .to_owned()
        }
        Ok(_) => format!("does not answer: {}", status.message()),
        Err(error) => match error.kind() {
            std::io::ErrorKind::NotFound => {
                "is not there: start containerd, or set runtime_endpoint".to_owned()
            }
            std::io::ErrorKind::ConnectionRefused => "has nobody listening: start containerd".to_owned(),
            std::io::ErrorKind::PermissionDenied => "may be used by root only".to_owned(),
            _ => format!("cannot be used: {error}"),
        },
    };
    format!("{} {socket_is}", socket.display())
}

/// The runtime's own opinion of itself (CRI `Status`).
async fn readiness(runtime: &Runtime) -> Finding {
    let mut client = runtime.runtime();
    let conditions = match in_time(client.status(StatusRequest { verbose: false })).await {
        Ok(answer) => answer.into_inner().status.unwrap_or_default().conditions,
        Err(status) => {
            return Finding::fail("ready", format!("the runtime does not say: {}", status.message()));
        }
    };
    let unmet = |kind: &str| {
        conditions
            .iter()
            .find(|condition| condition.r#type == kind && !condition.status)
    };
    if let Some(condition) = unmet("RuntimeReady") {
        Finding::fail(
            "ready",
            format!("the runtime is not ready: {}", condition.message),
        )
    } else if let Some(condition) = unmet("NetworkReady") {
        let message = format!("only pods on the host's network can start: {}", condition.message);
        Finding::warn("ready", message)
    } else {
        Finding::ok("ready", "the runtime and its network")
    }
}

/// Where the agent learns of starts and exits.
async fn events(runtime: &Runtime, name: &str) -> Finding {
    if name == CONTAINERD
        && in_time(VersionClient::new(runtime.channel()).version(()))
            .await
            .is_ok()
    {
        return Finding::ok("events", "containerd's stream");
    }
    let mut client = runtime.runtime();
    // The answer may begin with the first event only: none in time means that it is there. It is let go at once,
    // since an unread stream holds up the runtime.
    let call = client.get_container_events(GetEventsRequest::default());
    match tokio::time::timeout(Duration::from_millis(200), call).await {
        Ok(Err(status)) => {
            let message = format!("the runtime has no stream of events: {}", status.message());
            Finding::fail("events", message)
        }
        Ok(Ok(_)) | Err(_) => Finding::ok("events", "CRI's stream"),
    }
}

/// Whether a kubelet is here, and what is doubtful about that.
async fn kubelet(config: &Config, runtime: &Runtime) -> Vec<Finding> {
    let folder = config.manifests.path.display();
    let api_server = ApiServer::configured(&config.kubernetes.kubeconfig).map(Arc::new);
    let down_after = Duration::from_secs(config.kubernetes.kubelet_down_seconds);
    let look = Kubelet::new(&config.node_name, api_server, down_after)
        .look()
        .await;
    let evidence = kubelet::evidence(look, kubelet::sandboxes(runtime).await);
    let mut findings = vec![if evidence.is_here() {
        Finding::warn(
            "kubelet",
            format!("one runs here ({evidence}): no pods are started from {folder}"),
        )
    } else {
        Finding::ok("kubelet", format!("none: pods are started from {folder}"))
    }];
    let doubts = kubelet::doubts(&look, &config.node_name);
    // Whether processes are hidden is a question of the agent's rights, and not of ours.
    let doubts = [doubts.health_port, doubts.lease];
    findings.extend(
        doubts
            .into_iter()
            .flatten()
            .map(|doubt| Finding::warn("kubelet", doubt)),
    );
    findings
}

/// The version of cgroups, and who makes the pods'. `driver` is what the runtime says.
#[expect(
    clippy::disallowed_methods,
    reason = "a command reads what its user may read, and holds up nobody else"
)]
fn cgroups(config: &Config, driver: Option<CgroupDriver>) -> Finding {
    let version = match statfs(CGROUPS) {
        Ok(found) if found.filesystem_type() == CGROUP2_SUPER_MAGIC => "v2",
        Ok(_) => "v1",
        Err(error) => return Finding::fail("cgroups", format!("cannot look at {CGROUPS}: {error}")),
    };
    let configured = match config.cgroup_driver {
        CgroupDriverSetting::Auto => None,
        CgroupDriverSetting::Systemd => Some(CgroupDriver::Systemd),
        CgroupDriverSetting::Cgroupfs => Some(CgroupDriver::Cgroupfs),
    };
    cgroup_finding(version, configured, driver)
}

fn cgroup_finding(version: &str, configured: Option<CgroupDriver>, driver: Option<CgroupDriver>) -> Finding {
    let name = |driver| match driver {
        CgroupDriver::Systemd => "systemd",
        CgroupDriver::Cgroupfs => "cgroupfs",
    };
    match (configured, driver) {
        (Some(ours), Some(theirs)) if ours != theirs => {
            let (ours, theirs) = (name(ours), name(theirs));
            let message = format!("{version}, driver {ours} by cgroup_driver, but the runtime uses {theirs}");
            Finding::fail("cgroups", message)
        }
        (Some(ours), _) => Finding::ok(
            "cgroups",
            format!("{version}, driver {}, as configured", name(ours)),
        ),
        (None, Some(theirs)) => Finding::ok(
            "cgroups",
            format!("{version}, driver {}, as the runtime says", name(theirs)),
        ),
        (None, None) => Finding::warn(
            "cgroups",
            format!("{version}, and the runtime does not say its driver"),
        ),
    }
}

/// The answer, or `DeadlineExceeded` where it does not come.
async fn in_time<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(TIMEOUT, call).await {
        Ok(answer) => answer,
        Err(_) => Err(Status::deadline_exceeded(format!(
            "no answer within {} s",
            TIMEOUT.as_secs()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn containerd_is_tested_from_1_6_on() {
        for version in ["1.6.20~ds1", "1.7.0-rc.1", "2.4.2"] {
            assert!(is_tested(version), "{version}");
        }
        for version in ["1.5.9", "0.9", "unknown"] {
            assert!(!is_tested(version), "{version}");
        }
    }

    #[test]
    fn a_cgroup_driver_that_is_not_the_runtimes_is_a_failure() {
        let finding = cgroup_finding("v2", Some(CgroupDriver::Cgroupfs), Some(CgroupDriver::Systemd));
        assert_eq!(finding.level, Level::Fail);
        assert_eq!(
            finding.message,
            "v2, driver cgroupfs by cgroup_driver, but the runtime uses systemd"
        );
        for (configured, driver, expected) in [
            (
                None,
                Some(CgroupDriver::Systemd),
                "v1, driver systemd, as the runtime says",
            ),
            (
                Some(CgroupDriver::Cgroupfs),
                None,
                "v1, driver cgroupfs, as configured",
            ),
        ] {
            let finding = cgroup_finding("v1", configured, driver);
            assert_eq!((finding.level, finding.message.as_str()), (Level::Ok, expected));
        }
    }

    #[tokio::test]
    async fn a_socket_that_is_not_there_is_named() {
        let socket = Path::new("/nonexistent/containerd.sock");
        let (finding, name) = version(&Runtime::alone(socket)).await;
        assert_eq!(name, None);
        assert_eq!(finding.level, Level::Fail);
        assert_eq!(
            finding.message,
            "/nonexistent/containerd.sock is not there: start containerd, or set runtime_endpoint"
        );
    }

    #[tokio::test]
    async fn a_socket_where_nobody_listens_any_more_is_told_from_one_that_is_not_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("containerd.sock");
        drop(std::os::unix::net::UnixListener::bind(&socket).expect("a socket"));
        let (finding, _) = version(&Runtime::alone(&socket)).await;
        assert!(
            finding
                .message
                .ends_with("has nobody listening: start containerd"),
            "{}",
            finding.message
        );
    }
}
