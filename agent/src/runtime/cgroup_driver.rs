//! Who makes the pods' cgroups: the runtime knows, and the agent must name them in the same way.

use debuglet_proto::v1::{CgroupDriver as CriCgroupDriver, RuntimeConfigRequest, StatusRequest};
use serde_json::Value;
use tonic::{Code, Status};

use super::client::Runtime;
use crate::pod::cgroup::CgroupDriver;

/// The runtime class that containerd takes when a pod names none and its configuration neither.
const DEFAULT_RUNTIME: &str = "runc";

impl Runtime {
    /// The cgroup driver that the runtime uses: asked by CRI's `RuntimeConfig`, and where that is not known
    /// (containerd before 2.0), read from the configuration that containerd shows in its `Status`.
    pub(crate) async fn cgroup_driver(&self) -> Result<CgroupDriver, Status> {
        match self.runtime().runtime_config(RuntimeConfigRequest {}).await {
            Ok(answer) => {
                if let Some(linux) = answer.into_inner().linux {
                    return Ok(match linux.cgroup_driver() {
                        CriCgroupDriver::Systemd => CgroupDriver::Systemd,
                        CriCgroupDriver::Cgroupfs => CgroupDriver::Cgroupfs,
                    });
                }
            }
            Err(status) if status.code() == Code::Unimplemented => {}
            Err(status) => return Err(status),
        }
        let status = self
            .runtime()
            .status(StatusRequest { verbose: true })
            .await?
            .into_inner();
        let config = status.info.get("config").map_or("", String::as_str);
        Ok(driver_in_configuration(config))
    }
}

/// The driver in containerd's CRI configuration, as JSON. What does not say is what runc does by itself.
fn driver_in_configuration(config: &str) -> CgroupDriver {
    let config: Value = serde_json::from_str(config).unwrap_or_default();
    let containerd = &config["containerd"];
    let runtime = containerd["defaultRuntimeName"]
        .as_str()
        .filter(|name| !name.is_empty());
    let options = &containerd["runtimes"][runtime.unwrap_or(DEFAULT_RUNTIME)]["options"];
    match options["SystemdCgroup"].as_bool() {
        Some(true) => CgroupDriver::Systemd,
        Some(false) | None => CgroupDriver::Cgroupfs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_is_that_of_the_default_runtime() {
        let runtimes =
            r#""runtimes": {"runc": {"options": {"SystemdCgroup": true}}, "kata": {"options": {}}}"#;
        let with =
            |default: &str| format!(r#"{{"containerd": {{"defaultRuntimeName": "{default}", {runtimes}}}}}"#);
        assert_eq!(driver_in_configuration(&with("runc")), CgroupDriver::Systemd);
        assert_eq!(driver_in_configuration(&with("")), CgroupDriver::Systemd);
        assert_eq!(driver_in_configuration(&with("kata")), CgroupDriver::Cgroupfs);
        assert_eq!(driver_in_configuration("not JSON"), CgroupDriver::Cgroupfs);
    }
}
