//! Where the files of a debug container's target are, seen from the debug container: worked out from the
//! target's process, not assumed.

use std::path::Path;

use debuglet_proto::v1::ContainerStatusRequest;
use serde::Deserialize;

use crate::runtime::client::Runtime;

/// What containerd tells of a container's process (`ContainerStatus` with `verbose`, `info["info"]`).
#[derive(Deserialize)]
struct Info {
    pid: u32,
}

/// The target's root folder as a path in the PID namespace that it shares with the debug container:
/// `/proc/1/root` where it is process 1 of its own. `None` where it cannot be told.
pub(super) async fn files_at(runtime: &Runtime, target_id: &str) -> Option<String> {
    let request = ContainerStatusRequest {
        container_id: target_id.to_owned(),
        verbose: true,
    };
    let answer = runtime
        .runtime()
        .container_status(request)
        .await
        .ok()?
        .into_inner();
    let info: Info = serde_json::from_str(answer.info.get("info")?).ok()?;
    let status = Path::new("/proc").join(info.pid.to_string()).join("status");
    let status = tokio::fs::read_to_string(status).await.ok()?;
    Some(format!("/proc/{}/root", innermost_pid(&status)?))
}

/// The process id in the innermost of the namespaces it is in: the last of `NSpid` (proc_pid_status(5)). Under
/// the host's PID namespace it is the only one.
fn innermost_pid(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_target_are_under_its_own_pid_in_the_namespace_that_is_shared() {
        for (nspid, expected) in [
            ("4711\t1", Some(1)),
            ("4711\t17", Some(17)),
            ("4711", Some(4711)),
            ("", None),
        ] {
            let status = format!("Name:\tetcd\nNSpid:\t{nspid}\nVmPeak:\t1 kB\n");
            assert_eq!(innermost_pid(&status), expected, "{nspid:?}");
        }
    }
}
