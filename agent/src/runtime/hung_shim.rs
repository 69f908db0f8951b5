//! Containers that containerd created while the shim of their sandbox did not answer.
//!
//! containerd 1.6 waits 2 s for the shim (`io.containerd.timeout.task.state`). After that it takes the number of the
//! sandbox's process for 0 and writes the namespaces of `/proc/0` into the container's OCI runtime spec, so that
//! StartContainer can only fail. A machine that has too much to do is enough for it.

use std::collections::HashMap;
use std::time::Duration;

use debuglet_proto::v1::ContainerStatusRequest;
use serde::Deserialize;

use super::client::Runtime;
use super::error::RuntimeError;

/// A CreateContainer that took less than this did not wait for a shim in vain. Half of containerd's limit.
pub(crate) const SUSPICIOUS: Duration = Duration::from_secs(1);

impl Runtime {
    /// Whether the container would join the namespaces of a process 0, and so cannot be started.
    ///
    /// # Errors
    ///
    /// The runtime did not answer, or answered an error.
    pub(crate) async fn joins_process_zero(&self, container_id: &str) -> Result<bool, RuntimeError> {
        let request = ContainerStatusRequest {
            container_id: container_id.to_owned(),
            verbose: true,
        };
        match self.runtime().container_status(request).await {
            Ok(answer) => Ok(names_process_zero(&answer.into_inner().info)),
            Err(status) => Err(RuntimeError::new(
                "read the status of container",
                container_id,
                &status,
            )),
        }
    }
}

/// What containerd tells of a container beside its status, under `info`: of its OCI runtime spec, the namespaces.
#[derive(Deserialize)]
struct Info {
    #[serde(rename = "runtimeSpec")]
    spec: Spec,
}

#[derive(Deserialize)]
struct Spec {
    linux: Linux,
}

#[derive(Deserialize)]
struct Linux {
    namespaces: Vec<Namespace>,
}

#[derive(Deserialize)]
struct Namespace {
    #[serde(default)]
    path: String,
}

fn names_process_zero(info: &HashMap<String, String>) -> bool {
    let spec = info.get("info").map(|text| serde_json::from_str(text));
    let Some(Ok(Info { spec })) = spec else {
        return false;
    };
    let mut namespaces = spec.linux.namespaces.iter();
    namespaces.any(|namespace| namespace.path.starts_with("/proc/0/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_joins_process_zero_where_one_of_its_namespaces_is_that_of_proc_0() {
        let spec = |path: &str| {
            format!(
                r#"{{"runtimeSpec":{{"linux":{{"namespaces":[{{"type":"pid"}},{{"type":"ipc","path":"{path}"}}]}}}}}}"#
            )
        };
        for (info, expected) in [
            (spec("/proc/0/ns/ipc"), true),
            (spec("/proc/4711/ns/ipc"), false),
            (r#"{"pid":0}"#.to_owned(), false),
            ("no JSON".to_owned(), false),
        ] {
            let answer = HashMap::from([("info".to_owned(), info.clone())]);
            assert_eq!(names_process_zero(&answer), expected, "{info}");
        }
        assert!(!names_process_zero(&HashMap::new()));
    }
}
