//! What a container mounts that is not debuglet's to set up: the volumes of somebody else's pod, and what another
//! container has mounted. Everything is looked for on the host first: a runtime makes a folder where there is nothing.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use debuglet_proto::v1::ContainerConfig;

use super::{Joined, Launch};
use crate::pod::copied_mounts::copied;
use crate::pod::plan::Held;
use crate::pod::status::Waiting;
use crate::runtime::error::RuntimeError;
use crate::worker::step::{Outcome, RETRY_AFTER, RETRY_SLOWLY, now};

impl Launch {
    /// Where the volumes of the pod that it joins are on the host: all that are known, and surely those that it mounts.
    pub(super) async fn their_volumes(&self, joined: &Joined) -> Result<BTreeMap<String, PathBuf>, Outcome> {
        let mut volumes = joined.volumes.clone();
        let set_up = joined
            .pod
            .kubelet_root
            .as_ref()
            .map(|root| root.join("pods").join(self.uid()).join("volumes"));
        for mount in self.container.volume_mounts.iter().flatten() {
            let name = &mount.name;
            if !volumes.contains_key(name)
                && let Some(folder) = &set_up
                && let Some(path) = find_volume(folder, name).await
            {
                volumes.insert(name.clone(), path);
            }
            let Some(path) = volumes.get(name) else {
                return Err(self.not_mounted(format!(
                    "cannot mount the volume {name:?}: none of the pod's containers has it mounted, so it is not known \
                     where it lies, or it was never set up"
                )));
            };
            if is_gone(path).await {
                return Err(self.not_mounted(format!(
                    "cannot mount the volume {name:?}: {} is not there any more",
                    path.display()
                )));
            }
        }
        Ok(volumes)
    }

    /// Adds the mounts that are to be copied: those of the newest container of the name, as they are at this moment.
    pub(super) async fn copy_mounts(&self, config: &mut ContainerConfig) -> Result<(), Outcome> {
        let Some(copy) = &self.copy_mounts else {
            return Ok(());
        };
        let from = &copy.from;
        let failed =
            |error: RuntimeError| Outcome::failed("CreateContainerError", error.to_string(), RETRY_AFTER);
        let mounts = self
            .context
            .runtime
            .newest_mounts(&self.sandbox.id, from)
            .await
            .map_err(failed)?;
        let Some(mounts) = mounts else {
            let message = format!("container {from:?}, whose mounts are to be copied, is gone");
            return Err(Outcome::failed("CreateContainerError", message, RETRY_AFTER));
        };
        let copied = copied(&self.pod, &mounts, &config.mounts, copy.include);
        for mount in &copied {
            // A volume that is an image has no path on the host.
            if !mount.host_path.is_empty() && is_gone(Path::new(&mount.host_path)).await {
                let (at, path) = (&mount.container_path, &mount.host_path);
                return Err(self.not_mounted(format!(
                    "cannot copy the mount {at} of container {from:?}: {path} is not there any more"
                )));
            }
        }
        config.mounts.extend(copied);
        Ok(())
    }

    fn not_mounted(&self, message: String) -> Outcome {
        self.warn(format!("Error: {message}"));
        let waiting = Waiting {
            reason: "CreateContainerConfigError".to_owned(),
            message,
        };
        Outcome::Failed(Held {
            waiting,
            // A volume may come back; who waits need not wait for that.
            retry_at: Some(now() + RETRY_SLOWLY),
            permanent: true,
            of_launch: true,
        })
    }
}

/// A volume of this name among those that a kubelet has set up: `FOLDER/PLUGIN/NAME`.
async fn find_volume(folder: &Path, name: &str) -> Option<PathBuf> {
    let mut plugins = tokio::fs::read_dir(folder).await.ok()?;
    while let Ok(Some(plugin)) = plugins.next_entry().await {
        let path = plugin.path().join(name);
        if tokio::fs::metadata(&path)
            .await
            .is_ok_and(|metadata| metadata.is_dir())
        {
            return Some(path);
        }
    }
    None
}

/// Whether there is nothing at this path; what cannot be looked at counts as there.
async fn is_gone(path: &Path) -> bool {
    let looked = tokio::fs::metadata(path).await;
    looked.is_err_and(|error| error.kind() == ErrorKind::NotFound)
}
