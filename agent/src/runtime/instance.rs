//! Which run of the runtime answers on the socket: another one may be another version, or have another configuration.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The random id of this boot of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Where `starttime` stands in /proc/PID/stat, counted from 0 after the name's closing parenthesis (proc(5): field 22).
const START_TIME_FIELD: usize = 19;

/// The identity of the process that serves the socket: boot, process id and start time; for a process that cannot
/// be looked up from here, the socket itself, which a runtime makes anew when it starts. Empty where neither can be
/// told; that equals nothing, not even another empty one.
pub(crate) async fn instance(socket: &Path) -> String {
    let identity = read(socket).await;
    identity.unwrap_or_else(|failed| {
        tracing::debug!("the runtime's process is unknown: {failed}");
        String::new()
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "files of the kernel, and the runtime's socket"
)]
async fn read(socket: &Path) -> std::io::Result<String> {
    let unknown = || std::io::Error::from(std::io::ErrorKind::NotFound);
    let peer = tokio::net::UnixStream::connect(socket).await?.peer_cred()?;
    let boot = tokio::fs::read_to_string(BOOT_ID).await?;
    // Zero stands for a process of another PID namespace, which cannot be looked up here.
    let Some(pid) = peer.pid().filter(|pid| *pid > 0) else {
        let socket = tokio::fs::metadata(socket).await?;
        let (seconds, nanoseconds) = (socket.ctime(), socket.ctime_nsec());
        return Ok(format!(
            "{}/socket {}/{seconds}.{nanoseconds:09}",
            boot.trim(),
            socket.ino()
        ));
    };
    let stat = tokio::fs::read_to_string(format!("/proc/{pid}/stat")).await?;
    let started = start_time(&stat).ok_or_else(unknown)?;
    Ok(format!("{}/{pid}/{started}", boot.trim()))
}

/// The start time in clock ticks since the boot. The name before it may hold anything, also parentheses.
fn start_time(stat: &str) -> Option<&str> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(START_TIME_FIELD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_read_whatever_the_process_is_called() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(start_time(&format!("42 (containerd) {rest}")), Some("4711"));
        assert_eq!(start_time(&format!("42 (a) b (c) {rest}")), Some("4711"));
        assert_eq!(start_time("42 (short) S 1"), None);
        assert_eq!(start_time(""), None);
    }

    #[tokio::test]
    async fn one_process_keeps_its_identity_and_no_process_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("runtime.sock");
        assert_eq!(instance(&socket).await, "");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let first = instance(&socket).await;
        assert_eq!(first.split('/').nth(1), Some(&*std::process::id().to_string()));
        assert_eq!(instance(&socket).await, first);
        drop(listener);
        assert_eq!(instance(&socket).await, "");
    }
}
