//! Containers that containerd created while the shim of their sandbox did not answer.
//!
//! containerd 1.6 waits 2 s for the shim (`io.containerd.timeout.task.state`). After that it takes the number of the
//! sandbox's process for 0 and writes the namespaces of `/proc/0` into the container's OCI runtime spec, so that
//! StartContainer can only fail. A machine that has too much to do is enough for it.

use std::time::Duration;

use serde::Deserialize;

use super::client::Runtime;

/// A CreateContainer that took less than this did not wait for a shim in vain. Half of containerd's limit.
pub(crate) const SUSPICIOUS: Duration = Duration::from_secs(1);

impl Runtime {
    /// Whether the container would join the namespaces of a process 0, and so cannot be started. Not where the runtime does
    /// not tell.
    pub(crate) async fn joins_process_zero(&self, container_id: &str) -> bool {
        let info = self.container_info::<Info>(container_id).await;
        info.is_some_and(|info| info.names_process_zero())
    }
}

/// The namespaces in a container's OCI runtime spec.
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

impl Info {
    fn names_process_zero(&self) -> bool {
        let mut namespaces = self.spec.linux.namespaces.iter();
        namespaces.any(|namespace| namespace.path.starts_with("/proc/0/"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::container_info::read;
    use super::*;

    #[test]
    fn a_container_joins_process_zero_where_one_of_its_namespaces_is_that_of_proc_0() {
        let joins = |answer: &HashMap<String, String>| {
            read::<Info>(answer).is_some_and(|info| info.names_process_zero())
        };
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
            assert_eq!(joins(&answer), expected, "{info}");
        }
        assert!(!joins(&HashMap::new()));
    }
}
