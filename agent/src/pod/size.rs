//! How large a pod may be: every pod that a client writes is held in memory, copied by each of its changes, and sent to
//! each watcher.

use std::io;

use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;

/// The most bytes that a pod has as JSON, with all its ephemeral containers: what etcd takes of one object.
pub(crate) const MAX_POD_BYTES: usize = 1_500_000;

/// A pod would have more than [`MAX_POD_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pod would have {bytes} bytes as JSON, and {MAX_POD_BYTES} are the most")]
pub(crate) struct TooLarge {
    bytes: usize,
}

/// Refuses a pod, as it is served, that has too many bytes.
pub(crate) fn judge(pod: &Pod) -> Result<(), TooLarge> {
    match json_bytes(pod) {
        bytes if bytes > MAX_POD_BYTES => Err(TooLarge { bytes }),
        _ => Ok(()),
    }
}

/// How many bytes an object has as JSON, without writing them anywhere.
pub(crate) fn json_bytes(object: &impl Serialize) -> usize {
    let mut counted = Counted(0);
    // Counting does not fail, and what cannot be written as JSON is not served.
    let _ = serde_json::to_writer(&mut counted, object);
    counted.0
}

/// Counts what is written.
struct Counted(usize);

impl io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_may_have_so_many_bytes_and_not_one_more() {
        let named = |length| {
            let mut pod = Pod::default();
            pod.metadata.name = Some("x".repeat(length));
            pod
        };
        let rest = json_bytes(&named(0));
        assert_eq!(rest, serde_json::to_vec(&named(0)).expect("JSON").len());
        assert_eq!(judge(&named(MAX_POD_BYTES - rest)), Ok(()));
        let bytes = MAX_POD_BYTES + 1;
        assert_eq!(judge(&named(bytes - rest)), Err(TooLarge { bytes }));
    }
}
