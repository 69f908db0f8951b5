//! What a container mounts that is not debuglet's to set up: the volumes of somebody else's pod, and what another
//! container has mounted. Everything is looked for on the host first: a runtime makes a folder where there is nothing.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use debuglet_proto::v1::ContainerConfig;

use super::{Joined, Launch};
use crate::pod::copied_mounts::copied;
use crate::pod::plan::Held;
use crate::pod::status::Waiting;
use crate::runtime::error::RuntimeError;
use crate::untrusted_file::{Folder, NoAnswer, VOLUMES, metadata};
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
            let unanswered =
                |error: NoAnswer| self.not_mounted(format!("cannot mount the volume {name:?}: {error}"));
            if !volumes.contains_key(name)
                && let Some(folder) = &set_up
                && let Some(path) = find_volume(folder, name).await.map_err(unanswered)?
            {
                volumes.insert(name.clone(), path);
            }
            let Some(path) = volumes.get(name) else {
                return Err(self.not_mounted(format!(
                    "cannot mount the volume {name:?}: none of the pod's containers has it mounted, so it is not known \
                     where it lies, or it was never set up"
                )));
            };
            if is_gone(path).await.map_err(unanswered)? {
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
            if mount.host_path.is_empty() {
                continue;
            }
            let (at, path) = (&mount.container_path, &mount.host_path);
            let reason = match is_gone(Path::new(path)).await {
                Ok(false) => continue,
                Ok(true) => format!("{path} is not there any more"),
                Err(error) => error.to_string(),
            };
            return Err(self.not_mounted(format!(
                "cannot copy the mount {at} of container {from:?}: {reason}"
            )));
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
async fn find_volume(folder: &Path, name: &str) -> Result<Option<PathBuf>, NoAnswer> {
    let (volumes, name) = (folder.to_path_buf(), name.to_owned());
    let look = move || -> io::Result<Option<PathBuf>> {
        let folder = Folder::open(&volumes)?;
        for plugin in folder.names()? {
            let path = Path::new(&plugin).join(&name);
            if folder.metadata(&path).is_ok_and(|found| found.is_dir()) {
                return Ok(Some(volumes.join(path)));
            }
        }
        Ok(None)
    };
    // What cannot be listed holds no volume.
    Ok(VOLUMES.run(folder, look).await?.unwrap_or_default())
}

/// Whether there is nothing at this path; what cannot be looked at counts as there.
async fn is_gone(path: &Path) -> Result<bool, NoAnswer> {
    let looked_at = path.to_path_buf();
    let look = move || metadata(&looked_at).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    VOLUMES.run(path, look).await
}
